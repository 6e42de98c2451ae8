"""Dividing clips into train, validation and test.

Clips that share a value of `group_column` (speaker, recording) never lie on two sides. Validation is cut from the
training part, never from the test part. All draws depend on the seed and the order of the clips alone.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, partial
from typing import Any, Literal, get_args

import numpy as np

from .clip_table import ClipTable
from .labels import sorted_names

__all__ = ["USUAL_VALUES", "Split", "SplitArguments", "make_splits"]

logger = logging.getLogger(__name__)

# What is the same for the clips at some indices, in words; empty if nothing is.
SameIn = Callable[[Sequence[int]], str]
Strata = Callable[[], np.ndarray]

SplitKind = Literal["column", "folds", "drawn_folds", "fraction"]


# What the parts of a split are usually called; a folder of such a name is one, whatever its case.
USUAL_VALUES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "eval"),
}

# Which kinds use a setting that not all do.
_USERS: dict[str, tuple[SplitKind, ...]] = {
    "train_values": ("column",),
    "validation_values": ("column",),
    "test_values": ("column",),
    "num_folds": ("drawn_folds",),
    "run_folds": ("folds", "drawn_folds"),
    "without_folds": ("folds",),
    "test_fraction": ("fraction",),
}


@dataclass(frozen=True)
class SplitArguments:
    """How clips are divided; a section of a recipe's YAML file."""

    kind: SplitKind = field(
        default="fraction",
        metadata={
            "help": "column: its values name the parts; folds: each value of the column is tested once (leave one "
            "speaker out); drawn_folds: cross-validation with num_folds drawn folds; fraction: one drawn test part"
        },
    )
    column: str | None = field(default=None, metadata={"help": "for kind column and folds: the column with the values"})
    train_values: list[str | int] = field(
        default_factory=lambda: ["train"],
        metadata={"help": "for kind column: values that mean train; by default training too, if no other part has it"},
    )
    validation_values: list[str | int] = field(
        default_factory=lambda: ["validation"],
        metadata={
            "help": "for kind column: values that mean validation, by default valid, val and dev too; without such "
            "clips it is cut from train"
        },
    )
    test_values: list[str | int] = field(
        default_factory=lambda: ["test"],
        metadata={"help": "for kind column: values that mean test, by default eval too"},
    )
    num_folds: int = field(default=5, metadata={"help": "for kind drawn_folds: how many folds"})
    run_folds: list[str | int] | None = field(
        default=None, metadata={"help": "run only these folds (values of the column, or 1 to num_folds); default all"}
    )
    without_folds: list[str | int] = field(
        default_factory=list,
        metadata={
            "help": "for kind folds: leave the clips of these folds out altogether, to choose settings without them "
            "(nested cross-validation)"
        },
    )
    test_fraction: float = field(default=0.2, metadata={"help": "for kind fraction: share of the clips tested"})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "share of the training clips used for validation; 0 for none"}
    )
    group_column: str | None = field(
        default=None, metadata={"help": "clips with the same value of this column stay together (speaker, recording)"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the draws"})

    def __post_init__(self) -> None:
        kinds = get_args(SplitKind)
        if self.kind not in kinds:
            near = difflib.get_close_matches(str(self.kind), kinds, n=1, cutoff=0)
            raise ValueError(f"kind={self.kind!r}: did you mean {near[0]!r}? The kinds are {', '.join(kinds)}")
        if (self.column is not None) != (self.kind in ("column", "folds")):
            need = "needs a column" if self.column is None else f"does not use column={self.column!r} (group_column?)"
            raise ValueError(f"kind={self.kind!r} {need}")
        for name, users in _USERS.items():
            value = getattr(self, name)
            if self.kind not in users and value != _default(self, name):
                raise ValueError(f"kind={self.kind!r} does not use {name}={value}; kind {' and '.join(users)} does")
        if self.run_folds == []:
            raise ValueError("run_folds is an empty list; name at least one fold, or leave it out for all")
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction must lie between 0 and 1, got {self.test_fraction}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must be at least 0 and below 1, got {self.validation_fraction}")
        if self.num_folds < 2:
            raise ValueError(f"num_folds must be at least 2, got {self.num_folds}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


def _default(arguments: SplitArguments, name: str) -> Any:
    (of_name,) = (one for one in fields(arguments) if one.name == name)
    return of_name.default_factory() if callable(of_name.default_factory) else of_name.default


@dataclass(frozen=True)
class Split:
    """Indices of clips, each list in rising order; `name` tells the splits of one protocol apart.

    `added` are those of `train` that come from another source (`with_added_clips`); `unusable` would be in some part,
    and are in none because they cannot be used (`limited_to`).
    """

    name: str
    train: list[int]
    validation: list[int]
    test: list[int]
    added: list[int] = field(default_factory=list)
    unusable: list[int] = field(default_factory=list)

    def limited_to(self, usable: Container[int]) -> Split:
        """The split without clips that cannot be used.

        Raises:
            ValueError: None is left to train on, or to test.
        """

        def kept(indices: list[int]) -> list[int]:
            return [index for index in indices if index in usable]

        in_parts = sorted((*self.train, *self.validation, *self.test))
        left = Split(
            self.name,
            kept(self.train),
            kept(self.validation),
            kept(self.test),
            kept(self.added),
            unusable=[index for index in in_parts if index not in usable],
        )
        for name, before, after in (("train", self.train, left.train), ("test", self.test, left.test)):
            if not after:
                raise ValueError(f"split {self.name!r}: none of the {len(before)} clips of the {name} part can be used")
        return left

    @property
    def own_train(self) -> list[int]:
        """Those of `train` that come from the source that is tested."""
        return sorted({*self.train} - {*self.added})


def make_splits(clips: ClipTable, arguments: SplitArguments, *, must_vary: bool = True) -> list[Split]:
    """The splits to train and test on, one per fold, or a single one for the kinds `column` and `fraction`.

    With `must_vary` a part whose clips all have the same labels, or the same number in a column, is refused.

    Raises:
        ValueError: a column or value that does not exist, a part that is empty or does not vary, a group on two
            sides.
    """
    strata = cache(partial(_strata, clips))  # clips x classes, which only draws need
    groups = _groups(clips, arguments.group_column)
    _warn_of_own_split(clips, arguments)
    same: SameIn = partial(_same_in, clips.targets(), clips.target_columns) if must_vary else lambda indices: ""
    splits = [
        _with_validation(split, strata, groups, arguments, same)
        for split in _train_and_test(clips, strata, groups, arguments)
    ]
    for split in splits:
        _check(split, groups, arguments, same)
    return splits


def _warn_of_own_split(clips: ClipTable, arguments: SplitArguments) -> None:
    """Tells of a division that the source has itself, where another is drawn."""
    if arguments.column is None and "split" in clips.table.column_names:
        values = sorted_names({str(value) for value in clips.column("split")})
        logger.warning(
            "the clips have a column 'split' with %s, and parts are drawn without it; to test on its own, set "
            "split.kind column and split.column split",
            ", ".join(values[:5]),
        )


def _strata(clips: ClipTable) -> np.ndarray:
    """What each part is to hold its share of, (clips, classes): classes, and for numbers whether one is a large one."""
    targets = clips.targets()
    if clips.target_columns:
        return (targets > np.nanmedian(targets, axis=0)).astype(float)
    return targets if clips.multi_label else np.eye(len(clips.label_names))[targets]


def _train_and_test(clips: ClipTable, strata: Strata, groups: np.ndarray, arguments: SplitArguments) -> Iterator[Split]:
    column = arguments.column or ""  # both kinds that use it have it
    if arguments.kind == "column":
        yield _named_parts(column, _text_column(clips, column, may_be_blank=True), arguments)
    elif arguments.kind == "fraction":
        test = _draw(strata(), groups, arguments.test_fraction, arguments.seed)
        yield Split("fraction", _where(~test), [], _where(test))
    elif arguments.kind == "folds":
        values = _text_column(clips, column)
        names = sorted_names(values.tolist())
        left_out = _chosen(names, arguments.without_folds, "without_folds")
        for value in _chosen([name for name in names if name not in left_out], arguments.run_folds):
            test = values == value
            yield Split(f"{column}_{value}", _where(~test & ~np.isin(values, left_out)), [], _where(test))
    else:
        folds = _deal(strata(), groups, arguments.num_folds, arguments.seed)
        for name in _chosen([str(fold + 1) for fold in range(arguments.num_folds)], arguments.run_folds):
            test = folds == int(name) - 1
            yield Split(f"fold_{name}", _where(~test), [], _where(test))


def _named_parts(column: str, values: np.ndarray, arguments: SplitArguments) -> Split:
    part_values = {
        "train": [str(value) for value in arguments.train_values],
        "validation": [str(value) for value in arguments.validation_values],
        "test": [str(value) for value in arguments.test_values],
    }
    named = [value for part in part_values.values() for value in part]
    repeated = sorted({value for value in named if named.count(value) > 1})
    if repeated:
        raise ValueError(f"column {column!r}: {repeated} are named for two parts; each value has one")
    found = set(values.tolist())
    for value in sorted_names(found - set(named)):
        part = _usual_part(value, arguments)
        others = () if part is None else found.intersection(part_values[part])
        if part is None or any(other.lower() != value.lower() for other in others):  # eval beside test, what is that?
            raise ValueError(
                f"column {column!r}: the value {value!r} is neither in train_values {part_values['train']}, "
                f"validation_values {part_values['validation']} nor test_values {part_values['test']}"
            )
        part_values[part].append(value)
    return Split(column, **{part: _where(np.isin(values, of)) for part, of in part_values.items()})


def _usual_part(value: str, arguments: SplitArguments) -> str | None:
    """The part that has a value which is named for none: that which usually has it, if its values are the default."""
    for part, names in USUAL_VALUES.items():
        setting = f"{part}_values"
        if value.lower() in names and getattr(arguments, setting) == _default(arguments, setting):
            return part
    return None


def _with_validation(
    split: Split, strata: Strata, groups: np.ndarray, arguments: SplitArguments, same: SameIn
) -> Split:
    if split.validation or arguments.validation_fraction == 0 or not split.train:
        return split
    train = np.asarray(split.train)
    held_out = _draw(strata()[train], groups[train], arguments.validation_fraction, arguments.seed)
    if held_out.all() or same(train[held_out].tolist()):
        logger.warning(
            "%s: %d training clips are too few to cut validation clips from; the last epoch is kept",
            split.name,
            len(train),
        )
        return split
    return Split(split.name, train[~held_out].tolist(), train[held_out].tolist(), split.test)


def _draw(targets: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A mask (clips,) of whole groups that hold about `fraction` of every class.

    Groups are visited in random order and taken while that brings the class counts nearer to the wanted ones; a second
    round looks at the number of clips as well, for classes so small that each alone would give none.
    """
    counts, group_of = _count_groups(targets, groups)
    weights = 1 / np.maximum(counts.sum(0), 1)
    class_weights = np.append(weights[:-1], 0)
    missing = fraction * counts.sum(0)
    taken = np.zeros(len(counts), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(counts))
    for round_weights in (class_weights, weights):
        for group in order[~taken[order]]:
            rest = missing - counts[group]
            if round_weights @ (rest**2 - missing**2) < 0:
                taken[group], missing = True, rest
    if not taken.any():  # every group is large; one of them is still wanted
        taken[np.argmin(((missing - counts) ** 2) @ weights)] = True
    return taken[group_of]


def _deal(targets: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """A fold number (clips,) for whole groups: each goes, large ones first, where its classes are rarest."""
    counts, group_of = _count_groups(targets, groups)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    class_weights = 1 / np.maximum(counts[:, :-1].sum(0), 1)
    held = np.zeros((num_folds, counts.shape[1]))
    fold_of = np.zeros(len(counts), dtype=int)
    for group in order:
        crowding = held[:, :-1] @ (class_weights * counts[group, :-1])
        fold_of[group] = np.lexsort((held[:, -1], crowding))[0]
        held[fold_of[group]] += counts[group]
    return fold_of[group_of]


def _count_groups(targets: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clips of each class, and in the last column all clips, per group (groups, classes + 1); each clip's row in it."""
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), targets.shape[1] + 1))
    np.add.at(counts[:, :-1], group_of, targets)
    counts[:, -1] = np.bincount(group_of)
    return counts, group_of


def _groups(clips: ClipTable, group_column: str | None) -> np.ndarray:
    """The group of each clip; without a column every clip is its own."""
    return np.arange(len(clips)) if group_column is None else _text_column(clips, group_column)


def _text_column(clips: ClipTable, name: str, *, may_be_blank: bool = False) -> np.ndarray:
    values = clips.column(name)
    missing = (index for index, value in enumerate(values) if value is None or (value == "" and not may_be_blank))
    if (first := next(missing, None)) is not None:
        raise ValueError(f"column {name!r} has no value for clip {clips.ids[first]!r}")
    return np.asarray([str(value) for value in values])


def _chosen(names: list[str], wanted: Sequence[str | int] | None, argument: str = "run_folds") -> list[str]:
    unknown = [str(name) for name in wanted or [] if str(name) not in names]
    if unknown:
        raise ValueError(f"{argument} names {unknown[0]!r}; the folds are {', '.join(names)}")
    return names if wanted is None else [str(name) for name in wanted]


def _where(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()


def _same_in(labels: np.ndarray, target_columns: Sequence[str], indices: Sequence[int]) -> str:
    """What is the same for these clips: all labels, or a column of numbers; nothing if it is empty."""
    is_same = (labels[indices] == labels[indices[0]]).all(axis=0)
    if target_columns:
        return next((f"the same {name}" for name, same in zip(target_columns, is_same, strict=True) if same), "")
    return "one label" if is_same.all() else ""


def _check(split: Split, groups: np.ndarray, arguments: SplitArguments, same: SameIn) -> None:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    for name, indices in parts.items():
        if not indices and name == "validation":
            continue
        if not indices:
            raise ValueError(
                f"split {split.name!r}: of {len(groups)} clips none is left for the {name} part; check the values, "
                "fractions and groups, or add clips"
            )
        if what := same(indices):
            raise ValueError(
                f"split {split.name!r}: all clips of the {name} part ({len(indices)}) have {what}; at least two "
                "are needed, so enlarge its fraction or choose other values"
            )
    train, validation, test = (set(groups[indices].tolist()) for indices in parts.values())
    divided = (train & validation) | (train & test) | (validation & test)
    if divided:
        raise ValueError(
            f"split {split.name!r}: {min(divided)!r} of group_column {arguments.group_column!r} lies in two parts"
        )
