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
# What generators of codes differ in.
GENERATORS: dict[str, dict[str, Any]] = {
    **VARIANTS,
    "c3_learned": {"num_codebooks": 3, "fusion": "sum", "position_embedding_type": "learned"},
}

# Continuous front ends, each where it differs most: strides that do not divide the clips, kernels that overlap.
FRONT_ENDS: dict[str, dict[str, Any]] = {
    "frames": {"front_end": "frames", "num_features": 5},
    "frames_conv": {
        "front_end": "frames",
        "num_features": 5,
        "conv_dim": (6, 7),
        "conv_kernel": (3, 4),
        "conv_stride": (2, 1),
    },
    "patches": {"front_end": "patches", "num_features": 7, "patch_size": (4, 3), "patch_stride": (3, 2)},
    "waveform": {"front_end": "waveform", "conv_dim": (6, 7), "conv_kernel": (5, 3), "conv_stride": (3, 2)},
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


def tiny_generator(model_class: type, **settings: Any) -> Any:
    """A model whose codes differ from frame to frame; with tied weights a random one repeats itself."""
    torch.manual_seed(0)
    return tiny_model(model_class, **({"decoder_layers": 2, "tie_word_embeddings": False} | settings))


def random_codes(config: AudioFormerConfig, batch: int, frames: int, seed: int = 0) -> Tensor:
    """Codes (batch, frames), or (batch, frames, num_codebooks) for several codebooks."""
    shape = (batch, frames) if config.num_codebooks == 1 else (batch, frames, config.num_codebooks)
    return torch.randint(config.codebook_size, shape, generator=torch.Generator().manual_seed(seed))


def random_values(config: AudioFormerConfig, frames: int, seed: int = 0) -> Tensor:
    """One clip's input_values: (frames, num_features), or samples (frames,)."""
    shape = (frames,) if config.front_end == "waveform" else (frames, config.num_features)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def padded_values(clips: list[Tensor], side: str = "right", extra: int = 0) -> dict[str, Tensor]:
    """As `padded`, of input_values, with zeros."""
    batch = padded(clips, 0, side, extra)
    return {"input_values": batch.pop("input_ids"), **batch}


def padded(clips: list[Tensor], pad_token_id: int, side: str = "right", extra: int = 0) -> dict[str, Tensor]:
    """A batch of clips (frames, ...) padded on one side to the longest and `extra` frames more."""
    frames = max(map(len, clips)) + extra
    input_ids = torch.full((len(clips), frames, *clips[0].shape[1:]), pad_token_id, dtype=clips[0].dtype)
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
