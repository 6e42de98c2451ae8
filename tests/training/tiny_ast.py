"""Trainings of a tiny stock AST by `AudioTrainer`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import ASTConfig, ASTForAudioClassification

from hf_audioformer.training.trainer import AudioTrainer, trainer_arguments

NUM_LABELS = 3
DEFAULTS = {
    "per_device_train_batch_size": 4,
    "num_train_epochs": 3,
    "learning_rate": 1e-2,
    "save_strategy": "no",
    "logging_strategy": "epoch",
    "save_total_limit": 3,
    "report_to": "none",
    "disable_tqdm": True,
}
# What differs between two equal trainings.
TIMES = ("runtime", "per_second")


def make_model(seed: int = 0, **settings: Any) -> ASTForAudioClassification:
    """Two layers of 16 channels over 16 frames of 8 mel bands, every weight random, positions and tokens too."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    patches = {"patch_size": 4, "time_stride": 4, "frequency_stride": 4, "num_mel_bins": 8, "max_length": 16}
    config = ASTConfig(**(sizes | patches | {"num_labels": NUM_LABELS, "hidden_dropout_prob": 0.1} | settings))
    model = ASTForAudioClassification(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2, generator=generator)
    return model


def make_clips(labels: Sequence[Any] | torch.Tensor, seed: int = 0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(labels), 16, 8, generator=generator)
    return [{"input_values": clip, "labels": label} for clip, label in zip(features, labels, strict=True)]


def make_trainer(
    output_dir: Path | str,
    model: ASTForAudioClassification,
    clips: Any = None,
    *,
    chosen: dict[str, Any],
    use_cpu: bool = True,
    **parts: Any,
) -> AudioTrainer:
    """Ten clips in steps of four, unless told otherwise: three steps an epoch."""
    args = trainer_arguments(DEFAULTS, chosen, output_dir=str(output_dir), seed=0, use_cpu=use_cpu)
    clips = make_clips([index % NUM_LABELS for index in range(10)]) if clips is None else clips
    return AudioTrainer(model=model, args=args, train_dataset=clips, **parts)


def log_of(trainer: AudioTrainer) -> list[dict[str, Any]]:
    """The log without times and without the summary at the end, which is that of the process alone."""
    entries = [entry for entry in trainer.state.log_history if "train_loss" not in entry]
    return [{name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in entries]


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def assert_equal_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
