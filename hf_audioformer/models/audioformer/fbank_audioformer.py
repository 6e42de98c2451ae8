"""Kaldi's log-mel filterbank, log spectrogram and MFCC in plain torch: features of AST and of AudioFormer's front
ends."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

__all__ = [
    "HOP_SECONDS",
    "LOWEST_HZ",
    "WINDOW_SECONDS",
    "features_of_clips",
    "kaldi_log_mel",
    "kaldi_log_spectrogram",
    "kaldi_mfcc",
    "log_mels_of_clips",
    "num_frames",
    "num_frequencies",
    "samples_of_frames",
]

WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010
PREEMPHASIS = 0.97
LOWEST_HZ = 20.0
# Filters applied together: as many as a vector of AVX-512 has numbers, and two of AVX2.
BAND_BINS = 16
# Frames computed together on a CPU: few enough to stay in its caches, and for memory that need not be asked for anew.
CPU_BLOCK_FRAMES = 500
# Clips per pass on an accelerator, which bounds its memory: 64 of 10 s take 0.4 GB.
ACCELERATOR_BATCH_SIZE = 64

# Writes what it makes of the squares of frames, (..., frames, 2 num_frequencies), to its second argument,
# (..., frames, features).
Writer = Callable[[Tensor, Tensor], None]
# Numbers of a row of squares, filters to multiply them with, the mel bins that gives.
Band = tuple[slice, Tensor, slice]


def num_frames(num_samples: int, sampling_rate: int) -> int:
    """The frames that lie within a waveform entirely; 0 if it is shorter than one."""
    window, hop = _window_and_hop(sampling_rate)
    return 0 if num_samples < window else 1 + (num_samples - window) // hop


def samples_of_frames(start: int, frames: int, sampling_rate: int) -> slice:
    """The samples that frames `start` to `start + frames` are made of."""
    window, hop = _window_and_hop(sampling_rate)
    return slice(start * hop, (start + frames - 1) * hop + window)


def kaldi_log_mel(
    waveform: Tensor, sampling_rate: int, num_mel_bins: int = 128, *, out: Tensor | None = None
) -> Tensor:
    """Natural logarithm of the mel power of each frame, (..., frames, num_mel_bins), on the waveform's device.

    Equal to `torchaudio.compliance.kaldi.fbank(..., htk_compat=True, window_type="hanning", dither=0)` of each clip:
    frames of 25 ms every 10 ms, of which each loses its mean and is preemphasised; frames that do not fit are dropped.
    Clips of several lengths may be padded behind: the first `num_frames` of each are its own. Gradients do not pass.

    The order of operations is that of Kaldi. Preemphasis of the whole waveform would be faster by a tenth, and differ
    by 0.02 between the harmonics of a pure tone, where single precision ends.

    Args:
        waveform: floating point (..., samples), full scale is 1.
        sampling_rate: in Hz.
        num_mel_bins: triangular filters from 20 Hz to half the sampling rate.
        out: contiguous memory for the result, which is returned; by default it is allocated.

    Raises:
        ValueError: if `waveform` is not floating point or shorter than a frame.

    Source: torchaudio/compliance/kaldi.py; feature_extraction_audio_spectrogram_transformer.py of Transformers.
    """
    bands = _filter_bands(num_mel_bins, _fft_samples(sampling_rate), sampling_rate, waveform.device, waveform.dtype)
    return _features(
        waveform, sampling_rate, num_mel_bins, lambda squares, mel: _write_log_mel(squares, bands, mel), out
    )


def kaldi_log_spectrogram(waveform: Tensor, sampling_rate: int) -> Tensor:
    """Natural logarithm of the power of each frame, (..., frames, num_frequencies), in the frames of `kaldi_log_mel`.

    Equal to `torchaudio.compliance.kaldi.spectrogram(..., window_type="hanning", dither=0)`, but for the first
    frequency, in whose place Kaldi puts the energy of the frame.

    Raises:
        ValueError: as `kaldi_log_mel`.
    """
    return _features(waveform, sampling_rate, num_frequencies(sampling_rate), _write_log_power)


def kaldi_mfcc(waveform: Tensor, sampling_rate: int, num_coefficients: int = 40, num_mel_bins: int = 128) -> Tensor:
    """Mel-frequency cepstral coefficients, (..., frames, num_coefficients): the first of the orthonormal cosine
    transform of `kaldi_log_mel`.

    Equal to `torchaudio.compliance.kaldi.mfcc(..., window_type="hanning", dither=0, cepstral_lifter=0)`: coefficients
    are not weighted, which normalisation by their statistics would undo.

    Raises:
        ValueError: as `kaldi_log_mel`; or more coefficients than mel bands are asked for.
    """
    if not 1 <= num_coefficients <= num_mel_bins:
        raise ValueError(
            f"num_coefficients is {num_coefficients}; it must be at least 1 and at most num_mel_bins, {num_mel_bins}"
        )
    log_mel = kaldi_log_mel(waveform, sampling_rate, num_mel_bins)
    return log_mel @ _cosines(num_mel_bins, num_coefficients, waveform.device, waveform.dtype)


def num_frequencies(sampling_rate: int) -> int:
    """The frequencies of `kaldi_log_spectrogram`, from 0 to half the sampling rate."""
    return _fft_samples(sampling_rate) // 2 + 1


def _features(
    waveform: Tensor, sampling_rate: int, num_features: int, write: Writer, out: Tensor | None = None
) -> Tensor:
    """What `write` makes of each frame, (..., frames, num_features)."""
    window_samples, hop_samples = _window_and_hop(sampling_rate)
    if not waveform.is_floating_point() or waveform.ndim == 0 or waveform.shape[-1] < window_samples:
        raise ValueError(
            f"waveform has shape {tuple(waveform.shape)} and dtype {waveform.dtype}; expected floating point "
            f"(..., samples) with at least one frame, {window_samples} samples at {sampling_rate} Hz"
        )
    window = _hann_window(window_samples, waveform.device, waveform.dtype)
    frames = waveform.reshape(-1, waveform.shape[-1]).unfold(-1, window_samples, hop_samples)
    if out is None:
        out = waveform.new_empty(*waveform.shape[:-1], frames.shape[1], num_features)
    for part, features in _computed_together(frames, out.view(*frames.shape[:2], num_features)):
        write(_squares_of_frames(part, window, _fft_samples(sampling_rate)), features)
    return out


def _computed_together(frames: Tensor, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames (clips, frames, samples) with their features: of a CPU `CPU_BLOCK_FRAMES` of a clip, elsewhere all."""
    if frames.device.type != "cpu":
        yield frames, features
        return
    for of_clip, features_of_clip in zip(frames, features, strict=True):
        yield from zip(of_clip.split(CPU_BLOCK_FRAMES), features_of_clip.split(CPU_BLOCK_FRAMES), strict=True)


def _squares_of_frames(frames: Tensor, window: Tensor, fft_samples: int) -> Tensor:
    """The spectrum of each frame, (..., frames, samples) -> (..., frames, 2 num_frequencies): of each frequency the
    squares of its real and its imaginary part, whose sum is the power."""
    centred, padded = _work_memory(frames, fft_samples)
    torch.sub(frames, frames.mean(-1, keepdim=True), out=centred)
    emphasised = torch.mul(centred[..., :-1], -PREEMPHASIS, out=padded[..., 1 : frames.shape[-1]])
    emphasised.add_(centred[..., 1:]).mul_(window[1:])
    return torch.view_as_real(torch.fft.rfft(padded)).square_().flatten(-2)


def _work_memory(frames: Tensor, fft_samples: int) -> tuple[Tensor, Tensor]:
    """Memory for frames and, (..., frames, fft_samples), for frames with zeros around them: rfft pads several times
    slower. A thread of a CPU keeps that of a block, since pages asked for anew take longer than what is done in them.
    """
    if frames.device.type != "cpu":
        return torch.empty_like(frames), _zero_outside(frames.shape, fft_samples, frames)
    centred, padded = _work_memory_of_thread(threading.get_ident(), frames.shape[-1], fft_samples, frames.dtype)
    return centred[: len(frames)], padded[: len(frames)]


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # memory made in inference mode cannot be written to outside
def _work_memory_of_thread(thread: int, samples: int, fft_samples: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    centred = torch.empty(CPU_BLOCK_FRAMES, samples, dtype=dtype, device="cpu")
    return centred, _zero_outside(centred.shape, fft_samples, centred)


def _zero_outside(shape: torch.Size, fft_samples: int, like: Tensor) -> Tensor:
    """(..., frames, fft_samples) for frames of `shape`: 0 before sample 1, where the window is 0 too, and behind the
    frame; the rest unset.

    Sample 1 of each frame lies on a boundary of 64 bytes, without which a CPU writes a quarter slower.
    """
    padded = like.new_empty(shape[:-1].numel() * fft_samples + 15)[15:].view(*shape[:-1], fft_samples)
    padded[..., 0] = 0
    padded[..., shape[-1] :] = 0
    return padded


def _write_log_mel(squares: Tensor, bands: list[Band], mel: Tensor) -> None:
    rows, mel_rows = squares.flatten(0, -2), mel.view(-1, mel.shape[-1])
    for parts, filters, bins in bands:
        torch.mm(rows[:, parts], filters, out=mel_rows[:, bins])
    _log_(mel)


def _write_log_power(squares: Tensor, power: Tensor) -> None:
    _log_(torch.add(squares[..., 0::2], squares[..., 1::2], out=power))


def _log_(power: Tensor) -> None:
    """The natural logarithm, in place; digital silence has that of the smallest step from 1."""
    power.clamp_(min=torch.finfo(power.dtype).eps).log_()


def log_mels_of_clips(
    waveforms: Sequence[Tensor],
    sampling_rate: int,
    num_mel_bins: int = 128,
    batch_size: int | None = None,
    out: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """`kaldi_log_mel` of clips of any lengths, (frames, num_mel_bins) each, written to `out` if that is given.

    `batch_size` clips are computed together; by default one on a CPU, whose caches a batch does not fit, and 64
    elsewhere.

    Raises:
        ValueError: as `kaldi_log_mel`.
    """

    def log_mels(clips: Tensor, out: Tensor | None = None) -> Tensor:
        return kaldi_log_mel(clips, sampling_rate, num_mel_bins, out=out)

    return features_of_clips(log_mels, waveforms, sampling_rate, batch_size, out)


def features_of_clips(
    function: Callable[..., Tensor],
    waveforms: Sequence[Tensor],
    sampling_rate: int,
    batch_size: int | None = None,
    out: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """What `function` makes of clips of any lengths, (frames, features) each; see `log_mels_of_clips`.

    `function` takes waveforms (..., samples); and with `out` here, an `out` too.
    """
    if batch_size is None:
        batch_size = 1 if waveforms[0].device.type == "cpu" else ACCELERATOR_BATCH_SIZE
    if batch_size == 1:
        return [function(clip) for clip in waveforms] if out is None else list(map(function, waveforms, out))
    features: list[Tensor] = []
    for start in range(0, len(waveforms), batch_size):
        clips = list(waveforms[start : start + batch_size])
        rows = function(pad_sequence(clips, batch_first=True))
        features += [row[: num_frames(len(clip), sampling_rate)] for row, clip in zip(rows, clips, strict=True)]
    return features if out is None else [to.copy_(of_clip) for to, of_clip in zip(out, features, strict=True)]


def _window_and_hop(sampling_rate: int) -> tuple[int, int]:
    """Samples of a frame, and from frame to frame; rounded down, as Kaldi does."""
    return int(sampling_rate * WINDOW_SECONDS), int(sampling_rate * HOP_SECONDS)


def _fft_samples(sampling_rate: int) -> int:
    return 2 ** math.ceil(math.log2(_window_and_hop(sampling_rate)[0]))


@lru_cache(maxsize=16)
def _cosines(num_mel_bins: int, num_coefficients: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The orthonormal cosine transform (DCT-II), (num_mel_bins, num_coefficients)."""
    band = torch.arange(num_mel_bins, dtype=torch.float64).unsqueeze(1) + 0.5
    cosines = (math.pi / num_mel_bins * band * torch.arange(num_coefficients)).cos() * (2 / num_mel_bins) ** 0.5
    cosines[:, 0] /= 2**0.5
    return cosines.to(device, dtype)


@lru_cache(maxsize=16)
def _hann_window(samples: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.hann_window(samples, periodic=False, dtype=dtype, device=device)


@lru_cache(maxsize=16)
def _filter_bands(
    num_mel_bins: int, fft_samples: int, sampling_rate: int, device: torch.device, dtype: torch.dtype
) -> list[Band]:
    """The filters in groups, each with the squares it reads, of both parts of its frequencies, and the mel bins it
    gives: for 128 bins an eighth of the work of one matrix, mostly zeros. Adding the parts first costs more than to
    filter both."""
    bands = []
    first = 0
    both_parts = _filterbank(num_mel_bins, fft_samples, sampling_rate).repeat_interleave(2, dim=0)
    for filters in both_parts.split(BAND_BINS, dim=1):
        read = filters.any(dim=1).nonzero().flatten().tolist()
        parts = slice(read[0], read[-1] + 1) if read else slice(0, 1)
        bins = slice(first, first := first + filters.shape[1])
        bands.append((parts, filters[parts].to(device, dtype).contiguous(), bins))
    return bands


def _filterbank(num_mel_bins: int, fft_samples: int, sampling_rate: int) -> Tensor:
    """Triangles of height 1 in mel (not in Hz), evenly spaced: (fft_samples // 2 + 1, num_mel_bins).

    In single precision, as Kaldi and torchaudio have it: exact triangles give features that differ by 1e-4.
    """
    lowest, highest = (1127 * math.log(1 + hz / 700) for hz in (LOWEST_HZ, sampling_rate / 2))
    width = (highest - lowest) / (num_mel_bins + 1)
    index = torch.arange(num_mel_bins)
    left, centre, right = (lowest + (index + offset) * width for offset in (0.0, 1.0, 2.0))
    frequencies_hz = sampling_rate / fft_samples * torch.arange(fft_samples // 2)  # half the sampling rate is left out
    frequencies = 1127 * (1 + frequencies_hz[:, None] / 700).log()
    filters = torch.minimum((frequencies - left) / (centre - left), (right - frequencies) / (right - centre))
    return F.pad(filters.clamp(min=0), (0, 0, 0, 1))
