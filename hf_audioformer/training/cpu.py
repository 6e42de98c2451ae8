"""Training on a CPU: memory is kept from step to step, and attention in bfloat16 is as fast as the rest."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["keep_freed_memory", "quick_attention"]

ATTENTION = "sdpa_on_cpu"
# Attention weights of a layer that are kept for its backward pass (100 MB); with more, attention is PyTorch's own.
MAX_KEPT_WEIGHTS = 2**25
# From so many queries on PyTorch's own takes 256 at a time in place of 64, which is up to a third faster; somewhat
# fewer are padded up to that.
LARGE_BLOCKS_FROM = 768
PADDED_FROM = 600

# Of glibc's malloc.h, and what they are when nothing is set.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 65536
NEVER = 2**31 - 1


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Has the process keep memory that it frees, where its C library is glibc; it is given back at the end.

    Otherwise each large tensor of each step is new memory, which the kernel clears page by page.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # Windows has no library of no name
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
        libc.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
        libc.malloc_trim(0)


@contextmanager
def quick_attention(model: PreTrainedModel) -> Iterator[None]:
    """Has a model train by `attention_on_cpu` in place of `sdpa`, unless it has layers of local attention."""
    if model.config._attn_implementation != "sdpa" or getattr(model.config, "layer_types", None):
        yield
        return
    AttentionInterface.register(ATTENTION, attention_on_cpu)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def attention_on_cpu(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot product attention, (batch, queries, heads, head_size), by plain products of matrices.

    Seen with PyTorch 2.14 and bfloat16: with its fused attention a training step of 10 s takes 1.7 times as long
    (`python -m benchmarks.ast_speed`).
    Left to PyTorch are evaluation, in which its own is nearly twice as fast, and what AST and AudioFormer do not need:
    biases, masks of numbers, keys shared by heads.

    Args:
        query, key, value: floating point (batch, heads, queries or keys, head_size).
        attention_mask: bool (batch, 1 or heads, queries, keys), True where a query sees a key.
        is_causal: Whether queries see earlier keys alone where there is no mask; the module's own setting by default.
        position_bias: As in Transformers, added to the scores.
    """
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    is_masked_alone = position_bias is None and (
        not is_causal if attention_mask is None else attention_mask.dtype == torch.bool
    )
    has_own_keys = query.shape[1] == key.shape[1]
    is_evaluation = not (module.training or torch.is_grad_enabled())
    is_ours = is_masked_alone and has_own_keys and not is_evaluation
    if not is_ours or query.shape[:-1].numel() * key.shape[-2] > MAX_KEPT_WEIGHTS:
        settings: dict[str, Any] = {
            "dropout": dropout,
            "scaling": scaling,
            "is_causal": is_causal,
            "position_bias": position_bias,
        }
        attend = _attention_in_large_blocks if is_ours else sdpa_attention_forward
        return attend(module, query, key, value, attention_mask, **settings, **kwargs)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if attention_mask is None:
        scores = (query * scaling) @ key.transpose(-1, -2)
    else:  # scaled and masked in one pass, with nothing to undo on the way back
        scores = query @ key.transpose(-1, -2)
        unseen = torch.zeros_like(attention_mask, dtype=scores.dtype)
        unseen.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
        scores = torch.add(unseen, scores, alpha=scaling)
    with torch.autocast("cpu", enabled=False):  # else the weights would be kept in float32
        weights = nn.functional.dropout(scores.softmax(-1), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _attention_in_large_blocks(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """PyTorch's own, with a few queries more where that makes it faster; arguments as `attention_on_cpu`."""
    queries = query.shape[2]
    if PADDED_FROM <= queries < LARGE_BLOCKS_FROM:
        behind = (0, 0, 0, LARGE_BLOCKS_FROM - queries)
        query = nn.functional.pad(query, behind)
        attention_mask = None if attention_mask is None else nn.functional.pad(attention_mask, behind, value=True)
    outputs, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    return outputs[:, :queries], None
