"""The versions of a table's clips as codes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from hf_audioformer import read_clips
from hf_audioformer.audio.augment import AudioAugmentation, apply_change
from hf_audioformer.data.clip_codes import check_mixing, codes_of_clips, partners_of
from hf_audioformer.data.splits import SplitArguments, make_splits


@pytest.mark.unit
def test_only_the_named_clips_get_changed_copies(tone_folder: Path, tiny_extractor: Any) -> None:
    clips = read_clips(str(tone_folder))
    augmentation = AudioAugmentation(copies=2)
    versions = codes_of_clips(clips, tiny_extractor, changed=[0, 5], augmentation=augmentation)
    assert {index: len(found) for index, found in versions.items()} == {i: 3 if i in (0, 5) else 1 for i in range(24)}
    assert len({version.input_ids.tobytes() for version in versions[5]}) == 3
    (again,) = codes_of_clips(clips.select([5]), tiny_extractor).values()
    assert (again[0].input_ids == versions[5][0].input_ids).all()


@pytest.mark.unit
def test_mixed_copies_have_the_sound_and_the_labels_of_two_clips_of_one_group(
    tone_csv: Path, tiny_extractor: Any
) -> None:
    clips = read_clips(str(tone_csv))
    folds, targets = clips.column("fold"), clips.targets()
    augmentation = AudioAugmentation(copies=1, mixup=1.0, mixup_within="fold")
    versions = codes_of_clips(clips, tiny_extractor, changed=range(6), augmentation=augmentation, seed=3)
    for index in range(6):
        members = [other for other in range(len(clips)) if folds[other] == folds[index] and other != index]
        change = augmentation.draw(3, 0, index, members)
        assert change.partner is not None
        expected = change.weight * targets[index] + (1 - change.weight) * targets[change.partner]
        np.testing.assert_allclose(versions[index][1].targets, expected, atol=1e-6)
        mixed = apply_change(clips.load(index), change, clips.load(change.partner))
        codes = tiny_extractor([mixed["array"]], sampling_rate=mixed["sampling_rate"])["input_ids"][0]
        np.testing.assert_array_equal(versions[index][1].input_ids, codes)
        assert versions[index][0].targets is None


@pytest.mark.unit
@pytest.mark.timeout(20)
def test_partners_of_many_clips_of_one_group_take_no_memory(tone_folder: Path) -> None:
    """20,000 clips with one value would have 400 million."""
    table = datasets.Dataset.from_dict({"id": list(map(str, range(20_000))), "split": ["train"] * 20_000})
    clips = replace(read_clips(str(tone_folder)), table=table)
    partners = partners_of(clips, AudioAugmentation(copies=1, mixup=0.5, mixup_within="split"))
    assert list(partners(7)) == [*range(7), *range(8, 20_000)]


@pytest.mark.fault
def test_mixing_over_the_border_of_a_split_is_refused(tone_csv: Path) -> None:
    clips = read_clips(str(tone_csv))
    augmentation = AudioAugmentation(copies=1, mixup=0.5, mixup_within="fold")
    by_fold = make_splits(clips, SplitArguments(kind="folds", column="fold", validation_fraction=0))
    check_mixing(clips, by_fold, augmentation)
    check_mixing(clips, make_splits(clips, SplitArguments()), AudioAugmentation())
    with pytest.raises(ValueError, match=r"mixup_within is 'fold', and its value .* lies on both sides of the split"):
        check_mixing(clips, make_splits(clips, SplitArguments()), augmentation)
