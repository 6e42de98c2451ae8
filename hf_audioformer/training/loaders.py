"""Data loaders whose workers change nothing outside them, and outlive a signal that the training outlives."""

import os
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from torch import Generator, Tensor
from torch.utils.data import DataLoader

__all__ = ["end_workers", "with_own_workers"]


def with_own_workers(loader: DataLoader, is_training: Tensor) -> DataLoader:
    """The loader, with workers that do not draw from the global generator when they start, and live through SIGTERM
    while `is_training`, a bool in shared memory, is true.

    Persistent workers start again on resume; dropout would then differ from that of an unbroken run. And a batch system
    may send SIGTERM to all processes, while the training goes on until it has saved. Afterwards the signal ends them
    as any process: it is by this signal that Python ends workers when it exits, and it waits for them.
    """
    base = getattr(loader, "base_dataloader", loader)
    base.generator = Generator()
    if getattr(base.worker_init_fn, "func", None) is not _start_worker:
        base.worker_init_fn = partial(_start_worker, base.worker_init_fn, is_training)
        # A weak reference: a cycle would leave the workers to the garbage collection.
        start = partial(_start_workers, type(base)._get_iterator, weakref.ref(base))
        base._get_iterator = start  # type: ignore[method-assign]
    return loader


def end_workers(loader: DataLoader) -> None:
    """Ends the persistent workers of a loader that is not needed any more.

    Left to the garbage collection they are waited for, 5 seconds each: it closes the queue by which they are told to
    leave before it tells them.
    """
    base = getattr(loader, "base_dataloader", loader)
    iterator, base._iterator = getattr(base, "_iterator", None), None
    if iterator is not None:
        iterator._shutdown_workers()


@contextmanager
def _sigterm_waits() -> Iterator[None]:
    """Blocks SIGTERM in this thread, and in processes that it starts, where the platform can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_workers(start: Callable[[Any], Any], loader: weakref.ref[DataLoader]) -> Any:
    """Keeps SIGTERM from the workers until `_start_worker` runs in them: PyTorch has it end them for a while before."""
    with _sigterm_waits():
        return start(loader())


def _start_worker(then: Callable[[int], None] | None, is_training: Tensor, worker: int) -> None:
    def leave_after_training(number: int, frame: FrameType | None) -> None:
        if not is_training:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, leave_after_training)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if then is not None:
        then(worker)
