"""Small sound files, and the known sets where the real audio is there."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ..fixtures_recipes import one_thread, tiny_codec, tiny_extractor, tone_csv, tone_folder

__all__ = ["one_thread", "tiny_codec", "tiny_extractor", "tone_csv", "tone_folder"]


@pytest.fixture
def wav() -> bytes:
    """A tenth of a second of noise at 8 kHz."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 800).astype(np.float32)
    soundfile.write(buffer, noise, 8_000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture
def known_sets(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`HF_AUDIOFORMER_DATA` set to the folder of real audio."""
    monkeypatch.setenv("HF_AUDIOFORMER_DATA", str(data_folder))
    return data_folder
