"""Clips that a codec is trained on or measured with: waveforms at one rate and level, labels never read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..audio.io import Audio, load_audio
from ..data.readers import AUDIO_SUFFIXES, read_clips
from ..models.audioformer.feature_extraction_audioformer import LEVEL_FLOOR_DBFS, resample

__all__ = ["load_waveforms", "set_level"]


def load_waveforms(
    sources: Sequence[str],
    hold_out: Sequence[str],
    sampling_rate: int,
    rms_level_dbfs: float,
    *,
    only_held_out: bool = False,
) -> list[Tensor]:
    """The clips of `sources` as float32 (samples,), resampled to `sampling_rate` (Hz) and brought to one level.

    A source is a folder, whose audio files are all read, or anything else that `read_clips` knows. `hold_out` leaves
    clips out, "SOURCE:COLUMN=VALUE" each; with `only_held_out` these are the ones returned.

    Raises:
        ValueError: `hold_out` is malformed, names another source, or nothing is left.
    """
    held_out = [_parse_hold_out(entry, sources) for entry in hold_out]
    waveforms = [
        set_level(resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], sampling_rate), rms_level_dbfs)
        for source in sources
        for audio in _read(source, [entry[1:] for entry in held_out if entry[0] == source], only_held_out)
    ]
    if not waveforms:
        raise ValueError(f"no clips are left in sources {list(sources)} with hold_out {list(hold_out)}")
    return waveforms


def _parse_hold_out(entry: str, sources: Sequence[str]) -> tuple[str, str, str]:
    source, _, condition = entry.rpartition(":")
    column, equals, value = condition.partition("=")
    if not equals or source not in sources:
        raise ValueError(f"hold_out {entry!r} must be SOURCE:COLUMN=VALUE with a SOURCE out of {list(sources)}")
    return source, column, value


def _read(source: str, held_out: list[tuple[str, str]], only_held_out: bool) -> Iterator[Audio]:
    if Path(source).is_dir() and not held_out:
        paths = sorted(path for path in Path(source).rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
        yield from (load_audio(path) for path in paths if not only_held_out)
        return
    clips = read_clips(source)
    held = {i for column, value in held_out for i, found in enumerate(clips.column(column)) if str(found) == value}
    yield from (clips.load(index) for index in range(len(clips)) if (index in held) == only_held_out)


def set_level(waveform: Tensor, rms_level_dbfs: float) -> Tensor:
    """`waveform` (samples,) scaled to a root mean square of `rms_level_dbfs`, as the feature extractor does."""
    rms = waveform.square().mean().sqrt().clamp(min=10 ** (LEVEL_FLOOR_DBFS / 20))
    return waveform * (10 ** (rms_level_dbfs / 20) / rms)
