"""The figures of models show the numbers of their views, at their seconds, with labels that can be read."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from hf_audioformer.inspection.attention_plots import (
    cross_figure,
    distance_figure,
    heads_figure,
    layers_figure,
    overlay_figure,
)
from hf_audioformer.inspection.clip_view import ClipView, CrossView
from hf_audioformer.inspection.code_usage import code_usage
from hf_audioformer.inspection.panels import log_mel_of, mel_position
from hf_audioformer.inspection.state_plots import (
    codes_figure,
    hidden_states_figure,
    states_by_layer_figure,
)
from hf_audioformer.inspection.tokens import TokenLayout

pytestmark = pytest.mark.unit

RANDOM = np.random.default_rng(0)


def a_view(**changes: object) -> ClipView:
    """Eight layers and heads, 20 steps of 50 ms of a clip of 1 s, five tokens written, two codebooks."""
    layers, heads = RANDOM.dirichlet(np.ones(20), (2, 8, 20))
    codes = RANDOM.integers(16, size=(20, 2))
    focus, rollout = RANDOM.random((2, 1, 20)) * 4
    view = ClipView(
        model="a_model",
        clip="a_clip",
        clip_seconds=1.0,
        layout=TokenLayout(20, 0.05, 0.025),
        steps=20,
        hidden_states=RANDOM.standard_normal((9, 20, 160)),
        layers=layers,
        layer=7,
        heads=heads,
        focus=focus,
        rollout=rollout,
        distances_seconds=RANDOM.random((8, 8)),
        even_seconds=0.3,
        on_clip=np.ones(8),
        cross=CrossView(("a", "b", "c", "d\n"), RANDOM.dirichlet(np.ones(20), 4)),
        codes=codes,
        usage=code_usage(codes, 16),
        surprise=RANDOM.random((20, 2)),
    )
    return replace(view, **changes)


def shown(panel: Axes, image: int = 0) -> np.ndarray:
    return np.asarray(panel.images[image].get_array())


def assert_readable(figure: Figure) -> None:
    """All titles and labels lie within the picture, and titles beside each other do not touch."""
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    titles = []
    for panel in figure.axes:
        for text in (panel.title, panel.xaxis.label, panel.yaxis.label):
            box = text.get_window_extent()
            assert not text.get_text() or (box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height)
        if panel.title.get_text():
            titles.append(panel.title.get_window_extent())
    for left, right in pairwise(sorted(titles, key=lambda box: (round(box.y0), box.x0))):
        assert round(left.y0) != round(right.y0) or left.x1 <= right.x0


def test_layers_are_shown_from_the_first_to_the_last_at_their_seconds() -> None:
    view = a_view()
    figure = layers_figure([view, a_view(clip="other")])
    panels = [panel for panel in figure.axes if panel.get_title().startswith("layer")]
    assert [panel.get_title() for panel in panels[:6]] == [f"layer {layer} of 8" for layer in (1, 2, 4, 5, 7, 8)]
    assert len(panels) == 12
    assert shown(panels[5]) == pytest.approx(20 * view.layers[7])
    assert panels[0].images[0].get_extent() == pytest.approx([0, 1, 1, 0])
    assert (panels[0].get_xlim(), panels[0].get_ylim()) == ((0, 1), (1, 0))
    assert_readable(figure)


def test_heads_are_those_of_the_layer() -> None:
    view = a_view(layer=2)
    figure = heads_figure([view])
    assert "layer 3" in figure.get_suptitle()
    assert shown(figure.axes[0]) == pytest.approx(20 * view.heads[0])
    assert_readable(figure)


def test_overlay_is_clear_at_an_even_spread_and_folded_where_the_patches_lie() -> None:
    layout = TokenLayout(
        *(10, 0.1, 0.0875, 3),
        row_edges_hz=(100.0, 500.0, 2000.0, 8000.0),
        leading=("class", "distillation"),
        summary=True,
    )
    focus = RANDOM.random((3, 10)) * 8
    view = a_view(layout=layout, steps=10, focus=focus, rollout=np.ones((3, 10)), cross=None)
    log_mel = RANDOM.standard_normal((98, 128))
    figure = overlay_figure([view], [log_mel])
    first, second = figure.axes[:2]
    assert first.get_title() == "a_clip: last layer, from the class tokens"
    (patches,), (of_rollout,) = first.collections, second.collections
    assert np.asarray(patches.get_array()) == pytest.approx(focus)
    edges = np.asarray(patches.get_coordinates())  # (rows + 1, steps + 1, 2)
    assert edges[0, :, 0] == pytest.approx(0.0375 + 0.1 * np.arange(11))
    assert edges[:, 0, 1] == pytest.approx([mel_position(hz) for hz in (100, 500, 2000, 8000)])
    assert first.get_xlim() == (0, 1)
    for mesh, most in ((patches, np.percentile(focus, 99.5)), (of_rollout, 2.0)):
        assert mesh.get_clim() == pytest.approx((1, most))
    assert of_rollout.cmap(of_rollout.norm(np.array([0.5, 1.0])))[:, 3].tolist() == [0, 0]
    assert_readable(figure)


def test_overlay_of_coefficients_is_a_profile() -> None:
    """They have no place on the axis of frequency."""
    layout = TokenLayout(*(10, 0.1, 0.0875, 3), rows_over="coefficients", time_major=True)
    focus = RANDOM.random((3, 10)) * 8
    view = a_view(layout=layout, steps=10, focus=focus, rollout=np.ones((3, 10)), cross=None)
    figure = overlay_figure([view], [RANDOM.standard_normal((98, 128))])
    (line, *_) = (panel.lines[0] for panel in figure.axes if panel.lines)
    assert line.get_ydata() == pytest.approx(focus.mean(0))
    assert np.asarray(figure.axes[0].collections[0].get_array()) == pytest.approx(focus.mean(0, keepdims=True))


def test_overlay_of_a_sequence_has_the_profile_as_a_line_and_what_the_decoder_looked_at() -> None:
    view = a_view()
    figure = overlay_figure([view], [RANDOM.standard_normal((98, 128))])
    lines = [panel.lines[0] for panel in figure.axes if panel.lines]
    looked = view.cross.shares.mean(0)
    expected = [view.focus[0], view.rollout[0], looked / looked.mean()]
    assert [line.get_ydata() for line in lines] == [pytest.approx(values) for values in expected]
    assert lines[0].get_xdata() == pytest.approx(0.025 + 0.05 * np.arange(20))


def test_the_spectrogram_has_a_tone_at_its_hertz() -> None:
    time = np.arange(24_000) / 24_000
    log_mel = log_mel_of({"array": np.sin(2 * np.pi * 2000 * time).astype(np.float32), "sampling_rate": 24_000})
    assert log_mel.shape == (98, 128)
    assert (log_mel.mean(0).argmax() + 0.5) / 128 == pytest.approx(mel_position(2000), abs=1 / 128)
    assert (mel_position(20), mel_position(8000)) == pytest.approx((0, 1))


def test_distances_have_a_line_for_each_model_and_a_dot_for_each_head() -> None:
    views = [a_view(model=model, clip=clip) for model in ("one", "two") for clip in ("rain", "dog")]
    figure = distance_figure(views)
    rain, dog = (panel for panel in figure.axes if panel.get_title() in ("rain", "dog"))
    line, *heads = rain.lines[:9]
    assert line.get_ydata() == pytest.approx(views[0].distances_seconds.mean(1) / 0.3)
    assert heads[3].get_ydata() == pytest.approx(views[0].distances_seconds[:, 3] / 0.3)
    assert dog.lines[9].get_ydata() == pytest.approx(views[3].distances.mean(1))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["one", "two", "even spread (global)"]
    assert_readable(figure)


def test_cross_attention_has_a_row_for_each_token() -> None:
    view = a_view()
    figure = cross_figure([view, a_view(clip="other")])
    assert shown(figure.axes[0]) == pytest.approx(20 * view.cross.shares)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b", "c", "d\\n"]
    assert_readable(figure)


def test_hidden_states_are_without_their_mean() -> None:
    views = [a_view(model=model, clip=clip) for model in ("one", "two") for clip in ("rain", "dog")]
    figure = hidden_states_figure(views)
    panel = next(panel for panel in figure.axes if panel.get_title() == "two: dog")
    states = views[3].hidden_states[-1][:, :128]
    assert shown(panel) == pytest.approx((states - states.mean(0)).T)
    assert panel.images[0].get_extent() == pytest.approx([0, 1, 0, 128])
    assert_readable(figure)
    by_layer = states_by_layer_figure(views[:1])
    titles = [panel.get_title() for panel in by_layer.axes if panel.get_title()]
    assert titles == ["rain: before layer 1", "rain: after layer 3", "rain: after layer 5", "rain: after layer 8"]
    assert_readable(by_layer)


def test_codes_over_time_and_their_shares() -> None:
    view = a_view()
    figure = codes_figure([view])
    over_time, use = figure.axes[:2]
    assert shown(over_time).tolist() == view.codes.T.tolist()
    counts = sorted(view.usage.counts[1], reverse=True)
    assert use.lines[1].get_ydata() == pytest.approx(100 * np.cumsum(counts) / 20)
    label = use.get_legend().get_texts()[0].get_text()
    assert label == f"1: {view.usage.distinct[0]} codes, perplexity {view.usage.perplexity[0]:.0f}"
    assert_readable(figure)


def test_a_last_frame_that_is_mostly_padding_keeps_its_width() -> None:
    """Its middle lies behind the clip, so it is no step of the maps; its code is shown all the same."""
    codes = RANDOM.integers(16, size=(21, 2))
    view = a_view(clip_seconds=1.01, layout=TokenLayout(21, 0.05, 0.025), codes=codes, usage=code_usage(codes, 16))
    assert codes_figure([view]).axes[0].images[0].get_extent()[:2] == pytest.approx((0, 1.05))


def test_names_are_no_formulas() -> None:
    """`$_$` is none that matplotlib knows; the numbers of axes are drawn without formulas, too."""
    view = a_view(model="$_$", clip="$_$", cross=CrossView(("$_$", "$", "5", "$"), RANDOM.dirichlet(np.ones(20), 4)))
    for figure in (codes_figure([view]), cross_figure([view]), distance_figure([view]), layers_figure([view])):
        figure.canvas.draw()
        assert not [text for text in figure.findobj(Text) if "mathdefault" in text.get_text()]


@pytest.mark.parametrize("heard", [10, 20])
def test_what_a_model_does_not_hear_is_said(heard: int) -> None:
    view = a_view(layout=TokenLayout(heard, 0.05, 0.025), steps=heard, cross=None)
    figure = hidden_states_figure([replace(view, hidden_states=view.hidden_states[:, :heard])])
    assert [text.get_text() for text in figure.axes[0].texts] == (["not heard"] if heard == 10 else [])
