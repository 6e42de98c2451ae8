"""Changing the sound of a clip before it is encoded: speed, band, gain and noise, drawn apart from being applied."""

from dataclasses import asdict, dataclass, field

import numpy as np

from .io import Audio

__all__ = ["AudioAugmentation", "AudioChange", "apply_change"]

# Below it noise is flat: it would otherwise put its power where nothing is heard.
LOWEST_TILTED_HZ = 50.0


@dataclass(frozen=True)
class AudioChange:
    """One drawn change of a clip."""

    speed: float
    gain_db: float
    noise_snr_db: float
    noise_tilt: float
    noise_seed: int


@dataclass(frozen=True)
class AudioAugmentation:
    """How far training clips are changed; each changed version is encoded once.

    Raises:
        ValueError: a range whose ends are swapped, or a speed that is not positive.
    """

    copies: int = field(default=0, metadata={"help": "changed versions of each training clip beside the clip itself"})
    speed: tuple[float, float] = field(
        default=(0.85, 1.2), metadata={"help": "range of playing speeds; pitch goes with it"}
    )
    gain_db: tuple[float, float] = field(default=(-6.0, 6.0), metadata={"help": "range of gains in dB"})
    noise_snr_db: tuple[float, float] = field(
        default=(15.0, 40.0), metadata={"help": "range of signal-to-noise ratios of added noise in dB"}
    )

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "copies" and value[0] > value[1]:
                raise ValueError(f"{name} is {value}; the lower end must come first")
        if self.speed[0] <= 0:
            raise ValueError(f"speed is {self.speed}; speeds must be positive")
        if self.copies < 0:
            raise ValueError(f"copies is {self.copies}; it must be at least 0")

    def draw(self, seed: int, copy: int, clip_index: int) -> AudioChange:
        """The change of one version of a clip; it depends on these three numbers alone."""
        random = np.random.default_rng([seed, copy, clip_index])
        return AudioChange(
            speed=random.uniform(*self.speed),
            gain_db=random.uniform(*self.gain_db),
            noise_snr_db=random.uniform(*self.noise_snr_db),
            noise_tilt=random.uniform(0.0, 1.0),
            noise_seed=int(random.integers(2**31)),
        )


def apply_change(audio: Audio, change: AudioChange) -> Audio:
    """The changed clip.

    Speed costs nothing: the clip says another sampling rate, in steps of 100 Hz, and encoding resamples anyway.
    The noise has no offset; above 50 Hz its power falls by 6 `noise_tilt` dB per octave, from white (0) to brown (1).
    """
    waveform, rate = audio["array"], audio["sampling_rate"]
    spectrum = np.fft.rfft(np.random.default_rng(change.noise_seed).standard_normal(len(waveform)))
    spectrum[0] = 0
    frequencies_hz = np.fft.rfftfreq(len(waveform), d=1 / rate)
    noise = np.fft.irfft(spectrum * np.maximum(frequencies_hz, LOWEST_TILTED_HZ) ** -change.noise_tilt, n=len(waveform))
    level = np.sqrt(np.mean(waveform**2) / max(np.mean(noise**2), 1e-20)) * 10 ** (-change.noise_snr_db / 20)
    changed = ((waveform + level * noise) * 10 ** (change.gain_db / 20)).astype(np.float32)
    return {"array": changed, "sampling_rate": round(rate * change.speed / 100) * 100}
