"""Changes of log-mels are drawn from their key alone, and are those of the official recipe."""

from dataclasses import fields, replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torchaudio

from hf_audioformer.audio.spectrogram_augment import (
    SpectrogramAugmentation,
    SpectrogramChange,
    mix_log_mels,
    mix_waveforms,
)

EVERYTHING = SpectrogramAugmentation(
    frequency_mask=24,
    time_mask=30,
    num_masks=2,
    mixup=0.5,
    spectrogram_noise=0.1,
    roll_frames=10,
    gain_db=(-6.0, 6.0),
    speed=(0.8, 1.2),
    shift=0.5,
    noise_snr_db=(10.0, 30.0),
)


def changes(augmentation: SpectrogramAugmentation, count: int = 500) -> list[SpectrogramChange]:
    return [augmentation.draw(0, 0, clip, num_clips=7) for clip in range(count)]


@pytest.mark.reference
@pytest.mark.parametrize("clip", range(20))
def test_masks_are_those_of_torchaudio_with_the_same_draws(clip: int) -> None:
    log_mel = torch.randn(98, 128)
    augmentation = SpectrogramAugmentation(frequency_mask=48, time_mask=192 if clip % 2 else 40)
    change = augmentation.draw(0, 0, clip, 1)
    draws = [torch.tensor([share]) for mask in (*change.frequency_masks, *change.time_masks) for share in mask]
    with patch.object(torch, "rand", side_effect=draws):
        expected = torchaudio.transforms.FrequencyMasking(48)(log_mel.T[None])
        expected = torchaudio.transforms.TimeMasking(augmentation.time_mask, p=0.5)(expected)[0].T
    masked = augmentation.mask(log_mel, change)
    torch.testing.assert_close(masked, expected, rtol=0, atol=0)
    assert (masked == 0).any()


@pytest.mark.unit
def test_masks_have_every_width_below_the_largest_and_lie_everywhere() -> None:
    augmentation = SpectrogramAugmentation(frequency_mask=8, time_mask=4, num_masks=1)
    hidden = [augmentation.mask(torch.ones(20, 16), change) == 0 for change in changes(augmentation)]
    bands, frames = ([mask.all(axis) for mask in hidden] for axis in (0, 1))
    assert {int(mask.sum()) for mask in bands} == set(range(8))
    assert {int(mask.sum()) for mask in frames} == set(range(4))
    assert torch.stack(bands).any(0)[:-1].all()  # the rule, rounding down, hardly ever reaches the last
    assert torch.stack(frames).any(0)[:-1].all()
    assert torch.equal(hidden[0], bands[0] | frames[0][:, None])


@pytest.mark.unit
def test_at_most_half_of_a_clip_is_masked_and_the_clip_itself_is_not_changed() -> None:
    for num_masks, frames, most in ((1, 1, 0), (1, 2, 0), (1, 10, 4), (1, 98, 48), (3, 98, 37)):
        augmentation = SpectrogramAugmentation(time_mask=192, num_masks=num_masks)
        log_mel = torch.ones(frames, 8)
        hidden = [int((augmentation.mask(log_mel, change) == 0).all(1).sum()) for change in changes(augmentation)]
        assert max(hidden) == most
        assert (log_mel == 1).all()


@pytest.mark.unit
def test_a_mask_below_one_is_a_share_of_each_clip() -> None:
    shares = SpectrogramAugmentation(frequency_mask=0.25, time_mask=0.2)
    for frames, bands in ((40, 32), (500, 128)):
        numbers = SpectrogramAugmentation(frequency_mask=bands // 4, time_mask=frames // 5)
        log_mel = torch.ones(frames, bands)
        for change in changes(shares, 50):
            assert torch.equal(shares.mask(log_mel, change), numbers.mask(log_mel, change))


@pytest.mark.unit
def test_nothing_is_changed_by_default() -> None:
    nothing = SpectrogramAugmentation()
    log_mel = torch.randn(9, 4)
    for change in changes(nothing, 20):
        assert change.partner is None
        assert (change.weight, change.sound.speed, change.sound.gain_db, change.sound.shift) == (1, 1, 0, 0)
        assert change.sound.noise_snr_db == np.inf
        assert torch.equal(nothing.disturb(nothing.mask(log_mel, change), change), log_mel)


@pytest.mark.unit
def test_draws_lie_in_their_ranges_and_are_as_frequent_as_told() -> None:
    drawn = changes(EVERYTHING, 2000)
    mixed = [change for change in drawn if change.partner is not None]
    assert 0.45 < len(mixed) / 2000 < 0.55
    assert {change.partner for change in mixed} == set(range(7))
    assert all(change.weight == 1.0 for change in drawn if change.partner is None)
    weights = np.array([change.weight for change in mixed])
    assert weights.mean() == pytest.approx(0.5, abs=0.01)
    assert weights.var() == pytest.approx(1 / (4 * 21), rel=0.15)  # of Beta(10, 10)
    assert {change.roll for change in drawn} == set(range(-10, 11))
    for sounds in ([change.sound for change in drawn], [change.partner_sound for change in drawn]):
        for name, (low, high) in {"speed": (0.8, 1.2), "gain_db": (-6, 6), "noise_snr_db": (10, 30)}.items():
            values = np.array([getattr(sound, name) for sound in sounds])
            assert low <= values.min() < low + 0.02 * (high - low) < high - 0.02 * (high - low) < values.max() <= high
        assert np.abs([sound.shift for sound in sounds]).max() == pytest.approx(0.5, abs=0.01)
    levels = np.array([change.noise_level for change in drawn])
    assert 0 <= levels.min() < 0.001 < 0.099 < levels.max() < 0.1


@pytest.mark.invariant
def test_draws_depend_on_seed_epoch_and_clip_alone() -> None:
    keys = [(seed, epoch, clip) for seed in range(2) for epoch in range(2) for clip in range(2)]
    drawn = {key: EVERYTHING.draw(*key, 7) for key in keys}
    assert len(set(drawn.values())) == len(keys)
    assert all(EVERYTHING.draw(*key, 7) == drawn[key] for key in reversed(keys))
    change = drawn[keys[0]]
    assert change.sound != change.partner_sound
    assert len({*change.frequency_masks, *change.time_masks}) == 4


@pytest.mark.invariant
def test_a_setting_keeps_the_other_draws() -> None:
    off = {"frequency_mask": 0, "time_mask": 0, "gain_db": (0.0, 0.0), "noise_snr_db": None, "shift": 0.0}
    for clip in range(50):
        full, fewer = (augment.draw(0, 0, clip, 7) for augment in (EVERYTHING, replace(EVERYTHING, **off)))
        same = [field.name for field in fields(full) if "sound" not in field.name]
        assert all(getattr(full, name) == getattr(fewer, name) for name in same)
        assert full.sound.speed == fewer.sound.speed


@pytest.mark.unit
def test_noise_is_uniform_from_0_to_its_level_and_the_roll_goes_round() -> None:
    change = replace(EVERYTHING.draw(0, 0, 0, 7), noise_level=0.08, roll=0)
    noise = EVERYTHING.disturb(torch.zeros(500, 128), change)
    assert 0 <= noise.min() < 1e-4 < 0.0799 < noise.max() < 0.08
    assert noise.mean().item() == pytest.approx(0.04, abs=1e-3)
    assert torch.equal(noise, EVERYTHING.disturb(torch.zeros(500, 128), change))
    ramp = torch.arange(6.0)[:, None]
    rolled = EVERYTHING.disturb(ramp, replace(change, noise_level=0.0, roll=-2))
    assert rolled.flatten().tolist() == [2, 3, 4, 5, 0, 1]


def official_mixture(one: torch.Tensor, other: torch.Tensor, weight: float) -> torch.Tensor:
    """As `_wav2fbank` of the official code mixes (1, samples)."""
    one, other = one - one.mean(), other - other.mean()
    if one.shape[1] > other.shape[1]:
        padded = torch.zeros(1, one.shape[1])
        padded[0, : other.shape[1]] = other
        other = padded
    else:
        other = other[:, : one.shape[1]]
    mixed = weight * one + (1 - weight) * other
    return mixed - mixed.mean()


@pytest.mark.reference
@pytest.mark.parametrize("length", [50, 100, 150])
def test_waveforms_are_mixed_as_in_the_official_code(length: int) -> None:
    one, other = torch.rand(1, 100), 3 + torch.rand(1, length)
    before = one.clone()
    mixed = mix_waveforms(one[0].numpy(), other[0].numpy(), 0.3)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, official_mixture(one, other, 0.3)[0].numpy(), atol=1e-6)
    assert torch.equal(one, before)


@pytest.mark.unit
def test_log_mels_are_mixed_where_both_have_frames() -> None:
    one, other = torch.full((5, 2), 4.0), torch.full((3, 2), -2.0)
    assert mix_log_mels(one, other, 0.5)[:, 0].tolist() == [1, 1, 1, 4, 4]
    assert mix_log_mels(other, one, 0.25)[:, 0].tolist() == [2.5, 2.5, 2.5]
    assert (one == 4).all()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gain_db": (float("nan"), 3.0)}, r"gain_db is \(nan, 3.0\); it must be two numbers, the lower end first"),
        ({"gain_db": (3.0, -3.0)}, r"gain_db is \(3.0, -3.0\); it must be two numbers, the lower end first"),
        ({"noise_snr_db": (3.0, -3.0)}, r"noise_snr_db is \(3.0, -3.0\); it must be two numbers, the lower end first"),
        ({"speed": (0.0, 1.0)}, "speeds must be positive"),
        ({"shift": 1.5}, r"shift is 1.5; it must lie in \[0, 1\]"),
        ({"mixup": -0.1}, r"mixup is -0.1; it must lie in \[0, 1\]"),
        ({"time_mask": -1}, "time_mask is -1; it must be at least 0"),
        ({"roll_frames": -1}, "roll_frames is -1; it must be at least 0"),
        ({"time_mask": 1.0}, "time_mask is 1; masks from 0 to below 1 frame or band hide nothing"),
        ({"num_masks": 0}, "num_masks is 0; it must be at least 1"),
        ({"mixup_concentration": 0.0}, "mixup_concentration is 0.0; it must be positive"),
        ({"patch_dropout": 1.0}, "patch_dropout is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_ranges_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpectrogramAugmentation(**settings)
