"""`hf-audioformer pretrain` survives kill -9, also in the middle of writing a checkpoint, and ends as if unbroken."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hf_audioformer.recipes import pretrain
from hf_audioformer.recipes.pretrain import NetworkArguments, PretrainArguments, SourceArguments
from hf_audioformer.training.arguments import dump_config

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

STEPS = 60
# The command, but each checkpoint hangs where its marker is being written.
HANGS_WHILE_SAVING = """
import os, sys, time
os.fsync = lambda file: time.sleep(100)
from hf_audioformer.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def arguments(tone_folder: Path, tiny_codec: str, tmp_path: Path) -> PretrainArguments:
    """Many small steps, a checkpoint after every second one."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return PretrainArguments(
        data=SourceArguments(sources=[str(tone_folder)], validation_fraction=0.25, crop_seconds=0.2),
        output_dir=str(tmp_path / "killed"),
        model=NetworkArguments(codec=tiny_codec, num_codebooks=2, **sizes),
        training={
            "num_train_epochs": STEPS // 3,
            "per_device_train_batch_size": 6,
            "save_strategy": "steps",
            "save_steps": 2,
            "eval_strategy": "no",
            "disable_tqdm": True,
        },
    )


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, "the command ended before it could be killed"
        time.sleep(0.001)


def test_killed_at_any_moment_it_ends_as_if_unbroken(
    arguments: PretrainArguments, tmp_path: Path, capfd: pytest.CaptureFixture[str], one_thread: None
) -> None:
    config, folder = tmp_path / "config.yaml", tmp_path / "killed"
    config.write_text(dump_config(arguments))
    words = ["pretrain", str(config), "--resume", "true"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def kill(program: list[str], condition) -> None:
        process = subprocess.Popen([sys.executable, *program, *words], env=environment)
        try:
            wait_for(condition, process)
        finally:
            process.kill()
        assert process.wait() == -9

    def steps_saved() -> int:
        complete = folder.glob("checkpoint-*/complete.json")
        return max((int(marker.parent.name.removeprefix("checkpoint-")) for marker in complete), default=0)

    # At a random moment of training, then while a checkpoint is written.
    moment = int(np.random.default_rng(time.time_ns()).integers(2, STEPS // 2))
    kill(["-m", "hf_audioformer"], lambda: steps_saved() >= moment)
    saved = steps_saved()
    half_written = folder / f"checkpoint-{saved + 2}"
    kill(["-c", HANGS_WHILE_SAVING], (half_written / "complete.json.tmp").exists)
    assert steps_saved() == saved
    capfd.readouterr()
    subprocess.run([sys.executable, "-m", "hf_audioformer", *words], env=environment, check=True)
    assert f"skipped the incomplete checkpoint {half_written}: it has no complete.json" in capfd.readouterr().err

    pretrain.run(replace(arguments, output_dir=str(tmp_path / "unbroken")))
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "unbroken"))
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name
    assert (folder / "measures.json").read_bytes() == (tmp_path / "unbroken" / "measures.json").read_bytes()
    assert not list(folder.glob("checkpoint-*"))
