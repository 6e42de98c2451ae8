"""Figures of what a model says of clips: precision-recall curves, confusion, average precision of every class,
numbers, events, numbers along time, pairs of clips.

Those of classes take scores or logits (clips, classes) and labels as `hf_audioformer.metrics` does; all return a
`matplotlib.figure.Figure` without touching matplotlib's global state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..event_metrics import Span
from ..metrics import confusion_matrix, precisions_at_positives

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "average_precision_figure",
    "confusion_figure",
    "curves_figure",
    "event_figure",
    "numbers_figure",
    "precision_recall_figure",
    "trials_figure",
]

ACCENT, PALE, INK, WARM = "#1f5fa8", "#9db8d6", "#333333", "#e07b28"
STYLE: Any = {
    "font.size": 10,
    "text.parse_math": False,  # in names of classes, files and tokens `$` is a character like any other
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK},
    **{"xtick.color": INK, "ytick.color": INK, "text.color": INK, "legend.frameon": False},
}

CLASSES_NAMED = 10  # so many curves have a colour and a line in the legend
CLASSES_IN_MATRIX = 50
CLASSES_WITH_NUMBERS = 20
BARS_AT_EACH_END = 30
NUMBERS_SHOWN = 4
CLIPS_ALONG_TIME = 6
RECALLS = np.linspace(0.005, 1, 200)


def precision_recall_figure(scores: np.ndarray, positive: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """A curve for each class that has a positive clip, and their mean at every recall.

    Args:
        scores: (clips, classes); of one class they must be comparable over the clips, as probabilities are.
        positive: Booleans alike.
    """
    present = np.flatnonzero(positive.any(0)).tolist()
    precisions = {index: precisions_at_positives(scores[:, index], positive[:, index]) for index in present}
    curves = np.array([_at_recalls(precisions[index]) for index in present])
    with _figure(8.6, 5.4, title) as (figure, axes):
        if len(present) <= CLASSES_NAMED:
            for index, curve in zip(present, curves, strict=True):
                label = f"{names[index]}  {precisions[index].mean():.2f}"
                axes.plot(RECALLS, curve, linewidth=1.1, drawstyle="steps", label=label)
        else:
            alpha = max(0.15, min(0.7, 30 / len(present)))
            axes.plot(RECALLS, curves.T, linewidth=0.8, drawstyle="steps", color=PALE, alpha=alpha)
            axes.plot([], [], color=PALE, linewidth=1, label=f"each of {len(present)} classes")
        mean = float(np.mean([values.mean() for values in precisions.values()]))
        axes.plot(RECALLS, curves.mean(0), color=INK, linewidth=2.6, drawstyle="steps", label=f"mean  {mean:.2f}")
        chance = float(positive[:, present].mean())
        axes.axhline(chance, color=INK, linewidth=1, linestyle=(0, (2, 3)), label=f"chance  {chance:.2f}")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.grid(color="#e8e8e8", linewidth=0.8)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title="average precision", alignment="left")
    return figure


def confusion_figure(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """What each true class (row) is taken for (column), in percent of its clips.

    Of more than 50 classes it shows the 50 of lowest recall, and all other columns as one.
    """
    counts = confusion_matrix(logits, labels)
    clips = counts.sum(1)
    present = np.flatnonzero(clips)
    recall = counts.diagonal()[present] / clips[present]
    shown = present if len(present) <= CLASSES_IN_MATRIX else np.sort(present[np.argsort(recall)[:CLASSES_IN_MATRIX]])
    shares = 100 * counts[np.ix_(shown, shown)] / clips[shown, None]
    columns = [names[index] for index in shown]
    if len(shown) < len(names):
        shares = np.column_stack([shares, 100 - shares.sum(1)])
        columns.append("all others")
    if len(shown) < len(present):
        title = f"{title}\nthe {len(shown)} classes of lowest recall, out of {len(present)}"
    side = max(3.6, 0.42 * len(shown)) if len(shown) <= CLASSES_WITH_NUMBERS else 0.24 * len(shown)
    with _figure(side + 3.2, side + 1.8, title) as (figure, axes):
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="equal")
        size = 9 if len(shown) <= CLASSES_WITH_NUMBERS else 7
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(len(shown)), [f"{names[index]} ({clips[index]})" for index in shown], fontsize=size)
        axes.set(xlabel="predicted class", ylabel="true class (clips)")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if len(shown) <= CLASSES_WITH_NUMBERS:
            for (row, column), share in np.ndenumerate(shares):
                if share >= 0.5:
                    colour = "white" if share > 55 else INK
                    axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=colour)
        bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.03)
        bar.set_label("share of the true class, %")
        bar.outline.set_visible(False)
    return figure


def average_precision_figure(scores: np.ndarray, positive: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """A bar for each class, best first, with the level of chance (its share of the clips) and the mean.

    Of more than 60 classes it shows the best 30 and the worst 30. Arguments as for `precision_recall_figure`.
    """
    present = np.flatnonzero(positive.any(0)).tolist()
    values = np.array([precisions_at_positives(scores[:, index], positive[:, index]).mean() for index in present])
    chosen, rows = _best_and_worst(values)
    hidden = len(values) - len(chosen)
    clips = positive.sum(0)[present][chosen]
    with _figure(7.2, 0.22 * (rows[-1] + 1) + 1.8, title) as (figure, axes):
        axes.barh(rows, values[chosen], color=PALE, height=0.75)
        axes.vlines(
            clips / len(scores), rows - 0.42, rows + 0.42, color=INK, linewidth=1.6, label="chance (share of the clips)"
        )
        mean = float(values.mean())
        axes.axvline(
            mean, color=ACCENT, linewidth=1.4, linestyle="--", label=f"mean of {len(present)} classes: {mean:.3f}"
        )
        for row, value in zip(rows, values[chosen], strict=True):
            axes.text(value + 0.008, row, f"{value:.2f}", va="center", fontsize=8)
        if hidden:
            between = f"... {hidden} classes between ..."
            axes.text(0.02, BARS_AT_EACH_END + 0.5, between, va="center", fontsize=9, style="italic")
        labels = [f"{names[present[index]]} ({count})" for index, count in zip(chosen, clips, strict=True)]
        axes.set_yticks(rows, labels, fontsize=8)
        axes.set(
            xlim=(0, 1.06), ylim=(rows[-1] + 0.7, -0.7), xlabel="average precision", ylabel="class (positive clips)"
        )
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.3, fontsize=9)
    return figure


def _best_and_worst(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the values to show, falling, and a row for each; where some are left out two rows stay free."""
    order = np.argsort(-values, kind="stable")
    if len(order) <= 2 * BARS_AT_EACH_END:
        return order, np.arange(len(order))
    chosen = np.concatenate([order[:BARS_AT_EACH_END], order[-BARS_AT_EACH_END:]])
    return chosen, np.arange(len(chosen)) + np.repeat([0, 2], BARS_AT_EACH_END)


def _at_recalls(precisions: np.ndarray) -> np.ndarray:
    """The precision where each of `RECALLS` is reached first, of the points of a curve, best first."""
    return precisions[np.ceil(RECALLS * len(precisions) - 1e-9).astype(int) - 1]


def numbers_figure(predictions: np.ndarray, targets: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Predicted against true numbers, (clips, outputs) both, in a panel for each of the first outputs."""
    shown = min(len(names), NUMBERS_SHOWN)
    with _figure(4.4 * shown + 0.4, 4.8, title, panels=shown) as (figure, *panels):
        for index, axes in enumerate(panels):
            true, predicted = targets[:, index], predictions[:, index]
            limits = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
            axes.plot(limits, limits, color=INK, linewidth=1, linestyle=(0, (2, 3)))
            axes.scatter(true, predicted, s=14, color=ACCENT, alpha=max(0.15, min(0.8, 60 / len(true))), linewidths=0)
            axes.set(xlabel=f"{names[index]}, true", ylabel="predicted")
            axes.grid(color="#e8e8e8", linewidth=0.8)
    return figure


def event_figure(
    ids: Sequence[str],
    probabilities: Sequence[np.ndarray],
    spans: Sequence[Sequence[Span]],
    names: Sequence[str],
    step_seconds: float,
    title: str,
) -> Figure:
    """Probabilities along time of the first clips, a panel each, (steps, classes), with their true events as lines."""
    shown = min(len(ids), CLIPS_ALONG_TIME)
    height = 0.5 + 0.22 * len(names)
    with _figure(9.0, 0.9 + shown * (height + 0.4), title, rows=shown) as (figure, *panels):
        for axes, clip_id, scores, true in zip(panels, ids, probabilities, spans, strict=False):
            seconds = len(scores) * step_seconds
            extent = (0, seconds, len(names) - 0.5, -0.5)
            axes.imshow(scores.T, aspect="auto", extent=extent, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
            for label, onset, offset in true:
                axes.plot([onset, offset], [label, label], color=WARM, linewidth=2.5, solid_capstyle="butt")
            axes.set(xlim=(0, seconds), yticks=range(len(names)), yticklabels=names)
            axes.set_title(clip_id, loc="left", fontsize=9)
            axes.tick_params(labelsize=8)
        panels[-1].set_xlabel("time in s")
    return figure


def curves_figure(
    ids: Sequence[str],
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    names: Sequence[str],
    step_seconds: float,
    title: str,
) -> Figure:
    """Predicted and true numbers along time of the first clips, (steps, numbers) both, a row each with a panel for each
    of the first numbers; where a true one is NaN its line is broken."""
    clips, shown = min(len(ids), CLIPS_ALONG_TIME), min(len(names), NUMBERS_SHOWN)
    with _figure(max(9.0, 4.4 * shown), 0.9 + 1.7 * clips, title, panels=shown, rows=clips) as (figure, *panels):
        for index, axes in enumerate(panels):
            clip, number = divmod(index, shown)
            seconds = (np.arange(len(predictions[clip])) + 0.5) * step_seconds
            true = targets[clip][:, number]
            axes.plot(seconds, true, color=WARM, linewidth=2.5, marker=".", markersize=3)
            axes.plot(seconds, predictions[clip][:, number], color=ACCENT, linewidth=1.2)
            axes.set_title(f"{ids[clip]}, {names[number]}", loc="left", fontsize=9)
            axes.tick_params(labelsize=8)
            axes.grid(color="#e8e8e8", linewidth=0.8)
        for axes in panels[-shown:]:
            axes.set_xlabel("time in s")
    return figure


def trials_figure(scores: np.ndarray, same: np.ndarray, title: str) -> Figure:
    """How often pairs of clips of the same and of different labels have which score, (trials,) both."""
    with _figure(7.2, 4.2, title) as (figure, axes):
        bins = np.linspace(scores.min(), scores.max(), 60)
        for chosen, label, colour in ((~same, "different labels", PALE), (same, "same label", ACCENT)):
            axes.hist(scores[chosen], bins, density=True, alpha=0.7, color=colour, label=f"{label}, {chosen.sum()}")
        axes.set(xlabel="cosine", ylabel="density of pairs")
        axes.legend(loc="upper left")
    return figure


@contextmanager
def _figure(width: float, height: float, title: str, panels: int = 1, rows: int = 1) -> Iterator[tuple[Any, ...]]:
    """An empty figure of a size in inches, and its axes, row by row, in the house's style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        yield figure, *figure.subplots(rows, panels, squeeze=False).flat
