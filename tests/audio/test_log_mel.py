import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from hf_audioformer.audio.log_mel import log_mel, log_mel_distance


@pytest.mark.reference
@pytest.mark.parametrize(("sampling_rate", "num_mel_bins"), [(8000, 40), (16000, 64), (24000, 80), (44100, 64)])
def test_equals_torchaudio(sampling_rate: int, num_mel_bins: int) -> None:
    waveform = torch.randn(2, 3, sampling_rate // 2, dtype=torch.float64)
    window = round(0.025 * sampling_rate)
    oracle = MelSpectrogram(
        sampling_rate,
        n_fft={8000: 256, 16000: 512, 24000: 1024, 44100: 2048}[sampling_rate],
        win_length=window,
        hop_length=round(0.010 * sampling_rate),
        n_mels=num_mel_bins,
        pad_mode="constant",
    ).double()
    expected = oracle(waveform).clamp(min=1e-10).log().transpose(-1, -2)
    torch.testing.assert_close(log_mel(waveform, sampling_rate, num_mel_bins), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.unit
@pytest.mark.parametrize("num_samples", [1, 159, 160, 161, 16000])
def test_shape_and_dtype(num_samples: int) -> None:
    features = log_mel(torch.randn(2, num_samples), 16000)
    assert features.shape == (2, 1 + num_samples // 160, 64)
    assert features.dtype == torch.float32
    assert log_mel(torch.randn(num_samples), 16000).shape == features.shape[1:]


@pytest.mark.unit
def test_silence_is_the_floor() -> None:
    torch.testing.assert_close(log_mel(torch.zeros(1600), 16000, floor=1e-6), torch.full((11, 64), 1e-6).log())


@pytest.mark.property
def test_a_clip_is_the_same_alone_and_in_a_batch() -> None:
    waveforms = torch.randn(3, 4000)
    alone = torch.stack([log_mel(waveform, 16000) for waveform in waveforms])
    torch.testing.assert_close(alone, log_mel(waveforms, 16000))


@pytest.mark.unit
@pytest.mark.parametrize("waveform", [torch.zeros(2, 0), torch.tensor(1.0), torch.zeros(160, dtype=torch.int16)])
def test_refuses_what_is_no_waveform(waveform: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="with at least one sample"):
        log_mel(waveform, 16000)


@pytest.mark.unit
@pytest.mark.parametrize("samples", [79_992, 80_000, 80_500])
def test_the_distance_of_sounds_of_other_lengths_is_that_of_what_both_have(samples: int) -> None:
    """DAC with ratios of 5 gives 8 samples less than five seconds of 16 kHz."""
    original = torch.randn(80_000)
    changed = torch.nn.functional.pad(2 * original, (0, samples - 80_000))
    expected = 2 * torch.tensor(2.0).log()
    assert log_mel_distance(changed, original, 16_000) == pytest.approx(expected.item(), rel=0.01)
