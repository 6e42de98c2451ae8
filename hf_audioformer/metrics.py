"""Metrics of logits against labels: single label, multi-label, regression; always computed in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["classification_metrics", "per_class_table", "regression_metrics"]


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Score logits, float32 or float64 (clips, classes), against labels.

    Single label, integers (clips,): `accuracy`, and `macro_f1` over the classes that occur in labels or predictions.

    Multi-label, zeros and ones (clips, classes): `map` (average precision, mean over classes with a positive clip),
    `mauc` (area under the ROC curve, mean over classes with positive and negative clips; NaN if there is none),
    `dprime` = sqrt(2) * Phi^-1(mauc), `micro_f1` at probability 0.5, and `skipped_classes`, the number of classes
    without a positive clip.

    Raises:
        ValueError: half-precision logits (ties spoil rankings), NaN or infinity, shapes or labels that do not fit.
    """
    logits, labels = _checked(logits, labels)
    return _multi_label_metrics(logits, labels) if labels.ndim == 2 else _single_label_metrics(logits, labels)


def per_class_table(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[dict[str, float | str]]:
    """One row per class, arguments as for `classification_metrics`.

    Single label: `name`, `clips`, `precision`, `recall`, `f1`. Multi-label: `name`, `clips`, `average_precision`, `auc`
    (NaN where undefined).

    Raises:
        ValueError: as `classification_metrics`, or if there is not one name per class.
    """
    logits, labels = _checked(logits, labels)
    if len(names) != logits.shape[1]:
        raise ValueError(f"{len(names)} names for {logits.shape[1]} classes; give one name per class")
    if labels.ndim == 2:
        columns = {
            "clips": labels.sum(0),
            "average_precision": _precisions(logits, labels),
            "auc": _aucs(logits, labels),
        }
    else:
        from sklearn.metrics import precision_recall_fscore_support

        classes = range(logits.shape[1])
        scores = precision_recall_fscore_support(labels, logits.argmax(1), labels=classes, zero_division=0)
        columns = {"clips": scores[3], "precision": scores[0], "recall": scores[1], "f1": scores[2]}
    return [
        {"name": name} | {key: column[index].item() for key, column in columns.items()}
        for index, name in enumerate(names)
    ]


def regression_metrics(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """`mse`, `mae` and `r2` of predictions, float32 or float64 (clips,) or (clips, outputs), against targets alike.

    Raises:
        ValueError: half precision, NaN or infinity, shapes that differ, fewer than two clips.
    """
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    predictions, targets = _as_float64(predictions, "predictions"), _as_float64(targets, "targets")
    if predictions.size != targets.size or len(predictions) != len(targets):
        raise ValueError(f"predictions are {predictions.shape} and targets {targets.shape}; they must have one shape")
    if len(targets) < 2:
        raise ValueError(f"{len(targets)} clips; r2 needs at least two")
    predictions = predictions.reshape(targets.shape)
    return {
        "mse": float(mean_squared_error(targets, predictions)),
        "mae": float(mean_absolute_error(targets, predictions)),
        "r2": float(r2_score(targets, predictions)),
    }


def _single_label_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import f1_score

    predictions = logits.argmax(1)
    return {
        "accuracy": float(np.mean(predictions == labels)),
        "macro_f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
    }


def _multi_label_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from scipy.special import ndtri

    has_positive = labels.any(0)
    if not has_positive.any():
        raise ValueError(f"none of the {len(labels)} clips has a positive label; average precision is undefined")
    predictions = logits > 0
    true_positives = float((predictions & (labels == 1)).sum())
    aucs = _aucs(logits, labels)
    mauc = float(np.nanmean(aucs)) if np.isfinite(aucs).any() else float("nan")
    return {
        "map": float(np.nanmean(_precisions(logits, labels))),
        "mauc": mauc,
        "dprime": float(np.sqrt(2) * ndtri(mauc)),
        "micro_f1": float(2 * true_positives / (predictions.sum() + labels.sum())),
        "skipped_classes": float((~has_positive).sum()),
    }


def _precisions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision per class, NaN without a positive."""
    from sklearn.metrics import average_precision_score

    scores = np.full(labels.shape[1], np.nan)
    for index in np.flatnonzero(labels.any(0)):
        scores[index] = average_precision_score(labels[:, index], logits[:, index])
    return scores


def _aucs(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the ROC curve per class, NaN without a positive or a negative."""
    from sklearn.metrics import roc_auc_score

    scores = np.full(labels.shape[1], np.nan)
    for index in np.flatnonzero(labels.any(0) & ~labels.all(0)):
        scores[index] = roc_auc_score(labels[:, index], logits[:, index])
    return scores


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = _as_float64(logits, "logits"), np.asarray(labels)
    if logits.ndim != 2 or len(logits) == 0 or len(labels) != len(logits):
        raise ValueError(
            f"logits are {logits.shape} and labels {labels.shape}; expected (clips, classes) and as many labels"
        )
    if labels.ndim == 2:
        if labels.shape != logits.shape or not np.isin(labels, (0, 1)).all():
            raise ValueError(f"multi-label labels must be zeros and ones of shape {logits.shape}, got {labels.shape}")
        return logits, labels.astype(np.int64)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {labels.dtype} {labels.shape}; expected integers (clips,) or multi-hot (clips, classes)"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}; expected 0 to {logits.shape[1] - 1}")
    return logits, labels


def _as_float64(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"{name} are {values.dtype}; expected float32 or float64: rounded scores tie and spoil rankings"
        )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if len(bad):
        raise ValueError(f"{name} of clip {bad[0]} are NaN or infinite ({len(bad)} of {len(values)} clips)")
    return values.astype(np.float64)
