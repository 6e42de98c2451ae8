"""Splits are complete and disjoint, never divide a group, keep the class shares, and refuse what cannot be measured."""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_audioformer.data import ClipTable, Split, SplitArguments, make_splits


def clip_table(labels: Sequence[int] | Sequence[list[int]], **columns: Sequence[Any]) -> ClipTable:
    multi_label = isinstance(labels[0], list)
    table = {
        "id": [str(index) for index in range(len(labels))],
        "labels" if multi_label else "label": labels,
        **columns,
    }
    flat = [label for clip in labels for label in clip] if multi_label else labels
    names = tuple(f"class {index}" for index in range(max(flat) + 1))
    return ClipTable(datasets.Dataset.from_dict(table), names, multi_label)


@st.composite
def grouped_clips(draw: st.DrawFn) -> ClipTable:
    """Eight to twelve groups of unlike size; every class occurs in every group; single or multi-label."""
    num_classes = draw(st.integers(2, 4))
    labels, groups = [], []
    for group in range(draw(st.integers(8, 12))):
        for label in range(num_classes):
            count = draw(st.integers(1, 3))
            labels += [label] * count
            groups += [group] * count
    order = np.random.default_rng(draw(st.integers(0, 9))).permutation(len(labels))
    multi_label = draw(st.booleans())
    chosen = [[labels[i], (labels[i] + i) % num_classes] if multi_label else labels[i] for i in order]
    return clip_table(chosen, speaker=[groups[i] for i in order])


def assert_sound(split: Split, clips: ClipTable, group_column: str | None) -> None:
    assert sorted(split.train + split.validation + split.test) == list(range(len(clips)))
    assert split.train == sorted(split.train)
    if group_column is not None:
        groups = np.asarray(clips.column(group_column))
        parts = [set(groups[part]) for part in (split.train, split.validation, split.test)]
        assert sum(map(len, parts)) == len(set(groups))


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(grouped_clips(), st.sampled_from([None, "speaker"]), st.integers(0, 5), st.sampled_from([0.0, 0.2]))
def test_fraction_is_complete_disjoint_and_respects_groups(
    clips: ClipTable, group_column: str | None, seed: int, validation_fraction: float
) -> None:
    arguments = SplitArguments(
        test_fraction=0.3, validation_fraction=validation_fraction, group_column=group_column, seed=seed
    )
    (split,) = make_splits(clips, arguments)
    assert_sound(split, clips, group_column)
    assert bool(split.validation) == (validation_fraction > 0)
    assert 0.1 < len(split.test) / len(clips) < 0.5
    assert make_splits(clips, arguments) == [split]


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(grouped_clips(), st.sampled_from([None, "speaker"]), st.integers(2, 4), st.integers(0, 5))
def test_drawn_folds_test_each_clip_once(clips: ClipTable, group_column: str | None, num_folds: int, seed: int) -> None:
    arguments = SplitArguments(
        kind="drawn_folds", num_folds=num_folds, group_column=group_column, seed=seed, validation_fraction=0.2
    )
    splits = make_splits(clips, arguments)
    assert [split.name for split in splits] == [f"fold_{number + 1}" for number in range(num_folds)]
    assert sorted(index for split in splits for index in split.test) == list(range(len(clips)))
    for split in splits:
        assert_sound(split, clips, group_column)


@pytest.mark.property
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(10, 40), min_size=2, max_size=6), st.integers(0, 5))
def test_draws_without_groups_keep_the_class_shares(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    clips = clip_table(labels.tolist())
    (split,) = make_splits(clips, SplitArguments(test_fraction=0.2, validation_fraction=0, seed=seed))
    tested = np.bincount(labels[split.test], minlength=len(counts))
    assert np.abs(tested - 0.2 * np.asarray(counts)).max() <= 1
    folds = make_splits(clips, SplitArguments(kind="drawn_folds", num_folds=4, validation_fraction=0, seed=seed))
    per_fold = np.asarray([np.bincount(labels[fold.test], minlength=len(counts)) for fold in folds])
    assert np.ptp(per_fold, axis=0).max() <= 2


@pytest.mark.unit
def test_seed_changes_the_draw() -> None:
    clips = clip_table([0, 1] * 20)
    first, second = (make_splits(clips, SplitArguments(seed=seed))[0] for seed in (0, 1))
    assert first.test != second.test


@pytest.mark.unit
def test_folds_test_each_value_once_in_natural_order() -> None:
    clips = clip_table([0, 1] * 9, fold=[10] * 6 + [2] * 6 + [1] * 6)
    splits = make_splits(clips, SplitArguments(kind="folds", column="fold", validation_fraction=0.2))
    assert [split.name for split in splits] == ["fold_1", "fold_2", "fold_10"]
    assert splits[0].test == list(range(12, 18))
    for split in splits:
        assert_sound(split, clips, None)


@pytest.mark.unit
def test_only_the_folds_asked_for_run() -> None:
    clips = clip_table([0, 1] * 9, fold=["a"] * 6 + ["b"] * 6 + ["c"] * 6)
    arguments = SplitArguments(kind="folds", column="fold", run_folds=["c", "a"], validation_fraction=0)
    assert [split.name for split in make_splits(clips, arguments)] == ["fold_c", "fold_a"]


@pytest.mark.unit
def test_folds_can_be_left_out_altogether() -> None:
    clips = clip_table([0, 1] * 9, fold=["a"] * 6 + ["b"] * 6 + ["c"] * 6)
    arguments = SplitArguments(kind="folds", column="fold", without_folds=["b"], validation_fraction=0)
    first, last = list(range(6)), list(range(12, 18))
    assert make_splits(clips, arguments) == [Split("fold_a", last, [], first), Split("fold_c", first, [], last)]


@pytest.mark.unit
def test_column_names_the_parts() -> None:
    clips = clip_table([0, 1, 0, 1, 0, 1], split=["train", "train", "dev", "dev", "test", "test"])
    (split,) = make_splits(clips, SplitArguments(kind="column", column="split", validation_values=["dev"]))
    assert split == Split("split", [0, 1], [2, 3], [4, 5])


@pytest.mark.unit
@pytest.mark.parametrize(
    "names",
    [("training", "valid", "eval"), ("Train", "val", "TEST"), ("train", "dev", "test"), ("train", "Valid", "eval")],
)
def test_usual_names_of_parts_need_no_setting(names: tuple[str, ...]) -> None:
    clips = clip_table([0, 1] * 3, split=[name for name in names for _ in range(2)])
    (split,) = make_splits(clips, SplitArguments(kind="column", column="split"))
    assert split == Split("split", [0, 1], [2, 3], [4, 5])


@pytest.mark.unit
def test_values_that_are_named_mean_what_they_are_named_for() -> None:
    clips = clip_table([0, 1] * 4, split=[name for name in ("train", "dev", "val", "eval") for _ in range(2)])
    by_split = {"kind": "column", "column": "split", "validation_fraction": 0}
    (split,) = make_splits(clips, SplitArguments(**by_split, train_values=["train", "dev"]))
    assert split == Split("split", [0, 1, 2, 3], [4, 5], [6, 7])
    with pytest.raises(ValueError, match=r"the value 'val' is neither in .* validation_values \['dev'\]"):
        make_splits(clips, SplitArguments(**by_split, validation_values=["dev"]))


@pytest.mark.fault
@pytest.mark.parametrize("names", [("train", "eval", "test"), ("train", "dev", "val"), ("train", "training", "test")])
def test_two_names_of_one_part_are_not_joined(names: tuple[str, ...]) -> None:
    clips = clip_table([0, 1] * 3, split=[name for name in names for _ in range(2)])
    with pytest.raises(ValueError, match=r"the value '(eval|val|training)' is neither in train_values"):
        make_splits(clips, SplitArguments(kind="column", column="split"))


@pytest.mark.unit
def test_validation_is_cut_from_train_when_the_column_has_none() -> None:
    clips = clip_table([0, 1] * 15, part=[1] * 20 + [2] * 10)
    arguments = SplitArguments(kind="column", column="part", train_values=[1], test_values=[2], validation_fraction=0.2)
    (split,) = make_splits(clips, arguments)
    assert split.test == list(range(20, 30))
    assert len(split.validation) == 4
    assert set(split.validation) < set(range(20))


@pytest.mark.unit
def test_large_groups_still_give_one_for_validation() -> None:
    clips = clip_table([0, 1] * 15, speaker=["a"] * 10 + ["b"] * 10 + ["c"] * 10)
    arguments = SplitArguments(kind="folds", column="speaker", group_column="speaker", validation_fraction=0.1)
    for split in make_splits(clips, arguments):
        assert [len(part) for part in (split.train, split.validation, split.test)] == [10, 10, 10]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings_given", "message"),
    [
        ({"kind": "fold", "column": "x"}, "kind='fold': did you mean 'folds'"),
        ({"kind": "folds"}, "kind='folds' needs a column"),
        (
            {"kind": "fraction", "column": "speaker"},
            r"kind='fraction' does not use column='speaker' \(group_column\?\)",
        ),
        ({"test_fraction": 1.0}, "test_fraction must lie between 0 and 1"),
        ({"validation_fraction": -0.1}, "validation_fraction must be at least 0"),
        ({"kind": "drawn_folds", "num_folds": 1}, "num_folds must be at least 2"),
        ({"num_folds": 3}, "kind='fraction' does not use num_folds=3; kind drawn_folds does"),
        ({"run_folds": [1]}, r"kind='fraction' does not use run_folds=\[1\]; kind folds and drawn_folds does"),
        ({"kind": "drawn_folds", "run_folds": []}, "run_folds is an empty list"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_out_of_range(settings_given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitArguments(**settings_given)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings_given", "message"),
    [
        (
            {"kind": "column", "column": "parts"},
            "no column 'parts' in the clips; there are id, label, one, pair, part, take",
        ),
        (
            {"kind": "column", "column": "part", "validation_values": ["val"]},
            "the value 'dev' is neither in train_values",
        ),
        (
            {"kind": "column", "column": "part", "validation_values": ["dev", "test"]},
            r"\['test'\] are named for two parts",
        ),
        (
            {
                "kind": "column",
                "column": "part",
                "train_values": ["train", "dev", "test"],
                "test_values": [],
                "validation_fraction": 0,
            },
            "none is left for the test part",
        ),
        (
            {"kind": "column", "column": "part", "validation_values": ["dev"]},
            "all clips of the validation part \\(2\\) have one",
        ),
        (
            {"kind": "folds", "column": "part", "run_folds": ["tset"]},
            "run_folds names 'tset'; the folds are dev, test, train",
        ),
        (
            {"kind": "folds", "column": "part", "without_folds": ["tset"]},
            "without_folds names 'tset'; the folds are dev, test, train",
        ),
        (
            {"kind": "folds", "column": "part", "run_folds": ["test"], "without_folds": ["test"]},
            "run_folds names 'test'; the folds are dev, train",
        ),
        ({"without_folds": [1]}, "kind='fraction' does not use without_folds=\\[1\\]"),
        ({"kind": "folds", "column": "take"}, "column 'take' has no value for clip '2'"),
        (
            {"kind": "folds", "column": "part", "group_column": "pair", "validation_fraction": 0},
            "'1' of group_column 'pair' lies in two parts",
        ),
        ({"group_column": "one"}, "none is left for the train part"),
    ],
)
def test_clips_that_do_not_fit(settings_given: dict[str, Any], message: str) -> None:
    clips = clip_table(
        [0, 1, 0, 1, 0, 1, 1, 1],
        part=["train", "train", "train", "train", "test", "test", "dev", "dev"],
        take=["a", "b", None, "a", "b", "a", "b", "a"],
        pair=[0, 0, 1, 1, 1, 2, 2, 3],
        one=[0] * 8,
    )
    if settings_given.get("kind") == "folds" and settings_given.get("group_column"):
        clips = clips.select(range(6))
    with pytest.raises(ValueError, match=message):
        make_splits(clips, SplitArguments(**settings_given))


@pytest.mark.unit
def test_too_few_clips_for_validation_train_without_it(caplog: pytest.LogCaptureFixture) -> None:
    (split,) = make_splits(clip_table([0, 1] * 3), SplitArguments(test_fraction=0.34))
    assert split.validation == []
    assert set(split.train) | set(split.test) == set(range(6))
    assert "4 training clips are too few to cut validation clips from" in caplog.text


def number_table(numbers: Sequence[float], **columns: Sequence[Any]) -> ClipTable:
    ids = [str(index) for index in range(len(numbers))]
    table = datasets.Dataset.from_dict({"id": ids, "tempo": numbers, **columns})
    return ClipTable(table, ("tempo",), False, target_columns=("tempo",))


@pytest.mark.unit
def test_a_single_group_is_trained_on_without_validation(caplog: pytest.LogCaptureFixture) -> None:
    clips = clip_table([0, 1] * 8, speaker=["a"] * 8 + ["b"] * 8)
    arguments = SplitArguments(kind="folds", column="speaker", group_column="speaker")
    for split in make_splits(clips, arguments):
        assert (len(split.train), split.validation, len(split.test)) == (8, [], 8)
    assert "too few to cut validation clips from" in caplog.text


def test_parts_of_numbers_must_vary_and_may_all_lie_on_one_side_of_the_median() -> None:
    by_part = SplitArguments(kind="column", column="part", validation_fraction=0)
    part = ["train"] * 4 + ["test"] * 2
    (split,) = make_splits(number_table([1, 2, 3, 4, 8, 9], part=part), by_part)
    assert split.test == [4, 5]
    (split,) = make_splits(number_table([0, 1, 1, 1] * 5), SplitArguments())  # none is above the median
    assert len(split.test) == 4
    with pytest.raises(ValueError, match=r"all clips of the test part \(2\) have the same tempo; at least two"):
        make_splits(number_table([1, 2, 3, 4, 9, 9], part=part), by_part)


@pytest.mark.unit
def test_labels_need_not_vary_where_it_is_asked_when_they_are_heard() -> None:
    clips = clip_table([[0]] * 10)
    with pytest.raises(ValueError, match="have one label"):
        make_splits(clips, SplitArguments())
    (split,) = make_splits(clips, SplitArguments(validation_fraction=0.2), must_vary=False)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [6, 2, 2]
