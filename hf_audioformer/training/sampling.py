"""The order of the clips of an epoch, the same at any number of processes."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from ..draws import ClipDraw

__all__ = ["WholeStepSampler"]

# Clips of so many steps are sorted by length together; fewer keep the order more random, more pad less.
STEPS_SORTED_TOGETHER = 50


class WholeStepSampler(Sampler[ClipDraw]):
    """Every clip once, in an order drawn from (seed, epoch), then from the beginning again until the last step is full.

    So each step has `clips_per_step` clips (batch size times processes times accumulation), and its gradient does not
    depend on how they are divided. A clip counts at most twice in an epoch unless a step is larger than the data set.
    What it gives are integers that know how often the epoch has had that clip before (see [`ClipDraw`]), so that a clip
    that comes again is changed otherwise.
    With `lengths` the clips of a step are of about one length, so that little is padded.

    With `weights`, one per clip and not negative, as many clips are drawn with these frequencies and with replacement
    (see [`hf_audioformer.data.labels.class_balanced_weights`]); the draw depends on (seed, epoch) as well.

    Raises:
        ValueError: There is not one weight per clip, or one is negative, not finite, or all are 0.
    """

    def __init__(
        self,
        num_clips: int,
        clips_per_step: int,
        seed: int = 0,
        lengths: Sequence[int] | None = None,
        weights: np.ndarray | None = None,
    ):
        if weights is not None and (
            weights.shape != (num_clips,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0
        ):
            raise ValueError(
                f"sampling weights must be one number per clip ({num_clips}), finite, not negative and not all 0; got "
                f"shape {weights.shape}, from {weights.min()} to {weights.max()}"
            )
        self.num_clips = num_clips
        self.frequencies = None if weights is None else weights / weights.sum()
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.clips_per_step = clips_per_step
        self.seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Gives the order of another epoch from now on."""
        self._epoch = epoch

    def clips_of_step(self, step: int) -> list[int]:
        """The clips of a step, counted from the beginning of training."""
        epoch, position = divmod(step * self.clips_per_step, len(self))
        return self._order(epoch)[position : position + self.clips_per_step].tolist()

    def __len__(self) -> int:
        return -(-self.num_clips // self.clips_per_step) * self.clips_per_step

    def __iter__(self) -> Iterator[ClipDraw]:
        order = self._order(self._epoch)
        return map(ClipDraw, order.tolist(), _occurrences(order).tolist())

    def _order(self, epoch: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, epoch])
        if self.frequencies is None:
            order = np.resize(random.permutation(self.num_clips), len(self))
        else:
            order = random.choice(self.num_clips, size=len(self), p=self.frequencies)
        if self.lengths is None:
            return order
        pool = STEPS_SORTED_TOGETHER * self.clips_per_step
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        ordered = np.concatenate([clips[np.argsort(self.lengths[clips], kind="stable")] for clips in pools])
        return random.permutation(ordered.reshape(-1, self.clips_per_step)).reshape(-1)


def _occurrences(order: np.ndarray) -> np.ndarray:
    """For each entry how often the same stands before it, in the form of `order`."""
    by_clip = np.argsort(order, kind="stable")
    first_of_clip = np.searchsorted(order[by_clip], order[by_clip])
    occurrences = np.empty_like(order)
    occurrences[by_clip] = np.arange(len(order)) - first_of_clip
    return occurrences
