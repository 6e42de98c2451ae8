"""Labels of any form (names, class indices, lists, separated text) to class indices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import datasets

__all__ = ["as_rows", "class_balanced_weights", "index_labels", "read_numbers", "sorted_names"]


def index_labels(
    table: datasets.Dataset,
    column: str,
    separator: str,
    multi_label: bool | None,
    label_names: Sequence[str] | None,
    source: str,
) -> tuple[datasets.Dataset, tuple[str, ...], bool]:
    """Add `label` (class index) or `labels` (list of class indices), in place of columns of these names.

    Returns the table, the class names in order, and whether it is multi-label. The arguments are those of `read_clips`.

    Raises:
        ValueError: a clip without a usable label, numbers that are no classes, names that `label_names` lacks.
    """
    import datasets

    cells, declared = table[column][:], _declared_names(table.features[column])
    if multi_label is None:
        multi_label = column == "labels" or any(_holds_several(cell, separator) for cell in cells)
    per_clip = [
        _cell_names(
            cell, declared, separator if multi_label else None, f"{source}, clip {clip_id!r}, column {column!r}"
        )
        for clip_id, cell in zip(table["id"], cells, strict=True)
    ]
    names = tuple(label_names or declared or sorted_names(name for clip in per_clip for name in clip))
    _check_names(names, per_clip, source)
    index = {name: position for position, name in enumerate(names)}
    indices = [[index[name] for name in clip] for clip in per_clip]
    table = table.remove_columns([name for name in ("label", "labels") if name in table.column_names])
    feature = datasets.ClassLabel(names=list(names))
    if multi_label:
        return table.add_column("labels", indices, feature=datasets.List(feature)), names, True
    return table.add_column("label", [clip[0] for clip in indices], feature=feature), names, False


def read_numbers(table: datasets.Dataset, columns: Sequence[str], source: str) -> datasets.Dataset:
    """Turn these columns into numbers, float64.

    Raises:
        ValueError: there is no such column, or a clip has no finite number in it.
    """
    for column in columns:
        if column not in table.column_names:
            raise ValueError(
                f"{source}: target_columns names {column!r}; the columns are {', '.join(sorted(table.column_names))}"
            )
        where = (f"{source}, clip {clip_id!r}, column {column!r}" for clip_id in table["id"])
        numbers = [_number(cell, place) for cell, place in zip(table[column][:], where, strict=True)]
        table = table.remove_columns(column).add_column(column, numbers)
    return table


def _number(cell: Any, where: str) -> float:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"{where}: {cell!r} is no finite number, and target_columns need one for each clip. Remove the clip or "
            "give it one; for words as classes use label_column"
        )
    return number


def _declared_names(feature: Any) -> list[str] | None:
    """The class names that a `ClassLabel`, or a list of them, brings along."""
    return getattr(getattr(feature, "feature", feature), "names", None)


def _holds_several(cell: Any, separator: str) -> bool:
    return isinstance(cell, list) or (isinstance(cell, str) and separator in cell)


def _cell_names(cell: Any, declared: list[str] | None, separator: str | None, where: str) -> list[str]:
    """The distinct class names in one cell; exactly one when `separator` is None (single label)."""
    if isinstance(cell, list):
        values = cell
    elif isinstance(cell, str) and separator is not None:
        values = [part for part in cell.split(separator) if part.strip()]
    else:
        values = [cell]
    names = list(dict.fromkeys(_name(value, declared, where) for value in values))
    if separator is None and len(names) != 1:
        raise ValueError(f"{where}: {len(names)} labels {names}, expected one; set multi_label for several")
    return names


def _name(value: Any, declared: list[str] | None, where: str) -> str:
    value = value.strip() if isinstance(value, str) else value
    if value is None or value == "" or (declared is not None and value == -1):
        raise ValueError(f"{where}: no label; remove the clip or label it")
    if not isinstance(value, str | int):
        raise ValueError(f"{where}: the label {value!r} is a {type(value).__name__}; expected text or an integer")
    if declared is None or isinstance(value, str):
        return str(value)
    if not 0 <= value < len(declared):
        raise ValueError(f"{where}: class {value} is out of range; there are {len(declared)} classes, 0 first")
    return declared[value]


def as_rows(targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels, class indices (clips,) or rows of them, as float32 (clips, num_classes)."""
    if targets.ndim == 1:
        return np.eye(num_classes, dtype=np.float32)[targets]
    return targets.astype(np.float32, copy=False)


def class_balanced_weights(targets: np.ndarray) -> np.ndarray:
    """How often to draw each clip so that rare classes are heard as often as frequent ones, float64 (clips,).

    A clip weighs the sum over its labels of 1000 / (number of clips with that label + 0.01); a clip without a label
    weighs 0 and is never drawn.

    Args:
        targets: Labels of the clips drawn from, int64 (clips,) or multi-hot (clips, classes).

    Source: the recipe of AST for AudioSet, `gen_weight_file` in github.com/YuanGongND/ast.
    """
    multi_hot = np.eye(targets.max() + 1)[targets] if targets.ndim == 1 else targets
    return multi_hot @ (1000 / (multi_hot.sum(axis=0) + 0.01))


def sorted_names(names: Iterable[str]) -> list[str]:
    """In alphabetical order, or by value when all are whole numbers."""
    distinct = set(names)
    return sorted(sorted(distinct), key=int if all(name.isdecimal() for name in distinct) else str)


def _check_names(names: Sequence[str], per_clip: Iterable[Sequence[str]], source: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{source}: label_names repeats {', '.join(map(repr, repeated))}; class names must be unique")
    found = {name for clip in per_clip for name in clip}
    unknown, unused = sorted(found - set(names)), sorted(set(names) - found)
    if unknown:
        raise ValueError(
            f"{source}: {len(unknown)} labels are not in label_names, first {unknown[:3]}; "
            f"{len(unused)} of label_names are not in the data, first {unused[:3]}. The names must agree."
        )
