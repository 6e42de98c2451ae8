"""Log-mel spectrograms of clips as a data set for the Trainer, with augmentation that depends on seed, epoch, clip
and occurrence alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio import Audio
from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..audio.augment import AudioChange, apply_change
from ..audio.fbank import num_frames, samples_of_frames
from ..audio.spectrogram_augment import SpectrogramAugmentation, SpectrogramChange, mix_log_mels, mix_waveforms
from ..models.audioformer.waveform_audioformer import leave_parents_threads, resample
from .clip_table import ClipTable
from .epoch_dataset import EpochDataset
from .labels import as_rows
from .waveform_cache import WaveformCache

__all__ = ["SpectrogramDataset"]


class SpectrogramDataset(EpochDataset):
    """Clips as normalised log-mels with their labels; made when they are asked for: 1 to 8 ms for 5 s.

    An item is `{"input_values": float32 (frames, num_mel_bins), "clip_index": int, "labels": if there are any}`, with
    the frames of the clip, not padded, `extractor.max_length` at most: the first, or in training, with `augmentation`,
    any. `clip_index` counts the clips of this data set.

    Args:
        clips: The table that the clips are from.
        indices: Which clips of it. In training a clip is mixed with these alone.
        extractor: Says how log-mels are made and normalised, and how long they may be.
        targets: Labels of the clips at `indices`, int64 (clips,) or float32 (clips, classes). If `augmentation` mixes
            clips, class indices are given as rows of 0 and 1, and a mixture has the labels lambda * y + (1 - lambda) *
            y' of its two clips: those of one class per clip sum to 1, a class that both clips have counts 1.
        augmentation: Applied anew in each epoch, and each time an epoch has a clip (see `ClipDraw`); not at all if not
            given.
        seed: Of the augmentation.
        waveforms: Holds the sound of the clips, at the extractor's rate.

    Raises:
        ValueError: `waveforms` lacks a clip or has another rate, or labels are not one per clip.
    """

    def __init__(
        self,
        clips: ClipTable,
        indices: Sequence[int],
        extractor: ASTLogMelFeatureExtractor,
        *,
        waveforms: WaveformCache,
        targets: np.ndarray | None = None,
        augmentation: SpectrogramAugmentation | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.indices = list(indices)
        self.names = [clips.ids[index] for index in self.indices]
        self.extractor = extractor
        self.waveforms = waveforms
        self.augmentation = augmentation
        self.seed = seed
        self._check(targets)
        mixes = augmentation is not None and augmentation.mixup > 0
        self.targets = as_rows(targets, len(clips.label_names)) if mixes and targets is not None else targets

    @property
    def lengths(self) -> list[int]:
        """Frames of each clip, as it is."""
        return [min(self.num_frames(index), self.extractor.max_length) for index in range(len(self))]

    @property
    def padding_value(self) -> float:
        """What padding is in normalised log-mels: 0 before normalisation, as released checkpoints know it."""
        return float(self.extractor.normalised(torch.zeros(())))

    def num_frames(self, index: int) -> int:
        """All frames of a clip, also those beyond the extractor's `max_length`."""
        return num_frames(self.waveforms.num_samples(self.indices[index]), self.extractor.sampling_rate)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.augmentation is None:
            input_values, targets = self.part(index, 0), None
        else:
            change = self.augmentation.draw(self.seed, self.epoch, index, len(self))
            input_values = self._changed(self.augmentation, index, change)
            targets = self._mixed_targets(index, change)
        item: dict[str, Any] = {"input_values": input_values, "clip_index": index}
        if self.targets is not None:
            item["labels"] = self.targets[index] if targets is None else targets
        return item

    def part(self, index: int, start: int) -> Tensor:
        """Normalised log-mels of a clip, unchanged, from frame `start` on: float32 (frames, num_mel_bins)."""
        limit = samples_of_frames(start, self.extractor.max_length, self.extractor.sampling_rate)
        return self.extractor.normalised(self._log_mel(self.waveforms[self.indices[index]][limit]))

    def _changed(self, augmentation: SpectrogramAugmentation, index: int, change: SpectrogramChange) -> Tensor:
        """Normalised log-mels of a clip after its change."""
        waveform = self._sound(index, change.sound, change.crop)
        if change.partner is None:
            log_mel = self._log_mel(waveform)
        else:
            partner = self._sound(change.partner, change.partner_sound, change.partner_crop)
            if augmentation.mixup_on == "waveform":
                log_mel = self._log_mel(mix_waveforms(waveform, partner, change.weight))
            else:
                log_mel = mix_log_mels(self._log_mel(waveform), self._log_mel(partner), change.weight)
        return augmentation.disturb(self.extractor.normalised(augmentation.mask(log_mel, change)), change)

    def _sound(self, index: int, change: AudioChange, crop: float) -> np.ndarray:
        """The changed waveform of a clip, or of a part of it that then has `max_length` frames."""
        rate = self.extractor.sampling_rate
        longest = samples_of_frames(0, self.extractor.max_length, rate).stop
        waveform = self.waveforms[self.indices[index]]
        played = math.ceil(longest * (change.speed + 100 / rate))  # speeds are rounded to 100 Hz
        start = int(crop * (max(0, len(waveform) - played) + 1))
        part: Audio = {"array": waveform[start : start + played], "sampling_rate": rate}
        changed = apply_change(part, change, quick_noise=True)
        leave_parents_threads()
        sound = resample(torch.from_numpy(changed["array"]), changed["sampling_rate"], rate).numpy()[:longest]
        shortest = samples_of_frames(0, 1, rate).stop
        return np.pad(sound, (0, max(0, shortest - len(sound))))

    def _mixed_targets(self, index: int, change: SpectrogramChange) -> np.ndarray | None:
        if self.targets is None or change.partner is None:
            return None
        mixed = change.weight * self.targets[index] + (1 - change.weight) * self.targets[change.partner]
        return mixed.astype(np.float32)

    def _log_mel(self, waveform: np.ndarray) -> Tensor:
        (log_mel,) = self.extractor.log_mels(waveform, self.extractor.sampling_rate)
        return log_mel

    def _check(self, targets: np.ndarray | None) -> None:
        if self.waveforms.sampling_rate != self.extractor.sampling_rate:
            raise ValueError(
                f"waveforms are held at {self.waveforms.sampling_rate} Hz and the extractor is for "
                f"{self.extractor.sampling_rate} Hz; both must have one rate"
            )
        missing = [name for name, index in zip(self.names, self.indices, strict=True) if index not in self.waveforms]
        if missing:
            raise ValueError(f"{len(missing)} clips are not in waveforms, first {missing[0]!r}; leave them out")
        if targets is not None and len(targets) != len(self.indices):
            raise ValueError(f"targets has {len(targets)} rows for {len(self.indices)} clips; each clip needs one")
