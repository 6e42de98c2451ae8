"""Learning rates by layer and by epoch: layer-wise decay, a factor for the head, and the official step schedule."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

__all__ = [
    "OptimizationArguments",
    "decays",
    "learning_rate_factors",
    "optimizer_of_groups",
    "parameter_groups",
    "step_schedule",
]

# How AudioFormer and AST name their layers, counted from 0, and what lies under them.
_LAYER = re.compile(r"\.layers\.(\d+)\.")
_EMBEDDINGS = ".embeddings."

# Vectors that are added to every clip: like biases, there is no reason to pull them to zero.
_POSITIONS_AND_TOKENS = {"position_embeddings", "height_embeddings", "cls_token", "distillation_token"}


@dataclass(frozen=True)
class OptimizationArguments:
    """Learning rates beside those of the section `training`, whose learning_rate and warmup_steps they build on.

    Raises:
        ValueError: A value out of range.
    """

    schedule: Literal["trainer", "step"] = field(
        default="trainer",
        metadata={"help": "trainer: training.lr_scheduler_type; step: the official AST schedule, by the four below"},
    )
    full_rate_epochs: int = field(
        default=2, metadata={"help": "step: epochs before the first decay (official lrscheduler_start)"}
    )
    decay_every: int = field(default=1, metadata={"help": "step: epochs from one decay to the next"})
    gamma: float = field(default=0.5, metadata={"help": "step: what the rate is multiplied by, in (0, 1]"})
    warmup_update_every: int = field(
        default=50,
        metadata={
            "help": "step: the rate of the warm-up (training.warmup_steps) rises every so many steps, or with each "
            "step of a warm-up that is shorter"
        },
    )
    layer_decay: float = field(
        default=1.0,
        metadata={"help": "layer l of L learns at the rate times this to the power L - l, embeddings (l = 0) slowest"},
    )
    head_factor: float = field(default=1.0, metadata={"help": "what the rate of the head is multiplied by"})
    decay_all: bool = field(
        default=False,
        metadata={"help": "weight decay for norms, biases, positions and tokens too, as in the official AST code"},
    )

    def __post_init__(self) -> None:
        for name in ("full_rate_epochs", "decay_every", "warmup_update_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"optimization.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("gamma", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"optimization.{name} is {getattr(self, name)}; it must lie in (0, 1]")
        if not self.head_factor > 0:
            raise ValueError(f"optimization.head_factor is {self.head_factor}; it must be above 0")

    @property
    def has_own_rates(self) -> bool:
        """Whether not all weights learn at the same rate."""
        return self.layer_decay != 1 or self.head_factor != 1


def decays(name: str) -> bool:
    """Whether a weight that is no norm or bias takes part in weight decay; positions and tokens do not."""
    return _POSITIONS_AND_TOKENS.isdisjoint(name.split("."))


def learning_rate_factors(model: PreTrainedModel, *, layer_decay: float, head_factor: float) -> dict[str, float]:
    """What the learning rate of each weight is multiplied by, by name.

    Layer l = 1 ... L of the body has `layer_decay ** (L - l)`, its embeddings `layer_decay ** L`, its last norm 1, and
    all that is not the body `head_factor`. (BEiT counts one more layer, so that its last one is decayed as well.)
    """
    body, num_layers = f"{model.base_model_prefix}.", model.config.num_hidden_layers
    factors = {}
    for name, _ in model.named_parameters():
        if not name.startswith(body):
            factors[name] = head_factor
        elif layer := _LAYER.search(name):
            factors[name] = layer_decay ** (num_layers - 1 - int(layer[1]))
        else:
            factors[name] = layer_decay**num_layers if _EMBEDDINGS in name else 1.0
    return factors


def parameter_groups(
    model: PreTrainedModel,
    arguments: OptimizationArguments,
    *,
    learning_rate: float,
    weight_decay: float,
    decayed: Collection[str],
) -> list[dict[str, Any]]:
    """The weights that learn, one group per learning rate and decay, for a torch optimizer.

    The order is that of the weights, so that an optimizer's state fits when training is resumed, but a group at the
    plain learning rate comes first: the Trainer logs the rate of that one.
    """
    factors = learning_rate_factors(model, layer_decay=arguments.layer_decay, head_factor=arguments.head_factor)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            key = learning_rate * factors[name], weight_decay if name in decayed else 0.0
            groups.setdefault(key, []).append(weight)
    plain_first = sorted(groups, key=lambda key: key[0] != learning_rate)
    return [{"params": groups[rate, decay], "lr": rate, "weight_decay": decay} for rate, decay in plain_first]


def optimizer_of_groups(groups: list[dict[str, Any]], optimizer_class: Any, keywords: dict[str, Any]) -> Optimizer:
    """The optimizer that Transformers chose by the settings, for groups of weights.

    Raises:
        ValueError: It makes groups of its own.
    """
    is_plain = isinstance(optimizer_class, type) and issubclass(optimizer_class, Optimizer)
    if not is_plain or keywords.keys() & {"params", "model", "optimizer_dict"}:
        raise ValueError(
            f"{optimizer_class.__name__} groups the weights by itself; optimization.layer_decay and head_factor need "
            "another optimizer, such as training.optim adamw_torch"
        )
    return optimizer_class(groups, **keywords)


def step_schedule(
    optimizer: Optimizer, arguments: OptimizationArguments, *, warmup_steps: int, steps_per_epoch: int
) -> LambdaLR:
    """The official AST schedule: rates fall by `gamma` at the beginning of an epoch, and rise in the warm-up.

    Epochs 1 to `full_rate_epochs` have the full rate, after them it falls every `decay_every` epochs. In the warm-up
    step n (from 0) has the share `n' / warmup_steps` of the epoch's rate, n' the last multiple of
    `warmup_update_every`, so that the first of them learn nothing; a warm-up that is shorter rises with every step. The
    official code forgets decays that fall into its warm-up; here they hold, which is the same for every published
    setting.

    Source: `traintest.py` of the official repository (github.com/YuanGongND/ast).
    """
    update_every = arguments.warmup_update_every if warmup_steps >= arguments.warmup_update_every else 1

    def factor(step: int) -> float:
        late = step // steps_per_epoch - arguments.full_rate_epochs
        decay = arguments.gamma ** (0 if late < 0 else late // arguments.decay_every + 1)
        if step >= warmup_steps:
            return decay
        return decay * (step // update_every * update_every) / warmup_steps

    return LambdaLR(optimizer, factor)
