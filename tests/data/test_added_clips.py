"""Clips of a second source in the training parts, and nowhere else."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from hf_audioformer import read_clips
from hf_audioformer.data import SplitArguments, make_splits
from hf_audioformer.data.added_clips import with_added_clips

pytestmark = pytest.mark.unit


@pytest.fixture
def clips(tone_csv: Path):
    return read_clips(tone_csv)


@pytest.fixture
def added(tone_folder: Path, clips):
    return read_clips(tone_folder, multi_label=True)


@pytest.fixture
def splits(clips):
    return make_splits(clips, SplitArguments(kind="folds", column="fold"))


@pytest.mark.parametrize("count", [None, 5])
def test_training_parts_grow_and_the_others_stay(clips, added, splits, count):
    joint, grown = with_added_clips(clips, splits, added, "tones", count, seed=0)
    assert len(joint) == len(clips) + len(added)
    for before, after in zip(splits, grown, strict=True):
        assert (after.name, after.validation, after.test) == (before.name, before.validation, before.test)
        assert after.train[: len(before.train)] == before.train
        new = after.train[len(before.train) :]
        assert len(new) == (count or len(added))
        assert all(index >= len(clips) for index in new)
        assert new == sorted(set(new)) == grown[0].train[-len(new) :]
        assert (after.added, after.own_train) == (new, before.train)


def test_clips_of_the_tested_fold_stay_apart(clips, splits):
    _, grown = with_added_clips(clips, splits, clips, "again", None, seed=0, kept_apart=["fold", "speaker"])
    for split in grown:
        new = {index - len(clips) for index in split.added}
        assert new == {*range(len(clips))} - {*split.test}  # validation clips are drawn from the same folds
    held = splits[0].test
    with pytest.raises(ValueError, match=r"again cannot be added: each .* a value of fold that is held out .* fold_1"):
        with_added_clips(clips, splits[:1], clips.select(held), "again", None, seed=0, kept_apart=["fold"])


def test_sounds_labels_and_names_are_those_of_their_source(clips, added, splits):
    joint, _ = with_added_clips(clips, splits, added, "tones", None, seed=0)
    np.testing.assert_array_equal(joint.targets(), np.concatenate([clips.targets(), added.targets()]))
    assert joint.ids == clips.ids + [f"tones/{name}" for name in added.ids]
    for index, (source, row) in {3: (clips, 3), len(clips) + 7: (added, 7)}.items():
        np.testing.assert_array_equal(joint.load(index)["array"], source.load(row)["array"])


def test_other_seeds_draw_other_clips(clips, added, splits):
    drawn = [with_added_clips(clips, splits, added, "tones", 8, seed)[1][0].train for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("count", [0, 1000])
def test_more_clips_than_there_are_is_an_error(clips, added, splits, count):
    with pytest.raises(ValueError, match=rf"{count} clips of tones are asked for; it has {len(added)}"):
        with_added_clips(clips, splits, added, "tones", count, seed=0)


@pytest.mark.parametrize("multi_label", [True, False])
def test_labels_are_matched_by_name(tone_folder: Path, tmp_path: Path, multi_label):
    """Of one of the classes, which in its own source has another number."""
    clips = read_clips(tone_folder, multi_label=multi_label)
    *_, last = clips.label_names
    rest = tmp_path / "rest"
    shutil.copytree(tone_folder / last, rest / last)
    added = read_clips(rest, multi_label=multi_label)
    (split,) = make_splits(clips, SplitArguments())
    joint, _ = with_added_clips(clips, [split], added, "rest", None, seed=0)
    of_last = [index for index in range(len(clips)) if clips.ids[index].startswith(last)]
    expected = clips.targets(of_last[:1]).repeat(len(added), axis=0)
    np.testing.assert_array_equal(joint.targets(range(len(clips), len(joint))), expected)


def test_a_label_that_the_clips_lack_is_an_error(tone_folder: Path, tmp_path: Path):
    clips = read_clips(tone_folder)
    shutil.copytree(tone_folder / clips.label_names[0], tmp_path / "rest" / "whistle")
    added = read_clips(tmp_path / "rest")
    splits = make_splits(clips, SplitArguments())
    message = rf"rest cannot be added: 1 of its labels .* \['whistle'\]; these have {', '.join(clips.label_names)}"
    with pytest.raises(ValueError, match=message):
        with_added_clips(clips, splits, added, "rest", None, seed=0)
