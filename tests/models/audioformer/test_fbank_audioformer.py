"""Log spectrograms and MFCC against Kaldi's; log-mels are tested as part of hf_audioformer.audio.fbank."""

import pytest
import torch
from torchaudio.compliance import kaldi

from hf_audioformer.models.audioformer.fbank_audioformer import kaldi_log_spectrogram, kaldi_mfcc, num_frequencies

pytestmark = pytest.mark.reference
RATES = pytest.mark.parametrize("sampling_rate", [8000, 16_000, 44_100])


@RATES
def test_log_spectrogram_equals_kaldi(sampling_rate: int) -> None:
    noise = 0.1 * torch.randn(1, sampling_rate)
    expected = kaldi.spectrogram(noise, sample_frequency=sampling_rate, window_type="hanning", dither=0.0)
    found = kaldi_log_spectrogram(noise[0], sampling_rate)
    assert found.shape == (len(expected), num_frequencies(sampling_rate))
    torch.testing.assert_close(found[:, 1:], expected[:, 1:], atol=2e-4, rtol=0)  # Kaldi's first is the energy


@RATES
@pytest.mark.parametrize(("num_coefficients", "num_mel_bins"), [(13, 23), (40, 128)])
def test_mfcc_equals_kaldi(sampling_rate: int, num_coefficients: int, num_mel_bins: int) -> None:
    noise = 0.1 * torch.randn(1, sampling_rate)
    expected = kaldi.mfcc(
        noise,
        sample_frequency=sampling_rate,
        num_ceps=num_coefficients,
        num_mel_bins=num_mel_bins,
        window_type="hanning",
        cepstral_lifter=0.0,
        dither=0.0,
    )
    found = kaldi_mfcc(noise[0], sampling_rate, num_coefficients, num_mel_bins)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("num_coefficients", [0, 24])
def test_impossible_coefficients_are_refused(num_coefficients: int) -> None:
    with pytest.raises(ValueError, match=f"num_coefficients is {num_coefficients}; .* at most num_mel_bins, 23"):
        kaldi_mfcc(torch.zeros(16_000), 16_000, num_coefficients, 23)
