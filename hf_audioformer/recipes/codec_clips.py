"""Clips that a codec is trained on or measured with: waveforms at one rate and level, labels never read."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..audio.io import Audio, load_audio
from ..codes.store import is_code_store
from ..data.hold_out import HoldOut, held_out_clips, parse_hold_out
from ..data.readers import AUDIO_SUFFIXES, read_clips, sound_files
from ..inference.listening import level_gain
from ..models.audioformer.waveform_audioformer import resample

__all__ = ["load_waveforms", "set_level"]

logger = logging.getLogger(__name__)


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
        ValueError: `hold_out` is malformed or leaves nothing out, nothing is left, or a folder has no sound to read.
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
    files = {source: _sound_files(source) for source in whole}
    described = [source for source in sources if source not in files]
    tables = [read_clips(source, needs_labels=False) for source in described]
    left_out = dict(zip(described, zip(tables, held_out_clips(described, tables, hold_out), strict=True), strict=True))
    for source in sources:
        if source in left_out:
            clips, held = left_out[source]
            yield from (clips.load(index) for index in range(len(clips)) if (index in held) == only_held_out)
        elif not only_held_out:
            yield from map(load_audio, files[source])


def _sound_files(source: str) -> list[Path]:
    """The files of a folder that are read; those of kinds that cannot be are told of.

    Raises:
        ValueError: There are none.
    """
    if is_code_store(source):
        raise ValueError(f"sources: {source} is a code store, which has no sound; give what it was encoded from")
    found = sound_files(Path(source))
    files = [path for path in found if path.suffix.lower() in AUDIO_SUFFIXES]
    unreadable = sorted({path.suffix.lower() for path in found} - AUDIO_SUFFIXES)
    if not files:
        hint = f"; convert {', '.join(unreadable)} to wav or flac" if unreadable else "; name a .parquet or .csv itself"
        raise ValueError(f"sources: no sound file that can be read lies in {source} or below it{hint}")
    if unreadable:
        left_out, kinds = len(found) - len(files), ", ".join(unreadable)
        logger.warning("%s: %d of %d sound files are left out, %s cannot be read", source, left_out, len(found), kinds)
    return files


def _is_whole_folder(source: str, hold_out: Sequence[HoldOut]) -> bool:
    return Path(source).is_dir() and not any(one.concerns(source) for one in hold_out)


def set_level(waveform: Tensor, rms_level_dbfs: float) -> Tensor:
    """`waveform` (samples,) scaled to a root mean square of `rms_level_dbfs`, as the feature extractor does."""
    return waveform * level_gain(waveform, rms_level_dbfs)
