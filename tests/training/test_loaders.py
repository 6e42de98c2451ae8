"""SIGTERM ends workers, but not while the training goes on; their start leaves the global generator as it was."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from accelerate import skip_first_batches
from torch.utils.data import DataLoader

from hf_audioformer.training.loaders import with_own_workers


class Signalled:
    """Has SIGTERM sent to the process that reads an item, which tells how its own start was."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return torch.initial_seed()


@pytest.mark.unit
def test_workers_live_through_sigterm_while_training_and_draw_nothing() -> None:
    is_training = torch.ones((), dtype=torch.bool).share_memory_()
    loader = DataLoader(Signalled(), num_workers=1, worker_init_fn=lambda worker: torch.manual_seed(42 + worker))
    before, handler = torch.get_rng_state(), signal.getsignal(signal.SIGTERM)
    wrapped = with_own_workers(with_own_workers(loader, is_training), is_training)
    assert [int(seed) for seed in wrapped] == [42, 42]
    assert torch.equal(torch.get_rng_state(), before)
    assert signal.getsignal(signal.SIGTERM) is handler
    is_training.fill_(False)
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|is killed by signal"):
        next(iter(wrapped))


@pytest.mark.unit
def test_workers_live_through_sigterm_while_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch seeds them after it has set its own way to end on the signal, and before it lets us set another."""
    before, seed, parent = signal.pthread_sigmask(signal.SIG_BLOCK, []), torch.manual_seed, os.getpid()

    def seed_and_signal(number: int) -> torch.Generator:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
        return seed(number)

    monkeypatch.setattr(torch, "manual_seed", seed_and_signal)
    loader = DataLoader(range(3), num_workers=1)
    with_own_workers(loader, torch.ones((), dtype=torch.bool).share_memory_())
    assert [int(number) for number in loader] == [0, 1, 2]
    assert [int(number) for number in skip_first_batches(loader, 1)] == [1, 2]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


INTERRUPTED = """
import torch
from torch.utils.data import DataLoader
from hf_audioformer.training.loaders import with_own_workers

is_training = torch.ones((), dtype=torch.bool).share_memory_()
loader = DataLoader(range(8), num_workers=1, persistent_workers=True)
batches = iter(with_own_workers(loader, is_training))
next(batches)
is_training.fill_(False)
raise SystemExit(3)
"""


@pytest.mark.fault
def test_a_process_that_leaves_its_workers_behind_ends() -> None:
    """As after Ctrl-C, whose stack trace keeps them."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], timeout=60, check=False)
    assert done.returncode == 3
