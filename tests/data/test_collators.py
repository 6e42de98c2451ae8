"""Padding hides nothing, and masks depend on the clip, the epoch and the seed alone."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hf_audioformer.data import CodeCollator, MaskedCodeCollator
from hf_audioformer.data.collators import CompanionCollator

from .. import warm_processes

CODEBOOK_SIZE = 64
MASK, PAD = CODEBOOK_SIZE + 2, CODEBOOK_SIZE + 3


def clip(index: int, frames: int = 40, num_codebooks: int | None = None, special: bool = True) -> dict[str, Any]:
    """Codes between BOA and EOA."""
    shape = (frames,) if num_codebooks is None else (frames, num_codebooks)
    codes = np.random.default_rng(index).integers(CODEBOOK_SIZE, size=shape)
    if special:
        codes[0], codes[-1] = CODEBOOK_SIZE, CODEBOOK_SIZE + 1
    return {"input_ids": codes, "clip_index": index}


@pytest.mark.unit
def test_pads_on_the_right() -> None:
    batch = CodeCollator(PAD)([{"input_ids": [1, 2, 3], "labels": 4}, {"input_ids": np.array([5]), "labels": 6}])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [5, PAD, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [4, 6]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


@pytest.mark.unit
def test_several_codebooks_pad_the_frames() -> None:
    batch = CodeCollator(PAD)([{"input_ids": torch.ones(3, 2, dtype=torch.int32)}, {"input_ids": [[4, 5]]}])
    assert batch["input_ids"].shape == (2, 3, 2)
    assert batch["input_ids"][1].tolist() == [[4, 5], [PAD, PAD], [PAD, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert "labels" not in batch


@pytest.mark.unit
def test_companions_are_stacked_and_rows_of_nan_are_missing() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    vectors[0, 1] = np.nan
    clips = [clip(7) | {"companions": vectors[0]}, clip(4, frames=9) | {"companions": vectors[1]}]
    batch = CompanionCollator(CodeCollator(PAD))(clips)
    plain = CodeCollator(PAD)(clips)
    assert batch.keys() - plain.keys() == {"companions", "is_present", "clip_index"}
    assert torch.equal(batch["input_ids"], plain["input_ids"])
    assert batch["clip_index"].tolist() == [7, 4]
    assert batch["is_present"].tolist() == [[True, False], [True, True]]
    np.testing.assert_array_equal(batch["companions"], np.nan_to_num(vectors))


@pytest.mark.unit
def test_companions_go_with_masked_codes_too() -> None:
    masked = MaskedCodeCollator(CODEBOOK_SIZE)
    clips = [clip(index) | {"companions": np.ones((2, 3), dtype=np.float32)} for index in range(3)]
    collator = CompanionCollator(MaskedCodeCollator(CODEBOOK_SIZE))
    for epoch in range(2):
        masked.set_epoch(epoch)
        collator.set_epoch(epoch)
        batch, plain = collator(clips), masked(clips)
        assert torch.equal(batch["labels"], plain["labels"])
        assert batch["companions"].shape == (3, 2, 3)
    CompanionCollator(CodeCollator(PAD)).set_epoch(1)


@pytest.mark.unit
def test_whole_codes_for_companions_are_padded_apart() -> None:
    whole = [clip(index, frames, num_codebooks=3)["input_ids"] for index, frames in enumerate((30, 12))]
    batch = CompanionCollator(CodeCollator(PAD))(
        [clip(index, 5) | {"companion_input_ids": ids} for index, ids in enumerate(whole)]
    )
    assert batch["input_ids"].shape == (2, 5)
    assert batch["companion_input_ids"].shape == (2, 30, 3)
    assert batch["companion_attention_mask"].sum(dim=1).tolist() == [30, 12]
    np.testing.assert_array_equal(batch["companion_input_ids"][1, :12], whole[1])


@pytest.mark.unit
@pytest.mark.parametrize("labels", [[1, 0, 1], [1.0, 0.0, 1.0], np.array([1, 0, 1]), torch.tensor([1.0, 0.0, 1.0])])
def test_multi_hot_labels_become_float(labels: Any) -> None:
    batch = CodeCollator(PAD)([{"input_ids": [1], "labels": labels}])
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [[1, 0, 1]]


@pytest.mark.unit
def test_regression_targets_stay_float() -> None:
    batch = CodeCollator(PAD)([{"input_ids": [1], "labels": 0.5}, {"input_ids": [1], "labels": 2.0}])
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [0.5, 2.0]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([{"input_ids": [1]}, {"input_ids": []}], r"clip 1 of the batch has input_ids of shape \(0,\)"),
        ([{"input_ids": [1]}, {"input_ids": [[1, 2]]}], r"clip 1 .* \(1, 2\) and clip 0 \(1,\)"),
        ([{"input_ids": [1], "labels": 0}, {"input_ids": [1]}], "clip 1 of the batch has no 'labels'"),
        ([{"input_ids": [1], "labels": 0}, {"input_ids": [1], "labels": [0, 1]}], r"different shapes: \(\), \(2,\)"),
    ],
)
def test_clips_that_do_not_go_together(clips: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodeCollator(PAD)(clips)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(3, 80), min_size=1, max_size=4),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
    st.integers(1, 6),
    st.sampled_from([0.1, 0.25, 0.5]),
)
def test_hides_codes_and_nothing_else(
    lengths: list[int], num_codebooks: int | None, per_codebook: bool, span_frames: int, rate: float
) -> None:
    collate = MaskedCodeCollator(CODEBOOK_SIZE, rate=rate, span_frames=span_frames, per_codebook=per_codebook)
    clips = [clip(index, frames, num_codebooks) for index, frames in enumerate(lengths)]
    plain, batch = CodeCollator(PAD)(clips), collate(clips)
    hidden = batch["labels"] != -100
    assert torch.equal(batch["attention_mask"], plain["attention_mask"])
    assert torch.equal(batch["labels"][hidden], plain["input_ids"][hidden])
    assert torch.equal(batch["input_ids"][~hidden], plain["input_ids"][~hidden])
    assert (batch["input_ids"][hidden] == MASK).all()
    assert (plain["input_ids"][hidden] < CODEBOOK_SIZE).all()
    for row, frames in enumerate(lengths):
        wanted = max(1, round(rate * (frames - 2)))
        count = hidden[row].sum(0)
        assert ((count >= 1) & ((count - wanted).abs() <= min(span_frames, wanted) / 2)).all()
        if num_codebooks is not None and not per_codebook:
            assert (hidden[row].all(1) == hidden[row].any(1)).all()


@pytest.mark.unit
def test_codebooks_can_be_hidden_apart() -> None:
    hidden = MaskedCodeCollator(CODEBOOK_SIZE, per_codebook=True)([clip(0, 100, 2)])["labels"][0] != -100
    assert hidden.sum(0).tolist() == [24, 24]
    assert (hidden[:, 0] != hidden[:, 1]).any()


@pytest.mark.unit
def test_spans_have_their_length() -> None:
    hidden = MaskedCodeCollator(CODEBOOK_SIZE, span_frames=5)([clip(0, 402)])["labels"][0] != -100
    changes = torch.diff(torch.cat([torch.tensor([0]), hidden.int(), torch.tensor([0])])).nonzero().flatten()
    runs = changes[1::2] - changes[::2]
    assert hidden.sum() == 100
    assert (runs % 5 == 0).all()
    assert runs.min() == 5


@pytest.mark.unit
def test_shares_of_masked_random_and_kept_codes() -> None:
    collate = MaskedCodeCollator(CODEBOOK_SIZE, rate=0.5, mask_share=0.8, random_share=0.1)
    source = clip(0, 20_000, special=False)
    batch = collate([source])
    hidden = batch["labels"][0] != -100
    now, before = batch["input_ids"][0][hidden], batch["labels"][0][hidden]
    masked = (now == MASK).float().mean()
    changed = ((now != MASK) & (now != before)).float().mean()
    assert masked == pytest.approx(0.8, abs=0.02)
    assert changed == pytest.approx(0.1 * (1 - 1 / CODEBOOK_SIZE), abs=0.02)
    assert now.max() == MASK
    assert ((now < CODEBOOK_SIZE) | (now == MASK)).all()


@pytest.mark.unit
def test_a_clip_of_special_tokens_has_nothing_to_hide() -> None:
    batch = MaskedCodeCollator(CODEBOOK_SIZE)([{"input_ids": [CODEBOOK_SIZE, CODEBOOK_SIZE + 1], "clip_index": 0}])
    assert (batch["labels"] == -100).all()


@pytest.mark.unit
def test_source_codes_are_left_alone() -> None:
    source = clip(0)
    before = source["input_ids"].copy()
    MaskedCodeCollator(CODEBOOK_SIZE)([source])
    np.testing.assert_array_equal(source["input_ids"], before)


@pytest.mark.invariant
def test_masks_depend_on_clip_epoch_and_seed_alone() -> None:
    collate = MaskedCodeCollator(CODEBOOK_SIZE)
    same = {"input_ids": clip(0)["input_ids"]}
    together = collate([same | {"clip_index": 3}, same | {"clip_index": 4}])["labels"]
    alone = collate([same | {"clip_index": 4}])["labels"]
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(MaskedCodeCollator(CODEBOOK_SIZE, seed=1)([same | {"clip_index": 4}])["labels"], alone)
    collate.set_epoch(1)
    assert not torch.equal(collate([same | {"clip_index": 4}])["labels"], alone)
    collate.set_epoch(0)
    assert torch.equal(collate([same | {"clip_index": 4}])["labels"], alone)


@pytest.mark.invariant
@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_workers_see_the_epoch_and_draw_the_same_masks(start: str) -> None:
    """Persistent workers keep the collator they started with; the epoch must reach them all the same."""
    here, there = MaskedCodeCollator(CODEBOOK_SIZE), MaskedCodeCollator(CODEBOOK_SIZE)
    clips = [clip(index, frames=30 + index) for index in range(12)]
    main = DataLoader(clips, batch_size=4, collate_fn=here)
    workers = DataLoader(
        clips,
        batch_size=4,
        collate_fn=there,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context=warm_processes.server if start == "forkserver" else start,
    )
    seen = []
    for epoch in range(3):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        expected, found = list(main), list(workers)
        for one, other in zip(expected, found, strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)
        seen.append(expected[0]["labels"])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "rate must lie between 0 and 1"),
        ({"span_frames": 0}, "span_frames must be at least 1"),
        ({"mask_share": 0.8, "random_share": 0.3}, "mask_share=0.8 and random_share=0.3"),
    ],
)
def test_settings_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedCodeCollator(CODEBOOK_SIZE, **arguments)


@pytest.mark.fault
def test_masks_need_the_clip_index() -> None:
    with pytest.raises(ValueError, match="clip 0 of the batch has no 'clip_index'"):
        MaskedCodeCollator(CODEBOOK_SIZE)([{"input_ids": [1, 2]}])


@pytest.mark.fault
def test_clips_without_frames_cannot_be_masked() -> None:
    with pytest.raises(ValueError, match=r"clip 0 of the batch has input_ids of shape \(0,\)"):
        MaskedCodeCollator(CODEBOOK_SIZE)([{"input_ids": [], "clip_index": 0}])
