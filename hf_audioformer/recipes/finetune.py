"""Fine-tuning an AudioFormer on labelled clips: encode once, then per split train, test and save a folder that works
alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import set_seed

from .. import AudioFormerConfig, AudioFormerFeatureExtractor, AudioFormerModel, assets
from ..audio.augment import AudioAugmentation
from ..data import ClipTable
from ..data.clip_codes import check_mixing, codes_of_clips
from ..data.clip_companions import first_codebooks
from ..data.code_dataset import CodeAugmentation, CodeDataset, CodeVersion
from ..data.collators import CodeCollator, CompanionCollator
from ..data.splits import Split, make_splits
from ..training.arguments import parse_config
from ..training.checkpoints import save_final
from ..training.classifier import ModelArguments, build_model
from ..training.contrastive import (
    ContrastiveArguments,
    add_companions,
    contrastive_objective,
    read_companions,
    with_codebooks_of,
)
from ..training.model_card import Measured, write_model_card
from ..training.output import resumable
from ..training.probe import start_from_probe
from ..training.results import SplitResult
from ..training.steps import FinishedStep, StepArguments, read_step, write_step
from ..training.trainer import AudioTrainer
from .inputs import TrainingClips, load_extractor, read
from .split_training import (
    PARTS,
    SPLIT_DEFAULTS,
    SplitTraining,
    SplitTrainingArguments,
    begin,
    callbacks,
    check_splits,
    claim_output,
    compute_metrics,
    sampling_weights,
    split_arguments,
)

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
class DataArguments(TrainingClips):
    """Which clips, and what happens to them before training."""

    max_length_seconds: float | None = field(default=None, metadata={"help": "cut longer clips at the end"})
    crop_seconds: float | None = field(default=None, metadata={"help": "train on random stretches of this length"})
    mask_rate: float = field(default=0.0, metadata={"help": "share of the frames masked while training, in [0, 1)"})
    codebook_dropout: float = field(
        default=0.0,
        metadata={"help": "probability that all codebooks after a random one are masked, for models of several"},
    )


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
    splits = make_splits(clips, arguments.split)
    check_mixing(clips, splits, arguments.augmentation)
    check_splits(arguments, splits)
    source = arguments.model.checkpoint or assets.checkpoint_folder()
    extractor = load_extractor(source, "model.checkpoint")
    _check_codebooks(arguments, source)
    if arguments.data.max_length_seconds is not None:
        extractor.max_length_seconds = arguments.data.max_length_seconds
    companions = read_companions(arguments.mpc, extractor, AudioFormerConfig.from_pretrained(source).hidden_size)
    trained = sorted({index for split in splits for index in split.train})
    device = None if use_cpu else PartialState().device
    versions = codes_of_clips(
        clips,
        with_codebooks_of(companions, extractor),
        changed=trained,
        augmentation=arguments.augmentation,
        seed=arguments.seed,
        skip_bad=arguments.data.skip_bad,
        device=device,
        companions=companions,
    )
    if companions:
        versions = add_companions(versions, trained, companions, arguments.mpc, device)
        versions = first_codebooks(versions, extractor.num_codebooks)
    claim_output(arguments)
    return _Finetuning(arguments, clips, versions, extractor, source, companions, use_cpu).run(splits)


class _Finetuning(SplitTraining[FinetuneArguments]):
    """Fine-tuning on encoded clips.

    Args:
        versions: The codes of the clips that could be read, by index.
        source: Where the weights come from.
        companions: The networks of the contrastive loss.
    """

    def __init__(
        self,
        arguments: FinetuneArguments,
        clips: ClipTable,
        versions: Mapping[int, Sequence[CodeVersion]],
        extractor: AudioFormerFeatureExtractor,
        source: str,
        companions: list[AudioFormerModel],
        use_cpu: bool,
    ):
        super().__init__(arguments, clips)
        self.versions = versions
        self.extractor = extractor
        self.source = source
        self.companions = companions
        self.use_cpu = use_cpu

    def parts(self, split: Split) -> dict[str, CodeDataset]:
        return {part: self._dataset(getattr(split, part), part) for part in PARTS}

    def _dataset(self, indices: Sequence[int], part: str) -> CodeDataset:
        """The clips of a part that could be read, for training in all versions, otherwise in the first."""
        readable = [index for index in indices if index in self.versions]
        versions = [self.versions[index] if part == "train" else self.versions[index][:1] for index in readable]
        names = [self.clips.ids[index] for index in readable]
        return CodeDataset(versions, self.clips.targets(readable), names=names)

    def train(self, parts: Mapping[str, CodeDataset], folder: Path) -> tuple[AudioTrainer, FinishedStep]:
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
        save_final(trainer.model, self.extractor, folder, weights)

    def write_card(self, trainer: AudioTrainer, folder: Path, measured: Measured) -> None:
        write_model_card(
            folder,
            measured=measured,
            recipe=asdict(self.arguments),
            source=self.arguments.data.source,
            label_names=self.clips.label_names,
            base_model=self.arguments.model.checkpoint,
            random_weights=self.arguments.model.random_weights,
            codec=None if self.arguments.model.checkpoint is None else self.extractor.codec,
        )

    def _train_step(
        self,
        parts: Mapping[str, CodeDataset],
        folder: Path,
        settings: FinetuneArguments,
        source: str,
        before: FinishedStep,
    ) -> tuple[AudioTrainer, FinishedStep]:
        """Trains from the checkpoint `source` in `folder`; the Trainer, and the log of this and all steps `before`."""
        set_seed(settings.seed)
        parts["train"].augmentation = CodeAugmentation(
            codebook_size=self.extractor.codebook_size,
            mask_rate=settings.data.mask_rate,
            crop_frames=_frames(settings.data.crop_seconds, self.extractor),
            codebook_dropout=settings.data.codebook_dropout,
            seed=settings.seed,
        )
        collator = CodeCollator(self.extractor.special_token_id("pad"))
        model = build_model(source, self.clips, settings.model, self.extractor)
        trainer = AudioTrainer(
            model=model,
            args=split_arguments(settings, folder, self.use_cpu, validated=len(parts["validation"]) > 0),
            train_dataset=parts["train"],
            eval_dataset=parts["validation"] if len(parts["validation"]) else None,
            data_collator=CompanionCollator(collator) if self.companions else collator,
            eval_collator=collator,
            objective=contrastive_objective(settings.mpc, self.companions, "classification_loss"),
            sampling_weights=sampling_weights(settings.data, parts["train"].targets),
            compute_metrics=compute_metrics,
            processing_class=self.extractor,
            callbacks=callbacks(settings),
        )
        if settings.model.probe_first:
            start_from_probe(model, parts["train"].own_labels_only(), collator)
        return trainer, self.train_to_the_end(trainer, parts, folder, before)


def _settings_of_steps(arguments: FinetuneArguments) -> list[FinetuneArguments]:
    """The settings of each step; order and draws of each are other ones, and only the first may start from nothing."""
    return [
        replace(
            arguments,
            mpc=replace(arguments.mpc, **step.given("alpha", "temperature")),
            training=arguments.training | step.given("learning_rate", "num_train_epochs"),
            model=arguments.model if number == 0 else replace(arguments.model, random_weights=False, probe_first=False),
            seed=arguments.seed + number,
        )
        for number, step in enumerate(arguments.steps or [StepArguments()])
    ]


def _frames(seconds: float | None, extractor: AudioFormerFeatureExtractor) -> int | None:
    return None if seconds is None else max(1, round(seconds * extractor.frame_rate))


def _check_codebooks(arguments: FinetuneArguments, source: str) -> None:
    if arguments.data.codebook_dropout and AudioFormerConfig.from_pretrained(source).num_codebooks == 1:
        raise ValueError(
            f"data.codebook_dropout is {arguments.data.codebook_dropout}, and model.checkpoint reads one codebook; "
            "leave it at 0, or take a checkpoint of several."
        )
