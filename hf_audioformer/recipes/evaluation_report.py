"""What an evaluation leaves in its folder: metrics as JSON, tables as csv, and figures."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..training.json_file import is_undefined, write_json
from ..training.tasks import CLASSIFICATION, ScoredClips, Task

__all__ = ["METRICS_FILE", "ScoredClips", "measure", "summary", "write_report", "write_tables"]

METRICS_FILE = "metrics.json"


def measure(scored: ScoredClips, *, resamples: int, seed: int, task: Task = CLASSIFICATION) -> dict[str, Any]:
    """The main metric as `score`, all `metrics` with `confidence_95` (bootstrap over clips; none for 0 `resamples`),
    `chance` (what the score is without an ear, knowing these clips' labels), and what was left out."""
    metrics = task.metrics(scored)
    return {
        "score": task.score(metrics),
        "chance": task.chance(scored.labels, scored),
        "metrics": metrics,
        "confidence_95": task.intervals(scored, resamples=resamples, seed=seed) if resamples else {},
        "clips": len(scored.ids),
        "classes": len(scored.names),
        "classes_left_out": task.left_out(scored),
    }


def write_tables(folder: Path, scored: ScoredClips, task: Task = CLASSIFICATION) -> None:
    """Writes what needs no intervals, which may take long: a table of the classes, and every prediction."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "per_class.csv", task.table(scored))
    _write_csv(folder / "predictions.csv", task.predictions(scored))


def write_report(
    folder: Path, report: Mapping[str, Any], scored: ScoredClips, about: str, task: Task = CLASSIFICATION
) -> None:
    """Writes figures (with `about` under their titles), and last the report itself, so that its presence tells of a
    whole evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in task.figures(scored, about).items():
        figure.savefig(folder / name)
    write_json(folder / METRICS_FILE, report)


def summary(report: Mapping[str, Any], task: Task = CLASSIFICATION) -> str:
    """The metrics with their intervals, a line each, and what was left out."""
    lines = [f"{report['clips']} clips of {report['classes']} {task.outputs}, chance {report['chance']:.3f}"]
    for name, value in report["metrics"].items():
        low, high = report["confidence_95"].get(name, (math.nan, math.nan))
        interval = "" if math.isnan(low) or name == "skipped_classes" else f"   95 % interval {low:.3f} to {high:.3f}"
        lines.append(f"  {name:18} {value:.3f}{interval}")
    for key, what in (
        ("clips_skipped", "clips that could not be read"),
        ("classes_left_out", f"{task.outputs} without a clip"),
    ):
        if report[key]:
            more = ", ..." if len(report[key]) > 10 else ""
            lines.append(f"left out, {len(report[key])} {what}: {', '.join(report[key][:10])}{more}")
    return "\n".join(lines)


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A line per row; what is not defined stays empty."""
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0] if rows else ())
        writer.writeheader()
        writer.writerows({name: "" if is_undefined(value) else value for name, value in row.items()} for row in rows)
