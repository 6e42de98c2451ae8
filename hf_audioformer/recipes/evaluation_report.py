"""What an evaluation leaves in its folder: metrics as JSON, tables as csv, and figures."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..inspection.classification_plots import average_precision_figure, confusion_figure, precision_recall_figure
from ..metrics import (
    class_probabilities,
    classes_left_out,
    classification_metrics,
    confidence_intervals,
    per_class_table,
)
from ..training.json_file import is_undefined, write_json
from ..training.results import chance_level

__all__ = ["METRICS_FILE", "ScoredClips", "measure", "summary", "write_report"]

METRICS_FILE = "metrics.json"
NAMES_SHOWN = 10


@dataclass(frozen=True)
class ScoredClips:
    """Clips by name, their logits, float32 (clips, classes), and their labels: class indices (clips,), or for several
    per clip multi-hot (clips, classes); and the names of the classes."""

    ids: Sequence[str]
    logits: np.ndarray
    labels: np.ndarray
    names: Sequence[str]

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2


def measure(scored: ScoredClips, *, resamples: int, seed: int) -> dict[str, Any]:
    """The main metric as `score`, all `metrics` with `confidence_95` (bootstrap over clips; none for 0 `resamples`),
    `chance` (of always naming these clips' most frequent class, or of a random ranking), and what was left out."""
    metrics = classification_metrics(scored.logits, scored.labels)
    intervals = confidence_intervals(scored.logits, scored.labels, resamples=resamples, seed=seed) if resamples else {}
    return {
        "score": metrics["map" if scored.multi_label else "accuracy"],
        "chance": chance_level(scored.labels, scored.labels),
        "metrics": metrics,
        "confidence_95": intervals,
        "clips": len(scored.ids),
        "classes": len(scored.names),
        "classes_left_out": classes_left_out(scored.labels, scored.names),
    }


def write_report(folder: Path, report: Mapping[str, Any], scored: ScoredClips, about: str) -> None:
    """Writes tables and figures (with `about` under their titles), and last the report itself, so that its presence
    tells of a whole evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "per_class.csv", per_class_table(scored.logits, scored.labels, scored.names))
    _write_csv(folder / "predictions.csv", _predictions(scored))
    _write_figures(folder, scored, about)
    write_json(folder / METRICS_FILE, report)


def summary(report: Mapping[str, Any]) -> str:
    """The metrics with their intervals, a line each, and what was left out."""
    lines = [f"{report['clips']} clips of {report['classes']} classes, chance {report['chance']:.3f}"]
    for name, value in report["metrics"].items():
        low, high = report["confidence_95"].get(name, (math.nan, math.nan))
        interval = "" if math.isnan(low) or name == "skipped_classes" else f"   95 % interval {low:.3f} to {high:.3f}"
        lines.append(f"  {name:18} {value:.3f}{interval}")
    for key, what in (
        ("clips_skipped", "clips that could not be read"),
        ("classes_left_out", "classes without a clip"),
    ):
        if report[key]:
            more = ", ..." if len(report[key]) > 10 else ""
            lines.append(f"left out, {len(report[key])} {what}: {', '.join(report[key][:10])}{more}")
    return "\n".join(lines)


def _predictions(scored: ScoredClips) -> Iterator[dict[str, Any]]:
    """A row per clip: its labels, those predicted (of several all above one half), and the best one by itself."""
    probabilities = class_probabilities(scored.logits, multi_label=scored.multi_label)
    for clip_id, scores, label in zip(scored.ids, probabilities, scored.labels, strict=True):
        best = int(scores.argmax())
        true = np.flatnonzero(label).tolist() if scored.multi_label else [int(label)]
        predicted = np.flatnonzero(scores > 0.5).tolist() if scored.multi_label else [best]
        yield {
            "id": clip_id,
            "labels": ";".join(scored.names[index] for index in true),
            "predicted": ";".join(scored.names[index] for index in predicted),
            "best": scored.names[best],
            "best_probability": f"{scores[best]:.4f}",
        }


def _write_figures(folder: Path, scored: ScoredClips, about: str) -> None:
    logits, labels, names = scored.logits, scored.labels, scored.names
    if scored.multi_label:
        scores, positive = logits, labels == 1
        figure = average_precision_figure(scores, positive, names, f"Average precision of each class\n{about}")
        figure.savefig(folder / "average_precision.png")
    else:
        scores = class_probabilities(logits, multi_label=False)
        positive = labels[:, None] == np.arange(len(names))
        confusion_figure(logits, labels, names, f"Confusion\n{about}").savefig(folder / "confusion.png")
    figure = precision_recall_figure(scores, positive, names, f"Precision and recall\n{about}")
    figure.savefig(folder / "precision_recall.png")


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A line per row; what is not defined stays empty."""
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({name: "" if is_undefined(value) else value for name, value in row.items()} for row in rows)
