"""Fine-tuning an AudioFormer on labelled clips: read them (codes are encoded once; from random weights log-mels,
spectrograms, MFCC or waveforms are read, too: --model.front_end), then per split train, test and save a folder that
works alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import set_seed

from .. import AudioFormerForAudioClassification, assets
from ..audio.augment import AudioAugmentation
from ..data import ClipTable
from ..data.clip_codes import check_mixing
from ..data.moments import MomentCollator, MomentDataset, MomentGrid
from ..data.splits import Split, make_splits
from ..training.arguments import parse_config
from ..training.checkpoints import save_final
from ..training.classifier import ModelArguments, build_model, model_config
from ..training.contrastive import ContrastiveArguments, contrastive_objective
from ..training.curve_task import CurveRegression
from ..training.event_task import EventDetection
from ..training.model_card import Measured, size_of, write_model_card
from ..training.moment_task import MomentTask
from ..training.output import resumable
from ..training.probe import start_from_probe
from ..training.results import SplitResult
from ..training.steps import FinishedStep, StepArguments, read_step, write_step
from ..training.tasks import CLASSIFICATION, Regression, Task
from ..training.trainer import AudioTrainer
from ..training.verification_task import Verification, check_pairs
from .finetune_inputs import DataArguments, Inputs, inputs_of_splits, load_front_end
from .inputs import read
from .split_training import (
    PARTS,
    SPLIT_DEFAULTS,
    SplitTraining,
    SplitTrainingArguments,
    callbacks,
    check_splits,
    claim_output_for,
    sampling_weights,
    split_arguments,
    usable_splits,
)
from .training_run import begin

__all__ = ["DataArguments", "FinetuneArguments", "ModelArguments", "main", "run"]


TRAINING_DEFAULTS: dict[str, Any] = SPLIT_DEFAULTS | {
    "num_train_epochs": 20,
    "learning_rate": 5e-4,
    "weight_decay": 0.05,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
}


@dataclass(frozen=True)
class FinetuneArguments(SplitTrainingArguments):
    """All settings of the recipe."""

    data: DataArguments
    augmentation: AudioAugmentation = field(default_factory=AudioAugmentation)
    model: ModelArguments = field(default_factory=ModelArguments)
    mpc: ContrastiveArguments = field(default_factory=ContrastiveArguments)
    training: dict[str, Any] = field(
        default_factory=lambda: dict(TRAINING_DEFAULTS), metadata={"keywords_of": "transformers.TrainingArguments"}
    )
    steps: list[StepArguments] = field(
        default_factory=list,
        metadata={"help": "train several times, each from the weights of the one before, with these settings changed"},
    )

    def __post_init__(self) -> None:
        for name, file in (("events", self.data.events), ("curves", self.data.curves)):
            if file is not None and self.model.head != "moments":
                raise ValueError(f"data.{name} is {file}; it goes with model.head moments, found {self.model.head}")
        for number, step in enumerate(self.steps, start=1):
            if (given := step.given("alpha", "temperature")) and not self.mpc.companions:
                raise ValueError(f"step {number} of steps has {', '.join(given)}, which needs mpc.companions")
            replace(self.mpc, **given)  # raises what is out of range


def main(argv: list[str]) -> None:
    """Runs the recipe from a config file and command-line options."""
    arguments = parse_config(FinetuneArguments, argv, description=__doc__ or "")
    with resumable(arguments.output_dir):
        run(arguments)


def run(arguments: FinetuneArguments) -> list[SplitResult]:
    """Trains and tests one model per split; returns and prints the results and leaves them in `output_dir`.

    Raises:
        FileExistsError: `output_dir` holds something and neither `resume` nor `overwrite` is set, or is not ours.
        ValueError: Data, settings or the launch do not fit; the message says what to change.
    """
    arguments, use_cpu = begin(arguments, TRAINING_DEFAULTS)
    clips = read(arguments.data)
    splits = make_splits(clips, arguments.split, must_vary=arguments.model.head != "moments")
    check_mixing(clips, splits, arguments.augmentation)
    check_splits(arguments, splits, use_cpu)
    source = arguments.model.checkpoint or assets.checkpoint_folder()
    extractor = load_front_end(source, arguments.model, arguments.data)
    config = model_config(source, clips, arguments.model, extractor)  # raises before anything is encoded or claimed
    task = task_of(arguments, clips, MomentGrid.of(config, extractor))
    if isinstance(task, Verification):
        check_pairs(clips, splits)
    if isinstance(task, CurveRegression):
        task.check(clips, splits)
    inputs = inputs_of_splits(
        clips,
        splits,
        extractor,
        source=source,
        data=arguments.data,
        augmentation=arguments.augmentation,
        mpc=arguments.mpc,
        seed=arguments.seed,
        device=None if use_cpu else PartialState().device,
    )
    splits = usable_splits(arguments, clips, splits, inputs.usable, use_cpu)
    claim_output_for(arguments, clips)
    return _Finetuning(arguments, clips, task, inputs, source, use_cpu).run(splits)


def task_of(arguments: FinetuneArguments, clips: ClipTable, grid: MomentGrid) -> Task:
    """What is learnt of the clips, by a model whose moments lie as the grid says.

    Raises:
        ValueError: The clips do not have what it needs, or a setting is for another task.
    """
    head = arguments.model.head
    if clips.target_columns and not clips.has_curves:
        if head != "clips":
            raise ValueError(
                f"data.target_columns goes with model.head clips, found {head}; numbers along time are in data.curves"
            )
        _refuse(arguments, "data.target_columns are numbers")
        return Regression()
    if head == "clips":
        return CLASSIFICATION
    _refuse(arguments, f"model.head is {head}")
    if head == "vectors":
        if clips.multi_label:
            raise ValueError("model.head is vectors, and clips have several labels each; give one (data.label_column)")
        return Verification()
    change = arguments.augmentation
    if change.copies and (tuple(change.speed) != (1, 1) or change.shift):
        raise ValueError(
            f"augmentation.speed is {list(change.speed)} and augmentation.shift {change.shift}, which move what is "
            'heard in time, and model.head is moments; set augmentation.speed "[1, 1]" and leave shift out'
        )
    return CurveRegression(clips, grid) if clips.has_curves else EventDetection(clips, grid)


def _refuse(arguments: FinetuneArguments, why: str) -> None:
    """Raises a ValueError for a setting that is for classes of clips alone."""
    for name, value, default in (
        ("model.probe_first", arguments.model.probe_first, False),
        ("augmentation.mixup", arguments.augmentation.mixup, 0),
        ("data.sampling", arguments.data.sampling, "uniform"),
        ("mpc.companions", arguments.mpc.companions, []),
        ("report_official_epoch", arguments.report_official_epoch, False),
    ):
        if value != default:
            raise ValueError(f"{name} is {value}, which is for classes of clips, and {why}; leave it out")


class _Finetuning(SplitTraining[FinetuneArguments]):
    """Fine-tuning on codes or features of clips.

    Args:
        inputs: What the model reads of the clips.
        source: Where the weights come from.
    """

    def __init__(
        self, arguments: FinetuneArguments, clips: ClipTable, task: Task, inputs: Inputs, source: str, use_cpu: bool
    ):
        super().__init__(arguments, clips, task)
        self.inputs = self.all_inputs = inputs
        self.source = source
        self.use_cpu = use_cpu

    def parts(self, split: Split) -> dict[str, Any]:
        self.inputs = self.all_inputs.of_split(split)
        parts = {part: self.inputs.dataset(getattr(split, part), part) for part in PARTS}
        if not isinstance(self.task, MomentTask):
            return parts
        return {part: self.task.with_targets(dataset) for part, dataset in parts.items()}

    def train(self, parts: Mapping[str, Any], folder: Path) -> tuple[AudioTrainer, FinishedStep]:
        """Trains once, or step after step, each from the weights of the one before; the last Trainer, and all the
        log."""
        source, done = self.source, FinishedStep([], 0.0)
        *earlier, last = _settings_of_steps(self.arguments)
        for number, settings in enumerate(earlier, start=1):
            step_folder = folder / f"step_{number}"
            finished = read_step(step_folder) if self.arguments.resume else None
            if finished is None:
                trainer, finished = self._train_step(parts, step_folder, settings, source, done)
                write_step(step_folder, trainer, finished)
            source, done = str(step_folder), finished
        return self._train_step(parts, folder, last, source, done)

    def save(self, trainer: AudioTrainer, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        save_final(trainer.model, self.inputs.extractor, folder, weights)

    def write_card(self, trainer: AudioTrainer, folder: Path, measured: Measured) -> None:
        is_bundled = self.arguments.model.checkpoint is None
        write_model_card(
            folder,
            measured=measured,
            recipe=asdict(self.arguments),
            source=self.arguments.data.source,
            label_names=self.clips.label_names,
            base_model=self.arguments.model.checkpoint,
            random_weights=self.arguments.model.random_weights,
            kind=self.inputs.kind,
            codec=None if is_bundled else self.inputs.codec,
            details=[*self.inputs.details, size_of(trainer.model)],
        )

    def _train_step(
        self,
        parts: Mapping[str, Any],
        folder: Path,
        settings: FinetuneArguments,
        source: str,
        before: FinishedStep,
    ) -> tuple[AudioTrainer, FinishedStep]:
        """Trains from the checkpoint `source` in `folder`; the Trainer, and the log of this and all steps `before`."""
        set_seed(settings.seed)
        inputs = self.inputs
        training: Any = parts["train"]
        has_moments = isinstance(training, MomentDataset)
        inputs.augment(training.dataset if has_moments else training, settings.data, settings.seed)
        targets = training.targets
        if isinstance(self.task, CurveRegression):
            targets = np.concatenate(self.task.known_moments(training.names))
        model = build_model(source, self.clips, settings.model, inputs.extractor, targets)
        trainer = AudioTrainer(
            model=model,
            args=split_arguments(settings, folder, self.use_cpu, validated=len(parts["validation"]) > 0),
            train_dataset=parts["train"],
            eval_dataset=parts["validation"] if len(parts["validation"]) else None,
            data_collator=MomentCollator(inputs.collator) if has_moments else inputs.collator,
            eval_collator=MomentCollator(inputs.eval_collator) if has_moments else inputs.eval_collator,
            objective=contrastive_objective(settings.mpc, inputs.companions, "classification_loss"),
            sampling_weights=sampling_weights(settings.data, parts["train"].targets),
            compute_metrics=self.metrics_of(parts["validation"]),
            processing_class=inputs.extractor,
            callbacks=callbacks(settings),
        )
        if settings.model.probe_first and isinstance(model, AudioFormerForAudioClassification):
            own = parts["train"].own_labels_only()
            with trainer.quick_on_cpu():
                start_from_probe(model, own, inputs.eval_collator, autocast=trainer.accelerator.autocast)
        return trainer, self.train_to_the_end(trainer, parts, folder, before)


def _settings_of_steps(arguments: FinetuneArguments) -> list[FinetuneArguments]:
    """The settings of each step; order and draws of each are other ones, and only the first may start from nothing."""
    trained = replace(
        arguments.model, random_weights=False, probe_first=False, position_embedding_type=None, norm_position=None
    )
    return [
        replace(
            arguments,
            mpc=replace(arguments.mpc, **step.given("alpha", "temperature")),
            training=arguments.training | step.given("learning_rate", "num_train_epochs"),
            model=arguments.model if number == 0 else trained,
            seed=arguments.seed + number,
        )
        for number, step in enumerate(arguments.steps or [StepArguments()])
    ]
