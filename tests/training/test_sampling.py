"""Steps of equal size at any number of processes, in an order keyed by seed and epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_audioformer.training.sampling import WholeStepSampler


@pytest.mark.property
@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 3))
def test_every_step_is_full_and_no_clip_is_left_out(num_clips: int, clips_per_step: int, epoch: int) -> None:
    sampler = WholeStepSampler(num_clips, clips_per_step)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler)
    assert len(order) % clips_per_step == 0
    assert len(order) - num_clips < clips_per_step
    counts = np.bincount(order, minlength=num_clips)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1
    first = epoch * len(order) // clips_per_step
    assert sampler.clips_of_step(first) == order[:clips_per_step]


@pytest.mark.unit
def test_steps_of_one_length_pad_less_and_still_see_every_clip() -> None:
    lengths = np.random.default_rng(0).integers(10, 500, size=1000)
    padding = {}
    for name, known in (("plain", None), ("grouped", lengths)):
        order = np.array(list(WholeStepSampler(1000, 8, lengths=known)))
        assert set(order) == set(range(1000))
        steps = lengths[order].reshape(-1, 8)
        padding[name] = (steps.max(axis=1, keepdims=True) - steps).sum()
        assert abs(np.corrcoef(steps.mean(axis=1), np.arange(len(steps)))[0, 1]) < 0.3  # long ones are not all last
    assert padding["grouped"] < 0.1 * padding["plain"]


@pytest.mark.invariant
def test_the_order_is_keyed_by_seed_and_epoch() -> None:
    orders = []
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        sampler = WholeStepSampler(30, 8, seed)
        sampler.set_epoch(epoch)
        orders.append(tuple(sampler))
    assert orders[0] == orders[3]
    assert len(set(orders)) == 3


@pytest.mark.invariant
def test_draws_by_weight_are_frequent_as_told_and_keyed_by_seed_and_epoch() -> None:
    weights = np.array([0.0, 1.0, 1.0, 6.0])
    counts, orders = np.zeros(4), []
    for epoch in range(500):
        sampler = WholeStepSampler(4, 3, seed=1, weights=weights)
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert len(orders[-1]) == len(sampler) == 6
        assert sampler.clips_of_step(2 * epoch) == orders[-1][:3]
        counts += np.bincount(orders[-1], minlength=4)
    np.testing.assert_allclose(counts / counts.sum(), weights / 8, atol=0.03)
    assert len({tuple(order) for order in orders}) > 100


@pytest.mark.unit
@pytest.mark.parametrize("weights", [None, np.array([1.0, 5, 1, 1])])
def test_repeats_within_an_epoch_are_counted(weights: np.ndarray | None) -> None:
    sampler = WholeStepSampler(4, 11, weights=weights)
    seen: Counter[int] = Counter()
    for draw in sampler:
        assert draw.occurrence == seen[draw]
        seen[draw] += 1
    assert seen.total() == 11
    assert [*sampler] == sampler.clips_of_step(0)


@pytest.mark.fault
@pytest.mark.parametrize(
    "weights", [np.ones(3), np.zeros(4), np.array([1.0, -1, 1, 1]), np.array([1.0, np.nan, 1, 1]), np.ones((4, 1))]
)
def test_weights_that_cannot_be_drawn_by(weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"sampling weights must be one number per clip \(4\)"):
        WholeStepSampler(4, 3, weights=weights)
