"""Clips as users give them, made into checked mono waveforms at the rate that a feature extractor wants."""

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

# More channels than any recording has: an axis this long holds samples.
MAX_CHANNELS = 64
# The quietest level that `level_gain` lifts: digital silence stays silence and hiss does not become a roar.
LEVEL_FLOOR_DBFS = -80.0
# Rates that share so few divisors that their product, without these, is larger are resampled without a table.
MAX_RESAMPLER_WEIGHTS = 1_000_000
# Samples made together where there is no table: a few MB of weights.
DIRECT_BLOCK = 16_384
# Changes of speed come in steps of 100 Hz: from 0.8 to 1.25 times 16 kHz are 73 rates, with filters of 0.1 MB each.
RESAMPLERS_KEPT = 128
# The windowed sinc of torchaudio's `Resample`: its zeros on each side, and where it cuts off, of half the lower rate.
FILTER_WIDTH, ROLLOFF = 6, 0.99

_IMPORTING_PROCESS = os.getpid()

Waveform = np.ndarray | torch.Tensor | Sequence[float]


def leave_parents_threads() -> None:
    """Keeps a forked worker from hanging in the thread pool that its parent has started."""
    if os.getpid() != _IMPORTING_PROCESS:
        torch.set_num_threads(1)


def resample(waveform: torch.Tensor, orig_rate: int, new_rate: int) -> torch.Tensor:
    """Resamples the last axis of a waveform, (..., samples), from one rate in Hz to another, as torchaudio does."""
    if orig_rate < 1 or int(orig_rate) != orig_rate:
        raise ValueError(f"a sampling rate is a positive whole number of Hz; found {orig_rate}.")
    if orig_rate == new_rate:
        return waveform
    common = math.gcd(int(orig_rate), new_rate)
    if (orig_rate // common) * (new_rate // common) > MAX_RESAMPLER_WEIGHTS:
        return _resampled_directly(waveform, int(orig_rate), new_rate)
    return _resampled(waveform, _resampler(int(orig_rate), int(new_rate), waveform.device))


def _resampled(waveform: torch.Tensor, resampler: Any) -> torch.Tensor:
    """What torchaudio's `Resample` gives, as a product of matrices where its windows overlap by less than half.

    Its convolution is compiled anew for every length (seen with PyTorch 2.14 on a CPU), which takes longer than to run
    it; overlapping windows are copies of the waveform.
    """
    kernel, width = resampler.kernel[:, 0], resampler.width
    step, outputs = resampler.orig_freq // resampler.gcd, resampler.new_freq // resampler.gcd
    if kernel.shape[1] > 2 * step or not waveform.is_floating_point():
        return resampler(waveform)
    samples = waveform.shape[-1]
    windows = F.pad(waveform, (width, width + step)).unfold(-1, kernel.shape[1], step)
    return (windows @ kernel.T).flatten(-2)[..., : -(-outputs * samples // step)]


def _resampled_directly(waveform: torch.Tensor, orig_rate: int, new_rate: int) -> torch.Tensor:
    """What torchaudio's `Resample` gives, with the weights of each new sample computed for it alone."""
    cutoff = ROLLOFF * min(orig_rate, new_rate)
    width = math.ceil(FILTER_WIDTH * orig_rate / cutoff)
    neighbours = torch.arange(-width, width + 1, device=waveform.device)
    padded = F.pad(waveform.float(), (width, width))
    samples = torch.arange(-(-new_rate * waveform.shape[-1] // orig_rate), device=waveform.device)
    blocks = []
    for sample in samples.split(DIRECT_BLOCK):
        nearest = sample * orig_rate // new_rate
        heard = nearest[:, None] + neighbours
        times = (heard * new_rate - sample[:, None] * orig_rate).float() * (cutoff / orig_rate / new_rate)
        times = times.clamp(-FILTER_WIDTH, FILTER_WIDTH)
        weights = torch.sinc(times) * torch.cos(times * (math.pi / FILTER_WIDTH / 2)).square() * (cutoff / orig_rate)
        blocks.append((padded[..., heard + width] * weights).sum(-1))
    return torch.cat(blocks, dim=-1)


@lru_cache(maxsize=RESAMPLERS_KEPT)
def _resampler(orig_rate: int, new_rate: int, device: torch.device) -> Any:
    from torchaudio.transforms import Resample

    return Resample(orig_rate, new_rate).to(device)


def as_clips(audio: Waveform | Sequence[Waveform]) -> list[Waveform]:
    """A list of clips from one clip or several."""
    if isinstance(audio, (np.ndarray, torch.Tensor)):
        return [audio]
    if not isinstance(audio, (list, tuple)):
        raise ValueError(
            f"audio is {type(audio).__name__}; allowed: numpy array, torch tensor, list of floats or of clips."
        )
    if not audio:
        raise ValueError("audio is an empty list; give at least one clip.")
    return [audio] if np.ndim(audio[0]) == 0 else list(audio)


def as_float_tensor(clip: Waveform, index: int) -> torch.Tensor:
    """A clip of floats as a float32 tensor, where it is, without NaN or inf."""
    if isinstance(clip, torch.Tensor):
        waveform = clip.detach()
    else:
        waveform = torch.as_tensor(np.require(clip, requirements=["C", "W"]))  # a copy only where torch cannot share
    if not waveform.is_floating_point():
        raise ValueError(
            f"clip {index} is {str(waveform.dtype).removeprefix('torch.')}; samples must be floats, nominally in "
            "[-1, 1]. Divide integer PCM by its full scale (int16: 32768)."
        )
    waveform = waveform.float()
    if waveform.numel() == 0:
        raise ValueError(f"clip {index} is empty (shape {tuple(waveform.shape)}); leave it out.")
    finite = torch.isfinite(waveform.sum())  # the sum is 20 times faster than to look at each
    if not finite and not (finite := torch.isfinite(waveform)).all():
        raise ValueError(
            f"clip {index} has {int((~finite).sum())} samples that are NaN or infinite, the first at "
            f"{int((~finite).flatten().nonzero()[0])}; repair or leave out the file it came from."
        )
    return waveform


def as_mono(waveform: torch.Tensor, index: int, channel_axis: int | None) -> torch.Tensor:
    """Means the channels of a clip; refuses a second axis whose meaning was not said."""
    if waveform.dim() == 1:
        return waveform
    shape = tuple(waveform.shape)
    if waveform.dim() != 2:
        raise ValueError(f"clip {index} has shape {shape}; a clip is (samples,) or has one more axis of channels.")
    if channel_axis is None:
        raise ValueError(
            f"clip {index} has shape {shape}: for one clip with channels say channel_axis={int(shape[0] > shape[1])}, "
            "for a batch of mono clips give a list of one-dimensional clips."
        )
    if channel_axis not in (-2, -1, 0, 1) or shape[channel_axis] > MAX_CHANNELS:
        raise ValueError(
            f"clip {index} has shape {shape} and channel_axis is {channel_axis}; it must be 0 or 1 and hold at most "
            f"{MAX_CHANNELS} channels. Is it the other axis?"
        )
    return waveform.mean(dim=channel_axis)


def level_gain(waveform: torch.Tensor, rms_level_dbfs: float | None) -> float:
    """What brings a waveform (samples,) to a root mean square of `rms_level_dbfs`, in dB relative to 1; 1 if that is
    not given."""
    if rms_level_dbfs is None:
        return 1.0
    rms = waveform.square().mean().sqrt().clamp(min=10 ** (LEVEL_FLOOR_DBFS / 20))
    return float(10 ** (rms_level_dbfs / 20) / rms)


def samples_allowed(max_length_seconds: float | None, sampling_rate: int, shortest: int) -> int | None:
    """The samples of `max_length_seconds` at `sampling_rate`, in Hz; None if it is None.

    Raises:
        ValueError: They are fewer than `shortest`, one frame.
    """
    if max_length_seconds is None:
        return None
    limit = int(max_length_seconds * sampling_rate)
    if limit < shortest:
        raise ValueError(
            f"max_length_seconds is {max_length_seconds}; it must be at least one frame, {shortest} samples at "
            f"{sampling_rate} Hz."
        )
    return limit


def prepared(
    clip: Waveform,
    index: int,
    orig_rate: int,
    new_rate: int,
    channel_axis: int | None,
    *,
    shortest: int,
    rms_level_dbfs: float | None,
) -> torch.Tensor:
    """Clip number `index` as a checked float32 waveform (samples,) on the CPU, at a new rate and level.

    Raises:
        ValueError: It is not float, empty, not finite, shorter than `shortest` samples at the new rate, one frame, or
            has channels on an axis that was not said.
    """
    waveform = as_mono(as_float_tensor(clip, index).cpu(), index, channel_axis)
    waveform = resample(waveform, orig_rate, new_rate)
    if len(waveform) < shortest:
        raise ValueError(
            f"clip {index} has {len(waveform)} samples at {new_rate} Hz, less than one frame of {shortest}; leave it "
            "out or pad it with silence."
        )
    return waveform * level_gain(waveform, rms_level_dbfs)


__all__ = [
    "Waveform",
    "as_clips",
    "as_float_tensor",
    "as_mono",
    "leave_parents_threads",
    "level_gain",
    "prepared",
    "resample",
    "samples_allowed",
]
