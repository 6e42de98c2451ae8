"""Pretraining by two processes equals pretraining by one, however the weights are shared out between them."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hf_audioformer.recipes import pretrain
from hf_audioformer.recipes.accelerate_config import accelerate_configs
from hf_audioformer.recipes.pretrain import NetworkArguments, PretrainArguments, SourceArguments
from hf_audioformer.training.arguments import dump_config

from ..warm_processes import exit_codes, start_together
from . import pretrain_launched
from .pretrain_launched import Trainers, losses_of

pytestmark = [pytest.mark.invariant, pytest.mark.slow, pytest.mark.timeout(500)]

ENGINES = {"ddp": "MULTI_CPU", "deepspeed_zero2": "DEEPSPEED", "deepspeed_zero3": "DEEPSPEED"}
STEPS_PER_EPOCH, EPOCHS = 3, 2


@pytest.fixture(scope="module")
def arguments(tone_folder: Path, tiny_codec: str) -> PretrainArguments:
    """Two epochs of three steps; the validation clips are odd in number, the losses of all steps are logged."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return PretrainArguments(
        data=SourceArguments(sources=[str(tone_folder)], validation_fraction=0.3, crop_seconds=0.2),
        output_dir="runs/pretrain",
        model=NetworkArguments(codec=tiny_codec, num_codebooks=2, hidden_dropout=0.0, **sizes),
        training={
            "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 2,
            "logging_strategy": "steps",
            "logging_steps": 1,
            "disable_tqdm": True,
        },
    )


@pytest.fixture(scope="module")
def one_process(
    arguments: PretrainArguments, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], list[float], Path]:
    """The measures, the losses of the steps and the folder of one process."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "build_trainer", trainers := Trainers())
        measures = pretrain.run(replace(arguments, output_dir=str(folder)))
    return measures, losses_of(trainers.built[0]), folder


def launch(engine: str, arguments: PretrainArguments, folder: Path) -> None:
    """Has two processes share the same steps: half the batch each."""
    training = arguments.training | {"per_device_train_batch_size": 4}
    (folder / "config.yaml").write_text(dump_config(replace(arguments, training=training, world_size=2)))
    if engine == "ddp":
        printed = folder / "printed.txt"
        processes = start_together(pretrain_launched.main, folder / "config.yaml", folder, output=printed)
        assert exit_codes(processes) == [0, 0], printed.read_text()
        return
    config = str(accelerate_configs()[engine])
    precision = ["--mixed_precision", "no", "--main_process_port", "0"]
    launcher = ["accelerate.commands.launch", "--config_file", config, "--num_processes", "2", *precision]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, pretrain_launched.__file__, str(folder / "config.yaml"), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_equal_one_and_a_resumed_run_an_unbroken_one(
    engine: str, arguments: PretrainArguments, one_process: tuple, tmp_path: Path
) -> None:
    if engine.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed; the extra deepspeed in pyproject.toml says how")
    launch(engine, arguments, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["engine"], report["world_size"]) == (ENGINES[engine], 2)
    unbroken, resumed = report["measures"]
    assert resumed == unbroken
    measures, losses, folder = one_process
    assert unbroken["validation_clips"] == 7
    for codebook, row in measures["codebooks"].items():
        assert unbroken["codebooks"][codebook] == pytest.approx(row, rel=1e-4)
    assert len(losses) == STEPS_PER_EPOCH * EPOCHS
    assert report["losses"] == pytest.approx(losses, rel=1e-4)

    others = ["resumed", "fsdp2"] if engine == "ddp" else ["resumed"]
    weights, *again = (load_file(tmp_path / name / "model.safetensors") for name in ("unbroken", *others))
    expected = load_file(folder / "model.safetensors")
    assert all(found.keys() == expected.keys() for found in (weights, *again))
    for name, weight in expected.items():
        assert all(torch.equal(found[name], weights[name]) for found in again), name
        torch.testing.assert_close(weights[name], weight, atol=1e-4, rtol=0)
