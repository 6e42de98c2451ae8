"""The one Trainer of all recipes: Transformers' own, with what it gets wrong for audio set right."""

import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCard
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import (
    ASTForAudioClassification,
    EarlyStoppingCallback,
    FeatureExtractionMixin,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import get_reporting_integration_callbacks
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.optimization import get_scheduler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, PredictionOutput, TrainOutput

from .adaptation import has_lora
from .averaging import AveragingArguments, AveragingResult, WeightAverage, choose_weights
from .checkpoints import check_finite, mark_complete, save_final, weights_held_here
from .console import EpochLines, quiet_transformers
from .cpu import keep_freed_memory, quick_attention
from .deepspeed_weights import updated_weights
from .hub import Push, push_folder, refuse_public
from .interruption import StopOnSigterm, TrainingStopped
from .launch import check_world_size, distributed_backend, keep_to_one_gpu, launched_precision, wrap_layers
from .loaders import end_workers, with_own_workers
from .optimization import OptimizationArguments, decays, optimizer_of_groups, parameter_groups, step_schedule
from .running_loss import RunningParts, read_running_loss, write_running_loss
from .sampling import WholeStepSampler
from .unrounded_scores import score_unrounded

__all__ = ["AudioTrainer", "Objective", "trainer_arguments"]

logger = logging.getLogger(__name__)

# A model and a batch to the mean loss, the model's outputs, and parts of the loss by name.
Objective = Callable[[torch.nn.Module, dict[str, Any]], tuple[torch.Tensor, Any, dict[str, torch.Tensor]]]

SAMPLING_STRATEGIES = ("random", "group_by_length")

# What the Trainer does not check, or only once a model is built.
_ALLOWED: dict[str, tuple[Callable[[float], bool], str]] = {
    "per_device_train_batch_size": (lambda value: value >= 1, "at least 1"),
    "per_device_eval_batch_size": (lambda value: value >= 1, "at least 1"),
    "gradient_accumulation_steps": (lambda value: value >= 1, "at least 1"),
    "dataloader_num_workers": (lambda value: value >= 0, "at least 0"),
    "learning_rate": (lambda value: value >= 0, "at least 0"),
    "weight_decay": (lambda value: value >= 0, "at least 0"),
    "num_train_epochs": (lambda value: True, "a number"),
    "adam_beta1": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "adam_beta2": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
}

# The Trainer's name of a setting that the recipes hold themselves, and theirs.
_OWN_SETTINGS = {"output_dir": "output_dir", "seed": "seed", "resume_from_checkpoint": "resume"}

_NOT_READ = {
    "auto_find_batch_size": "; when memory is out, the message says what to set",
    "bf16_full_eval": ": it would leave the weights in half precision; training.bf16 makes evaluation quick too",
    "enable_jit_checkpoint": ": on SIGTERM a checkpoint is written in any case",
    "fp16_full_eval": ": it would leave the weights in half precision; training.fp16 makes evaluation quick too",
    "label_smoothing_factor": "; classifiers have model.label_smoothing instead",
}


def trainer_arguments(
    defaults: Mapping[str, Any], chosen: Mapping[str, Any], *, output_dir: str, seed: int, use_cpu: bool
) -> TrainingArguments:
    """The Trainer's arguments: a recipe's `defaults`, what the user has `chosen`, and what the recipe itself knows.

    Raises:
        ValueError: A setting that the recipe holds itself, values that do not go together, or as `check_world_size`.
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
    if (order := chosen.get("train_sampling_strategy", "random")) not in SAMPLING_STRATEGIES:
        raise ValueError(
            f"training.train_sampling_strategy is {order!r}; allowed are {' and '.join(SAMPLING_STRATEGIES)}"
        )
    for name, why in _NOT_READ.items():
        if chosen.get(name):
            raise ValueError(f"training.{name} is not read{why}")
    if chosen.get("save_total_limit") == 1:
        raise ValueError(
            "training.save_total_limit is 1; it must be at least 2, because the last one is deleted before the next "
            "is known to be whole"
        )
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; it must be at least 0 and below 2 ** 32")
    # Every weight of our models takes part in every step, so that DDP need not look for ones that do not.
    defaults = {"ddp_find_unused_parameters": False, "ddp_backend": distributed_backend(), **defaults}
    defaults["dataloader_pin_memory"] = torch.accelerator.is_available() and not use_cpu
    defaults |= launched_precision(chosen)
    # Without a name, trackio opens a second run for the test; without the other, its Spaces would be public.
    run_name = f"{Path(output_dir).absolute().name} {datetime.now():%Y-%m-%d %H:%M:%S}"
    defaults |= {"run_name": run_name, "hub_private_repo": True}
    settings = {**defaults, **chosen, "output_dir": output_dir, "seed": seed, "use_cpu": use_cpu}
    settings |= {"remove_unused_columns": False, "restore_callback_states_from_checkpoint": True}
    try:
        arguments = TrainingArguments(**settings)
        get_reporting_integration_callbacks(arguments.report_to)
        _check_schedule(arguments)
    except ValueError as error:
        raise ValueError(f"the section training does not fit together: {error}") from error
    _check_ranges(arguments)
    keep_to_one_gpu(arguments)
    check_world_size(arguments)
    return arguments


def _check_ranges(arguments: TrainingArguments) -> None:
    for name, (is_allowed, allowed) in _ALLOWED.items():
        value = getattr(arguments, name)
        if not (isinstance(value, (int, float)) and math.isfinite(value) and is_allowed(value)):
            raise ValueError(f"training.{name} is {value!r}; it must be {allowed}")
    if arguments.num_train_epochs <= 0 and arguments.max_steps <= 0:
        raise ValueError(f"training.num_train_epochs is {arguments.num_train_epochs}; it must be above 0")


def _check_schedule(arguments: TrainingArguments) -> None:
    """Raises a ValueError if the schedule of the learning rate lacks a setting, which the Trainer would tell late."""
    settings: Any = arguments.lr_scheduler_kwargs or {}
    try:
        get_scheduler(
            arguments.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1)], lr=arguments.learning_rate),
            num_warmup_steps=1,
            num_training_steps=10,
            scheduler_specific_kwargs=settings,
        )
    except TypeError as error:
        raise ValueError(f"lr_scheduler_kwargs is {settings}: {error}") from error


class AudioTrainer(Trainer):
    """A `transformers.Trainer` that

    * refuses to train when the processes that were launched have not found each other,
    * gives every step the same number of clips, however many processes share it (see [`WholeStepSampler`]),
    * tells data set and collator the epoch, also with several processes and after a resume within an epoch,
    * stops at a loss that is not finite, before the weights are changed,
    * restores every weight, and the sums of losses yet to be logged, when it resumes or takes the best checkpoint,
    * marks checkpoints that were written to their end (see [`newest_complete_checkpoint`]),
    * writes one on SIGTERM (see [`StopOnSigterm`]),
    * has the right loss of several labels from Transformers' AST, with accumulation and several processes,
    * pushes to the Hub in one commit at the end, privately unless `hub_private_repo` is false (a public repository that
      is there already is refused before training), and neither checkpoints nor training arguments (see
      [`push_folder`]).

    Takes the keyword arguments of `transformers.Trainer`, and:

    Args:
        eval_collator: Makes the batches of evaluation and prediction; `data_collator` if not given. A collator that
            draws masks needs a second one, so that all evaluations see the same masks.
        objective: What is trained for in place of the model's own loss, which evaluation still reports. A function of
            the model and a batch that returns the mean loss of the batch, the model's outputs, and named parts of the
            loss, which are logged beside it. It hands all of the batch that is not its own to the model; with
            accumulation it sees one micro-batch after the other.
        sampling_weights: How often each clip is drawn, see [`WholeStepSampler`].
        optimization: Learning rates by layer and by epoch; by default those of `args` alone.
        averaging: Averages of the weights, see [`WeightAverage`]; none by default. At the end of training the model
            holds the average if the settings say so, and `averaging_result` how it did.

    Raises:
        ValueError: The launch would train each process alone, the loss became NaN or infinite, a checkpoint does not
            hold all weights, or settings do not go together.
        TrainingStopped: SIGTERM was received, and a checkpoint written.
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
        optimization: OptimizationArguments | None = None,
        averaging: AveragingArguments | None = None,
        **kwargs: Any,
    ):
        check_world_size(args)
        args.logging_nan_inf_filter = False  # it would hide such losses in the log
        self.optimization = optimization or OptimizationArguments()
        self._resumed_from: str | None = None
        # How long it has trained, in all its sessions, once it is done.
        self.seconds = 0.0
        self._started = 0.0
        super().__init__(model=model, args=args, train_dataset=train_dataset, **kwargs)
        if self.is_fsdp_enabled:
            wrap_layers(self.accelerator.state.fsdp_plugin, model)
        if isinstance(model, ASTForAudioClassification):
            # Its loss of several labels ignores the count of items by which the Trainer would have it divide.
            self.model_accepts_loss_kwargs = False
        for head in (getattr(model, name, None) for name in ("classifier", "projection")):
            if isinstance(head, torch.nn.Module):
                score_unrounded(head)
        self.eval_collator = eval_collator or self.data_collator
        self.objective: Objective | None = objective
        if objective is not None:
            self.loss_is_scaled_for_ga = False  # it gives means of micro-batches
        self._parts = RunningParts()
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
        self.add_callback(_Resume(self))
        if has_lora(model):
            self._refuse_sharing("adaptation.kind is 'lora'")
        if self.is_deepspeed_enabled and not all(weight.requires_grad for weight in model.parameters()):
            self._refuse_sharing("some weights do not learn")
        self.average = self._make_average(averaging or AveragingArguments())
        self.averaging_result: AveragingResult | None = None
        if self.average is not None:
            self.add_callback(self.average)
        self._stop_on_sigterm = StopOnSigterm(self._any_process)
        self.add_callback(self._stop_on_sigterm)
        self._persistent: list[DataLoader] = []

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        try:
            return super()._determine_best_metric(metrics, trial)
        except KeyError as error:  # a name that no metric has
            raise ValueError(f"training.metric_for_best_model: {error.args[0]}") from error

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        with self._stop_on_sigterm, self.quick_on_cpu():
            self.seconds, self._started = 0.0, time.perf_counter()
            try:
                output = super().train(*args, **kwargs)
                if self.average is not None:
                    self.averaging_result = self._choose_weights(self.average)
                self.seconds += time.perf_counter() - self._started
            except TrainingStopped as stopped:
                # The frames hold workers, which Python would kill as it exits, and fail.
                traceback.clear_frames(stopped.__traceback__)
                raise
            finally:
                self._lines.close()
                self._end_workers()
                unset_hf_deepspeed_config()  # else `from_pretrained` would share out whatever is loaded next
        return output

    @contextmanager
    def quick_on_cpu(self) -> Iterator[None]:
        """What makes the model's passes quicker where they are made by a CPU; training is in it already."""
        with ExitStack() as stack:
            if self.args.device.type == "cpu":
                stack.enter_context(keep_freed_memory())
                if self.args.bf16:
                    stack.enter_context(quick_attention(self.model))
            yield

    def _any_process(self, flag: bool) -> bool:
        if self.args.world_size == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.args.device), "sum"))

    def _make_average(self, averaging: AveragingArguments) -> WeightAverage | None:
        if averaging.kind == "none":
            return None
        self._refuse_sharing(f"averaging.kind is {averaging.kind!r}")
        begun_or_whole = math.ceil if averaging.kind == "ema" else math.floor
        if self.args.max_steps <= 0 and averaging.from_epoch > begun_or_whole(self.args.num_train_epochs):
            raise ValueError(
                f"averaging.from_epoch is {averaging.from_epoch}, and training.num_train_epochs "
                f"{self.args.num_train_epochs:g}: no weights would be averaged"
            )
        return WeightAverage(averaging, self.model)

    def _refuse_sharing(self, setting: str) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError(
                f"{setting}, but DeepSpeed or FSDP shares the weights out or holds them in 16 bits. Train by DDP (the "
                "accelerate configuration ddp), or change the setting."
            )

    def _choose_weights(self, average: WeightAverage) -> AveragingResult:
        """Leaves the kept or the averaged weights in the model, and notes in the log how both did."""
        metric = (self.args.metric_for_best_model or "loss").removeprefix("eval_")

        def score() -> float:
            measures = self.predict(cast(Dataset, self.eval_dataset), metric_key_prefix="averaging").metrics or {}
            return measures[f"averaging_{metric}"]

        result = choose_weights(
            self.model,
            average,
            None if self.eval_dataset is None else score,
            metric=metric,
            greater_is_better=bool(self.args.greater_is_better),
        )
        if result.averaged is not None:
            entry = {
                f"plain_{metric}": result.plain,
                f"averaged_{metric}": result.averaged,
                "averaged_kept": result.kept,
            }
            entry |= {"epoch": self.state.epoch, "step": self.state.global_step}
            self.state.log_history.append(cast(dict[str, float], entry))
        self._lines.show_average(self.state, result)
        return result

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        if self.optimization.decay_all:
            return [name for name, _ in model.named_parameters()]
        return [name for name in super().get_decay_parameter_names(model) if decays(name)]

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.optimization.has_own_rates:
            groups = parameter_groups(
                self.model,
                self.optimization,
                learning_rate=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                decayed=self.get_decay_parameter_names(self.model),
            )
            kind = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = optimizer_of_groups(groups, *kind)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        if self.lr_scheduler is None and self.optimization.schedule == "step":
            self.lr_scheduler = step_schedule(
                cast(torch.optim.Optimizer, self.optimizer if optimizer is None else optimizer),
                self.optimization,
                warmup_steps=self.args.get_warmup_steps(num_training_steps),
                steps_per_epoch=len(self.sampler) // self.sampler.clips_per_step,
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        return self.sampler

    def get_train_dataloader(self) -> DataLoader:
        return self._with_own_workers(super().get_train_dataloader())

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        with self._evaluating():
            return self._with_own_workers(super().get_test_dataloader(test_dataset))

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        with self._evaluating():
            return self._with_own_workers(super().get_eval_dataloader(eval_dataset))

    def predict(self, *args: Any, **kwargs: Any) -> PredictionOutput:
        earlier = len(self._persistent)
        try:
            return super().predict(*args, **kwargs)
        finally:
            self._end_workers(earlier)

    def _with_own_workers(self, loader: DataLoader) -> DataLoader:
        if self.args.dataloader_persistent_workers:
            self._persistent.append(loader)
        return with_own_workers(loader, self._stop_on_sigterm.is_training)

    def _end_workers(self, earlier: int = 0) -> None:
        """Ends the persistent workers of all loaders but the `earlier` ones."""
        for loader in self._persistent[earlier:]:
            end_workers(loader)
        del self._persistent[earlier:]

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
        checkpoint = f"{self._get_output_dir(trial=trial)}/checkpoint-{self.state.global_step}"
        steps = self.state.global_step - self._globalstep_last_logged
        seconds = self.seconds + time.perf_counter() - self._started
        write_running_loss(checkpoint, self.args.process_index, self._tr_loss, steps, self._parts, seconds)
        if self.average is not None and self.args.should_save:
            self.average.save(checkpoint)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(checkpoint)
        self.accelerator.wait_for_everyone()  # before a process may leave

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Saves the weights of checkpoints by their names in the model, because it is by those that the Trainer loads.

        Those of a stock AST have other names in its published format; the Trainer would load a third of them, if any,
        and say so in a warning. `from_pretrained` takes both.
        """
        folder = str(self.args.output_dir if output_dir is None else output_dir)
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            in_checkpoint = Path(folder).name.startswith(PREFIX_CHECKPOINT_DIR)
            model.save_pretrained(folder, state_dict=state_dict, save_original_format=not in_checkpoint)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        super().init_hf_repo(token, private=not self._is_public(private))
        if self.is_world_process_zero() and not self._is_public(private):
            repository = HfApi(token=token or self.args.hub_token).model_info(str(self.hub_model_id))
            refuse_public(repository, "set hub_private_repo to false")  # now, not once all is trained

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,
    ) -> Push | None:
        """Leaves model, feature extractor and codec in `output_dir`, with a card if there is none (`card` are arguments
        of `create_model_card`), and pushes them; the first process alone returns what it did.

        Raises:
            ValueError, ConnectionError: As `push_folder`.
        """
        weights = self.gather_weights()
        if not self.is_world_process_zero():
            return None
        if self.processing_class is None:
            raise ValueError("push_to_hub needs the feature extractor; give it to the Trainer as processing_class")
        folder = Path(str(self.args.output_dir))
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        save_final(model, cast(FeatureExtractionMixin, self.processing_class), folder, weights)
        if not (folder / "README.md").is_file():
            self.create_model_card(**card)
            draft = ModelCard.load(folder / "README.md")
            is_classifier = type(model).__name__.endswith("ForAudioClassification")
            draft.data.pipeline_tag = "audio-classification" if is_classifier else "feature-extraction"
            draft.save(folder / "README.md")
        return self.push_finished(folder, commit_message, token=token, revision=revision, private=private)

    def push_finished(
        self,
        folder: Path,
        commit_message: str | None = None,
        *,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> Push:
        """Pushes a finished folder to where the arguments say; called by the first process alone."""
        return push_folder(
            folder,
            self.args.hub_model_id or folder.absolute().name,
            public=self._is_public(private),
            revision=revision or self.args.hub_revision,
            message=commit_message,
            token=token or self.args.hub_token,
        )

    def _is_public(self, private: bool | None) -> bool:
        return (self.args.hub_private_repo if private is None else private) is False

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Checkpoints stay here."""

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        tied = self.accelerator.unwrap_model(self.model).all_tied_weights_keys
        wrong = {*load_result.missing_keys, *load_result.unexpected_keys} - {*tied}
        if wrong:
            raise ValueError(
                f"a checkpoint in {self.args.output_dir} does not hold the weights of this model: it lacks, or has "
                f"beside them, {', '.join(sorted(wrong)[:5])}. Resume with the settings and version it was made with."
            )

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Leaves no epoch to a training that was ended by patience, or by `max_steps` within an epoch; the Trainer
        would go on. Takes the best checkpoint from where the folder is now."""
        with quiet_transformers():
            epochs, steps = super()._init_training_state(*args, **kwargs)
        if self.state.best_global_step:
            best = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best) if best.is_dir() else None
            if self.args.load_best_model_at_end and not best.is_dir():
                logger.warning("the best checkpoint so far, %s, is missing; a later one will be taken for it", best)
        stoppers = [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
        has_ended = any(each.early_stopping_patience_counter >= each.early_stopping_patience for each in stoppers)
        if has_ended or self.state.global_step >= self.state.max_steps:
            return self.state.num_train_epochs, 0
        return epochs, steps

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._resumed_from = checkpoint
            if self.average is not None:
                self.average.load(checkpoint, self.model)

    def go_on_with_loss(self) -> None:
        """Takes up the sums of the losses yet to be logged, once the Trainer has set them to 0, and the seconds."""
        if self._resumed_from is not None:
            loss, steps, self.seconds = read_running_loss(
                self._resumed_from, self.args.process_index, self._parts, self.args.device
            )
            self._tr_loss += loss
            self._globalstep_last_logged -= steps
            self._resumed_from = None

    def gather_weights(self) -> dict[str, torch.Tensor]:
        """The whole weights, also where processes hold shards or 16 bits of them; all processes must call it, the first
        one gets all."""
        if self.is_deepspeed_enabled:
            model = self.accelerator.unwrap_model(self.model_wrapped)
            return updated_weights(model, self.accelerator.get_state_dict(self.model_wrapped))
        if self.is_fsdp_enabled:
            return self.accelerator.get_state_dict(self.model_wrapped)
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False).state_dict()


def _memory_advice(args: TrainingArguments) -> str:
    batch, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    return (
        f"the accelerator is out of memory with training.per_device_train_batch_size {batch} and "
        f"gradient_accumulation_steps {accumulation}. Set them to {max(1, batch // 2)} and {accumulation * 2}, which "
        "learns the same, or training.gradient_checkpointing to true, or let it hear less of a clip at once "
        "(crop_seconds; features.seconds of finetune-ast)."
    )


def _lengths(dataset: Any) -> list[int]:
    known = getattr(dataset, "lengths", None)
    return [len(dataset[index]["input_ids"]) for index in range(len(dataset))] if known is None else known


class _TellEpoch(TrainerCallback):
    """Accelerate's data loader does so for one process only, and not after skipping batches on resume."""

    def __init__(self, *receivers: Any):
        self.receivers = [receiver for receiver in receivers if hasattr(receiver, "set_epoch")]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for receiver in self.receivers:
            receiver.set_epoch(int(state.epoch or 0))


class _Resume(TrainerCallback):
    """The first moment after a resume at which what the Trainer sums up may be set."""

    def __init__(self, trainer: AudioTrainer):
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.go_on_with_loss()
