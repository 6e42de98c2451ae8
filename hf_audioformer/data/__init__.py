"""Labelled clips: reading, splitting, and batching them."""

from .clip_table import ClipTable
from .readers import read_clips

__all__ = ["ClipTable", "read_clips"]
