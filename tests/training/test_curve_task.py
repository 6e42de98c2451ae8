"""Numbers along time are measured over all known moments."""

import math
from collections.abc import Mapping, Sequence

import datasets
import numpy as np
import pytest

from hf_audioformer.data import ClipTable, Split
from hf_audioformer.data.curves import add_curves
from hf_audioformer.data.moments import MomentGrid
from hf_audioformer.metrics import regression_metrics
from hf_audioformer.training.curve_task import CurveRegression
from hf_audioformer.training.tasks import ScoredClips

pytestmark = pytest.mark.unit

# Points in the middles of moments of half a second.
TIMES = [0.25, 0.75, 1.25]
CURVES = {"a": (TIMES, [1.0, math.nan, 3.0]), "b": (TIMES, [5.0, 6.0, 8.0]), "c": (TIMES, [math.nan] * 3)}


def clips_of(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> ClipTable:
    rows = [
        {"filename": name, "time": time, "f0": value}
        for name, points in curves.items()
        for time, value in zip(*points, strict=True)
    ]
    table, names = add_curves(datasets.Dataset.from_dict({"id": list(curves)}), rows, "f0.csv", gap_seconds=0.5)
    return ClipTable(table, names, False, target_columns=names, has_curves=True)


def task_of(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], grid: MomentGrid) -> CurveRegression:
    return CurveRegression(clips_of(curves), grid)


def scored(task: CurveRegression) -> ScoredClips:
    logits = [np.array(of_clip, dtype=np.float32)[:, None] for of_clip in ([1, 7, 5], [4, 6, 9], [0, 0, 0, 0])]
    return task.compared(["a", "b", "c"], logits, ["f0"])


def test_metrics_are_of_all_known_moments_together() -> None:
    task = task_of(CURVES, MomentGrid(0.5))
    clips = scored(task)
    known, predicted = np.array([1.0, 3, 5, 6, 8]), np.array([1.0, 5, 4, 6, 9])
    metrics = task.metrics(clips)
    assert metrics == pytest.approx(regression_metrics(predicted, known))
    assert metrics["mae"] == pytest.approx(0.8)
    assert task.score(metrics) == pytest.approx(1 - 6 / np.square(known - 4.6).sum())
    (row,) = task.table(clips)
    assert (row["name"], row["clips"], row["moments"]) == ("f0", 2, 5)
    assert row["rmse"] == pytest.approx(1.2**0.5)
    assert task.left_out(clips) == []
    assert "also where there are none" in task.limit(clips)


def test_chance_is_the_mean_of_the_moments_of_training_clips() -> None:
    table = clips_of(CURVES)
    task = CurveRegression(table, MomentGrid(0.5))
    train = task.train_labels(table, [1, 2])
    assert [of_clip.shape for of_clip in train] == [(3, 1), (3, 1)]
    known = np.array([1.0, 3, 5, 6, 8])
    expected = regression_metrics(np.full(5, np.mean([5.0, 6.0, 8.0])), known)["r2"]
    assert task.chance(train, scored(task)) == pytest.approx(expected)
    clips = scored(task)
    assert task.chance(clips.labels, clips) == pytest.approx(0)
    cut = CurveRegression(table, MomentGrid(0.5, max_seconds=1.0))
    np.testing.assert_array_equal(cut.known_moments(["b"])[0], [[5.0], [6.0]])


def test_intervals_are_of_clips() -> None:
    task = task_of(CURVES, MomentGrid(0.5))
    clips = scored(task)
    first = ScoredClips(clips.ids[:2], clips.logits[:2], clips.labels[:2], clips.names)
    low, high = task.intervals(first, resamples=200)["mae"]
    assert 2 / 3 <= low < high <= 1.0  # those of b and of a alone
    metrics_of = task.metrics_of_clips(clips)
    assert metrics_of(np.array([1, 1, 2]))["mae"] == pytest.approx(2 / 3)


def test_intervals_are_not_of_clips_of_which_nothing_is_known() -> None:
    task = task_of(CURVES, MomentGrid(0.5))
    known = scored(task)
    nothing = np.zeros((0, 1), dtype=np.float32)  # what a Trainer leaves of such a clip
    clips = ScoredClips(known.ids, [*known.logits[:2], nothing], [*known.labels[:2], nothing], known.names)
    first = ScoredClips(clips.ids[:2], clips.logits[:2], clips.labels[:2], clips.names)
    assert task.intervals(clips, resamples=50)["mae"] == task.intervals(first, resamples=50)["mae"]


def test_predictions_have_a_row_per_moment() -> None:
    task = task_of(CURVES, MomentGrid(0.5))
    rows = list(task.predictions(scored(task)))
    assert len(rows) == 10
    assert rows[1] == {"id": "a", "seconds": "0.7500", "f0": "", "f0_predicted": "7"}
    assert rows[2] == {"id": "a", "seconds": "1.2500", "f0": "3", "f0_predicted": "5"}
    assert task.figures(scored(task), "clips")["curves.png"].axes


def test_clips_without_a_known_moment_have_no_metrics() -> None:
    task = task_of(CURVES, MomentGrid(0.5))
    clips = task.compared(["c"], [np.zeros((3, 1), dtype=np.float32)], ["f0"])
    assert all(math.isnan(value) for value in task.metrics(clips).values())
    assert math.isnan(task.chance(clips.labels, clips))
    assert task.left_out(clips) == ["f0"]
    assert task.intervals(clips, resamples=2) == {}


@pytest.mark.fault
def test_parts_in_which_nothing_can_be_learnt_are_refused() -> None:
    table = clips_of(CURVES | {"d": (TIMES, [2.0, 2.0, math.nan])})
    task = CurveRegression(table, MomentGrid(0.5))
    task.check(table, [Split("one", [0], [], [1, 2])])
    with pytest.raises(ValueError, match=r"split 'one', test part: 'f0' is not known in any moment; give it for more"):
        task.check(table, [Split("one", [0], [], [2])])
    with pytest.raises(ValueError, match=r"validation part: 'f0' is 2 in all 2 moments in which it is known; leave it"):
        task.check(table, [Split("one", [0], [2, 3], [1])])
