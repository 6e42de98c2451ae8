"""A stream in chunks of any size gives the codes of the whole clip, and the scores of windows over them."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForAudioClassification, DacConfig, DacModel

from hf_audioformer import AudioFormerFeatureExtractor, assets, load_audio
from hf_audioformer.data.windows import window_starts
from hf_audioformer.inference import StreamingClassifier, StreamingEncoder
from hf_audioformer.inference.streaming import StreamResampler
from hf_audioformer.models.audioformer.waveform_audioformer import resample

from ..fixtures_codec import varied_sound

pytestmark = pytest.mark.usefixtures("one_thread")


def in_chunks(waveform: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    ends = np.cumsum(np.resize(sizes, len(waveform) // min(sizes) + 2))
    return np.split(waveform, ends[ends < len(waveform)])


@pytest.mark.property
@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([(48_000, 24_000), (44_100, 24_000), (8_000, 24_000), (16_000, 24_000), (24_000, 24_000)]),
    st.integers(1, 3_000),
    st.lists(st.integers(1, 700), min_size=1, max_size=4),
)
def test_a_resampled_stream_is_the_resampled_whole(rates: tuple[int, int], samples: int, sizes: list[int]) -> None:
    waveform = varied_sound(samples)
    resampler = StreamResampler(*rates)
    for _ in range(2):  # the second clip knows nothing of the first
        parts = [resampler.push(torch.from_numpy(chunk)) for chunk in in_chunks(waveform.numpy(), sizes)]
        found = torch.cat([*parts, resampler.flush()])
        torch.testing.assert_close(found, resample(waveform, *rates), atol=2e-6, rtol=0)


@pytest.mark.invariant
@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_codes_of_real_sound_are_those_of_the_whole_clip(rate: int) -> None:
    """By the bundled codec, which brings clips to a level; chunks from single samples to a second."""
    extractor = AudioFormerFeatureExtractor.from_pretrained(assets.checkpoint_folder())
    clip = load_audio(assets.example_wav(), rate)["array"]
    at_rate = resample(torch.from_numpy(clip), rate, 24_000)
    expected = extractor(clip, sampling_rate=rate)["input_ids"][0][1:-1]
    level = 20 * np.log10(float(at_rate.square().mean().sqrt()))
    encoder = StreamingEncoder(extractor, rate, level_dbfs=level)
    for sizes in ([1, 7, 1000], [rate], [441]):
        found = np.concatenate([*(encoder.push(chunk) for chunk in in_chunks(clip, sizes)), encoder.flush()])
        assert found.shape == expected.shape
        assert (found == expected).mean() >= 0.999

    measured = StreamingEncoder(extractor, rate, level_seconds=0.3)
    found = np.concatenate([*(measured.push(chunk) for chunk in in_chunks(clip, [441])), measured.flush()])
    first = 20 * np.log10(float(at_rate[:7200].square().mean().sqrt()))
    given_level = StreamingEncoder(extractor, rate, level_dbfs=first)
    np.testing.assert_array_equal(found, np.concatenate([given_level.push(clip), given_level.flush()]))
    assert (found == expected).mean() < 0.9


@pytest.mark.invariant
@pytest.mark.parametrize("size", [500, 100_000])
def test_silence_before_the_sound_says_nothing_of_its_level(size: int, checkpoints: dict[str, str]) -> None:
    """Taken for the level, it would have the sound lifted by 57 dB."""
    extractor = AudioFormerFeatureExtractor.from_pretrained(checkpoints["audioformer"])
    clip = np.concatenate([np.zeros(16_000, dtype=np.float32), varied_sound(16_000).numpy()])
    measured = StreamingEncoder(extractor, 24_000, level_seconds=0.3)
    found = np.concatenate([*(measured.push(chunk) for chunk in in_chunks(clip, [size])), measured.flush()])
    level = 20 * np.log10(float(np.sqrt(np.mean(clip[14_400:21_600] ** 2))))  # the third 0.3 s
    given_level = StreamingEncoder(extractor, 24_000, level_dbfs=level)
    np.testing.assert_array_equal(found, np.concatenate([given_level.push(clip), given_level.flush()]))
    silent = StreamingEncoder(extractor, 24_000, level_seconds=0.3)
    assert len(silent.push(clip[:16_000])) + len(silent.flush()) == 50


@pytest.mark.reference
@pytest.mark.parametrize(("seconds", "hop"), [(2.03, 0.2), (1.3066, 0.16), (0.3, 0.2)])
def test_scores_are_those_of_windows_over_the_codes(seconds: float, hop: float, checkpoints: dict[str, str]) -> None:
    """The second clip ends with a window, the third is shorter than one."""
    source, clip = checkpoints["audioformer"], varied_sound(round(seconds * 16_000)).numpy()
    extractor = AudioFormerFeatureExtractor.from_pretrained(source)
    level = 20 * np.log10(float(resample(torch.from_numpy(clip), 16_000, 24_000).square().mean().sqrt()))
    settings = {"sampling_rate": 16_000, "window_seconds": 0.5, "hop_seconds": hop, "level_dbfs": level}
    stream = StreamingClassifier.from_pretrained(source, device="cpu", **settings)
    model = AutoModelForAudioClassification.from_pretrained(source).eval()
    codes = torch.from_numpy(extractor(clip, sampling_rate=16_000)["input_ids"][0])
    window, step = round(0.5 * 75), round(hop * 75)
    for sizes in ([1_600], [9_999, 3]):
        found = [scores for chunk in in_chunks(clip, sizes) for scores in stream.push(chunk)]
        early = len(found)
        found += stream.flush()
        starts = window_starts(len(codes) - 2, window, step)
        assert [round(scores.start_seconds * 75) for scores in found] == starts
        assert early >= len(starts) - 2
        for start, scores in zip(starts, found, strict=True):
            end = min(start + window, len(codes) - 2)
            assert scores.end_seconds == pytest.approx(end / 75)
            ids = torch.cat([codes[:1], codes[1 + start : 1 + end], codes[-1:]])
            with torch.no_grad():
                logits = model(input_ids=ids[None]).logits[0]
            np.testing.assert_allclose(scores.scores, logits.sigmoid().numpy(), atol=1e-5)


@pytest.mark.fault
def test_what_cannot_stream_is_refused(checkpoints: dict[str, str], tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="streaming is for AudioFormers on codes"):
        StreamingClassifier.from_pretrained(checkpoints["ast"], sampling_rate=16_000)
    with pytest.raises(ValueError, match=r"the hop must be at least a frame \(0.0133333 s\) and no longer"):
        StreamingClassifier.from_pretrained(checkpoints["audioformer"], sampling_rate=16_000, hop_seconds=3.0)
    encoder = StreamingEncoder(AudioFormerFeatureExtractor.from_pretrained(checkpoints["audioformer"]), 16_000)
    assert encoder.push(np.zeros(0, dtype=np.float32)).shape == (0, 2)
    with pytest.raises(ValueError, match="it must be mono"):
        encoder.push(np.zeros((2, 100), dtype=np.float32))
    with pytest.raises(ValueError, match="samples that are NaN"):
        encoder.push(np.full(100, np.nan, dtype=np.float32))
    torch.manual_seed(0)
    DacModel(DacConfig(encoder_hidden_size=8, decoder_hidden_size=32, codebook_size=16, n_codebooks=2)).save_pretrained(
        tmp_path
    )
    extractor = AudioFormerFeatureExtractor.from_codec(tmp_path, num_codebooks=2)
    with pytest.raises(ValueError, match="streaming needs a causal EnCodec"):
        StreamingEncoder(extractor, 16_000)
