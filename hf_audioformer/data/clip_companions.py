"""Clips in versions, with what the contrastive loss compares each version with.

Versions are changed when they are asked for, so that those of a code store stay on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..codes.companions import companion_vectors
from .code_dataset import ChangedVersions, CodeVersion, only_codebooks

if TYPE_CHECKING:
    from ..models.audioformer.modeling_audioformer import AudioFormerModel

__all__ = ["Versions", "add_companion_codes", "add_companion_vectors", "first_codebooks"]

Versions = Mapping[int, Sequence[CodeVersion]]


def add_companion_vectors(
    versions: Versions,
    clips: Iterable[int],
    networks: Sequence[AudioFormerModel],
    *,
    device: str | torch.device | None = None,
) -> dict[int, Sequence[CodeVersion]]:
    """The versions, those of `clips` with the vectors of their own whole codes; all of these are read for it.

    Under `torchrun` or `accelerate launch` each process computes its share and all receive the whole.

    Raises:
        ValueError: A version lacks a codebook that a network reads.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    result = dict(versions)
    state = PartialState()
    chosen = sorted(set(clips) & result.keys())
    own = [(index, len(result[index])) for index in chosen[state.process_index :: state.num_processes]]
    vectors = companion_vectors(
        networks,
        [version.input_ids for index, _ in own for version in result[index]],
        device,
        description="companions" if chosen and state.is_main_process else None,
    )
    ends = np.cumsum([count for _, count in own], dtype=np.int64)[:-1]
    found = list(zip([index for index, _ in own], np.split(vectors, ends), strict=True)) if own else []
    if state.num_processes > 1:
        found = gather_object(found)
    for index, of_clip in found:
        result[index] = ChangedVersions(result[index], partial(_with_vectors, of_clip))
    return result


def add_companion_codes(versions: Versions, clips: Iterable[int]) -> dict[int, Sequence[CodeVersion]]:
    """The versions, those of `clips` with their own whole codes in place of vectors."""
    chosen = set(clips)
    return {
        index: ChangedVersions(of_clip, _with_whole_codes) if index in chosen else of_clip
        for index, of_clip in versions.items()
    }


def first_codebooks(versions: Versions, num_codebooks: int) -> dict[int, Sequence[CodeVersion]]:
    """The versions with `input_ids` of the first codebooks alone: (frames,) for one, else (frames, num_codebooks)."""
    read = 0 if num_codebooks == 1 else slice(num_codebooks)
    return {index: only_codebooks(of_clip, read) for index, of_clip in versions.items()}


def _with_vectors(vectors: np.ndarray, place: int, version: CodeVersion) -> CodeVersion:
    return replace(version, companions=vectors[place])


def _with_whole_codes(place: int, version: CodeVersion) -> CodeVersion:
    return replace(version, companions=None, companion_input_ids=version.input_ids)
