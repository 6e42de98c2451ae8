"""Labelled tones and tiny checkpoints."""

from ..fixtures_recipes import (
    one_thread,
    tiny_c1,
    tiny_checkpoint,
    tiny_codec,
    tiny_companions,
    tiny_extractor,
    tone_csv,
    tone_folder,
)

__all__ = [
    "one_thread",
    "tiny_c1",
    "tiny_checkpoint",
    "tiny_codec",
    "tiny_companions",
    "tiny_extractor",
    "tone_csv",
    "tone_folder",
]
