"""Labelled clips: reading, splitting, and batching them."""

from .clip_table import ClipTable
from .collators import CodeCollator, MaskedCodeCollator
from .readers import read_clips
from .splits import Split, SplitArguments, make_splits

__all__ = [
    "ClipTable",
    "CodeCollator",
    "MaskedCodeCollator",
    "Split",
    "SplitArguments",
    "make_splits",
    "read_clips",
]
