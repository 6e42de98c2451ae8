"""Labelled tones."""

from ..fixtures_recipes import one_thread, tone_folder

__all__ = ["one_thread", "tone_folder"]
