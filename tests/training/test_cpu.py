"""Training on a CPU: what is faster computes the same."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from hf_audioformer.training import cpu
from hf_audioformer.training.cpu import attention_on_cpu, keep_freed_memory, quick_attention
from hf_audioformer.training.trainer import AudioTrainer, trainer_arguments

from ..models.audioformer.tiny_models import tiny_model
from .tiny_ast import DEFAULTS, make_clips, make_model

BLOCK_BYTES = 2**26


class Attention(nn.Module):
    is_causal = False


def inputs(queries: int = 7, keys: int = 7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, queries, 4), (2, 3, keys, 4), (2, 3, keys, 4)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def padding_mask(queries: int, keys: int) -> Tensor:
    """The second clip has two keys less."""
    return (torch.arange(keys) < torch.tensor([keys, keys - 2])[:, None])[:, None, None].expand(2, 1, queries, keys)


@pytest.mark.unit
@pytest.mark.parametrize(("queries", "keys", "kept"), [(7, 7, 2**25), (3, 7, 2**25), (620, 9, 0)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.1])
def test_attention_and_its_gradients_are_those_of_sdpa(
    queries: int, keys: int, kept: int, masked: bool, scaling: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "MAX_KEPT_WEIGHTS", kept)
    mask = padding_mask(queries, keys) if masked else None
    found, expected = [], []
    for function, into in ((attention_on_cpu, found), (sdpa_attention_forward, expected)):
        tensors = inputs(queries, keys)
        output, _ = function(Attention(), *tensors, mask, scaling=scaling)
        output.square().sum().backward()
        into += [output, *(tensor.grad for tensor in tensors)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.unit
@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_evaluation_is_that_of_sdpa(masked: bool) -> None:
    layer, mask = Attention().eval(), padding_mask(7, 7) if masked else None
    with torch.no_grad():
        found, expected = (attend(layer, *inputs(), mask)[0] for attend in (attention_on_cpu, sdpa_attention_forward))
    assert torch.equal(found, expected)


@pytest.mark.unit
def test_without_a_mask_a_causal_layer_stays_causal() -> None:
    layer = Attention()
    layer.is_causal = True
    query, key, value = inputs()
    changed = value.detach().clone()
    changed[:, :, -1] += 1
    outputs = [attention_on_cpu(layer, query, key, values, None)[0][:, :-1] for values in (value, changed)]
    assert torch.equal(*outputs)


@pytest.mark.unit
@pytest.mark.parametrize(
    "settings",
    [
        {"position_bias": torch.linspace(-3, 3, 7).expand(1, 1, 7, 7)},
        {"attention_mask": torch.linspace(-3, 3, 7).expand(2, 1, 7, 7)},
        {"is_causal": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_other_models_ask_of_sdpa_is_not_lost(settings: dict[str, Any]) -> None:
    settings = {"attention_mask": None} | settings
    found, expected, without = (
        function(Attention(), *inputs(), **chosen)[0]
        for function, chosen in (
            (attention_on_cpu, settings),
            (sdpa_attention_forward, settings),
            (attention_on_cpu, {"attention_mask": None}),
        )
    )
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, without)


@pytest.mark.unit
def test_keys_that_heads_share_are_left_to_sdpa() -> None:
    layer = Attention()
    layer.num_key_value_groups = 2
    query, key, value = inputs()
    shared = query.repeat_interleave(2, 1)[:, :4], key[:, :2], value[:, :2]
    torch.testing.assert_close(
        attention_on_cpu(layer, *shared, None)[0], sdpa_attention_forward(layer, *shared, None)[0]
    )


@pytest.mark.unit
def test_weights_too_many_to_keep_are_left_to_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def sdpa(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        called.append(args)
        return sdpa_attention_forward(*args, **kwargs)

    monkeypatch.setattr(cpu, "sdpa_attention_forward", sdpa)
    for limit in (2 * 3 * 7 * 7, 2 * 3 * 7 * 7 - 1):
        assert not called
        monkeypatch.setattr(cpu, "MAX_KEPT_WEIGHTS", limit)
        attention_on_cpu(Attention(), *inputs(), None)
    assert len(called) == 1


@pytest.mark.unit
def test_queries_are_padded_to_the_large_blocks_of_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def sdpa(module: nn.Module, query: Tensor, key: Tensor, *rest: Any, **settings: Any) -> tuple[Tensor, None]:
        shapes.append((query.shape[2], key.shape[2]))
        return sdpa_attention_forward(module, query, key, *rest, **settings)

    monkeypatch.setattr(cpu, "sdpa_attention_forward", sdpa)
    monkeypatch.setattr(cpu, "MAX_KEPT_WEIGHTS", 0)
    for queries in (599, 600, 767, 768):
        output, _ = attention_on_cpu(Attention(), *inputs(queries, 7), padding_mask(queries, 7))
        assert output.shape[1] == queries
    assert shapes == [(599, 7), (768, 7), (768, 7), (768, 7)]


@pytest.mark.unit
def test_dropout_of_the_attention_is_applied_in_training() -> None:
    layer = Attention().train()
    torch.manual_seed(0)
    first, second = (attention_on_cpu(layer, *inputs(), None, dropout=0.5)[0] for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    with torch.no_grad():  # as the first pass of reentrant checkpointing
        again, _ = attention_on_cpu(layer, *inputs(), None, dropout=0.5)
    assert torch.equal(again, first)


class Watch(TrainerCallback):
    """Notes by what the model attends in its first step."""

    implementation: str | None = None

    def on_step_end(self, args, state, control, model: PreTrainedModel, **kwargs) -> None:
        self.implementation = model.config._attn_implementation


@pytest.mark.unit
@pytest.mark.parametrize(("bf16", "implementation"), [(True, cpu.ATTENTION), (False, "sdpa")])
def test_the_trainer_attends_by_it_in_bfloat16_on_a_cpu(bf16: bool, implementation: str, tmp_path: Path) -> None:
    model, watch = make_model(), Watch()
    assert model.config._attn_implementation == "sdpa"
    settings = DEFAULTS | {"bf16": bf16, "max_steps": 2}
    arguments = trainer_arguments({}, settings, output_dir=str(tmp_path), seed=0, use_cpu=True)
    AudioTrainer(model=model, args=arguments, train_dataset=make_clips([0, 1, 2, 0]), callbacks=[watch]).train()
    assert watch.implementation == implementation
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.unit
def test_layers_of_local_attention_keep_their_own() -> None:
    model = tiny_model(layer_types=["sliding_attention", "full_attention"], sliding_window=8, num_hidden_layers=2)
    with quick_attention(model):
        assert model.config._attn_implementation == "sdpa"


# In a process of its own: a heap in which others have left a hole keeps blocks there, whatever the settings.
COUNT_PAGES = f"""
import resource

import torch

from hf_audioformer.training.cpu import keep_freed_memory


def new_pages() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones({BLOCK_BYTES}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


outside = [new_pages() for _ in range(4)]
with keep_freed_memory():
    within = [new_pages() for _ in range(8)]
print(min(outside), min(within), new_pages())
"""


@pytest.mark.unit
def test_freed_memory_is_kept_for_the_next_block_and_given_back_at_the_end() -> None:
    """By the pages that the kernel hands out for blocks of one size, each freed before the next; of some, the fewest,
    since something small may take the start of a freed block."""
    done = subprocess.run([sys.executable, "-c", COUNT_PAGES], capture_output=True, text=True, check=True)
    outside, within, afterwards = map(int, done.stdout.split())
    assert within < 100 < outside
    assert afterwards > 100


@pytest.mark.unit
def test_where_there_is_no_glibc_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str | None) -> None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")  # as on Windows

    monkeypatch.setattr(cpu.ctypes, "CDLL", refuse)
    monkeypatch.setattr(cpu.sys, "platform", "win32")
    with keep_freed_memory():
        pass
