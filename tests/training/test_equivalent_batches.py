"""The losses are right under Transformers' Trainer: however a step's 32 clips are divided, training is the same.

Source of the trap: the Trainer multiplies a loss that ignores its count of items by the accumulation steps and by the
number of processes; Transformers' own multi-label loss is such a one.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ..warm_processes import exit_codes, start_together
from . import tiny_training
from .tiny_training import PROBLEMS, train

pytestmark = pytest.mark.invariant


def assert_same_training(found, expected) -> None:
    (report, parameters), (expected_report, expected_parameters) = found, expected
    assert len(expected_report["losses"]) == 2
    assert expected_report["losses"][0] != pytest.approx(expected_report["losses"][1], abs=1e-3)
    assert report["losses"] == pytest.approx(expected_report["losses"], abs=1e-5)
    assert parameters.keys() == expected_parameters.keys()
    for name, value in expected_parameters.items():
        torch.testing.assert_close(parameters[name], value.detach(), atol=1e-6, rtol=1e-5, check_device=False)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_accumulation_equals_a_large_batch(problem, tmp_path: Path):
    assert_same_training(train(problem, 8, 4, str(tmp_path)), train(problem, 32, 1, str(tmp_path)))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes, 16 clips each, made of every problem."""
    folder = tmp_path_factory.mktemp("two_processes")
    printed = folder / "printed.txt"
    processes = start_together(tiny_training.main, 16, 1, folder, output=printed)
    assert exit_codes(processes) == [0, 0], printed.read_text()
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_two_processes_equal_one(problem, two_processes: Path, tmp_path: Path):
    report = json.loads((two_processes / f"{problem}.json").read_text())
    assert report["world_size"] == 2
    parameters = load_file(two_processes / f"{problem}.safetensors")
    assert_same_training((report, parameters), train(problem, 32, 1, str(tmp_path)))
