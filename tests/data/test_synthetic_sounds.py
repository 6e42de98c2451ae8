"""Synthetic sounds are what their labels say."""

import numpy as np
import pytest

from hf_audioformer.data import read_clips
from hf_audioformer.data.synthetic_sounds import (
    NUM_SAMPLES,
    SAMPLING_RATE,
    BandNoise,
    Bursts,
    Clicks,
    ColouredNoise,
    Part,
    Steady,
    Swell,
    SyntheticSound,
    Tone,
    Tremolo,
    draw_sound,
)


def rendered(part: Part, seed: int = 0) -> np.ndarray:
    return part.render(np.random.default_rng(seed))


def power_by_hz(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and the power of each."""
    return np.fft.rfftfreq(len(samples), 1 / SAMPLING_RATE), np.abs(np.fft.rfft(samples)) ** 2


def pitch_hz(samples: np.ndarray) -> float:
    hz, power = power_by_hz(samples * np.hanning(len(samples)))
    return float(hz[power.argmax()])


@pytest.mark.unit
def test_the_known_set_renders_each_sound_when_it_is_loaded() -> None:
    clips = read_clips("synthetic")
    assert len(clips) == 4000
    assert clips.multi_label
    assert len(clips.label_names) == 51
    assert clips.targets().sum(axis=0).min() > 100
    sound = draw_sound(7)
    assert {clips.label_names[index] for index in clips.targets()[7].nonzero()[0]} == set(sound.labels)
    audio = clips.load(7)
    assert audio["sampling_rate"] == SAMPLING_RATE
    assert np.array_equal(audio["array"], sound.render()["array"])


@pytest.mark.unit
@pytest.mark.parametrize("seed", range(20))
def test_a_sound_depends_on_its_seed_alone_and_has_its_level(seed: int) -> None:
    sound = draw_sound(seed)
    samples = sound.render()["array"]
    assert np.array_equal(samples, draw_sound(seed).render()["array"])
    assert samples.shape == (NUM_SAMPLES,)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 1
    level_dbfs = 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))
    assert -35.1 < level_dbfs < -11.9
    if np.abs(samples).max() < 1:
        assert level_dbfs == pytest.approx(sound.level_dbfs, abs=0.01)


@pytest.mark.unit
def test_labels_of_all_layers_are_given_once() -> None:
    layers = ((ColouredNoise(0.0), Steady(), 0.0), (Tone(440, "flat", 0, 1, 2.0), Steady(), 3.0))
    assert SyntheticSound(layers, 30, -20, 0).labels == [
        "dull tone",
        "flat tone",
        "noise",
        "noise of colour 4",
        "steady",
        "tone",
        "tone of pitch 4",
    ]


@pytest.mark.unit
def test_colour_is_the_slope_of_the_spectrum() -> None:
    hz, power = power_by_hz(rendered(ColouredNoise(-1.0)))
    means = [power[(hz > low) & (hz < 2 * low)].mean() for low in (200, 400, 800, 1600)]
    assert np.diff(10 * np.log10(means)) == pytest.approx(-6, abs=0.7)


@pytest.mark.unit
def test_a_band_lies_around_its_centre() -> None:
    hz, power = power_by_hz(rendered(BandNoise(1000, 1.0)))
    assert power[(hz > 500) & (hz < 2000)].sum() > 0.95 * power.sum()
    assert (hz * power).sum() / power.sum() == pytest.approx(1000, rel=0.15)


@pytest.mark.unit
@pytest.mark.parametrize(("motion", "expected"), [("flat", 0.0), ("rising", 0.8), ("falling", -0.8)])
def test_the_pitch_of_a_tone_goes_where_it_says(motion: str, expected: float) -> None:
    samples = rendered(Tone(300, motion, 1.0, 1.0, 2.0))
    early, late = (pitch_hz(samples[int(at * SAMPLING_RATE) :][:1600]) for at in (0.05, 0.85))
    assert np.log2(late / early) == pytest.approx(expected, abs=0.05)
    assert np.log2(early / 300) == pytest.approx(expected / 8, abs=0.05)


@pytest.mark.unit
def test_the_pitch_of_vibrato_swings_around_its_own() -> None:
    samples = rendered(Tone(300, "vibrato", 0.3, 2.0, 2.0))
    hz, power = power_by_hz(samples)
    near = (hz > 200) & (hz < 450)
    low, high = hz[near][power[near] > 0.01 * power[near].max()][[0, -1]]
    assert np.log2(low / 300) == pytest.approx(-0.3, abs=0.05)
    assert np.log2(high / 300) == pytest.approx(0.3, abs=0.05)


@pytest.mark.unit
def test_harmonics_stay_below_half_the_rate() -> None:
    hz, power = power_by_hz(rendered(Tone(1500, "rising", 1.0, 1.0, 0.5)))
    assert power[(hz > 7900)].sum() < 0.01 * power.sum()


@pytest.mark.unit
@pytest.mark.parametrize("is_regular", [True, False])
@pytest.mark.parametrize("ring_hz", [None, 1000.0])
def test_clicks_come_at_their_rate(is_regular: bool, ring_hz: float | None) -> None:
    counts = []
    for seed in range(20):
        samples = np.abs(rendered(Clicks(4.0, is_regular, 0.003, ring_hz), seed))
        loud = np.flatnonzero(samples > 0.05 * samples.max())
        starts = loud[np.flatnonzero(np.diff(loud, prepend=-SAMPLING_RATE) > 0.02 * SAMPLING_RATE)]
        counts.append(len(starts))
        if is_regular:
            assert np.diff(starts) == pytest.approx(SAMPLING_RATE / 4, abs=20)
    assert np.mean(counts) == pytest.approx(20, abs=3)


@pytest.mark.unit
def test_clicks_rarer_than_the_sound_is_long_are_heard_all_the_same() -> None:
    assert np.abs(rendered(Clicks(0.1, False, 0.01, None))).max() > 0


@pytest.mark.unit
def test_tremolo_has_its_rate_and_depth() -> None:
    envelope = rendered(Tremolo(5.0, 0.6))
    assert pitch_hz(envelope - envelope.mean()) == pytest.approx(5.0, abs=0.2)
    assert (envelope.min(), envelope.max()) == pytest.approx((0.4, 1.0), abs=1e-3)


@pytest.mark.unit
def test_bursts_begin_in_silence_and_die_away() -> None:
    envelope = rendered(Bursts(1, 0.01, 0.1))
    peak = envelope.argmax()
    assert envelope[: peak - int(0.02 * SAMPLING_RATE)].max(initial=0) == 0
    assert envelope[min(NUM_SAMPLES - 1, peak + int(0.5 * SAMPLING_RATE))] < 0.001


@pytest.mark.unit
def test_envelopes_stay_between_silence_and_full() -> None:
    for part in (Steady(), Swell(), Tremolo(2.0, 1.0), Bursts(8, 0.1, 1.0)):
        envelope = rendered(part)
        assert envelope.shape == (NUM_SAMPLES,)
        assert envelope.min() >= 0
        assert 0.3 < envelope.max() <= 1
