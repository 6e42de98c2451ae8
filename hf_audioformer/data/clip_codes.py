"""The codes of a table's clips, each clip in one or several versions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..audio import Audio
from ..audio.augment import AudioAugmentation, apply_change
from ..codes import encode_clips
from ..models.audioformer.feature_extraction_audioformer import AudioFormerFeatureExtractor
from .clip_table import ClipTable
from .code_dataset import CodeVersion

__all__ = ["codes_of_clips"]


def codes_of_clips(
    clips: ClipTable,
    extractor: AudioFormerFeatureExtractor,
    *,
    changed: Sequence[int] = (),
    augmentation: AudioAugmentation | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    device: str | torch.device | None = None,
) -> dict[int, list[CodeVersion]]:
    """Versions of each clip that can be read, by its index: first as it is, then `augmentation.copies` changed ones.

    Args:
        changed: The clips that get changed versions; training clips only, since no other is ever heard changed.
        augmentation: How they are changed; not at all if not given.
        seed: Of the changes.
        skip_bad, device: As for `encode_clips`.

    Raises:
        ValueError: As `encode_clips`.
    """
    encoded = encode_clips(clips.load, clips.ids, extractor, skip_bad=skip_bad, device=device)
    versions = {index: [CodeVersion(ids)] for index, ids in encoded.input_ids.items()}
    if augmentation is None:
        return versions
    readable = sorted(set(changed) & versions.keys())
    for copy in range(augmentation.copies):

        def load_changed(position: int, copy: int = copy) -> Audio:
            index = readable[position]
            return apply_change(clips.load(index), augmentation.draw(seed, copy, index))

        again = encode_clips(
            load_changed,
            [clips.ids[index] for index in readable],
            extractor,
            skip_bad=skip_bad,
            device=device,
            description=f"encode changed copy {copy + 1}",
        )
        for position, ids in again.input_ids.items():
            versions[readable[position]].append(CodeVersion(ids))
    return versions
