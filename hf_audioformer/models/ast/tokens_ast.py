"""Some of an AST's tokens only: which ones hold sound, and a stock model that is given a choice of them.

Tokens are the class and the distillation token, then the patches, frequency-major. The attention of Transformers' AST
takes a mask of tokens; what it lacks is to leave tokens out, which saves their cost.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ASTConfig, ASTModel

from .positions_ast import patch_grid

__all__ = ["NUM_SPECIAL_TOKENS", "keep_tokens", "patch_mask"]

NUM_SPECIAL_TOKENS = 2


def patch_mask(frames: Sequence[int] | Tensor, config: ASTConfig) -> Tensor:
    """Which tokens hold sound, bool (batch, 2 + patches), of clips with so many `frames` before their padding.

    A patch counts if its first frame is one of the clip's; so the last that count may hold some padding too, and no
    frame of the clip is lost that the model would see. The two special tokens always count.

    Raises:
        ValueError: A clip has no frames, or more than the model reads.
    """
    lengths = torch.as_tensor(frames)
    if lengths.min() < 1 or lengths.max() > config.max_length:
        raise ValueError(f"frames are {lengths.tolist()}; a clip has from 1 to max_length={config.max_length} of them.")
    over_frequency, over_time = patch_grid(config)
    starts = torch.arange(over_time, device=lengths.device) * config.time_stride
    patches = (starts < lengths[:, None]).repeat(1, over_frequency)
    special = torch.ones(len(lengths), NUM_SPECIAL_TOKENS, dtype=torch.bool, device=lengths.device)
    return torch.cat([special, patches], dim=1)


def keep_tokens(model: nn.Module) -> Callable[[], None]:
    """Has an AST, or a model that contains one, take `kept_tokens`; returns a function that takes this back.

    From then on `model(input_values, attention_mask=..., kept_tokens=...)` reads, of each clip, only the tokens at
    `kept_tokens`, int64 (batch, kept tokens), as if there were no others; each keeps its position embedding. Rows of
    different length are filled up with any token and told apart by `attention_mask`, int64 (batch, kept tokens).
    Without `kept_tokens` the model is as before.

    These are hooks: weights, checkpoints and configuration know nothing of them, and they work within wrappers (DDP,
    LoRA), with gradient checkpointing and `torch.compile`.

    Raises:
        ValueError: There is not exactly one AST in the model.
    """
    found = [module for module in model.modules() if isinstance(module, ASTModel)]
    if len(found) != 1:
        raise ValueError(f"model is a {type(model).__name__} with {len(found)} ASTModel in it; it must have one.")
    handles = (
        found[0].register_forward_pre_hook(_hand_to_embeddings, with_kwargs=True),
        found[0].embeddings.register_forward_hook(_choose),
    )

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


# Module-level functions with their state in the embeddings: a deep copy of the model (an average of its weights, say)
# has hooks of its own.
def _hand_to_embeddings(model: ASTModel, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    if "kept_tokens" in kwargs:
        model.embeddings.kept_tokens = kwargs.pop("kept_tokens")
    return args, kwargs


def _choose(embeddings: nn.Module, args: tuple, tokens: Tensor) -> Tensor:
    kept = getattr(embeddings, "kept_tokens", None)
    if kept is None:
        return tokens
    embeddings.kept_tokens = None
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
