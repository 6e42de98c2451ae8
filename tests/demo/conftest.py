"""A tiny extractor, for a tiny classifier."""

from ..fixtures_recipes import one_thread, tiny_codec, tiny_extractor

__all__ = ["one_thread", "tiny_codec", "tiny_extractor"]
