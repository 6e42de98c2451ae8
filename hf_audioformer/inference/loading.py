"""Classifiers of any kind with their feature extractors, and the device they run on."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedModel,
)

from .. import AudioFormerFeatureExtractor
from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..checkpoint_config import read_config
from ..training.console import quiet_transformers

__all__ = ["TRAINING_ONLY", "choose_device", "load_any_extractor", "load_classifier"]

# A vector that stands for masked frames in training; checkpoints of Wav2Vec2 and its relatives may lack it.
TRAINING_ONLY = "masked_spec_embed"


def choose_device(name: str | None) -> torch.device:
    """The device of that name; if none is named the accelerator, or the CPU where there is none."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device(name) if name else accelerator or torch.device("cpu")


def load_any_extractor(source: str, device: torch.device) -> Any:
    """The feature extractor of a checkpoint, with its codec on the device if it has one; that of an AST is ours.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: As `read_config`.
    """
    read_config(source, "model")
    extractor = AutoFeatureExtractor.from_pretrained(source)
    if isinstance(extractor, AudioFormerFeatureExtractor):
        extractor.load_codec(device)
    if isinstance(extractor, ASTFeatureExtractor):
        extractor = ASTLogMelFeatureExtractor.from_pretrained(source)
    return extractor


def load_classifier(source: str, device: torch.device) -> tuple[PreTrainedModel, Any]:
    """A classifier in float32 on the device, ready to evaluate, and its feature extractor; that of an AST is ours.

    Raises:
        ValueError: The checkpoint has no trained classifier, or one for regression.
    """
    with quiet_transformers():
        extractor = load_any_extractor(source, device)
        model, info = AutoModelForAudioClassification.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    missing = sorted(name for name in info["missing_keys"] if not name.endswith(TRAINING_ONLY))
    if missing:
        raise ValueError(
            f"model is {source}, which holds no trained classifier (missing {missing[0]}); train one with "
            "hf-audioformer finetune or finetune-ast"
        )
    if model.config.problem_type == "regression":
        raise ValueError(f"model is {source}, which predicts numbers, not classes; classifiers are wanted here")
    return model.to(device).eval(), extractor
