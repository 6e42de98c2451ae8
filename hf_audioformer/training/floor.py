"""The floor beside every result: a linear model on features of the same clips that know no order in time."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..audio.io import Audio
from ..audio.log_mel import log_mel
from ..data import ClipTable
from ..models.audioformer.waveform_audioformer import resample
from .tasks import CLASSIFICATION, Task

__all__ = ["Floor", "code_histogram", "floor_metrics", "log_mel_statistics"]

SAMPLING_RATE = 16000


class Floor:
    """Trains and tests what a task is compared with on the splits of a table of clips.

    Of sound its features are `log_mel_statistics`, standardised; of a code store, which holds none, `code_histogram`.
    Those of a clip are computed once, when a split first needs them.

    Attributes:
        features: What they are, in words.
    """

    def __init__(self, clips: ClipTable, task: Task = CLASSIFICATION):
        self.clips = clips
        self.task = task
        self.features = "statistics of log-mels" if clips.codes is None else "histograms of the codes"
        self._of_clip: dict[int, np.ndarray] = {}

    def metrics(self, train: Sequence[int], test: Sequence[int], *, show_progress: bool = False) -> dict[str, float]:
        """Metrics of the task on the clips at `test` after training on those at `train`.

        Raises:
            ValueError: A clip cannot be read.
        """
        missing = [index for index in (*train, *test) if index not in self._of_clip]
        for index in tqdm(missing, desc="floor", unit="clip", dynamic_ncols=True, disable=not show_progress):
            self._of_clip[index] = self._features(index)
        train_vectors, test_vectors = (np.stack([self._of_clip[index] for index in part]) for part in (train, test))
        return floor_metrics(
            train_vectors,
            self.clips.targets(train),
            test_vectors,
            self.clips.targets(test),
            num_labels=len(self.clips.label_names),
            standardise=self.clips.codes is None,
            task=self.task,
        )

    def _features(self, index: int) -> np.ndarray:
        codes = self.clips.codes
        if codes is None:
            return log_mel_statistics(self.clips.load(index))
        of_clip = torch.from_numpy(codes.of_clip(self.clips.table[index])).T
        return code_histogram(of_clip, codes.manifest.settings["codebook_size"])


def floor_metrics(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    *,
    num_labels: int,
    standardise: bool,
    task: Task = CLASSIFICATION,
) -> dict[str, float]:
    """Metrics of what a task is compared with, `task.floor_is`, from `train`, (clips, size), to `test`.

    Logistic regression (C = 1) takes class indices (clips,), or multi-hot rows (clips, num_labels), which are fitted
    one against the rest; ridge regression (alpha = 1) numbers (clips, num_labels). With
    `standardise` each feature loses its mean over `train` and is divided by its deviation there, if it has one.
    """
    if standardise:
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        deviation[deviation == 0] = 1
        train, test = (train - mean) / deviation, (test - mean) / deviation
    return task.floor(train, train_labels, test, test_labels, num_labels)


def log_mel_statistics(audio: Audio) -> np.ndarray:
    """Mean, then standard deviation over time of 64 log-mel bands at 16 kHz: float32 (128,)."""
    waveform = resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], SAMPLING_RATE)
    frames = log_mel(waveform, SAMPLING_RATE)
    return torch.cat([frames.mean(0), frames.std(0, correction=0)]).numpy()


def code_histogram(codes: Tensor, codebook_size: int) -> np.ndarray:
    """The square root of each code's share of the frames, float32 (num_codebooks * codebook_size,).

    Codes are int64 (num_codebooks, frames), below `codebook_size`. The root keeps frequent codes from drowning the rare
    ones; all share a scale and are not standardised.
    """
    counts = torch.stack([codebook.bincount(minlength=codebook_size) for codebook in codes])
    return (counts / codes.shape[-1]).sqrt().flatten().numpy()
