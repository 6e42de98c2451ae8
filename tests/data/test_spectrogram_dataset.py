"""Items are the extractor's features; what happens to a clip in an epoch depends on seed, epoch and clip alone."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_audioformer import ASTLogMelFeatureExtractor
from hf_audioformer.audio.augment import apply_change
from hf_audioformer.audio.spectrogram_augment import SpectrogramAugmentation, mix_log_mels, mix_waveforms
from hf_audioformer.data import ClipTable, read_clips
from hf_audioformer.data.spectrogram_dataset import SpectrogramDataset
from hf_audioformer.data.waveform_cache import WaveformCache

RATE = 16_000
INDICES = [5, 2, 11, 20]
EVERYTHING = SpectrogramAugmentation(
    frequency_mask=4,
    time_mask=8,
    mixup=0.7,
    spectrogram_noise=0.1,
    roll_frames=3,
    gain_db=(-6.0, 6.0),
    speed=(0.8, 1.2),
    shift=0.5,
    noise_snr_db=(10.0, 30.0),
)


@pytest.fixture(scope="module")
def clips(tone_folder: Path) -> ClipTable:
    return read_clips(str(tone_folder))


@pytest.fixture(scope="module")
def waveforms(clips: ClipTable) -> WaveformCache:
    return WaveformCache(clips, range(len(clips)), RATE)


@pytest.fixture
def extractor() -> ASTLogMelFeatureExtractor:
    return ASTLogMelFeatureExtractor(max_length=30, num_mel_bins=16, mean=-5.0, std=3.0)


def dataset(
    clips: ClipTable,
    waveforms: WaveformCache,
    extractor: ASTLogMelFeatureExtractor,
    augmentation: SpectrogramAugmentation | None = None,
    **settings: Any,
) -> SpectrogramDataset:
    settings = {"targets": clips.targets(INDICES)} | settings
    return SpectrogramDataset(clips, INDICES, extractor, waveforms=waveforms, augmentation=augmentation, **settings)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.reference
@pytest.mark.parametrize("settings", [{}, {"do_normalize": False}, {"max_length": 200}])
def test_items_are_the_features_of_the_extractor(clips: ClipTable, waveforms: WaveformCache, settings: dict) -> None:
    extractor = ASTLogMelFeatureExtractor(**({"max_length": 30, "num_mel_bins": 16} | settings))
    data = dataset(clips, waveforms, extractor)
    assert len(data) == 4
    assert data.names == [clips.ids[index] for index in INDICES]
    for place, index in enumerate(INDICES):
        expected = extractor(waveforms[index], RATE, padding="longest", return_tensors="pt")["input_values"][0]
        item = data[place]
        assert item["input_values"].dtype == torch.float32
        torch.testing.assert_close(item["input_values"], expected, rtol=0, atol=0)
        assert (item["clip_index"], item["labels"]) == (place, clips.targets()[index])
        assert data.lengths[place] == len(expected)
    padded = extractor(waveforms[5], RATE, max_length=300, return_tensors="pt")["input_values"]
    assert data.padding_value == pytest.approx(padded[0, -1, 0].item(), abs=1e-7)


@pytest.mark.unit
def test_items_have_labels_if_there_are_any_and_rows_once_clips_are_mixed(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor
) -> None:
    assert "labels" not in dataset(clips, waveforms, extractor, EVERYTHING, targets=None)[0]
    masked = dataset(clips, waveforms, extractor, SpectrogramAugmentation(time_mask=3))
    assert [masked[index]["labels"] for index in range(4)] == clips.targets(INDICES).tolist()
    mixed = dataset(clips, waveforms, extractor, SpectrogramAugmentation(mixup=1e-9))
    labels = np.stack([mixed[index]["labels"] for index in range(4)])
    np.testing.assert_array_equal(labels, np.eye(3)[clips.targets(INDICES)])
    assert labels.dtype == np.float32


@pytest.mark.unit
@pytest.mark.parametrize("mixup_on", ["waveform", "spectrogram"])
def test_clips_are_mixed_with_those_of_the_data_set_and_so_are_their_labels(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor, mixup_on: Any
) -> None:
    augmentation = SpectrogramAugmentation(mixup=0.5, mixup_on=mixup_on)
    extractor.max_length = 100
    data = dataset(clips, waveforms, extractor, augmentation, seed=3)
    partners = set()
    for epoch in range(10):
        data.set_epoch(epoch)
        for place, index in enumerate(INDICES):
            change = augmentation.draw(3, epoch, place, 4)
            own, weight = waveforms[index], change.weight
            other = waveforms[INDICES[change.partner or 0]]
            if change.partner is None:
                expected = extractor.log_mels(own, RATE)[0]
            elif mixup_on == "waveform":
                expected = extractor.log_mels(mix_waveforms(own, other, weight), RATE)[0]
            else:
                expected = mix_log_mels(*(extractor.log_mels(sound, RATE)[0] for sound in (own, other)), weight)
            item = data[place]
            torch.testing.assert_close(item["input_values"], extractor.normalize(expected), rtol=0, atol=1e-5)
            labels = np.zeros(3)
            labels[clips.targets()[index]] += weight
            if change.partner is not None:
                labels[clips.targets()[INDICES[change.partner]]] += 1 - weight
                partners.add(change.partner)
            np.testing.assert_allclose(item["labels"], labels, atol=1e-6)
            assert item["labels"].sum() == pytest.approx(1)
            assert item["labels"].dtype == np.float32
    assert partners == {0, 1, 2, 3}


@pytest.mark.unit
def test_labels_of_several_classes_are_mixed_and_a_class_of_both_clips_counts_1(
    tone_csv: Path, extractor: ASTLogMelFeatureExtractor
) -> None:
    clips = read_clips(str(tone_csv))
    waveforms = WaveformCache(clips, INDICES, RATE)
    augmentation = SpectrogramAugmentation(mixup=1.0)
    data = dataset(clips, waveforms, extractor, augmentation)
    targets = clips.targets(INDICES)
    shared = 0
    for epoch in range(5):
        data.set_epoch(epoch)
        for place in range(4):
            change = augmentation.draw(0, epoch, place, 4)
            assert change.partner is not None
            labels = data[place]["labels"]
            both = (targets[place] > 0) & (targets[change.partner] > 0)
            np.testing.assert_allclose(labels[both], 1, atol=1e-6)
            only = (targets[place] > 0) & ~both
            np.testing.assert_allclose(labels[only], change.weight, atol=1e-6)
            neither = (targets[place] == 0) & (targets[change.partner] == 0)
            assert not labels[neither].any()
            shared += int(both.any() and place != change.partner)
    assert shared


@pytest.mark.unit
def test_a_partner_is_changed_by_draws_of_its_own(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor
) -> None:
    augmentation = SpectrogramAugmentation(mixup=1.0, shift=0.5, gain_db=(-9.0, 9.0))
    extractor.max_length = 100
    change = augmentation.draw(0, 0, 0, 4)
    assert change.partner is not None
    sounds = [
        apply_change({"array": waveforms[INDICES[place]], "sampling_rate": RATE}, sound)["array"]
        for place, sound in ((0, change.sound), (change.partner, change.partner_sound))
    ]
    expected = extractor.log_mels(mix_waveforms(*sounds, change.weight), RATE)[0]
    item = dataset(clips, waveforms, extractor, augmentation)[0]
    torch.testing.assert_close(item["input_values"], extractor.normalised(expected), rtol=0, atol=1e-5)


@pytest.mark.unit
def test_masks_are_0_before_normalisation(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor
) -> None:
    augmentation = SpectrogramAugmentation(frequency_mask=8, time_mask=14)
    extractor.max_length = 100
    plain, masked = (dataset(clips, waveforms, extractor, augment) for augment in (None, augmentation))
    hidden = 0
    for place in range(4):
        one, other = plain[place]["input_values"], masked[place]["input_values"]
        differs = one != other
        hidden += int(differs.sum())
        torch.testing.assert_close(other[differs], torch.full_like(other[differs], masked.padding_value))
        np.testing.assert_array_equal(plain[place]["labels"], masked[place]["labels"])
    assert hidden


@pytest.mark.unit
def test_training_hears_any_part_of_a_long_clip_and_evaluation_its_beginning(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor
) -> None:
    extractor.max_length = 10
    plain = dataset(clips, waveforms, extractor)
    trained = dataset(clips, waveforms, extractor, SpectrogramAugmentation())
    whole = extractor.log_mels(waveforms[INDICES[0]], RATE)[0]
    torch.testing.assert_close(plain[0]["input_values"], extractor.normalize(whole)[:10], rtol=0, atol=0)
    assert plain.num_frames(0) == len(whole)
    torch.testing.assert_close(plain.part(0, 7), extractor.normalize(whole)[7:17], rtol=0, atol=0)
    starts = set()
    windows = extractor.normalize(whole).unfold(0, 10, 1).transpose(1, 2)
    for epoch in range(80):
        trained.set_epoch(epoch)
        item = trained[0]["input_values"]
        assert item.shape == (10, 16)
        starts.add(int((windows - item).abs().mean((1, 2)).argmin()))
    assert {min(starts), max(starts)} == {0, len(windows) - 1}


@pytest.mark.unit
@pytest.mark.parametrize("speed", [0.7, 1.4])
def test_a_cut_clip_is_full_at_any_speed_and_a_short_one_is_longer_or_shorter(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor, speed: float
) -> None:
    augmentation = SpectrogramAugmentation(speed=(speed, speed))
    extractor.max_length = 13
    assert len(dataset(clips, waveforms, extractor, augmentation)[0]["input_values"]) == 13
    extractor.max_length = 200
    plain, changed = (dataset(clips, waveforms, extractor, augment) for augment in (None, augmentation))
    frames = (len(plain[0]["input_values"]) + 1.5) / speed - 1.5
    assert len(changed[0]["input_values"]) == pytest.approx(frames, abs=1)


@pytest.mark.unit
def test_a_clip_of_one_frame_stays_one_when_played_faster(tmp_path: Path) -> None:
    import soundfile

    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "0.wav", np.full(401, 0.1), RATE)
    clips = read_clips(str(tmp_path))
    augmentation = SpectrogramAugmentation(speed=(1.5, 1.5))
    cache = WaveformCache(clips, [0], RATE)
    data = SpectrogramDataset(clips, [0], ASTLogMelFeatureExtractor(), waveforms=cache, augmentation=augmentation)
    assert data[0]["input_values"].shape == (1, 128)


@pytest.mark.invariant
def test_items_are_keyed_by_seed_epoch_and_clip_and_the_sound_stays_as_it_is(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor
) -> None:
    before = [waveforms[index].copy() for index in INDICES]
    seen = []
    for seed in range(2):
        data, again = (dataset(clips, waveforms, extractor, EVERYTHING, seed=seed) for _ in range(2))
        for epoch in range(2):
            data.set_epoch(epoch)
            again.set_epoch(epoch)
            items = [data[place] for place in range(4)]
            assert all(same(again[place], items[place]) for place in (3, 0, 2, 1))
            seen.append(items)
    assert len({item["input_values"].numpy().tobytes() for items in seen for item in items}) == 16
    assert all(np.array_equal(waveforms[index], sound) for index, sound in zip(INDICES, before, strict=True))


@pytest.mark.invariant
def test_workers_make_the_same_items_and_see_each_epoch(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor
) -> None:
    here, there = (dataset(clips, waveforms, extractor, EVERYTHING) for _ in range(2))
    workers = DataLoader(there, batch_size=None, num_workers=1, persistent_workers=True)
    first = []
    for epoch in range(2):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        items = [here[place] for place in range(4)]
        for mine, theirs in zip(items, workers, strict=True):
            torch.testing.assert_close(mine["input_values"], theirs["input_values"], rtol=0, atol=1e-5)
            np.testing.assert_array_equal(mine["labels"], theirs["labels"])
        first.append(items[0]["input_values"].numpy().tobytes())
    assert first[0] != first[1]


@pytest.mark.invariant
def test_a_pickled_copy_as_spawned_workers_get_it_makes_the_same_items(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor
) -> None:
    data = dataset(clips, waveforms, extractor, EVERYTHING)
    copy = pickle.loads(pickle.dumps(data))
    assert all(same(data[place], copy[place]) for place in range(4))


@pytest.mark.fault
def test_refuses_what_does_not_fit(
    clips: ClipTable, waveforms: WaveformCache, extractor: ASTLogMelFeatureExtractor
) -> None:
    with pytest.raises(ValueError, match="targets has 3 rows for 4 clips"):
        dataset(clips, waveforms, extractor, targets=np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match=f"1 clips are not in waveforms, first {clips.ids[20]!r}"):
        dataset(clips, WaveformCache(clips, [2, 5, 11], RATE), extractor)
    with pytest.raises(ValueError, match="waveforms are held at 8000 Hz and the extractor is for 16000 Hz"):
        dataset(clips, WaveformCache(clips, INDICES, 8_000), extractor)
