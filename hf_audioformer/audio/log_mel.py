"""Log-mel spectrograms in plain torch."""

import math

import torch
from torch import Tensor

__all__ = ["log_mel", "log_mel_distance", "mel_filterbank"]

DISTANCE_RANGE_DB = 80.0


def log_mel(
    waveform: Tensor,
    sampling_rate: int,
    num_mel_bins: int = 64,
    *,
    window_seconds: float = 0.025,
    hop_seconds: float = 0.010,
    floor: float = 1e-10,
) -> Tensor:
    """Natural logarithm of the mel power spectrogram, (..., frames, num_mel_bins), in the dtype of `waveform`.

    Frames are centred on multiples of the hop and the ends are padded with zeros: `frames = 1 + samples // hop`.

    Args:
        waveform: floating point (..., samples), full scale is 1.
        sampling_rate: in Hz.
        num_mel_bins: triangular filters from 0 Hz to half the sampling rate.
        window_seconds: length of the Hann window; the FFT is the next power of two.
        hop_seconds: from frame to frame.
        floor: the least power, so that digital silence stays finite.

    Raises:
        ValueError: if `waveform` is empty or not floating point.
    """
    if not waveform.is_floating_point() or waveform.ndim == 0 or waveform.shape[-1] == 0:
        raise ValueError(
            f"waveform has shape {tuple(waveform.shape)} and dtype {waveform.dtype}; "
            "expected floating point (..., samples) with at least one sample"
        )
    window_samples = round(window_seconds * sampling_rate)
    fft_samples = 2 ** math.ceil(math.log2(window_samples))
    spectrum = torch.stft(
        waveform.reshape(-1, waveform.shape[-1]),
        n_fft=fft_samples,
        hop_length=round(hop_seconds * sampling_rate),
        win_length=window_samples,
        window=torch.hann_window(window_samples, dtype=waveform.dtype, device=waveform.device),
        pad_mode="constant",
        return_complex=True,
    )
    filters = mel_filterbank(num_mel_bins, fft_samples, sampling_rate).to(waveform)
    mel_power = spectrum.abs().square().transpose(1, 2) @ filters
    return mel_power.clamp(min=floor).log().reshape(*waveform.shape[:-1], -1, num_mel_bins)


def log_mel_distance(decoded: Tensor, original: Tensor, sampling_rate: int) -> float:
    """Mean absolute difference of natural log-mels (64 bands), floored 80 dB under the peak of `original`.

    It is measured as far as both reach, since codecs give a few samples more or less.
    """
    samples = min(len(decoded), len(original))
    decoded, original = decoded[:samples], original[:samples]
    floor = log_mel(original, sampling_rate).max().exp().item() * 10 ** (-DISTANCE_RANGE_DB / 10)
    expected, found = (log_mel(audio, sampling_rate, floor=floor) for audio in (original, decoded))
    return (found - expected).abs().mean().item()


def mel_filterbank(num_mel_bins: int, fft_samples: int, sampling_rate: int) -> Tensor:
    """Triangles of height 1, evenly spaced on the HTK mel scale: float64 (fft_samples // 2 + 1, num_mel_bins)."""
    highest_mel = 2595 * math.log10(1 + sampling_rate / 2 / 700)
    corners_mel = torch.linspace(0, highest_mel, num_mel_bins + 2, dtype=torch.float64)
    corners_hz = 700 * (10 ** (corners_mel / 2595) - 1)
    frequencies_hz = torch.linspace(0, sampling_rate / 2, fft_samples // 2 + 1, dtype=torch.float64)
    left, centre, right = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    rising = (frequencies_hz[:, None] - left) / (centre - left)
    falling = (right - frequencies_hz[:, None]) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0)
