"""Figures of what a model makes of a clip: its hidden states, and the codes that it reads.

Each takes views, one for each clip, and returns a figure without touching matplotlib's global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .clip_view import ClipView
from .panels import mark_unheard, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["codes_figure", "hidden_states_figure", "states_by_layer_figure"]

CHANNELS_SHOWN = 128
LAYERS_SHOWN = 4


def hidden_states_figure(views: Sequence[ClipView]) -> Figure:
    """The output of several models (rows) of several clips (columns): the first 128 channels over time."""
    models = list(dict.fromkeys(view.model for view in views))
    grid = [[view for view in views if view.model == model] for model in models]
    with panels(len(grid), len(grid[0]), "Hidden states of the last layer", width=4.4, height=2.1) as (figure, axes):
        for row, of_model in enumerate(grid):
            states = [_centred(view.hidden_states[-1]) for view in of_model]
            _heat_maps(figure, axes[row], of_model, states, [f"{view.model}: {view.clip}" for view in of_model])
    return figure


def states_by_layer_figure(views: Sequence[ClipView]) -> Figure:
    """Hidden states of one model before the first layer and after some, up to the last: a row for each clip."""
    num_layers = len(views[0].hidden_states) - 1
    chosen = np.unique(np.linspace(0, num_layers, min(num_layers + 1, LAYERS_SHOWN)).round().astype(int)).tolist()
    title = f"{views[0].model}: hidden states through the layers"
    with panels(len(views), len(chosen), title, width=2.9, height=2.2) as (figure, axes):
        for row, view in enumerate(views):
            for column, layer in enumerate(chosen):
                name = f"after layer {layer}" if layer else "before layer 1"
                states = _centred(view.hidden_states[layer])
                _heat_maps(figure, axes[row, column : column + 1], [view], [states], [f"{view.clip}: {name}"])
            for panel in axes[row, 1:]:
                panel.set_ylabel("")
    return figure


def _centred(states: np.ndarray) -> np.ndarray:
    """The first channels of (steps, size), each without its mean over the clip, which would hide all that moves."""
    shown = states[:, :CHANNELS_SHOWN]
    return shown - shown.mean(0)


def _heat_maps(
    figure: Figure, axes: np.ndarray, views: Sequence[ClipView], states: Sequence[np.ndarray], names: Sequence[str]
) -> None:
    """Draws (steps, channels) beside each other on one scale of colours, cut at the 99th percentile."""
    limit = max(float(np.percentile(np.abs(np.concatenate(states)), 99)), 1e-6)
    image: Any = None
    for panel, view, values, name in zip(axes, views, states, names, strict=True):
        image = panel.imshow(
            values.T,
            aspect="auto",
            origin="lower",
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            extent=(*view.edges_seconds, 0, values.shape[1]),
        )
        panel.set(xlim=(0, view.clip_seconds), title=name, xlabel="time, s")
        mark_unheard(panel, view.edges_seconds[1], view.clip_seconds)
    axes[0].set_ylabel("channel")
    figure.colorbar(image, ax=axes.tolist(), label="value less its mean", extend="both")


def codes_figure(views: Sequence[ClipView]) -> Figure:
    """The codes of each clip over time, and how many of each codebook it uses: two panels for each clip."""
    title = f"{views[0].model}: codes"
    books = 0 if views[0].codes is None else views[0].codes.shape[1]
    with panels(len(views), 2, title, width=4.6, height=1.5 + 0.25 * books) as (figure, axes):
        for (over_time, use), view in zip(axes, views, strict=True):
            if view.codes is None or view.usage is None:
                raise ValueError(f"{view.model} reads no codes")
            size, (start, _) = view.usage.counts.shape[1], view.edges_seconds
            image = over_time.imshow(
                view.codes.T,
                aspect="auto",
                cmap="turbo",
                interpolation="nearest",
                vmin=0,
                vmax=size - 1,
                extent=(start, start + len(view.codes) * view.layout.step_seconds, books + 0.5, 0.5),
            )
            over_time.set_yticks(range(1, books + 1))
            over_time.set(xlim=(0, view.clip_seconds), title=view.clip, xlabel="time, s", ylabel="codebook")
            figure.colorbar(image, ax=over_time, label="code")
            for book, counts in enumerate(view.usage.counts):
                shares = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
                label = f"{book + 1}: {view.usage.distinct[book]} codes, perplexity {view.usage.perplexity[book]:.0f}"
                use.plot(np.arange(1, size + 1), 100 * shares, label=label)
            use.set(xscale="log", xlim=(1, size), ylim=(0, 102), xlabel="codes, the most frequent first")
            use.xaxis.set_major_formatter("{x:g}")
            use.set(ylabel="share of the frames, %", title=f"{view.clip}: {size} codes to choose from")
            use.legend(loc="lower right", title="codebook", fontsize=7, title_fontsize=7)
    return figure
