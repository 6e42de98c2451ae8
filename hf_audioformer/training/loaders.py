"""Data loaders whose workers change nothing outside them, and outlive a signal that the training outlives."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from copy import copy
from functools import partial
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import FrameType

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
        forks = multiprocessing.get_context().get_start_method() == "fork"
        if base.num_workers > 0 and base.multiprocessing_context is None and forks:
            base.multiprocessing_context = _forking_context()
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


def _forking_context() -> BaseContext:
    """Forks workers that SIGTERM does not reach until `_start_worker` runs in them; PyTorch's own handler, which they
    have until then, would end them. Where workers are not forked, as on macOS, they start unprotected."""
    context = copy(multiprocessing.get_context("fork"))
    context.Process = type("Worker", (context.Process,), {"start": _start_blocked})  # type: ignore[misc]
    return context


def _start_blocked(process: BaseProcess) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        super(type(process), process).start()  # type: ignore[misc]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
