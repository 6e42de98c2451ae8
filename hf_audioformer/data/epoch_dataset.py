"""Data sets whose clips are drawn anew in each epoch."""

import torch
from torch.utils.data import Dataset

__all__ = ["EpochDataset"]


class EpochDataset(Dataset):
    """A data set that knows the epoch, also in worker processes that run already, since it lies in shared memory."""

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """What items are drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw anew from now on; `AudioTrainer` calls this before each epoch."""
        self._epoch.fill_(epoch)
