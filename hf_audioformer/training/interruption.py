"""A checkpoint on SIGTERM, which batch systems send some time before they kill a training.

From Transformers' own (`enable_jit_checkpoint`) no run goes on exactly: it waits three seconds, then saves between the
passes of a step and its update, with random states that have moved on; processes that get the signal at different times
save at different steps; and what is left of a recipe runs on afterwards, with half-trained weights.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["StopOnSigterm", "TrainingStopped"]


class TrainingStopped(KeyboardInterrupt):
    """Training ended on SIGTERM after a whole checkpoint was written; as Ctrl-C, nothing is to catch it on the way."""


class StopOnSigterm(TrainerCallback):
    """On SIGTERM to any process, has all of them save at the end of the running step and raise `TrainingStopped`.

    A context manager, which listens while it is open, and a callback of the Trainer, which acts. At the end of an epoch
    or of the training saving waits until the epoch was logged and evaluated, since a run that is resumed begins with
    the next epoch; this holds for all checkpoints of such a step. Further signals change nothing, because launchers
    pass on one that the process may have had already. Outside the main thread there are no signals, and nothing
    happens.

    Args:
        any_process: Whether a flag is true in any of the processes; all call it together after each step.

    Attributes:
        is_training: Whether it listens, a bool in shared memory, for the workers of data loaders.
    """

    def __init__(self, any_process: Callable[[bool], bool]):
        self._any_process = any_process
        self._signalled = self._agreed = self._save_later = False
        self._before: Any = None
        self.is_training = torch.zeros((), dtype=torch.bool).share_memory_()

    def __enter__(self) -> Self:
        self.is_training.fill_(True)
        self._signalled = self._agreed = self._save_later = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, exception: type[BaseException] | None, *args: object) -> None:
        self.is_training.fill_(False)
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None
        if self._signalled and exception is None:
            raise TrainingStopped("stopped by SIGTERM after the last step; resume finishes from the last checkpoint")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._agreed = self._any_process(self._signalled)
        wanted = control.should_save or self._agreed
        is_last = (state.epoch or 0.0).is_integer() or state.global_step >= state.max_steps
        self._save_later = wanted and is_last
        control.should_save = wanted and not self._save_later

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_save = control.should_save or self._save_later
        self._save_later = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._agreed:
            raise TrainingStopped(
                f"stopped by SIGTERM after step {state.global_step}; the checkpoint checkpoint-{state.global_step} in "
                f"{args.output_dir} is whole, and the same command with --resume true goes on from it"
            )
