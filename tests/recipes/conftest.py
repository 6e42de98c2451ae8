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
from ..hub_double import hub, hub_client

__all__ = [
    "hub",
    "hub_client",
    "one_thread",
    "tiny_c1",
    "tiny_checkpoint",
    "tiny_codec",
    "tiny_companions",
    "tiny_extractor",
    "tone_csv",
    "tone_folder",
]
