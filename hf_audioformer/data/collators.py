"""Clips as code sequences to padded batches, and the masking of masked language modelling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..draws import generator_of
from ..models.audioformer.configuration_audioformer import special_token_id

__all__ = [
    "CodeCollator",
    "CompanionCollator",
    "GenerationCollator",
    "MaskedCodeCollator",
    "SignalCollator",
    "stack_labels",
]

IGNORED_LABEL = -100


@dataclass(frozen=True)
class CodeCollator:
    """Pads code sequences on the right and stacks their labels.

    Takes clips `{"input_ids": (frames,) or (frames, codebooks) integers, "labels": class index | multi-hot | float |
    absent}`; returns `input_ids` int64 (batch, frames[, codebooks]), `attention_mask` int64 (batch, frames) and, when
    given, `labels`: int64 (batch,), or float32 (batch,) or (batch, classes).

    Raises:
        ValueError: a clip without frames, clips of different form, labels for some of the clips only.
    """

    pad_token_id: int

    def __call__(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        codes = _codes(clips)
        batch = {
            "input_ids": _pad(codes, self.pad_token_id),
            "attention_mask": _pad([np.ones(len(code), dtype=np.int64) for code in codes], 0),
        }
        return batch | stack_labels(clips)


@dataclass(frozen=True)
class SignalCollator:
    """Pads features of clips on the right with zeros and stacks their labels.

    Takes clips `{"input_values": float32 (frames, features) or (samples,), "labels": as for `CodeCollator`}`; returns
    `input_values` float32 (batch, frames, features) or (batch, samples), `attention_mask` int64 (batch, frames) or
    (batch, samples), and `labels` when given.

    Raises:
        ValueError: labels for some of the clips only.
    """

    def __call__(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        values = [torch.as_tensor(clip["input_values"]) for clip in clips]
        batch = {
            "input_values": torch.nn.utils.rnn.pad_sequence(values, batch_first=True),
            "attention_mask": _pad([np.ones(len(of_clip), dtype=np.int64) for of_clip in values], 0),
        }
        return batch | stack_labels(clips)


@dataclass(frozen=True)
class GenerationCollator:
    """Pads what is heard and, with -100, the codes to generate, which may have another length.

    Takes clips `{"input_ids": (tokens[, codebooks]), "labels": (frames[, codebooks])}`; returns `input_ids` and
    `attention_mask` as `CodeCollator`, and `labels` int64 (batch, frames[, codebooks]). From clips without `input_ids`
    `labels` alone, which is what a model without an encoder learns from.

    Raises:
        ValueError: As `CodeCollator`.
    """

    pad_token_id: int

    def __call__(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        labels = {"labels": _pad([clip["labels"] for clip in clips], IGNORED_LABEL)}
        if "input_ids" not in clips[0]:
            return labels
        return CodeCollator(self.pad_token_id)([{"input_ids": clip["input_ids"]} for clip in clips]) | labels


@dataclass(frozen=True)
class MaskedCodeCollator:
    """Pads code sequences and hides a share of the codes, to be predicted.

    Returns `input_ids` with hidden codes, `attention_mask`, and `labels` = the true code where one was hidden, -100
    elsewhere. Only codes are ever hidden, never the special tokens.

    `rate` of the frames of a clip are hidden, in spans of `span_frames`. A hidden code becomes MASK, a random code, or
    stays, with the probabilities `mask_share`, `random_share` and the rest. Of several codebooks whole frames are
    hidden, or with `per_codebook` other frames in each.

    The draw depends on (seed, epoch, `clip_index` of the clip and its occurrence) alone: not on the batch, the process
    or the worker. The epoch lies in shared memory, so that `set_epoch` also reaches worker processes that are running
    already.

    Raises:
        ValueError: settings out of range; clips as for `CodeCollator`, or without `clip_index`.
    """

    codebook_size: int
    rate: float = 0.25
    span_frames: int = 1
    mask_share: float = 1.0
    random_share: float = 0.0
    per_codebook: bool = False
    seed: int = 0
    _epoch: torch.Tensor = field(
        default_factory=lambda: torch.zeros((), dtype=torch.int64).share_memory_(),
        init=False,
        repr=False,
        compare=False,
    )

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie between 0 and 1, got {self.rate}")
        if self.span_frames < 1:
            raise ValueError(f"span_frames must be at least 1, got {self.span_frames}")
        if min(self.mask_share, self.random_share) < 0 or self.mask_share + self.random_share > 1:
            raise ValueError(
                f"mask_share={self.mask_share} and random_share={self.random_share} must not be negative, nor together "
                "more than 1"
            )

    @property
    def mask_token_id(self) -> int:
        return special_token_id(self.codebook_size, "mask")

    @property
    def pad_token_id(self) -> int:
        return special_token_id(self.codebook_size, "pad")

    def set_epoch(self, epoch: int) -> None:
        """Draw other masks from now on; call it before the epoch's first batch is asked for."""
        self._epoch.fill_(epoch)

    def __call__(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        for position, clip in enumerate(clips):
            if "clip_index" not in clip:
                raise ValueError(f"clip {position} of the batch has no 'clip_index'; the masks are keyed by it")
        masked = [self._mask(ids, clip["clip_index"]) for ids, clip in zip(_codes(clips), clips, strict=True)]
        batch = CodeCollator(self.pad_token_id)([{"input_ids": hidden} for hidden, _ in masked])
        return batch | {"labels": _pad([labels for _, labels in masked], IGNORED_LABEL)}

    def _mask(self, ids: np.ndarray, clip_index: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids with some codes hidden, and the labels, both int64 in the shape of `ids`."""
        random = generator_of(self.seed, int(self._epoch), clip_index)
        hidden = ids.reshape(len(ids), -1).copy()
        labels = np.full_like(hidden, IGNORED_LABEL)
        together = 1 if self.per_codebook else hidden.shape[1]
        for first in range(0, hidden.shape[1], together):
            codebooks = slice(first, first + together)
            self._hide(random, hidden[:, codebooks], labels[:, codebooks])
        return hidden.reshape(ids.shape), labels.reshape(ids.shape)

    def _hide(self, random: np.random.Generator, ids: np.ndarray, labels: np.ndarray) -> None:
        """Hide frames of `ids` (frames, codebooks) and note their codes in `labels`, both in place."""
        frames = self._draw_frames(random, np.flatnonzero((ids < self.codebook_size).all(axis=1)))
        labels[frames] = ids[frames]
        fate = random.random(len(frames))
        noise = random.integers(self.codebook_size, size=(len(frames), ids.shape[1]))
        replaced = (self.mask_share <= fate) & (fate < self.mask_share + self.random_share)
        ids[frames[fate < self.mask_share]] = self.mask_token_id
        ids[frames[replaced]] = noise[replaced]

    def _draw_frames(self, random: np.random.Generator, candidates: np.ndarray) -> np.ndarray:
        """`rate` of the candidates (at least one), as spans that do not overlap, placed uniformly."""
        wanted = max(1, round(self.rate * len(candidates)))
        span = min(self.span_frames, wanted)
        count = min(round(wanted / span), len(candidates) // span)
        starts = np.sort(random.choice(len(candidates) - count * (span - 1), size=count, replace=False))
        starts += np.arange(count) * (span - 1)
        return candidates[(starts[:, None] + np.arange(span)).reshape(-1)]


@dataclass(frozen=True)
class CompanionCollator:
    """Batches of `collator`, with what the contrastive loss compares the clips with.

    From clips with `companions`, float32 (num_companions, hidden_size), come `companions`, float32 (batch,
    num_companions, hidden_size), and `is_present`, bool (batch, num_companions), False for rows of NaN. From clips with
    `companion_input_ids`, (frames, num_codebooks) integers, come `companion_input_ids`, int64 (batch, frames,
    num_codebooks), and `companion_attention_mask`, int64 (batch, frames). `clip_index` is int64 (batch,).

    Raises:
        ValueError: As `collator`.
    """

    collator: CodeCollator | MaskedCodeCollator

    def set_epoch(self, epoch: int) -> None:
        """As `MaskedCodeCollator.set_epoch`."""
        if isinstance(self.collator, MaskedCodeCollator):
            self.collator.set_epoch(epoch)

    def __call__(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.collator(clips) | {"clip_index": torch.tensor([clip["clip_index"] for clip in clips])}
        if "companion_input_ids" in clips[0]:
            pad = CodeCollator(self.collator.pad_token_id)
            whole = pad([{"input_ids": clip["companion_input_ids"]} for clip in clips])
            batch |= {f"companion_{name}": tensor for name, tensor in whole.items()}
        if "companions" in clips[0]:
            companions = torch.from_numpy(np.stack([clip["companions"] for clip in clips]))
            is_missing = companions.isnan().any(dim=-1)
            batch |= {"companions": companions.masked_fill(is_missing[..., None], 0), "is_present": ~is_missing}
        return batch


def _codes(clips: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
    """The checked `input_ids` of the clips as int64 copies."""
    codes = [np.asarray(clip["input_ids"]).astype(np.int64) for clip in clips]
    for position, code in enumerate(codes):
        if code.ndim not in (1, 2) or code.size == 0:
            raise ValueError(
                f"clip {position} of the batch has input_ids of shape {code.shape}; expected (frames,) or "
                "(frames, codebooks), and at least one frame"
            )
        if code.shape[1:] != codes[0].shape[1:]:
            raise ValueError(
                f"clip {position} of the batch has input_ids of shape {code.shape} and clip 0 {codes[0].shape}; "
                "all clips must have the same codebooks"
            )
    return codes


def _pad(sequences: Sequence[np.ndarray], value: int) -> torch.Tensor:
    tensors = [torch.from_numpy(sequence) for sequence in sequences]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def stack_labels(clips: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """The `labels` of clips, if they have any: class indices as int64 (batch,), all else (also integer multi-hot) as
    float32.

    Raises:
        ValueError: Labels for some of the clips only, or of different shapes.
    """
    labelled = ["labels" in clip for clip in clips]
    if not any(labelled):
        return {}
    if not all(labelled):
        raise ValueError(
            f"clip {labelled.index(False)} of the batch has no 'labels' and others have; label all or none"
        )
    tensors = [torch.as_tensor(clip["labels"]) for clip in clips]
    if len({tensor.shape for tensor in tensors}) > 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(f"the labels of the batch have different shapes: {shapes}")
    stacked = torch.stack(tensors)
    is_class_index = stacked.ndim == 1 and not stacked.is_floating_point()
    return {"labels": stacked.to(torch.int64 if is_class_index else torch.float32)}
