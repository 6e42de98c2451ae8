"""What `hf-audioformer inspect` leaves and prints: tables, figures with what they show, and numbers."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..audio.io import Audio
from ..inspection.attention_plots import cross_figure, distance_figure, heads_figure, layers_figure, overlay_figure
from ..inspection.clip_view import ClipView, ModelFacts
from ..inspection.html_page import Section
from ..inspection.panels import log_mel_of
from ..inspection.state_plots import codes_figure, hidden_states_figure, states_by_layer_figure
from ..inspection.surprise_plot import surprise_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["numbers", "sections", "summary"]

SIDE_BY_SIDE = (
    "What each model is, what it is given of the first clip and what comes out. Shapes are those of a batch of one; "
    "the output is that of the last layer, of a model with a decoder that of the encoder. One step is the time from "
    "one vector of the output to the next. A network with random weights has attention and hidden states too: they "
    "show how it is built, and nothing learned."
)
HIDDEN_STATES = (
    "The last layer's output over time, its first 128 channels, each without its mean over the clip, which would hide "
    "what moves. Of an AST the patches of one time are averaged over frequency."
)
DISTANCE = (
    "How far a step looks, on average: near 0 it attends to its neighbours, 1 is as far as attention that weighs all "
    "steps of the clip alike, and above 1 it looks away from its neighbours. A line is the mean over heads, a dot is a "
    "head. The table has the same in seconds, and the share of attention that stays on the clip; the rest lies on "
    "special tokens, or on the silence that a model pads with."
)
ATTENTION = (
    "On the spectrogram, the redder the more, from what an even spread over the clip would give; the blue line is the "
    "same number. Rollout follows attention through all layers and the residual paths. Self-attention is drawn from "
    "the time that looks (down) to the time looked at (right): a bright diagonal is local attention, bright columns "
    "are times that all look at, stripes beside the diagonal are fixed distances."
)
PATCHES = (
    " Of the patches over frequency queries are averaged and keys summed; on the spectrogram, the look of the class "
    "and the distillation token is folded back to time and frequency."
)
CROSS = " Cross-attention has a row for each token that the decoder wrote: where it looked to write that one."
CODES = " Codes are what this model hears: one number for each frame and codebook; one colour is one code."
SURPRISE = (
    " Surprise is how little the model expected a frame's codes from the others, as the negative logarithm of their "
    "probability while the frame is hidden, mean over the codebooks: peaks are what the rest does not explain."
)

FACTS = ("model", "class", "parameters", "layers", "heads", "input", "input shape", "output shape", "one step", "hears")
DISTANCES = (
    "model",
    "clip",
    "layer",
    "mean distance, s",
    "times an even spread",
    "heads, local to global",
    "on the clip",
)


def sections(facts: Sequence[ModelFacts], views: Sequence[ClipView], clips: Mapping[str, Audio]) -> Iterator[Section]:
    """The parts of the report, three and one for each model, with their figures."""
    yield Section("Side by side", SIDE_BY_SIDE, table=_facts_table(facts))
    yield Section("Hidden states", HIDDEN_STATES, figures=[_png("hidden_states", hidden_states_figure(views))])
    yield Section(
        *("Attention distance", DISTANCE),
        table=_distance_table(views),
        figures=[_png("attention_distance", distance_figure(views))],
    )
    for row in facts:
        yield _model_section([view for view in views if view.model == row.model], clips)


def _model_section(views: Sequence[ClipView], clips: Mapping[str, Audio]) -> Section:
    first = views[0]
    text = ATTENTION
    figures = {
        "overlay": overlay_figure(views, [log_mel_of(clips[view.clip]) for view in views]),
        "layers": layers_figure(views),
        "heads": heads_figure(views),
        "states": states_by_layer_figure(views),
    }
    if first.layout.summary:
        text += PATCHES
    if first.cross is not None:
        figures["cross"] = cross_figure(views)
        text += CROSS
    if first.usage is not None:
        figures["codes"] = codes_figure(views)
        text += CODES
    if first.surprise is not None:
        figures |= {f"surprise_{view.clip.replace('/', '_')}": _surprise(view, clips[view.clip]) for view in views}
        text += SURPRISE
    name = first.model.replace("/", "_")
    return Section(first.model, text, figures=[_png(f"{name}_{kind}", figure) for kind, figure in figures.items()])


def _surprise(view: ClipView, audio: Audio) -> "Figure":
    if view.surprise is None or view.usage is None:
        raise ValueError(f"{view.model} predicts no masked codes")
    title = f"{view.model}: surprise along {view.clip}"
    return surprise_figure(audio, view.surprise, 1 / view.layout.step_seconds, view.usage.counts.shape[1], title)


def _png(name: str, figure: "Figure") -> tuple[str, bytes]:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return f"{name}.png", file.getvalue()


def _facts_table(facts: Sequence[ModelFacts]) -> list[Sequence[str]]:
    return [FACTS, *(_fact_row(row) for row in facts)]


def _fact_row(row: ModelFacts) -> list[str]:
    layers = str(row.layers) if row.decoder_layers is None else f"{row.layers}, decoder {row.decoder_layers}"
    parameters = f"{row.parameters / 1e6:.1f} M" if row.parameters >= 1e6 else f"{row.parameters:,}"
    if row.random_weights:
        parameters += f" ({row.random_weights} tensors are not in the checkpoint: random)"
    return [
        *(row.model, row.model_class, parameters, layers, str(row.heads), row.input_form, str(row.input_shape)),
        str(row.output_shape) + (f" with {', '.join(row.special_tokens)}" if row.special_tokens else ""),
        f"{row.step_ms:.4g} ms" + (f", {row.rows} patches over {row.rows_over}" if row.rows > 1 else ""),
        f"{row.heard_seconds:.2f} of {row.clip_seconds:.2f} s",
    ]


def _distance_table(views: Sequence[ClipView]) -> list[Sequence[str]]:
    return [DISTANCES, *(row for view in views for row in _distance_rows(view))]


def _distance_rows(view: ClipView) -> Iterator[list[str]]:
    for layer, (seconds, shares) in enumerate(zip(view.distances_seconds, view.distances, strict=True)):
        heads = " ".join(f"{share:.2f}" for share in sorted(shares))
        kept = f"{100 * view.on_clip[layer]:.0f} %"
        yield [view.model, view.clip, str(layer + 1), f"{seconds.mean():.3f}", f"{shares.mean():.2f}", heads, kept]


def numbers(facts: Sequence[ModelFacts], views: Sequence[ClipView]) -> dict[str, Any]:
    """The facts of each model, and of each model and clip what the figures draw, in numbers."""
    return {"models": [asdict(row) for row in facts], "views": [_view_numbers(view) for view in views]}


def _view_numbers(view: ClipView) -> dict[str, Any]:
    return {
        "model": view.model,
        "clip": view.clip,
        "clip_seconds": view.clip_seconds,
        "steps": view.steps,
        "distances_seconds": view.distances_seconds.tolist(),
        "even_distance_seconds": view.even_seconds,
        "attention_on_clip": view.on_clip.tolist(),
        "written": None if view.cross is None else list(view.cross.written),
        "distinct_codes": None if view.usage is None else view.usage.distinct.tolist(),
        "mean_surprise_nats": None if view.surprise is None else float(view.surprise.mean()),
        "code_perplexity": None if view.usage is None else view.usage.perplexity.tolist(),
    }


def summary(facts: Sequence[ModelFacts]) -> str:
    """The facts for the screen: a block of lines for each model."""
    blocks = []
    for row in facts:
        name, *cells = _fact_row(row)
        lines = [f"  {fact:13} {cell}" for fact, cell in zip(FACTS[1:], cells, strict=True)]
        blocks.append("\n".join([name, *lines]))
    return "\n".join(blocks)
