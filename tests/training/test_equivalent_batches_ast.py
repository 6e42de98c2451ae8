"""However the 32 clips of a step are divided, a stock AST learns the same by `AudioTrainer`, by either loss.

Source of the trap: Transformers' Trainer takes its loss of several labels times the accumulation steps and times the
processes (0.694 for the same clips became 2.778 with four steps and 1.389 with two processes).
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import ASTForAudioClassification

from hf_audioformer.recipes.accelerate_config import accelerate_configs

from ..warm_processes import exit_codes, start_together
from . import ast_launched
from .ast_launched import CASES, train, train_by_layers
from .tiny_ast import assert_equal_bits, weights_of

pytestmark = [pytest.mark.invariant, pytest.mark.usefixtures("one_thread")]

PROJECT_ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(PROJECT_ROOT)}


@pytest.fixture(scope="module")
def whole_steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[float], dict[str, torch.Tensor]]]:
    """Losses and weights of each case where one process has the whole of a step in one batch."""
    folder = tmp_path_factory.mktemp("whole")
    return {name: train(case, 32, 1, folder) for name, case in CASES.items()}


def assert_same_training(losses: list[float], weights: dict[str, torch.Tensor], expected: tuple) -> None:
    expected_losses, expected_weights = expected
    assert len(expected_losses) == 2
    assert expected_losses[0] != pytest.approx(expected_losses[1], abs=1e-3)
    assert losses == pytest.approx(expected_losses, abs=1e-5)
    assert weights.keys() == expected_weights.keys()
    for name, weight in expected_weights.items():
        torch.testing.assert_close(weights[name], weight, atol=2e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("name", CASES)
def test_accumulation_equals_a_large_batch(name: str, whole_steps: dict, tmp_path: Path) -> None:
    assert_same_training(*train(CASES[name], 8, 4, tmp_path), whole_steps[name])


@pytest.mark.parametrize("name", ["ce", "bce", "bce_soft"])
def test_the_objective_is_the_models_own_loss(name: str, whole_steps: dict) -> None:
    assert_same_training(*whole_steps[f"{name}_objective"], whole_steps[name])


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes, 16 clips each, made of every case."""
    folder = tmp_path_factory.mktemp("two_processes")
    printed = folder / "printed.txt"
    assert exit_codes(start_together(ast_launched.main, folder, output=printed)) == [0, 0], printed.read_text()
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name: str, two_processes: Path, whole_steps: dict) -> None:
    found = load_file(two_processes / f"{name}_2.safetensors")
    assert_same_training(found.pop("losses").tolist(), found, whole_steps[name])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_processes_hold_one_average_unbroken_and_resumed(two_processes: Path) -> None:
    expected = load_file(two_processes / "unbroken_0.safetensors")
    for name in ("unbroken_1", "resumed_0", "resumed_1"):
        found = load_file(two_processes / f"{name}.safetensors")
        assert all(torch.equal(found[key], weight) for key, weight in expected.items()), name


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_model_that_was_shared_out_is_saved_as_a_stock_one(two_processes: Path) -> None:
    expected = load_file(two_processes / "unbroken_0.safetensors")
    saved = weights_of(ASTForAudioClassification.from_pretrained(two_processes / "fsdp2"))
    assert_equal_bits(saved, expected)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_deepspeed_learns_by_layers_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """ZeRO-2 by the packaged configuration, resumed within an epoch from a model of other weights."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed; the extra deepspeed in pyproject.toml says how")
    config = ["--config_file", str(accelerate_configs()["deepspeed_zero2"]), "--num_processes", "2"]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *config, "--mixed_precision", "no"]
    command = [*launcher, "--main_process_port", "0", ast_launched.__file__, str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT | {"DS_ACCELERATOR": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logs = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("unbroken", "resumed")]
    assert logs[0] == logs[1]
    assert [entry["learning_rate"] for entry in logs[0]] == pytest.approx([0.01, 0.005, 0.0025])
    models = [ASTForAudioClassification.from_pretrained(tmp_path / name) for name in ("unbroken", "resumed")]
    assert_equal_bits(weights_of(models[1]), weights_of(models[0]))
    _, alone = train_by_layers(tmp_path / "alone", batch=4, use_cpu=True)
    for name, weight in weights_of(models[0]).items():
        if not name.endswith("k_proj.bias"):  # the logits do not depend on it; Adam makes steps of its rounding errors
            torch.testing.assert_close(weight, alone[name], atol=1e-4, rtol=0, msg=name)
