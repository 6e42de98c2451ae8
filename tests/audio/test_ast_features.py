import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor, AutoFeatureExtractor
from transformers.models.audio_spectrogram_transformer import feature_extraction_audio_spectrogram_transformer as stock

from hf_audioformer import ASTLogMelFeatureExtractor
from hf_audioformer.models.audioformer import waveform_audioformer
from hf_audioformer.models.audioformer.waveform_audioformer import resample

RATE = 16000


def noise(num_samples: int) -> np.ndarray:
    return (0.1 * torch.randn(num_samples)).numpy()


def features(extractor: Any, *arguments: Any, **settings: Any) -> torch.Tensor:
    return extractor(*arguments, **{"sampling_rate": RATE, "return_tensors": "pt"} | settings)["input_values"]


@pytest.mark.reference
@pytest.mark.parametrize("installed", [True, False], ids=["torchaudio", "numpy"])
@pytest.mark.parametrize("settings", [{}, {"max_length": 20, "num_mel_bins": 64}, {"do_normalize": False}])
def test_equals_the_stock_extractor(installed: bool, settings: dict[str, Any]) -> None:
    clips = [noise(1600), noise(16000), np.zeros(3000, dtype=np.float32)]
    with patch.object(stock, "is_speech_available", lambda: installed):  # what it decides by is what is installed
        expected = features(ASTFeatureExtractor(**settings), clips)
    ours = features(ASTLogMelFeatureExtractor(**settings), clips)
    assert ours.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 if installed else 1e-3)


@pytest.mark.reference
@pytest.mark.parametrize("rate", [8000, 24000])
def test_equals_the_stock_extractor_at_other_rates_with_torchaudio(rate: int) -> None:
    clips = [noise(1600), noise(16000), np.zeros(3000, dtype=np.float32)]
    settings: dict[str, Any] = {"sampling_rate": rate, "num_mel_bins": 32}
    expected, found = (
        features(kind(**settings), clips, sampling_rate=rate)
        for kind in (ASTFeatureExtractor, ASTLogMelFeatureExtractor)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.reference
def test_saves_itself_as_the_stock_extractor(tmp_path: Path) -> None:
    ours = ASTLogMelFeatureExtractor(mean=-5.0, std=3.0, max_length=32, num_mel_bins=64, return_attention_mask=True)
    ours.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is ASTFeatureExtractor
    clip = noise(8000)
    torch.testing.assert_close(features(loaded, clip), features(ours, clip), rtol=0, atol=1e-4)
    loaded.save_pretrained(tmp_path / "stock")
    files = [path / "preprocessor_config.json" for path in (tmp_path, tmp_path / "stock")]
    assert json.loads(files[0].read_text()) == json.loads(files[1].read_text())
    again = ASTLogMelFeatureExtractor.from_pretrained(tmp_path)
    assert type(again) is ASTLogMelFeatureExtractor
    assert again.to_dict() == ours.to_dict()


@pytest.mark.property
def test_arrays_lists_and_tensors_are_alike() -> None:
    extractor = ASTLogMelFeatureExtractor(max_length=16)
    clip = noise(2000)
    expected = features(extractor, clip)
    for same in (clip.astype(np.float64), clip.tolist(), torch.from_numpy(clip), [clip]):
        torch.testing.assert_close(features(extractor, same), expected)
    as_numpy = extractor(clip, sampling_rate=RATE, return_tensors="np")["input_values"]
    as_list = extractor(clip, sampling_rate=RATE)["input_values"]
    assert isinstance(as_numpy, np.ndarray)
    assert isinstance(as_list, list)
    np.testing.assert_array_equal(as_numpy, expected.numpy())
    np.testing.assert_array_equal(as_list[0], expected[0].numpy())


@pytest.mark.property
def test_a_clip_is_the_same_alone_and_in_a_batch_and_the_mask_tells_its_frames() -> None:
    extractor = ASTLogMelFeatureExtractor()
    clips = [noise(length) for length in (400, 5000, 1600)]
    batch = extractor(clips, sampling_rate=RATE, padding="longest", return_attention_mask=True, return_tensors="pt")
    assert batch["input_values"].shape == (3, 29, 128)
    assert batch["attention_mask"].dtype == torch.int64
    assert batch["attention_mask"].sum(1).tolist() == [1, 29, 8]
    for clip, row, mask in zip(clips, batch["input_values"], batch["attention_mask"].bool(), strict=True):
        torch.testing.assert_close(row[mask], features(extractor, clip, padding="longest")[0])
        assert (row[~mask] == -extractor.mean / (2 * extractor.std)).all()
    assert "attention_mask" not in extractor(clips, sampling_rate=RATE)


@pytest.mark.unit
def test_channels_are_mixed_and_rates_resampled() -> None:
    extractor = ASTLogMelFeatureExtractor(max_length=32)
    stereo = torch.from_numpy(noise(2 * 8820)).reshape(2, 8820)
    expected = features(extractor, resample(stereo.mean(0), 44100, RATE))
    for given, axis in ((stereo, 0), (stereo.T, 1)):
        torch.testing.assert_close(features(extractor, given, sampling_rate=44100, channel_axis=axis), expected)


@pytest.mark.reference
@pytest.mark.parametrize("rates", [(44_100, 16_000), (8_000, 24_000), (11_025, 16_000)])
def test_rates_with_few_common_divisors_are_resampled_alike_without_a_table(
    rates: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = torch.from_numpy(noise(2 * 30_001)).reshape(2, 30_001)  # more than a block
    by_table = resample(clips, *rates)
    monkeypatch.setattr(waveform_audioformer, "MAX_RESAMPLER_WEIGHTS", 0)
    torch.testing.assert_close(resample(clips, *rates), by_table, rtol=0, atol=1e-4)


@pytest.mark.unit
def test_a_clip_of_any_rate_is_heard() -> None:
    time = torch.arange(11_127) / 11_127
    heard = resample(torch.sin(2 * torch.pi * 440 * time), 11_127, RATE)
    assert len(heard) == RATE
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(RATE) / RATE)
    torch.testing.assert_close(heard[100:-100], expected[100:-100], rtol=0, atol=1e-3)


@pytest.mark.unit
def test_max_length_cuts_the_end_and_crop_keys_choose_a_part() -> None:
    extractor = ASTLogMelFeatureExtractor(max_length=10)
    clip, short = noise(16000), noise(800)
    whole = features(extractor, clip, padding="longest", max_length=1024)[0]
    torch.testing.assert_close(features(extractor, clip)[0], whole[:10])

    def starts(epoch: int, of: list[int]) -> list[int]:
        cut = features(extractor, [clip] * len(of), crop_keys=[(0, epoch, index) for index in of])
        windows = whole.unfold(0, 10, 1).transpose(1, 2)
        return [int((windows - part).abs().amax((1, 2)).argmin()) for part in cut]

    first = starts(0, list(range(40)))
    assert starts(0, [7, 3]) == [first[7], first[3]]
    assert starts(1, list(range(40))) != first
    assert min(first) < 20 < 60 < max(first) <= 88
    torch.testing.assert_close(features(extractor, short, crop_keys=[(0, 0, 0)]), features(extractor, short))


@pytest.mark.unit
def test_log_mels_are_whole_and_not_normalised() -> None:
    extractor = ASTLogMelFeatureExtractor(max_length=10)
    clip = noise(16000)
    (raw,) = extractor.log_mels(clip, RATE)
    assert raw.shape == (98, 128)
    torch.testing.assert_close((raw[:10] - extractor.mean) / (2 * extractor.std), features(extractor, clip)[0])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("clip", "settings", "message"),
    [
        (np.zeros(1600, dtype=np.float32), {"sampling_rate": None}, "sampling_rate is required"),
        ([np.zeros(1600), np.zeros(100)], {}, "clip 1 has 100 samples at 16000 Hz, less than one frame of 400"),
        (np.zeros((2, 1600)), {}, "say channel_axis=0"),
        (np.zeros(1600, dtype=np.int16), {}, "clip 0 is int16; samples must be floats"),
        ([np.zeros(1600), np.full(1600, np.nan)], {}, "clip 1 has 1600 samples that are NaN or infinite"),
        (np.zeros(1600), {"padding": "shortest"}, "padding is 'shortest'; it must be 'max_length' or 'longest'"),
        (np.zeros(1600), {"max_length": 0}, "max_length is 0; it must be at least 1"),
        ([np.zeros(1600)] * 2, {"crop_keys": [(0, 0)]}, "crop_keys has 1 keys for 2 clips"),
    ],
)
def test_refuses(clip: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features(ASTLogMelFeatureExtractor(), clip, **settings)
