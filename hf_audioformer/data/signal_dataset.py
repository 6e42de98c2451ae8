"""Features of clips for continuous front ends as a data set for the Trainer, with the changed versions that codes have
too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..audio import Audio
from ..audio.augment import AudioAugmentation, AudioChange, apply_change
from ..draws import generator_of
from ..models.audioformer.feature_extraction_signal_audioformer import AudioFormerSignalFeatureExtractor
from ..models.audioformer.waveform_audioformer import leave_parents_threads
from .clip_codes import mixed_targets, partners_of
from .clip_table import ClipTable
from .epoch_dataset import EpochDataset
from .labels import as_rows
from .waveform_cache import WaveformCache

__all__ = ["SignalDataset", "check_draw"]


def check_draw(extractor: AudioFormerSignalFeatureExtractor, crop_seconds: float | None, mask_rate: float) -> None:
    """Whether `SignalDataset.draw` can have these settings.

    Raises:
        ValueError: `mask_rate` is out of range, or set for a waveform, which has no frames; `crop_seconds` is too
            short.
    """
    extractor.limit_samples(crop_seconds)
    if not 0 <= mask_rate < 1 or (mask_rate and not extractor.is_spectral):
        raise ValueError(
            f"mask_rate is {mask_rate}; it must be at least 0 and below 1, and 0 for a waveform, which has no frames "
            "to mask"
        )


class SignalDataset(EpochDataset):
    """Clips as normalised features with their labels; made when they are asked for.

    An item is `{"input_values": float32 (frames, feature_size) or (samples,), "clip_index": int, "labels": if there are
    any}`, not padded; with `start`, in samples, of a stretch that does not begin with its clip. In training, with
    `augmentation`, one of the clip's versions is taken in each epoch: as it is, or one of `augmentation.copies` changed
    ones, which are those that `codes_of_clips` encodes; see `draw` for what more may happen to it. All is drawn by
    (seed, epoch, clip and its occurrence) alone; see `ClipDraw`.

    Args:
        clips: The table that the clips are from.
        indices: Which clips of it.
        extractor: Makes features of waveforms and normalises them.
        waveforms: Holds the sound of the clips, at the extractor's rate.
        targets: Labels of the clips at `indices`, int64 (clips,) or float32 (clips, classes). If `augmentation` mixes
            clips, class indices are given as rows of 0 and 1.
        augmentation: Which versions there are; without it clips are given as they are.
        seed: Of the changes.
    """

    def __init__(
        self,
        clips: ClipTable,
        indices: Sequence[int],
        extractor: AudioFormerSignalFeatureExtractor,
        *,
        waveforms: WaveformCache,
        targets: np.ndarray | None = None,
        augmentation: AudioAugmentation | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.clips = clips
        self.indices = list(indices)
        self.names = [clips.ids[index] for index in self.indices]
        self.extractor = extractor
        self.waveforms = waveforms
        self.augmentation = augmentation
        self.seed = seed
        self.draw()
        mixes = augmentation is not None and augmentation.mixup > 0
        self.targets = as_rows(targets, len(clips.label_names)) if mixes and targets is not None else targets
        self._partners = partners_of(clips, augmentation or AudioAugmentation())
        self._limit = extractor.limit_samples(extractor.max_length_seconds)

    def draw(self, *, crop_seconds: float | None = None, mask_rate: float = 0.0, seed: int = 0) -> None:
        """What happens to clips in training, with `augmentation`: a stretch of `crop_seconds` is cut from longer ones,
        and `mask_rate` of the frames become 0, the mean; drawn, as the version is, by this seed.

        Raises:
            ValueError: As `check_draw`.
        """
        check_draw(self.extractor, crop_seconds, mask_rate)
        self.crop_samples = self.extractor.limit_samples(crop_seconds)
        self.mask_rate = mask_rate
        self.draw_seed = seed

    @property
    def lengths(self) -> list[int]:
        """Samples of each clip as it is."""
        return [self.waveforms.num_samples(index) for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.augmentation is None:
            return self.version(index, 0)
        random = generator_of(self.draw_seed, self.epoch, index)
        item = self.version(index, int(random.integers(self.augmentation.copies + 1)), random)
        frames = len(item["input_values"])
        if self.mask_rate:
            item["input_values"][random.choice(frames, size=int(self.mask_rate * frames), replace=False)] = 0
        return item

    def version(self, index: int, copy: int, random: np.random.Generator | None = None) -> dict[str, Any]:
        """The item of a clip in one version, 0 as it is; a random stretch of it if `random` is given."""
        change, start = self._change(index, copy), 0
        waveform = self._sound(index, change)
        if random is not None and self.crop_samples is not None and len(waveform) > self.crop_samples:
            start = int(random.integers(len(waveform) - self.crop_samples + 1))
            waveform = waveform[start : start + self.crop_samples]
        (features,) = self.extractor.features([waveform])
        item: dict[str, Any] = {"input_values": self.extractor.normalised(features), "clip_index": index}
        if start:
            item["start"] = start
        if self.targets is not None:
            mixed = None if change is None else mixed_targets(self.clips, self.indices[index], change)
            item["labels"] = self.targets[index] if mixed is None else mixed
        return item

    def own_labels_only(self) -> Dataset:
        """Every version that has its clip's own labels as an item of its own, whole and unmasked."""
        copies = 0 if self.augmentation is None else self.augmentation.copies
        versions = [(index, copy) for index in range(len(self)) for copy in range(copies + 1)]
        changes = [self._change(*version) for version in versions]
        own = [
            version
            for version, change in zip(versions, changes, strict=True)
            if change is None or change.partner is None
        ]
        return _Versions(self, own)

    def _change(self, index: int, copy: int) -> AudioChange | None:
        if self.augmentation is None or copy == 0:
            return None
        row = self.indices[index]
        partners = [other for other in self._partners(row) if other in self.waveforms]
        return self.augmentation.draw(self.seed, copy - 1, row, partners)

    def _sound(self, index: int, change: AudioChange | None) -> Tensor:
        """The waveform of a clip, changed, at the extractor's rate and level, cut to its longest clip."""
        sound = self._audio(self.indices[index])
        if change is not None:
            leave_parents_threads()
            partner = None if change.partner is None else self._audio(change.partner)
            sound = apply_change(sound, change, partner, quick_noise=True)
        rate = sound["sampling_rate"]
        shortest = math.ceil(self.extractor.shortest_samples * rate / self.extractor.sampling_rate)
        long_enough = np.pad(sound["array"], (0, max(0, shortest - len(sound["array"]))))
        return self.extractor.waveforms(long_enough, rate)[0][: self._limit]

    def _audio(self, row: int) -> Audio:
        return {"array": self.waveforms[row], "sampling_rate": self.waveforms.sampling_rate}


class _Versions(Dataset):
    """Versions of clips, (clip, copy) each, as items."""

    def __init__(self, dataset: SignalDataset, versions: Sequence[tuple[int, int]]):
        self.dataset = dataset
        self.versions = versions

    def __len__(self) -> int:
        return len(self.versions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset.version(*self.versions[index])
