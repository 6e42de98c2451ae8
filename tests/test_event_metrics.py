"""Metrics of events against counting by hand and slow formulas; `psds_eval` and `sed_eval` gave the figures stored."""

import itertools
import math

import numpy as np
import pytest

from hf_audioformer.event_metrics import (
    EventCounts,
    Span,
    count_events,
    count_segments,
    macro_f1,
    merged,
    micro_f1,
    psds,
    stretches,
)

CLASSES, SECONDS = 3, 10.0


def random_spans(random: np.random.Generator, most: int) -> list[Span]:
    onsets = random.uniform(0, 8, size=int(random.integers(most + 1))).round(2)
    return merged(
        (int(random.integers(CLASSES)), float(onset), round(float(onset + random.uniform(0.2, 4)), 2))
        for onset in onsets
    )


@pytest.mark.unit
def test_spans_of_one_class_that_touch_become_one() -> None:
    spans = [(1, 2.0, 3.0), (0, 0.5, 1.0), (1, 3.0, 4.0), (0, 0.0, 2.0), (1, 5.0, 6.0)]
    assert merged(spans) == [(0, 0.0, 2.0), (1, 2.0, 4.0), (1, 5.0, 6.0)]
    active = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], dtype=bool)
    assert stretches(active) == [(0, 0, 2), (0, 3, 4), (1, 1, 4)]


@pytest.mark.unit
def test_segments_are_counted_where_a_class_is_active_anywhere() -> None:
    true, found = [(0, 0.5, 2.0), (1, 9.0, 12.0)], [(0, 1.9, 2.1), (2, 3.0, 3.0)]
    counts = count_segments(true, found, 10.0, CLASSES)
    assert counts.true_positives.tolist() == [1, 0, 0]
    assert counts.false_positives.tolist() == [1, 0, 1]
    assert counts.false_negatives.tolist() == [1, 1, 0]
    assert counts.f1().tolist() == [0.5, 0.0, 0.0]
    assert micro_f1(counts) == pytest.approx(2 / 6)
    counts = count_segments([], [(0, 0.0, 525 / 75), (1, 0.0, 525 * (1 / 75))], 10.0, CLASSES)  # 7.000000000000001
    assert counts.false_positives.tolist() == [7, 7, 0]


@pytest.mark.reference
def test_segments_equal_a_loop_over_them() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        true, found = random_spans(random, 4), random_spans(random, 4)
        expected = np.zeros((3, CLASSES), dtype=int)
        for segment, label in itertools.product(range(12), range(CLASSES)):
            is_true, is_found = (
                any(span[0] == label and span[1] < segment + 1 and span[2] > segment for span in spans)
                for spans in (true, found)
            )
            expected[:, label] += [is_true and is_found, is_found and not is_true, is_true and not is_found]
        counts = count_segments(true, found, 12.0, CLASSES)
        np.testing.assert_array_equal([counts.true_positives, counts.false_positives, counts.false_negatives], expected)


@pytest.mark.reference
def test_as_many_events_are_paired_as_can_be() -> None:
    """Against every order of pairing; what is nearest first would pair fewer in the first example."""
    assert count_events([(0, 1.0, 3.0), (0, 1.2, 3.2)], [(0, 1.15, 3.1), (0, 1.4, 3.3)], 1).true_positives[0] == 2
    assert count_events([(0, 1.0, 5.0)], [(0, 1.2, 5.8)], 1).true_positives[0] == 1  # a fifth of 4 s at the end
    assert count_events([(0, 1.0, 5.0)], [(0, 1.21, 5.0)], 1).false_positives[0] == 1
    random = np.random.default_rng(1)
    for _ in range(20):
        true = [(0, float(onset), float(onset + 1)) for onset in random.uniform(0, 0.8, size=4)]
        found = [(0, float(onset), float(onset + 1)) for onset in random.uniform(0, 0.8, size=4)]
        most = max(
            sum(abs(a[1] - b[1]) <= 0.2 and abs(a[2] - b[2]) <= 0.2 for a, b in zip(true, order, strict=True))
            for order in itertools.permutations(found)
        )
        assert count_events(true, found, 1).true_positives[0] == most


@pytest.mark.unit
def test_counts_of_clips_may_be_drawn_again() -> None:
    one, other = (count_events([(0, 0.0, 1.0)], found, 2) for found in ([(0, 0.0, 1.0)], [(1, 0.0, 1.0)]))
    counts = EventCounts.of_clips([one, other])
    assert counts.total().f1().tolist() == [2 / 3, 0.0]
    assert macro_f1(counts.total()) == pytest.approx(1 / 3)
    assert macro_f1(counts.total(np.array([0, 0]))) == 1.0
    assert math.isnan(macro_f1(count_events([], [], 2)))


@pytest.mark.reference
@pytest.mark.parametrize(("scenario", "expected"), [("1", 0.434948332352236), ("2", 0.472829998573332)])
def test_psds_equals_psds_eval(scenario: str, expected: float) -> None:
    """30 clips of four classes at eight thresholds, each with other mistakes: figures of psds_eval 0.5.3."""
    random = np.random.default_rng(0)

    def spans(count: int) -> list[Span]:
        return merged(
            (int(random.integers(4)), (onset := round(float(random.uniform(0, 8)), 3)), _end(onset, random))
            for _ in range(count)
        )

    def mistaken(of_clip: list[Span], spread: float) -> list[Span]:
        return merged(
            (
                label if random.random() > 0.2 else int(random.integers(4)),
                max(0, round(onset + random.normal() * spread, 3)),
                min(10.0, round(max(onset + 0.2, offset + random.normal() * spread), 3)),
            )
            for label, onset, offset in of_clip
            if random.random() > 0.2
        )

    true = [spans(random.integers(0, 4)) for _ in range(30)]
    found = [
        [
            [
                span
                for span in merged(
                    mistaken(of_clip, 0.1 + 0.05 * step) + (spans(1) if random.random() < 0.1 * step else [])
                )
                if span[2] > span[1]
            ]
            for of_clip in true
        ]
        for step in range(8)
    ]
    settings = {"detection_share": 0.1, "truth_share": 0.1, "cross_share": 0.3, "cross_weight": 0.5}
    assert psds(true, found, 300.0, 4, **(settings if scenario == "2" else {})) == pytest.approx(expected)
    assert psds(true, [true], 300.0, 4) == pytest.approx(1.0)
    assert math.isnan(psds(true, found, 300.0, 5))


def _end(onset: float, random: np.random.Generator) -> float:
    return round(onset + float(random.uniform(0.3, 4)), 3)
