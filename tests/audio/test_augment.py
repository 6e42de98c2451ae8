"""Changes of sound are drawn from their key alone, and do what they say."""

import numpy as np
import pytest

from hf_audioformer.audio import Audio
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
def test_silence_stays_silent() -> None:
    silence = np.zeros(RATE, dtype=np.float32)
    assert not apply(silence, noise_snr_db=0.0)["array"].any()


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
        ({"gain_db": (3.0, -3.0)}, r"gain_db is \(3.0, -3.0\); the lower end must come first"),
        ({"speed": (0.0, 1.0)}, "speeds must be positive"),
        ({"copies": -1}, "copies is -1; it must be at least 0"),
    ],
)
def test_ranges_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioAugmentation(**settings)
