"""What the optimizer of DeepSpeed holds takes the place of the network's 16 bits; DeepSpeed itself is run in
`test_equivalent_batches_ast.py`, where it is installed."""

import sys
from types import ModuleType

import pytest
import torch

from hf_audioformer.training.deepspeed_weights import updated_weights


@pytest.mark.unit
def test_what_learns_comes_from_the_optimizer_and_the_rest_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    utilities = ModuleType("deepspeed.utils")
    utilities.safe_get_full_fp32_param = lambda parameter: torch.full(parameter.shape, 1 / 3)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deepspeed", ModuleType("deepspeed"))
    monkeypatch.setitem(sys.modules, "deepspeed.utils", utilities)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).bfloat16()
    model[0].bias.requires_grad_(False)
    weights = updated_weights(model, model.state_dict())
    assert weights.keys() == model.state_dict().keys()
    assert torch.equal(weights["0.weight"], torch.full((2, 2), 1 / 3))
    assert torch.equal(weights["0.bias"], model[0].bias.float())
    assert {weight.dtype for weight in weights.values()} == {torch.float32, torch.int64}
    assert updated_weights(model, None).keys() == {"0.weight", "1.weight", "1.bias"}
