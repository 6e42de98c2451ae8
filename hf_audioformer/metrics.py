"""Metrics of logits against labels: single label, multi-label, regression; all sums in float64.

Rankings (average precision, area under the ROC curve, lwlrap) need no more of the scores than their order, which
float32 keeps, so they come from one sort per class instead of scikit-learn's curves; clips with equal scores count as
one threshold, as they do there. `python -m benchmarks.metrics_speed` holds both against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from tqdm.auto import tqdm

__all__ = [
    "class_probabilities",
    "classes_left_out",
    "classification_metrics",
    "confidence_intervals",
    "confusion_matrix",
    "intervals_of_draws",
    "known_mean",
    "per_class_table",
    "per_target_table",
    "precisions_at_positives",
    "regression_metrics",
]

# So many (clip, label) pairs are ranked at once: bounds the memory, not the result.
RANKED_TOGETHER = 4096

REGRESSION_METRICS = ("mse", "mae", "rmse", "r2", "pearson", "spearman")


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Score logits, float32 or float64 (clips, classes), against labels.

    Single label, integers (clips,): `accuracy`, `balanced_accuracy` (mean recall of the classes that occur in the
    labels), and `macro_f1` over the classes that occur in labels or predictions.

    Multi-label, zeros and ones (clips, classes): `map` (average precision, mean over classes with a positive clip),
    `mauc` (area under the ROC curve, mean over classes with positive and negative clips; NaN if there is none),
    `dprime` = sqrt(2) * Phi^-1(mauc), `lwlrap` (label-weighted label-ranking average precision of DCASE 2019 task 2:
    for every label of every clip the precision among the classes that score at least as high, mean over all of them),
    `micro_f1` and `macro_f1` at probability 0.5 (the latter over classes with a positive clip), and `skipped_classes`,
    the number of classes without a positive clip, which `classes_left_out` names.

    Raises:
        ValueError: half-precision logits (ties spoil rankings), NaN or infinity, shapes or labels that do not fit.
    """
    logits, labels = _checked(logits, labels)
    return _multi_label_metrics(logits, labels) if labels.ndim == 2 else _single_label_metrics(logits, labels)


def classes_left_out(labels: np.ndarray, names: Sequence[str]) -> list[str]:
    """The names of the classes that no clip has, labels as for `classification_metrics`; means do not count them."""
    counts = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=len(names))
    return [name for name, count in zip(names, counts, strict=True) if count == 0]


def per_class_table(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[dict[str, float | str]]:
    """One row per class, arguments as for `classification_metrics`.

    All have `name`, `clips`, `average_precision` and `auc` (NaN where undefined), for single labels those of the class
    against all others by its probability; single labels also `precision`, `recall` and `f1`, 0 where undefined.

    Raises:
        ValueError: as `classification_metrics`, or if there is not one name per class.
    """
    logits, labels = _checked(logits, labels)
    if len(names) != logits.shape[1]:
        raise ValueError(f"{len(names)} names for {logits.shape[1]} classes; give one name per class")
    one_hot = labels if labels.ndim == 2 else labels[:, None] == np.arange(logits.shape[1])
    scores = logits if labels.ndim == 2 else _log_softmax(logits)
    precisions, aucs = _rank_scores(scores.T, one_hot.T)
    columns = {"clips": one_hot.sum(0), "average_precision": precisions, "auc": aucs}
    if labels.ndim == 1:
        confusion = confusion_matrix(logits, labels)
        hits, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        columns["precision"] = hits / np.maximum(predicted, 1)
        columns["recall"] = hits / np.maximum(true, 1)
        columns["f1"] = 2 * hits / np.maximum(true + predicted, 1)
    return [
        {"name": name} | {key: column[index].item() for key, column in columns.items()}
        for index, name in enumerate(names)
    ]


def confidence_intervals(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    resamples: int,
    seed: int = 0,
    level: float = 0.95,
    metrics_of: Callable[[np.ndarray, np.ndarray], dict[str, float]] = classification_metrics,
) -> dict[str, tuple[float, float]]:
    """The bounds of each of the metrics that hold `level` of it when clips are drawn anew.

    The percentile bootstrap: clips are drawn with replacement `resamples` times. It tells how the choice of test clips
    moves the figure, not how the training does. Metrics that are NaN in some draw have NaN bounds; a multi-label draw
    without any positive label is drawn again.

    Raises:
        ValueError: as `classification_metrics`.
    """
    names = metrics_of(logits, labels)
    random = np.random.default_rng(seed)
    needs_label = labels.ndim == 2 and metrics_of is classification_metrics
    draws = [_draw_again(random, labels, needs_label=needs_label) for _ in range(resamples)]
    bar = tqdm(draws, desc="intervals", unit="draw", delay=2, leave=False, dynamic_ncols=True)
    return intervals_of_draws([metrics_of(logits[draw], labels[draw]) for draw in bar], names, level)


def intervals_of_draws(
    metrics: Sequence[Mapping[str, float]], names: Iterable[str], level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """The bounds of each of the metrics of some names that hold `level` of its values in the draws of a bootstrap."""
    tails = (100 * (1 - level) / 2, 100 * (1 + level) / 2)
    with np.errstate(invalid="ignore"):  # between infinities, as d' of a perfect ranking, lies NaN
        bounds = {name: np.percentile([of_draw[name] for of_draw in metrics], tails) for name in names}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def _draw_again(random: np.random.Generator, labels: np.ndarray, *, needs_label: bool) -> np.ndarray:
    """As many clips as there are, with replacement; if it `needs_label`, until a clip has one."""
    while True:
        draw = random.integers(len(labels), size=len(labels))
        if not needs_label or labels[draw].any():
            return draw


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts of clips, int64 (classes, classes): rows are the true classes of `labels` (clips,), columns the best."""
    classes = logits.shape[1]
    return np.bincount(labels * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)


def class_probabilities(logits: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """float64 (clips, classes): each class by itself if `multi_label`, otherwise a distribution over the classes."""
    from scipy.special import expit

    return expit(logits.astype(np.float64)) if multi_label else np.exp(_log_softmax(logits))


def precisions_at_positives(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """The points of a precision-recall curve: at each positive clip, best first, the share of positives among all
    clips that score at least as high. Their mean is the average precision.

    Args:
        scores: (clips,)
        positive: Booleans (clips,)
    """
    return _precisions(np.sort(scores), np.sort(scores[positive]))[::-1]


def known_mean(values: np.ndarray) -> np.ndarray:
    """The mean of each column of floats (rows, columns) without NaN, which it is where there is nothing else."""
    counts = (~np.isnan(values)).sum(axis=0)
    return np.where(counts, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)


def regression_metrics(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """`mse`, `mae`, `rmse`, `r2`, `pearson` and `spearman` of predictions, float32 or float64 (clips,) or (clips,
    outputs), against targets alike; of several outputs their means. Correlations with a constant are NaN.

    Targets of NaN are not known and left out, of each output by itself; the means are of the outputs of which at least
    two are known.

    Raises:
        ValueError: half precision, infinity, predictions of NaN, shapes that differ, fewer than two clips.
    """
    _check_scores(predictions, "predictions")
    _check_scores(np.where(np.isnan(targets), targets.dtype.type(0), targets), "targets")
    if predictions.size != targets.size or len(predictions) != len(targets):
        raise ValueError(f"predictions are {predictions.shape} and targets {targets.shape}; they must have one shape")
    if len(targets) < 2:
        raise ValueError(f"{len(targets)} clips; r2 needs at least two")
    shape = (len(targets), -1)
    predictions, targets = predictions.reshape(shape), targets.reshape(shape)
    known = ~np.isnan(targets)
    measured = [
        _metrics_of_output(predictions[rows, index], targets[rows, index])
        for index, rows in enumerate(known.T)
        if rows.sum() > 1
    ]
    if not measured:
        return dict.fromkeys(REGRESSION_METRICS, float("nan"))
    return {name: float(np.mean([of_output[name] for of_output in measured])) for name in REGRESSION_METRICS}


def per_target_table(
    predictions: np.ndarray, targets: np.ndarray, names: Sequence[str]
) -> list[dict[str, float | str]]:
    """One row per output of (clips, outputs): `name`, `clips` (whose target is known), and the `regression_metrics` of
    that output alone.

    Raises:
        ValueError: as `regression_metrics`.
    """
    rows: list[dict[str, float | str]] = []
    for index, name in enumerate(names):
        known = int((~np.isnan(targets[:, index])).sum())
        rows.append({"name": name, "clips": known, **regression_metrics(predictions[:, index], targets[:, index])})
    return rows


def _metrics_of_output(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    from scipy.stats import rankdata

    predictions, targets = predictions.astype(np.float64), targets.astype(np.float64)
    errors = predictions - targets
    spread = np.square(targets - targets.mean()).sum()
    return {
        "mse": np.square(errors).mean(),
        "mae": np.abs(errors).mean(),
        "rmse": np.sqrt(np.square(errors).mean()),
        "r2": 1 - np.square(errors).sum() / spread if np.ptp(targets) else float("nan"),
        "pearson": _correlation(predictions, targets),
        "spearman": _correlation(rankdata(predictions), rankdata(targets)),
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if not np.ptp(one) or not np.ptp(other):  # what is left of a constant without its mean is rounding
        return float("nan")
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / np.sqrt(np.square(one).sum() * np.square(other).sum()))


def _single_label_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    confusion = confusion_matrix(logits, labels)
    hits, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    named = true + predicted > 0
    return {
        "accuracy": float(hits.sum() / len(labels)),
        "balanced_accuracy": float(np.mean(hits[true > 0] / true[true > 0])),
        "macro_f1": float(np.mean(2 * hits[named] / (true + predicted)[named])),
    }


def _multi_label_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from scipy.special import ndtri

    has_positive = labels.any(0)
    if not has_positive.any():
        raise ValueError(f"none of the {len(labels)} clips has a positive label; average precision is undefined")
    predictions = logits > 0
    hits, counted = (predictions & labels).sum(0), predictions.sum(0) + labels.sum(0)
    precisions, aucs = _rank_scores(logits.T, labels.T)
    mauc = float(np.nanmean(aucs)) if np.isfinite(aucs).any() else float("nan")
    return {
        "map": float(np.nanmean(precisions)),
        "mauc": mauc,
        "dprime": float(np.sqrt(2) * ndtri(mauc)),
        "lwlrap": _lwlrap(logits, labels),
        "micro_f1": float(2 * hits.sum() / counted.sum()),
        "macro_f1": float(np.mean(2 * hits[has_positive] / counted[has_positive])),
        "skipped_classes": float((~has_positive).sum()),
    }


def _rank_scores(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and area under the ROC curve of each row of scores, against booleans of the same shape.

    The precision at a positive is the share of positives among what scores at least as high, its part of the area the
    share of negatives that score less, equal ones by half. Both are counts that binary search finds in sorted scores.
    NaN where undefined: without a positive, and for the area without a negative.
    """
    scores, positive = np.ascontiguousarray(scores), np.ascontiguousarray(positive)
    precisions, areas = np.full((2, len(scores)), np.nan)
    for row in np.flatnonzero(positive.any(1)):
        everything, positives = np.sort(scores[row]), np.sort(scores[row, positive[row]])
        precisions[row] = np.mean(_precisions(everything, positives))
        negatives = len(everything) - len(positives)
        if negatives:
            less, up_to = (_negatives_below(everything, positives, side) for side in ("left", "right"))
            areas[row] = np.mean(less + up_to) / (2 * negatives)
    return precisions, areas


def _precisions(everything: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """At each positive, both arguments sorted: the share of positives among what scores at least as high."""
    at_least = len(everything) - everything.searchsorted(positives)
    return (len(positives) - positives.searchsorted(positives)) / at_least


def _negatives_below(everything: np.ndarray, positives: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """How many negatives score less than each positive, or ("right") up to as much; both arguments sorted."""
    return everything.searchsorted(positives, side) - positives.searchsorted(positives, side)


def _lwlrap(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over all (clip, label) pairs of the precision among the classes that score at least as high in that clip."""
    clips, classes = np.nonzero(labels)
    total = 0.0
    for start in range(0, len(clips), RANKED_TOGETHER):
        rows, columns = clips[start : start + RANKED_TOGETHER], classes[start : start + RANKED_TOGETHER]
        at_least = logits[rows] >= logits[rows, columns][:, None]
        total += float(((at_least & labels[rows]).sum(1) / at_least.sum(1)).sum())
    return total / len(clips)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    from scipy.special import log_softmax

    return log_softmax(logits.astype(np.float64), axis=1)


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    _check_scores(logits, "logits")
    if logits.ndim != 2 or len(logits) == 0 or len(labels) != len(logits):
        raise ValueError(
            f"logits are {logits.shape} and labels {labels.shape}; expected (clips, classes) and as many labels"
        )
    if labels.ndim == 2:
        if labels.shape != logits.shape or not ((labels == 0) | (labels == 1)).all():
            raise ValueError(f"multi-label labels must be zeros and ones of shape {logits.shape}, got {labels.shape}")
        return logits, labels.astype(bool)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {labels.dtype} {labels.shape}; expected integers (clips,) or multi-hot (clips, classes)"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}; expected 0 to {logits.shape[1] - 1}")
    return logits, labels


def _check_scores(values: np.ndarray, name: str) -> None:
    if values.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"{name} are {values.dtype}; expected float32 or float64: rounded scores tie and spoil rankings"
        )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if len(bad):
        raise ValueError(f"{name} of clip {bad[0]} are NaN or infinite ({len(bad)} of {len(values)} clips)")
