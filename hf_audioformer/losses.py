"""Losses between the vectors of clips, and of a classifier's logits; other losses of heads stand with the models."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .models.audioformer.modeling_audioformer import loss_of_problem

__all__ = ["Form", "MultiPositiveContrastiveLoss", "Similarity", "classification_loss"]

Form = Literal["supcon", "lsep"]
Similarity = Literal["cosine", "dot"]

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification")

# What a missing row is told by in place of its clip.
MISSING = -1


class MultiPositiveContrastiveLoss(nn.Module):
    r"""MPC: pulls the vector of a clip's first code row to those of its other code rows, and away from other clips.

    A clip has one row per codebook: C1, whose pooled vector is the anchor, and its companions C2, C3, ... Positives of
    an anchor are the companions of its own clip, negatives all rows (C1 included) of the other clips of the batch. With
    the similarities s to positives p and negatives n, divided by the temperature, the loss of an anchor is one of

    * `"supcon"`: `mean_p -log(exp(s_p) / (exp(s_p) + sum_n exp(s_n)))`
    * `"lsep"`: `log(1 + sum_n exp(s_n) * sum_p exp(-s_p))`

    and the batch's is the mean over the anchors that have a positive. The gradient reaches each anchor as an anchor
    only: companions, and C1 rows where they are negatives of another clip, are constants. So nothing but the C1 network
    learns, and no gradient crosses processes.

    Source: arXiv 2308.07221, figure "mpc", which gives rows, positives, negatives and where the gradient goes. It gives
    no formula: both forms are consistent readings (those of SupCon, arXiv 2004.11362, and of LSEP and ZLPR, arXiv
    2208.02955). Ours are the defaults `form="supcon"` and `similarity="cosine"`, and the mean over anchors. The default
    temperature is that of the paper's first step on AudioSet-20K.

    Args:
        temperature: What similarities are divided by, above 0.
        form: `"supcon"` or `"lsep"`.
        similarity: `"cosine"`, or `"dot"` for the inner product of the vectors as they are.

    Requirements:
        1. Companions come from frozen networks; their vectors are constants of the clip and may be computed once.
        2. Batches of several clips; with one clip, or where all are the same, the loss is 0.
        3. Under `torch.distributed` all processes call it together, each with as many clips: all their rows are
           negatives, and the mean of the processes' losses and gradients is that of one process with the whole batch.
           With gradient accumulation each micro-batch has its own negatives only.

    Inputs:
        | name          | shape                           | dtype | meaning                                          |
        |---------------|---------------------------------|-------|--------------------------------------------------|
        | `anchors`     | (batch, hidden)                 | float | pooled vectors of the network that learns        |
        | `companions`  | (batch, num_companions, hidden) | float | vectors of the clips' other code rows            |
        | `is_present`  | (batch, num_companions)         | bool  | False for missing companions; default: none is   |
        | `clip_ids`    | (batch,)                        | int64 | at least 0; rows of one clip are never negatives |
        |               |                                 |       | of each other; default: every row another clip   |

        Returns a scalar, float32 (also under autocast), or float64 for float64 anchors; finite for finite inputs, and
        0 if no anchor has a positive.

    Relations:
        - With one companion per clip, `"supcon"` and `"lsep"` are equal.
        - [`hf_audioformer.codes.companions.companion_vectors`] computes companions.

    Raises:
        ValueError: A setting out of range, shapes that do not fit, or processes with batches of different shape.

    Example:

    ```python
    >>> import torch
    >>> from hf_audioformer.losses import MultiPositiveContrastiveLoss

    >>> loss = MultiPositiveContrastiveLoss(temperature=0.05)
    >>> anchors = torch.eye(2, 8, requires_grad=True)
    >>> companions = anchors.detach()[:, None].repeat(1, 3, 1)
    >>> loss(anchors, companions) < loss(anchors, companions.flip(0))
    tensor(True)

    ```"""

    def __init__(self, *, temperature: float = 0.05, form: Form = "supcon", similarity: Similarity = "cosine"):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        for name, value, allowed in (
            ("form", form, get_args(Form)),
            ("similarity", similarity, get_args(Similarity)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        self.temperature = temperature
        self.form = form
        self.similarity = similarity

    def forward(
        self,
        anchors: Tensor,
        companions: Tensor,
        is_present: Tensor | None = None,
        clip_ids: Tensor | None = None,
    ) -> Tensor:
        _check_shapes(anchors, companions, is_present, clip_ids)
        with torch.autocast(anchors.device.type, enabled=False):
            dtype = torch.promote_types(anchors.dtype, torch.float32)
            rows = torch.cat((anchors[:, None].to(dtype), companions.to(dtype)), dim=1)
            if self.similarity == "cosine":
                rows = F.normalize(rows, dim=-1)
            return self._mean_loss(rows, _clip_of_row(companions, is_present, clip_ids))

    def _mean_loss(self, rows: Tensor, clip_of_row: Tensor) -> Tensor:
        """Of rows (batch, 1 + num_companions, hidden), the anchors first, and the clip of each row, or MISSING."""
        anchors, constants = rows[:, 0] / self.temperature, rows.detach()
        _check_equal_shapes(rows)
        all_rows, all_clips = _gather(constants), _gather(clip_of_row)
        positive = torch.einsum("bh,bph->bp", anchors, constants[:, 1:])
        negative = anchors @ all_rows.flatten(0, 1).T
        is_positive = clip_of_row[:, 1:] != MISSING
        is_negative = (all_clips.flatten() != clip_of_row[:, :1]) & (all_clips.flatten() != MISSING)
        push = _logsumexp(negative, is_negative)
        if self.form == "supcon":
            losses = (F.softplus(push[:, None] - positive) * is_positive).sum(1) / is_positive.sum(1).clamp(min=1)
        else:
            losses = F.softplus(push + _logsumexp(-positive, is_positive))
        # Divided by the anchors of all processes, because their losses and gradients are then averaged.
        num_processes = len(all_rows) // len(rows)
        num_anchors = (all_clips[:, 1:] != MISSING).any(1).sum().clamp(min=1)
        return (losses * is_positive.any(1)).sum() * num_processes / num_anchors


def classification_loss(logits: Tensor, labels: Tensor, problem_type: str, label_smoothing: float = 0.0) -> Tensor:
    """Mean loss of a classifier, float32, for hard and for soft targets: what `AudioFormerForAudioClassification` has.

    Transformers' own refuses probabilities for one label per clip, and the official AST code takes class 0 for them.

    Args:
        logits: (batch, num_labels).
        labels: Class ids (batch,) of an integer dtype or probabilities (batch, num_labels) of a float dtype, for
            cross-entropy; shares in [0, 1] or multi-hot rows (batch, num_labels), for binary cross-entropy.
        problem_type: `"single_label_classification"` (cross-entropy) or `"multi_label_classification"` (binary).
        label_smoothing: How much of a target is spread evenly over the classes, or over yes and no, in [0, 1).

    Raises:
        ValueError: An unknown problem, smoothing out of range, or labels that do not fit problem and classes.
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, got {problem_type!r}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    return loss_of_problem(logits, labels, problem_type, label_smoothing=label_smoothing)


def _logsumexp(values: Tensor, where: Tensor) -> Tensor:
    """Over the last axis, of the values where True; very low, not -inf, if there is none: -inf gives NaN gradients."""
    lowest = values.new_full((), -1e30)
    return torch.logsumexp(torch.cat((torch.where(where, values, lowest), lowest.expand(len(values), 1)), 1), dim=1)


def _clip_of_row(companions: Tensor, is_present: Tensor | None, clip_ids: Tensor | None) -> Tensor:
    """The clip of each row, int64 (batch, 1 + num_companions), or MISSING."""
    batch, num_companions, _ = companions.shape
    if clip_ids is None:
        rank = torch.distributed.get_rank() if _is_distributed() else 0
        clip_ids = torch.arange(rank * batch, (rank + 1) * batch, device=companions.device)
    clips = clip_ids[:, None].repeat(1, 1 + num_companions)
    if is_present is not None:
        clips[:, 1:].masked_fill_(~is_present, MISSING)
    return clips


def _gather(own: Tensor) -> Tensor:
    """The rows of all processes, one process after the other; without a gradient."""
    if not _is_distributed():
        return own
    gathered = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(gathered, own.contiguous())
    return torch.cat(gathered)


def _check_equal_shapes(rows: Tensor) -> None:
    """Raises a ValueError in all processes if one has another batch; gathering would hang or mix up its rows."""
    if _is_distributed():
        shapes = _gather(torch.tensor([rows.shape], device=rows.device)).tolist()
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(
                f"the processes have rows (batch, rows, hidden) of different shape: {shapes}; give each as many clips"
            )


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _check_shapes(anchors: Tensor, companions: Tensor, is_present: Tensor | None, clip_ids: Tensor | None) -> None:
    if anchors.dim() != 2 or companions.dim() != 3 or companions[:, :0].shape != (len(anchors), 0, anchors.shape[1]):
        raise ValueError(
            f"anchors has shape {tuple(anchors.shape)} and companions {tuple(companions.shape)}; they must be "
            "(batch, hidden) and (batch, num_companions, hidden)"
        )
    if is_present is not None and (is_present.dtype != torch.bool or is_present.shape != companions.shape[:2]):
        raise ValueError(
            f"is_present must be bool {tuple(companions.shape[:2])} (batch, num_companions), got {is_present.dtype} "
            f"{tuple(is_present.shape)}"
        )
    if clip_ids is not None and (clip_ids.is_floating_point() or clip_ids.shape != anchors.shape[:1]):
        raise ValueError(
            f"clip_ids must be integers {tuple(anchors.shape[:1])} (batch,), got {clip_ids.dtype} "
            f"{tuple(clip_ids.shape)}"
        )
