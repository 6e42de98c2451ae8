"""The codes of a table's clips, each clip in one or several versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..audio import Audio
from ..audio.augment import AudioAugmentation, AudioChange, apply_change
from ..codes import encode_clips
from ..codes.store import ROW_COLUMN
from ..models.audioformer.feature_extraction_audioformer import AudioFormerFeatureExtractor
from ..models.audioformer.modeling_audioformer import AudioFormerModel
from .clip_table import ClipTable
from .code_dataset import CodeVersion
from .splits import Split

__all__ = ["check_mixing", "codes_of_clips", "mixed_targets", "partners_of", "version_loader"]

# A clip to those that it may be mixed with; made when asked for, since all of them grow with the square of the clips.
Partners = Callable[[int], Sequence[int]]


def codes_of_clips(
    clips: ClipTable,
    extractor: AudioFormerFeatureExtractor,
    *,
    changed: Sequence[int] = (),
    augmentation: AudioAugmentation | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    device: str | torch.device | None = None,
    companions: Sequence[AudioFormerModel] = (),
) -> Mapping[int, Sequence[CodeVersion]]:
    """Versions of each clip that can be read, by its index: first as it is, then `augmentation.copies` changed ones.

    Clips of a code store come from there, each version when it is asked for; others are encoded now.

    Args:
        changed: The clips that get changed versions; training clips only, since no other is ever heard changed.
        augmentation: How they are changed; not at all if not given.
        seed: Of the changes.
        skip_bad, device: As for `encode_clips`.
        companions: Networks whose vectors a code store may have; versions from there then have them.

    Raises:
        ValueError: As `encode_clips`, or a code store does not fit the extractor or the augmentation.
    """
    if clips.codes is not None:
        return clips.codes.versions(clips.column(ROW_COLUMN), extractor, changed, augmentation, seed, companions)
    encoded = encode_clips(clips.load, clips.ids, extractor, skip_bad=skip_bad, device=device)
    versions = {index: [CodeVersion(ids)] for index, ids in encoded.input_ids.items()}
    if augmentation is None:
        return versions
    readable = sorted(set(changed) & versions.keys())
    partners = partners_of(clips, augmentation)
    for copy in range(1, augmentation.copies + 1):
        load_copy = version_loader(clips, augmentation, seed, copy, partners)

        def load_readable(position: int, load: Callable[[int], Audio] = load_copy) -> Audio:
            return load(readable[position])

        again = encode_clips(
            load_readable,
            [clips.ids[index] for index in readable],
            extractor,
            skip_bad=skip_bad,
            device=device,
            description=f"encode changed copy {copy}",
        )
        for position, ids in again.input_ids.items():
            index = readable[position]
            change = augmentation.draw(seed, copy - 1, index, partners(index))
            versions[index].append(CodeVersion(ids, targets=mixed_targets(clips, index, change)))
    return versions


def version_loader(
    clips: ClipTable,
    augmentation: AudioAugmentation | None,
    seed: int,
    copy: int,
    partners: Partners = lambda index: [],
) -> Callable[[int], Audio]:
    """Gives clip `index` as it is for copy 0, otherwise as its changed copy 1, 2, ..., mixed with one of its partners
    where the augmentation says so."""
    if augmentation is None or copy == 0:
        return clips.load

    def load(index: int) -> Audio:
        change = augmentation.draw(seed, copy - 1, index, partners(index))
        partner = None if change.partner is None else clips.load(change.partner)
        return apply_change(clips.load(index), change, partner)

    return load


def check_mixing(clips: ClipTable, splits: Sequence[Split], augmentation: AudioAugmentation) -> None:
    """Raises a ValueError if a training clip could be mixed with one of the validation or test part of its split."""
    if augmentation.mixup_within is None:
        return
    values = clips.column(augmentation.mixup_within)
    for split in splits:
        shared = {values[index] for index in split.train} & {values[i] for i in (*split.validation, *split.test)}
        if shared:
            raise ValueError(
                f"augmentation.mixup_within is {augmentation.mixup_within!r}, and its value {min(shared)!r} lies on "
                f"both sides of the split {split.name!r}: training clips would hear tested ones. Name the column that "
                "splits them, or the one that split.group_column keeps together."
            )


def partners_of(clips: ClipTable, augmentation: AudioAugmentation) -> Partners:
    """Gives for a clip those that it may be mixed with: the others that have its value of the column `mixup_within`."""
    if augmentation.mixup_within is None:
        return lambda index: []
    values = clips.column(augmentation.mixup_within)
    members: dict[Any, list[int]] = {}
    for index, value in enumerate(values):
        members.setdefault(value, []).append(index)
    return lambda index: [other for other in members[values[index]] if other != index]


def mixed_targets(clips: ClipTable, index: int, change: AudioChange) -> np.ndarray | None:
    """The labels of a mixture, float32 (classes,), by the shares of its two clips; None for a clip alone."""
    if change.partner is None:
        return None
    targets = clips.targets([index, change.partner])
    if targets.ndim == 1:
        targets = np.eye(len(clips.label_names), dtype=np.float32)[targets]
    return change.weight * targets[0] + np.float32(1 - change.weight) * targets[1]
