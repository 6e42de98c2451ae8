"""Mean and standard deviation of clips, one after the other, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Self

import numpy as np

__all__ = ["RunningStatistics", "shared_statistics"]

# Clips that one process measures before it tells the others.
CLIPS_OF_BLOCK = 16


@dataclass(frozen=True)
class RunningStatistics:
    """How many values there were, their mean, and the sum of their squared deviations from it; numbers, or arrays of
    those of several features."""

    count: int = 0
    mean: Any = 0.0
    squared_deviations: Any = 0.0

    @classmethod
    def of(cls, values: np.ndarray, axis: int | None = None) -> Self:
        """The statistics of an array of any shape, of all its values or along an axis, in double precision."""
        exact = values.astype(np.float64)
        mean = exact.mean(axis=axis)
        return cls(exact.size // mean.size, mean, np.square(exact - mean).sum(axis=axis))

    def merged(self, other: RunningStatistics) -> RunningStatistics:
        """The statistics of both sets of values together.

        Source: Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances.
        """
        count = self.count + other.count
        if count == 0:
            return self
        distance = other.mean - self.mean
        return RunningStatistics(
            count,
            self.mean + distance * other.count / count,
            self.squared_deviations + other.squared_deviations + distance**2 * self.count * other.count / count,
        )

    @property
    def std(self) -> Any:
        """The standard deviation of the values themselves (divided by their number)."""
        return np.sqrt(self.squared_deviations / self.count)


def shared_statistics(count: int, measure: Callable[[int], RunningStatistics]) -> RunningStatistics:
    """The statistics of so many clips, each measured once with a progress bar.

    Processes that train together measure a share each, so all of them must call this. The result is the same to the
    last bit whatever their number.

    Raises:
        ValueError: A clip could not be measured, in whichever process.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object
    from tqdm.auto import tqdm

    state = PartialState()
    starts = range(0, count, CLIPS_OF_BLOCK)[state.process_index :: state.num_processes]
    blocks: dict[int, RunningStatistics] = {}
    shown = {"unit": "clip", "unit_scale": CLIPS_OF_BLOCK * state.num_processes, "disable": not state.is_main_process}
    failure: ValueError | None = None
    try:
        for start in tqdm(starts, desc="stats", dynamic_ncols=True, delay=2, **shown):
            clips = range(start, min(count, start + CLIPS_OF_BLOCK))
            blocks[start] = reduce(RunningStatistics.merged, map(measure, clips), RunningStatistics())
    except ValueError as error:
        failure = error  # the others wait
    for of_process, failure_of_process in gather_object([(blocks, failure)]):
        if failure_of_process is not None:
            raise failure_of_process
        blocks |= of_process
    return reduce(RunningStatistics.merged, (blocks[start] for start in sorted(blocks)), RunningStatistics())
