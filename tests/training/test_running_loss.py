"""Sums of losses come back from a checkpoint bit for bit, those of each process apart."""

from pathlib import Path

import pytest
import torch

from hf_audioformer.training.running_loss import RunningParts, read_running_loss, write_running_loss

CPU = torch.device("cpu")


@pytest.mark.unit
def test_sums_come_back_bit_for_bit(tmp_path: Path) -> None:
    for process in (0, 1):
        parts = RunningParts()
        for value in (0.1 + process, 1 / 3):
            parts.add({"one_loss": torch.tensor(value), "other_loss": torch.tensor(1e-30)})
        write_running_loss(str(tmp_path), process, torch.tensor(2 / 7), 2, parts, seconds=60.5)
    found = RunningParts()
    loss, steps, seconds = read_running_loss(str(tmp_path), 1, found, CPU)
    assert (torch.tensor(loss), steps, seconds, found.count) == (torch.tensor(2 / 7), 2, 60.5, 2)
    assert found.sums == parts.sums
    assert found.take()["one_loss"] == (torch.tensor(1.1) + torch.tensor(1 / 3)) / 2
    assert found.take() == {}


@pytest.mark.unit
def test_a_checkpoint_that_knows_none_begins_at_zero(tmp_path: Path) -> None:
    parts = RunningParts()
    assert read_running_loss(str(tmp_path), 0, parts, CPU) == (0.0, 0, 0.0)
    assert parts.count == 0
