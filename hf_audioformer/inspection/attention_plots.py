"""Figures of attention: over layers, over heads, on the spectrogram, by distance, and of a decoder on the clip.

Each takes the views of one model (or of several where it says so), one for each clip, and returns a figure without
touching matplotlib's global state. Weights are drawn relative to an even spread: 1 is what a step would get if all
tokens, those of padding too, got the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .classification_plots import ACCENT, INK
from .clip_view import ClipView
from .panels import mark_unheard, mel_position, panels, show_log_mel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["cross_figure", "distance_figure", "heads_figure", "layers_figure", "overlay_figure"]

MOST_PANELS = 6
LEAST_RANGE = 2.0  # so that differences of a percent do not look like much
TICKS = (0.1, 0.3, 1, 3, 10)
WEIGHTS = "attention, times an even spread"


def layers_figure(views: Sequence[ClipView]) -> Figure:
    """Self-attention of the layers, mean over heads: a row for each clip; of more than six layers six are shown."""
    chosen = _spread(len(views[0].layers))
    maps = [[view.layers[layer] for layer in chosen] for view in views]
    names = [[f"layer {layer + 1} of {len(view.layers)}" for layer in chosen] for view in views]
    return _maps_figure(views, maps, names, f"{views[0].model}: self-attention by layer (mean over heads)")


def heads_figure(views: Sequence[ClipView]) -> Figure:
    """Self-attention of the heads of one layer: a row for each clip; of more than six heads six are shown."""
    first = views[0]
    chosen = _spread(len(first.heads))
    maps = [[view.heads[head] for head in chosen] for view in views]
    names = [[f"head {head + 1} of {len(first.heads)}" for head in chosen] for _ in views]
    return _maps_figure(views, maps, names, f"{first.model}: self-attention by head (layer {first.layer + 1})")


def _spread(count: int) -> list[int]:
    """All of `count` numbers, or six of them from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_PANELS)).round().astype(int)).tolist()


def _maps_figure(
    views: Sequence[ClipView], maps: Sequence[Sequence[np.ndarray]], names: Sequence[Sequence[str]], title: str
) -> Figure:
    from matplotlib.colors import LogNorm

    with panels(len(views), len(maps[0]), title, width=2.3, height=2.5) as (figure, axes):
        image: Any = None
        for row, (view, of_clip) in enumerate(zip(views, maps, strict=True)):
            start, end = view.edges_seconds
            for column, weights in enumerate(of_clip):
                image = axes[row, column].imshow(
                    weights / view.even_share,
                    cmap="magma",
                    norm=LogNorm(0.1, 10),
                    extent=(start, end, end, start),
                )
                axes[row, column].set(xlim=(0, view.clip_seconds), ylim=(view.clip_seconds, 0))
                mark_unheard(axes[row, column], end, view.clip_seconds)
                axes[row, column].set_title(names[row][column])
                axes[row, column].set_xlabel("looked at, s")
            axes[row, 0].set_ylabel(f"{view.clip}\nlooking, s")
        figure.colorbar(image, ax=axes, label=WEIGHTS, extend="both", ticks=TICKS, format="%g", aspect=30)
    return figure


def overlay_figure(views: Sequence[ClipView], log_mels: Sequence[np.ndarray]) -> Figure:
    """Where the output of one model looks, on the log-mel spectrogram: the last layer, and through all layers.

    Of patches over frequency it is a map over time and frequency, of other models a profile over time; of a model that
    writes there is the cross-attention of all it wrote. What gets less than an even spread gives it is left as it is.
    """
    names = {
        "focus": "last layer, from " + ("the class tokens" if views[0].layout.summary else "all steps"),
        "rollout": "rollout through all layers",
    }
    if views[0].cross is not None:
        names["cross"] = "the decoder, all tokens written"
    title = f"{views[0].model}: where it looks, on the log-mel spectrogram"
    with panels(len(names), len(views), title, width=4.6, height=2.4) as (figure, axes):
        for row, kind in zip(axes, names, strict=True):
            grids = [_looked_at(view, kind) for view in views]
            most = max(LEAST_RANGE, float(np.percentile(np.concatenate([grid.ravel() for grid in grids]), 99.5)))
            image: Any = None
            for panel, view, log_mel, grid in zip(row, views, log_mels, grids, strict=True):
                panel.set_title(f"{view.clip}: {names[kind]}")
                show_log_mel(panel, log_mel, view.clip_seconds)
                image = _shade(panel, view, grid, most)
            figure.colorbar(image, ax=row.tolist(), label="times an even spread", extend="both")
    return figure


def _looked_at(view: ClipView, kind: str) -> np.ndarray:
    """What is laid over the spectrogram, (rows, steps), 1 where an even spread would put it; rows that are not over
    frequency have no place there, and are averaged."""
    if kind != "cross":
        grid: np.ndarray = getattr(view, kind)
        return grid if view.layout.row_edges_hz else grid.mean(0, keepdims=True)
    if view.cross is None:
        raise ValueError(f"{view.model} has no cross-attention")
    shares = view.cross.shares.mean(0, keepdims=True)
    return shares / shares.mean()


def _shade(axes: Axes, view: ClipView, grid: np.ndarray, most: float) -> Any:
    """Lays (rows, steps) over a spectrogram, from clear at 1 to red at `most`; a single row is also a line."""
    from matplotlib.colors import ListedColormap, Normalize

    strengths = np.linspace(0, 1, 256)
    colours = np.stack([np.full(256, 0.9), 0.3 * (1 - strengths), np.full(256, 0.1), 0.75 * strengths], axis=1)
    rows = [mel_position(hz) for hz in view.layout.row_edges_hz] if view.layout.row_edges_hz else [0, 1]
    steps = np.linspace(*view.edges_seconds, grid.shape[1] + 1)
    image = axes.pcolormesh(steps, rows, grid, cmap=ListedColormap(colours), norm=Normalize(1, most))
    if len(grid) == 1:
        right = axes.twinx()
        right.plot(view.seconds, grid[0], color=ACCENT, linewidth=1.0, drawstyle="steps-mid")
        right.set(ylim=(0, 1.05 * most), xlim=(0, view.clip_seconds))
        right.tick_params(axis="y", labelsize=7, colors=ACCENT)
        right.spines["right"].set_visible(True)
    mark_unheard(axes, view.edges_seconds[1], view.clip_seconds)
    return image


def distance_figure(views: Sequence[ClipView]) -> Figure:
    """How far each layer's attention reaches, of several models: a panel for each clip, a line for each model.

    The line is the mean over heads, a dot each head; 1 is the mean distance of attention that is spread evenly.
    """
    clips = list(dict.fromkeys(view.clip for view in views))
    with panels(1, len(clips), "Attention distance: local or global", width=4.4, height=3.4, sharey=True) as (
        figure,
        axes,
    ):
        for panel, clip in zip(axes[0], clips, strict=True):
            of_clip = [view for view in views if view.clip == clip]
            for index, view in enumerate(of_clip):
                numbers = np.arange(1, len(view.distances) + 1) + 0.06 * (index - (len(of_clip) - 1) / 2)
                (line,) = panel.plot(numbers, view.distances.mean(1), marker="_", markersize=12, label=view.model)
                for head in view.distances.T:
                    panel.plot(numbers, head, ".", markersize=3, color=line.get_color(), alpha=0.6)
            panel.axhline(1, color=INK, linewidth=1, linestyle=(0, (2, 3)), label="even spread (global)")
            most = max(len(view.distances) for view in of_clip)
            panel.set_xticks(np.unique(np.linspace(1, most, min(most, 12)).round()))
            panel.set(title=clip, xlabel="layer", ylim=(0, 1.06 * max(1, *(view.distances.max() for view in of_clip))))
        axes[0, 0].set_ylabel("mean distance, times an even spread's")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    return figure


def cross_figure(views: Sequence[ClipView]) -> Figure:
    """Where the decoder looked for each token that it wrote: a panel for each clip."""
    from matplotlib.colors import LogNorm

    title = f"{views[0].model}: cross-attention (mean over layers and heads)"
    written = max(len(view.cross.written) for view in views if view.cross)
    with panels(1, len(views), title, width=4.6, height=1.2 + 0.17 * written) as (figure, axes):
        image: Any = None
        for panel, view in zip(axes[0], views, strict=True):
            if view.cross is None:
                raise ValueError(f"{view.model} has no cross-attention")
            shares = view.cross.shares
            edges = view.edges_seconds
            image = panel.imshow(
                shares / view.even_share,
                cmap="magma",
                norm=LogNorm(0.1, 10),
                aspect="auto",
                interpolation="nearest",
                extent=(*edges, len(shares) - 0.5, -0.5),
            )
            panel.set_yticks(range(len(shares)), [repr(text)[1:-1] for text in view.cross.written], fontsize=7)
            panel.set(xlim=(0, view.clip_seconds), title=view.clip, xlabel="looked at, s", ylabel="token written")
            mark_unheard(panel, edges[1], view.clip_seconds)
        figure.colorbar(image, ax=axes, label=WEIGHTS, extend="both", ticks=TICKS, format="%g", aspect=30)
    return figure
