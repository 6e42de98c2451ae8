"""The codes of a table's clips, each clip in one or several versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..audio import Audio
from ..audio.augment import AudioAugmentation, apply_change
from ..codes import encode_clips
from ..codes.store import ROW_COLUMN
from ..models.audioformer.feature_extraction_audioformer import AudioFormerFeatureExtractor
from ..models.audioformer.modeling_audioformer import AudioFormerModel
from .clip_table import ClipTable
from .code_dataset import CodeVersion

__all__ = ["codes_of_clips", "version_loader"]


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
    for copy in range(1, augmentation.copies + 1):
        load_copy = version_loader(clips, augmentation, seed, copy)

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
            versions[readable[position]].append(CodeVersion(ids))
    return versions


def version_loader(
    clips: ClipTable, augmentation: AudioAugmentation | None, seed: int, copy: int
) -> Callable[[int], Audio]:
    """Gives clip `index` as it is for copy 0, otherwise as its changed copy 1, 2, ..."""
    if augmentation is None or copy == 0:
        return clips.load
    return lambda index: apply_change(clips.load(index), augmentation.draw(seed, copy - 1, index))
