"""What ships in the package: a small codec, a small checkpoint pretrained on its codes, spoken commands, and the
metrics as a module of `evaluate`."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def codec_folder() -> str:
    """The folder of the small codec: 24 kHz, 75 frames per second, 4 codebooks."""
    return str(_FOLDER / "checkpoint" / "codec")


def checkpoint_folder() -> str:
    """The folder of the small AudioFormer, pretrained by masked modelling on the codes of the small codec."""
    return str(_FOLDER / "checkpoint")


def commands_file() -> str:
    """The parquet file of the spoken commands (10 words, synthetic voices; splits by voice)."""
    return str(_FOLDER / "commands" / "commands.parquet")


def example_wav() -> str:
    """A wav of one spoken command, "left", by a voice of the test split."""
    return str(_FOLDER / "commands" / "example_left.wav")


def metric_folder() -> str:
    """The folder that `evaluate.load` takes, offline; with the extra `evaluate` installed."""
    return str(_FOLDER / "audio_classification")


__all__ = ["checkpoint_folder", "codec_folder", "commands_file", "example_wav", "metric_folder"]
