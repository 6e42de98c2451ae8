"""Events are the stretches that one would draw by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_audioformer.inference import Event, find_events, score_track


@pytest.mark.unit
def test_steps_have_the_scores_of_the_nearest_window() -> None:
    """Windows of 2 s every 0.5 s over 4.2 s, and the last one, which ends with the clip."""
    centres = np.array([1.0, 1.5, 2.0, 2.5, 3.0, 3.2])
    track = score_track(np.arange(6.0)[:, None], centres, 0.5, 4.2)
    assert track[:, 0].tolist() == [0, 0, 0, 1, 2, 3, 5, 5, 5]


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=20, unique=True), st.integers(1, 12))
def test_no_window_is_nearer_than_the_one_taken(centres: list[int], steps: int) -> None:
    """Of two as near, the earlier; quarters of a second are exact in floating point."""
    places = np.array(sorted(centres)) / 4
    track = score_track(np.arange(len(places))[:, None], places, 0.5, steps / 2)
    expected = [np.abs(places - (step + 0.5) / 2).argmin() for step in range(steps)]
    assert track[:, 0].tolist() == expected


@pytest.mark.unit
def test_a_day_of_scores_fits_into_memory() -> None:
    """Every window beside every step would be 10^12 distances."""
    centres = np.arange(864_000) / 10
    scores = np.arange(864_000.0)[:, None]
    assert score_track(scores, centres + 0.05, 0.1, 86_400)[:, 0].tolist() == scores[:, 0].tolist()


@pytest.mark.unit
def test_events_of_a_track_drawn_by_hand() -> None:
    dog = [0.9, 0.2, 0.5, 0.7, 0.1]
    rain = [0.1, 0.1, 0.1, 0.6, 0.8]
    none = [0.49, 0.4, 0.3, 0.2, 0.1]
    found = find_events(np.array([dog, rain, none]).T, ("dog", "rain", "none"), 0.5, 2.3, 0.5)
    assert found == [
        Event("dog", 0.0, 0.5, 0.9),
        Event("dog", 1.0, 2.0, 0.7),
        Event("rain", 1.5, 2.3, 0.8),
    ]
    assert find_events(np.array([dog]).T, ("dog",), 0.5, 2.5, 0.0) == [Event("dog", 0.0, 2.5, 0.9)]
    assert find_events(np.array([none]).T, ("none",), 0.5, 2.5, 0.5) == []


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=1, max_size=30))
def test_a_step_is_within_an_event_exactly_if_it_scores_enough(scores: list[float]) -> None:
    events = find_events(np.array(scores)[:, None], ("a",), 0.25, 0.25 * len(scores), 0.5)
    for step, score in enumerate(scores):
        middle = (step + 0.5) * 0.25
        assert (score >= 0.5) == any(event.start_seconds < middle < event.end_seconds for event in events)
    ends = [(event.start_seconds, event.end_seconds) for event in events]
    assert all(before[1] < after[0] for before, after in pairwise(ends))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (0.0, [(0, 1, 0.9), (2, 4, 0.7), (7, 8, 0.6)]),
        (0.4, [(0, 1, 0.9), (2, 4, 0.7), (7, 8, 0.6)]),
        (0.5, [(0, 4, 0.9), (7, 8, 0.6)]),
        (1.5, [(0, 8, 0.9)]),
    ],
)
def test_short_gaps_are_closed(gap: float, expected: list[tuple[int, int, float]]) -> None:
    scores = np.array([0.9, 0.2, 0.5, 0.7, 0.1, 0.1, 0.4, 0.6, 0.3])[:, None]
    found = find_events(scores, ("a",), 0.5, 4.5, 0.5, merge_gaps_seconds=gap)
    assert found == [Event("a", first / 2, end / 2, score) for first, end, score in expected]


@pytest.mark.fault
def test_refuses_a_gap_below_nothing() -> None:
    with pytest.raises(ValueError, match=r"merge_gaps_seconds is -1; it must be at least 0"):
        find_events(np.zeros((1, 1)), ("a",), 0.5, 0.5, 0.5, merge_gaps_seconds=-1)


@pytest.mark.fault
def test_refuses_a_threshold_that_no_score_can_reach() -> None:
    with pytest.raises(ValueError, match=r"threshold is 1.5; it must lie between 0 and 1"):
        find_events(np.zeros((1, 1)), ("a",), 0.5, 0.5, 1.5)
