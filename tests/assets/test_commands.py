"""The bundled spoken commands are what their card says."""

from collections import Counter
from importlib.resources import files
from pathlib import Path

import datasets
import numpy as np
import pytest

from hf_audioformer.audio.io import load_audio
from hf_audioformer.data import read_clips
from hf_audioformer.training.floor import Floor

FOLDER = Path(str(files("hf_audioformer") / "assets" / "commands"))
WORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    cache = str(tmp_path_factory.mktemp("cache"))
    return datasets.Dataset.from_parquet(str(FOLDER / "commands.parquet"), cache_dir=cache)


def test_size() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3e6


def test_columns_and_counts(commands: datasets.Dataset) -> None:
    assert commands.column_names == ["id", "audio", "label", "voice", "split"]
    assert commands.features["label"].names == WORDS
    assert len(set(commands["id"])) == len(commands)
    counts = Counter(zip(commands["split"], commands["label"], strict=True))
    voices_per_split = {"train": 60, "validation": 10, "test": 20}
    assert counts == {(split, label): n for split, n in voices_per_split.items() for label in range(len(WORDS))}


def test_speaker_variants_are_disjoint(commands: datasets.Dataset) -> None:
    pairs = {(voice.split("+")[1], split) for voice, split in zip(commands["voice"], commands["split"], strict=True)}
    variants = [variant for variant, _ in pairs]
    assert len(variants) == len(set(variants)) == 45


def test_every_clip_decodes(commands: datasets.Dataset) -> None:
    for clip_id, audio in zip(commands["id"], commands["audio"], strict=True):
        decoded = load_audio(audio["bytes"])
        waveform = decoded["array"]
        assert decoded["sampling_rate"] == 16000
        assert 0.6 <= len(waveform) / 16000 <= 1.0, clip_id
        assert np.isfinite(waveform).all(), clip_id
        assert 0.005 < np.sqrt(np.mean(waveform**2)) < 0.2, clip_id
        assert np.abs(waveform).max() <= 1.0, clip_id


def test_log_mel_baseline_is_that_of_the_card(commands: datasets.Dataset) -> None:
    split = np.asarray(commands["split"])
    floor = Floor(read_clips("commands"))
    accuracy = floor.metrics(np.flatnonzero(split == "train"), np.flatnonzero(split == "test"))["accuracy"]
    assert accuracy == pytest.approx(0.60, abs=0.01)  # a clip is 0.005


def test_example() -> None:
    audio = load_audio(FOLDER / "example_left.wav")
    assert audio["sampling_rate"] == 16000
    assert 0.6 <= len(audio["array"]) / 16000 <= 1.0
