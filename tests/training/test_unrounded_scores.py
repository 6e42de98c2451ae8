"""The last layers of a classifier under autocast: rounded while it learns, not while it is evaluated."""

from copy import deepcopy

import pytest
import torch

from hf_audioformer.training.unrounded_scores import score_unrounded


@pytest.mark.unit
def test_scores_of_evaluation_are_those_of_the_weights_precision() -> None:
    head = torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Linear(8, 3))
    inputs = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    expected = head(inputs)
    score_unrounded(head)
    copied = deepcopy(head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        learnt = head(inputs)
        evaluated = head.eval()(inputs)
        half = head.to(torch.bfloat16)(inputs)
    assert learnt.dtype == half.dtype == torch.bfloat16
    assert torch.equal(evaluated, expected)
    torch.nn.init.zeros_(copied[1].weight)
    assert torch.equal(copied(inputs), copied[1].bias.expand(5, 3))
