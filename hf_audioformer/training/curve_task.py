"""Numbers of clips along time: how they are measured and shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import ClipTable, Split
from ..data.curves import Curves, curves_of_clips
from ..data.moments import MomentGrid
from ..inspection.classification_plots import curves_figure
from .hub import ID_OF_THIS_CHECKPOINT
from .moment_task import MomentTask
from .tasks import Regression, ScoredClips

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CurveRegression"]


class CurveRegression(MomentTask, Regression):
    """Numbers of every moment: `labels` are a list of float64 (moments, numbers), one per clip, NaN where a number is
    not known. All metrics are of all known moments together.

    Args:
        clips: Clips with numbers along time.
        grid: Where the moments of the model lie.
    """

    floor_is = ""
    aim = "predict numbers along time ({num_labels} of each moment)"
    use = f"""from hf_audioformer.inference import AudioClassifier

heard = AudioClassifier.from_pretrained("{ID_OF_THIS_CHECKPOINT}")("clip.wav")
heard.labels, heard.track()  # (steps, numbers), one step per heard.hop_seconds, in the units of the data"""

    truths: dict[str, Curves]

    def __init__(self, clips: ClipTable, grid: MomentGrid):
        super().__init__(dict(zip(clips.ids, curves_of_clips(clips), strict=True)), grid)

    def limit(self, scored: ScoredClips) -> str:
        _, targets = self.numbers(scored)
        return "It gives numbers also where there are none." if np.isnan(targets).any() else ""

    def compared(self, ids: Sequence[str], logits: Sequence[np.ndarray], names: Sequence[str]) -> ScoredClips:
        middles = (self.grid.middles(len(of_clip)) for of_clip in logits)
        labels = [self.truths[clip_id].at(seconds) for clip_id, seconds in zip(ids, middles, strict=True)]
        return ScoredClips(ids, logits, labels, names)

    def numbers(self, scored: ScoredClips) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate(scored.logits), np.concatenate(scored.labels)

    def intervals(self, scored: ScoredClips, *, resamples: int, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Of clips of which something is known, drawn anew: others are in no metric."""
        known = [index for index, labels in enumerate(scored.labels) if not np.isnan(labels).all()]
        return super().intervals(_some_clips(scored, known), resamples=resamples, seed=seed) if known else {}

    def metrics_of_clips(self, scored: ScoredClips) -> Callable[[np.ndarray], dict[str, float]]:
        return lambda indices: self.metrics(_some_clips(scored, indices.tolist()))

    def known_moments(self, ids: Sequence[str]) -> list[np.ndarray]:
        """The numbers of all moments of each clip up to its last point, float64 (moments, numbers), NaN where they are
        not known; told without the sound."""
        longest = math.inf if self.grid.max_seconds is None else self.grid.max_seconds
        curves = [self.truths[clip_id] for clip_id in ids]
        ends = [min(of_clip.last_seconds, longest) for of_clip in curves]
        return [
            of_clip.at(self.grid.middles(math.ceil(end / self.grid.seconds)))
            for of_clip, end in zip(curves, ends, strict=True)
        ]

    def train_labels(self, clips: ClipTable, indices: Sequence[int]) -> list[np.ndarray]:
        return self.known_moments([clips.ids[index] for index in indices])

    def chance(self, train_labels: Sequence[np.ndarray], scored: ScoredClips) -> float:
        return super().chance(np.concatenate(train_labels), scored)

    def chance_is(self, metric: str) -> str:
        return "always the mean of all moments of the training clips"

    def check(self, clips: ClipTable, splits: Sequence[Split]) -> None:
        """Raises a ValueError if a number is not known, or is always the same, in a part of a split."""
        for split in splits:
            for part in ("train", "validation", "test"):
                if indices := getattr(split, part):
                    moments = np.concatenate(self.train_labels(clips, indices))
                    for name, values in zip(clips.label_names, moments.T, strict=True):
                        _check_known(values[~np.isnan(values)], name, f"split {split.name!r}, {part} part")

    def table(self, scored: ScoredClips) -> list[dict[str, float | str]]:
        rows = super().table(scored)
        for index, row in enumerate(rows):
            row["moments"] = row["clips"]
            row["clips"] = sum(1 for of_clip in scored.labels if not np.isnan(of_clip[:, index]).all())
        return rows

    def predictions(self, scored: ScoredClips) -> Iterator[dict[str, Any]]:
        """A row per clip and moment: where its middle is, each number, and what was predicted of it."""
        for clip_id, predicted, true in zip(scored.ids, scored.logits, scored.labels, strict=True):
            seconds = self.grid.middles(len(true)).tolist()
            for second, *numbers in zip(seconds, true, predicted, strict=True):
                yield {"id": clip_id, "seconds": f"{second:.4f}"} | self.row(scored.names, *numbers)

    def figures(self, scored: ScoredClips, about: str) -> dict[str, Figure]:
        title = f"Numbers along time, predicted (blue) and true (orange)\n{about}"
        step = self.grid.seconds
        return {"curves.png": curves_figure(scored.ids, scored.logits, scored.labels, scored.names, step, title)}

    def left_out(self, scored: ScoredClips) -> list[str]:
        _, targets = self.numbers(scored)
        counts = (~np.isnan(targets)).sum(axis=0)
        return [name for name, count in zip(scored.names, counts, strict=True) if count < 2]


def _some_clips(scored: ScoredClips, indices: Sequence[int]) -> ScoredClips:
    """The clips at some indices, which may be repeated."""
    columns = (scored.ids, scored.logits, scored.labels)
    ids, logits, labels = ([column[index] for index in indices] for column in columns)
    return ScoredClips(ids, logits, labels, scored.names)


def _check_known(values: np.ndarray, name: str, where: str) -> None:
    if not len(values):
        raise ValueError(
            f"{where}: {name!r} is not known in any moment; give it for more of the clips, a larger "
            "data.curve_gap_seconds, or another split"
        )
    if values.min() == values.max():
        raise ValueError(
            f"{where}: {name!r} is {values[0]:g} in all {len(values)} moments in which it is known; leave it out of "
            "data.target_columns, or choose another split"
        )
