"""Changes of sound are drawn from their key alone, and do what they say."""

from unittest.mock import patch

import numpy as np
import pytest

from hf_audioformer.audio import Audio, augment
from hf_audioformer.audio.augment import AudioAugmentation, AudioChange, apply_change

RATE = 16_000
NOTHING = {"speed": 1.0, "gain_db": 0.0, "noise_snr_db": 200.0, "noise_tilt": 0.0, "noise_seed": 0}


def sine(frequency_hz: float = 500.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(RATE) / RATE)).astype(np.float32)


def apply(waveform: np.ndarray, **change: float) -> Audio:
    return apply_change({"array": waveform, "sampling_rate": RATE}, AudioChange(**(NOTHING | change)))


def changed(**change: float) -> np.ndarray:
    return apply(sine(), **change)["array"]


@pytest.mark.unit
def test_a_change_of_nothing_gives_the_clip_back() -> None:
    result = changed()
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, sine(), atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize(("speed", "rate"), [(0.8, 12_800), (1.25, 20_000), (1.0031, 16_000)])
def test_speed_is_a_change_of_the_sampling_rate(speed: float, rate: int) -> None:
    result = apply(sine(), speed=speed)
    assert result["sampling_rate"] == rate
    np.testing.assert_allclose(result["array"], sine(), atol=1e-6)


@pytest.mark.unit
def test_gain_is_in_decibel() -> None:
    np.testing.assert_allclose(changed(gain_db=-6.0), sine() * 10 ** (-6 / 20), atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("tilt", [0.0, 1.0])
def test_noise_has_its_level_and_tilt(tilt: float) -> None:
    noise = changed(noise_snr_db=20.0, noise_tilt=tilt).astype(np.float64) - sine()
    ratio_db = 20 * np.log10(np.std(sine()) / np.std(noise))
    assert ratio_db == pytest.approx(20.0, abs=0.1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves_apart_db = 10 * np.log10(power[1000:2000].mean() / power[4000:8000].mean())
    assert octaves_apart_db == pytest.approx(12.0 * tilt, abs=1.0)


@pytest.mark.unit
def test_quick_noise_has_the_same_level_at_any_length() -> None:
    audio: Audio = {"array": sine()[:15_991], "sampling_rate": RATE}  # a prime number of samples
    change = AudioChange(**(NOTHING | {"noise_snr_db": 20.0, "noise_tilt": 0.7}))
    quick, exact = (apply_change(audio, change, quick_noise=quick)["array"] for quick in (True, False))
    for result in (quick, exact):
        ratio_db = 20 * np.log10(np.std(audio["array"]) / np.std(result - audio["array"]))
        assert ratio_db == pytest.approx(20.0, abs=0.1)
    assert not np.array_equal(quick, exact)


@pytest.mark.unit
def test_no_noise_is_made_for_an_infinite_ratio_and_no_rate_rounded_at_speed_1() -> None:
    audio: Audio = {"array": sine(), "sampling_rate": 11_025}
    with patch.object(augment, "_noise", side_effect=AssertionError):
        same = apply_change(audio, AudioChange(**(NOTHING | {"noise_snr_db": np.inf})))
    np.testing.assert_array_equal(same["array"], sine())
    assert same["sampling_rate"] == 11_025


@pytest.mark.unit
def test_silence_stays_silent() -> None:
    silence = np.zeros(RATE, dtype=np.float32)
    assert not apply(silence, noise_snr_db=0.0)["array"].any()


@pytest.mark.unit
def test_shift_rolls_the_clip() -> None:
    ramp = np.linspace(-0.5, 0.5, RATE, dtype=np.float32)
    np.testing.assert_allclose(apply(ramp, shift=0.25)["array"], np.roll(ramp, RATE // 4), atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("partner_rate", [RATE, 2 * RATE])
def test_a_partner_is_mixed_in_at_one_level_and_constant_power(partner_rate: int) -> None:
    partner: Audio = {
        "array": (0.01 * np.sin(2 * np.pi * 2000 * np.arange(partner_rate // 2) / partner_rate)).astype(np.float32),
        "sampling_rate": partner_rate,
    }
    change = AudioChange(**(NOTHING | {"partner": 1, "weight": 0.75}))
    mixed = apply_change({"array": sine(), "sampling_rate": RATE}, change, partner)["array"]
    assert mixed.shape == sine().shape
    power = np.abs(np.fft.rfft(mixed)) ** 2
    assert 10 * np.log10(power[500] / power[2000]) == pytest.approx(20 * np.log10(3), abs=0.3)
    assert np.std(mixed) == pytest.approx(np.std(sine()), rel=0.02)


@pytest.mark.unit
def test_partners_and_weights_are_drawn_as_often_as_said() -> None:
    augmentation = AudioAugmentation(copies=1, mixup=0.5, mixup_within="fold", mixup_weight=(0.6, 0.9))
    drawn = [augmentation.draw(0, 0, clip, partners=[7, 8, 9]) for clip in range(400)]
    mixed = [change for change in drawn if change.partner is not None]
    assert 160 < len(mixed) < 240
    assert {change.partner for change in mixed} == {7, 8, 9}
    assert all(0.6 <= change.weight <= 0.9 for change in mixed)
    assert all(change.weight == 1.0 for change in drawn if change.partner is None)
    assert augmentation.draw(0, 0, 0).partner is None


@pytest.mark.invariant
def test_draws_depend_on_seed_copy_and_clip_alone() -> None:
    augmentation = AudioAugmentation(copies=2)
    changes = {key: augmentation.draw(*key) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(set(changes.values())) == 4
    assert augmentation.draw(0, 0, 1) == changes[0, 0, 1]
    for change in changes.values():
        for name in ("speed", "gain_db", "noise_snr_db"):
            low, high = getattr(augmentation, name)
            assert low <= getattr(change, name) <= high


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gain_db": (3.0, -3.0)}, r"gain_db is \(3.0, -3.0\); it must be two numbers, the lower end first"),
        ({"speed": (0.0, 1.0)}, "speeds must be positive"),
        ({"copies": -1}, "copies is -1; it must be at least 0"),
        ({"shift": 1.5}, r"shift is 1.5; it must lie in \[0, 1\]"),
        ({"mixup": -0.1}, r"mixup is -0.1; it must lie in \[0, 1\]"),
        ({"mixup": 0.5, "mixup_within": "fold"}, "mixup is 0.5 and copies 0; only changed copies are mixed"),
        ({"mixup": 0.5}, "mixup is 0.5 and mixup_within None; set both"),
        ({"mixup_weight": (0.0, 1.0)}, r"mixup_weight is \(0.0, 1.0\); shares lie in \(0, 1\]"),
    ],
)
def test_ranges_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioAugmentation(**settings)
