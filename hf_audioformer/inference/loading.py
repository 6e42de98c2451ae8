"""Classifiers of any kind with their feature extractors, and the device they run on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForAudioXVector,
    PreTrainedModel,
)

from .. import AudioFormerFeatureExtractor
from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..checkpoint_config import read_config
from ..training.console import quiet_transformers

__all__ = [
    "DESCRIBED",
    "TRAINING_ONLY",
    "Output",
    "choose_device",
    "load_any_extractor",
    "load_classifier",
    "output_of",
]

# A vector that stands for masked frames in training; checkpoints of Wav2Vec2 and its relatives may lack it.
TRAINING_ONLY = "masked_spec_embed"

# What a model gives of a clip; `moments` are classes along time, `curves` numbers along time.
Output = Literal["classes", "numbers", "moments", "curves", "vectors"]
DESCRIBED: dict[Output, str] = {
    "classes": "classes of clips",
    "numbers": "numbers (regression)",
    "moments": "classes along time",
    "curves": "numbers along time",
    "vectors": "vectors to compare",
}
# Who loads them, where that is not AutoModelForAudioClassification.
OTHER_HEADS: dict[Output, Any] = {
    "moments": AutoModelForAudioFrameClassification,
    "curves": AutoModelForAudioFrameClassification,
    "vectors": AutoModelForAudioXVector,
}


def choose_device(name: str | None) -> torch.device:
    """The device of that name; if none is named the accelerator, or the CPU where there is none.

    Raises:
        ValueError: No device is named so, or there is none of that name here.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if not name:
        return accelerator or torch.device("cpu")
    try:
        named = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name}; allowed are cpu, cuda, cuda:1, mps, ...") from error
    count = 1 if named.type == "cpu" else 0
    if accelerator is not None and accelerator.type == named.type:
        count = torch.accelerator.device_count()
    if (named.index or 0) >= count:
        here = "cpu" if accelerator is None else f"cpu and {torch.accelerator.device_count()} of {accelerator.type}"
        raise ValueError(f"device is {name}, which PyTorch does not find here; there is {here}")
    return named


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


def output_of(config: Any) -> Output:
    """What a checkpoint with this configuration gives; any that says nothing of it is taken for a classifier."""
    architecture = (config.architectures or [""])[0]
    if architecture.endswith("XVector"):
        return "vectors"
    is_regression = config.problem_type == "regression"
    if architecture.endswith("ForAudioFrameClassification"):
        return "curves" if is_regression else "moments"
    return "numbers" if is_regression else "classes"


def load_classifier(
    source: str, device: torch.device, outputs: Sequence[Output] = ("classes",)
) -> tuple[PreTrainedModel, Any]:
    """A classifier in float32 on the device, ready to evaluate, and its feature extractor; that of an AST is ours.

    Args:
        outputs: What the caller can use.

    Raises:
        ValueError: The checkpoint has no trained classifier, or gives something else than `outputs`.
    """
    with quiet_transformers():
        extractor = load_any_extractor(source, device)
        output = output_of(read_config(source, "model"))
        if output not in outputs:
            raise ValueError(f"model is {source}, which gives {DESCRIBED[output]}; {_wanted(outputs)} is wanted here")
        auto = OTHER_HEADS.get(output, AutoModelForAudioClassification)
        model, info = auto.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    missing = sorted(name for name in info["missing_keys"] if not name.endswith(TRAINING_ONLY))
    if missing:
        raise ValueError(
            f"model is {source}, which holds no trained classifier (missing {missing[0]}); train one with "
            "hf-audioformer finetune or finetune-ast"
        )
    return model.to(device).eval(), extractor


def _wanted(outputs: Sequence[Output]) -> str:
    return "a model of " + " or ".join(DESCRIBED[output] for output in outputs)
