"""Windows cover a long clip to its end and leave a short one as it is."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_audioformer import ASTLogMelFeatureExtractor
from hf_audioformer.audio.spectrogram_augment import SpectrogramAugmentation
from hf_audioformer.data import read_clips
from hf_audioformer.data.spectrogram_dataset import SpectrogramDataset
from hf_audioformer.data.waveform_cache import WaveformCache
from hf_audioformer.data.windows import WindowedDataset, mean_scores, window_starts

RATE = 16_000
FRAMES = [10, 33, 20, 21]


@pytest.fixture
def dataset(tmp_path: Path) -> SpectrogramDataset:
    """Four clips of `FRAMES` frames and two classes, for a model that reads 20 frames."""
    random = np.random.default_rng(0)
    for number, frames in enumerate(FRAMES):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{number}.wav", 0.1 * random.standard_normal(400 + 160 * (frames - 1) + 7), RATE)
    clips = read_clips(str(tmp_path))
    indices = sorted(range(4), key=lambda index: Path(clips.ids[index]).name)
    extractor = ASTLogMelFeatureExtractor(max_length=20, num_mel_bins=16)
    cache = WaveformCache(clips, indices, RATE)
    return SpectrogramDataset(clips, indices, extractor, waveforms=cache, targets=clips.targets(indices))


@pytest.mark.unit
@pytest.mark.parametrize(("overlap", "starts"), [(0.5, [0, 10, 13]), (0.0, [0, 13]), (0.8, [0, 4, 8, 12, 13])])
def test_windows_cover_each_clip_to_its_end(dataset: SpectrogramDataset, overlap: float, starts: list[int]) -> None:
    windows = WindowedDataset(dataset, overlap)
    expected = [(0, 0), *((1, start) for start in starts), (2, 0), (3, 0), (3, 1)]
    assert windows.clip_of_window.tolist() == [clip for clip, _ in expected]
    assert windows.names == [dataset.names[clip] for clip, _ in expected]
    assert len(windows) == len(expected)
    for index, (clip, start) in enumerate(expected):
        whole = dataset.extractor.log_mels(dataset.waveforms[dataset.indices[clip]], RATE)[0]
        item = windows[index]
        wanted = dataset.extractor.normalised(whole[start : start + 20])
        torch.testing.assert_close(item["input_values"], wanted, rtol=0, atol=0)
        assert (item["clip_index"], item["labels"]) == (clip, clip % 2)


@pytest.mark.invariant
def test_clips_that_fit_are_as_in_the_data_set(dataset: SpectrogramDataset) -> None:
    dataset.extractor.max_length = 33
    windows = WindowedDataset(dataset)
    assert windows.padding_value == dataset.padding_value
    assert windows.clip_of_window.tolist() == [0, 1, 2, 3]
    for index in range(4):
        one, other = windows[index], dataset[index]
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    dataset.targets = None
    assert windows[0].keys() == {"input_values", "clip_index"}


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 50), st.integers(1, 50))
def test_every_frame_is_in_a_window_and_none_is_there_twice(frames: int, length: int, step: int) -> None:
    step = min(step, length)
    starts = window_starts(frames, length, step)
    assert len(set(starts)) == len(starts)
    assert starts == sorted(starts)
    heard = {frame for start in starts for frame in range(start, min(start + length, frames))}
    assert heard == set(range(frames))
    assert all(start + length <= max(frames, length) for start in starts)
    assert max(np.diff(starts), default=0) <= step


@pytest.mark.unit
def test_scores_are_means_of_logits() -> None:
    logits = np.array([[1, 2], [0, 4], [2, -1], [-5, 6], [7, 8]], dtype=np.float32)
    scores = mean_scores(logits, np.array([0, 1, 1, 1, 2]))
    assert scores.dtype == np.float32
    assert scores.tolist() == [[1, 2], [-1, 3], [7, 8]]
    np.testing.assert_array_equal(mean_scores(logits, np.arange(5)), logits)
    shuffled = np.array([3, 0, 4, 2, 1])
    np.testing.assert_array_equal(mean_scores(logits[shuffled], np.array([0, 1, 1, 1, 2])[shuffled]), scores)


@pytest.mark.fault
def test_refuses_what_does_not_fit(dataset: SpectrogramDataset) -> None:
    for overlap in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"overlap is {overlap}; it must be at least 0 and below 1"):
            WindowedDataset(dataset, overlap)
    dataset.augmentation = SpectrogramAugmentation()
    with pytest.raises(ValueError, match="dataset has augmentation; windows are for evaluation"):
        WindowedDataset(dataset)
    with pytest.raises(ValueError, match="logits has 3 rows for 2 windows"):
        mean_scores(np.zeros((3, 2)), np.array([0, 1]))
