"""Metrics against brute force from their definitions, and against known values."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from hf_audioformer.metrics import classification_metrics, per_class_table, regression_metrics


def average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the positives of the precision among the clips that score at least as high (no ties)."""
    return float(np.mean([positive[scores >= score].mean() for score in scores[positive]]))


def auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Share of (positive, negative) pairs in the right order."""
    return float(np.mean(scores[positive][:, None] > scores[~positive][None, :]))


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Distinct float32 logits (clips, classes) and multi-hot labels, the first class never positive."""
    clips, classes = draw(st.integers(4, 20)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = (rng.random((clips, classes)) < 0.4).astype(np.float32)
    labels[:, 0], labels[0, 1], labels[1, 1] = 0, 1, 0
    return rng.standard_normal((clips, classes)).astype(np.float32), labels


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(scored())
def test_multi_label_equals_the_definitions(sample: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = sample
    positive = labels == 1
    with_positive = [index for index in range(labels.shape[1]) if positive[:, index].any()]
    with_both = [index for index in with_positive if not positive[:, index].all()]
    metrics = classification_metrics(logits, labels)
    expected_map = np.mean([average_precision(positive[:, index], logits[:, index]) for index in with_positive])
    expected_auc = np.mean([auc(positive[:, index], logits[:, index]) for index in with_both])
    assert metrics["map"] == pytest.approx(expected_map)
    assert metrics["mauc"] == pytest.approx(expected_auc)
    assert metrics["skipped_classes"] == labels.shape[1] - len(with_positive)
    assert metrics["micro_f1"] == pytest.approx(f1_score(labels, logits > 0, average="micro", zero_division=0))


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
    assert metrics == {"accuracy": 0.75, "macro_f1": pytest.approx((1 + 2 / 3 + 2 / 3) / 3)}


@pytest.mark.unit
def test_per_class_tables() -> None:
    logits = np.array([[2, 1, 0], [0, 3, 1], [0, 2, 1], [1, 0, 5]], dtype=np.float32)
    single = per_class_table(logits, np.array([0, 1, 2, 2]), ["a", "b", "c"])
    assert single[2] == {"name": "c", "clips": 2, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}
    multi = per_class_table(logits, np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]]), ["a", "b", "c"])
    assert multi[0] == {"name": "a", "clips": 1, "average_precision": 1.0, "auc": 1.0}
    assert multi[2]["clips"] == 0
    assert math.isnan(multi[2]["average_precision"])
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        per_class_table(logits, np.array([0, 1, 2, 2]), ["a", "b"])


@pytest.mark.unit
def test_regression() -> None:
    metrics = regression_metrics(np.array([[1.0], [2.0], [4.0]], dtype=np.float32), np.array([1.0, 2.0, 3.0]))
    assert metrics == {"mse": pytest.approx(1 / 3), "mae": pytest.approx(1 / 3), "r2": pytest.approx(0.5)}


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
