"""Real processes that are sent SIGTERM write a whole checkpoint, say how to go on, and end as if unbroken."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hf_audioformer.training.checkpoints import newest_complete_checkpoint
from hf_audioformer.training.interruption import StopOnSigterm, TrainingStopped
from hf_audioformer.training.trainer import trainer_arguments

from ..warm_processes import exit_codes, start, start_together
from . import sigterm_launched
from .sigterm_launched import STOPPED
from .tiny_ast import assert_equal_bits

PROJECT_ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(PROJECT_ROOT)}
MESSAGE = (
    r"stopped by SIGTERM after step (\d+); the checkpoint checkpoint-\1 in .* is whole, and the same command with "
    r"--resume true goes on from it"
)


def begin(folder: Path, processes: int, workers: int = 0) -> list[BaseProcess]:
    """Starts a training without a launcher."""
    if processes == 1:
        return [start(sigterm_launched.main, folder, workers)]
    return start_together(sigterm_launched.main, folder, workers)


def finish(folder: Path, processes: int, workers: int = 0) -> None:
    assert exit_codes(begin(folder, processes, workers)) == [0] * processes


def wait_for(mark: Path, is_running: Callable[[], bool]) -> None:
    while not mark.exists():
        assert is_running(), "the training ended before it could be stopped"
        time.sleep(0.002)


def signalled(folder: Path, processes: int, workers: int, receiver: str) -> list[int | None]:
    """Sends SIGTERM after the second step, to the group of the first process or to the second; the exit codes."""
    training = begin(folder, processes, workers)
    try:
        wait_for(folder / f"step_{processes - 1}_2", lambda: all(process.is_alive() for process in training))
        if receiver == "group":
            os.killpg(training[0].pid, signal.SIGTERM)
        else:
            training[1].terminate()
        return exit_codes(training, timeout=60)
    finally:
        for process in training:
            process.kill()


def signalled_launcher(folder: Path) -> int:
    """Sends SIGTERM after the second step to `torchrun` with two processes; its exit code."""
    command = [sys.executable, *TORCHRUN, sigterm_launched.__file__, str(folder), "0"]
    with subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True) as training:
        try:
            wait_for(folder / "step_1_2", lambda: training.poll() is None)
            training.terminate()
            return training.wait(timeout=60)
        finally:
            if training.poll() is None:  # hangs, and its processes have groups of their own
                training.kill()
                for mark in folder.glob("step_*_1"):
                    with suppress(ProcessLookupError):
                        os.kill(int(mark.read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of unbroken trainings by their number of processes."""
    folders = {processes: tmp_path_factory.mktemp(f"unbroken_{processes}") for processes in (1, 2)}
    for processes, folder in folders.items():
        finish(folder, processes)
    return folders


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("processes", "workers", "receiver"),
    [(1, 2, "group"), (2, 0, "second process"), (2, 0, "launcher")],
)
def test_a_training_that_was_sent_sigterm_ends_as_if_unbroken(
    processes: int, workers: int, receiver: str, unbroken: dict[int, Path], tmp_path: Path
) -> None:
    if receiver == "launcher":
        assert signalled_launcher(tmp_path) == 1
    else:
        assert signalled(tmp_path, processes, workers, receiver) == [STOPPED] * processes
    messages = [(tmp_path / f"stopped_{rank}").read_text() for rank in range(processes)]
    stopped_at = [re.fullmatch(MESSAGE, message) for message in messages]
    assert all(stopped_at), messages
    step = int(stopped_at[0][1])
    assert 2 <= step < 15
    assert newest_complete_checkpoint(tmp_path) == str(tmp_path / f"checkpoint-{step}")
    assert not (tmp_path / f"step_0_{step + 1}").exists()

    finish(tmp_path, processes, workers)
    for rank in range(processes):
        found, expected = (
            load_file(folder / f"weights_{rank}.safetensors") for folder in (tmp_path, unbroken[processes])
        )
        assert_equal_bits(found, expected)
        logs = [json.loads((folder / f"log_{rank}.json").read_text()) for folder in (tmp_path, unbroken[processes])]
        assert logs[0] == logs[1]
        assert len([entry for entry in logs[0] if "eval_loss" in entry]) == 3


@pytest.mark.unit
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("step", "workers"),
    [(2, 0), (2, 2), (5, 0), (15, 0)],
    ids=["within an epoch", "within an epoch with workers", "last of an epoch", "last"],
)
def test_the_checkpoint_is_of_the_running_step_and_the_epoch_is_evaluated_first(
    tmp_path: Path, step: int, workers: int
) -> None:
    class Sigterm(sigterm_launched.Progress):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)

    before, children = signal.getsignal(signal.SIGTERM), set(multiprocessing.active_children())
    trainer = sigterm_launched.build(tmp_path, workers, 1, seconds=0.0)
    trainer.add_callback(Sigterm(tmp_path))
    with pytest.raises(TrainingStopped, match=rf"after step {step}; the checkpoint checkpoint-{step} in ") as stopped:
        trainer.train()
    assert signal.getsignal(signal.SIGTERM) is before
    assert stopped.tb, "what catches the error holds its frames, which could hold workers"
    assert {*multiprocessing.active_children()} <= children
    assert newest_complete_checkpoint(tmp_path) == str(tmp_path / f"checkpoint-{step}")
    log = json.loads((tmp_path / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]
    assert [entry["epoch"] for entry in log if "eval_loss" in entry] == [epoch + 1.0 for epoch in range(step // 5)]
    assert trainer.averaging_result is None


@pytest.mark.unit
def test_a_signal_after_the_last_step_stops_what_would_come_after_training() -> None:
    stop = StopOnSigterm(lambda flag: flag)
    stop.__enter__()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(TrainingStopped, match="after the last step; resume finishes from the last checkpoint"):
        stop.__exit__(None)
    with stop:  # listens anew
        pass


@pytest.mark.unit
def test_outside_the_main_thread_nothing_happens() -> None:
    entered = []

    def train() -> None:
        with StopOnSigterm(lambda flag: flag) as stop:
            entered.append(stop)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert entered


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("auto_find_batch_size", True, "is not read; when memory is out"),
        ("bf16_full_eval", True, "is not read: it would leave the weights in half precision"),
        ("enable_jit_checkpoint", True, "is not read: on SIGTERM"),
        ("label_smoothing_factor", 0.1, "is not read; classifiers have model.label_smoothing"),
        ("gradient_accumulation_steps", 0, "is 0; it must be at least 1"),
        ("learning_rate", float("nan"), "is nan; it must be at least 0"),
        ("num_train_epochs", 0, "is 0; it must be above 0"),
        ("train_sampling_strategy", "sequential", "is 'sequential'; allowed are random and group_by_length"),
    ],
)
def test_transformers_own_is_refused(name: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"training.{name} {message}"):
        trainer_arguments({}, {name: value}, output_dir=str(tmp_path), seed=0, use_cpu=True)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("report_to", "foo", "foo is not supported"), ("lr_scheduler_type", "cosine_with_min_lr", "min_lr")],
)
def test_what_the_trainer_would_tell_late_is_told_now(name: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"the section training does not fit together: .*{message}"):
        trainer_arguments({}, {name: value}, output_dir=str(tmp_path), seed=0, use_cpu=True)
    with pytest.raises(ValueError, match="seed is -1; it must be at least 0"):
        trainer_arguments({}, {}, output_dir=str(tmp_path), seed=-1, use_cpu=True)
