"""Changes of a clip that the Audio Spectrogram Transformer hears in training: of its sound and of its log-mels; drawn,
then applied."""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..draws import generator_of
from .augment import AudioChange

__all__ = ["SpectrogramAugmentation", "SpectrogramChange", "mix_log_mels", "mix_waveforms"]

# The largest share of the frames, or of the mel bands, that one mask hides.
LARGEST_MASKED_SHARE = 0.5


@dataclass(frozen=True)
class SpectrogramChange:
    """What was drawn for a clip in an epoch. Shares in [0, 1) tell how far along the range of what is possible.

    Args:
        sound, partner_sound: What happens to the waveforms of the clip and of its partner.
        crop, partner_crop: Where parts are cut from those that are too long, as a share.
        partner: The clip mixed in, if any.
        weight: Share of the clip itself in the mixture.
        frequency_masks, time_masks: (width, start) of each mask, as shares.
        noise_level: Amplitude of the noise on the normalised log-mels.
        noise_seed: Seed of that noise.
        roll: Frames that the log-mels are rolled by.
    """

    sound: AudioChange
    crop: float
    partner: int | None
    partner_sound: AudioChange
    partner_crop: float
    weight: float
    noise_level: float
    noise_seed: int
    roll: int
    frequency_masks: tuple[tuple[float, float], ...]
    time_masks: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class SpectrogramAugmentation:
    """How training clips are changed each time they are heard; by default not at all.

    In this order: a part is cut from a clip that is too long, and its sound is shifted, made noisy, amplified and
    played at another speed; another training clip, changed by draws of its own, is mixed in; log-mels are made, or
    mixed now; bands and frames are masked; the log-mels are normalised; noise is added to them and they are rolled.

    All is drawn by (seed, epoch, clip) alone. What is not in the official recipe of AST: masks hide at most half of
    the clip's own frames and none of the padding, and the roll is within the clip's own frames too.

    Raises:
        ValueError: A range whose ends are swapped, or a value out of range.

    Source: `AudiosetDataset` in src/dataloader.py of github.com/YuanGongND/ast.
    """

    frequency_mask: float = field(
        default=0.0,
        metadata={"help": "mel bands masked, from 0 to below this many, or, if below 1, this share; at most half"},
    )
    time_mask: float = field(
        default=0.0,
        metadata={
            "help": "frames of 10 ms masked, from 0 to below this many, or, if below 1, this share of the clip; "
            "at most half"
        },
    )
    num_masks: int = field(default=1, metadata={"help": "masks of each of the two kinds"})
    mixup: float = field(
        default=0.0, metadata={"help": "probability that another training clip is mixed in; labels are mixed alike"}
    )
    mixup_on: Literal["waveform", "spectrogram"] = field(
        default="waveform", metadata={"help": "what is mixed: the sound, as AST does, or its log-mels"}
    )
    mixup_concentration: float = field(
        default=10.0, metadata={"help": "shares are drawn from Beta(c, c): the larger, the closer to one half"}
    )
    spectrogram_noise: float = field(
        default=0.0, metadata={"help": "largest amplitude of noise on normalised log-mels; 0.1 for Speech Commands"}
    )
    roll_frames: int = field(
        default=0, metadata={"help": "frames of 10 ms that log-mels are rolled by at most; 10 for Speech Commands"}
    )
    gain_db: tuple[float, float] = field(default=(0.0, 0.0), metadata={"help": "range of gains in dB"})
    speed: tuple[float, float] = field(
        default=(1.0, 1.0), metadata={"help": "range of playing speeds; pitch goes with it"}
    )
    shift: float = field(
        default=0.0, metadata={"help": "largest share of its length by which a clip is rolled in time, in [0, 1]"}
    )
    noise_snr_db: tuple[float, float] | None = field(
        default=None,
        metadata={"help": "range of signal-to-noise ratios in dB of noise in the sound; none if null"},
    )
    patch_dropout: float = field(
        default=0.0, metadata={"help": "share of the patches of each clip that the model does not see, in [0, 1)"}
    )

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, tuple) and not value[0] <= value[1]:  # nor is NaN a number
                raise ValueError(f"{name} is {value}; it must be two numbers, the lower end first")
        for name in ("shift", "mixup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        for name in ("frequency_mask", "time_mask", "spectrogram_noise", "roll_frames"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("frequency_mask", "time_mask"):
            if getattr(self, name) == 1:
                raise ValueError(
                    f"{name} is 1; masks from 0 to below 1 frame or band hide nothing. Set 0 for none, at least 2, or "
                    "a share below 1"
                )
        if self.num_masks < 1:
            raise ValueError(f"num_masks is {self.num_masks}; it must be at least 1")
        if self.mixup_concentration <= 0:
            raise ValueError(f"mixup_concentration is {self.mixup_concentration}; it must be positive")
        if self.speed[0] <= 0:
            raise ValueError(f"speed is {self.speed}; speeds must be positive")
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(f"patch_dropout is {self.patch_dropout}; it must be at least 0 and below 1")

    def draw(self, seed: int, epoch: int, clip_index: int, num_clips: int) -> SpectrogramChange:
        """The change of a clip in an epoch; partners are any of `num_clips`, also itself, as in the official code."""
        random = generator_of(seed, epoch, clip_index)
        is_mixed = random.random() < self.mixup
        partner = int(random.integers(num_clips))
        weight = random.beta(self.mixup_concentration, self.mixup_concentration)
        return SpectrogramChange(
            sound=self._draw_sound(random),
            crop=random.random(),
            partner=partner if is_mixed else None,
            partner_sound=self._draw_sound(random),
            partner_crop=random.random(),
            weight=weight if is_mixed else 1.0,
            noise_level=random.random() * self.spectrogram_noise,
            noise_seed=int(random.integers(2**31)),
            roll=int(random.integers(-self.roll_frames, self.roll_frames + 1)),
            frequency_masks=_draw_masks(random, self.num_masks),
            time_masks=_draw_masks(random, self.num_masks),
        )

    def mask(self, log_mel: Tensor, change: SpectrogramChange) -> Tensor:
        """Log-mels (frames, num_mel_bins), not normalised, with the drawn bands and frames 0.

        Of a mask's width the largest value is never reached, as in torchaudio's FrequencyMasking and TimeMasking.
        """
        masked = log_mel.clone()
        for width, start in change.frequency_masks:
            masked[:, self._masked(masked.shape[1], self.frequency_mask, width, start)] = 0
        for width, start in change.time_masks:
            masked[self._masked(masked.shape[0], self.time_mask, width, start)] = 0
        return masked

    def _masked(self, size: int, largest: float, width: float, start: float) -> slice:
        """What a mask hides of `size` frames or bands, of which all masks together leave half."""
        most = int(size * LARGEST_MASKED_SHARE / self.num_masks)
        exact_width = width * min(largest if largest >= 1 else largest * size, most)
        first = int(start * (size - exact_width))
        return slice(first, first + int(exact_width))

    def disturb(self, input_values: Tensor, change: SpectrogramChange) -> Tensor:
        """Normalised log-mels (frames, num_mel_bins) with the drawn noise, uniform from 0 to its level, and rolled."""
        if change.noise_level:
            generator = torch.Generator().manual_seed(change.noise_seed)
            noise = torch.rand(input_values.shape, generator=generator)
            input_values = input_values + change.noise_level * noise
        return input_values.roll(change.roll, dims=0) if change.roll else input_values

    def _draw_sound(self, random: np.random.Generator) -> AudioChange:
        snr_db = random.uniform(*(self.noise_snr_db or (0.0, 0.0)))
        return AudioChange(
            speed=random.uniform(*self.speed),
            gain_db=random.uniform(*self.gain_db),
            noise_snr_db=math.inf if self.noise_snr_db is None else snr_db,
            noise_tilt=random.uniform(0.0, 1.0),
            noise_seed=int(random.integers(2**31)),
            shift=random.uniform(-self.shift, self.shift),
        )


def mix_waveforms(waveform: np.ndarray, partner: np.ndarray, weight: float) -> np.ndarray:
    """`weight` of a waveform and the rest of its partner, both without their means; float32, as long as `waveform`.

    A partner that is longer is cut, a shorter one followed by zeros; the mixture loses its mean as well.

    Source: `_wav2fbank` in src/dataloader.py of github.com/YuanGongND/ast.
    """
    other = np.zeros_like(waveform)
    other[: len(partner)] = (partner - partner.mean())[: len(waveform)]
    mixed = weight * (waveform - waveform.mean()) + (1 - weight) * other
    return (mixed - mixed.mean()).astype(np.float32)


def mix_log_mels(log_mel: Tensor, partner: Tensor, weight: float) -> Tensor:
    """`weight` of log-mels (frames, num_mel_bins) and the rest of their partner's; frames that it lacks stay as they
    are."""
    mixed = log_mel.clone()
    shared = min(len(log_mel), len(partner))
    mixed[:shared] = weight * log_mel[:shared] + (1 - weight) * partner[:shared]
    return mixed


def _draw_masks(random: np.random.Generator, count: int) -> tuple[tuple[float, float], ...]:
    return tuple((width, start) for width, start in random.random((count, 2)).tolist())
