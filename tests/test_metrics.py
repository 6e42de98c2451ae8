"""Metrics against scikit-learn, against the published reference of lwlrap, and against known values."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    label_ranking_average_precision_score,
    mean_absolute_error,
    mean_squared_error,
    precision_recall_curve,
    precision_recall_fscore_support,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from hf_audioformer.metrics import (
    class_probabilities,
    classes_left_out,
    classification_metrics,
    confidence_intervals,
    confusion_matrix,
    known_mean,
    per_class_table,
    per_target_table,
    precisions_at_positives,
    regression_metrics,
)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits (clips, classes) and multi-hot labels of any density; from all distinct to all equal scores; the last
    class has a positive, the first, at times, none or nothing else."""
    clips, classes = draw(st.integers(2, 30)), draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = (rng.random((clips, classes)) < draw(st.sampled_from([0.1, 0.5, 0.9]))).astype(np.float32)
    labels[:, 0] = draw(st.sampled_from([0, 1, labels[:, 0]]))
    labels[0, -1] = 1
    levels = draw(st.sampled_from([1, 2, 5, 10_000]))
    logits = rng.integers(-levels, levels, size=(clips, classes)) / 7
    return logits.astype(draw(st.sampled_from([np.float32, np.float64]))), labels


@pytest.mark.reference
@pytest.mark.filterwarnings("error")
@settings(max_examples=150, deadline=None)
@given(scored())
def test_multi_label_equals_scikit_learn(sample: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = sample
    positive = labels.any(0)
    metrics = classification_metrics(logits, labels)
    table = per_class_table(logits, labels, [str(index) for index in range(labels.shape[1])])
    for row, scores, truth in zip(table, logits.T, labels.T, strict=True):
        assert row["clips"] == truth.sum()
        precision = average_precision_score(truth, scores) if truth.any() else math.nan
        area = roc_auc_score(truth, scores) if truth.any() and not truth.all() else math.nan
        assert row["average_precision"] == pytest.approx(precision, abs=1e-12, nan_ok=True)
        assert row["auc"] == pytest.approx(area, abs=1e-12, nan_ok=True)
    areas = [row["auc"] for row in table if not math.isnan(row["auc"])]
    predictions = logits > 0
    assert metrics == pytest.approx(
        {
            "map": average_precision_score(labels[:, positive], logits[:, positive]),
            "mauc": np.mean(areas) if areas else math.nan,
            "dprime": metrics["dprime"],  # see test_dprime_of_the_published_auc
            "lwlrap": label_ranking_average_precision_score(labels, logits, sample_weight=labels.sum(1)),
            "micro_f1": f1_score(labels, predictions, average="micro", zero_division=0),
            "macro_f1": np.mean([f1_score(labels[:, k], predictions[:, k]) for k in np.flatnonzero(positive)]),
            "skipped_classes": (~positive).sum(),
        },
        abs=1e-12,
        nan_ok=True,
    )


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::UserWarning")  # of predicted classes that the labels lack
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(2, 9))
def test_single_label_equals_scikit_learn(seed: int, clips: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.standard_normal((clips, classes)), rng.integers(classes, size=clips)
    predictions = logits.argmax(1)
    assert classification_metrics(logits, labels) == pytest.approx(
        {
            "accuracy": (predictions == labels).mean(),
            "balanced_accuracy": balanced_accuracy_score(labels, predictions),
            "macro_f1": f1_score(labels, predictions, average="macro", zero_division=0),
        }
    )


@pytest.mark.reference
def test_lwlrap_equals_the_reference_of_dcase_2019() -> None:
    """Source: the organisers' calculate_per_class_lwlrap and its weighting by class, as plain loops."""
    rng = np.random.default_rng(0)
    labels = rng.random((40, 12)) < 0.2
    labels[3], labels[:, 5] = False, False
    logits = rng.standard_normal((40, 12)).astype(np.float32)
    hits, counts = np.zeros(12), np.zeros(12)
    for scores, truth in zip(logits, labels, strict=True):
        ranking = np.argsort(-scores)
        for class_index in np.flatnonzero(truth):
            rank = int(np.flatnonzero(ranking == class_index)[0])
            hits[class_index] += truth[ranking[: rank + 1]].sum() / (rank + 1)
            counts[class_index] += 1
    per_class = hits / np.maximum(counts, 1)
    expected = float((per_class * counts / counts.sum()).sum())
    assert classification_metrics(logits, labels)["lwlrap"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.reference
def test_dprime_of_the_published_auc() -> None:
    """facts: an AUC of .978562 gives 2.864; here a pair count gives that AUC as nearly as 1000 x 1000 pairs can."""
    negatives = np.arange(1000.0)
    positives = np.full(1000, 978.0) + 0.5
    logits = np.concatenate([negatives, positives])[:, None]
    labels = np.repeat([0, 1], 1000)[:, None]
    metrics = classification_metrics(logits, labels)
    assert metrics["mauc"] == pytest.approx(0.979)
    assert math.erf(metrics["dprime"] / 2) == pytest.approx(2 * 0.979 - 1)


@pytest.mark.unit
def test_single_label() -> None:
    logits = np.array([[2, 1, 0, -9], [0, 3, 1, -9], [0, 2, 1, -9], [1, 0, 5, -9]], dtype=np.float32)
    metrics = classification_metrics(logits, np.array([0, 1, 2, 2]))
    assert metrics == {
        "accuracy": 0.75,
        "balanced_accuracy": pytest.approx((1 + 1 + 1 / 2) / 3),
        "macro_f1": pytest.approx((1 + 2 / 3 + 2 / 3) / 3),
    }


@pytest.mark.unit
def test_classes_left_out_are_named() -> None:
    assert classes_left_out(np.array([[1, 0, 0], [1, 0, 1]]), ["a", "b", "c"]) == ["b"]
    assert classes_left_out(np.array([2, 2]), ["a", "b", "c"]) == ["a", "b"]


@pytest.mark.reference
@settings(max_examples=50, deadline=None)
@given(scored())
def test_points_of_the_precision_recall_curve(sample: tuple[np.ndarray, np.ndarray]) -> None:
    """They are scikit-learn's, each as often as it has positives."""
    scores, truth = sample[0][:, -1], sample[1][:, -1]
    points = precisions_at_positives(scores, truth == 1)
    precision, recall, _ = precision_recall_curve(truth, scores)
    counts = np.rint(-np.diff(recall) * truth.sum()).astype(int)
    assert points == pytest.approx(np.repeat(precision[:-1], counts)[::-1])


@pytest.mark.reference
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 30), st.integers(2, 6))
def test_single_label_table_equals_scikit_learn(seed: int, clips: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.standard_normal((clips, classes)), rng.integers(classes, size=clips)
    names = [str(index) for index in range(classes)]
    table = per_class_table(logits, labels, names)
    predictions, probabilities = logits.argmax(1), class_probabilities(logits, multi_label=False)
    expected = precision_recall_fscore_support(labels, predictions, labels=range(classes), zero_division=0)
    for key, column in zip(("precision", "recall", "f1", "clips"), expected, strict=True):
        assert [row[key] for row in table] == pytest.approx(column)
    for index in np.unique(labels):
        precision = average_precision_score(labels == index, probabilities[:, index])
        assert table[index]["average_precision"] == pytest.approx(precision)
    counts = sklearn_confusion_matrix(labels, predictions, labels=range(classes))
    np.testing.assert_array_equal(confusion_matrix(logits, labels), counts)


@pytest.mark.reference
def test_intervals_of_the_accuracy_are_those_of_a_share() -> None:
    labels = np.zeros(400, dtype=np.int64)
    logits = np.tile(np.array([[1.0, 0.0]]), (400, 1))
    logits[:100] = [0, 1]
    bounds = confidence_intervals(logits, labels, resamples=1000)
    half_width = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert bounds["accuracy"] == pytest.approx((0.75 - half_width, 0.75 + half_width), abs=0.006)
    assert bounds == confidence_intervals(logits, labels, resamples=1000)
    assert bounds != confidence_intervals(logits, labels, resamples=1000, seed=1)


@pytest.mark.unit
def test_probabilities() -> None:
    logits = np.array([[0.0, 1000.0], [-1.0, -1.0]], dtype=np.float32)
    assert class_probabilities(logits, multi_label=True)[0].tolist() == [0.5, 1]
    assert class_probabilities(logits, multi_label=False).tolist() == [[0, 1], [0.5, 0.5]]


@pytest.mark.unit
def test_per_class_tables() -> None:
    logits = np.array([[2, 1, 0], [0, 3, 1], [0, 2, 1], [1, 0, 5]], dtype=np.float32)
    single = per_class_table(logits, np.array([0, 1, 2, 2]), ["a", "b", "c"])
    ranked = {"average_precision": 1.0, "auc": 1.0}  # by probability, the logits alone would give 5/6
    assert single[2] == {"name": "c", "clips": 2, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)} | ranked
    multi = per_class_table(logits, np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]]), ["a", "b", "c"])
    assert multi[0] == {"name": "a", "clips": 1, "average_precision": 1.0, "auc": 1.0}
    assert multi[2]["clips"] == 0
    assert math.isnan(multi[2]["average_precision"])
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        per_class_table(logits, np.array([0, 1, 2, 2]), ["a", "b"])


@pytest.mark.unit
def test_regression() -> None:
    metrics = regression_metrics(np.array([[1.0], [2.0], [4.0]], dtype=np.float32), np.array([1.0, 2.0, 3.0]))
    assert metrics == {
        **{"mse": pytest.approx(1 / 3), "mae": pytest.approx(1 / 3), "rmse": pytest.approx(3**-0.5)},
        **{"r2": pytest.approx(0.5), "pearson": pytest.approx(27**0.5 / 28**0.5), "spearman": pytest.approx(1.0)},
    }


@pytest.mark.reference
def test_regression_equals_scikit_learn_and_scipy() -> None:
    random = np.random.default_rng(0)
    targets = np.round(random.normal(3.0, 2.0, size=(40, 3)), 1)  # some equal ones
    predictions = targets + random.normal(size=targets.shape) * [0.5, 2.0, 8.0]
    found = regression_metrics(predictions, targets)
    assert found["mse"] == pytest.approx(mean_squared_error(targets, predictions))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(targets, predictions))
    assert found["mae"] == pytest.approx(mean_absolute_error(targets, predictions))
    assert found["r2"] == pytest.approx(r2_score(targets, predictions))
    pairs = list(zip(predictions.T, targets.T, strict=True))
    assert found["pearson"] == pytest.approx(np.mean([pearsonr(*pair).statistic for pair in pairs]))
    assert found["spearman"] == pytest.approx(np.mean([spearmanr(*pair).statistic for pair in pairs]))
    rows = per_target_table(predictions, targets, ["a", "b", "c"])
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert np.mean([row["r2"] for row in rows]) == pytest.approx(found["r2"])
    assert math.isnan(regression_metrics(np.ones(3), np.arange(3.0))["pearson"])


@pytest.mark.unit
def test_what_is_constant_is_not_correlated() -> None:
    constant = np.full(3, 0.1)
    assert constant.mean() != 0.1, "the mean of a constant is rounded"
    of_targets = regression_metrics(np.arange(3.0), constant)
    assert [math.isnan(of_targets[name]) for name in ("r2", "pearson", "spearman")] == [True] * 3
    of_predictions = regression_metrics(constant, np.arange(3.0))
    assert [math.isnan(of_predictions[name]) for name in ("r2", "pearson", "spearman")] == [False, True, True]


@pytest.mark.reference
@pytest.mark.filterwarnings("error")
def test_unknown_targets_are_left_out_of_each_output() -> None:
    random = np.random.default_rng(0)
    targets, predictions = random.normal(size=(2, 30, 4))
    targets[3:9, 0] = targets[20:, 1] = targets[1:, 2] = targets[:, 3] = np.nan
    of_outputs = [np.delete(np.arange(30), np.arange(3, 9)), np.arange(20)]
    alone = [
        regression_metrics(predictions[rows, index], targets[rows, index]) for index, rows in enumerate(of_outputs)
    ]
    found = regression_metrics(predictions, targets)
    for name, value in found.items():
        assert value == pytest.approx(np.mean([of_output[name] for of_output in alone]))
    rows = per_target_table(predictions, targets, ["a", "b", "c", "d"])
    assert [row["clips"] for row in rows] == [24, 20, 1, 0]
    assert rows[1]["r2"] == pytest.approx(alone[1]["r2"])
    assert all(math.isnan(value) for value in regression_metrics(predictions[:, 3], targets[:, 3]).values())
    means = known_mean(targets)
    np.testing.assert_allclose(means[:3], [np.mean(targets[rows, i]) for i, rows in enumerate([*of_outputs, [0]])])
    assert math.isnan(means[3])


@pytest.mark.unit
def test_numbers_that_are_all_zero_have_intervals() -> None:
    zeros = np.zeros((4, 1), dtype=np.float32)
    intervals = confidence_intervals(zeros + 1, zeros, resamples=3, metrics_of=regression_metrics)
    assert intervals["mae"] == (1.0, 1.0)


@pytest.mark.unit
@pytest.mark.filterwarnings("error")
def test_classes_positive_everywhere_have_no_auc() -> None:
    metrics = classification_metrics(np.array([[1.0], [2.0]]), np.array([[1], [1]]))
    assert metrics["map"] == 1
    assert math.isnan(metrics["mauc"])
    assert math.isnan(metrics["dprime"])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3), dtype=np.float16), [0, 1], "logits are float16; expected float32 or float64"),
        (np.array([[0.0, 1], [np.nan, 0]]), [0, 1], r"logits of clip 1 are NaN or infinite \(1 of 2 clips\)"),
        (np.zeros((2, 3)), [0, 3], "labels go from 0 to 3; expected 0 to 2"),
        (np.zeros((2, 3)), [-100, 1], "labels go from -100 to 1"),
        (np.zeros((2, 3)), [0.0, 1.0], r"labels are float64 \(2,\); expected integers"),
        (np.zeros((2, 3)), [0], "as many labels"),
        (np.zeros((0, 3)), [], "as many labels"),
        (np.zeros((2, 3)), [[0, 1], [1, 0]], r"zeros and ones of shape \(2, 3\)"),
        (np.zeros((1, 2)), [[0.5, 0.5]], "zeros and ones"),
        (np.zeros((1, 2)), [[0, 0]], "none of the 1 clips has a positive label"),
    ],
)
def test_inputs_that_cannot_be_scored(logits: np.ndarray, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(logits, np.array(labels))


@pytest.mark.fault
def test_regression_inputs_that_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match=r"predictions are \(2,\) and targets \(3,\)"):
        regression_metrics(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="1 clips; r2 needs at least two"):
        regression_metrics(np.zeros(1), np.zeros(1))
    with pytest.raises(ValueError, match="predictions are float16"):
        regression_metrics(np.zeros(2, dtype=np.float16), np.zeros(2))
    with pytest.raises(ValueError, match="predictions of clip 1 are NaN or infinite"):
        regression_metrics(np.array([0.0, np.nan]), np.zeros(2))
    with pytest.raises(ValueError, match="targets of clip 0 are NaN or infinite"):
        regression_metrics(np.zeros(2), np.array([np.inf, np.nan]))


@pytest.mark.unit
def test_intervals_of_few_clips_with_one_label() -> None:
    logits, labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.2]]), np.array([[1, 0], [0, 0], [0, 0]])
    bounds = confidence_intervals(logits, labels, resamples=50)
    assert bounds["map"] == (1.0, 1.0)
    with pytest.raises(ValueError, match="none of the 3 clips has a positive label"):
        confidence_intervals(logits, np.zeros_like(labels), resamples=1)
