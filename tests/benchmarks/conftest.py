"""Labelled tones and a tiny checkpoint."""

from ..fixtures_recipes import tiny_checkpoint, tiny_codec, tiny_extractor, tone_csv

__all__ = ["tiny_checkpoint", "tiny_codec", "tiny_extractor", "tone_csv"]
