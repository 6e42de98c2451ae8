"""Sound out of codes is what the codec makes of them, at the clip's own level."""

from typing import Any

import numpy as np
import pytest
import torch

from hf_audioformer import AudioCodec, AudioFormerFeatureExtractor, AudioFormerForMaskedLM
from hf_audioformer.inference import surprise
from hf_audioformer.inference.listening import infill, kbps, level_gain, round_trips, surprise_track

from ..fixtures_codec import varied_sound

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES = 24_000 + 77
WAVEFORM = 0.02 * varied_sound(SAMPLES)


@pytest.fixture(scope="module")
def parts(tiny_codec: str, tiny_checkpoint: str) -> tuple[Any, AudioFormerFeatureExtractor]:
    """A masked language model and an extractor that brings clips to a level."""
    extractor = AudioFormerFeatureExtractor.from_codec(tiny_codec, num_codebooks=2, rms_level_dbfs=-20.0)
    return AudioFormerForMaskedLM.from_pretrained(tiny_checkpoint).eval(), extractor


@pytest.mark.reference
def test_round_trips_are_those_of_the_codec(tiny_codec: str) -> None:
    codec = AudioCodec.from_pretrained(tiny_codec)
    gain = 0.1 / WAVEFORM.square().mean().sqrt()
    codes = codec.encode(torch.nn.functional.pad(WAVEFORM * gain, (0, -SAMPLES % 320))[None], 8)
    found = round_trips(codec, WAVEFORM, [1, 3, 8], rms_level_dbfs=-20.0)
    assert list(found) == [1, 3, 8]
    for count, decoded in found.items():
        expected = codec.decode(codes[:, :count])[0][:SAMPLES] / gain
        torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-6)
        assert kbps(codec, count) == pytest.approx(75 * 6 * count / 1000)
    with pytest.raises(ValueError, match=r"codebooks are \[0, 9\]; this codec has 1 to 8"):
        round_trips(codec, WAVEFORM, [0, 9])


@pytest.mark.unit
def test_level() -> None:
    assert level_gain(WAVEFORM, None) == 1
    assert (WAVEFORM * level_gain(WAVEFORM, -20.0)).square().mean().sqrt() == pytest.approx(0.1)
    assert level_gain(torch.zeros(9), -20.0) == pytest.approx(0.1 / 1e-4)


@pytest.mark.invariant
def test_only_the_gap_and_what_follows_is_changed(parts: tuple[Any, AudioFormerFeatureExtractor]) -> None:
    """The codec decodes from the past alone."""
    model, extractor = parts
    found = infill(model, extractor, WAVEFORM, 0.405, 0.61, seed=1)
    assert (found.start_seconds, found.end_seconds) == (pytest.approx(30 / 75), pytest.approx(46 / 75))
    expected = extractor.decode(extractor(WAVEFORM, sampling_rate=24_000)["input_ids"][0])[:SAMPLES]
    torch.testing.assert_close(found.round_trip, expected / level_gain(WAVEFORM, -20.0))
    start = 30 * 320
    torch.testing.assert_close(found.waveform[:start], found.round_trip[:start], rtol=0, atol=1e-7)
    assert not torch.allclose(found.waveform[start : 46 * 320], found.round_trip[start : 46 * 320], rtol=0, atol=1e-6)
    assert len(found.waveform) == SAMPLES
    for start_seconds, end_seconds in ((-0.1, 0.5), (0.5, 0.5), (0.5, 1.1), (0.0, SAMPLES / 24_000)):
        with pytest.raises(ValueError, match=r"must lie within the clip, which has 1\.00 s, and leave some of it"):
            infill(model, extractor, WAVEFORM, start_seconds, end_seconds)


@pytest.mark.unit
def test_a_gap_that_ends_with_a_frame_fills_no_more(parts: tuple[Any, AudioFormerFeatureExtractor]) -> None:
    """0.28 * 75 is a little above 21 in floating point; and frames that are only touched are filled as a whole."""
    model, extractor = parts
    found = infill(model, extractor, WAVEFORM, 0.2, 0.28, steps=1)
    assert (found.start_seconds, found.end_seconds) == (pytest.approx(15 / 75), pytest.approx(21 / 75))
    with pytest.raises(ValueError, match="and leave some of it"):
        infill(model, extractor, WAVEFORM, 0.001, SAMPLES / 24_000)


@pytest.mark.fault
def test_windows_without_a_frame_are_refused(parts: tuple[Any, AudioFormerFeatureExtractor]) -> None:
    with pytest.raises(ValueError, match=r"window is -3 s; it must be at least a frame, 0\.0133333 s"):
        surprise_track(*parts, WAVEFORM, window_seconds=-3)


@pytest.mark.reference
def test_surprise_of_a_long_clip_is_that_of_its_windows(parts: tuple[Any, AudioFormerFeatureExtractor]) -> None:
    """76 frames in windows of 30: those of the last one that are new."""
    model, extractor = parts
    shares: list[float] = []
    starts, nats = surprise_track(model, extractor, WAVEFORM, window_seconds=0.4, span_frames=2, heard=shares.append)
    tokens = torch.from_numpy(extractor(WAVEFORM, sampling_rate=24_000)["input_ids"][0])
    codes, boa, eoa = tokens[1:-1], tokens[:1], tokens[-1:]
    windows = [surprise(model, torch.cat([boa, codes[s : s + 30], eoa]), span_frames=2) for s in (0, 30, 46)]
    np.testing.assert_allclose(nats, torch.cat([windows[0], windows[1], windows[2][14:]]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(starts, np.arange(76) / 75)
    assert sum(shares) == pytest.approx(1)
