"""Data loaders whose workers change nothing outside them, and outlive a signal that the training outlives."""

import signal
from collections.abc import Callable
from functools import partial

from torch import Generator
from torch.utils.data import DataLoader

__all__ = ["with_own_workers"]


def with_own_workers(loader: DataLoader) -> DataLoader:
    """The loader, with workers that do not draw from the global generator when they start, and ignore SIGTERM.

    Persistent workers start again on resume; dropout would then differ from that of an unbroken run. And a batch system
    may send SIGTERM to all processes, while the training goes on until it has saved; the workers leave with it.
    """
    base = getattr(loader, "base_dataloader", loader)
    base.generator = Generator()
    if getattr(base.worker_init_fn, "func", None) is not _ignore_sigterm:
        base.worker_init_fn = partial(_ignore_sigterm, base.worker_init_fn)
    return loader


def _ignore_sigterm(then: Callable[[int], None] | None, worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if then is not None:
        then(worker)
