"""`hf-audioformer pretrain` survives kill -9, also in the middle of writing a checkpoint, and ends as if unbroken."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hf_audioformer import cli
from hf_audioformer.recipes import pretrain
from hf_audioformer.recipes.pretrain import NetworkArguments, PretrainArguments, SourceArguments
from hf_audioformer.training.arguments import dump_config

from ..warm_processes import exit_codes, start

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

STEPS = 60


def hangs_while_saving() -> int:
    """The command, but each checkpoint hangs where its marker is being written."""
    os.fsync = lambda file: time.sleep(100)
    return cli.main()


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


def kill(command: Callable[[], int], words: list[str], condition: Callable[[], bool]) -> None:
    """Kills the command as soon as the condition holds."""
    process = start(command, *words)
    try:
        while not condition():
            assert process.is_alive(), "the command ended before it could be killed"
            time.sleep(0.001)
    finally:
        process.kill()
    assert exit_codes([process]) == [-signal.SIGKILL]


def test_killed_at_any_moment_it_ends_as_if_unbroken(
    arguments: PretrainArguments, tmp_path: Path, one_thread: None
) -> None:
    config, folder = tmp_path / "config.yaml", tmp_path / "killed"
    config.write_text(dump_config(arguments))
    words = ["pretrain", str(config), "--resume", "true"]

    def steps_saved() -> int:
        complete = folder.glob("checkpoint-*/complete.json")
        return max((int(marker.parent.name.removeprefix("checkpoint-")) for marker in complete), default=0)

    # At a random moment of training, then while a checkpoint is written.
    moment = int(np.random.default_rng(time.time_ns()).integers(2, STEPS // 2))
    kill(cli.main, words, lambda: steps_saved() >= moment)
    saved = steps_saved()
    half_written = folder / f"checkpoint-{saved + 2}"
    kill(hangs_while_saving, words, (half_written / "complete.json.tmp").exists)
    assert steps_saved() == saved
    printed = tmp_path / "printed.txt"
    assert exit_codes([start(cli.main, *words, output=printed)]) == [0]
    assert f"skipped the incomplete checkpoint {half_written}: it has no complete.json" in printed.read_text()

    pretrain.run(replace(arguments, output_dir=str(tmp_path / "unbroken")))
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "unbroken"))
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name
    assert (folder / "measures.json").read_bytes() == (tmp_path / "unbroken" / "measures.json").read_bytes()
    assert not list(folder.glob("checkpoint-*"))
