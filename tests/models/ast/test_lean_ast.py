"""A lean AST gives and learns what the stock one does."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ASTForAudioClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_audioformer.models.ast.lean_ast import make_lean
from hf_audioformer.models.ast.tokens_ast import keep_tokens

from .tiny_ast import OVERLAPPING, tiny_ast

BATCHES = {
    "all tokens": {},
    "some tokens": {"kept_tokens": torch.tensor([[0, 1, 4, 7, 19], [0, 1, 2, 0, 0]])},
    "some tokens of either clip": {
        "kept_tokens": torch.tensor([[0, 1, 4, 7, 19], [0, 1, 2, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    },
}


def pair(**settings: Any) -> tuple[ASTForAudioClassification, ASTForAudioClassification]:
    """A model and its lean copy, both in training."""
    model = tiny_ast(**OVERLAPPING | settings).train()
    keep_tokens(model)
    lean = deepcopy(model)
    make_lean(lean)
    return model, lean


def logits_and_gradients(model: nn.Module, values: Tensor, **batch: Tensor) -> dict[str, Tensor]:
    logits = model(values, **batch).logits
    logits.square().sum().backward()
    return {"logits": logits, **{name: weight.grad for name, weight in model.named_parameters()}}


@pytest.mark.reference
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("layers", [1, 2])
def test_logits_and_gradients_are_those_of_the_stock_model(
    batch: dict[str, Tensor], attention: str, layers: int
) -> None:
    model, lean = pair(attn_implementation=attention, num_hidden_layers=layers)
    values = torch.randn(2, 14, 8)
    expected, found = (logits_and_gradients(which, values, **batch) for which in (model, lean))
    assert lean.audio_spectrogram_transformer(values, **batch).last_hidden_state.shape[1] == 2
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)


@pytest.mark.unit
def test_masks_without_queries_are_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of flash attention, which reads the last queries' part of its mask where there are fewer than keys."""
    model, lean = pair()
    layer, lean_layer = (which.audio_spectrogram_transformer.layers[-1] for which in (model, lean))
    seen = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **_: Any) -> Any:
        assert query.shape[2] == mask.shape[1]
        return nn.functional.scaled_dot_product_attention(query, key, value, mask[:, None, None]).transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "of_test", attend)
    model.config._attn_implementation = lean.config._attn_implementation = "of_test"
    states = torch.randn(2, 5, model.config.hidden_size)
    torch.testing.assert_close(lean_layer(states, seen), layer(states, seen)[:, :2])


@pytest.mark.invariant
@pytest.mark.parametrize("frequency_stride", [2, 4])
def test_in_bfloat16_it_is_no_further_from_float32(frequency_stride: int) -> None:
    model, lean = pair(frequency_stride=frequency_stride)
    values = torch.randn(2, 14, 8)
    exact = model(values).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(lean(values).logits.float(), exact, rtol=0, atol=0.02)


@pytest.mark.invariant
def test_with_gradient_checkpointing_and_dropout_it_learns() -> None:
    _, lean = pair(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    lean.gradient_checkpointing_enable()
    found = logits_and_gradients(lean, torch.randn(2, 14, 8))
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found.values())


@pytest.mark.unit
def test_it_is_saved_as_a_stock_model(tmp_path: Any) -> None:
    model, lean = pair()
    lean.save_pretrained(tmp_path)
    loaded = ASTForAudioClassification.from_pretrained(tmp_path)
    assert type(loaded.audio_spectrogram_transformer.layers[-1]) is type(model.audio_spectrogram_transformer.layers[0])
    values = torch.randn(2, 14, 8)
    torch.testing.assert_close(loaded.eval()(values).logits, lean.eval()(values).logits, rtol=0, atol=1e-6)
