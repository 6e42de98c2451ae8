"""What ships in the package: a small codec, a small checkpoint pretrained on its codes, two small ASTs, spoken
commands, and the metrics as a module of `evaluate`."""

from pathlib import Path

_FOLDER = Path(__file__).parent
ASTS = ("ast_synthetic", "ast_spoken_digits")
# What the names of ASTs begin with where a folder or Hub id may be given too; no id of the Hub has a colon.
BUNDLED = "bundled:"


def codec_folder() -> str:
    """The folder of the small codec: 24 kHz, 75 frames per second, 4 codebooks."""
    return str(_FOLDER / "checkpoint" / "codec")


def checkpoint_folder() -> str:
    """The folder of the small AudioFormer, pretrained by masked modelling on the codes of the small codec."""
    return str(_FOLDER / "checkpoint")


def ast_folder(preset: str) -> str:
    """The folder of a small AST that has learnt what a program makes, in half precision: `"ast_synthetic"`, sounds, or
    `"ast_spoken_digits"`, as these presets of `hf-audioformer finetune-ast` train them.

    Raises:
        ValueError: There is none of that name.
    """
    if preset not in ASTS:
        raise ValueError(f"no AST named {preset!r} comes with the package; there are {', '.join(ASTS)}")
    return str(_FOLDER / preset)


def commands_file() -> str:
    """The parquet file of the spoken commands (10 words, synthetic voices; splits by voice)."""
    return str(_FOLDER / "commands" / "commands.parquet")


def example_wav() -> str:
    """A wav of one spoken command, "left", by a voice of the test split."""
    return str(_FOLDER / "commands" / "example_left.wav")


def metric_folder() -> str:
    """The folder that `evaluate.load` takes, offline; with the extra `evaluate` installed."""
    return str(_FOLDER / "audio_classification")


__all__ = ["ast_folder", "checkpoint_folder", "codec_folder", "commands_file", "example_wav", "metric_folder"]
