"""The one Trainer of all recipes: Transformers' own, with what it gets wrong for audio set right."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_utils import TrainOutput

from .checkpoints import check_finite, mark_complete, weights_held_here
from .console import EpochLines, quiet_transformers
from .launch import check_world_size, distributed_backend

__all__ = ["AudioTrainer", "Objective", "WholeStepSampler", "trainer_arguments"]

# A model and a batch to the mean loss, the model's outputs, and parts of the loss by name.
Objective = Callable[[torch.nn.Module, dict[str, Any]], tuple[torch.Tensor, Any, dict[str, torch.Tensor]]]

# Clips of so many steps are sorted by length together; fewer keep the order more random, more pad less.
STEPS_SORTED_TOGETHER = 50

# The Trainer's name of a setting that the recipes hold themselves, and theirs.
_OWN_SETTINGS = {"output_dir": "output_dir", "seed": "seed", "resume_from_checkpoint": "resume"}


def trainer_arguments(
    defaults: Mapping[str, Any], chosen: Mapping[str, Any], *, output_dir: str, seed: int, use_cpu: bool
) -> TrainingArguments:
    """The Trainer's arguments: a recipe's `defaults`, what the user has `chosen`, and what the recipe itself knows.

    Raises:
        ValueError: A setting that the recipe holds itself, or values that do not go together.
    """
    for name, own in _OWN_SETTINGS.items():
        if name in chosen:
            raise ValueError(f"training.{name} is not read; set {own} instead")
    if use_cpu and (sharded := [name for name in ("fsdp", "deepspeed") if chosen.get(name)]):
        raise ValueError(
            f"training.{sharded[0]} is set, but this training runs on the CPU, where Accelerate would use DDP instead. "
            "Leave it out; DeepSpeed on the CPU is launched with `accelerate launch` and the configuration "
            "deepspeed_zero2 or deepspeed_zero3."
        )
    if chosen.get("save_total_limit") == 1:
        raise ValueError(
            "training.save_total_limit is 1; it must be at least 2, because the last one is deleted before the next "
            "is known to be whole"
        )
    # Every weight of our models takes part in every step, so that DDP need not look for ones that do not.
    defaults = {"ddp_find_unused_parameters": False, "ddp_backend": distributed_backend(), **defaults}
    settings = {**defaults, **chosen, "output_dir": output_dir, "seed": seed, "use_cpu": use_cpu}
    settings |= {"remove_unused_columns": False, "restore_callback_states_from_checkpoint": True}
    try:
        return TrainingArguments(**settings)
    except ValueError as error:
        raise ValueError(f"the section training does not fit together: {error}") from error


class AudioTrainer(Trainer):
    """A `transformers.Trainer` that

    * refuses to train when the processes that were launched have not found each other,
    * gives every step the same number of clips, however many processes share it (see [`WholeStepSampler`]),
    * tells data set and collator the epoch, also with several processes and after a resume within an epoch,
    * stops at a loss that is not finite, before the weights are changed,
    * marks checkpoints that were written to their end (see [`newest_complete_checkpoint`]).

    Takes the keyword arguments of `transformers.Trainer`, and:

    Args:
        eval_collator: Makes the batches of evaluation and prediction; `data_collator` if not given. A collator that
            draws masks needs a second one, so that all evaluations see the same masks.
        objective: What is trained for in place of the model's own loss, which evaluation still reports. A function of
            the model and a batch that returns the mean loss of the batch, the model's outputs, and named parts of the
            loss, which are logged beside it. It hands all of the batch that is not its own to the model; with
            accumulation it sees one micro-batch after the other.
        sampling_weights: How often each clip is drawn, see [`WholeStepSampler`].

    Raises:
        ValueError: The launch would train each process alone, or the loss became NaN or infinite.
    """

    model: PreTrainedModel

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        args: TrainingArguments,
        train_dataset: Any,
        eval_collator: Any = None,
        objective: Objective | None = None,
        sampling_weights: np.ndarray | None = None,
        **kwargs: Any,
    ):
        check_world_size(args)
        args.logging_nan_inf_filter = False  # it would hide such losses in the log
        super().__init__(model=model, args=args, train_dataset=train_dataset, **kwargs)
        self.eval_collator = eval_collator or self.data_collator
        self.objective: Objective | None = objective
        if objective is not None:
            self.loss_is_scaled_for_ga = False  # it gives means of micro-batches
        self._parts = _MeanParts()
        self.sampler = WholeStepSampler(
            len(train_dataset),
            args.train_batch_size * args.world_size * args.gradient_accumulation_steps,
            seed=args.seed if args.data_seed is None else args.data_seed,
            lengths=_lengths(train_dataset) if args.train_sampling_strategy == "group_by_length" else None,
            weights=sampling_weights,
        )
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self._lines = EpochLines()
        self.add_callback(self._lines)
        self.add_callback(_TellEpoch(self.sampler, train_dataset, self.data_collator))

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        try:
            return super().train(*args, **kwargs)
        finally:
            self._lines.close()
            unset_hf_deepspeed_config()  # else `from_pretrained` would share out whatever is loaded next

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        return self.sampler

    def get_train_dataloader(self) -> DataLoader:
        return _with_own_generator(super().get_train_dataloader())

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        with self._evaluating():
            return _with_own_generator(super().get_test_dataloader(test_dataset))

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        with self._evaluating():
            return _with_own_generator(super().get_eval_dataloader(eval_dataset))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Has data loaders made with the collator of evaluation."""
        training_collator, self.data_collator = self.data_collator, self.eval_collator
        try:
            yield
        finally:
            self.data_collator = training_collator

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        if self.objective is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.model_accepts_loss_kwargs and num_items_in_batch is not None:
            # A sum over items, for which the Trainer does not average; it does for objectives, so their share is told.
            processes = self.args.world_size if self.args.average_tokens_across_devices else 1
            share = num_items_in_batch / (processes * self.current_gradient_accumulation_steps)
            inputs = inputs | {"num_items_in_batch": share}
        loss, outputs, parts = self.objective(model, inputs)
        self._parts.add(parts)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs |= {name: self.accelerator.reduce(mean, "mean").item() for name, mean in self._parts.take().items()}
        super().log(logs, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        try:
            loss = super().training_step(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            if self.args.auto_find_batch_size:
                raise
            raise ValueError(_memory_advice(self.args)) from error
        if not torch.isfinite(loss):
            names = getattr(self.train_dataset, "names", None)
            clips = [names[i] if names else str(i) for i in self.sampler.clips_of_step(self.state.global_step)]
            raise ValueError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}, with the clips {', '.join(clips)}. "
                "Nothing was saved since the last checkpoint. Start again with a lower learning_rate, or train in "
                "float32 (bf16 and fp16 off)."
            )
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        check_finite(weights_held_here(model))
        with quiet_transformers():
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(f"{self._get_output_dir(trial=trial)}/checkpoint-{self.state.global_step}")

    def gather_weights(self) -> dict[str, torch.Tensor]:
        """The whole weights, also where processes hold shards; all processes must call it, the first one gets all."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            return self.accelerator.get_state_dict(self.model_wrapped)
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False).state_dict()


class WholeStepSampler(Sampler[int]):
    """Every clip once, in an order drawn from (seed, epoch), then from the beginning again until the last step is full.

    So each step has `clips_per_step` clips (batch size times processes times accumulation), and its gradient does not
    depend on how they are divided. A clip counts at most twice in an epoch unless a step is larger than the data set.
    With `lengths` the clips of a step are of about one length, so that little is padded.

    With `weights`, one per clip and not negative, as many clips are drawn with these frequencies and with replacement
    (see [`hf_audioformer.data.labels.class_balanced_weights`]); the draw depends on (seed, epoch) as well.

    Raises:
        ValueError: There is not one weight per clip, or one is negative, not finite, or all are 0.
    """

    def __init__(
        self,
        num_clips: int,
        clips_per_step: int,
        seed: int = 0,
        lengths: Sequence[int] | None = None,
        weights: np.ndarray | None = None,
    ):
        if weights is not None and (
            weights.shape != (num_clips,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0
        ):
            raise ValueError(
                f"sampling weights must be one number per clip ({num_clips}), finite, not negative and not all 0; got "
                f"shape {weights.shape}, from {weights.min()} to {weights.max()}"
            )
        self.num_clips = num_clips
        self.frequencies = None if weights is None else weights / weights.sum()
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.clips_per_step = clips_per_step
        self.seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Gives the order of another epoch from now on."""
        self._epoch = epoch

    def clips_of_step(self, step: int) -> list[int]:
        """The clips of a step, counted from the beginning of training."""
        epoch, position = divmod(step * self.clips_per_step, len(self))
        return self._order(epoch)[position : position + self.clips_per_step].tolist()

    def __len__(self) -> int:
        return -(-self.num_clips // self.clips_per_step) * self.clips_per_step

    def __iter__(self) -> Iterator[int]:
        return iter(self._order(self._epoch).tolist())

    def _order(self, epoch: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, epoch])
        if self.frequencies is None:
            order = np.resize(random.permutation(self.num_clips), len(self))
        else:
            order = random.choice(self.num_clips, size=len(self), p=self.frequencies)
        if self.lengths is None:
            return order
        pool = STEPS_SORTED_TOGETHER * self.clips_per_step
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        ordered = np.concatenate([clips[np.argsort(self.lengths[clips], kind="stable")] for clips in pools])
        return random.permutation(ordered.reshape(-1, self.clips_per_step)).reshape(-1)


def _memory_advice(args: TrainingArguments) -> str:
    batch, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    return (
        f"the accelerator is out of memory with training.per_device_train_batch_size {batch} and "
        f"gradient_accumulation_steps {accumulation}. Set them to {max(1, batch // 2)} and {accumulation * 2}, which "
        "learns the same, or training.gradient_checkpointing to true, or shorten the clips (crop_seconds)."
    )


def _lengths(dataset: Any) -> list[int]:
    known = getattr(dataset, "lengths", None)
    return [len(dataset[index]["input_ids"]) for index in range(len(dataset))] if known is None else known


def _with_own_generator(loader: DataLoader) -> DataLoader:
    """Keeps the start of workers from drawing from the global generator: persistent ones start again on resume, and
    dropout would then differ from that of an unbroken run."""
    getattr(loader, "base_dataloader", loader).generator = torch.Generator()
    return loader


class _MeanParts:
    """Means of the parts of the loss since they were last taken; they stay on their device until then."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0

    def add(self, parts: Mapping[str, torch.Tensor]) -> None:
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().float()
        self._count += 1

    def take(self) -> dict[str, torch.Tensor]:
        means = {name: value / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


class _TellEpoch(TrainerCallback):
    """Accelerate's data loader does so for one process only, and not after skipping batches on resume."""

    def __init__(self, *receivers: Any):
        self.receivers = [receiver for receiver in receivers if hasattr(receiver, "set_epoch")]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for receiver in self.receivers:
            receiver.set_epoch(int(state.epoch or 0))
