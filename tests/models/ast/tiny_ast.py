"""Tiny ASTs with random positions, saved as a user would find them."""

from pathlib import Path
from typing import Any

import torch
from transformers import ASTConfig, ASTForAudioClassification, PreTrainedModel

# For `tiny_ast`: a grid of 3 x 6 patches that overlap, without dropout.
OVERLAPPING: dict[str, Any] = {
    **{"num_mel_bins": 8, "max_length": 14, "patch_size": 4, "frequency_stride": 2, "time_stride": 2},
    **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 3},
}


def tiny_ast_config(**settings: Any) -> ASTConfig:
    """Settings of an AST with two layers of 32 channels whose grid is the official 12 x 101 of 8 x 8 patches."""
    defaults: dict[str, Any] = {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37},
        **{"patch_size": 8, "time_stride": 5, "frequency_stride": 5, "num_mel_bins": 64, "max_length": 510},
        "initializer_range": 0.2,
    }
    return ASTConfig(**(defaults | settings))


@torch.no_grad()
def randomize(model: PreTrainedModel) -> Any:
    """The model in evaluation mode with every weight random: tokens, positions, norms and biases too."""
    for weight in model.parameters():
        weight.normal_(std=0.2)
    return model.eval()


def tiny_ast(**settings: Any) -> ASTForAudioClassification:
    return randomize(ASTForAudioClassification(tiny_ast_config(**settings)))


def saved(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def random_features(model: ASTForAudioClassification, batch: int = 2) -> torch.Tensor:
    """Log-mel features (batch, max_length, num_mel_bins) of the length that the model reads."""
    shape = (batch, model.config.max_length, model.config.num_mel_bins)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
