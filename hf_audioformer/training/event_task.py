"""Events in clips, by classes of every moment: how they are found, measured and shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import ClipTable
from ..data.moments import MomentGrid, Spans, spans_of_clips
from ..event_metrics import EventCounts, Span, count_events, count_segments, macro_f1, micro_f1, psds, stretches
from ..inference.events import smoothed
from ..inspection.classification_plots import event_figure
from ..metrics import class_probabilities
from .hub import ID_OF_THIS_CHECKPOINT
from .moment_task import MomentTask
from .tasks import ScoredClips

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EventDetection"]

THRESHOLD = 0.5
# Of PSDS, evenly spaced as in DCASE's task 4.
THRESHOLDS = np.linspace(0.01, 0.99, 50)


class EventDetection(MomentTask):
    """Which class is heard when: `logits` are a list of float32 (moments, classes), `labels` one of spans, per clip.

    A class is heard where its probability, smoothed, is at least one half. The main metric is the segment-based F1,
    mean over the classes.

    Args:
        clips: Clips with onsets and offsets.
        grid: Where the moments of the model lie.
    """

    aim = "tell when each of {num_labels} classes is heard"
    scores_are = " Scores are not calibrated probabilities."
    use = f"""from hf_audioformer.inference import AudioClassifier

classifier = AudioClassifier.from_pretrained("{ID_OF_THIS_CHECKPOINT}")
classifier("clip.wav").events(threshold=0.5)"""
    most_scores = math.inf  # events are counted once

    def __init__(self, clips: ClipTable, grid: MomentGrid):
        self.num_labels = len(clips.label_names)
        self.spans: dict[str, list[Span]] = dict(zip(clips.ids, spans_of_clips(clips), strict=True))
        super().__init__({name: Spans(spans, self.num_labels) for name, spans in self.spans.items()}, grid)

    def metric(self, labels: Any) -> str:
        return "segment F1"

    def score(self, metrics: Mapping[str, float]) -> float:
        return metrics["segment_f1"]

    def compared(self, ids: Sequence[str], logits: Sequence[np.ndarray], names: Sequence[str]) -> ScoredClips:
        return ScoredClips(ids, logits, [self.spans[clip_id] for clip_id in ids], names)

    def metrics(self, scored: ScoredClips) -> dict[str, float]:
        """`segment_f1` and `event_f1`, means over the classes, with `_micro` over all together, and `psds1` and
        `psds2`, see `hf_audioformer.event_metrics`."""
        probabilities = self._probabilities(scored)
        segments, events = self._counts(scored, self._found(probabilities, THRESHOLD))
        found = [self._found(probabilities, threshold) for threshold in THRESHOLDS]
        seconds = sum(map(len, probabilities)) * self.grid.seconds
        scenario = {"detection_share": 0.1, "truth_share": 0.1, "cross_share": 0.3, "cross_weight": 0.5}
        return {
            **_f1_scores(segments, events),
            "psds1": psds(scored.labels, found, seconds, self.num_labels),
            "psds2": psds(scored.labels, found, seconds, self.num_labels, **scenario),
        }

    def metrics_of_clips(self, scored: ScoredClips) -> Callable[[np.ndarray], dict[str, float]]:
        """Of the F1 scores alone."""
        return partial(_f1_scores, *self._counts(scored, self._found(self._probabilities(scored), THRESHOLD)))

    def chance(self, train_labels: Any, scored: ScoredClips) -> float:
        always = [[(label, 0.0, math.inf) for label in range(self.num_labels)]] * len(scored.ids)
        segments, _ = self._counts(scored, always)
        return macro_f1(segments.total())

    def chance_is(self, metric: str) -> str:
        return "every class heard all the time"

    def table(self, scored: ScoredClips) -> list[dict[str, float | str]]:
        segments, events = self._counts(scored, self._found(self._probabilities(scored), THRESHOLD))
        numbers = np.bincount([label for true in scored.labels for label, *_ in true], minlength=self.num_labels)
        clips = np.bincount(
            [label for true in scored.labels for label in {span[0] for span in true}], minlength=self.num_labels
        )
        columns = {
            "clips": clips,
            "segment_f1": segments.total().f1(),
            "event_f1": events.total().f1(),
            "events": numbers,
        }
        return [
            {"name": name} | {column: values[index].item() for column, values in columns.items()}
            for index, name in enumerate(scored.names)
        ]

    def predictions(self, scored: ScoredClips) -> Iterator[dict[str, Any]]:
        """A row per event, in the form of DCASE's strong labels, found ones and true ones."""
        found = self._found(self._probabilities(scored), THRESHOLD)
        for clip_id, guesses, true in zip(scored.ids, found, scored.labels, strict=True):
            for kind, spans in (("found", guesses), ("true", true)):
                for label, onset, offset in spans:
                    row = {"onset": f"{onset:.3f}", "offset": f"{offset:.3f}", "event_label": scored.names[label]}
                    yield {"id": clip_id, **row, "which": kind}

    def figures(self, scored: ScoredClips, about: str) -> dict[str, Figure]:
        probabilities = self._probabilities(scored)
        title = f"Probabilities along time (blue) and true events (orange)\n{about}"
        figure = event_figure(scored.ids, probabilities, scored.labels, scored.names, self.grid.seconds, title)
        return {"events.png": figure}

    def left_out(self, scored: ScoredClips) -> list[str]:
        heard = {label for true in scored.labels for label, *_ in true}
        return [name for index, name in enumerate(scored.names) if index not in heard]

    def _probabilities(self, scored: ScoredClips) -> list[np.ndarray]:
        """Smoothed, float64 (moments, classes) of each clip."""
        return [smoothed(class_probabilities(logits, multi_label=True), self.grid.seconds) for logits in scored.logits]

    def _found(self, probabilities: Sequence[np.ndarray], threshold: float) -> list[list[Span]]:
        step = self.grid.seconds
        return [
            [(label, first * step, end * step) for label, first, end in stretches(of_clip >= threshold)]
            for of_clip in probabilities
        ]

    def _counts(self, scored: ScoredClips, found: Sequence[Sequence[Span]]) -> tuple[EventCounts, EventCounts]:
        """Of segments and of events, (clips, classes) both."""
        segments, events = [], []
        for logits, true, guesses in zip(scored.logits, scored.labels, found, strict=True):
            # The last moment may end after the clip, so a segment that it alone reaches is none.
            seconds = max([(len(logits) - 1) * self.grid.seconds, *(offset for *_, offset in true)])
            segments.append(count_segments(true, guesses, seconds, self.num_labels))
            events.append(count_events(true, guesses, self.num_labels))
        return EventCounts.of_clips(segments), EventCounts.of_clips(events)


def _f1_scores(segments: EventCounts, events: EventCounts, clips: np.ndarray | slice = slice(None)) -> dict[str, float]:
    segments, events = segments.total(clips), events.total(clips)
    return {
        "segment_f1": macro_f1(segments),
        "segment_f1_micro": micro_f1(segments),
        "event_f1": macro_f1(events),
        "event_f1_micro": micro_f1(events),
    }
