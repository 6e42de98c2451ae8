"""What attention weights say about time: folded to steps, rolled out over layers, and how far they reach.

Weights are numpy arrays (..., tokens, tokens): each row is what one token takes from all, and sums to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .tokens import TokenLayout

__all__ = ["attention_focus", "attention_over_time", "attention_rollout", "even_distance", "mean_distances"]


def attention_over_time(weights: np.ndarray, layout: TokenLayout, steps: int) -> np.ndarray:
    """Weights (..., tokens, tokens) as (..., steps, steps): from the step of the query to that of the key.

    Of several tokens of one step, the patches of an AST over frequency, queries are averaged and keys summed. Special
    tokens and steps from `steps` on, which hold padding, are left out; so a row sums to what stays on the clip.
    """
    by_query = layout.fold(weights, axis=-2)[..., :steps, :].mean(-3)
    return layout.fold(by_query)[..., :steps].sum(-2)


def attention_rollout(attentions: Sequence[np.ndarray]) -> np.ndarray:
    """How much of each input token reaches each output token: (tokens, tokens), rows sum to 1.

    The layers' weights (heads, tokens, tokens) are averaged over heads, mixed half and half with the residual path and
    multiplied, first layer first.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", arXiv 2005.00928, equation 1.
    """
    reached = np.eye(attentions[0].shape[-1], dtype=np.float32)
    for weights in attentions:
        mixed = weights.mean(0)
        mixed = (mixed / mixed.sum(-1, keepdims=True) + np.eye(len(mixed), dtype=mixed.dtype)) / 2
        reached = mixed @ reached
    return reached


def attention_focus(weights: np.ndarray, layout: TokenLayout, steps: int) -> np.ndarray:
    """Where the output looks: weights (tokens, tokens) as (rows, steps), 1 where an even spread would put it.

    The output is what a classifier reads: the class and the distillation token of an AST, otherwise all steps of the
    clip. Shares of special tokens and of padding are left out before the mean is brought to 1.
    """
    if layout.summary:
        looks = weights[: len(layout.leading)].mean(0)
    else:
        looks = layout.fold(weights, axis=0)[:, :steps].mean((0, 1))
    grid = layout.fold(looks)[:, :steps]
    return grid / grid.mean()


def mean_distances(over_time: np.ndarray, step_seconds: float) -> np.ndarray:
    """Mean time between query and key, in seconds, of weights (..., steps, steps): one number for each map.

    Rows are brought to sum 1 first, so that what lies on special tokens counts for nothing.
    """
    steps = np.arange(over_time.shape[-1])
    seconds = step_seconds * np.abs(steps[:, None] - steps)
    shares = over_time / over_time.sum(-1, keepdims=True)
    return (shares * seconds).sum(-1).mean(-1)


def even_distance(steps: int, step_seconds: float) -> float:
    """The mean distance, in seconds, of attention that weighs all steps alike: about a third of the clip."""
    return float(mean_distances(np.ones((steps, steps)), step_seconds))
