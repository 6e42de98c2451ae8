"""Features of clips for the Trainer: the versions that codes have, drawn by seed, epoch and clip alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hf_audioformer import AudioFormerSignalFeatureExtractor, read_clips
from hf_audioformer.audio.augment import AudioAugmentation, apply_change
from hf_audioformer.data.clip_codes import partners_of
from hf_audioformer.data.collators import SignalCollator
from hf_audioformer.data.signal_dataset import SignalDataset
from hf_audioformer.data.waveform_cache import WaveformCache
from hf_audioformer.draws import ClipDraw

pytestmark = pytest.mark.unit

EXTRACTOR = AudioFormerSignalFeatureExtractor(num_mel_bins=8, mean=[-5.0] * 8, std=[2.0] * 8, rms_level_dbfs=-23.0)
MIXING = AudioAugmentation(copies=2, mixup=0.5, mixup_within="fold")


def dataset(source: Path, augmentation: AudioAugmentation | None = None, extractor=EXTRACTOR) -> SignalDataset:
    clips = read_clips(str(source))
    indices = list(range(1, len(clips)))
    waveforms = WaveformCache(clips, indices, 16_000)
    targets = clips.targets(indices)
    return SignalDataset(
        clips, indices, extractor, waveforms=waveforms, targets=targets, augmentation=augmentation, seed=3
    )


def test_items_are_what_the_extractor_gives(tone_folder: Path) -> None:
    data = dataset(tone_folder)
    for index in (0, 5, 22):
        item = data[index]
        expected = EXTRACTOR(data.clips.load(index + 1)["array"], sampling_rate=16_000)["input_values"][0]
        np.testing.assert_allclose(item["input_values"].numpy(), expected, atol=1e-5)
        assert (item["clip_index"], item["labels"]) == (index, data.clips.targets([index + 1])[0])
        assert data.lengths[index] == len(data.clips.load(index + 1)["array"])


def test_versions_are_the_changes_of_codes(tone_folder: Path) -> None:
    augmentation = AudioAugmentation(copies=2)
    data = dataset(tone_folder, augmentation)
    for copy in (1, 2):
        change = augmentation.draw(3, copy - 1, 5, ())
        changed = apply_change(data.clips.load(5), change, quick_noise=True)
        expected = EXTRACTOR(changed["array"], sampling_rate=changed["sampling_rate"])["input_values"][0]
        np.testing.assert_allclose(data.version(4, copy)["input_values"].numpy(), expected, atol=1e-5)
    seen = set()
    for epoch in range(20):
        data.set_epoch(epoch)
        values = data[4]["input_values"]
        torch.testing.assert_close(values, data[4]["input_values"])
        seen.add(next(copy for copy in range(3) if torch.equal(data.version(4, copy)["input_values"], values)))
    assert seen == {0, 1, 2}


def test_mixed_versions_have_mixed_labels(tone_csv: Path) -> None:
    data = dataset(tone_csv, MIXING)
    kinds = set()
    for index in range(len(data)):
        readable = [other for other in partners_of(data.clips, MIXING)(data.indices[index]) if other != 0]
        change = MIXING.draw(3, 0, data.indices[index], readable)
        labels = data.version(index, 1)["labels"]
        assert labels.dtype == np.float32
        own = data.clips.targets([data.indices[index]])[0]
        kinds.add(change.partner is None)
        if change.partner is not None:
            other = data.clips.targets([change.partner])[0]
            np.testing.assert_allclose(labels, change.weight * own + (1 - change.weight) * other, rtol=1e-5)
    assert kinds == {True, False}
    own_only = data.own_labels_only()
    assert len(data) < len(own_only) < 3 * len(data)
    for item in (own_only[place] for place in range(len(own_only))):
        np.testing.assert_array_equal(item["labels"], data.clips.targets([data.indices[item["clip_index"]]])[0])


def test_stretches_and_masks(tone_folder: Path) -> None:
    data = dataset(tone_folder, AudioAugmentation())
    data.draw(crop_seconds=0.1, mask_rate=0.25)
    whole = data.version(7, 0)["input_values"]
    starts = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        item = data[7]
        values, start = item["input_values"], item.get("start", 0)
        assert values.shape == (8, 8)  # 1600 samples
        masked = (values == 0).all(1)
        assert masked.sum() == 2
        (stretch,) = EXTRACTOR.features([data._sound(7, None)[start : start + 1600]])
        torch.testing.assert_close(values[~masked], EXTRACTOR.normalised(stretch)[~masked])
        starts.add(start)
    assert len(starts) > 6
    assert not (whole == 0).all(1).any()


def test_a_clip_that_an_epoch_has_twice_is_changed_in_two_ways(tone_folder: Path) -> None:
    data = dataset(tone_folder, AudioAugmentation())
    data.draw(crop_seconds=0.1, mask_rate=0.25)
    first, second = (data[ClipDraw(7, occurrence)]["input_values"] for occurrence in (0, 1))
    assert torch.equal(first, data[7]["input_values"])
    assert not torch.equal(first, second)


def test_what_is_impossible_is_refused(tone_folder: Path) -> None:
    data = dataset(tone_folder, extractor=AudioFormerSignalFeatureExtractor("waveform"))
    with pytest.raises(ValueError, match=r"mask_rate is 0.1; .* 0 for a waveform"):
        data.draw(mask_rate=0.1)
    with pytest.raises(ValueError, match=r"max_length_seconds is 0.001; .* at least one frame"):
        dataset(tone_folder).draw(crop_seconds=0.001)


def test_batches_are_padded_with_zeros(tone_folder: Path) -> None:
    data = dataset(tone_folder)
    batch = SignalCollator()([data[0], data[6]])
    lengths = [len(data[index]["input_values"]) for index in (0, 6)]
    assert lengths[0] < lengths[1]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert torch.equal(batch["input_values"][0, : lengths[0]], data[0]["input_values"])
    assert not batch["input_values"][0, lengths[0] :].any()
    assert batch["labels"].dtype == torch.int64
