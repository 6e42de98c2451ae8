"""Batches of log-mels are padded as the released models know it, and tell which tokens are to be seen."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import ASTConfig

from hf_audioformer.data.spectrogram_collator import SpectrogramCollator
from hf_audioformer.models.ast.tokens_ast import keep_tokens, patch_mask

from ..models.ast.tiny_ast import tiny_ast

# A grid of 3 x 7 patches.
CONFIG = ASTConfig(num_mel_bins=8, max_length=28, patch_size=4, frequency_stride=2, time_stride=4)


def clip(frames: int, index: int = 0, **labels: Any) -> dict[str, Any]:
    return {"input_values": torch.randn(frames, 8), "clip_index": index} | labels


@pytest.mark.unit
def test_clips_are_padded_at_their_end_and_labels_stacked() -> None:
    clips = [clip(28, labels=1), clip(5, labels=0)]
    batch = SpectrogramCollator(CONFIG, 0.47)(clips)
    assert batch.keys() == {"input_values", "labels"}
    assert batch["input_values"].shape == (2, 28, 8)
    assert batch["input_values"].dtype == torch.float32
    assert torch.equal(batch["input_values"][0], clips[0]["input_values"])
    assert torch.equal(batch["input_values"][1, :5], clips[1]["input_values"])
    assert (batch["input_values"][1, 5:] == 0.47).all()
    assert batch["labels"].tolist() == [1, 0]
    assert batch["labels"].dtype == torch.int64
    rows = SpectrogramCollator(CONFIG, 0.47)([clip(3, labels=np.array([0.25, 0.75], dtype=np.float32))])["labels"]
    assert rows.dtype == torch.float32
    assert rows.tolist() == [[0.25, 0.75]]
    assert SpectrogramCollator(CONFIG, 0.47)([clip(3)]).keys() == {"input_values"}


@pytest.mark.unit
def test_tokens_of_padding_are_left_out_and_short_batches_are_short() -> None:
    batch = SpectrogramCollator(CONFIG, 0.0, ignore_padding=True)([clip(9), clip(4)])
    # 9 frames: patches begin at 0, 4 and 8 in each of three rows of seven patches, after two special tokens.
    assert batch["kept_tokens"][0].tolist() == [0, 1, 2, 3, 4, 9, 10, 11, 16, 17, 18]
    assert batch["kept_tokens"][1, :5].tolist() == [0, 1, 2, 9, 16]
    assert batch["attention_mask"].tolist() == [[1] * 11, [1] * 5 + [0] * 6]
    assert batch["kept_tokens"].dtype == batch["attention_mask"].dtype == torch.int64
    assert batch["input_values"].shape == (2, 28, 8)


@pytest.mark.unit
@pytest.mark.parametrize("ignore_padding", [True, False])
def test_a_share_of_the_patches_is_dropped(ignore_padding: bool) -> None:
    collate = SpectrogramCollator(CONFIG, 0.0, ignore_padding=ignore_padding, patch_dropout=0.4)
    frames = [28, 9, 1]
    batch = collate([clip(length, index) for index, length in enumerate(frames)])
    seen = patch_mask(frames if ignore_padding else [28] * 3, CONFIG)
    for tokens, mask, allowed in zip(batch["kept_tokens"], batch["attention_mask"].bool(), seen, strict=True):
        kept = tokens[mask].tolist()
        patches = int(allowed.sum()) - 2
        assert kept[:2] == [0, 1]
        assert kept == sorted(set(kept))
        assert allowed[kept].all()
        assert len(kept) - 2 == patches - int(0.4 * patches)
        assert not mask[len(kept) :].any()


@pytest.mark.unit
def test_every_patch_is_dropped_sometimes_and_alike_often() -> None:
    collate = SpectrogramCollator(CONFIG, 0.0, patch_dropout=0.5)
    kept = collate([clip(28, index) for index in range(600)])["kept_tokens"]
    counts = torch.bincount(kept.flatten(), minlength=23) / 600
    assert counts[:2].tolist() == [1, 1]
    assert counts[2:] == pytest.approx(np.full(21, 11 / 21), abs=0.08)


@pytest.mark.invariant
def test_dropped_patches_depend_on_clip_epoch_and_seed_alone() -> None:
    clips = [clip(28, index) for index in range(6)]

    def kept(batch: list[dict[str, Any]], epoch: int = 0, seed: int = 0) -> list[tuple[int, ...]]:
        collate = SpectrogramCollator(CONFIG, 0.0, patch_dropout=0.5, seed=seed)
        collate.set_epoch(epoch)
        return [tuple(row.tolist()) for row in collate(batch)["kept_tokens"]]

    first = kept(clips)
    assert kept(clips[::-1]) == first[::-1]
    assert kept(clips[2:3]) == first[2:3]
    assert len({*first, *kept(clips, epoch=1), *kept(clips, seed=1)}) == 18


@pytest.mark.invariant
def test_running_workers_see_the_epoch() -> None:
    here, there = (SpectrogramCollator(CONFIG, 0.0, patch_dropout=0.5) for _ in range(2))
    clips = [clip(28, index) for index in range(4)]
    loader = DataLoader(clips, batch_size=2, collate_fn=there, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in range(3):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        seen.append([batch["kept_tokens"].tolist() for batch in loader])
        assert seen[-1] == [here(clips[start : start + 2])["kept_tokens"].tolist() for start in (0, 2)]
    assert seen[0] != seen[1] != seen[2]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (
            [clip(28), clip(29)],
            r"clip 1 of the batch has input_values of shape \(29, 8\); the model reads \(frames, 8\)",
        ),
        ([{"input_values": torch.zeros(5, 9)}], r"shape \(5, 9\)"),
        ([{"input_values": torch.zeros(5)}], r"shape \(5,\)"),
        ([{"input_values": torch.zeros(0, 8)}], r"shape \(0, 8\)"),
        ([{"input_values": torch.zeros(5, 8)}], "clip 0 of the batch has no 'clip_index'"),
        ([clip(5, labels=1), clip(5)], "clip 1 of the batch has no 'labels'"),
    ],
)
def test_refuses_clips_that_do_not_fit(clips: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpectrogramCollator(CONFIG, 0.0, patch_dropout=0.5)(clips)


@pytest.mark.fault
@pytest.mark.parametrize("patch_dropout", [-0.1, 1.0])
def test_settings_out_of_range(patch_dropout: float) -> None:
    with pytest.raises(ValueError, match=rf"patch_dropout is {patch_dropout}; it must be at least 0 and below 1"):
        SpectrogramCollator(CONFIG, 0.0, patch_dropout=patch_dropout)


@pytest.mark.invariant
def test_a_clip_scores_alone_as_beside_longer_ones_and_padding_matters_unless_ignored() -> None:
    model = tiny_ast(num_mel_bins=8, max_length=28, patch_size=4, frequency_stride=2, time_stride=4)
    keep_tokens(model)
    clips = [clip(frames) for frames in (28, 9, 4)]
    for ignore_padding in (True, False):
        scores = []
        for value in (0.0, 2.0):
            collate = SpectrogramCollator(model.config, value, ignore_padding)
            alone = torch.cat([model(**collate([one])).logits for one in clips])
            torch.testing.assert_close(model(**collate(clips)).logits, alone, rtol=0, atol=1e-5)
            scores.append(alone)
        # Of the second clip the last patch that counts ends with padding; the third fills its patches.
        assert torch.equal(scores[0][2], scores[1][2]) is ignore_padding
