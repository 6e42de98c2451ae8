"""What figures and tables show of a trace: small arrays over the clip's own steps, and facts side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .attention import attention_focus, attention_over_time, attention_rollout, even_distance, mean_distances
from .code_usage import CodeUsage, code_usage
from .tokens import TokenLayout
from .tracing import InspectedModel, Trace

__all__ = ["ClipView", "CrossView", "ModelFacts", "model_facts", "view_of"]


@dataclass(frozen=True)
class CrossView:
    """Where the decoder looked for each token it wrote.

    Args:
        written: The tokens.
        shares: Mean over layers and heads, (written, steps).
    """

    written: tuple[str, ...]
    shares: np.ndarray


@dataclass(frozen=True)
class ClipView:
    """One model's view of one clip, over the `steps` that hold it; `layout` gives their seconds.

    Args:
        hidden_states: Before the first layer and after each, (layers + 1, steps, size); of an AST the mean over
            frequency.
        layers: Mean over heads, (layers, steps, steps), as `attention_over_time` gives it.
        heads: Of the layer `layer`, counted from 0: (heads, steps, steps).
        focus: Where the output looks in the last layer, (rows, steps); 1 is even.
        rollout: The same through all layers.
        distances_seconds: Of each layer and head, (layers, heads).
        even_seconds: What those are of attention that weighs all steps alike.
        on_clip: Share of each layer's attention that stays on the clip, (layers,), the rest lies on special tokens and
            padding.
        codes: (frames, codebooks) of an AudioFormer.
        usage: How they are used.
        surprise: How little each was expected, in nats, (frames, codebooks), of a masked language model.
    """

    model: str
    clip: str
    clip_seconds: float
    layout: TokenLayout
    steps: int
    hidden_states: np.ndarray
    layers: np.ndarray
    layer: int
    heads: np.ndarray
    focus: np.ndarray
    rollout: np.ndarray
    distances_seconds: np.ndarray
    even_seconds: float
    on_clip: np.ndarray
    cross: CrossView | None
    codes: np.ndarray | None
    usage: CodeUsage | None
    surprise: np.ndarray | None

    @property
    def distances(self) -> np.ndarray:
        """Mean attention distance of each layer and head as a share of that of even attention, (layers, heads): near 0
        is local, 1 is global."""
        return self.distances_seconds / self.even_seconds

    @property
    def even_share(self) -> float:
        """What one step would get of attention that weighs all tokens alike, those of padding too."""
        return self.layout.rows / self.layout.num_tokens

    @property
    def seconds(self) -> np.ndarray:
        """The middle of each step, (steps,)."""
        return self.layout.seconds[: self.steps]

    @property
    def edges_seconds(self) -> tuple[float, float]:
        """Where the first step begins and the last one ends."""
        half = self.layout.step_seconds / 2
        return float(self.seconds[0]) - half, float(self.seconds[-1]) + half


def view_of(
    trace: Trace,
    *,
    model: str,
    clip: str,
    codebook_size: int | None = None,
    surprise: np.ndarray | None = None,
    layer: int = -1,
) -> ClipView:
    """The view of a trace; `layer` is the one whose heads are shown, from 0, or from -1 backwards.

    Raises:
        ValueError: There is no such layer, or the clip has fewer than two steps.
    """
    num_layers, steps, layout = len(trace.attentions), trace.steps, trace.layout
    if not -num_layers <= layer < num_layers:
        raise ValueError(
            f"layer is {layer} and {model} has {num_layers}; allowed are 0 to {num_layers - 1}, or -1 for the last."
        )
    if steps < 2:
        raise ValueError(
            f"{clip} is {trace.clip_seconds:.3f} s long, {steps} step of {model} ({1000 * layout.step_seconds:.0f} ms "
            "each); attention over time needs at least two."
        )
    over_time = [attention_over_time(weights, layout, steps) for weights in trace.attentions]
    layers = np.stack([weights.mean(0) for weights in over_time])
    states = [layout.fold(states, axis=0)[:, :steps].mean(0) for states in trace.hidden_states]
    return ClipView(
        model=model,
        clip=clip,
        clip_seconds=trace.clip_seconds,
        layout=layout,
        steps=steps,
        hidden_states=np.stack(states),
        layers=layers,
        layer=layer % num_layers,
        heads=over_time[layer],
        focus=attention_focus(trace.attentions[-1].mean(0), layout, steps),
        rollout=attention_focus(attention_rollout(trace.attentions), layout, steps),
        distances_seconds=np.stack([mean_distances(weights, layout.step_seconds) for weights in over_time]),
        even_seconds=even_distance(steps, layout.step_seconds),
        on_clip=layers.sum(-1).mean(-1),
        cross=_cross_view(trace),
        codes=trace.codes,
        usage=None if trace.codes is None or codebook_size is None else code_usage(trace.codes, codebook_size),
        surprise=surprise,
    )


def _cross_view(trace: Trace) -> CrossView | None:
    if trace.cross is None:
        return None
    shares = trace.layout.fold(trace.cross.weights.mean((0, 1))).sum(-2)
    return CrossView(trace.cross.written, shares[:, : trace.steps])


@dataclass(frozen=True)
class ModelFacts:
    """What is put side by side of one model and one clip.

    Args:
        decoder_layers: None of a model without decoder.
        input_shape, output_shape: Of a batch with this clip alone; the output is the encoder's.
        special_tokens: Those of the output that are no part of the clip.
        step_ms: Time from one step of the output to the next.
        rows: Tokens of each step: patches over frequency or, of MFCC, over coefficients, as `rows_over` says.
        heard_seconds: How much of the clip the model hears.
        random_weights: Tensors that the checkpoint lacks, and which are therefore random.
    """

    model: str
    source: str
    model_class: str
    parameters: int
    layers: int
    decoder_layers: int | None
    heads: int
    input_form: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    special_tokens: tuple[str, ...]
    step_ms: float
    rows: int
    rows_over: str
    clip_seconds: float
    heard_seconds: float
    random_weights: int


def model_facts(loaded: InspectedModel, trace: Trace, model: str) -> ModelFacts:
    """The facts of a model called `model`, with the shapes and seconds of one clip."""
    return ModelFacts(
        model=model,
        source=loaded.source,
        model_class=type(loaded.model).__name__,
        parameters=sum(weights.numel() for weights in loaded.model.parameters()),
        layers=len(trace.attentions),
        decoder_layers=None if trace.cross is None else len(trace.cross.weights),
        heads=trace.attentions[0].shape[0],
        input_form=trace.input_form,
        input_shape=trace.input_shape,
        output_shape=(1, *trace.hidden_states[-1].shape),
        special_tokens=trace.layout.leading + trace.layout.trailing,
        step_ms=1000 * trace.layout.step_seconds,
        rows=trace.layout.rows,
        rows_over=trace.layout.rows_over,
        clip_seconds=trace.clip_seconds,
        heard_seconds=trace.heard_seconds,
        random_weights=len(loaded.missing),
    )
