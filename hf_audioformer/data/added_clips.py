"""Clips of a second source that training learns from as well, and that are never tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..audio import Audio
from .clip_table import ClipTable
from .splits import Split

__all__ = ["with_added_clips"]

# In the joint table: which row of its own table an added clip is; None for the others.
ADDED_ROW = "row_of_added"


def with_added_clips(
    clips: ClipTable, splits: Sequence[Split], added: ClipTable, source: str, count: int | None, seed: int
) -> tuple[ClipTable, list[Split]]:
    """Both tables as one, the added clips behind the others, and the splits with `count` of them (all if not given),
    the same, in each training part.

    Names of added clips begin with `source`. The splits must have been made of `clips`.

    Raises:
        ValueError: There are fewer than `count`, some have labels that `clips` lack, or one of the tables is a code
            store.
    """
    import datasets

    if clips.codes is not None or added.codes is not None:
        raise ValueError(f"{source} cannot be added: a store of codes has no sound, and cannot be joined with clips")
    if count is not None and not 1 <= count <= len(added):
        raise ValueError(f"{count} clips of {source} are asked for; it has {len(added)}, and at least 1 must be taken")
    labels = "labels" if clips.multi_label else "label"
    columns = {
        "id": [f"{source}/{name}" for name in added.ids],
        labels: _numbered_as(clips, added, labels, source),
        ADDED_ROW: range(len(added)),
    }
    shared = {name: clips.table.features[name] for name in ("id", labels)}
    features = datasets.Features(shared | {ADDED_ROW: datasets.Value("int64")})
    rows = datasets.Dataset.from_dict(columns, features=features)
    joint = replace(
        clips, table=datasets.concatenate_datasets([clips.table, rows]), load_row=_LoadFromEither(clips, added)
    )
    order = np.random.default_rng(seed).permutation(len(added))[:count]
    drawn = sorted(len(clips) + int(index) for index in order)
    return joint, [replace(split, train=[*split.train, *drawn], added=drawn) for split in splits]


def _numbered_as(clips: ClipTable, added: ClipTable, column: str, source: str) -> list[Any]:
    """The column of the added clips' labels, class indices or lists of them, as `clips` number the classes."""
    if clips.label_names == added.label_names:
        return added.column(column)
    number_of = {name: number for number, name in enumerate(clips.label_names)}
    of_clips = [values if clips.multi_label else [values] for values in added.column(column)]
    names = [[added.label_names[value] for value in values] for values in of_clips]
    unknown = sorted({name for of_clip in names for name in of_clip} - {*clips.label_names})
    if unknown:
        raise ValueError(
            f"{source} cannot be added: {len(unknown)} of its labels are none of the clips that it is added to, first "
            f"{unknown[:3]}; these have {', '.join(clips.label_names[:10])}"
        )
    numbers = [[number_of[name] for name in of_clip] for of_clip in names]
    return numbers if clips.multi_label else [number for (number,) in numbers]


@dataclass(frozen=True)
class _LoadFromEither:
    clips: ClipTable
    added: ClipTable

    def __call__(self, row: Mapping[str, Any]) -> Audio:
        if row[ADDED_ROW] is None:
            return self.clips.load_row(row)
        return self.added.load(row[ADDED_ROW])
