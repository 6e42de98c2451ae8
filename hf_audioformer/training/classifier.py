"""The classifier that fine-tuning starts from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

import numpy as np
from huggingface_hub.errors import StrictDataclassError

from .. import (
    AudioFormerConfig,
    AudioFormerFeatureExtractor,
    AudioFormerForAudioClassification,
    AudioFormerForAudioFrameClassification,
    AudioFormerForAudioXVector,
    AudioFormerSignalFeatureExtractor,
)
from ..data import ClipTable
from ..models.audioformer.configuration_audioformer import ProblemType
from ..models.audioformer.feature_extraction_signal_audioformer import FeatureKind
from ..models.audioformer.modeling_audioformer import AudioFormerLabelledModel
from .codec_embeddings import start_from_codec
from .console import quiet_transformers

__all__ = ["ModelArguments", "build_model", "model_config", "new_front_end", "with_settings"]

# What describes a front end that a checkpoint does not have.
OF_NEW_FRONT_END = (
    *("sampling_rate", "num_mel_bins", "num_coefficients", "patch_size", "patch_stride"),
    *("conv_dim", "conv_kernel", "conv_stride"),
)


Head = Literal["clips", "moments", "vectors"]
MODELS: dict[Head, type[AudioFormerLabelledModel]] = {
    "clips": AudioFormerForAudioClassification,
    "moments": AudioFormerForAudioFrameClassification,
    "vectors": AudioFormerForAudioXVector,
}


@dataclass(frozen=True)
class ModelArguments:
    """Where the weights come from, and what differs from the checkpoint's configuration."""

    checkpoint: str | None = field(
        default=None, metadata={"help": "folder or Hub id of an AudioFormer; the small bundled one by default"}
    )
    head: Head = field(
        default="clips",
        metadata={
            "help": "what is learnt: clips: classes, or with data.target_columns numbers, of clips; moments: when each "
            "class is heard, which needs onsets and offsets, or with data.curves numbers along time; vectors: which "
            "clips have the same label, also of labels never heard in training (speakers)"
        },
    )
    random_weights: bool = field(default=False, metadata={"help": "take its configuration and codec, not its weights"})
    codec_embeddings: bool = field(
        default=True, metadata={"help": "with random_weights: start the code embeddings from the codec's own vectors"}
    )
    pooling: Literal["mean", "max", "cls", "attention", "statistics"] | None = field(
        default=None, metadata={"help": "how frames become one vector"}
    )
    probe_first: bool = field(
        default=False,
        metadata={"help": "start the classifier from logistic regression on the encoder as it is, for few clips"},
    )
    hidden_dropout: float | None = field(default=None, metadata={"help": "dropout, in [0, 1)"})
    classifier_dropout: float | None = field(
        default=None, metadata={"help": "dropout before the classifier, in [0, 1); hidden_dropout if that is given"}
    )
    label_smoothing: float | None = field(default=None, metadata={"help": "label smoothing, in [0, 1)"})
    front_end: Literal["codes", "log_mel", "spectrogram", "mfcc", "waveform"] | None = field(
        default=None,
        metadata={
            "help": "what the model reads; that of the checkpoint by default. With random_weights another one than the "
            "checkpoint's codes can be chosen, and set by the next ones"
        },
    )
    sampling_rate: int = field(default=16_000, metadata={"help": "rate in Hz at which features are made"})
    num_mel_bins: int = field(default=128, metadata={"help": "mel bands of log_mel and mfcc"})
    num_coefficients: int = field(default=40, metadata={"help": "coefficients of mfcc"})
    patch_size: list[int] | None = field(
        default=None, metadata={"help": "read patches of so many frames and features, [16, 16] say, in place of frames"}
    )
    patch_stride: list[int] | None = field(
        default=None, metadata={"help": "frames and features from patch to patch; less than patch_size to overlap"}
    )
    conv_dim: list[int] | None = field(
        default=None, metadata={"help": "channels of convolutions over frames or samples; a waveform has some anyway"}
    )
    conv_kernel: list[int] | None = field(default=None, metadata={"help": "their kernels, in frames or samples"})
    conv_stride: list[int] | None = field(default=None, metadata={"help": "their strides, in frames or samples"})
    position_embedding_type: Literal["rotary", "sinusoidal", "learned"] | None = field(
        default=None, metadata={"help": "with random_weights: kind of positions"}
    )
    norm_position: Literal["post", "pre"] | None = field(
        default=None, metadata={"help": "with random_weights: LayerNorm after or before each sublayer"}
    )
    sliding_window: int | None = field(
        default=None, metadata={"help": "positions on either side that local layers see; all layers, or layer_types"}
    )
    layer_types: list[str] | None = field(
        default=None, metadata={"help": "sliding_attention or full_attention for each layer"}
    )

    def __post_init__(self) -> None:
        if self.head != "clips" and self.pooling is not None:
            raise ValueError(
                f"model.pooling is {self.pooling!r} with model.head {self.head}, which does not pool so; leave it out"
            )
        for name in ("position_embedding_type", "norm_position"):
            if getattr(self, name) is not None and not self.random_weights:
                raise ValueError(
                    f"model.{name} is {getattr(self, name)!r}, which trained weights do not fit; it goes with "
                    "model.random_weights true"
                )
        chosen = self.chosen_of_front_end()
        if chosen and self.front_end in (None, "codes"):
            raise ValueError(f"{chosen} and model.front_end {self.front_end}; say which front end that is for")
        if self.patch_size is None and self.patch_stride is not None:
            raise ValueError(f"model.patch_stride is {self.patch_stride} without model.patch_size; give both")
        if self.patch_size is not None and self.front_end == "waveform":
            raise ValueError(f"model.patch_size is {self.patch_size}, and a waveform has no patches; leave it out")

    def chosen_of_front_end(self) -> str | None:
        """The first setting of a new front end that is not as by default, for messages; None if there is none."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name in OF_NEW_FRONT_END and value != setting.default:
                return f"model.{setting.name} is {value}"
        return None


def new_front_end(arguments: ModelArguments, rms_level_dbfs: float | None) -> AudioFormerSignalFeatureExtractor:
    """The feature extractor that the settings describe, for `front_end` other than codes; without statistics.

    Args:
        rms_level_dbfs: The level that it brings clips to.
    """
    return AudioFormerSignalFeatureExtractor(
        kind=cast(FeatureKind, arguments.front_end),
        sampling_rate=arguments.sampling_rate,
        num_mel_bins=arguments.num_mel_bins,
        num_coefficients=arguments.num_coefficients,
        rms_level_dbfs=rms_level_dbfs,
    )


def build_model(
    source: str,
    clips: ClipTable,
    arguments: ModelArguments,
    extractor: AudioFormerFeatureExtractor | AudioFormerSignalFeatureExtractor,
    targets: np.ndarray | None = None,
) -> AudioFormerLabelledModel:
    """The checkpoint's encoder with a head for the clips' labels; rows of labels it knew by name are kept.

    Where numbers are predicted, they are standardised by the statistics of `targets`, (cases, numbers), NaN where they
    are not known; cases are clips or moments.

    Raises:
        ValueError: As `model_config`, or weights of the encoder are not those of the configuration.
    """
    config = model_config(source, clips, arguments, extractor)
    if arguments.random_weights:
        model = MODELS[arguments.head](config)
        if arguments.codec_embeddings and isinstance(extractor, AudioFormerFeatureExtractor):
            start_from_codec(model, extractor.load_codec())
    else:
        with quiet_transformers():  # the head is new where it is another one, and that of an MLM is left out
            loading: Any = MODELS[arguments.head].from_pretrained
            model, info = loading(source, config=config, ignore_mismatched_sizes=True, output_loading_info=True)
        _check_body(source, (str(key[0]) for key in info["mismatched_keys"]), "has weights of other sizes than")
        _check_body(source, info["missing_keys"], "lacks weights of")
    model.resize_classifier(clips.label_names)
    model.config.problem_type = cast(ProblemType, clips.problem_type)
    if targets is not None and clips.target_columns:
        model.config.target_mean, model.config.target_scale = statistics_of_targets(targets, clips.label_names)
    return model


def _check_body(source: str, names: Iterable[str], what: str) -> None:
    """Raises a ValueError if weights of these names belong to the encoder."""
    body = sorted(name for name in names if name.startswith("audioformer."))
    if body:
        raise ValueError(f"model.checkpoint {source} {what} its configuration: {body[0]}")


def statistics_of_targets(targets: np.ndarray, names: Sequence[str]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of numbers, (cases, numbers), without NaN.

    Raises:
        ValueError: A number is the same for all cases.
    """
    mean = np.asarray(np.nanmean(targets, axis=0, dtype=np.float64))
    std = np.asarray(np.nanstd(targets, axis=0, dtype=np.float64))
    for name, deviation in zip(names, std, strict=True):
        if deviation == 0:
            raise ValueError(f"{name!r} is the same for all {len(targets)} training clips; leave it out of the targets")
    return mean.tolist(), std.tolist()


def model_config(
    source: str,
    clips: ClipTable,
    arguments: ModelArguments,
    extractor: AudioFormerFeatureExtractor | AudioFormerSignalFeatureExtractor,
) -> AudioFormerConfig:
    """The checkpoint's configuration, as the settings, the extractor and the kind of labels change it.

    Raises:
        ValueError: A setting is out of range, or does not go with the others.
    """
    stored = AudioFormerConfig.from_pretrained(source)
    names = ("pooling", "hidden_dropout", "classifier_dropout", "label_smoothing", "sliding_window", "layer_types")
    settings = _given(arguments, *names)
    if "hidden_dropout" in settings:
        settings.setdefault("classifier_dropout", settings["hidden_dropout"])
    settings |= {"target_mean": None, "target_scale": None, "class_weights": None}
    # A stored model of one number has one label, with which Transformers refuses single-label classification;
    # `build_model` sets the kind once the labels are new.
    settings["problem_type"] = clips.problem_type if stored.num_labels != 1 else None
    if arguments.random_weights:
        settings |= _given(arguments, "position_embedding_type", "norm_position")
    if isinstance(extractor, AudioFormerSignalFeatureExtractor) and stored.front_end == "codes":
        settings |= _front_end_settings(arguments, extractor)
    return with_settings(stored, settings)


def with_settings(stored: AudioFormerConfig, settings: dict[str, Any]) -> AudioFormerConfig:
    """A configuration with other settings, checked as a whole.

    Raises:
        ValueError: A setting is out of range, or does not go with the others.
    """
    try:
        return AudioFormerConfig.from_dict(stored.to_dict() | settings)
    except StrictDataclassError as error:
        raise ValueError(f"the settings of model do not fit: {error.__cause__ or error}") from error


def _given(arguments: ModelArguments, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _front_end_settings(arguments: ModelArguments, extractor: AudioFormerSignalFeatureExtractor) -> dict[str, Any]:
    """What the configuration says of a front end for what the extractor gives; all of it, since that of the checkpoint
    is another."""
    kind = "waveform" if not extractor.is_spectral else "frames" if arguments.patch_size is None else "patches"
    names = ("conv_dim", "conv_kernel", "conv_stride", "patch_stride")
    settings = {name: getattr(arguments, name) for name in names} | _given(arguments, "patch_size")
    return {"front_end": kind, "num_features": extractor.feature_size, **settings}
