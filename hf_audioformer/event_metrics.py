"""Metrics of events, sounds with a beginning and an end: by segments of a second, event by event, and over all
thresholds (PSDS).

A span is a class index with its beginning and its end in seconds; spans of one class in one clip do not overlap
(`merged`). `sed_eval`, `psds_eval` and `sed_scores_eval` compute the same, but no longer run with current versions of
pandas and setuptools.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "EventCounts",
    "Span",
    "count_events",
    "count_segments",
    "macro_f1",
    "merged",
    "micro_f1",
    "psds",
    "stretches",
]

Span = tuple[int, float, float]

SEGMENT_SECONDS = 1.0
COLLAR_SECONDS = 0.2
OFFSET_SHARE = 0.2
SECONDS_PER_HOUR = 3600.0
EFFECTIVE_FALSE_POSITIVES_PER_HOUR = 100.0


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans with those of one class that overlap or touch made one, in the order of their beginning."""
    found: dict[int, list[Span]] = {}
    for label, onset, offset in sorted(spans, key=lambda span: span[1]):
        of_label = found.setdefault(label, [])
        if of_label and onset <= of_label[-1][2]:
            _, first, end = of_label.pop()
            onset, offset = first, max(end, offset)
        of_label.append((label, onset, offset))
    return sorted((span for of_label in found.values() for span in of_label), key=lambda span: (span[1], span[0]))


def stretches(active: np.ndarray, longest_gap: int = 0) -> list[tuple[int, int, int]]:
    """The class of each stretch of True in booleans (steps, classes), with its first step and the one after its last;
    class by class. Two stretches of a class with at most `longest_gap` steps between them are one."""
    edges = np.diff(active.T.astype(np.int8), axis=1, prepend=0, append=0)
    classes, first = np.nonzero(edges == 1)
    _, end = np.nonzero(edges == -1)
    is_new = np.append(True, (classes[1:] != classes[:-1]) | (first[1:] - end[:-1] > longest_gap))[: len(classes)]
    is_last = np.append(is_new[1:], True)[: len(classes)]
    return list(zip(classes[is_new].tolist(), first[is_new].tolist(), end[is_last].tolist(), strict=True))


@dataclass(frozen=True)
class EventCounts:
    """What was right and wrong of each class: int64 (classes,) each, or (clips, classes)."""

    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray

    @classmethod
    def of_clips(cls, counts: Sequence[EventCounts]) -> EventCounts:
        """The counts of several clips, (clips, classes)."""
        names = ("true_positives", "false_positives", "false_negatives")
        return cls(*(np.stack([getattr(of_clip, name) for of_clip in counts]) for name in names))

    def total(self, clips: np.ndarray | slice = slice(None)) -> EventCounts:
        """Counts of (clips, classes) summed over clips, any of which may come several times."""
        counts = (self.true_positives, self.false_positives, self.false_negatives)
        return EventCounts(*(of_clips[clips].sum(axis=0) for of_clips in counts))

    def f1(self) -> np.ndarray:
        """F1 of each class, float64 (classes,); NaN for a class that neither is there nor was found."""
        twice = 2 * self.true_positives
        counted = twice + self.false_positives + self.false_negatives
        return np.where(counted > 0, twice / np.maximum(counted, 1), np.nan)


def micro_f1(counts: EventCounts) -> float:
    """F1 of all classes together; NaN if there is nothing to count."""
    together = EventCounts(counts.true_positives.sum(), counts.false_positives.sum(), counts.false_negatives.sum())
    return float(together.f1())


def macro_f1(counts: EventCounts) -> float:
    """Mean F1 of the classes that are there or were found; NaN if there is none."""
    scores = counts.f1()
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def count_segments(true: Sequence[Span], found: Sequence[Span], seconds: float, num_labels: int) -> EventCounts:
    """Segments of 1 s in which a class is active anywhere, by what is true and what was found of a clip.

    Source: Mesaros, Heittola, Virtanen, Metrics for polyphonic sound event detection, 2016, section 3.1 (`sed_eval`).
    """
    segments = max(1, math.ceil(round(seconds / SEGMENT_SECONDS, 6)))
    is_true, is_found = (_active_segments(spans, segments, num_labels) for spans in (true, found))
    both = is_true & is_found
    return EventCounts(both.sum(axis=0), (is_found & ~both).sum(axis=0), (is_true & ~both).sum(axis=0))


def _active_segments(spans: Sequence[Span], segments: int, num_labels: int) -> np.ndarray:
    active = np.zeros((segments, num_labels), dtype=bool)
    for label, onset, offset in spans:
        # Rounded, for sums of decimals that binary numbers miss.
        first = math.floor(round(onset / SEGMENT_SECONDS, 6))
        end = math.ceil(round(min(offset / SEGMENT_SECONDS, segments), 6))
        active[first : max(end, first + 1), label] = True
    return active


def count_events(true: Sequence[Span], found: Sequence[Span], num_labels: int) -> EventCounts:
    """Events of a clip, each found one paired with at most one true one of its class: as many pairs as can be.

    A pair begins within 0.2 s, and ends within 0.2 s or a fifth of the true event's length, whichever is more.

    Source: the same, section 3.2, with the collars of DCASE's task 4.
    """
    hits = np.zeros(num_labels, dtype=np.int64)
    there, named = (np.bincount([label for label, *_ in spans], minlength=num_labels) for spans in (true, found))
    for label in np.flatnonzero((there > 0) & (named > 0)).tolist():
        hits[label] = _most_pairs([span for span in true if span[0] == label], [s for s in found if s[0] == label])
    return EventCounts(hits, named - hits, there - hits)


def _most_pairs(true: Sequence[Span], found: Sequence[Span]) -> int:
    from scipy.optimize import linear_sum_assignment

    onsets, offsets = np.array(true)[:, 1:].T
    guessed_onsets, guessed_offsets = np.array(found)[:, 1:].T
    collars = np.maximum(COLLAR_SECONDS, OFFSET_SHARE * (offsets - onsets))
    # A hair more than the collar, for sums of decimals that binary numbers miss.
    fits = np.abs(onsets[:, None] - guessed_onsets) <= COLLAR_SECONDS + 1e-9
    fits &= np.abs(offsets[:, None] - guessed_offsets) <= collars[:, None] + 1e-9
    return int(fits[linear_sum_assignment(fits, maximize=True)].sum())


def psds(
    true: Sequence[Sequence[Span]],
    found: Sequence[Sequence[Sequence[Span]]],
    seconds: float,
    num_labels: int,
    *,
    detection_share: float = 0.7,
    truth_share: float = 0.7,
    cross_share: float | None = None,
    cross_weight: float = 0.0,
    spread_weight: float = 1.0,
) -> float:
    """The polyphonic sound detection score: the area, in [0, 1], under what share of the events is found against how
    many false ones come with it in an hour, up to 100.

    A found event counts if `detection_share` of it lies on true events of its class, else it is false, and one that
    lies by `cross_share` on another class counts for more by `cross_weight`; a true event is found if such ones cover
    `truth_share` of it. Of the shares of the classes the mean counts, less `spread_weight` of their standard deviation.
    The defaults are those of scenario 1 of DCASE's task 4, which asks for exact times; scenario 2, which asks for the
    right class, has the shares 0.1 and 0.1, cross_share 0.3 and cross_weight 0.5.

    Args:
        true: The spans of each clip.
        found: For each threshold, the spans of each clip.
        seconds: Length of all clips together.

    Returns:
        NaN if a class has no true event in any clip, which leaves its share undefined.

    Source: Bilen et al., A framework for the robust evaluation of sound event detection, arXiv 1910.08440.
    """
    lengths = np.zeros(num_labels)
    numbers = np.zeros(num_labels)
    for label, onset, offset in (span for of_clip in true for span in of_clip):
        lengths[label] += offset - onset
        numbers[label] += 1
    if (numbers == 0).any():
        return float("nan")
    points = []
    for of_threshold in found:
        hits, false, crossed = np.zeros(num_labels), np.zeros(num_labels), np.zeros((num_labels, num_labels))
        for truth, guesses in zip(true, of_threshold, strict=True):
            _count_intersections(truth, guesses, detection_share, truth_share, cross_share, hits, false, crossed)
        rates = false * SECONDS_PER_HOUR / seconds
        if cross_weight and num_labels > 1:
            rates = rates + cross_weight * (crossed * SECONDS_PER_HOUR / lengths).sum(axis=1) / (num_labels - 1)
        points.append((rates, hits / numbers))
    return _area(np.array(points), spread_weight)


def _count_intersections(
    true: Sequence[Span],
    found: Sequence[Span],
    detection_share: float,
    truth_share: float,
    cross_share: float | None,
    hits: np.ndarray,
    false: np.ndarray,
    crossed: np.ndarray,
) -> None:
    """Adds what is found, false, and on another class (found, true) in one clip, to counts of classes."""
    if not found:
        return
    guesses = np.array(found)
    labels = guesses[:, 0].astype(int)
    if not true:
        np.add.at(false, labels, 1)
        return
    truth = np.array(true)
    true_labels = truth[:, 0].astype(int)
    common = np.minimum(guesses[:, None, 2], truth[:, 2]) - np.maximum(guesses[:, None, 1], truth[:, 1])
    common = np.maximum(common, 0)
    same = labels[:, None] == true_labels
    lengths = guesses[:, 2] - guesses[:, 1]
    counts = (common * same).sum(axis=1) >= detection_share * lengths
    np.add.at(false, labels[~counts], 1)
    covered = (common * same)[counts].sum(axis=0) >= truth_share * (truth[:, 2] - truth[:, 1])
    np.add.at(hits, true_labels[covered], 1)
    if cross_share is None:
        return
    for other in set(true_labels.tolist()):
        on_other = common[:, true_labels == other].sum(axis=1) >= cross_share * lengths
        np.add.at(crossed[:, other], labels[on_other & ~counts & (labels != other)], 1)


def _area(points: np.ndarray, spread_weight: float) -> float:
    """Of rates and shares, (thresholds, 2, classes): each class's share is the highest reached up to a rate."""
    most = EFFECTIVE_FALSE_POSITIVES_PER_HOUR
    rates = np.unique(np.append(points[:, 0].ravel(), [0.0, most]))
    rates = rates[rates <= most]
    reached = np.stack([_highest_up_to(rates, *of_class) for of_class in points.transpose(2, 1, 0)], axis=1)
    shares = np.maximum(reached.mean(axis=1) - spread_weight * reached.std(axis=1), 0)
    return float((shares[:-1] * np.diff(rates)).sum() / most)


def _highest_up_to(rates: np.ndarray, known_rates: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """At each of the rates the highest of the shares whose own rates are no higher, 0 where there is none."""
    order = known_rates.argsort()
    highest = np.append(0.0, np.maximum.accumulate(shares[order]))
    return highest[known_rates[order].searchsorted(rates, side="right")]
