"""Real launches: the ones that work give one world, the ones that would train alone or apart are refused."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hf_audioformer.recipes.accelerate_config import accelerate_configs
from hf_audioformer.training.launch import check_launch, check_world_size, distributed_backend

SCRIPT = """
import ast, sys
from transformers import TrainingArguments
from hf_audioformer.training.launch import check_launch, check_world_size

use_cpu, expected, checked_before = map(ast.literal_eval, sys.argv[1:])
if checked_before:
    use_cpu = check_launch(expected, use_cpu=use_cpu)
arguments = TrainingArguments(use_cpu=use_cpu)
check_world_size(arguments)
print(f"world size {arguments.world_size}")
"""
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = ["accelerate.commands.launch", "--num_processes", "2"]


@pytest.fixture
def launch(tmp_path: Path):
    """Runs SCRIPT under a launcher with no GPU in sight; (exit code, all output)."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)

    def run(launcher: list[str], use_cpu: bool | None, expected: int | None = None, checked_before: bool = True):
        command = [sys.executable, "-m", *launcher] if launcher else [sys.executable]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, str(script), str(use_cpu), str(expected), str(checked_before)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.invariant
def test_torchrun_on_cpu_gives_one_world_of_two(launch) -> None:
    exit_code, output = launch(TORCHRUN, use_cpu=None, expected=2)
    assert (exit_code, output.count("world size 2")) == (0, 2)


@pytest.mark.fault
def test_torchrun_without_use_cpu_is_refused(launch) -> None:
    exit_code, output = launch(TORCHRUN, use_cpu=False)
    assert exit_code != 0
    assert "2 processes were launched with use_cpu=False on a machine without a GPU" in output
    assert "world size" not in output


@pytest.mark.fault
def test_two_trainings_apart_are_seen_by_their_world_size(launch) -> None:
    """The premise of the guard: without it, each of the two processes is a world of its own."""
    exit_code, output = launch(TORCHRUN, use_cpu=False, checked_before=False)
    assert exit_code != 0
    assert "2 processes were launched but each trains in a world of 1" in output


@pytest.mark.fault
@pytest.mark.parametrize("flags", [["--cpu"], []])
def test_accelerate_with_one_process_on_cpu_is_refused(launch, flags: list[str]) -> None:
    exit_code, output = launch([*ACCELERATE, *flags], use_cpu=None)
    assert exit_code != 0
    assert "starts one process without a GPU. Launch with: torchrun --nproc_per_node N" in output
    assert "train.py" in output


def accelerate(config: str) -> list[str]:
    return ["accelerate.commands.launch", "--config_file", str(accelerate_configs()[config])]


@pytest.mark.invariant
@pytest.mark.parametrize(("config", "processes"), [("single_gpu", 1), ("ddp", 2)])
def test_packaged_configurations_launch_on_cpu_too(launch, config: str, processes: int) -> None:
    exit_code, output = launch(accelerate(config), use_cpu=None, expected=processes)
    assert (exit_code, output.count(f"world size {processes}")) == (0, processes)


@pytest.mark.invariant
def test_two_machines_find_each_other(tmp_path: Path) -> None:
    """Both on this one, a process each."""
    (tmp_path / "train.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = ["--main_process_ip", "127.0.0.1", "--main_process_port", str(free.getsockname()[1])]
    command = [sys.executable, "-m", *accelerate("two_nodes"), *where, "--num_processes", "2", "--machine_rank"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    machines = [
        subprocess.Popen(
            [*command, rank, str(tmp_path / "train.py"), "None", "2", "True"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for output, _ in [machine.communicate(timeout=100) for machine in machines]:
        assert output.count("world size 2") == 1, output


@pytest.mark.fault
def test_fsdp_without_an_accelerator_is_refused(launch) -> None:
    exit_code, output = launch(accelerate("fsdp2"), use_cpu=None)
    assert exit_code != 0
    assert "asks for FSDP without an accelerator, where Accelerate would train by DDP instead" in output
    assert "world size" not in output


@pytest.mark.fault
def test_deepspeed_with_use_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert check_launch() is False
    with pytest.raises(ValueError, match="asks for DeepSpeed and use_cpu is true"):
        check_launch(use_cpu=True)


@pytest.mark.unit
def test_only_deepspeed_without_an_accelerator_is_told_how_to_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    assert distributed_backend() is None
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert distributed_backend() == (None if torch.accelerator.is_available() else "gloo")


@pytest.mark.cli
def test_a_plain_start_is_refused_where_two_processes_are_expected(launch) -> None:
    exit_code, output = launch([], use_cpu=None, expected=2)
    assert exit_code == 1
    assert "2 processes must train together, this launch has 1. Launch with: torchrun --nproc_per_node 2" in output


@pytest.mark.unit
def test_use_cpu_is_true_only_where_there_is_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "ACCELERATE_USE_CPU", "ACCELERATE_USE_DEEPSPEED", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert check_launch() is not torch.accelerator.is_available()
    assert check_launch(use_cpu=True) is True
    assert check_launch(1, use_cpu=False) is False


@pytest.mark.unit
@pytest.mark.parametrize("program", ["/env/bin/hf-audioformer", "/env/hf_audioformer/__main__.py"])
def test_the_right_command_starts_the_package(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "finetune", "my config.yaml"])
    with pytest.raises(ValueError, match=r"torchrun --nproc_per_node 2 -m hf_audioformer finetune 'my config\.yaml'$"):
        check_launch(2)


@pytest.mark.unit
def test_several_gpus_in_one_process_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sees 4 GPUs.*torchrun --nproc_per_node 4"):
        check_world_size(SimpleNamespace(world_size=1, n_gpu=4))
