"""What the recipes of fine-tuning share: read labelled clips, and per split train, test once and save a folder that
works alone."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ..data import ClipTable
from ..data.clip_table import CURVE_COLUMNS
from ..data.labels import as_rows, class_balanced_weights
from ..data.moments import EVENT_COLUMNS
from ..data.splits import Split, SplitArguments
from ..training.checkpoints import newest_complete_checkpoint
from ..training.floor import Floor
from ..training.hub import check_hub_settings
from ..training.model_card import Measured, tell_of_all_splits
from ..training.output import check_same_clips
from ..training.results import (
    SplitResult,
    format_results,
    read_results,
    with_official_epoch,
    write_results,
)
from ..training.steps import FinishedStep, remove_steps
from ..training.tasks import CLASSIFICATION, ScoredClips, Task
from ..training.trainer import AudioTrainer, trainer_arguments
from .inputs import TrainingClips
from .training_run import claim_output, finish

__all__ = [
    "PARTS",
    "SPLIT_DEFAULTS",
    "SplitTraining",
    "SplitTrainingArguments",
    "callbacks",
    "check_splits",
    "claim_output_for",
    "compute_metrics",
    "sampling_weights",
    "split_arguments",
    "usable_splits",
]

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")

# The Trainer's log has it under this name, where it is asked for.
TEST_SCORE = "test_score"

# What both recipes set unless the user does.
SPLIT_DEFAULTS: dict[str, Any] = {
    "logging_strategy": "epoch",
    "save_total_limit": 2,
    "report_to": "none",
}


@dataclass(frozen=True)
class SplitTrainingArguments:
    """The settings of every recipe that trains on splits."""

    data: TrainingClips
    output_dir: str = field(metadata={"help": "where checkpoints, results and the card go; a folder per split if many"})
    split: SplitArguments = field(default_factory=SplitArguments)
    training: dict[str, Any] = field(default_factory=dict, metadata={"keywords_of": "transformers.TrainingArguments"})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "stop after so many evaluations without a better validation score"}
    )
    report_official_epoch: bool = field(
        default=False,
        metadata={
            "help": "also test after each epoch, and report, beside the result, that of the epoch which is best on the "
            "test clips in the mean over the splits, as figures on ESC-50 are published"
        },
    )
    floor_clips: int = field(
        default=5000,
        metadata={
            "help": "beside the result of a split of at most so many clips goes that of logistic regression on simple "
            "features of the source's clips; 0: never"
        },
    )
    seed: int = field(default=0, metadata={"help": "seed of the weights, the order and all augmentation"})
    resume: bool = field(default=False, metadata={"help": "go on in output_dir: finished splits are kept"})
    overwrite: bool = field(default=False, metadata={"help": "delete what is in output_dir"})
    world_size: int | None = field(default=None, metadata={"help": "processes that must train together; checked"})


Arguments = TypeVar("Arguments", bound=SplitTrainingArguments)


def claim_output_for(arguments: SplitTrainingArguments, clips: ClipTable) -> None:
    """Makes `output_dir`, with the settings in it; called once the data is known to be there.

    Raises:
        FileExistsError: As `begin`.
        ValueError: As `begin`, or the run to resume had other clips.
    """
    claim_output(arguments)
    columns = [name for name in (arguments.split.column, arguments.split.group_column) if name is not None]
    columns += [name for name in (*EVENT_COLUMNS, *CURVE_COLUMNS) if name in clips.table.column_names]
    check_same_clips(Path(arguments.output_dir), clips.digest(columns), resume=arguments.resume)


def check_splits(arguments: SplitTrainingArguments, splits: Sequence[Split], use_cpu: bool) -> None:
    """Raises a ValueError if patience is asked for and a split has no validation clips, if the models of several
    splits would be pushed to one repository, or if the Trainer would refuse its settings."""
    check_hub_settings(arguments.training, len(splits))
    patience = arguments.early_stopping_patience
    if patience is not None and patience < 1:
        raise ValueError(f"early_stopping_patience is {patience}; it must be at least 1")
    for validated in {bool(split.validation) for split in splits}:
        split_arguments(arguments, Path(arguments.output_dir), use_cpu, validated=validated)
    if patience is not None and not all(split.validation for split in splits):
        raise ValueError("early_stopping_patience needs validation clips: set split.validation_fraction above 0.")


def usable_splits(
    arguments: SplitTrainingArguments, clips: ClipTable, splits: Sequence[Split], usable: Container[int], use_cpu: bool
) -> list[Split]:
    """The splits without the clips that could not be read, checked again; of classes without any left is warned.

    Raises:
        ValueError: No clip is left to train on or to test, or as `check_splits`.
    """
    left = [split.limited_to(usable) for split in splits]
    check_splits(arguments, left, use_cpu)
    for before, after in zip(splits, left, strict=True):
        lost = _classes_of(clips, before.train) - _classes_of(clips, after.train) if after.unusable else set()
        if lost:
            logger.warning(
                "split %s: no training clip of %s can be used; the model has the class, but will not know it",
                after.name,
                ", ".join(sorted(lost)),
            )
    return left


def _classes_of(clips: ClipTable, indices: list[int]) -> set[str]:
    """The names of the classes that some clips have; none where they have numbers in their place."""
    if clips.target_columns or not clips.label_names:
        return set()
    heard = as_rows(clips.targets(indices), len(clips.label_names)).sum(axis=0)
    return {clips.label_names[index] for index in np.flatnonzero(heard)}


class SplitTraining(ABC, Generic[Arguments]):
    """What a recipe does with one split; `run` does what is the same for all.

    Args:
        arguments: The settings, all resolved.
        clips: The clips that the splits divide.
        task: What is learnt of them.
    """

    def __init__(self, arguments: Arguments, clips: ClipTable, task: Task = CLASSIFICATION):
        self.arguments = arguments
        self.clips = clips
        self.task = task
        self.floor = Floor(clips, task)

    def run(self, splits: Sequence[Split]) -> list[SplitResult]:
        """Trains and tests one model per split; returns and prints the results and leaves them in `output_dir`."""
        is_main_process = PartialState().is_main_process
        results = []
        for position, split in enumerate(splits, start=1):
            if is_main_process:
                print(f"\n[{position}/{len(splits)}] {_describe(split, self.clips)}")
            results.append(self._run_split(split))
        results = with_official_epoch(results)
        if is_main_process:
            output_dir = self.arguments.output_dir
            print(f"\n{format_results(results)}\n\nModels, cards and results are in {output_dir}")
            write_results(Path(output_dir) / "results.json", results)
            if len(results) > 1:
                for split in splits:
                    tell_of_all_splits(self._folder(split), results)
        return results

    @abstractmethod
    def parts(self, split: Split) -> dict[str, Any]:
        """The clips of each of `PARTS`, as data sets."""

    @abstractmethod
    def train(self, parts: Mapping[str, Any], folder: Path) -> tuple[AudioTrainer, FinishedStep]:
        """Trains on `parts["train"]` by `train_to_the_end`; the Trainer holds the last or (with validation clips) the
        best epoch's model."""

    @abstractmethod
    def save(self, trainer: AudioTrainer, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        """Leaves model and feature extractor in `folder`; called by the first process alone."""

    @abstractmethod
    def write_card(self, trainer: AudioTrainer, folder: Path, measured: Measured) -> None:
        """Writes the README.md of the model in `folder`."""

    def predict(self, trainer: AudioTrainer, dataset: Any) -> ScoredClips:
        """What the trained model gives for the clips of a part, and their labels."""
        return self.predict_and_measure(trainer, dataset, self.metrics_of(dataset))

    def predict_and_measure(
        self, trainer: AudioTrainer, dataset: Any, compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None
    ) -> ScoredClips:
        """As `predict`; the metrics are for the callbacks alone."""
        of_validation, trainer.compute_metrics = trainer.compute_metrics, compute_metrics
        try:
            prediction = trainer.predict(dataset)
        finally:
            trainer.compute_metrics = of_validation
        return self.task.scored(dataset.names, prediction.predictions, prediction.label_ids, self.clips.label_names)

    def metrics_of(self, dataset: Any) -> Callable[[EvalPrediction], dict[str, float]]:
        """Gives all metrics of predictions for a part, and as `score` the one that chooses the best epoch."""
        return partial(compute_metrics, task=self.task, ids=dataset.names, names=self.clips.label_names)

    def train_to_the_end(
        self, trainer: AudioTrainer, parts: Mapping[str, Any], folder: Path, before: FinishedStep | None = None
    ) -> FinishedStep:
        """Trains, on from the newest whole checkpoint in `folder` if the run is resumed; the log, after that of the
        steps `before`."""
        if self.arguments.report_official_epoch:
            trainer.add_callback(_TestEachEpoch(trainer, lambda: self._score(trainer, parts["test"])))
        before = before or FinishedStep([], 0.0)
        resumed_from = newest_complete_checkpoint(folder) if self.arguments.resume else None
        trainer.train(resume_from_checkpoint=resumed_from)
        log = [entry | {"epoch": before.epochs + entry["epoch"]} for entry in trainer.state.log_history]
        return FinishedStep(before.history + log, before.seconds + trainer.seconds)

    def _score(self, trainer: AudioTrainer, dataset: Any) -> float:
        return self.task.score(self.task.metrics(self.predict(trainer, dataset)))

    def _run_split(self, split: Split) -> SplitResult:
        """Trains on the split's training part and tests once."""
        folder = self._folder(split)
        result_file = folder / "result.json"
        if self.arguments.resume and result_file.is_file():
            return read_results(result_file)[0]
        parts = self.parts(split)
        trainer, done = self.train(parts, folder)
        scored = self.predict(trainer, parts["test"])
        metrics = self.task.metrics(scored)
        result = SplitResult(
            name=split.name,
            score=self.task.score(metrics),
            metric=self.task.metric(scored.labels),
            chance=self.task.chance(self.task.train_labels(self.clips, split.own_train), scored),
            metrics=metrics,
            num_clips={part: len(dataset) for part, dataset in parts.items()},
            seconds=done.seconds,
            clips_skipped=[self.clips.ids[index] for index in split.unusable],
            test_scores=[entry[TEST_SCORE] for entry in done.history if TEST_SCORE in entry],
        )
        weights = trainer.gather_weights()
        if trainer.is_world_process_zero():
            result = self._with_floor(result, parts, own_train=set(split.own_train))
            self.save(trainer, folder, weights)
            self.write_card(trainer, folder, Measured(result, scored, done.history, self.task))
            write_results(result_file, [result])
            remove_steps(folder)
            finish(trainer, folder)
        trainer.accelerator.wait_for_everyone()
        return result

    def _with_floor(self, result: SplitResult, parts: Mapping[str, Any], own_train: Collection[int]) -> SplitResult:
        """The result with the floor of the clips in `parts`, of the training clips `own_train` alone, unless they are
        too many for it."""
        if not self.task.floor_is:
            return result
        index_of = {clip_id: index for index, clip_id in enumerate(self.clips.ids)}
        heard, test = ([index_of[name] for name in parts[part].names] for part in ("train", "test"))
        train = [index for index in heard if index in own_train]
        most, found = self.arguments.floor_clips, len(train) + len(test)
        if found > most:
            if most:
                print(f"no floor was computed: {found} clips, and floor_clips is {most}")
            return result
        metrics = self.floor.metrics(train, test, show_progress=True)
        return replace(
            result, floor=self.task.score(metrics), floor_features=self.floor.features, floor_is=self.task.floor_is
        )

    def _folder(self, split: Split) -> Path:
        """`output_dir` itself for protocols with one split, a folder in it otherwise, named by the split; slashes in
        its name are escaped, lest the values of a column lead elsewhere."""
        single = self.arguments.split.kind in ("column", "fraction")
        return Path(self.arguments.output_dir) / ("" if single else split.name.replace("%", "%25").replace("/", "%2F"))


def split_arguments(
    arguments: SplitTrainingArguments, folder: Path, use_cpu: bool, *, validated: bool
) -> TrainingArguments:
    """The Trainer's arguments for a split: with validation clips the best epoch is kept, otherwise the last."""
    defaults: dict[str, Any] = {"save_strategy": "epoch"}
    if validated:
        defaults |= {"eval_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": "score"}
    return trainer_arguments(defaults, arguments.training, output_dir=str(folder), seed=arguments.seed, use_cpu=use_cpu)


def callbacks(arguments: SplitTrainingArguments) -> list[EarlyStoppingCallback]:
    """What the settings add to the Trainer."""
    patience = arguments.early_stopping_patience
    return [] if patience is None else [EarlyStoppingCallback(patience)]


def sampling_weights(arguments: TrainingClips, targets: np.ndarray | None) -> np.ndarray | None:
    """How often each training clip is drawn, float64 (clips,); None for all alike."""
    if arguments.sampling == "uniform" or targets is None:
        return None
    return class_balanced_weights(targets)


def compute_metrics(
    prediction: EvalPrediction, task: Task = CLASSIFICATION, ids: Sequence[str] = (), names: Sequence[str] = ()
) -> dict[str, float]:
    """All metrics of the clips `ids`, and as `score` the one that chooses the best epoch."""
    metrics = task.metrics(task.scored(ids, prediction.predictions, prediction.label_ids, names))
    return metrics | {"score": task.selection(metrics)}


class _TestEachEpoch(TrainerCallback):
    """Puts the score on the test clips into the log after each epoch; nothing is chosen by it."""

    def __init__(self, trainer: AudioTrainer, score: Callable[[], float]):
        self.trainer = trainer
        self.score = score

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        should_log = control.should_log  # logging here sets it back, and the epoch's loss is still to be logged
        self.trainer.log({TEST_SCORE: self.score()})
        control.should_log = should_log


def _describe(split: Split, clips: ClipTable) -> str:
    counts = ", ".join(f"{len(getattr(split, part))} {part}" for part in PARTS if getattr(split, part))
    what = "numbers" if clips.target_columns else "classes"
    return f"{split.name}: {counts} clips of {len(clips.label_names)} {what}"
