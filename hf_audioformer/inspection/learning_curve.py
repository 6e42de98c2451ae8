"""The learning curve of a training: its loss and, where it was validated, its score by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .classification_plots import ACCENT, INK, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["learning_curve_figure"]


def learning_curve_figure(rows: Mapping[float, Mapping[str, float]], metric: str, title: str) -> Figure:
    """Training loss (left) and validation score (right, in [0, 1]) over epochs.

    Args:
        rows: By epoch, what was logged there of `loss` and `eval_score`.
        metric: What the score is.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained", dpi=110)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        axes = figure.add_subplot()
        losses = {epoch: row["loss"] for epoch, row in rows.items() if "loss" in row}
        axes.plot(list(losses), list(losses.values()), color=INK, marker="o", markersize=3, label="training loss")
        axes.set(xlabel="epoch", ylabel="training loss")
        lines = axes.get_lines()
        scores = {epoch: row["eval_score"] for epoch, row in rows.items() if "eval_score" in row}
        if scores:
            right = axes.twinx()
            (line,) = right.plot(
                list(scores),
                list(scores.values()),
                color=ACCENT,
                marker="o",
                markersize=3,
                label=f"validation {metric}",
            )
            right.set(ylim=(0, 1.02), ylabel=f"validation {metric}")
            right.spines["right"].set_visible(True)
            lines = [*lines, line]
        axes.legend(handles=lines, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.3)
    return figure
