"""The feature extractor of continuous front ends: waveforms of any kind in, normalised features out."""

import pickle
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor, pipeline

from hf_audioformer import AudioFormerForAudioClassification, AudioFormerSignalFeatureExtractor
from hf_audioformer.models.audioformer.fbank_audioformer import kaldi_log_mel

from ...fixtures_codec import varied_sound
from .tiny_models import tiny_model

NOT_FETCHED = "Transformers' common tests are not fetched; run make transformers-tests"
common = pytest.importorskip("transformers_tests.test_sequence_feature_extraction_common", reason=NOT_FETCHED)

SIZES = {"log_mel": 24, "spectrogram": 257, "mfcc": 9, "waveform": 1}
KINDS = pytest.mark.parametrize("kind", SIZES)


def extractor_of(kind: str, **more: Any) -> AudioFormerSignalFeatureExtractor:
    size = SIZES.get(kind, 24)
    statistics = {"mean": [0.1 * index for index in range(size)], "std": [1.0 + index for index in range(size)]}
    return AudioFormerSignalFeatureExtractor(
        **({"kind": kind, "num_mel_bins": 24, "num_coefficients": 9} | statistics | more)
    )


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return varied_sound(samples, seed).numpy()


class SignalFeatureExtractionTester:
    """What the common suite asks of an extractor's tester."""

    batch_size, min_seq_length, seq_length_diff = 7, 40, 26
    max_seq_length = min_seq_length + 7 * seq_length_diff
    feature_size = 24

    def prepare_feat_extract_dict(self) -> dict[str, Any]:
        return {"num_mel_bins": self.feature_size, "sampling_rate": 16_000, "return_attention_mask": True}

    def prepare_inputs_for_common(self, equal_length: bool = False, numpify: bool = False) -> list:
        step = 0 if equal_length else self.seq_length_diff
        lengths = [self.min_seq_length + step * index for index in range(self.batch_size)]
        clips = [np.random.default_rng(0).random((length, self.feature_size)) for length in lengths]
        return clips if numpify else [clip.tolist() for clip in clips]


@pytest.mark.reference
class SignalFeatureExtractionTest(common.SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = AudioFormerSignalFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = SignalFeatureExtractionTester()


@KINDS
@pytest.mark.parametrize("samples", [400, 8000, 16_123])
def test_shapes_and_mask(kind, samples):
    extractor = extractor_of(kind)
    features = extractor([noise(samples), noise(20_000)], sampling_rate=16_000, return_tensors="pt")
    frames = [samples, 20_000] if kind == "waveform" else [1 + (n - 400) // 160 for n in (samples, 20_000)]
    shape = (2, frames[1]) if kind == "waveform" else (2, frames[1], SIZES[kind])
    assert features["input_values"].shape == shape
    assert features["input_values"].dtype == torch.float32
    assert features["attention_mask"].sum(1).tolist() == frames
    assert not features["input_values"][0, frames[0] :].any()
    assert extractor.frame_rate == (16_000 if kind == "waveform" else 100)
    assert extractor.model_input_names == ["input_values", "attention_mask"]


@pytest.mark.property
@settings(deadline=None, max_examples=15)
@given(kind=st.sampled_from([*SIZES]), lengths=st.lists(st.integers(400, 3000), min_size=1, max_size=3))
def test_alone_equals_batched(kind, lengths):
    extractor = extractor_of(kind)
    clips = [noise(length, seed) for seed, length in enumerate(lengths)]
    together = extractor(clips, sampling_rate=16_000, return_tensors="pt")
    for row, clip in enumerate(clips):
        alone = extractor(clip, sampling_rate=16_000, return_tensors="pt")["input_values"][0]
        found = together["input_values"][row][together["attention_mask"][row].bool()]
        torch.testing.assert_close(found, alone)


@pytest.mark.reference
def test_log_mels_are_kaldis_normalised_by_the_statistics():
    extractor, clip = extractor_of("log_mel"), noise(5000)
    expected = kaldi_log_mel(torch.from_numpy(clip), 16_000, 24).double().numpy()
    for band in range(24):
        expected[:, band] = (expected[:, band] - 0.1 * band) / (1.0 + band)
    np.testing.assert_allclose(extractor(clip, sampling_rate=16_000)["input_values"][0], expected, atol=1e-5)
    expected = kaldi_log_mel(torch.from_numpy(clip), 16_000, 24)
    torch.testing.assert_close(extractor.features(extractor.waveforms(clip, 16_000))[0], expected)


@KINDS
def test_level_rate_and_channels(kind):
    levelled = extractor_of(kind, rms_level_dbfs=-20.0)
    clip = noise(8000)
    first, second = (levelled(level * clip, sampling_rate=16_000)["input_values"][0] for level in (1.0, 0.1))
    np.testing.assert_allclose(first, second, atol=1e-3)
    as_it_is = extractor_of(kind)(0.1 * clip, sampling_rate=16_000)["input_values"][0]
    kept = levelled(0.1 * clip, sampling_rate=16_000, keep_level=True)["input_values"][0]
    np.testing.assert_array_equal(kept, as_it_is)
    assert np.abs(kept - second).max() > 0.01
    stereo = np.stack([clip, clip])
    np.testing.assert_allclose(levelled(stereo, 16_000, channel_axis=0)["input_values"][0], first, atol=1e-5)
    assert len(levelled(clip, sampling_rate=8000)["input_values"][0]) >= 2 * len(first) - 2


def test_longest_clip_and_padding():
    extractor = extractor_of("log_mel", max_length_seconds=0.5)
    assert len(extractor(noise(16_000), sampling_rate=16_000)["input_values"][0]) == 48
    assert len(extractor(noise(16_000), sampling_rate=16_000, truncation=False)["input_values"][0]) == 98
    padded = extractor(noise(4000), sampling_rate=16_000, padding="max_length", return_tensors="np")
    assert padded["input_values"].shape == (1, 48, 24)
    multiple = extractor(noise(4000), sampling_rate=16_000, pad_to_multiple_of=32, return_tensors="np")
    assert multiple["input_values"].shape == (1, 32, 24)


@KINDS
def test_saved_with_its_statistics_and_found_by_the_auto_class(kind, tmp_path: Path):
    extractor = extractor_of(kind, rms_level_dbfs=-23.0)
    extractor.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is AudioFormerSignalFeatureExtractor
    assert loaded.to_dict() == extractor.to_dict()
    assert pickle.loads(pickle.dumps(extractor)).to_dict() == extractor.to_dict()
    clip = noise(4000)
    np.testing.assert_array_equal(
        loaded(clip, sampling_rate=16_000)["input_values"][0], extractor(clip, sampling_rate=16_000)["input_values"][0]
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "chroma"}, "kind is 'chroma'; allowed: log_mel, spectrogram, mfcc, waveform"),
        ({"std": None}, "mean and std have 24 and None values; give 24 of both"),
        ({"mean": [0.0], "std": [1.0]}, "mean and std have 1 and 1 values; give 24"),
        ({"std": [0.0] * 24}, "deviations above 0"),
        ({"max_length_seconds": 0.01}, "max_length_seconds is 0.01; .* 400 samples at 16000 Hz"),
        ({"sampling_rate": 0}, "sampling_rate is 0; it must be at least 100 Hz"),
        ({"num_mel_bins": 1}, "num_mel_bins is 1 and num_coefficients 9; both must be at least 2"),
        ({"kind": "mfcc", "num_coefficients": 25}, "num_coefficients is 25; it must be at most 24"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        extractor_of(**({"kind": "log_mel"} | wrong))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"audio": noise(8000)}, "sampling_rate is required"),
        ({"audio": [noise(8000), noise(300)], "sampling_rate": 16_000}, "clip 1 has 300 samples .* frame of 400"),
        ({"audio": noise(8000), "sampling_rate": 16_000, "padding": "max_length"}, "need max_length_seconds"),
    ],
)
def test_wrong_audio_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        extractor_of("log_mel")(**arguments)


FRONT_ENDS = {
    "log_mel": {"front_end": "patches", "num_features": 24, "patch_size": (8, 8)},
    "mfcc": {"front_end": "frames", "num_features": 9},
    "waveform": {"front_end": "waveform"},
}


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_pipeline_in_batches_equals_one_by_one(kind):
    labels = {"id2label": {0: "dog", 1: "sea", 2: "rain"}}
    model = tiny_model(AudioFormerForAudioClassification, **FRONT_ENDS[kind], **labels)
    classify = pipeline("audio-classification", model=model, feature_extractor=extractor_of(kind))
    clips = [noise(length, seed) for seed, length in enumerate((4000, 6100, 900))]
    for found, alone in zip(classify(clips, batch_size=3), [classify(clip) for clip in clips], strict=True):
        assert [entry["label"] for entry in found] == [entry["label"] for entry in alone]
        for one, other in zip(found, alone, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
