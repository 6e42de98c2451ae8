"""Log-mel spectrograms of clips to batches for an Audio Spectrogram Transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import ASTConfig

from ..draws import generator_of
from ..models.ast.tokens_ast import NUM_SPECIAL_TOKENS, patch_mask
from .collators import stack_labels

__all__ = ["SpectrogramCollator"]

# Sets these draws apart from others by the same seed, epoch, clip and occurrence.
_PATCHES = 1


@dataclass(frozen=True)
class SpectrogramCollator:
    """Pads log-mels at their end to the length that the model reads, and stacks their labels.

    Takes clips `{"input_values": (frames, num_mel_bins), "labels": class index | probabilities | absent}`; returns
    `input_values` float32 (batch, max_length, num_mel_bins) and, when given, `labels`: int64 (batch,) or float32
    (batch, classes).

    With `ignore_padding` or `patch_dropout` also `kept_tokens`, int64 (batch, kept tokens): the indices of the tokens
    that the model sees, in order, always with the two special tokens; and `attention_mask`, int64 (batch, kept tokens),
    1 for these and 0 for what fills up shorter rows. The model must have been told to take them (see
    [`hf_audioformer.models.ast.tokens_ast.keep_tokens`]).

    Args:
        config: Of the model.
        padding_value: Of the padding, see `SpectrogramDataset.padding_value`.
        ignore_padding: Leave out the tokens that hold only padding (see `patch_mask`). Released models do see it, and
            so does everything in plain Transformers: a model trained without should be used without.
        patch_dropout: Leave out this share of the patches of each clip, of those with sound if padding is ignored; for
            training only. Which ones depends on (seed, epoch, `clip_index` of the clip and its occurrence) alone.
        seed: Of that draw.

    Raises:
        ValueError: Settings out of range; clips of another form, longer than the model reads, without `clip_index`
            where patches are dropped, labels for some of the clips only.
    """

    config: ASTConfig
    padding_value: float
    ignore_padding: bool = False
    patch_dropout: float = 0.0
    seed: int = 0
    # In shared memory, so that `set_epoch` also reaches worker processes that are running already.
    _epoch: Tensor = field(
        default_factory=lambda: torch.zeros((), dtype=torch.int64).share_memory_(),
        init=False,
        repr=False,
        compare=False,
    )

    def __post_init__(self) -> None:
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(f"patch_dropout is {self.patch_dropout}; it must be at least 0 and below 1")

    def set_epoch(self, epoch: int) -> None:
        """Drop other patches from now on; call it before the epoch's first batch is asked for."""
        self._epoch.fill_(epoch)

    def __call__(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        spectrograms = [torch.as_tensor(clip["input_values"]) for clip in clips]
        self._check(spectrograms)
        shape = (len(clips), self.config.max_length, self.config.num_mel_bins)
        input_values = torch.full(shape, self.padding_value, dtype=torch.float32)
        for row, spectrogram in zip(input_values, spectrograms, strict=True):
            row[: len(spectrogram)] = spectrogram
        batch = {"input_values": input_values} | stack_labels(clips)
        if self.ignore_padding or self.patch_dropout:
            batch |= self._chosen(clips, [len(spectrogram) for spectrogram in spectrograms])
        return batch

    def _chosen(self, clips: Sequence[Mapping[str, Any]], frames: Sequence[int]) -> dict[str, Tensor]:
        """`kept_tokens` and `attention_mask` of clips with so many frames."""
        full = [self.config.max_length] * len(clips)
        seen = patch_mask(frames if self.ignore_padding else full, self.config)
        kept = [row.nonzero().flatten() for row in seen]
        if self.patch_dropout:
            kept = [self._without_dropped(*clip) for clip in zip(kept, clips, range(len(clips)), strict=True)]
        return {
            "kept_tokens": pad_sequence(kept, batch_first=True),
            "attention_mask": pad_sequence([torch.ones_like(tokens) for tokens in kept], batch_first=True),
        }

    def _without_dropped(self, tokens: Tensor, clip: Mapping[str, Any], place: int) -> Tensor:
        """The tokens but `patch_dropout` of the patches, of which at least one stays."""
        if "clip_index" not in clip:
            raise ValueError(f"clip {place} of the batch has no 'clip_index'; the dropped patches are keyed by it")
        random = generator_of(self.seed, int(self._epoch), clip["clip_index"], _PATCHES)
        patches = len(tokens) - NUM_SPECIAL_TOKENS
        staying = np.sort(random.permutation(patches)[: patches - int(self.patch_dropout * patches)])
        return torch.cat([tokens[:NUM_SPECIAL_TOKENS], tokens[NUM_SPECIAL_TOKENS:][staying]])

    def _check(self, spectrograms: Sequence[Tensor]) -> None:
        longest, bands = self.config.max_length, self.config.num_mel_bins
        for place, spectrogram in enumerate(spectrograms):
            if spectrogram.ndim != 2 or spectrogram.shape[1] != bands or not 1 <= len(spectrogram) <= longest:
                raise ValueError(
                    f"clip {place} of the batch has input_values of shape {tuple(spectrogram.shape)}; the model reads "
                    f"(frames, {bands}) with 1 to {longest} frames"
                )
