"""The numbers behind the figures, and labels that can be read."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from hf_audioformer.inspection.classification_plots import (
    average_precision_figure,
    confusion_figure,
    curves_figure,
    precision_recall_figure,
)
from hf_audioformer.metrics import classification_metrics, per_class_table

pytestmark = pytest.mark.unit


def names(classes: int) -> list[str]:
    return [f"a sound with a long name, number {index}" for index in range(classes)]


def several_labels(clips: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and multi-hot labels; no clip has the last class."""
    random = np.random.default_rng(0)
    positive = random.random((clips, classes)) < 0.2
    positive[0], positive[:, -1] = True, False
    return random.standard_normal((clips, classes)) + positive * random.random(classes) * 3, positive


def one_label(clips: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=clips)
    return random.standard_normal((clips, classes)) + 2 * np.eye(classes)[labels], labels


def assert_labels_apart(figure: Figure) -> None:
    """No two tick labels of an axis overlap, and all lie within the picture."""
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    axes = figure.axes[0]
    low, high = sorted(axes.get_ylim())
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    boxes = [label.get_window_extent() for place, label in ticks if low <= place <= high]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    tops = sorted((box.y0, box.y1) for box in boxes)
    assert all(lower[1] <= upper[0] + 1 for lower, upper in pairwise(tops))
    text = axes.get_legend()
    assert text is None or text.get_window_extent().x1 <= width


@pytest.mark.parametrize("classes", [4, 30], ids=["few", "many"])
def test_precision_recall(classes: int) -> None:
    scores, positive = several_labels(200, classes)
    figure = precision_recall_figure(scores, positive, names(classes), "Precision and recall")
    (axes,) = figure.axes
    *curves, mean, chance = [line for line in axes.lines if len(line.get_xdata())]
    assert len(curves) == classes - 1
    metrics = classification_metrics(scores, positive)
    assert mean.get_ydata().mean() == pytest.approx(metrics["map"], abs=0.01)  # a mean over 200 recalls
    assert mean.get_label() == f"mean  {metrics['map']:.2f}"
    table = per_class_table(scores, positive, names(classes))
    for curve, row in zip(curves, table, strict=False):
        assert curve.get_ydata().mean() == pytest.approx(row["average_precision"], abs=0.03)
    assert chance.get_ydata()[0] == pytest.approx(positive[:, :-1].mean())
    assert len(axes.get_legend().get_texts()) == (classes - 1 if classes == 4 else 1) + 2
    assert_labels_apart(figure)


@pytest.mark.parametrize("classes", [5, 40])
def test_confusion(classes: int) -> None:
    logits, labels = one_label(800, classes)
    figure = confusion_figure(logits, labels, names(classes), "Confusion")
    shares = np.asarray(figure.axes[0].images[0].get_array())
    assert shares.sum(1) == pytest.approx(np.full(classes, 100))
    assert shares[2, 2] == pytest.approx(100 * np.mean(logits[labels == 2].argmax(1) == 2))
    assert figure.axes[0].get_yticklabels()[2].get_text() == f"{names(classes)[2]} ({(labels == 2).sum()})"
    assert figure.axes[1].get_ylabel() == "share of the true class, %"
    assert_labels_apart(figure)


def test_confusion_of_many_classes_shows_the_worst() -> None:
    logits, labels = one_label(2000, 80)
    logits[labels == 7] = 9 * np.eye(80)[7]
    figure = confusion_figure(logits, labels, names(80), "Confusion")
    shares = np.asarray(figure.axes[0].images[0].get_array())
    assert shares.shape == (50, 51)
    assert shares.sum(1) == pytest.approx(np.full(50, 100))
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown[-1] == "all others"
    assert names(80)[7] not in shown
    assert "the 50 classes of lowest recall, out of 80" in figure.get_suptitle()
    assert_labels_apart(figure)


@pytest.mark.parametrize("classes", [4, 100])
def test_average_precision(classes: int) -> None:
    scores, positive = several_labels(200, classes)
    figure = average_precision_figure(scores, positive, names(classes), "Average precision")
    (axes,) = figure.axes
    found = sorted(row["average_precision"] for row in per_class_table(scores, positive, names(classes))[:-1])[::-1]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx(found if classes == 4 else found[:30] + found[-30:])
    assert any("39 classes between" in text.get_text() for text in axes.texts) == (classes == 100)
    assert f"mean of {classes - 1} classes: {np.mean(found):.3f}" in [t.get_text() for t in axes.get_legend().texts]
    assert_labels_apart(figure)


def test_curves_are_broken_where_nothing_is_known() -> None:
    random = np.random.default_rng(0)
    predictions = [random.random((length, 5)) for length in (4, 9, 2, 3, 3, 3, 3)]
    targets = [of_clip + 0.1 for of_clip in predictions]
    targets[1][3:5, 2] = np.nan
    figure = curves_figure(list("abcdefg"), predictions, targets, names(5), 0.5, "Curves")
    assert len(figure.axes) == 6 * 4  # the first clips and numbers
    panel = figure.axes[4 + 2]
    assert panel.get_title(loc="left") == f"b, {names(5)[2]}"
    true, predicted = panel.lines
    np.testing.assert_allclose(true.get_xdata(), 0.25 + 0.5 * np.arange(9))
    np.testing.assert_array_equal(true.get_ydata(), targets[1][:, 2])
    np.testing.assert_array_equal(predicted.get_ydata(), predictions[1][:, 2])


def test_names_are_no_formulas() -> None:
    """`$_$` is none that matplotlib knows; the numbers of axes are drawn without formulas, too."""
    scores, positive = several_labels(50, 4)
    logits, labels = one_label(50, 4)
    names = ["$_$", "5 $ and 10 $", "50 %_^", "\\$"]
    for figure in (
        precision_recall_figure(scores, positive, names, "$_$"),
        confusion_figure(logits, labels, names, "$_$"),
        average_precision_figure(scores, positive, names, "$_$"),
    ):
        figure.canvas.draw()
        assert not [text for text in figure.findobj(Text) if "mathdefault" in text.get_text()]
