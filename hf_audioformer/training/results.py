"""What a protocol gave: one result per split, their mean and spread, as a table and as JSON."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from .json_file import write_json

__all__ = ["SplitResult", "chance_level", "format_results", "read_results", "with_official_epoch", "write_results"]


@dataclass(frozen=True)
class SplitResult:
    """One split: its main metric on the test clips in [0, 1], the level of chance, all metrics, and what it took.

    `clips_skipped` are those of its parts that could not be read, and that `data.skip_bad` left out.
    `floor` is the main metric of `floor_is` on the `floor_features` of the source's clips, where it was computed.
    `test_scores` are the main metric on the test clips after each epoch, where that was asked for, and `official_score`
    is that of `official_epoch`; see `with_official_epoch`.
    """

    name: str
    metric: str
    score: float
    chance: float
    metrics: dict[str, float]
    num_clips: dict[str, int]
    seconds: float
    clips_skipped: list[str] = field(default_factory=list)
    test_scores: list[float] = field(default_factory=list)
    floor: float | None = None
    floor_features: str = ""
    floor_is: str = "logistic regression"
    official_epoch: int | None = None
    official_score: float | None = None


def with_official_epoch(results: Sequence[SplitResult]) -> list[SplitResult]:
    """The results with the epoch, counted from 1, that was best on the test clips in the mean over the splits.

    That is how accuracies on ESC-50 are published. It looks at the answers, so it is told beside `score`, never as it.
    Where training stopped early only the epochs that all splits have are compared; without `test_scores` nothing
    changes.

    Source: `get_esc_result.py` in the recipe of AST for ESC-50, github.com/YuanGongND/ast.
    """
    common = min((len(result.test_scores) for result in results), default=0)
    if common == 0:
        return list(results)
    best = int(np.mean([result.test_scores[:common] for result in results], axis=0).argmax())
    return [replace(result, official_epoch=best + 1, official_score=result.test_scores[best]) for result in results]


def chance_level(train_targets: np.ndarray, test_targets: np.ndarray) -> float:
    """What needs no ear: accuracy of always naming the most frequent training class; for multi-hot targets
    (clips, classes) the mean share of positive clips, which is the expected mAP of a random ranking."""
    if test_targets.ndim == 2:
        shares = test_targets.mean(axis=0)
        return float(shares[shares > 0].mean())
    classes, counts = np.unique(train_targets, return_counts=True)
    return float((test_targets == classes[counts.argmax()]).mean())


def format_results(results: Sequence[SplitResult]) -> str:
    """A table with a row per split and, for several, their mean and standard deviation; with floors, what they are."""
    width = max(len("split"), *(len(result.name) for result in results))
    floors = [result.floor for result in results if result.floor is not None]
    floor = f"{'floor':>6}  " if floors else ""
    lines = [
        f"{'split':{width}}  {results[0].metric:>9}  {floor}{'chance':>6}  {'train':>6}  {'test':>6}  {'seconds':>7}"
    ]
    for result in results:
        if floors:
            floor = f"{'-':>6}  " if result.floor is None else f"{result.floor:6.1%}  "
        counts = f"{result.num_clips['train']:6d}  {result.num_clips['test']:6d}"
        lines.append(
            f"{result.name:{width}}  {result.score:9.1%}  {floor}{result.chance:6.1%}  {counts}  {result.seconds:7.0f}"
        )
    if len(results) > 1:
        scores = np.array([result.score for result in results])
        lines.append(f"{'mean':{width}}  {scores.mean():9.1%}  (standard deviation {scores.std(ddof=1):.1%})")
    if floors:
        mean = f", mean {np.mean(floors):.1%}" if len(floors) > 1 else ""
        lines.append(f"floor: {results[0].floor_is} on {results[0].floor_features} of the source's clips{mean}")
    official = [result.official_score for result in results if result.official_score is not None]
    if official:
        lines.append(
            f"For comparison with published figures, epoch {results[0].official_epoch}, which was chosen on these test "
            f"clips: {np.mean(official):.1%}"
        )
    return "\n".join(lines)


def write_results(path: str | os.PathLike[str], results: Sequence[SplitResult]) -> None:
    """Writes the results as JSON, in one atomic step; metrics that are not defined become null."""
    write_json(Path(path), [asdict(result) for result in results])


def read_results(path: str | os.PathLike[str]) -> list[SplitResult]:
    """Reads what `write_results` wrote; null comes back as NaN."""
    results = [SplitResult(**result) for result in json.loads(Path(path).read_text(encoding="utf-8"))]
    return [
        replace(
            result,
            score=_number(result.score),
            chance=_number(result.chance),
            metrics={name: _number(value) for name, value in result.metrics.items()},
        )
        for result in results
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else value
