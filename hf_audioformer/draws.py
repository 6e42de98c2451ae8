"""What happens to a clip in training is drawn from a key, never from a global generator, so that neither workers nor
processes nor a resume change it."""

import numpy as np

__all__ = ["ClipDraw", "generator_of"]


class ClipDraw(int):
    """The index of a clip in its data set, and how often this epoch has had that clip before: its `occurrence`.

    An integer like any other, so that every data set takes it; what is keyed by it differs between repeats.
    """

    occurrence: int

    def __new__(cls, clip_index: int, occurrence: int = 0) -> "ClipDraw":
        draw = super().__new__(cls, clip_index)
        draw.occurrence = occurrence
        return draw


def generator_of(seed: int, epoch: int, clip_index: int, *purpose: int) -> np.random.Generator:
    """The random generator of a clip in an epoch, another one for each time that the epoch has the clip (`ClipDraw`).

    `purpose` sets the draws of one part of training apart from those of another.
    """
    occurrence = getattr(clip_index, "occurrence", 0)
    key = [seed, epoch, int(clip_index), occurrence, *purpose]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
