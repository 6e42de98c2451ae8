"""What is learnt of every moment of clips, whatever that is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.collators import IGNORED_LABEL
from ..data.moments import AlongTime, MomentDataset, MomentGrid
from ..metrics import intervals_of_draws
from .tasks import ScoredClips, Task

__all__ = ["MomentTask"]


class MomentTask(Task):
    """What a model gives for every moment of clips: `logits` are a list of float32 (moments, size), one per clip.

    Args:
        truths: What is true of each clip along time, by its id.
        grid: Where the moments of the model lie.
    """

    pipeline = None

    def __init__(self, truths: Mapping[str, AlongTime], grid: MomentGrid):
        self.truths = truths
        self.grid = grid

    def with_targets(self, dataset: Any) -> MomentDataset:
        """Whole clips, known by their names, with the targets of their moments."""
        return MomentDataset(dataset, [self.truths[name] for name in dataset.names or ()], self.grid)

    def scored(self, ids: Sequence[str], outputs: Any, labels: Any, names: Sequence[str]) -> ScoredClips:
        """Of outputs and labels (clips, moments, size), where labels of -100 mark what is no sound or not known. From
        the last known moment of a clip on its moments are left out, since they are not told from padding."""
        of_clips = zip(np.asarray(outputs), np.asarray(labels), strict=True)
        return self.compared(ids, [self._sound(*of_clip) for of_clip in of_clips], names)

    def _sound(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        known = np.flatnonzero((labels != IGNORED_LABEL).any(axis=1))
        return outputs[self.grid.boundaries : known[-1] + 1 if len(known) else 0]

    @abstractmethod
    def compared(self, ids: Sequence[str], logits: Sequence[np.ndarray], names: Sequence[str]) -> ScoredClips:
        """The clips `ids` with what a model gave for their moments from the first one on, and what is true of them."""

    @abstractmethod
    def metrics_of_clips(self, scored: ScoredClips) -> Callable[[np.ndarray], dict[str, float]]:
        """Gives the metrics, or some of them, of the clips at some indices, which may be repeated."""

    def intervals(self, scored: ScoredClips, *, resamples: int, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Of the `metrics_of_clips`: the percentile bootstrap over clips."""
        metrics_of = self.metrics_of_clips(scored)
        random = np.random.default_rng(seed)
        clips = len(scored.ids)
        values = [metrics_of(random.integers(clips, size=clips)) for _ in range(resamples)]
        return intervals_of_draws(values, values[0])
