"""Scores along time, and the stretches in which a class is heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..event_metrics import stretches

__all__ = ["EVENT_WINDOW_SECONDS", "Event", "find_events", "score_track", "smoothed"]

# Heard at a time where events are looked for; longer windows are surer of the class and less so of the time.
EVENT_WINDOW_SECONDS = 2.0
MEDIAN_SECONDS = 0.45


@dataclass(frozen=True)
class Event:
    """A stretch of a clip, in seconds, in which a class scores at least the threshold; `score` is its highest there."""

    label: str
    start_seconds: float
    end_seconds: float
    score: float


def score_track(window_scores: np.ndarray, centres: np.ndarray, hop_seconds: float, seconds: float) -> np.ndarray:
    """Scores of steps of `hop_seconds` along a clip, (steps, classes): each step has those of the window whose centre
    is nearest to the step's own (of two as near, the earlier).

    Step k is the time from k * hop to (k + 1) * hop; there are ceil(seconds / hop) of them, and the last one may end
    after the clip.

    Args:
        window_scores: (windows, classes), in the order of their centres.
        centres: Of the windows, in seconds, (windows,).
        hop_seconds: From step to step.
        seconds: Length of the clip.
    """
    steps = max(1, int(np.ceil(round(seconds / hop_seconds, 6))))
    middles = (np.arange(steps) + 0.5) * hop_seconds
    later = np.searchsorted(centres, middles).clip(max=len(centres) - 1)
    earlier = (later - 1).clip(min=0)
    nearest = np.where(np.abs(middles - centres[earlier]) <= np.abs(middles - centres[later]), earlier, later)
    return window_scores[nearest]


def smoothed(track: np.ndarray, hop_seconds: float) -> np.ndarray:
    """The median over 0.45 s around each step of a track, (steps, classes), without which a class that is heard would
    fall into pieces.

    Source: the baseline of DCASE's task 4.
    """
    from scipy.ndimage import median_filter

    window = 2 * round(MEDIAN_SECONDS / hop_seconds / 2) + 1
    return median_filter(track, size=(window, 1), mode="nearest")


def find_events(
    track: np.ndarray,
    labels: Sequence[str],
    hop_seconds: float,
    seconds: float,
    threshold: float,
    *,
    merge_gaps_seconds: float = 0.0,
) -> list[Event]:
    """The stretches of steps whose score is at least `threshold`, class by class, in the order of their start.

    Args:
        track: (steps, classes), as `score_track` gives it.
        labels: Names of the classes.
        hop_seconds: From step to step.
        seconds: Length of the clip, where the last event ends at the latest.
        threshold: In [0, 1].
        merge_gaps_seconds: Two stretches of a class are one if at most so much time lies between them.

    Raises:
        ValueError: `threshold` or `merge_gaps_seconds` is out of range.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must lie between 0 and 1, as scores do")
    if merge_gaps_seconds < 0:
        raise ValueError(f"merge_gaps_seconds is {merge_gaps_seconds}; it must be at least 0")
    longest_gap = int(merge_gaps_seconds / hop_seconds + 1e-6)  # in steps
    events = []
    for label, first, end in stretches(track >= threshold, longest_gap):
        score = float(track[first:end, label].max())
        events.append(Event(labels[label], first * hop_seconds, min(end * hop_seconds, seconds), score))
    return sorted(events, key=lambda event: (event.start_seconds, -event.score))
