"""Training a part of a model: its head alone, or small matrices (LoRA) beside its weights, which end up in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["AdaptationArguments", "adapt", "add_lora", "freeze_body", "has_lora", "merge_lora"]

# The layers that the LoRA paper adapts, those of query and value, by model_type.
LORA_TARGETS = {"audio-spectrogram-transformer": ("q_proj", "v_proj"), "audioformer": ("query", "value")}


@dataclass(frozen=True)
class AdaptationArguments:
    """What of the model learns; a section of a recipe's YAML file.

    Raises:
        ValueError: A value out of range.
    """

    kind: Literal["full", "head", "lora"] = field(
        default="full",
        metadata={"help": "full: all weights; head: the classifier alone; lora: it and low-rank changes of the layers"},
    )
    lora_rank: int = field(default=8, metadata={"help": "rank of the changes"})
    lora_alpha: int = field(default=16, metadata={"help": "changes count lora_alpha / lora_rank times"})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout before the changes, in [0, 1)"})
    lora_targets: list[str] = field(
        default_factory=list,
        metadata={"help": "ends of the names of the linear layers that are changed; none: those of query and value"},
    )

    def __post_init__(self) -> None:
        for name in ("lora_rank", "lora_alpha"):
            if getattr(self, name) < 1:
                raise ValueError(f"adaptation.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"adaptation.lora_dropout is {self.lora_dropout}; it must lie in [0, 1)")


def adapt(model: PreTrainedModel, arguments: AdaptationArguments, *, seed: int = 0) -> None:
    """Prepares a model, in place, so that the part of it that `arguments` say learns; `merge_lora` ends it.

    Raises:
        ImportError, ValueError: As `add_lora`.
    """
    if arguments.kind == "head":
        freeze_body(model)
    elif arguments.kind == "lora":
        add_lora(
            model,
            rank=arguments.lora_rank,
            alpha=arguments.lora_alpha,
            dropout=arguments.lora_dropout,
            targets=arguments.lora_targets or None,
            seed=seed,
        )


def freeze_body(model: PreTrainedModel) -> None:
    """Lets only the head learn, from what the body gives in evaluation: without dropout, also while training.

    So the head sees the features that it will be used with, and a clip's are the same in each epoch. The body needs no
    gradients and no memory for them.
    """
    body = model.base_model
    body.requires_grad_(False)
    body.register_forward_pre_hook(_evaluate)


def _evaluate(body: nn.Module, inputs: Any) -> None:
    body.eval()  # anew in each step, since the Trainer sets the whole model to training


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> None:
    """Puts low-rank matrices beside linear layers of the body, in place; they and the head learn, and nothing else.

    A layer `W x` becomes `W x + alpha / rank * B A x`, with B zero at first, so that the model starts as it was. The
    body has its dropout in training. The model stays of its class: the Trainer saves and restores all of its weights.

    Args:
        targets: Ends of the names of the layers; by default those of query and value.
        seed: What A is drawn by.

    Raises:
        ImportError: PEFT is not installed.
        ValueError: No layer of the body has such a name.

    Source: arXiv 2106.09685.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("LoRA needs PEFT: pip install 'hf_audioformer[lora]'") from error
    chosen = list(targets or LORA_TARGETS[str(model.config.model_type)])
    layers = [name for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)]
    if missing := [end for end in chosen if not any(f".{name}".endswith(f".{end}") for name in layers)]:
        ends = sorted({name.rpartition(".")[2] for name in layers})
        raise ValueError(f"no linear layer's name ends in {missing[0]!r}; adaptation.lora_targets are among {ends}")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model.base_model)  # freezes all else of the body, and leaves the head be


def has_lora(model: PreTrainedModel) -> bool:
    """Whether `add_lora` was called and `merge_lora` not yet."""
    return hasattr(model.base_model, "peft_config")


def merge_lora(model: PreTrainedModel) -> None:
    """Adds the low-rank changes to the weights and removes them, in place: the model is stock again; else no change."""
    body = model.base_model
    if not has_lora(model):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(body.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            body.set_submodule(name, layer.get_base_layer())
    del body.peft_config
