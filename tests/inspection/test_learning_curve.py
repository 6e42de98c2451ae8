"""The curves are those of the log."""

import pytest

from hf_audioformer.inspection.learning_curve import learning_curve_figure


@pytest.mark.unit
def test_losses_and_scores_are_drawn_where_they_were_logged() -> None:
    rows = {1.0: {"loss": 2.5, "eval_score": 0.5}, 2.0: {"loss": 1.5}, 3.0: {"loss": 1.0, "eval_score": 0.75}}
    figure = learning_curve_figure(rows, "accuracy", "A model")
    left, right = figure.axes
    assert [list(line.get_xydata()[:, 1]) for line in left.get_lines()] == [[2.5, 1.5, 1.0]]
    assert right.get_lines()[0].get_xydata().tolist() == [[1.0, 0.5], [3.0, 0.75]]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["training loss", "validation accuracy"]
    (alone,) = learning_curve_figure({1.0: {"loss": 2.5}, 2.0: {"loss": 1.5}}, "", "A model").axes
    assert len(alone.get_lines()) == 1
