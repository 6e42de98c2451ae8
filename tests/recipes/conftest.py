"""Labelled tones and a tiny checkpoint."""

from ..fixtures_recipes import one_thread, tiny_checkpoint, tiny_codec, tiny_extractor, tone_csv, tone_folder

__all__ = ["one_thread", "tiny_checkpoint", "tiny_codec", "tiny_extractor", "tone_csv", "tone_folder"]
