"""What the recipes start from, as small as it gets: labelled tones on disk, and a checkpoint with a random codec."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hf_audioformer import AudioFormerConfig, AudioFormerFeatureExtractor, AudioFormerForMaskedLM
from hf_audioformer.training.checkpoints import save_final

from .fixtures_codec import make_random_encodec

SAMPLING_RATE = 16_000
PITCHES_HZ = {"low": 200.0, "middle": 900.0, "high": 3_000.0}
CLIPS_PER_CLASS = 8


def tone(labels: list[str], seed: int, seconds: float = 0.25) -> np.ndarray:
    """The tones of the labels in some noise, float32 (samples,)."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    waves = [np.sin(2 * np.pi * PITCHES_HZ[label] * random.uniform(0.9, 1.1) * time) for label in labels]
    return (0.2 * sum(waves) + 0.02 * random.standard_normal(len(time))).astype(np.float32)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Operations this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of 0.25 to 0.4 s in a subfolder per class; not to be changed."""
    folder = tmp_path_factory.mktemp("tones")
    for number, label in enumerate(PITCHES_HZ):
        (folder / label).mkdir()
        for index in range(CLIPS_PER_CLASS):
            waveform = tone([label], seed=100 * number + index, seconds=0.25 + 0.02 * index)
            soundfile.write(folder / label / f"{index}.wav", waveform, SAMPLING_RATE)
    return folder


@pytest.fixture(scope="session")
def tone_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips with one or two labels each, and a column `fold` of 1 and 2; not to be changed."""
    folder = tmp_path_factory.mktemp("mixed_tones")
    names = list(PITCHES_HZ)
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "labels", "fold"])
        for index in range(24):
            labels = [names[index % 3]] if index % 2 else [names[index % 3], names[(index + 1) % 3]]
            soundfile.write(folder / f"{index}.wav", tone(labels, seed=index), SAMPLING_RATE)
            rows.writerow([f"{index}.wav", ";".join(labels), 1 + index // 12])
    return folder / "clips.csv"


@pytest.fixture(scope="session")
def tiny_codec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random EnCodec with 64 codes per codebook."""
    folder = tmp_path_factory.mktemp("tiny_codec")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make_random_encodec().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_extractor(tiny_codec: str) -> AudioFormerFeatureExtractor:
    """Reads two codebooks of `tiny_codec`; not to be changed."""
    return AudioFormerFeatureExtractor.from_codec(tiny_codec, num_codebooks=2)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_extractor: AudioFormerFeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random one-layer AudioFormer without dropout, with `tiny_extractor` and its codec."""
    folder = tmp_path_factory.mktemp("tiny_checkpoint")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AudioFormerForMaskedLM(tiny_config())
    save_final(model, tiny_extractor, folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_c1(tiny_codec: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """As `tiny_checkpoint`, but reading the first codebook alone."""
    folder = tmp_path_factory.mktemp("tiny_c1")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AudioFormerForMaskedLM(tiny_config(num_codebooks=1, fusion="first"))
    save_final(model, AudioFormerFeatureExtractor.from_codec(tiny_codec), folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_companions(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The folders of two networks like that of `tiny_c1` for the second and the third codebook."""
    return [save_companion(tmp_path_factory.mktemp(f"tiny_c{index + 1}"), index) for index in (1, 2)]


def save_companion(folder: Path, codebook_index: int, **settings: object) -> str:
    """A checkpoint of one codebook, as pretraining leaves it; its weights are large, so that clips differ."""
    one = {"num_codebooks": 1, "fusion": "first", "codebook_index": codebook_index, "initializer_range": 0.3}
    with torch.random.fork_rng():
        torch.manual_seed(codebook_index)
        AudioFormerForMaskedLM(tiny_config(**(one | settings))).save_pretrained(folder)
    return str(folder)


def tiny_config(**settings: object) -> AudioFormerConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    codes = {"codebook_size": 64, "num_codebooks": 2, "fusion": "sum"}
    return AudioFormerConfig(**(sizes | codes | {"hidden_dropout": 0.0, "attention_dropout": 0.0} | settings))
