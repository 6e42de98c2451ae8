"""Labelled tones and a tiny checkpoint."""

from ..fixtures_recipes import one_thread, tiny_checkpoint, tiny_codec, tiny_extractor, tone_csv, tone_folder
from ..hub_double import hub, hub_client

__all__ = [
    "hub",
    "hub_client",
    "one_thread",
    "tiny_checkpoint",
    "tiny_codec",
    "tiny_extractor",
    "tone_csv",
    "tone_folder",
]
