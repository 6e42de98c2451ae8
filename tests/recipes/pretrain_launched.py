"""Pretraining as several processes do it; `main` saves what came out.

pretrain_launched.py CONFIG FOLDER

The recipe runs once unbroken, and once broken off after its first checkpoint and gone on with. After DDP the model is
also shared out by FSDP2, and saved from its shards.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel, TrainerCallback

from hf_audioformer.recipes import pretrain
from hf_audioformer.recipes.pretrain import PretrainArguments
from hf_audioformer.training.arguments import parse_config
from hf_audioformer.training.checkpoints import check_finite, save_final, weights_held_here
from hf_audioformer.training.trainer import AudioTrainer


class Interrupt(TrainerCallback):
    def on_save(self, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


class Trainers:
    """Stands in for `build_trainer`: keeps what it built, and interrupts the second one."""

    def __init__(self) -> None:
        self.build = pretrain.build_trainer
        self.built: list[AudioTrainer] = []

    def __call__(self, *args: Any) -> AudioTrainer:
        self.built.append(self.build(*args))
        if len(self.built) == 2:
            self.built[-1].add_callback(Interrupt())
        return self.built[-1]


def losses_of(trainer: AudioTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def share_out(model: PreTrainedModel) -> None:
    """Shards the weights over the processes by FSDP2, which Accelerate does on GPUs alone."""
    mesh = init_device_mesh("cpu", (PartialState().num_processes,))
    for layer in model.audioformer.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gather(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """As `Accelerator.get_state_dict` gathers weights that FSDP2 has sharded."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, cpu_offload=True)
    return get_model_state_dict(model, options=options)


def notices_weights_that_are_not_finite(model: torch.nn.Module) -> bool:
    """Whether a NaN among the weights that the last process holds is found there."""
    state = PartialState()
    if state.process_index < state.num_processes - 1:
        return True
    held = weights_held_here(model)
    check_finite(held)
    with torch.no_grad():
        next(weight for weight in held.values() if weight.numel()).view(-1)[-1] = float("nan")
    try:
        check_finite(held)
    except ValueError:
        return True
    return False


def main() -> None:
    config, folder = sys.argv[1], Path(sys.argv[2])
    arguments = parse_config(PretrainArguments, [config], description="")
    pretrain.build_trainer = trainers = Trainers()
    unbroken = pretrain.run(replace(arguments, output_dir=str(folder / "unbroken")))
    engine = PartialState().distributed_type.value
    broken = replace(arguments, output_dir=str(folder / "resumed"))
    try:
        pretrain.run(broken)
    except KeyboardInterrupt:
        resumed = pretrain.run(replace(broken, resume=True))
    report = {
        "engine": engine,
        "world_size": PartialState().num_processes,
        "measures": [unbroken, resumed],
        "losses": losses_of(trainers.built[0]),
    }
    model, extractor = trainers.built[-1].model, trainers.built[-1].processing_class
    if engine == "MULTI_CPU":
        share_out(model)
        weights = gather(model)
        if PartialState().is_main_process:
            save_final(model, extractor, folder / "fsdp2", weights)
    if not notices_weights_that_are_not_finite(model):
        sys.exit("a NaN among the weights was not noticed")
    if PartialState().is_main_process:
        (folder / "report.json").write_text(json.dumps(report))
    PartialState().wait_for_everyone()  # one that leaves while another still writes can end by SIGABRT
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
