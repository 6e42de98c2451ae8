"""Clips of any length through a model, window by window, in batches over clips and windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from .front_end import FrontEnd, Sound, name_of

__all__ = ["HeardClip", "each_clip"]

Output = TypeVar("Output")


@dataclass
class HeardClip(Generic[Output]):
    """A clip and what the model gave for each of its windows.

    Attributes:
        name: Its path, or its place in the list.
        waveform: float32 (samples,), as `FrontEnd.waveform` gives it.
        windows: The samples of each window.
        outputs: What was computed of each window.
        error: Why the clip cannot be used.
    """

    name: str
    waveform: Tensor = field(default_factory=lambda: torch.empty(0))
    windows: list[slice] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    error: Exception | None = None

    def window_seconds(self, sampling_rate: int) -> np.ndarray:
        """Where each window begins and ends, float64 (windows, 2)."""
        return np.array([(window.start, window.stop) for window in self.windows]) / sampling_rate

    @property
    def is_done(self) -> bool:
        return self.error is not None or len(self.outputs) == len(self.windows)


def each_clip(
    sounds: Iterable[Sound],
    front_end: FrontEnd,
    compute: Callable[[list[Tensor]], Sequence[Output]],
    *,
    batch_size: int,
    heard: Callable[[float], object],
) -> Iterator[HeardClip[Output]]:
    """Each clip with its outputs or with the error that tells why it has none; in order, as they come.

    Clips are read one after the other, and windows of several share a batch. After each batch, and after a clip that
    cannot be used, `heard` is told how many clips more, in parts of one, are done with.

    Args:
        compute: Gives one output for each of several waveforms (samples,); may refuse them by a ValueError.
        batch_size: Most windows given to `compute`.
    """
    waiting: deque[HeardClip[Output]] = deque()
    batch: list[tuple[HeardClip[Output], Tensor]] = []
    for place, sound in enumerate(sounds):
        clip = _opened(HeardClip[Output](name_of(sound, place)), sound, place, front_end)
        waiting.append(clip)
        if clip.error is not None:
            heard(1)
        for window in clip.windows:
            batch.append((clip, clip.waveform[window]))
            if len(batch) == batch_size:
                heard(_compute(batch, compute))
                batch = []
        while waiting and waiting[0].is_done:
            yield waiting.popleft()
    if batch:
        heard(_compute(batch, compute))
    yield from waiting


def _opened(clip: HeardClip[Output], sound: Sound, place: int, front_end: FrontEnd) -> HeardClip[Output]:
    try:
        clip.waveform = front_end.waveform(sound, place)
        clip.windows = front_end.windows(len(clip.waveform))
    except (ValueError, OSError) as error:
        clip.error = error
    return clip


def _compute(
    batch: list[tuple[HeardClip[Output], Tensor]], compute: Callable[[list[Tensor]], Sequence[Output]]
) -> float:
    """Adds the outputs of windows to their clips; returns how many clips these windows are, in parts of one."""
    try:
        outputs = compute([window for _, window in batch])
    except ValueError as error:
        if len(batch) > 1:
            return sum(_compute([one], compute) for one in batch)
        batch[0][0].error = error
        return 1 / len(batch[0][0].windows)
    for (clip, _), output in zip(batch, outputs, strict=True):
        clip.outputs.append(output)
    return sum(1 / len(clip.windows) for clip, _ in batch)
