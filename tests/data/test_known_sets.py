"""The known sets have the sizes, columns and rules that their descriptions promise."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hf_audioformer.data import SplitArguments, make_splits, read_clips
from hf_audioformer.data.moments import spans_of_clips


@pytest.mark.unit
def test_commands_come_with_the_package() -> None:
    clips = read_clips("commands")
    assert len(clips.label_names) > 1
    assert set(clips.column("split")) == {"train", "validation", "test"}
    assert len(set(clips.column("voice"))) > 1
    assert np.abs(clips.load(0)["array"]).max() > 0


@pytest.mark.unit
def test_fsdd(known_sets: Path) -> None:
    clips = read_clips("fsdd")
    assert len(clips) == 2500
    assert clips.label_names[:3] == ("zero", "one", "two")
    assert Counter(clips.column("speaker")) == dict.fromkeys(["george", "jackson", "lucas", "theo", "yweweler"], 500)
    assert Counter(clips.column("split")) == {"train": 2250, "test": 250}
    audio = clips.load(0)
    assert audio["sampling_rate"] == 8_000
    assert len(audio["array"]) == clips.column("num_samples")[0]


@pytest.mark.unit
def test_esc10(known_sets: Path) -> None:
    clips = read_clips("esc10")
    assert len(clips) == 318
    assert clips.label_names[0] == "dog"
    assert len(clips.label_names) == 10
    assert set(clips.column("fold")) == {1, 2, 4, 5}
    audio = clips.load(0)
    assert audio["sampling_rate"] == 44_100
    assert len(audio["array"]) == clips.column("num_samples")[0]


@pytest.mark.unit
def test_esc10_mix_follows_its_recipe(known_sets: Path) -> None:
    mixtures, esc10 = read_clips("esc10_mix"), read_clips("esc10")
    assert len(mixtures) == 788
    assert mixtures.multi_label
    assert mixtures.label_names == esc10.label_names
    assert set(mixtures.targets().sum(1)) == {1, 2, 3, 4}
    fold_of = dict(zip(esc10.ids, esc10.column("fold"), strict=True))
    label_of = dict(zip(esc10.ids, esc10.targets(), strict=True))
    for row in mixtures.table:
        assert {fold_of[clip] for clip in row["clips"]} == {row["fold"]}
        assert {label_of[clip] for clip in row["clips"]} == set(row["labels"])


@pytest.mark.unit
def test_esc10_mix_levels_and_onsets(known_sets: Path) -> None:
    mixtures, esc10 = read_clips("esc10_mix"), read_clips("esc10")
    row = next(index for index, clips in enumerate(mixtures.column("clips")) if len(clips) == 1)
    recipe, rendered = mixtures.table[row], mixtures.load(row)
    source = esc10.load(esc10.ids.index(recipe["clips"][0]))["array"].astype(np.float64)
    rate = rendered["sampling_rate"]
    start = round(recipe["offsets_s"][0] * rate)
    level = 0.05 * 10 ** (recipe["gains_db"][0] / 20) / np.sqrt(np.mean(source**2))
    end = min(start + len(source), 10 * rate)
    assert rendered["array"].dtype == np.float32
    assert rendered["array"].shape == (10 * rate,)
    assert not rendered["array"][:start].any()
    assert not rendered["array"][end:].any()
    np.testing.assert_allclose(rendered["array"][start:end], level * source[: end - start], atol=1e-6)
    (label,) = recipe["labels"]
    expected = [(label, recipe["offsets_s"][0], pytest.approx(end / rate, abs=1e-4))]
    assert spans_of_clips(mixtures.select([row])) == [expected]
    assert recipe["num_events"] == 1


@pytest.mark.unit
def test_esc10_mix_peaks_stay_below_the_limit(known_sets: Path) -> None:
    mixtures = read_clips("esc10_mix")
    peaks = [np.abs(mixtures.load(index)["array"]).max() for index in range(0, len(mixtures), 16)]
    assert max(peaks) <= 0.95 + 1e-6
    assert min(peaks) > 0


@pytest.mark.unit
def test_protocols_of_the_known_sets(known_sets: Path) -> None:
    speakers = make_splits(read_clips("fsdd"), SplitArguments(kind="folds", column="speaker"))
    assert speakers[0].name == "speaker_george"
    assert [len(split.test) for split in speakers] == [500] * 5
    esc10 = read_clips("esc10")
    folds = make_splits(
        esc10, SplitArguments(kind="folds", column="fold", run_folds=[1, 5], group_column="freesound_id")
    )
    assert [split.name for split in folds] == ["fold_1", "fold_5"]
    assert all(len(split.train) + len(split.validation) + len(split.test) == 318 for split in folds)


@pytest.mark.unit
@pytest.mark.parametrize("name", ["esc10", "fsdd"])
def test_mini_folders_are_read_as_audio_folders(data_folder: Path, name: str) -> None:
    clips = read_clips(data_folder / "mini" / name)
    assert len(clips) == {"esc10": 19, "fsdd": 100}[name]
    assert len(clips.label_names) == 10
    assert len(clips.load(0)["array"]) > 0


@pytest.mark.fault
def test_data_folder_that_is_not_set_or_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_AUDIOFORMER_DATA", raising=False)
    with pytest.raises(ValueError, match="set the environment variable HF_AUDIOFORMER_DATA"):
        read_clips("fsdd")
    monkeypatch.setenv("HF_AUDIOFORMER_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"esc10\.parquet does not exist; HF_AUDIOFORMER_DATA="):
        read_clips("esc10_mix")
