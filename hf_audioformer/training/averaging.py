"""Averages of the weights along training, which often classify better than the weights of any one step."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["AveragingArguments", "AveragingResult", "WeightAverage", "choose_weights"]

FILE = "averaged_weights.safetensors"
START_FILE = "start_weights.safetensors"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AveragingArguments:
    """Averaging of weights, off by default; a section of a recipe's YAML file.

    Raises:
        ValueError: A value out of range.
    """

    kind: Literal["none", "epochs", "ema"] = field(
        default="none",
        metadata={"help": "epochs: mean of the weights at the ends of epochs; ema: moving average over the steps"},
    )
    from_epoch: int = field(default=1, metadata={"help": "the first epoch that counts, from 1"})
    decay: float = field(default=0.999, metadata={"help": "ema: how much of the average stays in each step, in [0, 1)"})
    start_share: float = field(
        default=0.0,
        metadata={
            "help": "how much of the weights that training started from is in the average in the end, in [0, 1): what "
            "they knew of other voices or rooms is kept the better"
        },
    )
    keep: Literal["better", "always"] = field(
        default="better",
        metadata={
            "help": "better: where there are validation clips, only if it scores higher on them than the last or best "
            "epoch's weights; always: in any case"
        },
    )

    def __post_init__(self) -> None:
        if self.from_epoch < 1:
            raise ValueError(f"averaging.from_epoch is {self.from_epoch}; it must be at least 1")
        if not 0 <= self.decay < 1:
            raise ValueError(f"averaging.decay is {self.decay}; it must lie in [0, 1)")
        if not 0 <= self.start_share < 1:
            raise ValueError(f"averaging.start_share is {self.start_share}; it must lie in [0, 1)")
        if self.start_share and self.kind == "none":
            raise ValueError(f"averaging.start_share is {self.start_share}, and averaging.kind none; choose one")


class WeightAverage(TrainerCallback):
    """The average of a model's weights that learn, float32 on their device; as a callback it follows the training.

    Of n weights w_1 ... w_n that were seen, in the order of training, it is

    * `"epochs"`: their mean, with one at the end of each whole epoch;
    * `"ema"`: `sum_i decay^(n-i) w_i / sum_i decay^(n-i)`, with one after each step. So the weights that training
      started from have no part in it, however short it was.

    `mix_in_start` gives those a part in the end (Wortsman et al., "Robust fine-tuning of zero-shot models",
    arXiv 2109.01903).

    Args:
        model: As it is before training.
    """

    def __init__(self, arguments: AveragingArguments, model: nn.Module):
        self.arguments = arguments
        self.count = 0
        self._mean: dict[str, Tensor] = {}
        self._start: dict[str, Tensor] = {}
        if arguments.start_share:
            self._start = {name: weight.detach().float().clone() for name, weight in _learning(model)}

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: object,
    ) -> None:
        epoch = state.epoch or 0.0
        due = self.arguments.kind == "ema" or epoch.is_integer()
        if due and math.ceil(epoch) >= self.arguments.from_epoch and model is not None:
            self.update(model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the model's weights of now into the average."""
        self.count += 1
        decay = self.arguments.decay
        share = 1 / self.count if self.arguments.kind == "epochs" else (1 - decay) / (1 - decay**self.count)
        for name, weight in _learning(model):
            if name in self._mean:
                self._mean[name].lerp_(weight.float(), share)
            else:
                self._mean[name] = weight.float().clone()

    def mix_in_start(self) -> None:
        """Takes the weights of the start into the average, as much as the settings say."""
        for name, weight in self._start.items():
            self._mean[name].lerp_(weight.to(self._mean[name].device), self.arguments.start_share)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Puts the average into the model and keeps the model's weights instead; a second time undoes it."""
        for name, weight in _learning(model):
            before = weight.float().clone()
            weight.copy_(self._mean[name])
            self._mean[name] = before

    def save(self, checkpoint: str) -> None:
        """Adds the average to a checkpoint, and the weights of the start if they are to have a part in it."""
        save_file(self._mean, Path(checkpoint, FILE), metadata={"count": str(self.count)})
        if self._start:
            save_file(self._start, Path(checkpoint, START_FILE))

    def load(self, checkpoint: str, model: nn.Module) -> None:
        """Goes on with the average of a checkpoint of the same model.

        Raises:
            ValueError: The checkpoint holds none, or that of other weights, or lacks those of the start.
        """
        path = Path(checkpoint, FILE)
        if not path.is_file():
            raise ValueError(f"{checkpoint} has no {FILE}: it was trained with averaging.kind none. Set it back.")
        with safe_open(path, "pt") as file:
            self.count = int(file.metadata()["count"])
        stored = load_file(path)
        weights = dict(_learning(model))
        if stored and stored.keys() != weights.keys():
            raise ValueError(f"{path} holds other weights than the model learns: {sorted(stored.keys() ^ weights)[:5]}")
        self._mean = {name: mean.to(weights[name].device) for name, mean in stored.items()}
        if self.arguments.start_share:
            start = Path(checkpoint, START_FILE)
            if not start.is_file():
                raise ValueError(f"{checkpoint} has no {START_FILE}: it was trained with averaging.start_share 0")
            self._start = load_file(start)


@dataclass(frozen=True)
class AveragingResult:
    """How the average did beside the weights that training kept; scores are None where nothing was validated."""

    metric: str
    plain: float | None
    averaged: float | None
    kept: bool


def choose_weights(
    model: nn.Module,
    average: WeightAverage,
    score: Callable[[], float] | None,
    *,
    metric: str,
    greater_is_better: bool,
) -> AveragingResult:
    """Leaves in the model its own weights or the average, whichever the settings and the scores say.

    Args:
        score: The validation score of the weights that are in the model, or None without validation clips.
        metric, greater_is_better: What the score is.
    """
    if average.count == 0:
        logger.warning("training ended before averaging.from_epoch %d was over", average.arguments.from_epoch)
        return AveragingResult(metric, None, None, kept=False)
    plain = None if score is None else score()
    average.mix_in_start()
    average.exchange(model)
    averaged = None if score is None else score()
    kept = True
    if average.arguments.keep == "better" and plain is not None and averaged is not None:
        kept = averaged > plain if greater_is_better else averaged < plain
    if not kept:
        average.exchange(model)
    return AveragingResult(metric, plain, averaged, kept)


def _learning(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
