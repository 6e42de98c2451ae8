"""Refuses launches of several processes that would silently train alone, or train twice.

Seen with accelerate 1.15 and transformers 5.23: `accelerate launch --cpu --num_processes 2` starts one process;
`torchrun --nproc_per_node 2` on a machine without a GPU starts two trainings that know nothing of each other unless
`use_cpu=True`. What works is `torchrun` with `use_cpu=True` on CPU, and `torchrun` or `accelerate launch` on GPUs.
Without an accelerator FSDP is replaced by DDP without a word; DeepSpeed trains, if it is told to talk by gloo.
"""

import logging
import os
import shlex
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import FullyShardedDataParallelPlugin, PartialState
from transformers import PreTrainedModel, TrainingArguments

__all__ = [
    "check_launch",
    "check_world_size",
    "distributed_backend",
    "join_processes",
    "keep_to_one_gpu",
    "launched_precision",
    "wrap_layers",
]

logger = logging.getLogger(__name__)

MIXED_PRECISIONS = ("bf16", "fp16")


def check_launch(expected_world_size: int | None = None, *, use_cpu: bool | None = None) -> bool:
    """The `use_cpu` to give to `TrainingArguments`, after a look at how this process was launched.

    Args:
        expected_world_size: how many processes must train together, if that is known.
        use_cpu: what the user asked for; None means CPU where there is no accelerator.

    Raises:
        ValueError: this launch would train alone or several times apart; the message holds the right command.
    """
    launched = _launched_world_size()
    _check_started_alone(launched)
    without_accelerator = use_cpu or not torch.accelerator.is_available()
    if _is_requested("FSDP") and without_accelerator:
        raise ValueError(
            "this launch asks for FSDP without an accelerator, where Accelerate would train by DDP instead. Use the "
            f"accelerate configuration deepspeed_zero3 to share the weights out, or launch with: {_torchrun(launched)}"
        )
    if _is_requested("DEEPSPEED"):
        if use_cpu:
            raise ValueError(
                "this launch asks for DeepSpeed and use_cpu is true, with which Accelerate would train by DDP instead. "
                "Leave use_cpu out"
            )
        if without_accelerator and (precision := _mixed_precision()):
            raise ValueError(
                f"this launch asks for DeepSpeed in {precision} without a GPU, where it trains in float32; "
                "give it --mixed_precision no"
            )
        use_cpu = False
    if launched == 1 and _is_lone_accelerate_process():
        raise ValueError(
            "`accelerate launch` was asked for several processes or machines but starts one process without a GPU. "
            f"Launch with: {_torchrun(expected_world_size)}"
        )
    if expected_world_size is not None and launched != expected_world_size:
        raise ValueError(
            f"{expected_world_size} processes must train together, this launch has {launched}. "
            f"Launch with: {_torchrun(expected_world_size)}"
        )
    if launched > 1 and use_cpu is False and without_accelerator and not _is_requested("DEEPSPEED"):
        raise ValueError(
            f"{launched} processes were launched with use_cpu=False on a machine without a GPU: each trains apart. "
            "Set use_cpu to true, or leave it out"
        )
    return not torch.accelerator.is_available() if use_cpu is None else use_cpu


def distributed_backend() -> str | None:
    """What the processes must talk by, where Accelerate does not find out by itself."""
    return "gloo" if _is_requested("DEEPSPEED") and not torch.accelerator.is_available() else None


def launched_precision(training: Mapping[str, Any]) -> dict[str, bool]:
    """The Trainer's setting for the mixed precision that `accelerate launch` asks for, unless `training` has another;
    with DeepSpeed both must agree.

    Raises:
        ValueError: `training` turns off what the launch asks for, which Accelerate would turn on.
    """
    precision = _mixed_precision()
    if precision is None or any(training.get(other) for other in MIXED_PRECISIONS):
        return {}
    if training.get(precision) is False:
        raise ValueError(
            f"training.{precision} is false, and the launch asks for {precision}. Leave the setting out, or launch "
            "with --mixed_precision no"
        )
    return {precision: True}


def join_processes(use_cpu: bool, training: Mapping[str, Any]) -> PartialState:
    """Joins the processes that were launched together, as `check_launch` said.

    They wait for each other as long as `training.ddp_timeout` says, in seconds; the Trainer finds them joined already.
    A process that was launched alone on a machine of several GPUs trains on the first (`keep_to_one_gpu`) and says so.
    """
    backend = distributed_backend()
    seconds = training.get("ddp_timeout", TrainingArguments.ddp_timeout)
    if not (isinstance(seconds, (int, float)) and seconds > 0):
        raise ValueError(f"training.ddp_timeout is {seconds!r}; it must be a number of seconds above 0")
    state = PartialState(cpu=use_cpu, timeout=timedelta(seconds=seconds), **({"backend": backend} if backend else {}))
    gpus = torch.cuda.device_count()
    if state.num_processes == 1 and gpus > 1 and not use_cpu:
        logger.warning(
            "training on the first of %d GPUs; torchrun --nproc_per_node %d -m hf_audioformer ... trains on all (the "
            "batch size divided by %d)",
            *[gpus] * 3,
        )
    return state


def keep_to_one_gpu(arguments: TrainingArguments) -> None:
    """Has the Trainer use the first GPU alone where a single process sees several, which Transformers would join by
    nn.DataParallel, slowly and with another batch size."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1


def check_world_size(arguments: TrainingArguments) -> None:
    """Raises a ValueError unless the processes that were launched found each other, and each has one device."""
    launched = _launched_world_size()
    if arguments.world_size != launched:
        raise ValueError(
            f"{launched} processes were launched but each trains in a world of {arguments.world_size}. "
            f"Launch with: {_torchrun(launched)}"
        )
    if arguments.n_gpu > 1:
        raise ValueError(
            f"one process sees {arguments.n_gpu} GPUs, which Transformers would join by nn.DataParallel, slowly and "
            f"with another batch size. Launch with: {_torchrun(arguments.n_gpu)}, or choose one GPU with "
            "CUDA_VISIBLE_DEVICES=0"
        )


def wrap_layers(plugin: FullyShardedDataParallelPlugin, model: PreTrainedModel) -> None:
    """Has FSDP share out each layer of the model by itself, unless the configuration names classes.

    By default Accelerate would do so with embeddings too, to which the weights of a head may be tied.
    """
    if plugin.transformer_cls_names_to_wrap is None:
        layers = cast(torch.nn.ModuleList, model.base_model.layers)
        plugin.transformer_cls_names_to_wrap = [type(layers[0]).__name__]


def _launched_world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _check_started_alone(launched: int) -> None:
    """Raises a ValueError for one of several processes of srun or mpirun that know nothing of each other."""
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        started = os.environ.get(name, "1")
        if launched == 1 and started.isdecimal() and int(started) > 1:
            raise ValueError(
                f"this is one of {started} processes ({name}), each of which would train alone. Have srun or mpirun "
                f"start one on each machine, and that one: {_torchrun(None)}"
            )


def _is_requested(engine: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true"


def _mixed_precision() -> str | None:
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION")
    return precision if precision in MIXED_PRECISIONS else None


def _is_lone_accelerate_process() -> bool:
    """Accelerate's launcher of one process sets ACCELERATE_USE_CPU, and MASTER_ADDR if more than one was asked for."""
    return "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ


def _torchrun(processes: int | None) -> str:
    program, *arguments = sys.argv
    target = ["-m", "hf_audioformer"] if Path(program).name in ("hf-audioformer", "__main__.py") else [program]
    return f"torchrun --nproc_per_node {processes or 'N'} {shlex.join([*target, *arguments])}"
