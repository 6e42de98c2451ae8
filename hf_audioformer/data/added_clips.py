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
        ValueError: There are fewer than `count`, or one of the tables is a code store.
    """
    import datasets

    if clips.codes is not None or added.codes is not None:
        raise ValueError(f"{source} cannot be added: a store of codes has no sound, and cannot be joined with clips")
    if count is not None and not 1 <= count <= len(added):
        raise ValueError(f"{count} clips of {source} are asked for; it has {len(added)}, and at least 1 must be taken")
    labels = "labels" if clips.multi_label else "label"
    columns = {
        "id": [f"{source}/{name}" for name in added.ids],
        labels: added.column(labels),
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
    return joint, [replace(split, train=[*split.train, *drawn]) for split in splits]


@dataclass(frozen=True)
class _LoadFromEither:
    clips: ClipTable
    added: ClipTable

    def __call__(self, row: Mapping[str, Any]) -> Audio:
        if row[ADDED_ROW] is None:
            return self.clips.load_row(row)
        return self.added.load(row[ADDED_ROW])
