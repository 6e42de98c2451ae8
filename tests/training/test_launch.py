"""Real launches: the ones that work give one world, the ones that would train alone or apart are refused."""

import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from hf_audioformer.recipes.accelerate_config import accelerate_configs
from hf_audioformer.training.launch import (
    check_launch,
    check_world_size,
    distributed_backend,
    join_processes,
    keep_to_one_gpu,
)
from hf_audioformer.training.trainer import trainer_arguments

from ..warm_processes import exit_codes, start
from . import world_launched

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("accelerate.commands.launch", "--num_processes", "2")
PROJECT_ROOT = Path(__file__).resolve().parents[2]
WITHOUT_GPU = {
    **os.environ,
    **{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT_ROOT)},
}
# A launcher's store ends with it; the first process then makes one.
WITHOUT_STORE = {"TORCHELASTIC_USE_AGENT_STORE": "False"}
TELL = """
import json, os, sys
with open(os.path.join(sys.argv[1], f"{os.getpid()}.json"), "w") as file:
    json.dump(dict(os.environ), file)
"""


def accelerate(config: str) -> tuple[str, ...]:
    return ("accelerate.commands.launch", "--config_file", str(accelerate_configs()[config]))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, str]]]:
    """The environments that launchers give to their processes on a machine without a GPU; launches once."""

    @functools.cache
    def tell(*launchers: tuple[str, ...]) -> list[dict[str, str]]:
        folder = tmp_path_factory.mktemp("told")
        (folder / "tell.py").write_text(TELL)
        commands = [[sys.executable, "-m", *launcher, folder / "tell.py", folder] for launcher in launchers]
        running = [subprocess.Popen(command, env=WITHOUT_GPU) for command in commands]
        assert [launcher.wait(timeout=100) for launcher in running] == [0] * len(launchers)
        environments = [json.loads(file.read_text()) for file in folder.glob("*.json")]
        return [environment | WITHOUT_STORE for environment in environments]

    return tell


def world(
    environments: list[dict[str, str]],
    folder: Path,
    use_cpu: bool | None = None,
    expected: int | None = None,
    checked_before: bool = True,
) -> tuple[list[int | None], str]:
    """What `world_launched` makes of these environments: exit codes, all output."""
    output = folder / "output.txt"
    words = (use_cpu, expected, checked_before)
    running = [start(world_launched.main, *words, output=output, environment=of_one) for of_one in environments]
    return exit_codes(running), output.read_text()


@pytest.mark.invariant
@pytest.mark.parametrize("launcher", [TORCHRUN, accelerate("ddp")], ids=["torchrun", "packaged configuration"])
def test_two_processes_on_cpu_are_one_world(launcher: tuple[str, ...], told, tmp_path: Path) -> None:
    codes, output = world(told(launcher), tmp_path, expected=2)
    assert (codes, output.count("world size 2")) == ([0, 0], 2), output


@pytest.mark.fault
def test_torchrun_without_use_cpu_is_refused(told, tmp_path: Path) -> None:
    codes, output = world(told(TORCHRUN), tmp_path, use_cpu=False)
    assert codes == [1, 1]
    assert output.count("2 processes were launched with use_cpu=False on a machine without a GPU") == 2
    assert "world size" not in output


@pytest.mark.fault
def test_two_trainings_apart_are_seen_by_their_world_size(told, tmp_path: Path) -> None:
    """The premise of the guard: without it, each of the two processes is a world of its own."""
    codes, output = world(told(TORCHRUN), tmp_path, use_cpu=False, checked_before=False)
    assert codes == [1, 1]
    assert output.count("2 processes were launched but each trains in a world of 1") == 2


@pytest.mark.fault
@pytest.mark.parametrize("flags", [("--cpu",), ()])
def test_accelerate_with_one_process_on_cpu_is_refused(told, flags: tuple[str, ...], tmp_path: Path) -> None:
    codes, output = world(told((*ACCELERATE, *flags)), tmp_path)
    assert codes == [1]
    assert "starts one process without a GPU. Launch with: torchrun --nproc_per_node N" in output
    assert "world_launched" in output


@pytest.mark.invariant
def test_the_packaged_configuration_of_one_gpu_launches_on_cpu_too(told, tmp_path: Path) -> None:
    codes, output = world(told(accelerate("single_gpu")), tmp_path, expected=1)
    assert (codes, output.count("world size 1")) == ([0], 1)


@pytest.mark.invariant
def test_two_machines_find_each_other(told, tmp_path: Path) -> None:
    """Both on this one, a process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = ("--main_process_ip", "127.0.0.1", "--main_process_port", str(free.getsockname()[1]))
    machine = (*accelerate("two_nodes"), *where, "--num_processes", "2", "--machine_rank")
    environments = told((*machine, "0"), (*machine, "1"))
    assert [(of_one["WORLD_SIZE"], of_one["LOCAL_RANK"]) for of_one in environments] == [("2", "0")] * 2
    codes, output = world(environments, tmp_path, expected=2)
    assert (codes, output.count("world size 2")) == ([0, 0], 2), output


@pytest.mark.fault
def test_fsdp_without_an_accelerator_is_refused(told, tmp_path: Path) -> None:
    codes, output = world(told(accelerate("fsdp2")), tmp_path)
    assert set(codes) == {1}
    assert "asks for FSDP without an accelerator, where Accelerate would train by DDP instead" in output
    assert "world size" not in output


@pytest.mark.fault
@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_processes_that_know_nothing_of_each_other_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    check_launch()
    monkeypatch.setenv(name, "8")
    with pytest.raises(ValueError, match=rf"this is one of 8 processes \({name}\), each of which would train alone"):
        check_launch()
    monkeypatch.setenv("WORLD_SIZE", "8")  # torchrun's, started by it
    check_launch()


@pytest.mark.fault
def test_deepspeed_with_use_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert check_launch() is False
    with pytest.raises(ValueError, match="asks for DeepSpeed and use_cpu is true"):
        check_launch(use_cpu=True)


@pytest.mark.fault
def test_deepspeed_in_half_precision_needs_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match=r"DeepSpeed in bf16 without a GPU.*--mixed_precision no"):
        check_launch()


@pytest.mark.unit
def test_the_trainer_computes_in_the_precision_of_the_launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """DeepSpeed refuses to train where the Trainer has another setting than the packaged configuration."""
    settings = {"output_dir": str(tmp_path), "seed": 0, "use_cpu": True}
    for launched, chosen, expected in (("no", {}, "no"), ("bf16", {}, "bf16"), ("fp16", {"bf16": True}, "bf16")):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
        assert trainer_arguments({}, chosen, **settings).mixed_precision == expected
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match=r"training.bf16 is false, and the launch asks for bf16\. Leave"):
        trainer_arguments({}, {"bf16": False}, **settings)


@pytest.mark.fault
def test_a_timeout_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"training.ddp_timeout is '1h'; it must be a number of seconds above 0"):
        join_processes(True, {"ddp_timeout": "1h"})


@pytest.mark.unit
def test_only_deepspeed_without_an_accelerator_is_told_how_to_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_accelerator, backend in ((False, "gloo"), (True, None)):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda found=has_accelerator: found)
        monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
        assert distributed_backend() is None
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        assert distributed_backend() == backend


@pytest.mark.cli
def test_a_plain_start_is_refused_where_two_processes_are_expected(tmp_path: Path) -> None:
    codes, output = world([{}], tmp_path, expected=2)
    assert codes == [1]
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
def test_a_process_of_several_gpus_is_refused_unless_it_keeps_to_one(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=3)
    assert arguments.train_batch_size == 3
    arguments._n_gpu = 4  # what a machine of four GPUs gives
    assert arguments.train_batch_size == 12
    with pytest.raises(ValueError, match=r"sees 4 GPUs.*torchrun --nproc_per_node 4"):
        check_world_size(arguments)
    keep_to_one_gpu(arguments)
    check_world_size(arguments)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 3)


@pytest.mark.unit
def test_recipes_keep_to_one_gpu_and_pin_memory_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = TrainingArguments.__post_init__

    def on_four_gpus(self: TrainingArguments) -> None:
        prepare(self)
        self._n_gpu = 4

    monkeypatch.setattr(TrainingArguments, "__post_init__", on_four_gpus)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    settings: dict[str, Any] = {"output_dir": str(tmp_path), "seed": 0}
    arguments = trainer_arguments({}, {}, use_cpu=False, **settings)
    assert (arguments.n_gpu, arguments.dataloader_pin_memory) == (1, True)
    assert trainer_arguments({}, {}, use_cpu=True, **settings).dataloader_pin_memory is False


@pytest.mark.unit
def test_a_process_alone_says_that_it_trains_on_one_of_several_gpus(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    join_processes(True, {})
    assert caplog.text == ""
    join_processes(False, {})
    assert "training on the first of 4 GPUs" in caplog.text
    assert "--nproc_per_node 4" in caplog.text
