"""Clips that a codec is trained on or measured with: waveforms at one rate and level, labels never read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..audio.io import Audio, load_audio
from ..data.hold_out import HoldOut, held_out_clips, parse_hold_out
from ..data.readers import AUDIO_SUFFIXES, read_clips, sound_files
from ..inference.listening import level_gain
from ..models.audioformer.waveform_audioformer import resample

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
    clips out, as `parse_hold_out` says; with `only_held_out` these are the ones returned.

    Raises:
        ValueError: `hold_out` is malformed or leaves nothing out, or nothing is left.
    """
    waveforms = [
        set_level(resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], sampling_rate), rms_level_dbfs)
        for audio in _read(sources, parse_hold_out(hold_out, sources), only_held_out)
    ]
    if not waveforms:
        raise ValueError(f"no clips are left in sources {list(sources)} with hold_out {list(hold_out)}")
    return waveforms


def _read(sources: Sequence[str], hold_out: Sequence[HoldOut], only_held_out: bool) -> Iterator[Audio]:
    whole = [source for source in sources if _is_whole_folder(source, hold_out)]
    described = [source for source in sources if source not in whole]
    tables = [read_clips(source, needs_labels=False) for source in described]
    left_out = dict(zip(described, zip(tables, held_out_clips(described, tables, hold_out), strict=True), strict=True))
    for source in sources:
        if source in left_out:
            clips, held = left_out[source]
            yield from (clips.load(index) for index in range(len(clips)) if (index in held) == only_held_out)
        elif not only_held_out:
            paths = [path for path in sound_files(Path(source)) if path.suffix.lower() in AUDIO_SUFFIXES]
            yield from (load_audio(path) for path in paths)


def _is_whole_folder(source: str, hold_out: Sequence[HoldOut]) -> bool:
    return Path(source).is_dir() and not any(one.concerns(source) for one in hold_out)


def set_level(waveform: Tensor, rms_level_dbfs: float) -> Tensor:
    """`waveform` (samples,) scaled to a root mean square of `rms_level_dbfs`, as the feature extractor does."""
    return waveform * level_gain(waveform, rms_level_dbfs)
