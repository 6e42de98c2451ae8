"""Every format decodes to the same sound; whatever cannot be trusted is refused with the file's name."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hf_audioformer.audio import load_audio

RATE = 16_000


def sine(num_samples: int = RATE, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, audio_format: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=audio_format, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("audio_format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "FLOAT", 0),
        ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_formats_decode_alike_from_path_and_bytes(
    tmp_path: Path, audio_format: str, subtype: str, tolerance: float
) -> None:
    content = encoded(sine(), audio_format, subtype)
    path = tmp_path / f"clip.{audio_format.lower()}"
    path.write_bytes(content)
    from_path, from_bytes = load_audio(path), load_audio(content)
    assert from_path["sampling_rate"] == RATE
    assert from_path["array"].dtype == np.float32
    assert from_path["array"].shape == (RATE,)
    assert np.abs(from_path["array"] - sine())[500:-500].max() <= tolerance
    np.testing.assert_array_equal(from_path["array"], from_bytes["array"])


@pytest.mark.fault
def test_too_long_a_file_is_refused_and_one_as_long_as_allowed_is_not() -> None:
    clip = encoded(sine(RATE + 1600))
    assert len(load_audio(clip, max_seconds=1.1)["array"]) == RATE + 1600
    with pytest.raises(ValueError, match=r"^clip: 1\.1 s long; at most 1\.05 s are taken here"):
        load_audio(clip, name="clip", max_seconds=1.05)


@pytest.mark.unit
def test_channels_are_averaged() -> None:
    stereo = np.stack([sine(), 3 * sine() / 4], axis=1)
    np.testing.assert_allclose(load_audio(encoded(stereo, subtype="FLOAT"))["array"], stereo.mean(1), rtol=0, atol=1e-7)


@pytest.mark.unit
@pytest.mark.parametrize("new_rate", [8_000, 24_000])
def test_resampling_keeps_the_tone_and_the_duration(new_rate: int) -> None:
    audio = load_audio(encoded(sine(), subtype="FLOAT"), sampling_rate=new_rate)
    assert audio["sampling_rate"] == new_rate
    assert audio["array"].dtype == np.float32
    assert len(audio["array"]) == new_rate
    inner = slice(200, -200)
    np.testing.assert_allclose(audio["array"][inner], sine(new_rate, new_rate)[inner], atol=0.01)


@pytest.mark.unit
def test_wav_of_unknown_size_is_read() -> None:
    content = bytearray(encoded(sine()))
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)  # what a program that writes to a pipe leaves there
    assert len(load_audio(bytes(content))["array"]) == RATE


@pytest.mark.fault
@pytest.mark.parametrize("audio_format", ["WAV", "FLAC", "MP3", "AIFF"])
def test_truncated_files_are_refused(tmp_path: Path, audio_format: str) -> None:
    content = encoded(sine(), audio_format)
    path = tmp_path / "half.bin"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"half\.bin: (truncated|not readable)"):
        load_audio(path)


@pytest.mark.fault
def test_wav_that_lost_its_last_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="header promises 32000 bytes of audio and the file holds 31998"):
        load_audio(encoded(sine())[:-2], name="clip")


@pytest.mark.fault
@pytest.mark.parametrize("suffix", [".wav", ".raw"])
def test_text_is_no_audio(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"notes{suffix}"
    path.write_text("not a sound")
    with pytest.raises(ValueError, match=rf"notes\{suffix}: not readable as audio .* wav, flac, ogg"):
        load_audio(path)


@pytest.mark.fault
def test_no_samples() -> None:
    with pytest.raises(ValueError, match="clip 7: the file holds no samples"):
        load_audio(encoded(np.zeros(0, dtype=np.float32)), name="clip 7")


@pytest.mark.fault
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite(value: float) -> None:
    samples = sine()
    samples[123] = value
    with pytest.raises(ValueError, match="sample 123 is NaN or infinite"):
        load_audio(encoded(samples, subtype="FLOAT"))


@pytest.mark.fault
def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav: expected an audio file, found nothing"):
        load_audio(tmp_path / "nowhere.wav")
    with pytest.raises(FileNotFoundError, match="found a folder"):
        load_audio(str(tmp_path))


@pytest.mark.fault
def test_sampling_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match="sampling_rate must be a positive number of Hz, got 0"):
        load_audio(encoded(sine()), sampling_rate=0)
