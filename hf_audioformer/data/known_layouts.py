"""Folders in the form in which known sets are published: which csv files they hold, and where the sound lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ClipList", "clip_lists"]


@dataclass(frozen=True)
class ClipList:
    """A csv file of a published set; all paths are relative to the folder of the set.

    Args:
        csv: The file.
        audio: Folder of the sound.
        name_column: Column with the names of the sound files, which lack `suffix`.
        label_column: Column with the label or, separated by `label_separator`, the labels.
        label_separator: None where a clip has one label.
        split: The split of all its clips, where no column says it.
    """

    csv: str
    audio: str
    name_column: str
    label_column: str
    suffix: str = ""
    label_separator: str | None = None
    split: str | None = None


# Source: github.com/karolpiczak/ESC-50; the files of FSD50K, doi.org/10.5281/zenodo.4060432.
_SETS = (
    (ClipList("meta/esc50.csv", "audio", "filename", "category"),),
    (
        ClipList("FSD50K.ground_truth/dev.csv", "FSD50K.dev_audio", "fname", "labels", ".wav", ","),
        ClipList("FSD50K.ground_truth/eval.csv", "FSD50K.eval_audio", "fname", "labels", ".wav", ",", split="test"),
    ),
)


def clip_lists(folder: Path) -> tuple[ClipList, ...]:
    """The csv files of the set that `folder` is; none if it is no known one."""
    return next((lists for lists in _SETS if (folder / lists[0].csv).is_file()), ())
