"""Workers ignore SIGTERM, and their start leaves the global generator as it was."""

import signal

import pytest
import torch
from torch.utils.data import DataLoader

from hf_audioformer.training.loaders import with_own_workers


class Handlers:
    """What the process that reads an item does on SIGTERM, and whether its own start was run."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[bool, int]:
        return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, torch.initial_seed()


@pytest.mark.unit
def test_workers_ignore_sigterm_and_draw_nothing() -> None:
    loader = DataLoader(Handlers(), num_workers=1, worker_init_fn=lambda worker: torch.manual_seed(42 + worker))
    before, handler = torch.get_rng_state(), signal.getsignal(signal.SIGTERM)
    wrapped = with_own_workers(with_own_workers(loader))
    (ignored, seeds), *_ = wrapped
    assert bool(ignored)
    assert int(seeds) == 42
    assert torch.equal(torch.get_rng_state(), before)
    assert signal.getsignal(signal.SIGTERM) is handler
