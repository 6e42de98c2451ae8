"""Sets known by name: the bundled spoken commands, synthetic sounds and digits, and the real audio in the folder
`HF_AUDIOFORMER_DATA`."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..assets import commands_file
from ..audio import Audio
from .clip_table import decode_audio_column
from .spoken_digits import DIGITS, EDITION, spoken_digits
from .synthetic_sounds import draw_sound

if TYPE_CHECKING:
    import datasets

__all__ = ["KNOWN_SETS", "MixtureRenderer"]

LoadRow = Callable[[Mapping[str, Any]], Audio]

MIXTURE_SECONDS = 10.0
MIXTURE_CLIP_RMS = 0.05
MIXTURE_PEAK = 0.95

NUM_SYNTHETIC = 4000
NUM_SPOKEN_DIGITS = 20_000


def read_commands() -> tuple[datasets.Dataset, LoadRow]:
    """The spoken commands that come with the package: columns `voice` and `split`."""
    import datasets

    return datasets.Dataset.from_parquet(glob.escape(commands_file())), decode_audio_column


def read_synthetic() -> tuple[datasets.Dataset, LoadRow]:
    """Sounds of noise, tones and clicks, rendered when loaded, with what they are made of as their labels."""
    import datasets

    labels = [draw_sound(seed).labels for seed in range(NUM_SYNTHETIC)]
    names = sorted({label for of_sound in labels for label in of_sound})
    columns = {"id": [f"{seed:04d}" for seed in range(NUM_SYNTHETIC)], "seed": range(NUM_SYNTHETIC), "labels": labels}
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "seed": datasets.Value("int32"),
            "labels": datasets.List(datasets.ClassLabel(names=names)),
        }
    )
    return datasets.Dataset.from_dict(columns, features=features), _render_synthetic


def read_spoken_digits() -> tuple[datasets.Dataset, LoadRow]:
    """Digits spoken by a synthesiser, column `voice`: made when first read, in about a minute, and kept in the cache of
    `datasets`."""
    import datasets

    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.ClassLabel(names=list(DIGITS)),
            "voice": datasets.Value("string"),
        }
    )
    made = datasets.Dataset.from_generator(
        spoken_digits,
        features=features,
        cache_dir=str(Path(datasets.config.HF_DATASETS_CACHE) / f"spoken_digits_{EDITION}"),
        gen_kwargs={"count": NUM_SPOKEN_DIGITS},
    )
    return made, decode_audio_column


def read_fsdd() -> tuple[datasets.Dataset, LoadRow]:
    """The Free Spoken Digit Dataset: columns `speaker` and `split` (the official one)."""
    return _parquet_with_ids("fsdd.parquet"), decode_audio_column


def read_esc10() -> tuple[datasets.Dataset, LoadRow]:
    """ESC-10: column `fold`; clips of one recording share a fold."""
    return _parquet_with_ids("esc10.parquet"), decode_audio_column


def read_esc10_mix() -> tuple[datasets.Dataset, LoadRow]:
    """Ten-second mixtures of ESC-10 clips with one to four labels, rendered when loaded: columns `fold` and
    `num_events`.

    Events are the clips from their beginning to their end, pauses within them included.
    """
    import datasets

    esc10 = _parquet_with_ids("esc10.parquet")
    with open(_data_file("esc10_mix.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    label = esc10.features["label"]
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "fold": datasets.Value("int32"),
            "clips": datasets.List(datasets.Value("string")),
            "offsets_s": datasets.List(datasets.Value("float64")),
            "gains_db": datasets.List(datasets.Value("float64")),
            "labels": datasets.List(label),
            "num_events": datasets.Value("int32"),
            "event_labels": datasets.List(datasets.Value("string")),
            "event_onsets": datasets.List(datasets.Value("float64")),
            "event_offsets": datasets.List(datasets.Value("float64")),
        }
    )
    index_of = {clip_id: index for index, clip_id in enumerate(esc10["id"])}
    names = label.int2str(esc10["label"][:])
    seconds = np.asarray(esc10["num_samples"][:]) / np.asarray(esc10["sampling_rate"][:])
    clips = [[index_of[name] for name in row["clips"].split("|")] for row in rows]
    onsets = [[float(offset) for offset in row["offsets_s"].split("|")] for row in rows]
    columns = {
        "id": [row["mix_id"] for row in rows],
        "fold": [int(row["fold"]) for row in rows],
        "clips": [row["clips"].split("|") for row in rows],
        "offsets_s": onsets,
        "gains_db": [[float(gain) for gain in row["gains_db"].split("|")] for row in rows],
        "labels": [label.str2int(row["labels"].split("|")) for row in rows],
        "num_events": [len(of_row) for of_row in clips],
        "event_labels": [[names[clip] for clip in of_row] for of_row in clips],
        "event_onsets": onsets,
        "event_offsets": [
            [min(start + float(seconds[clip]), MIXTURE_SECONDS) for start, clip in zip(*of_row, strict=True)]
            for of_row in zip(onsets, clips, strict=True)
        ],
    }
    renderer = MixtureRenderer(esc10, index_of)
    return datasets.Dataset.from_dict(columns, features=features), renderer


KNOWN_SETS: dict[str, Callable[[], tuple[datasets.Dataset, LoadRow]]] = {
    "commands": read_commands,
    "esc10": read_esc10,
    "esc10_mix": read_esc10_mix,
    "fsdd": read_fsdd,
    "spoken_digits": read_spoken_digits,
    "synthetic": read_synthetic,
}


@dataclass(frozen=True)
class MixtureRenderer:
    """Renders a row of clip names, offsets and gains.

    Each clip is brought to RMS 0.05, then to its gain, and placed at its offset in a buffer of 10 s (cut at the end);
    a sum that peaks above 0.95 is scaled down to 0.95.
    """

    clips: datasets.Dataset
    row_of: dict[str, int]

    def __call__(self, row: Mapping[str, Any]) -> Audio:
        sounds = [decode_audio_column(self.clips[self.row_of[name]]) for name in row["clips"]]
        sampling_rate = sounds[0]["sampling_rate"]
        mixture = np.zeros(round(MIXTURE_SECONDS * sampling_rate), dtype=np.float32)
        for sound, offset_seconds, gain_db in zip(sounds, row["offsets_s"], row["gains_db"], strict=True):
            waveform = sound["array"] * (MIXTURE_CLIP_RMS / _rms(sound["array"]) * 10 ** (gain_db / 20))
            start = round(offset_seconds * sampling_rate)
            mixture[start : start + len(waveform)] += waveform[: len(mixture) - start]
        peak = np.abs(mixture).max()
        return {"array": mixture * min(1.0, MIXTURE_PEAK / peak), "sampling_rate": sampling_rate}


def _render_synthetic(row: Mapping[str, Any]) -> Audio:
    return draw_sound(row["seed"]).render()


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def _parquet_with_ids(name: str) -> datasets.Dataset:
    """A parquet file whose `audio` paths are the names of its clips."""
    import datasets

    table = datasets.Dataset.from_parquet(glob.escape(str(_data_file(name))))
    return table.add_column("id", [audio["path"] for audio in table["audio"]])


def _data_file(name: str) -> Path:
    folder = os.environ.get("HF_AUDIOFORMER_DATA")
    if not folder:
        raise ValueError(
            f"{name} is needed: set the environment variable HF_AUDIOFORMER_DATA to the folder that has it"
        )
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; HF_AUDIOFORMER_DATA={folder} must be the folder with {name}")
    return path
