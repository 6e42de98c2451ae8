"""Scores in single precision, where the rest of a network computes in half."""

from types import MethodType
from typing import Any

import torch

__all__ = ["score_unrounded"]


def score_unrounded(head: torch.nn.Module) -> None:
    """Has the last layers of a classifier, while it is evaluated, compute in the precision of their weights.

    Under autocast their scores would be rounded to the 8 bits of bfloat16 and tie, which spoils rankings, such as mAP,
    and the choice of the epoch by them; the float32 that Accelerate makes of them hides it.
    """
    head.forward = MethodType(_unrounded, head)


def _unrounded(head: torch.nn.Module, *inputs: torch.Tensor) -> Any:
    forward = type(head).forward
    if head.training:
        return forward(head, *inputs)
    precision = next(head.parameters()).dtype
    with torch.autocast(inputs[0].device.type, enabled=False):
        return forward(head, *(each.to(precision) for each in inputs))
