"""What the pages are served from: tiny checkpoints with a tiny codec."""

from ..fixtures_recipes import tiny_codec, tiny_extractor

__all__ = ["tiny_codec", "tiny_extractor"]
