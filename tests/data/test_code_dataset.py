"""What happens to a clip in an epoch depends on seed, epoch and clip alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hf_audioformer.data.code_dataset import CodeAugmentation, CodeDataset, CodeVersion, frames_of_crop, only_codebooks

CODEBOOK_SIZE = 64
BOA, EOA, MASK = CODEBOOK_SIZE, CODEBOOK_SIZE + 1, CODEBOOK_SIZE + 2


def clip(frames: int, num_codebooks: int | None = None, seed: int = 0) -> np.ndarray:
    """Codes between BOA and EOA; `frames` counts the codes."""
    shape = (frames,) if num_codebooks is None else (frames, num_codebooks)
    codes = np.random.default_rng(seed).integers(CODEBOOK_SIZE, size=shape)
    return np.concatenate((np.full_like(codes[:1], BOA), codes, np.full_like(codes[:1], EOA)))


def items(dataset: CodeDataset, **loader: Any) -> list[dict[str, Any]]:
    return list(DataLoader(dataset, batch_size=None, **loader))


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return all(np.array_equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a)


@pytest.mark.property
@settings(deadline=None)
@given(
    st.integers(1, 60),
    st.sampled_from([None, 1, 3]),
    st.one_of(st.none(), st.integers(1, 70)),
    st.floats(0, 0.99),
    st.integers(0, 5),
    st.integers(0, 1000),
)
def test_crop_and_mask_keep_the_boundaries_and_the_order(
    frames: int, num_codebooks: int | None, crop_frames: int | None, mask_rate: float, epoch: int, index: int
) -> None:
    source = clip(frames, num_codebooks)
    before = source.copy()
    ids = CodeAugmentation(CODEBOOK_SIZE, mask_rate, crop_frames)([CodeVersion(source)], epoch, index).input_ids
    kept = min(frames, crop_frames or frames)
    assert ids.shape == (kept + 2, *source.shape[1:])
    assert ids.dtype == source.dtype
    assert (ids[0] == BOA).all()
    assert (ids[-1] == EOA).all()
    masked = (ids == MASK).reshape(len(ids), -1)
    assert (masked.all(axis=1) == masked.any(axis=1)).all()
    assert masked.all(axis=1).sum() == int(mask_rate * kept)
    stretches = [source[1 + start : 1 + start + kept] for start in range(frames - kept + 1)]
    assert any(((ids[1:-1] == stretch) | (ids[1:-1] == MASK)).all() for stretch in stretches)
    np.testing.assert_array_equal(source, before)


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(2, 5), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 1000))
def test_codebook_dropout_masks_all_codebooks_after_one(num_codebooks: int, dropout: float, index: int) -> None:
    source = clip(9, num_codebooks)
    version = CodeAugmentation(CODEBOOK_SIZE, codebook_dropout=dropout)([CodeVersion(source)], 0, index)
    is_masked = version.input_ids == MASK
    kept = int((~is_masked[1]).sum())
    assert 1 <= kept <= num_codebooks - (dropout == 1)
    assert kept == num_codebooks or dropout > 0
    np.testing.assert_array_equal(is_masked[1:-1], np.arange(num_codebooks) >= np.full((9, 1), kept))
    assert not is_masked[[0, -1]].any()
    np.testing.assert_array_equal(version.input_ids[~is_masked], source[~is_masked])


@pytest.mark.unit
def test_codebook_dropout_is_as_frequent_as_told_and_keeps_the_other_draws() -> None:
    source = [CodeVersion(clip(20, 4))]
    with_dropout = CodeAugmentation(CODEBOOK_SIZE, 0.3, 10, codebook_dropout=0.6)
    without = replace(with_dropout, codebook_dropout=0.0)
    kept = []
    for index in range(400):
        changed, plain = (augment(source, 0, index).input_ids for augment in (with_dropout, without))
        dropped = (changed == MASK) & (plain != MASK)
        kept.append(4 - int(dropped.any(axis=0).sum()))
        np.testing.assert_array_equal(changed[~dropped], plain[~dropped])
    shares = np.bincount(kept, minlength=5) / 400
    assert shares[4] == pytest.approx(0.4, abs=0.08)
    assert shares[1:4] == pytest.approx([0.2] * 3, abs=0.06)


@pytest.mark.fault
@pytest.mark.parametrize("num_codebooks", [None, 1])
def test_codebook_dropout_needs_several_codebooks(num_codebooks: int | None) -> None:
    with pytest.raises(ValueError, match=r"codebook_dropout is 0.5 and a clip has input_ids of shape .* needs several"):
        CodeAugmentation(CODEBOOK_SIZE, codebook_dropout=0.5)([CodeVersion(clip(5, num_codebooks))], 0, 0)


@pytest.mark.unit
def test_companions_go_with_their_version_and_are_missing_where_there_are_none() -> None:
    vectors = [np.full((2, 3), value, dtype=np.float32) for value in (1, 2)]
    whole = clip(9, 3)
    versions = [
        [CodeVersion(clip(9), companions=vectors[0]), CodeVersion(clip(9, seed=1), companions=vectors[1])],
        [CodeVersion(clip(9))],
    ]
    dataset = CodeDataset(versions, augmentation=CodeAugmentation(CODEBOOK_SIZE, crop_frames=4))
    for epoch in range(10):
        dataset.set_epoch(epoch)
        item = dataset[0]
        of_second = bool(np.isin(item["input_ids"][1:-1], versions[0][1].input_ids).all())
        np.testing.assert_array_equal(item["companions"], vectors[int(of_second)])
    assert np.isnan(dataset[1]["companions"]).all()
    assert dataset[1]["companions"].shape == (2, 3)
    assert "companions" not in CodeDataset([[CodeVersion(clip(9))]])[0]
    each_step = CodeDataset(
        [[CodeVersion(clip(9), companion_input_ids=whole)]], augmentation=CodeAugmentation(CODEBOOK_SIZE, 0.5, 4)
    )
    np.testing.assert_array_equal(each_step[0]["companion_input_ids"], whole)


@pytest.mark.fault
def test_companions_of_different_networks_are_refused() -> None:
    versions = [[CodeVersion(clip(9), companions=np.zeros((rows, 3), dtype=np.float32))] for rows in (2, 3)]
    with pytest.raises(ValueError, match=r"different shapes \(num_companions, hidden_size\): \[\(2, 3\), \(3, 3\)\]"):
        CodeDataset(versions)


@pytest.mark.unit
def test_clips_without_boundaries_are_cropped_too() -> None:
    ids = CodeAugmentation(CODEBOOK_SIZE, crop_frames=5)([CodeVersion(clip(20)[1:-1])], 0, 0).input_ids
    assert len(ids) == 5
    assert ids.max() < CODEBOOK_SIZE


@pytest.mark.invariant
def test_draws_are_keyed_by_seed_epoch_and_clip() -> None:
    source = clip(200)
    keys = [(seed, epoch, index) for seed in range(2) for epoch in range(2) for index in range(2)]

    def draw(seed: int, epoch: int, index: int) -> np.ndarray:
        augmentation = CodeAugmentation(CODEBOOK_SIZE, mask_rate=0.3, crop_frames=100, seed=seed)
        return augmentation([CodeVersion(source)], epoch, index).input_ids

    drawn = {draw(*key).tobytes() for key in keys}
    assert len(drawn) == len(keys)
    assert drawn == {draw(*key).tobytes() for key in keys}


@pytest.mark.unit
def test_all_versions_of_a_clip_are_used_in_training_and_only_the_first_elsewhere() -> None:
    versions = [CodeVersion(np.array([BOA, code, EOA])) for code in range(3)]
    trained = CodeDataset([versions], augmentation=CodeAugmentation(CODEBOOK_SIZE))
    seen = set()
    for epoch in range(30):
        trained.set_epoch(epoch)
        seen.add(int(trained[0]["input_ids"][1]))
    assert seen == {0, 1, 2}
    assert CodeDataset([versions])[0]["input_ids"][1] == 0


@pytest.mark.unit
def test_items_hold_index_and_labels_if_there_are_any() -> None:
    assert CodeDataset([[CodeVersion(clip(3))], [CodeVersion(clip(4))]])[1].keys() == {"input_ids", "clip_index"}
    labelled = CodeDataset([[CodeVersion(clip(3))], [CodeVersion(clip(4))]], targets=np.array([5, 7]))
    assert len(labelled) == 2
    assert (labelled[1]["labels"], labelled[1]["clip_index"]) == (7, 1)


@pytest.mark.unit
def test_a_version_with_labels_of_its_own_makes_all_labels_rows() -> None:
    mixed = CodeVersion(clip(3), targets=np.array([0.25, 0.0, 0.75], dtype=np.float32))
    dataset = CodeDataset([[CodeVersion(clip(3))], [mixed]], targets=np.array([1, 2]))
    labels = np.stack([dataset[index]["labels"] for index in range(2)])
    np.testing.assert_array_equal(labels, np.array([[0, 1, 0], [0.25, 0, 0.75]], dtype=np.float32))
    assert labels.dtype == np.float32

    multi_hot = np.array([[1, 1, 0], [0, 0, 1]], dtype=np.float32)
    dataset = CodeDataset([[CodeVersion(clip(3))], [mixed]], targets=multi_hot)
    np.testing.assert_array_equal(dataset[0]["labels"], multi_hot[0])
    np.testing.assert_array_equal(dataset[1]["labels"], mixed.targets)


@pytest.mark.unit
def test_cropping_and_masking_keep_the_labels_of_a_version() -> None:
    targets = np.array([0.5, 0.5], dtype=np.float32)
    augmentation = CodeAugmentation(CODEBOOK_SIZE, mask_rate=0.3, crop_frames=5)
    np.testing.assert_array_equal(augmentation([CodeVersion(clip(20), targets)], 0, 0).targets, targets)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (None, "none"),
        (np.array([0, 5]), r"int64 \(2,\)"),
        (np.zeros((2, 4), dtype=np.float32), r"float32 \(2, 4\)"),
        (np.zeros(2, dtype=np.float32), r"float32 \(2,\)"),
    ],
)
def test_labels_of_versions_and_clips_must_speak_of_the_same_classes(targets: np.ndarray | None, found: str) -> None:
    mixed = CodeVersion(clip(3), targets=np.array([0.5, 0.5, 0.0], dtype=np.float32))
    with pytest.raises(ValueError, match=rf"labels of \[3\] classes and the clips' own are {found}; both must"):
        CodeDataset([[CodeVersion(clip(3))], [mixed]], targets=targets)


@pytest.mark.invariant
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_draw_the_same_and_see_each_epoch(persistent: bool) -> None:
    versions = [[CodeVersion(clip(30 + index, seed=index))] for index in range(8)]
    here, there = (CodeDataset(versions, augmentation=CodeAugmentation(CODEBOOK_SIZE, 0.3, 20)) for _ in range(2))
    workers = DataLoader(there, batch_size=None, num_workers=2, persistent_workers=persistent)
    epochs = []
    for epoch in range(3):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        epochs.append(items(here))
        assert same(epochs[-1], list(workers))
    assert not same(epochs[0], epochs[1])
    assert not same(epochs[1], epochs[2])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_rate": 1.0}, "mask_rate must be at least 0 and below 1, got 1.0"),
        ({"crop_frames": 0}, "crop_frames must be at least 1, got 0"),
        ({"codebook_dropout": 1.5}, r"codebook_dropout must lie in \[0, 1\], got 1.5"),
    ],
)
def test_settings_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodeAugmentation(CODEBOOK_SIZE, **arguments)


@pytest.mark.unit
def test_codebooks_are_cut_out_of_the_versions_that_are_asked_for() -> None:
    ids = [clip(frames, num_codebooks=3) for frames in (5, 7)]
    versions = [CodeVersion(version, companions=np.ones((1, 2))) for version in ids]
    second, first_two = only_codebooks(versions, 1), only_codebooks(versions, slice(2))
    np.testing.assert_array_equal(second[1].input_ids, ids[1][:, 1])
    np.testing.assert_array_equal(first_two[:1][0].input_ids, ids[0][:, :2])
    assert (len(second), len(first_two[:1])) == (2, 1)
    assert second[0].companions is versions[0].companions
    alone = only_codebooks([CodeVersion(clip(5))], 0)
    np.testing.assert_array_equal(alone[0].input_ids, clip(5))
    assert CodeDataset([second, alone]).lengths == [7, 7]


@pytest.mark.unit
def test_labels_of_a_version_count_also_where_codebooks_are_cut_out() -> None:
    mixed = CodeVersion(clip(5, num_codebooks=3), targets=np.array([0.5, 0.5], np.float32))
    versions = [only_codebooks([CodeVersion(clip(5, num_codebooks=3)), mixed], 0) for _ in range(2)]
    np.testing.assert_array_equal(CodeDataset(versions, np.array([0, 1])).targets, np.eye(2))


@pytest.mark.unit
def test_a_crop_has_at_least_a_frame_and_lasts_some_time() -> None:
    assert [frames_of_crop(seconds, 75.0) for seconds in (None, 2.5, 0.001)] == [None, 188, 1]
    for seconds in (0.0, -2.0, float("nan")):
        with pytest.raises(
            ValueError, match=rf"data.crop_seconds is {seconds}; it must be above 0, or null for no crop"
        ):
            frames_of_crop(seconds, 75.0)
