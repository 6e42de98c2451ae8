import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchaudio.compliance.kaldi import fbank

from hf_audioformer.audio.fbank import kaldi_log_mel, log_mels_of_clips, num_frames, samples_of_frames


def signal(kind: str, seconds: float, sampling_rate: int = 16000) -> Tensor:
    time = torch.arange(int(seconds * sampling_rate)) / sampling_rate
    return {
        "noise": 0.1 * torch.randn(len(time)),
        "tone": 0.9 * torch.sin(2 * math.pi * 440 * time),
        "tone with an offset": 0.3 + 0.6 * torch.sin(2 * math.pi * 3000 * time),
        "silence": torch.zeros(len(time)),
        "constant": torch.full((len(time),), 0.5),
    }[kind]


def kaldi(waveform: Tensor, sampling_rate: int = 16000, num_mel_bins: int = 128) -> Tensor:
    """As the official AST calls it."""
    return fbank(
        waveform[None],
        htk_compat=True,
        sample_frequency=sampling_rate,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=num_mel_bins,
        dither=0.0,
        frame_shift=10,
    )


@pytest.mark.reference
@pytest.mark.parametrize("seconds", [0.025, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("kind", ["noise", "tone", "tone with an offset", "silence", "constant"])
def test_equals_kaldi(kind: str, seconds: float) -> None:
    waveform = signal(kind, seconds)
    torch.testing.assert_close(kaldi_log_mel(waveform, 16000), kaldi(waveform), rtol=0, atol=1e-4)


@pytest.mark.reference
@pytest.mark.parametrize(("sampling_rate", "num_mel_bins"), [(8000, 40), (16000, 5), (22050, 64), (44100, 128)])
def test_equals_kaldi_at_other_rates(sampling_rate: int, num_mel_bins: int) -> None:
    waveform = signal("noise", 0.5, sampling_rate)
    ours = kaldi_log_mel(waveform, sampling_rate, num_mel_bins)
    torch.testing.assert_close(ours, kaldi(waveform, sampling_rate, num_mel_bins), rtol=0, atol=1e-4)


@pytest.mark.property
@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(400, 4000), min_size=1, max_size=4))
def test_a_clip_is_the_same_alone_and_padded_in_a_batch(lengths: list[int]) -> None:
    clips = [signal("noise", length / 16000) for length in lengths]
    padded = kaldi_log_mel(pad_sequence(clips, batch_first=True), 16000)
    together = log_mels_of_clips(clips, 16000, batch_size=3)
    for clip, row, in_batch, alone in zip(clips, padded, together, log_mels_of_clips(clips, 16000), strict=True):
        assert len(alone) == num_frames(len(clip), 16000)
        torch.testing.assert_close(row[: len(alone)], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(in_batch, alone, rtol=0, atol=1e-5)


@pytest.mark.property
@given(start=st.integers(0, 20), frames=st.integers(1, 20))
def test_the_samples_of_some_frames_give_those_frames(start: int, frames: int) -> None:
    waveform = signal("noise", 0.5)
    part = waveform[samples_of_frames(start, frames, 16000)]
    expected = kaldi_log_mel(waveform, 16000)[start : start + frames]
    torch.testing.assert_close(kaldi_log_mel(part, 16000), expected, rtol=0, atol=1e-5)


@pytest.mark.unit
@pytest.mark.parametrize(("num_samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (160000, 998)])
def test_only_frames_that_fit_count(num_samples: int, frames: int) -> None:
    assert num_frames(num_samples, 16000) == frames
    if frames:
        assert kaldi_log_mel(torch.zeros(2, 3, num_samples), 16000, 8).shape == (2, 3, frames, 8)


@pytest.mark.unit
def test_works_where_the_waveform_is_and_in_its_precision() -> None:
    features = kaldi_log_mel(torch.empty(2, 16000, device="meta", dtype=torch.float64), 16000)
    assert (features.device.type, features.dtype, features.shape) == ("meta", torch.float64, (2, 98, 128))


@pytest.mark.unit
def test_threads_do_not_write_to_each_others_memory() -> None:
    clips = [signal("noise", 2.0) for _ in range(8)]
    expected = log_mels_of_clips(clips, 16000)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            for ours, alone in zip(threads.map(lambda clip: kaldi_log_mel(clip, 16000), clips), expected, strict=True):
                torch.testing.assert_close(ours, alone, rtol=0, atol=0)


@pytest.mark.unit
def test_memory_kept_from_inference_mode_serves_outside_of_it() -> None:
    waveform = signal("noise", 0.5, 11000)
    with torch.inference_mode():
        first = kaldi_log_mel(waveform, 11000)
    torch.testing.assert_close(kaldi_log_mel(waveform, 11000), first, rtol=0, atol=0)


@pytest.mark.unit
def test_the_default_device_is_not_that_of_the_waveform() -> None:
    waveform = signal("noise", 0.5, 12000)
    kaldi_log_mel(waveform, 24000, 24)  # makes the filters, but not the memory of this thread
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(_on_another_default_device, waveform).result().device.type == "cpu"


def _on_another_default_device(waveform: Tensor) -> Tensor:
    with torch.device("meta"):
        return kaldi_log_mel(waveform, 24000, 24)


@pytest.mark.unit
@pytest.mark.parametrize("batch_size", [None, 2])
def test_writes_into_memory_that_is_given(batch_size: int | None) -> None:
    clips = [signal("noise", seconds) for seconds in (0.5, 7.0, 1.0)]
    batch = torch.full((3, 700, 128), torch.nan)
    rows = [row[: num_frames(len(clip), 16000)] for row, clip in zip(batch, clips, strict=True)]
    log_mels_of_clips(clips, 16000, batch_size=batch_size, out=rows)
    for row, clip in zip(batch, clips, strict=True):
        frames = num_frames(len(clip), 16000)
        torch.testing.assert_close(row[:frames], kaldi_log_mel(clip, 16000), rtol=0, atol=1e-5)
        assert row[frames:].isnan().all()


@pytest.mark.unit
@pytest.mark.parametrize("waveform", [torch.zeros(399), torch.tensor(1.0), torch.zeros(1600, dtype=torch.int16)])
def test_refuses_what_is_no_waveform(waveform: Tensor) -> None:
    with pytest.raises(ValueError, match="with at least one frame, 400 samples at 16000 Hz"):
        kaldi_log_mel(waveform, 16000)
