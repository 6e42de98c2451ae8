"""The classifier that fine-tuning starts from."""

from dataclasses import dataclass, field
from typing import Literal

from .. import AudioFormerConfig, AudioFormerFeatureExtractor, AudioFormerForAudioClassification
from ..data import ClipTable
from .codec_embeddings import start_from_codec
from .console import quiet_transformers

__all__ = ["ModelArguments", "build_model"]


@dataclass(frozen=True)
class ModelArguments:
    """Where the weights come from, and what differs from the checkpoint's configuration."""

    checkpoint: str | None = field(
        default=None, metadata={"help": "folder or Hub id of an AudioFormer; the small bundled one by default"}
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


def build_model(
    source: str, clips: ClipTable, arguments: ModelArguments, extractor: AudioFormerFeatureExtractor
) -> AudioFormerForAudioClassification:
    """The checkpoint's encoder with a classifier for the clips' labels; rows of labels it knew by name are kept."""
    names = ("pooling", "hidden_dropout", "classifier_dropout", "label_smoothing")
    settings = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if "hidden_dropout" in settings:
        settings.setdefault("classifier_dropout", settings["hidden_dropout"])
    problem_type = "multi_label_classification" if clips.multi_label else "single_label_classification"
    config = AudioFormerConfig.from_pretrained(source, problem_type=problem_type, **settings)
    if arguments.random_weights:
        model = AudioFormerForAudioClassification(config)
        if arguments.codec_embeddings:
            start_from_codec(model, extractor.load_codec())
    else:
        with quiet_transformers():  # the classifier is new and the MLM head is left out
            model = AudioFormerForAudioClassification.from_pretrained(source, config=config)
    model.resize_classifier(clips.label_names)
    return model
