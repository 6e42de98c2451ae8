"""MP3 files without a header that tells their length are read to their end, whatever libsndfile guesses."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hf_audioformer import load_audio

RATE = 44_100
# Kilobits a second by their code in the header of a frame, MPEG 1 layer III.
KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
SAMPLES_OF_FRAME = 1152


def encoded(mode: str) -> tuple[np.ndarray, bytes]:
    """Four seconds of noise, then four of silence, and their MP3, whose first frame tells the length."""
    waveform = np.random.default_rng(0).normal(scale=0.1, size=8 * RATE).astype(np.float32)
    waveform[4 * RATE :] = 0
    file = io.BytesIO()
    soundfile.write(file, waveform, RATE, format="MP3", bitrate_mode=mode, compression_level=0.5)
    return waveform, file.getvalue()


def without_first_frame(mp3: bytes) -> bytes:
    return mp3[144_000 * KBPS[mp3[2] >> 4] // RATE + (mp3[2] >> 1 & 1) :]


def tag(size: int) -> bytes:
    return b"ID3\x04\x00\x00" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


@pytest.mark.unit
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("tag_bytes", [None, 100, 60_000])
def test_all_of_it_is_read(mode: str, tag_bytes: int | None, tmp_path: Path) -> None:
    waveform, mp3 = encoded(mode)
    streamed = without_first_frame(mp3)
    if tag_bytes is not None:
        streamed = tag(tag_bytes) + streamed
    with soundfile.SoundFile(io.BytesIO(streamed)) as sound:
        assert mode == "CONSTANT" or abs(sound.frames - len(waveform)) > RATE, "libsndfile guesses right"
    (tmp_path / "clip.mp3").write_bytes(streamed)
    for source in (streamed, tmp_path / "clip.mp3"):
        found = load_audio(source)
        assert found["sampling_rate"] == RATE
        assert 0 <= len(found["array"]) - len(waveform) < 3 * SAMPLES_OF_FRAME
        np.testing.assert_allclose(np.std(found["array"][RATE : 2 * RATE]), 0.1, rtol=0.2)
    with pytest.raises(ValueError, match=r"[56]\.\d s long or more; at most 5 s are taken here"):
        load_audio(streamed, max_seconds=5)
    assert len(load_audio(streamed, max_seconds=9)["array"]) == len(load_audio(streamed)["array"])


@pytest.mark.fault
def test_what_is_not_sound_after_a_tag_is_refused() -> None:
    with pytest.raises(ValueError, match="not readable as audio"):
        load_audio(tag(100) + b"no sound" * 1000)
