"""The Audio Spectrogram Transformer that fine-tuning starts from, and what it hears."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import ASTConfig, ASTForAudioClassification

from ..assets import ASTS, BUNDLED, ast_folder
from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..checkpoint_config import read_config
from ..models.ast.loading_ast import ast_from_deit, ast_from_vit, load_ast, new_ast
from ..models.ast.positions_ast import covering_frames, covering_length, patch_grid
from .arguments import presets
from .console import quiet_transformers

__all__ = [
    "DEFAULT_CHECKPOINT",
    "STOCK_RATE",
    "ASTModelArguments",
    "FeatureArguments",
    "build_ast",
    "check_patches",
    "load_front_end",
    "model_length",
]

# Trained on AudioSet by the authors, at 10 x 10 strides and 10.24 s.
DEFAULT_CHECKPOINT = "MIT/ast-finetuned-audioset-10-10-0.4593"

# 10.24 s, which the released models read.
LONGEST_DEFAULT = 1024

# In Hz. Without torchaudio, Transformers' extractor is for the first alone.
STOCK_RATE, LOWEST_RATE = 16_000, 2000

AST_TYPE = "audio-spectrogram-transformer"
LOADERS: dict[str, Callable[..., ASTForAudioClassification]] = {
    AST_TYPE: load_ast,
    "deit": ast_from_deit,
    "vit": ast_from_vit,
}
# The folder in which presets leave their models.
PRESETS_LEAVE = Path("runs")
# What only a model with random weights can choose.
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")


@dataclass(frozen=True)
class ASTModelArguments:
    """Where the weights come from, and what differs from the checkpoint's configuration.

    Raises:
        ValueError: Settings that do not go together, or out of range.
    """

    checkpoint: str | None = field(
        default=None,
        metadata={
            "help": f"folder or Hub id of an AST, or of a DeiT or ViT of images; {DEFAULT_CHECKPOINT} by default. "
            f"{BUNDLED}ast_synthetic and {BUNDLED}ast_spoken_digits are small ones that come with the package"
        },
    )
    random_weights: bool = field(default=False, metadata={"help": "start from random weights, in the sizes below"})
    keep_labels: bool = field(
        default=False, metadata={"help": "keep the old head's rows of the classes that it knows by name"}
    )
    time_stride: int | None = field(default=None, metadata={"help": "frames of 10 ms from one patch to the next"})
    frequency_stride: int | None = field(default=None, metadata={"help": "mel bands from one patch to the next"})
    hidden_size: int | None = field(default=None, metadata={"help": "with random_weights: width; 768 by default"})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "with random_weights: layers; 12"})
    num_attention_heads: int | None = field(default=None, metadata={"help": "with random_weights: attention heads; 12"})
    intermediate_size: int | None = field(
        default=None, metadata={"help": "with random_weights: width of the feed-forward layers; 4 x hidden_size"}
    )
    patch_size: int | None = field(default=None, metadata={"help": "with random_weights: side of a patch; 16"})
    hidden_dropout: float | None = field(default=None, metadata={"help": "dropout, in [0, 1)"})
    attention_dropout: float | None = field(default=None, metadata={"help": "dropout of the attention, in [0, 1)"})
    label_smoothing: float = field(default=0.0, metadata={"help": "label smoothing, in [0, 1)"})

    def __post_init__(self) -> None:
        if (self.checkpoint or "").startswith(BUNDLED) and str(self.checkpoint).removeprefix(BUNDLED) not in ASTS:
            names = " and ".join(BUNDLED + name for name in ASTS)
            raise ValueError(f"model.checkpoint is {self.checkpoint}; with the package come {names}")
        if self.random_weights and (self.checkpoint is not None or self.keep_labels):
            raise ValueError(
                f"model.random_weights is true, with model.checkpoint {self.checkpoint!r} and model.keep_labels "
                f"{self.keep_labels}, perhaps of the preset; random weights take nothing from a checkpoint. Add "
                "--model.checkpoint null --model.keep_labels false"
            )
        for name in ("hidden_dropout", "attention_dropout", "label_smoothing"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"model.{name} is {value}; it must be at least 0 and below 1")
        chosen = [name for name in SIZES if getattr(self, name) is not None]
        if chosen and not self.random_weights:
            raise ValueError(
                f"model.{chosen[0]} is {getattr(self, chosen[0])}; a checkpoint has its own sizes, so they go with "
                "model.random_weights true only"
            )
        if self.random_weights:
            _check_sizes(self)

    @property
    def source(self) -> str | None:
        """The folder or Hub id of the checkpoint; None for random weights."""
        if self.random_weights:
            return None
        checkpoint = self.checkpoint or DEFAULT_CHECKPOINT
        return ast_folder(checkpoint.removeprefix(BUNDLED)) if checkpoint.startswith(BUNDLED) else checkpoint


@dataclass(frozen=True)
class FeatureArguments:
    """What the model hears of a clip: log-mels, a frame each 10 ms.

    Raises:
        ValueError: Settings that do not go together.
    """

    seconds: float | None = field(
        default=None,
        metadata={
            "help": "length of what the model reads at once: longer clips are cut for training and read in windows for "
            "testing, shorter ones are padded; the longest training clip by default, at most 10.24"
        },
    )
    max_length: int | None = field(default=None, metadata={"help": "the same in frames, in place of seconds"})
    num_mel_bins: int | None = field(default=None, metadata={"help": "mel bands; the checkpoint's, or 128"})
    sampling_rate: int | None = field(
        default=None,
        metadata={
            "help": "rate in Hz to which clips are brought; mel bands end at its half; the checkpoint's, or 16000 "
            "(for other rates plain Transformers needs torchaudio)"
        },
    )
    statistics: Literal["data", "checkpoint"] = field(
        default="data",
        metadata={"help": "mean and deviation for normalisation: those of the split's training clips, or as they are"},
    )
    mean: float | None = field(default=None, metadata={"help": "of the log-mels, in place of statistics; with std"})
    std: float | None = field(default=None, metadata={"help": "of the log-mels, in place of statistics; with mean"})

    def __post_init__(self) -> None:
        if self.seconds is not None and self.max_length is not None:
            raise ValueError(
                f"features.seconds is {self.seconds} and features.max_length {self.max_length}; give one of the two"
            )
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"features.seconds is {self.seconds}; it must be a number above 0")
        if self.sampling_rate is not None and self.sampling_rate < LOWEST_RATE:
            raise ValueError(f"features.sampling_rate is {self.sampling_rate}; it must be at least {LOWEST_RATE} Hz")
        if (self.mean is None) != (self.std is None) or (self.std is not None and self.std <= 0):
            raise ValueError(f"features.mean is {self.mean} and features.std {self.std}; give both, std above 0")


def _check_sizes(model: ASTModelArguments) -> None:
    for name in SIZES:
        value = getattr(model, name)
        if value is not None and value < 1:
            raise ValueError(f"model.{name} is {value}; it must be at least 1")
    config = _new_config(model)
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"model.num_attention_heads is {config.num_attention_heads} and model.hidden_size {config.hidden_size}; "
            "the heads share the width out evenly, so their number must divide it"
        )


def load_front_end(model: ASTModelArguments, features: FeatureArguments) -> ASTLogMelFeatureExtractor:
    """The feature extractor of the checkpoint, or for images and random weights that of AST, as `features` change it.

    Raises:
        OSError: The checkpoint cannot be had; the message says what to do.
        ValueError: It holds another model.
    """
    is_ast = model.source is not None and _config_of(model.source).model_type == AST_TYPE
    extractor = ASTLogMelFeatureExtractor()
    if is_ast and model.source is not None:
        extractor = ASTLogMelFeatureExtractor.from_pretrained(model.source)
    if features.num_mel_bins is not None:
        extractor.num_mel_bins = features.num_mel_bins
    if features.sampling_rate is not None:
        extractor.sampling_rate = features.sampling_rate
    if features.mean is not None and features.std is not None:
        extractor.normalise_by(features.mean, features.std)
    return extractor


def model_length(
    model: ASTModelArguments, features: FeatureArguments, sampling_rate: int, longest: Callable[[], int]
) -> int:
    """Frames that the model reads at once: what `features` say, or enough for the longest training clip.

    `longest` gives the frames of that clip; it is asked only if need be, since it may take reading all clips.
    """
    if features.max_length is not None:
        return features.max_length
    grid = _grid(model)
    if features.seconds is not None:
        return covering_length(features.seconds, grid, sampling_rate)
    return min(LONGEST_DEFAULT, covering_frames(longest(), grid))


def check_patches(model: ASTModelArguments, extractor: ASTLogMelFeatureExtractor) -> None:
    """Refuses log-mels that are smaller than a patch of the model, before anything is built or written.

    Raises:
        OSError: As `load_front_end`.
        ValueError: `max_length` or `num_mel_bins` of the extractor are below the patch, or a stride below 1.
    """
    grid = _grid(model)
    grid.max_length, grid.num_mel_bins = extractor.max_length, extractor.num_mel_bins
    try:
        patch_grid(grid)
    except ValueError as error:
        raise ValueError(f"the sections features and model do not fit together: {error}") from error


def build_ast(
    model: ASTModelArguments,
    extractor: ASTLogMelFeatureExtractor,
    label_names: Sequence[str],
    *,
    multi_label: bool,
    seed: int,
) -> ASTForAudioClassification:
    """The model that the settings describe, for what the extractor gives, with a head for these classes.

    Raises:
        OSError, ValueError: As `load_front_end` and `load_ast`.
    """
    settings: dict[str, Any] = {
        "label_names": label_names,
        "max_length": extractor.max_length,
        "num_mel_bins": extractor.num_mel_bins,
        "time_stride": model.time_stride,
        "frequency_stride": model.frequency_stride,
        "hidden_dropout_prob": model.hidden_dropout,
        "attention_probs_dropout_prob": model.attention_dropout,
        "seed": seed,
    }
    if model.source is None:
        built = new_ast(_new_config(model), **settings)
    else:
        model_type = _config_of(model.source).model_type
        if model.keep_labels and model_type != AST_TYPE:
            raise ValueError(f"model.keep_labels is true and model.checkpoint {model.source} a {model_type}, of images")
        settings |= {"keep_labels": True} if model.keep_labels else {}
        with quiet_transformers():
            built = LOADERS[model_type](model.source, **settings)
    built.config.problem_type = "multi_label_classification" if multi_label else "single_label_classification"
    return built


def _config_of(source: str) -> Any:
    try:
        config = read_config(source, "model.checkpoint")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}\n{_advice(source)}") from error
    if config.model_type not in LOADERS:
        raise ValueError(
            f'model.checkpoint is {source}, whose model_type is "{config.model_type}"; allowed are {", ".join(LOADERS)}'
        )
    return config


def _advice(source: str) -> str:
    """Where a checkpoint comes from that cannot be had, or what to take in its place."""
    folder = Path(source)
    preset = folder.name
    if folder.parent == PRESETS_LEAVE and preset in presets():
        return (
            f"The preset {preset} leaves a model there; run it first: hf-audioformer finetune-ast {preset} (with "
            "--resume true if it was stopped)"
        )
    return (
        "Without a network, start from the small AST that comes with the package (--model.checkpoint "
        f"{BUNDLED}ast_synthetic) or from random weights (--model.random_weights true --model.checkpoint null)"
    )


def _new_config(model: ASTModelArguments) -> ASTConfig:
    sizes = {name: value for name in SIZES if (value := getattr(model, name)) is not None}
    if "hidden_size" in sizes:
        sizes.setdefault("intermediate_size", 4 * sizes["hidden_size"])
    return ASTConfig(**sizes)


def _grid(model: ASTModelArguments) -> ASTConfig:
    """A configuration with the model's patches and strides."""
    config = _new_config(model) if model.source is None else _config_of(model.source)
    grid = ASTConfig(patch_size=config.patch_size)
    for name in ("time_stride", "frequency_stride"):
        chosen = getattr(model, name)
        stride = getattr(config, name, None) if chosen is None else chosen
        if stride is not None:  # models of images have none
            setattr(grid, name, stride)
    return grid
