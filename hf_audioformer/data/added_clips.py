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
    clips: ClipTable,
    splits: Sequence[Split],
    added: ClipTable,
    source: str,
    count: int | None,
    seed: int,
    kept_apart: Sequence[str] = (),
) -> tuple[ClipTable, list[Split]]:
    """Both tables as one, the added clips behind the others, and the splits with `count` of them (all if not given) in
    each training part: the same, but for those that share a value of a column that is `kept_apart`, such as a fold or a
    speaker, with a clip of the split's other parts and with none that is trained on.

    Names of added clips begin with `source`. The splits must have been made of `clips`.

    Raises:
        ValueError: There are fewer than `count`, some have labels that `clips` lack, all must be kept apart from the
            other parts of a split, or one of the tables is a code store.
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
    drawn = np.sort(order)
    grown = []
    for split in splits:
        allowed = drawn[~_is_held_out(clips, split, added, kept_apart)[drawn]]
        if not len(allowed):
            raise ValueError(
                f"{source} cannot be added: each of its clips has a value of {' or '.join(kept_apart)} that is held "
                f"out for testing or validation in the split {split.name}"
            )
        new = (len(clips) + allowed).tolist()
        grown.append(replace(split, train=[*split.train, *new], added=new))
    return joint, grown


def _is_held_out(clips: ClipTable, split: Split, added: ClipTable, columns: Sequence[str]) -> np.ndarray:
    """Which of the added clips have a value in common with clips that are not trained on, bool (added clips,)."""
    held_out = np.zeros(len(added), dtype=bool)
    for column in columns:
        if column in added.table.column_names:
            values = [str(value) for value in clips.column(column)]
            apart = {values[index] for index in (*split.validation, *split.test)} - {values[i] for i in split.train}
            held_out |= [str(value) in apart for value in added.column(column)]
    return held_out


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
