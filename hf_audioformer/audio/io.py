"""Reading sound: a file that soundfile knows (wav, flac, ogg, opus, mp3) to a float32 mono waveform, or an error."""

import io
import os
import re
from pathlib import Path
from typing import TypedDict

import numpy as np

from .mp3_stream import decode_stream, sound_without_length

__all__ = ["Audio", "load_audio"]

# libsndfile's log of a wav, aiff or au whose header promises another number of bytes than the file holds.
_DATA_SIZE_MISMATCH = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that write wav to a pipe cannot know its size and put a number at or near the maximum.
_UNKNOWN_DATA_SIZE = 0x7FFF0000


class Audio(TypedDict):
    """A mono waveform, in the form that `pipeline("audio-classification")` and `datasets` use.

    `array` is float32 (samples,), nominally in [-1, 1] (lossy formats may pass it a little); `sampling_rate` is in Hz.
    """

    array: np.ndarray
    sampling_rate: int


def load_audio(
    source: str | os.PathLike[str] | bytes,
    sampling_rate: int | None = None,
    *,
    name: str | None = None,
    max_seconds: float | None = None,
) -> Audio:
    """Decode a file, or the bytes of one, to a mono float32 waveform.

    Channels are averaged. With `sampling_rate` (Hz) the waveform is resampled to it, otherwise it keeps its own rate.
    `name` is what errors call the clip (default: its path). A file longer than `max_seconds` is refused by its header,
    before it is decoded; an MP3 that does not tell its length once so much of it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not audio, truncated, too long, without samples, or with NaN or infinite samples.
    """
    if isinstance(source, bytes):
        name = name or f"<{len(source)} bytes of audio>"
        file: io.BytesIO | str = io.BytesIO(source)
    else:
        name = name or os.fspath(source)
        file = os.fspath(source)
        if not Path(source).is_file():
            found = "a folder" if Path(source).is_dir() else "nothing"
            raise FileNotFoundError(f"{name}: expected an audio file, found {found} at that path")
    waveform, rate = _decode(file, name, max_seconds)
    if sampling_rate is not None and sampling_rate != rate:
        waveform, rate = _resample(waveform, rate, sampling_rate), sampling_rate
    return {"array": waveform, "sampling_rate": rate}


def _decode(file: io.BytesIO | str, name: str, max_seconds: float | None) -> tuple[np.ndarray, int]:
    """The checked waveform, float32 (samples,), and its sampling rate in Hz."""
    import soundfile

    try:
        with soundfile.SoundFile(file) as sound:
            streamed = _streamed_mp3(file) if sound.format == "MP3" else None
            if streamed is None:
                _check_length(sound.frames / sound.samplerate, max_seconds, name)
                samples, rate = sound.read(dtype="float32", always_2d=True), sound.samplerate
                promised, log = sound.frames, sound.extra_info
        if streamed is not None:
            samples, rate = decode_stream(streamed, max_seconds)
            _check_length(len(samples) / rate, max_seconds, name, " or more")
            promised, log = 0, ""
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a path in .raw, taken for headerless audio
        raise ValueError(
            f"{name}: not readable as audio ({getattr(error, 'error_string', error)}) The file is damaged or of "
            "another kind; wav, flac, ogg, opus and mp3 can be read, convert others first."
        ) from error
    _check_complete(len(samples), promised, log, name)
    if len(samples) == 0:
        raise ValueError(f"{name}: the file holds no samples. Remove the clip or replace the file.")
    if not np.isfinite(samples).all():
        first = int(np.flatnonzero(~np.isfinite(samples).all(axis=1))[0])
        raise ValueError(f"{name}: sample {first} is NaN or infinite; all samples must be finite. Replace the file.")
    return samples.mean(axis=1), rate


def _streamed_mp3(file: io.BytesIO | str) -> bytes | None:
    """The sound of an MP3 file that does not tell its length."""
    return sound_without_length(file.getvalue() if isinstance(file, io.BytesIO) else Path(file).read_bytes())


def _check_length(seconds: float, max_seconds: float | None, name: str, or_more: str = "") -> None:
    if max_seconds is not None and seconds > max_seconds:
        raise ValueError(f"{name}: {seconds:.1f} s long{or_more}; at most {max_seconds:g} s are taken here. Cut it.")


def _check_complete(num_samples: int, promised: int, log: str, name: str) -> None:
    """Refuse a file that ends before its header says: decoders return the first part of it without a word."""
    mismatch = _DATA_SIZE_MISMATCH.search(log)
    if mismatch:
        declared, present = int(mismatch[1]), int(mismatch[2])
        if present < declared < _UNKNOWN_DATA_SIZE:
            raise ValueError(
                f"{name}: truncated, the header promises {declared} bytes of audio and the file holds {present}. "
                "Copy or download it again."
            )
    if num_samples < promised:
        raise ValueError(
            f"{name}: truncated, the header promises {promised} samples and {num_samples} could be decoded. "
            "Copy or download it again."
        )


def _resample(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    import torch

    from ..models.audioformer.waveform_audioformer import resample

    if new_rate <= 0:
        raise ValueError(f"sampling_rate must be a positive number of Hz, got {new_rate}")
    return resample(torch.from_numpy(waveform), rate, new_rate).numpy()
