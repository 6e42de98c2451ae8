"""Clips in versions, with what the contrastive loss compares each version with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..codes.companions import companion_vectors
from .code_dataset import CodeVersion

if TYPE_CHECKING:
    from ..models.audioformer.modeling_audioformer import AudioFormerModel

__all__ = ["add_companion_codes", "add_companion_vectors", "first_codebooks"]

Versions = Mapping[int, Sequence[CodeVersion]]


def add_companion_vectors(
    versions: Versions,
    clips: Iterable[int],
    networks: Sequence[AudioFormerModel],
    *,
    device: str | torch.device | None = None,
) -> dict[int, list[CodeVersion]]:
    """The versions, those of `clips` with the vectors of their own whole codes; vectors that are there are kept.

    Under `torchrun` or `accelerate launch` each process computes its share and all receive the whole.

    Raises:
        ValueError: A version lacks a codebook that a network reads.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    result = {index: list(of_clip) for index, of_clip in versions.items()}
    state = PartialState()
    places = [
        (index, place)
        for index in sorted(set(clips) & result.keys())
        for place, version in enumerate(result[index])
        if version.companions is None
    ]
    own = places[state.process_index :: state.num_processes]
    vectors = companion_vectors(
        networks,
        [result[index][place].input_ids for index, place in own],
        device,
        description="companions" if places and state.is_main_process else None,
    )
    found = list(zip(own, vectors, strict=True))
    if state.num_processes > 1:
        found = gather_object(found)
    for (index, place), companions in found:
        result[index][place] = replace(result[index][place], companions=companions)
    return result


def add_companion_codes(versions: Versions, clips: Iterable[int]) -> dict[int, list[CodeVersion]]:
    """The versions, those of `clips` with their own whole codes in place of vectors."""
    chosen = set(clips)
    return {
        index: [
            replace(version, companions=None, companion_input_ids=version.input_ids) if index in chosen else version
            for version in of_clip
        ]
        for index, of_clip in versions.items()
    }


def first_codebooks(versions: Versions, num_codebooks: int) -> dict[int, list[CodeVersion]]:
    """The versions with `input_ids` of the first codebooks alone: (frames,) for one, else (frames, num_codebooks)."""

    def cut(version: CodeVersion) -> CodeVersion:
        ids = version.input_ids.reshape(len(version.input_ids), -1)
        return replace(version, input_ids=ids[:, 0] if num_codebooks == 1 else ids[:, :num_codebooks])

    return {index: [cut(version) for version in of_clip] for index, of_clip in versions.items()}
