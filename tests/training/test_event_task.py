"""Events are measured to the end of their clips, not to that of their last moment or event."""

import datasets
import numpy as np
import pytest

from hf_audioformer.data import ClipTable
from hf_audioformer.data.moments import MomentGrid
from hf_audioformer.event_metrics import Span
from hf_audioformer.training.event_task import EventDetection
from hf_audioformer.training.tasks import ScoredClips

LABELS = ("dog", "rain")


def scored(spans: list[list[Span]], found: list[np.ndarray], step: float) -> tuple[EventDetection, ScoredClips]:
    """Clips in which each class is found in the moments where it is True."""
    table = datasets.Dataset.from_dict(
        {
            "id": [str(index) for index in range(len(spans))],
            "labels": [sorted({label for label, *_ in of_clip}) for of_clip in spans],
            "event_labels": [[LABELS[label] for label, *_ in of_clip] for of_clip in spans],
            "event_onsets": [[onset for _, onset, _ in of_clip] for of_clip in spans],
            "event_offsets": [[offset for *_, offset in of_clip] for of_clip in spans],
        }
    )
    task = EventDetection(ClipTable(table, LABELS, True), MomentGrid(step))
    logits = [np.where(of_clip, 9.0, -9.0).astype(np.float32) for of_clip in found]
    return task, ScoredClips(table["id"][:], logits, spans, LABELS)


@pytest.mark.unit
def test_a_moment_that_ends_after_the_clip_adds_no_segment() -> None:
    """Ten seconds in moments of 160 ms are 63, the last of which ends at 10.08 s."""
    found = np.zeros((63, 2), dtype=bool)
    found[:, 0] = True
    task, clips = scored([[(0, 0.0, 10.0)]], [found], 0.16)
    assert task.metrics(clips)["segment_f1"] == 1.0


@pytest.mark.unit
def test_chance_hears_every_class_to_the_end_of_the_clip() -> None:
    task, clips = scored([[(0, 0.0, 2.0)], []], [np.zeros((1000, 2), dtype=bool)] * 2, 0.01)
    assert task.chance(None, clips) == pytest.approx(np.mean([2 * 2 / (2 * 2 + 18), 0.0]))
