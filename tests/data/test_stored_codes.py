"""Clips of a code store in place of clips with sound: the same codes, and refusals where they would be others."""

import copy
import pickle
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import EncodecModel

from hf_audioformer import AudioFormerFeatureExtractor, read_clips
from hf_audioformer.audio.augment import AudioAugmentation
from hf_audioformer.codes.store import (
    CodeRow,
    StorePlan,
    code_settings,
    write_manifest,
    write_plan,
    write_report,
    write_shard,
)
from hf_audioformer.data.clip_codes import codes_of_clips, version_loader
from hf_audioformer.data.code_dataset import CodeDataset

AUGMENTATION = AudioAugmentation(copies=2)
MISSING = (5, 1)  # a clip's copy that could not be encoded


@pytest.fixture(scope="module")
def store(tone_csv: Path, tiny_extractor: AudioFormerFeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four codebooks of the mixed tones with two changed copies, but one; not to be changed."""
    clips = read_clips(tone_csv)
    folder = tmp_path_factory.mktemp("store")
    bare = copy.copy(tiny_extractor)
    bare.num_codebooks, bare.add_boundary_tokens = 4, False
    plan = StorePlan(
        source=str(tone_csv),
        clips=len(clips),
        clips_sha256="0",
        label_names=list(clips.label_names),
        multi_label=True,
        codec=str(bare.codec),
        codec_revision=None,
        settings=code_settings(bare),
        num_codebooks=4,
        augmentation={name: list(v) if isinstance(v, tuple) else v for name, v in asdict(AUGMENTATION).items()},
        seed=0,
        companions={"c2": "0"},
        companion_size=3,
        shard_clips=10,
    )
    write_plan(folder, plan)
    for shard in range(plan.num_shards):
        rows = []
        for index in plan.clips_of(shard):
            for number in range(3):
                audio = version_loader(clips, AUGMENTATION, 0, number)(index)
                codes = bare(audio["array"], sampling_rate=audio["sampling_rate"])["input_ids"][0]
                if (index, number) != MISSING:
                    rows.append(CodeRow(index, number, codes, np.full((1, 3), index + number, dtype=np.float32)))
        columns = clips.table.select_columns(["id", "labels", "fold"]).select(plan.clips_of(shard))
        write_shard(folder, plan, shard, columns, rows, [])
    write_report(folder, [])
    write_manifest(folder, plan, "cpu", [])
    return str(folder)


@pytest.mark.unit
def test_clips_have_their_labels_and_columns(store: str, tone_csv: Path) -> None:
    stored, original = read_clips(store), read_clips(tone_csv)
    assert stored.ids == original.ids
    assert (stored.label_names, stored.multi_label) == (original.label_names, True)
    np.testing.assert_array_equal(stored.targets(), original.targets())
    assert stored.column("fold") == original.column("fold")
    assert not {"codes", "copy", "length", "companions"} & set(stored.table.column_names)
    names = ["middle", "low", "high"]
    np.testing.assert_array_equal(read_clips(store, label_names=names).targets()[:, 0], original.targets()[:, 2])


@pytest.mark.fault
def test_the_path_of_a_store_is_no_pattern(store: str, tmp_path: Path) -> None:
    """A store in `runs[1]` is not that in `runs1`, whose shards are in another order."""
    for name in ("runs1", "runs[1]"):
        shutil.copytree(store, tmp_path / name)
    first, second, _ = sorted((tmp_path / "runs1" / "data").iterdir())
    second.replace(first)
    shutil.copy(first, second)
    assert read_clips(str(tmp_path / "runs[1]")).ids == read_clips(store).ids


@pytest.mark.invariant
@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_codes_are_those_of_the_sound(num_codebooks: int, store: str, tone_csv: Path, tiny_codec: str) -> None:
    """For training clips with their changed copies, as far as they are there; otherwise as the clip is."""
    extractor = AudioFormerFeatureExtractor.from_codec(tiny_codec, num_codebooks=num_codebooks)
    found, expected = (
        codes_of_clips(read_clips(source), extractor, changed=range(12), augmentation=AUGMENTATION)
        for source in (store, tone_csv)
    )
    expected[MISSING[0]].pop(MISSING[1])
    assert list(found) == list(expected) == list(range(24))
    for index, versions in expected.items():
        assert len(found[index]) == len(versions) == (1 if index >= 12 else 2 if index == MISSING[0] else 3)
        for stored, version in zip(found[index], versions, strict=True):
            np.testing.assert_array_equal(stored.input_ids, version.input_ids)
            assert stored.input_ids.dtype == np.int64


@pytest.mark.invariant
def test_shorter_clips_are_those_of_the_sound(store: str, tone_csv: Path, tiny_codec: str) -> None:
    """Cut after the level was set, with changed copies, at a whole number of frames."""
    extractor = AudioFormerFeatureExtractor.from_codec(tiny_codec, num_codebooks=2, max_length_seconds=0.2)
    settings = {"changed": range(12), "augmentation": AUGMENTATION}
    found, expected = (codes_of_clips(read_clips(source), extractor, **settings) for source in (store, tone_csv))
    expected[MISSING[0]].pop(MISSING[1])
    for index, versions in expected.items():
        assert found[index].length == found[index][:1].length == len(versions[0].input_ids) == 2 + 15
        for stored, version in zip(found[index], versions, strict=True):
            np.testing.assert_array_equal(stored.input_ids, version.input_ids)


@pytest.mark.fault
@pytest.mark.parametrize("seconds", [0.201, 0.02], ids=["part of a frame", "mirrors what is cut off"])
def test_lengths_at_which_codes_are_others_are_refused(seconds: float, store: str, tiny_codec: str) -> None:
    extractor = AudioFormerFeatureExtractor.from_codec(tiny_codec, num_codebooks=2, max_length_seconds=seconds)
    with pytest.raises(ValueError, match=rf"with max_length_seconds None, .* extractor has {seconds} "):
        codes_of_clips(read_clips(store), extractor)


@pytest.mark.unit
def test_versions_are_a_sequence_that_reads_when_asked(
    store: str, tiny_extractor: AudioFormerFeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = read_clips(store)
    whole = codes_of_clips(clips, tiny_extractor, changed=[3], augmentation=AUGMENTATION)
    versions = whole[3]
    (chosen,) = codes_of_clips(clips.select([3]), tiny_extractor).values()
    np.testing.assert_array_equal(chosen[0].input_ids, versions[0].input_ids)
    np.testing.assert_array_equal(versions[-1].input_ids, versions[2].input_ids)
    assert (len(versions[:2]), versions[:2].length) == (2, versions.length)
    assert [len(version.input_ids) for version in versions[1:]] == [len(versions[i].input_ids) for i in (1, 2)]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(versions))[1].input_ids, versions[1].input_ids)
    with pytest.raises(IndexError, match="version 3 of a clip that has 3"):
        versions[3]
    with pytest.raises(KeyError):
        whole[24]
    expected = [len(of_clip[0].input_ids) for of_clip in whole.values()]
    dataset = CodeDataset(list(whole.values()))
    monkeypatch.setattr(type(versions), "__getitem__", None)
    assert dataset.lengths == expected


@pytest.mark.fault
def test_a_codec_or_settings_of_another_kind_are_refused(
    store: str, tiny_extractor: AudioFormerFeatureExtractor, tmp_path: Path
) -> None:
    clips, other = read_clips(store), copy.copy(tiny_extractor)
    other.rms_level_dbfs = -20.0
    with pytest.raises(ValueError, match=r"encoded with rms_level_dbfs None, .* extractor has -20.0 .* encode again"):
        codes_of_clips(clips, other)
    model = EncodecModel.from_pretrained(tiny_extractor.codec)
    model.quantizer.layers[0].codebook.embed[0, 0] += 1
    model.save_pretrained(tmp_path)
    another_codec = AudioFormerFeatureExtractor.from_codec(tmp_path, num_codebooks=2)
    with pytest.raises(ValueError, match=r"codec_sha256 '[0-9a-f]{64}', .* extractor has '[0-9a-f]{64}'"):
        codes_of_clips(clips, another_codec)
    more = AudioFormerFeatureExtractor.from_codec(tiny_extractor.codec, num_codebooks=5)
    with pytest.raises(ValueError, match="has 4 codebooks, the checkpoint's feature extractor reads 5"):
        codes_of_clips(clips, more)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"copies": 3}, "augmentation.copies 2, and 3 is asked for"),
        ({"speed": (0.5, 1.0)}, r"augmentation.speed \[0.85, 1.2\], and \[0.5, 1.0\] is asked for"),
    ],
)
def test_copies_of_another_kind_are_refused(
    change: dict[str, Any], message: str, store: str, tiny_extractor: AudioFormerFeatureExtractor
) -> None:
    with pytest.raises(ValueError, match=message):
        codes_of_clips(read_clips(store), tiny_extractor, augmentation=replace(AUGMENTATION, **change))


@pytest.mark.unit
def test_copies_drawn_with_another_seed_are_told(
    store: str, tiny_extractor: AudioFormerFeatureExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    versions = codes_of_clips(read_clips(store), tiny_extractor, changed=[0], augmentation=AUGMENTATION, seed=1)
    assert len(versions[0]) == 3
    assert caplog.messages == [f"the changed copies in {store} were drawn with seed 0, not 1"]
    caplog.clear()
    fewer = replace(AUGMENTATION, copies=0, speed=(0.5, 1.0))
    assert len(codes_of_clips(read_clips(store), tiny_extractor, changed=[0], augmentation=fewer, seed=1)[0]) == 1
    assert caplog.messages == []


@pytest.mark.fault
def test_sound_is_asked_of_the_source(store: str, tone_csv: Path) -> None:
    with pytest.raises(ValueError, match=r"clip '0.wav' comes from the code store .*; give '.*clips.csv'"):
        read_clips(store).load(0)


@pytest.mark.fault
def test_unfinished_and_incomplete_stores_are_refused(store: str, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy")
    (tmp_path / "copy" / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-00001-of-00003.parquet is missing; the manifest .* names it"):
        read_clips(tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="is a code store that is not finished"):
        read_clips(tmp_path / "copy")
