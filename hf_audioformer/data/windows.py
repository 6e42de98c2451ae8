"""Clips longer than an Audio Spectrogram Transformer reads, in windows that overlap, and one score of all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .spectrogram_dataset import SpectrogramDataset

__all__ = ["WindowedDataset", "check_overlap", "mean_scores", "window_starts", "window_step"]


def check_overlap(overlap: float) -> None:
    """Raises a ValueError if windows cannot overlap by this share."""
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is {overlap}; it must be at least 0 and below 1")


class WindowedDataset(Dataset):
    """The clips of a data set in windows of the extractor's `max_length` frames, for evaluation.

    Windows begin every (1 - `overlap`) of their length; the last one ends with the clip, so that all are full. A clip
    that is no longer than a window is one, as in `dataset`. Items are those of `dataset`, with the labels and
    `clip_index` of the window's clip.

    Args:
        dataset: The clips, without augmentation.
        overlap: Share of a window that the next one hears again, in [0, 1).
        most: The most frames from window to window, for a model that does not hear all of a window (`longest_step`).

    Attributes:
        clip_of_window: The clip of each window by its place in `dataset`, int64 (windows,), in order.

    Raises:
        ValueError: `overlap` is out of range, or `dataset` has augmentation.
    """

    def __init__(self, dataset: SpectrogramDataset, overlap: float = 0.5, most: int | None = None):
        if dataset.augmentation is not None:
            raise ValueError("dataset has augmentation; windows are for evaluation, give one without")
        self.dataset = dataset
        length = dataset.extractor.max_length
        step = window_step(length, overlap, length if most is None else most)
        starts = [window_starts(dataset.num_frames(index), length, step) for index in range(len(dataset))]
        self.clip_of_window = np.repeat(np.arange(len(dataset)), [len(of_clip) for of_clip in starts])
        self._starts = [start for of_clip in starts for start in of_clip]

    @property
    def names(self) -> list[str]:
        """The name of each window's clip."""
        return [self.dataset.names[index] for index in self.clip_of_window]

    @property
    def padding_value(self) -> float:
        """As `SpectrogramDataset.padding_value`."""
        return self.dataset.padding_value

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = int(self.clip_of_window[index])
        item: dict[str, Any] = {"input_values": self.dataset.part(clip, self._starts[index]), "clip_index": clip}
        if self.dataset.targets is not None:
            item["labels"] = self.dataset.targets[clip]
        return item


def mean_scores(logits: np.ndarray, clip_of_window: np.ndarray) -> np.ndarray:
    """Logits of each clip, (clips, classes): the mean over its windows, whose logits are (windows, classes).

    Of logits, not of probabilities, so that a clip of one window keeps its own, and loss and metrics read them as they
    read any other. For softmax and sigmoid this is the geometric mean of the windows' odds.

    Raises:
        ValueError: There is not one row per window.
    """
    if len(logits) != len(clip_of_window):
        raise ValueError(f"logits has {len(logits)} rows for {len(clip_of_window)} windows; each window needs one")
    windows = np.bincount(clip_of_window)
    sums = np.zeros((len(windows), logits.shape[1]))
    np.add.at(sums, clip_of_window, logits)
    return (sums / windows[:, None]).astype(logits.dtype)


def window_step(length: int, overlap: float, most: int) -> int:
    """Frames (or samples) from window to window, for windows that share `overlap` of their length; at most `most`.

    Raises:
        ValueError: `overlap` is out of range.
    """
    check_overlap(overlap)
    return max(1, min(most, round(length * (1 - overlap))))


def window_starts(total: int, length: int, step: int) -> list[int]:
    """The first frame (or sample) of each window of a clip: one every `step`, and the last one ends with the clip."""
    return [*range(0, total - length, step), max(0, total - length)]
