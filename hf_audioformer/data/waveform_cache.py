"""Decoded and resampled sound of clips, held in memory as far as it fits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..audio.fbank import num_frames
from ..codes.encoding import check_bad_share
from ..models.audioformer.waveform_audioformer import leave_parents_threads, resample
from .clip_table import ClipTable

if TYPE_CHECKING:
    from tqdm.auto import tqdm

__all__ = ["WaveformCache"]

logger = logging.getLogger(__name__)

SKIP_HINT = " (--data.skip_bad true leaves such clips out)"


class WaveformCache:
    """The waveforms of some clips of a table, by their index there: float32 (samples,) at one sampling rate.

    All clips are decoded once now, with a progress bar, and held until `max_gigabytes` are full. From there on a clip
    is decoded each time it is asked for; then bad ones are met late, or with `skip_bad`, which must know them, all
    clips are decoded once all the same, by processes that train together a share each. Of what is held they have a copy
    each; forked workers share the memory of their parent.

    Args:
        clips: Clips with sound.
        indices: Which of them.
        sampling_rate: In Hz.
        skip_bad: Whether clips that cannot be used are left out, and listed in `failures`, instead of raised.
        max_gigabytes: Memory for waveforms; an hour at 16 kHz takes 0.23.

    Attributes:
        failures: Why clips were left out, by their index; `index in cache` tells whether a clip can be used.

    Raises:
        ValueError: The clips are a store of codes; or a clip cannot be read or is shorter than a frame of log-mels (the
            message names it), or with `skip_bad` more than a fifth of them are.
    """

    def __init__(
        self,
        clips: ClipTable,
        indices: Sequence[int],
        sampling_rate: int,
        *,
        skip_bad: bool = False,
        max_gigabytes: float = 4.0,
    ):
        if clips.codes is not None:
            raise ValueError(
                "the clips are a store of codes, which holds no sound; give the data set that it was encoded from"
            )
        self.clips = clips
        self.sampling_rate = sampling_rate
        self.failures: dict[int, str] = {}
        self._held: dict[int, np.ndarray] = {}
        self._num_samples: dict[int, int] = {}
        # The last clip that is not held: windows of a long clip are asked for one after the other.
        self._latest: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.float32))
        self._indices = frozenset(indices)
        self._fill(skip_bad, int(max_gigabytes * 1e9))

    def __contains__(self, index: object) -> bool:
        return index in self._indices and index not in self.failures

    def __getitem__(self, index: int) -> np.ndarray:
        """The waveform of a clip, not to be changed.

        Raises:
            KeyError: It is none of the clips that the cache was made for, or was left out.
            ValueError: It cannot be used; the message names it.
        """
        if index in self._held:
            return self._held[index]
        if index not in self:
            raise KeyError(f"clip {index} is not in this cache: {self.failures.get(index, 'it was not asked for')}")
        if index != self._latest[0]:
            self._latest = index, self._decoded(index)
        return self._latest[1]

    def num_samples(self, index: int) -> int:
        """The length of a clip's waveform; it is decoded for it only if it never was."""
        if index not in self._num_samples:
            self._num_samples[index] = len(self[index])
        return self._num_samples[index]

    def learn_lengths(self, indices: Iterable[int]) -> None:
        """Decodes those of the clips whose length is not known, with a progress bar, so that `num_samples` need not.

        Processes that train together decode a share each, so all of them must call this.

        Raises:
            ValueError: A clip cannot be used; the message names it.
        """
        unknown = sorted({*indices} - self._num_samples.keys())
        with _bar(len(unknown)) as shown:
            self._hear_shared(unknown, shown.update)
        for index in unknown:
            if index in self.failures:
                raise ValueError(self.failures[index] + SKIP_HINT)

    def _fill(self, skip_bad: bool, max_bytes: int) -> None:
        from accelerate import PartialState

        remaining = iter(sorted(self._indices))
        size, is_full = 0, False
        with _bar(len(self._indices)) as shown:
            for index in remaining:
                waveform = self._heard(index, skip_bad)
                shown.update()
                if waveform is None:
                    continue
                is_full = size + waveform.nbytes > max_bytes
                if is_full:
                    break
                self._held[index] = waveform
                size += waveform.nbytes
            if is_full and skip_bad:
                self._hear_shared(list(remaining), shown.update)
        if PartialState().is_main_process:
            self._report(size, is_full)
        check_bad_share({self.clips.ids[index]: reason for index, reason in self.failures.items()}, len(self._indices))

    def _heard(self, index: int, skip_bad: bool) -> np.ndarray | None:
        """Decodes a clip and notes its length, or with `skip_bad` why it has none."""
        try:
            waveform = self._decoded(index)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error}{SKIP_HINT}") from error
            self.failures[index] = str(error)
            return None
        self._num_samples[index] = len(waveform)
        return waveform

    def _hear_shared(self, indices: Sequence[int], count: Callable[[int], object]) -> None:
        """Decodes clips that are not held, each in one of the processes; all learn lengths and failures."""
        from accelerate import PartialState
        from accelerate.utils import gather_object

        state = PartialState()
        own = indices[state.process_index :: state.num_processes]
        for index in own:
            self._heard(index, skip_bad=True)
            count(state.num_processes)
        lengths = {index: self._num_samples[index] for index in own if index in self._num_samples}
        for num_samples, failures in gather_object([(lengths, self.failures)]):
            self._num_samples |= num_samples
            self.failures |= failures
        self.failures = dict(sorted(self.failures.items()))

    def _decoded(self, index: int) -> np.ndarray:
        leave_parents_threads()
        clip_id = self.clips.ids[index]
        try:
            audio = self.clips.load(index)
            waveform = resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], self.sampling_rate).numpy()
            if num_frames(len(waveform), self.sampling_rate) == 0:
                raise ValueError(
                    f"{len(waveform)} samples at {self.sampling_rate} Hz are less than one frame of log-mels; leave "
                    "the clip out or pad it with silence"
                )
        except (ValueError, OSError) as error:
            raise ValueError(str(error) if clip_id in str(error) else f"{clip_id}: {error}") from error
        return waveform

    def _report(self, size: int, is_full: bool) -> None:
        for reason in self.failures.values():
            logger.warning("left out: %s", reason)
        if is_full:
            logger.warning(
                "%d of %d clips (%.1f GB) are held in memory; the others are decoded each time they are heard",
                len(self._held),
                len(self._indices),
                size / 1e9,
            )


def _bar(total: int) -> tqdm:
    """A progress bar, in the first process."""
    from accelerate import PartialState
    from tqdm.auto import tqdm

    is_hidden = total == 0 or not PartialState().is_main_process
    return tqdm(total=total, desc="decode", unit="clip", dynamic_ncols=True, disable=is_hidden)
