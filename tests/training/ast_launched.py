"""Two steps of `AudioTrainer` on 32 fixed clips for a stock AST; `main` saves what came out.

ast_launched.py FOLDER

It runs all cases; then the processes also save what they averaged, unbroken and resumed, and what the model is when its
weights are shared out by FSDP2. Under DeepSpeed it only trains with its own rates, and saves that.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import DistributedType, PartialState
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import ASTForAudioClassification

from hf_audioformer.audio.ast_features import ASTLogMelFeatureExtractor
from hf_audioformer.training.adaptation import AdaptationArguments, adapt
from hf_audioformer.training.averaging import AveragingArguments
from hf_audioformer.training.checkpoints import check_finite, save_final, weights_held_here
from hf_audioformer.training.launch import check_launch, join_processes
from hf_audioformer.training.optimization import OptimizationArguments
from hf_audioformer.training.spectrogram import spectrogram_objective
from hf_audioformer.training.trainer import AudioTrainer
from tests.training.tiny_ast import log_of, make_clips, make_model, make_trainer, weights_of

CE, BCE = "single_label_classification", "multi_label_classification"


class Case(NamedTuple):
    problem_type: str
    labels: str
    by_objective: bool
    adaptation: Any = "full"


TIMEOUT_SECONDS = 77

CASES = {
    "ce": Case(CE, "hard", False),
    "ce_objective": Case(CE, "hard", True),
    "ce_soft_objective": Case(CE, "soft", True),
    "bce": Case(BCE, "hard", False),
    "bce_objective": Case(BCE, "hard", True),
    "bce_soft": Case(BCE, "soft", False),
    "bce_soft_objective": Case(BCE, "soft", True),
    "head": Case(CE, "hard", True, "head"),
    "lora": Case(CE, "hard", True, "lora"),
}


def labels_of(case: Case) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if case.problem_type == CE and case.labels == "hard":
        return torch.arange(32) % 3
    values = torch.rand(32, 3, generator=generator)
    if case.labels == "hard":
        return (values < 0.4).float()
    return values / values.sum(1, keepdim=True) if case.problem_type == CE else values


def train(case: Case, batch: int, accumulation: int, folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Two steps; the losses and the weights after them."""
    model = make_model(hidden_dropout_prob=0.0, problem_type=case.problem_type)
    adapt(model, AdaptationArguments(kind=case.adaptation))
    chosen = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 2}
    chosen |= {"logging_strategy": "steps", "logging_steps": 1, "learning_rate": 0.5, "lr_scheduler_type": "constant"}
    trainer = make_trainer(
        folder,
        model,
        make_clips(labels_of(case)),
        chosen=chosen | {"optim": "sgd", "max_grad_norm": 0.0},
        objective=spectrogram_objective(case.problem_type) if case.by_objective else None,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], weights_of(model)


def train_by_layers(
    folder: Path, checkpoint: str | None = None, *, batch: int = 2, use_cpu: bool = False
) -> tuple[AudioTrainer, dict[str, torch.Tensor]]:
    """Nine steps by the step schedule with decay by layers, from a checkpoint if given; also the whole weights."""
    chosen = {"per_device_train_batch_size": batch, "save_strategy": "steps", "save_steps": 4, "save_total_limit": 9}
    trainer = make_trainer(
        folder,
        make_model(0 if checkpoint is None else 1, hidden_dropout_prob=0.0),
        chosen=chosen,
        use_cpu=use_cpu,
        optimization=OptimizationArguments(schedule="step", full_rate_epochs=1, layer_decay=0.5, head_factor=2),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer, trainer.gather_weights()


def train_averaged(folder: Path, checkpoint: str | None = None) -> AudioTrainer:
    """Nine steps with dropout, a checkpoint at each second one, and a moving average; from a checkpoint if given."""
    trainer = make_trainer(
        folder,
        make_model(0 if checkpoint is None else 1),
        chosen={"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 9},
        averaging=AveragingArguments(kind="ema", decay=0.5),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def save_shared_out(model: ASTForAudioClassification, folder: Path) -> None:
    """Shards the weights by FSDP2, which Accelerate does on GPUs alone, and saves the model from its shards."""
    mesh = init_device_mesh("cpu", (PartialState().num_processes,))
    for layer in model.audio_spectrogram_transformer.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=options)
    check_finite(weights_held_here(model))
    if PartialState().is_main_process:
        save_final(model, ASTLogMelFeatureExtractor(num_mel_bins=8, max_length=16), folder, weights)


def main_of_deepspeed(folder: Path) -> None:
    """Saves the final folder of a run, and of one that was resumed, with their logs."""
    for name, checkpoint in (("unbroken", None), ("resumed", str(folder / "runs" / "checkpoint-4"))):
        trainer, weights = train_by_layers(folder / "runs", checkpoint)
        if trainer.is_world_process_zero():
            extractor = ASTLogMelFeatureExtractor(num_mel_bins=8, max_length=16)
            save_final(trainer.model, extractor, folder / name, weights)
            (folder / f"{name}.json").write_text(json.dumps(log_of(trainer)))


def run(folder: Path) -> None:
    state = join_processes(check_launch(2), {"ddp_timeout": TIMEOUT_SECONDS})
    if state.distributed_type == DistributedType.DEEPSPEED:
        return main_of_deepspeed(folder)
    assert torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout.seconds == TIMEOUT_SECONDS
    for name, case in CASES.items():
        losses, weights = train(case, 16, 1, folder / "runs")
        if state.is_main_process:
            save_file(weights | {"losses": torch.tensor(losses)}, folder / f"{name}_{state.num_processes}.safetensors")
    for name, checkpoint in (("unbroken", None), ("resumed", str(folder / "averaged" / "checkpoint-4"))):
        averaged = train_averaged(folder / "averaged", checkpoint)
        save_file(weights_of(averaged.model), folder / f"{name}_{state.process_index}.safetensors")
    save_shared_out(averaged.model, folder / "fsdp2")


def main() -> None:
    run(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
