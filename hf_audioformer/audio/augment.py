"""Changing the sound of a clip before it is encoded: mixing, shift, speed, gain and noise; drawn, then applied."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch

from ..models.audioformer.waveform_audioformer import resample
from .io import Audio

__all__ = ["AudioAugmentation", "AudioChange", "apply_change"]

# Below it noise is flat: it would otherwise put its power where nothing is heard.
LOWEST_TILTED_HZ = 50.0


@dataclass(frozen=True)
class AudioChange:
    """One drawn change of a clip; `partner` is the clip mixed in, `weight` in (0, 1] the share of the clip itself."""

    speed: float
    gain_db: float
    noise_snr_db: float
    noise_tilt: float
    noise_seed: int
    shift: float = 0.0
    partner: int | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class AudioAugmentation:
    """How far training clips are changed; each changed version is encoded once.

    Raises:
        ValueError: a range whose ends are swapped, or a value out of range.
    """

    copies: int = field(default=0, metadata={"help": "changed versions of each training clip beside the clip itself"})
    speed: tuple[float, float] = field(
        default=(0.85, 1.2), metadata={"help": "range of playing speeds; pitch goes with it"}
    )
    gain_db: tuple[float, float] = field(default=(-6.0, 6.0), metadata={"help": "range of gains in dB"})
    noise_snr_db: tuple[float, float] = field(
        default=(15.0, 40.0), metadata={"help": "range of signal-to-noise ratios of added noise in dB"}
    )
    shift: float = field(
        default=0.0, metadata={"help": "largest share of its length by which a clip is rolled in time, in [0, 1]"}
    )
    mixup: float = field(
        default=0.0, metadata={"help": "probability that a copy is mixed with another clip; labels are mixed alike"}
    )
    mixup_within: str | None = field(
        default=None,
        metadata={"help": "column whose value two mixed clips share (fold, split), so that no test is heard"},
    )
    mixup_weight: tuple[float, float] = field(
        default=(0.5, 1.0), metadata={"help": "range of the share of the clip itself in a mixture, in (0, 1]"}
    )

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, tuple) and not value[0] <= value[1]:  # nor is NaN a number
                raise ValueError(f"{name} is {value}; it must be two numbers, the lower end first")
        for name in ("shift", "mixup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        if (self.mixup > 0) != (self.mixup_within is not None):
            raise ValueError(
                f"mixup is {self.mixup} and mixup_within {self.mixup_within}; set both: the column says which clips "
                "may be mixed, so that no training clip hears a tested one"
            )
        if not (self.mixup_weight[0] > 0 and self.mixup_weight[1] <= 1):
            raise ValueError(f"mixup_weight is {self.mixup_weight}; shares lie in (0, 1]")
        if self.speed[0] <= 0:
            raise ValueError(f"speed is {self.speed}; speeds must be positive")
        if self.mixup and not self.copies:
            raise ValueError(f"mixup is {self.mixup} and copies 0; only changed copies are mixed, so set copies too")
        if self.copies < 0:
            raise ValueError(f"copies is {self.copies}; it must be at least 0")

    def draw(self, seed: int, copy: int, clip_index: int, partners: Sequence[int] = ()) -> AudioChange:
        """The change of one version of a clip; it depends on the three numbers and the `partners` to mix with alone."""
        random = np.random.default_rng([seed, copy, clip_index])
        change = AudioChange(
            speed=random.uniform(*self.speed),
            gain_db=random.uniform(*self.gain_db),
            noise_snr_db=random.uniform(*self.noise_snr_db),
            noise_tilt=random.uniform(0.0, 1.0),
            noise_seed=int(random.integers(2**31)),
            shift=random.uniform(-self.shift, self.shift),
        )
        if not partners or random.random() >= self.mixup:
            return change
        weight = random.uniform(*self.mixup_weight)
        return replace(change, partner=partners[int(random.integers(len(partners)))], weight=weight)


def apply_change(
    audio: Audio, change: AudioChange, partner: Audio | None = None, *, quick_noise: bool = False
) -> Audio:
    """The changed clip, with `partner` mixed in if the change names one; both at one level before they are mixed.

    Mixing follows between-class learning (arXiv 1711.10282): amplitudes `weight` and 1 - `weight`, at constant power. A
    partner of another length is repeated or cut, one of another rate is resampled.
    Speed costs nothing: the clip says another sampling rate, in steps of 100 Hz, and encoding resamples anyway.
    The noise has no offset; above 50 Hz its power falls by 6 `noise_tilt` dB per octave, from white (0) to brown (1);
    there is none where `noise_snr_db` is infinite. With `quick_noise` it is drawn for a length whose FFT is quick: a
    tenth of the time for some lengths, but not the noise of the versions in existing code stores.
    """
    from scipy.fft import next_fast_len

    rate = audio["sampling_rate"]
    waveform = np.roll(audio["array"], round(change.shift * len(audio["array"])))
    if partner is not None:
        waveform = _mix(waveform, rate, partner, change.weight)
    if math.isfinite(change.noise_snr_db):
        num_samples = next_fast_len(len(waveform), real=True) if quick_noise else len(waveform)
        noise = _noise(num_samples, rate, change.noise_tilt, change.noise_seed)[: len(waveform)]
        level = _rms(waveform) / max(_rms(noise), 1e-10) * 10 ** (-change.noise_snr_db / 20)
        waveform = waveform + level * noise
    changed = (waveform * 10 ** (change.gain_db / 20)).astype(np.float32)
    return {"array": changed, "sampling_rate": rate if change.speed == 1 else round(rate * change.speed / 100) * 100}


def _mix(waveform: np.ndarray, rate: int, partner: Audio, weight: float) -> np.ndarray:
    other = resample(torch.from_numpy(partner["array"]), partner["sampling_rate"], rate).numpy()
    other = np.resize(other, len(waveform)) * (_rms(waveform) / max(_rms(other), 1e-10))
    return (weight * waveform + (1 - weight) * other) / np.sqrt(weight**2 + (1 - weight) ** 2)


def _noise(num_samples: int, rate: int, tilt: float, seed: int) -> np.ndarray:
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(num_samples))
    spectrum[0] = 0
    frequencies_hz = np.fft.rfftfreq(num_samples, d=1 / rate)
    return np.fft.irfft(spectrum * np.maximum(frequencies_hz, LOWEST_TILTED_HZ) ** -tilt, n=num_samples)


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
