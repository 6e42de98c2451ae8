"""Tiny AudioFormers, random inputs for them, and the variants that every promise is checked on."""

from typing import Any

import torch
from torch import Tensor

from hf_audioformer import (
    AudioFormerConfig,
    AudioFormerForAudioClassification,
    AudioFormerForMaskedLM,
    AudioFormerForPreTraining,
    AudioFormerModel,
)

MODEL_CLASSES = (
    AudioFormerModel,
    AudioFormerForMaskedLM,
    AudioFormerForPreTraining,
    AudioFormerForAudioClassification,
)
# One codebook as the paper, and what differs most from it.
VARIANTS: dict[str, dict[str, Any]] = {
    "c1_post": {},
    "c4_pre": {"num_codebooks": 4, "fusion": "sum", "norm_position": "pre", "pooling": "attention"},
}


def tiny_config(**settings: Any) -> AudioFormerConfig:
    """Settings of an AudioFormer with two layers of 32 channels, 99 codes and three labels."""
    defaults: dict[str, Any] = {
        "codebook_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "num_labels": 3,
    }
    return AudioFormerConfig(**(defaults | settings))


def tiny_model(model_class: type = AudioFormerModel, **settings: Any) -> Any:
    """A tiny model in evaluation mode; its weights are larger than usual, so that differences show."""
    return model_class(tiny_config(**({"initializer_range": 0.2} | settings))).eval()


def random_codes(config: AudioFormerConfig, batch: int, frames: int, seed: int = 0) -> Tensor:
    """Codes (batch, frames), or (batch, frames, num_codebooks) for several codebooks."""
    shape = (batch, frames) if config.num_codebooks == 1 else (batch, frames, config.num_codebooks)
    return torch.randint(config.codebook_size, shape, generator=torch.Generator().manual_seed(seed))


def padded(clips: list[Tensor], pad_token_id: int, side: str = "right", extra: int = 0) -> dict[str, Tensor]:
    """A batch of clips (frames, ...) padded on one side to the longest and `extra` frames more."""
    frames = max(map(len, clips)) + extra
    input_ids = torch.full((len(clips), frames, *clips[0].shape[1:]), pad_token_id)
    attention_mask = torch.zeros((len(clips), frames), dtype=torch.long)
    for row, clip in enumerate(clips):
        place = slice(0, len(clip)) if side == "right" else slice(frames - len(clip), frames)
        input_ids[row, place], attention_mask[row, place] = clip, 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def random_labels(model_class: type, config: AudioFormerConfig, batch: int, frames: int) -> Tensor | None:
    """Labels that the model class takes: none, class ids, or codes."""
    if model_class is AudioFormerModel:
        return None
    if model_class is AudioFormerForAudioClassification:
        return torch.arange(batch) % config.num_labels
    return random_codes(config, batch, frames, seed=1)
