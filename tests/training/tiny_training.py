"""Two steps of Transformers' Trainer on 32 fixed clips; `main` saves what came out for all problems.

Its arguments: BATCH_PER_PROCESS ACCUMULATION FOLDER
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, Trainer, TrainingArguments

from hf_audioformer import AudioFormerConfig, AudioFormerForAudioClassification, AudioFormerForMaskedLM

PROBLEMS = ("single_label_classification", "multi_label_classification", "masked_modelling")


def make_clips(problem: str, num_codes: int) -> list[dict[str, torch.Tensor]]:
    """Thirty-two clips of 20 codes, with labels of the problem; masked tokens differ in number from clip to clip."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(num_codes, (32, 20), generator=generator)
    masked = torch.rand(32, 20, generator=generator) < torch.linspace(0.1, 0.9, 32)[:, None]
    labels = {
        "single_label_classification": torch.arange(32) % 3,
        "multi_label_classification": (torch.rand(32, 3, generator=generator) < 0.4).float(),
        "masked_modelling": torch.where(masked, codes, -100),
    }[problem]
    return [{"input_ids": clip, "labels": label} for clip, label in zip(codes, labels, strict=True)]


def make_model(problem: str) -> PreTrainedModel:
    sizes = {"codebook_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AudioFormerConfig(
        **sizes, intermediate_size=32, num_labels=3, hidden_dropout=0, attention_dropout=0, initializer_range=0.2
    )
    torch.manual_seed(0)
    if problem == "masked_modelling":
        return AudioFormerForMaskedLM(config)
    config.problem_type = problem
    return AudioFormerForAudioClassification(config)


def train(problem: str, batch: int, accumulation: int, folder: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Trains for two steps; returns the losses and world size, and the parameters."""
    model = make_model(problem)
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=2,
        logging_steps=1,
        learning_rate=0.5,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=make_clips(problem, model.config.codebook_size))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "world_size": arguments.world_size}, dict(model.named_parameters())


def main() -> None:
    batch, accumulation, folder = sys.argv[1:]
    for problem in PROBLEMS:
        report, parameters = train(problem, int(batch), int(accumulation), folder)
        if os.environ.get("RANK", "0") == "0":
            save_file({name: value.detach() for name, value in parameters.items()}, f"{folder}/{problem}.safetensors")
            Path(folder, f"{problem}.json").write_text(json.dumps(report))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
