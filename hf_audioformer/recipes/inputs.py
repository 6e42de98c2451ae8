"""What several recipes start from: labelled clips, and the feature extractor of a checkpoint."""

from dataclasses import dataclass, field

from transformers import AutoFeatureExtractor

from .. import AudioFormerFeatureExtractor
from ..data import ClipTable, read_clips
from ..training.console import quiet_transformers

__all__ = ["ReadingArguments", "load_extractor", "read"]


@dataclass(frozen=True)
class ReadingArguments:
    """Which clips, and where their sound and labels stand."""

    source: str = field(
        metadata={
            "help": "a folder (a subfolder per class, or metadata.csv), a .csv, a .parquet, a code store, a Hub id, or "
            "a known set: commands, esc10, fsdd, esc10_mix"
        }
    )
    audio_column: str | None = field(default=None, metadata={"help": "column of the audio, if its name is unusual"})
    label_column: str | None = field(default=None, metadata={"help": "column of the labels, if its name is unusual"})
    label_separator: str = field(default=";", metadata={"help": "what separates several labels in one cell"})
    multi_label: bool | None = field(default=None, metadata={"help": "several labels per clip; found out by default"})
    hub_config: str | None = field(default=None, metadata={"help": "configuration of a data set from the Hub"})
    revision: str | None = field(default=None, metadata={"help": "revision of a data set from the Hub"})


def read(arguments: ReadingArguments) -> ClipTable:
    """The clips that the arguments name, read by `read_clips`.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: As `read_clips`.
    """
    return read_clips(
        arguments.source,
        audio_column=arguments.audio_column,
        label_column=arguments.label_column,
        label_separator=arguments.label_separator,
        multi_label=arguments.multi_label,
        hub_config=arguments.hub_config,
        revision=arguments.revision,
    )


def load_extractor(checkpoint: str, argument: str) -> AudioFormerFeatureExtractor:
    """The feature extractor of an AudioFormer checkpoint, with its codec loaded; errors call it `argument`.

    Raises:
        ValueError: `checkpoint` holds another model.
    """
    with quiet_transformers():
        extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
        if not isinstance(extractor, AudioFormerFeatureExtractor):
            raise ValueError(
                f"{argument} is {checkpoint}, which holds a {type(extractor).__name__}; only AudioFormer checkpoints "
                "can be used here."
            )
        extractor.load_codec()
    return extractor
