"""Sounds made up of noise, tones and clicks, with what they are made of as labels: a network learns to hear from them
without a single recording.

A sound has one or two layers, each a source under an envelope. All that is drawn is drawn before a sample is made, so
that labels are known without rendering. Sounds are not meant to be like any class of anything.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ..audio import Audio

__all__ = ["SECONDS", "SyntheticSound", "draw_sound", "filtered"]

SAMPLING_RATE = 16_000
SECONDS = 5.0
NUM_SAMPLES = int(SECONDS * SAMPLING_RATE)
TIMES = np.arange(NUM_SAMPLES) / SAMPLING_RATE
# Harmonics and bands stay below it.
HIGHEST_HZ = 7_800.0
MAX_HARMONICS = 24
LONGEST_CLICK_SECONDS = 0.5


class Part(Protocol):
    """A source or an envelope: its labels, and its samples (NUM_SAMPLES,), float64, at any level."""

    @property
    def labels(self) -> list[str]: ...

    def render(self, random: np.random.Generator) -> np.ndarray: ...


@dataclass(frozen=True)
class ColouredNoise:
    """Noise whose amplitude goes with frequency to the power of `slope`, from -2 (rumble) to 0.5 (hiss)."""

    slope: float

    @property
    def labels(self) -> list[str]:
        return ["noise", f"noise of colour {_part_of(self.slope, -2.0, 0.5, 4)}"]

    def render(self, random: np.random.Generator) -> np.ndarray:
        return _filtered_noise(random, lambda hz: (hz / 1000) ** self.slope)


@dataclass(frozen=True)
class BandNoise:
    """Noise around a frequency, as wide as so many octaves."""

    centre_hz: float
    octaves: float

    @property
    def labels(self) -> list[str]:
        height = _part_of(math.log(self.centre_hz), math.log(150), math.log(6000), 6)
        return ["band", f"band of height {height}", "narrow band" if self.octaves < 1.5 else "wide band"]

    def render(self, random: np.random.Generator) -> np.ndarray:
        return _filtered_noise(random, lambda hz: np.exp(-2 * (np.log2(hz / self.centre_hz) / self.octaves) ** 2))


@dataclass(frozen=True)
class Tone:
    """Harmonics of a pitch that is flat, slides up or down again and again, or swings.

    Args:
        hz: The pitch.
        motion: What it does.
        octaves: How far.
        motion_hz: How often.
        rolloff: The amplitude of harmonic k is k to the power of minus this.
    """

    hz: float
    motion: Literal["flat", "rising", "falling", "vibrato"]
    octaves: float
    motion_hz: float
    rolloff: float

    @property
    def labels(self) -> list[str]:
        pitch = _part_of(math.log(self.hz), math.log(80), math.log(1600), 6)
        return ["tone", f"tone of pitch {pitch}", f"{self.motion} tone", f"{self._timbre} tone"]

    @property
    def _timbre(self) -> str:
        return "bright" if self.rolloff < 1.3 else "dull"

    def render(self, random: np.random.Generator) -> np.ndarray:
        pitch_hz = self.hz * 2 ** (self.octaves * self._course())
        phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLING_RATE
        samples = np.zeros(NUM_SAMPLES)
        for harmonic in range(1, min(MAX_HARMONICS, int(HIGHEST_HZ / self.hz)) + 1):
            wave = np.sin(harmonic * phase + random.uniform(0, 2 * np.pi))
            samples += harmonic**-self.rolloff * wave * (harmonic * pitch_hz < HIGHEST_HZ)
        return samples

    def _course(self) -> np.ndarray:
        """Where the pitch is, from -1 to 1 of its octaves."""
        turns = TIMES * self.motion_hz
        if self.motion == "vibrato":
            return np.sin(2 * np.pi * turns)
        if self.motion == "flat":
            return np.zeros(NUM_SAMPLES)
        return turns % 1 if self.motion == "rising" else -(turns % 1)


@dataclass(frozen=True)
class Clicks:
    """Short sounds one after the other, at regular or irregular times.

    Args:
        rate_hz: How many in a second.
        is_regular: Whether they are evenly spaced.
        decay_seconds: Until one has decayed to 1/e.
        ring_hz: What it rings at; noise if None.
    """

    rate_hz: float
    is_regular: bool
    decay_seconds: float
    ring_hz: float | None

    @property
    def labels(self) -> list[str]:
        rate = _part_of(math.log(self.rate_hz), math.log(0.8), math.log(60), 5)
        spacing = "regular" if self.is_regular else "irregular"
        return ["clicks", f"clicks of rate {rate}", f"{spacing} clicks", f"{self._decay} clicks"]

    @property
    def _decay(self) -> str:
        return "damped" if self.decay_seconds < 0.012 else "ringing"

    def render(self, random: np.random.Generator) -> np.ndarray:
        from scipy.signal import fftconvolve

        impulses = np.zeros(NUM_SAMPLES)
        times = self._times(random)
        impulses[(times * SAMPLING_RATE).astype(int)] = random.uniform(0.3, 1.0, len(times))
        click_times = TIMES[: int(min(LONGEST_CLICK_SECONDS, 6 * self.decay_seconds) * SAMPLING_RATE)]
        if self.ring_hz is None:
            wave = random.standard_normal(len(click_times))
        else:
            wave = np.sin(2 * np.pi * self.ring_hz * click_times)
        return fftconvolve(impulses, wave * np.exp(-click_times / self.decay_seconds))[:NUM_SAMPLES]

    def _times(self, random: np.random.Generator) -> np.ndarray:
        """In seconds, at least one."""
        gap = 1 / self.rate_hz
        first = random.uniform(0, min(gap, SECONDS))
        if self.is_regular:
            return np.arange(first, SECONDS, gap)
        times = first + np.cumsum(random.exponential(gap, int(2 * SECONDS * self.rate_hz) + 10))
        return np.append(first, times[times < SECONDS])


@dataclass(frozen=True)
class Steady:
    """Always as loud."""

    @property
    def labels(self) -> list[str]:
        return ["steady"]

    def render(self, random: np.random.Generator) -> np.ndarray:
        return np.ones(NUM_SAMPLES)


@dataclass(frozen=True)
class Tremolo:
    """Louder and softer at a rate, down to 1 - `depth`."""

    rate_hz: float
    depth: float

    @property
    def labels(self) -> list[str]:
        return ["tremolo", f"tremolo of rate {_part_of(math.log(self.rate_hz), math.log(0.5), math.log(30), 4)}"]

    def render(self, random: np.random.Generator) -> np.ndarray:
        phase = 2 * np.pi * self.rate_hz * TIMES + random.uniform(0, 2 * np.pi)
        return 1 - self.depth * (1 + np.sin(phase)) / 2


@dataclass(frozen=True)
class Swell:
    """Slowly louder and softer, without a rule."""

    @property
    def labels(self) -> list[str]:
        return ["swell"]

    def render(self, random: np.random.Generator) -> np.ndarray:
        levels_db = 6 * np.cumsum(random.standard_normal(12))
        return 10 ** (np.interp(TIMES, np.linspace(0, SECONDS, 12), levels_db - levels_db.max()) / 20)


@dataclass(frozen=True)
class Bursts:
    """A few bursts in silence: each rises within `attack_seconds` and dies away in `decay_seconds`."""

    count: int
    attack_seconds: float
    decay_seconds: float

    @property
    def labels(self) -> list[str]:
        length = "short" if self.decay_seconds < 0.25 else "long"
        return ["bursts", f"bursts of number {min(4, (self.count + 1) // 2)}", f"{length} bursts"]

    def render(self, random: np.random.Generator) -> np.ndarray:
        envelope = np.zeros(NUM_SAMPLES)
        for start in random.uniform(0, SECONDS - 0.3, self.count):
            since = np.maximum(0, TIMES - start)
            decay = np.exp(-2 * np.maximum(0, since - self.attack_seconds) / self.decay_seconds)
            burst = np.minimum(1, since / self.attack_seconds) * decay
            envelope = np.maximum(envelope, random.uniform(0.4, 1.0) * burst)
        return envelope


@dataclass(frozen=True)
class SyntheticSound:
    """Layers, each a source under an envelope and so many dB below the first, over faint noise.

    Args:
        layers: (source, envelope, dB) of each.
        noise_db: How far the noise is below the layers.
        level_dbfs: RMS of the whole.
        seed: Of all that is random in the samples.
    """

    layers: tuple[tuple[Part, Part, float], ...]
    noise_db: float
    level_dbfs: float
    seed: int

    @property
    def labels(self) -> list[str]:
        """What it is made of, sorted, each once."""
        return sorted({label for source, envelope, _ in self.layers for label in source.labels + envelope.labels})

    def render(self) -> Audio:
        """The sound, 5 s at 16 kHz, clipped where it passes full scale."""
        random = np.random.default_rng(self.seed)
        mixture = np.zeros(NUM_SAMPLES)
        for source, envelope, below_db in self.layers:
            layer = source.render(random) * envelope.render(random)
            mixture += _at_level(layer, -below_db)
        noise = random.standard_normal(NUM_SAMPLES)
        mixture = _at_level(mixture + _at_level(noise, -self.noise_db), self.level_dbfs)
        return {"array": mixture.clip(-1, 1).astype(np.float32), "sampling_rate": SAMPLING_RATE}


def draw_sound(seed: int) -> SyntheticSound:
    """The sound of a seed: one layer, or in two of five cases two."""
    random = np.random.default_rng((seed, 0))
    count = 1 + int(random.random() < 0.4)
    layers = tuple((_draw_source(random), _draw_envelope(random), k * random.uniform(0, 10)) for k in range(count))
    return SyntheticSound(layers, noise_db=random.uniform(15, 70), level_dbfs=random.uniform(-35, -12), seed=seed)


def _draw_source(random: np.random.Generator) -> Part:
    kind = random.choice(["noise", "band", "tone", "clicks"], p=[1 / 6, 1 / 6, 1 / 3, 1 / 3])
    if kind == "noise":
        return ColouredNoise(random.uniform(-2.0, 0.5))
    if kind == "band":
        return BandNoise(_log_uniform(random, 150, 6000), random.uniform(0.3, 4.0))
    if kind == "tone":
        hz, rolloff = _log_uniform(random, 80, 1600), random.uniform(0.5, 2.5)
        motion = random.choice(["flat", "rising", "falling", "vibrato"], p=[0.4, 0.2, 0.2, 0.2])
        if motion == "vibrato":
            return Tone(hz, "vibrato", random.uniform(0.05, 0.3), random.uniform(2, 8), rolloff)
        return Tone(hz, motion, random.uniform(0.3, 1.2), 1 / random.uniform(0.3, 1.5), rolloff)
    ring_hz = _log_uniform(random, 300, 6000) if random.random() < 0.5 else None
    return Clicks(_log_uniform(random, 0.8, 60), random.random() < 0.5, _log_uniform(random, 0.002, 0.08), ring_hz)


def _draw_envelope(random: np.random.Generator) -> Part:
    kind = random.choice(["steady", "tremolo", "bursts", "swell"], p=[0.25, 0.25, 0.35, 0.15])
    if kind == "steady":
        return Steady()
    if kind == "tremolo":
        return Tremolo(_log_uniform(random, 0.5, 30), random.uniform(0.4, 1.0))
    if kind == "swell":
        return Swell()
    decay_seconds = _log_uniform(random, 0.05, 1.2)
    return Bursts(int(random.integers(1, 9)), decay_seconds * random.uniform(0.005, 0.3), decay_seconds)


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(random.uniform(math.log(low), math.log(high))))


def _part_of(value: float, low: float, high: float, parts: int) -> int:
    """In which of so many equal parts of a range the value lies, from 1."""
    return 1 + min(parts - 1, int((value - low) / (high - low) * parts))


def _filtered_noise(random: np.random.Generator, gain_of_hz: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """White noise with a gain for each frequency."""
    return filtered(random.standard_normal(NUM_SAMPLES), SAMPLING_RATE, gain_of_hz)


def filtered(samples: np.ndarray, sampling_rate: int, gain_of_hz: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Samples with a gain for each frequency, which is told in Hz and never 0."""
    hz = np.fft.rfftfreq(len(samples), 1 / sampling_rate) + 1
    return np.fft.irfft(np.fft.rfft(samples) * gain_of_hz(hz), len(samples))


def _at_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """The samples with an RMS of so many dB below 1."""
    return samples * (10 ** (level_db / 20) / max(1e-9, math.sqrt(np.mean(np.square(samples)))))
