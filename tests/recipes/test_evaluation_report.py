"""What an evaluation leaves where there is nothing to tell."""

from pathlib import Path

import numpy as np
import pytest

from hf_audioformer.recipes.evaluation_report import METRICS_FILE, measure, write_report, write_tables

from ..training.test_event_task import scored

pytestmark = pytest.mark.unit


def test_clips_in_which_nothing_is_and_nothing_was_heard_have_a_report(tmp_path: Path) -> None:
    task, clips = scored([[], []], [np.zeros((20, 2), dtype=bool)] * 2, 0.1)
    write_tables(tmp_path, clips, task)
    write_report(tmp_path, measure(clips, resamples=5, seed=0, task=task), clips, "silence", task)
    assert (tmp_path / METRICS_FILE).is_file()
    assert (tmp_path / "predictions.csv").read_text().strip() == ""
