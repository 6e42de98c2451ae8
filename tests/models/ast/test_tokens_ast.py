"""A stock AST gives the same for chosen tokens as if there were no others."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ASTForAudioClassification, ASTModel

from hf_audioformer.models.ast.tokens_ast import keep_tokens, patch_mask

from .tiny_ast import OVERLAPPING, tiny_ast, tiny_ast_config


def tiny_model(**settings: Any) -> ASTForAudioClassification:
    return tiny_ast(**OVERLAPPING, **settings)


def only(model: ASTForAudioClassification, spectrogram: Tensor, tokens: Tensor) -> Tensor:
    """Logits of one clip (frames, num_mel_bins) from some of its tokens, step by step without a mask."""
    ast = model.audio_spectrogram_transformer
    states = ast.embeddings(spectrogram[None])[:, tokens]
    for layer in ast.layers:
        states = layer(states)
    return model.classifier(ast.layernorm(states)[:, :2].mean(1))[0]


def padded(rows: list[Tensor]) -> dict[str, Tensor]:
    pad = nn.utils.rnn.pad_sequence
    return {
        "kept_tokens": pad(rows, batch_first=True),
        "attention_mask": pad([torch.ones_like(row) for row in rows], batch_first=True),
    }


def tokens_of(frames: list[int]) -> list[Tensor]:
    return [row.nonzero().flatten() for row in patch_mask(frames, tiny_ast_config(**OVERLAPPING))]


@pytest.mark.unit
def test_patches_count_whose_first_frame_is_sound() -> None:
    config = tiny_ast_config(**OVERLAPPING)
    mask = patch_mask([14, 5, 4, 1], config)
    assert mask.shape == (4, 2 + 3 * 6)
    assert mask.dtype == torch.bool
    assert mask[:, :2].all()
    for row, columns in zip(mask, (6, 3, 2, 1), strict=True):  # patches begin at 0, 2, 4, 6, 8 and 10
        assert row[2:].reshape(3, 6).tolist() == [[True] * columns + [False] * (6 - columns)] * 3
    assert torch.equal(patch_mask(torch.tensor([14, 5, 4, 1]), config), mask)
    for frames in ([3, 0], [15]):
        with pytest.raises(ValueError, match=rf"frames are \[{frames[0]}.*from 1 to max_length=14"):
            patch_mask(frames, config)


@pytest.mark.reference
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_outputs_are_those_of_each_clip_alone_without_the_other_tokens(attention: str) -> None:
    model = tiny_model(attn_implementation=attention)
    values, kept = torch.randn(3, 14, 8), tokens_of([14, 7, 1])
    kept[0] = kept[0][[0, 1, 3, 8, 9, 17]]
    expected = torch.stack([only(model, row, tokens) for row, tokens in zip(values, kept, strict=True)])
    keep_tokens(model)
    batch = padded(kept)
    assert batch["kept_tokens"].shape[1] < 20
    torch.testing.assert_close(model(values, **batch).logits, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(model(values).logits, expected, atol=1e-2)


@pytest.mark.invariant
def test_keeping_all_tokens_or_not_being_told_changes_nothing() -> None:
    model = tiny_model()
    values = torch.randn(2, 14, 8)
    expected = model(values).logits
    remove = keep_tokens(model)
    assert torch.equal(model(values).logits, expected)
    everything = padded(tokens_of([14, 14]))
    torch.testing.assert_close(model(values, **everything).logits, expected, rtol=0, atol=1e-6)
    model(values, **padded(tokens_of([3, 1])))
    assert torch.equal(model(values).logits, expected)
    remove()
    assert not model.audio_spectrogram_transformer._forward_pre_hooks
    assert not model.audio_spectrogram_transformer.embeddings._forward_hooks


@pytest.mark.invariant
def test_padding_does_not_matter_but_to_patches_that_hold_sound_too() -> None:
    model = tiny_model()
    keep_tokens(model)
    values, batch = torch.randn(1, 14, 8), padded(tokens_of([5]))  # the last patch that counts ends at frame 8
    expected = model(values, **batch).logits
    for first, matters in ((8, False), (7, True)):
        other = values.clone()
        other[:, first:] = 5 * torch.randn_like(other[:, first:])
        assert torch.equal(model(other, **batch).logits, expected) is not matters


class Wrapper(nn.Module):
    """Calls the model's `forward` itself, as peft does."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.forward(*args, **kwargs)


@pytest.mark.invariant
def test_works_within_wrappers_in_copies_twice_told_and_with_gradient_checkpointing() -> None:
    values, batch = torch.randn(2, 14, 8), padded(tokens_of([9, 4])) | {"labels": torch.tensor([0, 2])}

    def gradient(model: nn.Module, wrapped: nn.Module) -> Tensor:
        model.zero_grad()
        wrapped(values, **batch).loss.backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    model = tiny_model().train()
    late = deepcopy(model)
    keep_tokens(model)
    expected = gradient(model, model)
    torch.testing.assert_close(gradient(model, Wrapper(model)), expected)
    copy = deepcopy(model)
    torch.testing.assert_close(gradient(copy, copy), expected)
    keep_tokens(copy)
    torch.testing.assert_close(gradient(copy, copy), expected)
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradient(model, model), expected)
    wrapped = Wrapper(late)
    keep_tokens(wrapped)
    torch.testing.assert_close(gradient(late, wrapped), expected)


@pytest.mark.invariant
def test_weights_are_stock() -> None:
    model = tiny_model()
    before = list(model.state_dict())
    keep_tokens(model)
    model(torch.randn(1, 14, 8), **padded(tokens_of([3])))
    assert list(model.state_dict()) == before
    assert not list(model.buffers())


@pytest.mark.fault
def test_needs_one_ast() -> None:
    with pytest.raises(ValueError, match="model is a Linear with 0 ASTModel in it; it must have one"):
        keep_tokens(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="ModuleList with 2 ASTModel"):
        keep_tokens(nn.ModuleList([ASTModel(tiny_ast_config(**OVERLAPPING)) for _ in range(2)]))


@pytest.mark.invariant
def test_is_compiled_whole() -> None:
    model = tiny_model()
    keep_tokens(model)
    values, batch = torch.randn(2, 14, 8), padded(tokens_of([9, 4]))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(values, **batch).logits, model(values, **batch).logits)
    torch.testing.assert_close(compiled(values).logits, model(values).logits)
