"""Tiny checkpoints of four kinds."""

from ..fixtures_recipes import one_thread, tiny_checkpoint, tiny_codec, tiny_extractor

__all__ = ["one_thread", "tiny_checkpoint", "tiny_codec", "tiny_extractor"]
