"""Fine-tuning an AudioFormer on labelled clips: encode once, then per split train, test and save a folder that works
alone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import EarlyStoppingCallback, EvalPrediction, TrainingArguments, set_seed

from .. import AudioFormerConfig, AudioFormerFeatureExtractor, AudioFormerModel, assets
from ..audio.augment import AudioAugmentation
from ..data import ClipTable
from ..data.clip_codes import check_mixing, codes_of_clips
from ..data.clip_companions import first_codebooks
from ..data.code_dataset import CodeAugmentation, CodeDataset, CodeVersion
from ..data.collators import CodeCollator, CompanionCollator
from ..data.labels import class_balanced_weights
from ..data.splits import Split, SplitArguments, make_splits
from ..metrics import classification_metrics
from ..training.arguments import dump_config, parse_config
from ..training.checkpoints import newest_complete_checkpoint, remove_checkpoints, save_final
from ..training.classifier import ModelArguments, build_model
from ..training.contrastive import (
    ContrastiveArguments,
    add_companions,
    contrastive_objective,
    read_companions,
    with_codebooks_of,
)
from ..training.launch import check_launch, join_processes
from ..training.model_card import write_model_card
from ..training.output import check_output, prepare_output, resumable
from ..training.probe import start_from_probe
from ..training.results import SplitResult, chance_level, format_results, read_results, write_results
from ..training.steps import FinishedStep, StepArguments, read_step, remove_steps, write_step
from ..training.trainer import AudioTrainer, trainer_arguments
from .inputs import ReadingArguments, load_extractor, read

__all__ = ["DataArguments", "FinetuneArguments", "ModelArguments", "main", "run"]


# What the recipe sets unless the user does.
TRAINING_DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 20,
    "learning_rate": 5e-4,
    "weight_decay": 0.05,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "logging_strategy": "epoch",
    "save_total_limit": 2,
    "dataloader_pin_memory": False,
    "report_to": "none",
}


@dataclass(frozen=True)
class DataArguments(ReadingArguments):
    """Which clips, and what happens to them before training."""

    skip_bad: bool = field(default=False, metadata={"help": "leave out clips that cannot be read, and list them"})
    max_length_seconds: float | None = field(default=None, metadata={"help": "cut longer clips at the end"})
    crop_seconds: float | None = field(default=None, metadata={"help": "train on random stretches of this length"})
    mask_rate: float = field(default=0.0, metadata={"help": "share of the frames masked while training, in [0, 1)"})
    codebook_dropout: float = field(
        default=0.0,
        metadata={"help": "probability that all codebooks after a random one are masked, for models of several"},
    )
    sampling: Literal["uniform", "class_balanced"] = field(
        default="uniform",
        metadata={"help": "class_balanced: draw with replacement, so that clips of rare classes come more often"},
    )


@dataclass(frozen=True)
class FinetuneArguments:
    """All settings of the recipe."""

    data: DataArguments
    output_dir: str = field(metadata={"help": "where checkpoints, results and the card go; a folder per split if many"})
    split: SplitArguments = field(default_factory=SplitArguments)
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
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "stop after so many evaluations without a better validation score"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the weights, the order and all augmentation"})
    resume: bool = field(default=False, metadata={"help": "go on in output_dir: finished splits are kept"})
    overwrite: bool = field(default=False, metadata={"help": "delete what is in output_dir"})
    world_size: int | None = field(default=None, metadata={"help": "processes that must train together; checked"})


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
    use_cpu = check_launch(arguments.world_size, use_cpu=arguments.training.get("use_cpu"))
    state = join_processes(use_cpu)
    training = TRAINING_DEFAULTS | arguments.training
    arguments = replace(arguments, world_size=state.num_processes, training=training)
    recipe = dump_config(replace(arguments, resume=False, overwrite=False))
    check_output(arguments.output_dir, recipe, resume=arguments.resume, overwrite=arguments.overwrite)
    clips = read(arguments.data)
    splits = make_splits(clips, arguments.split)
    check_mixing(clips, splits, arguments.augmentation)
    _check_early_stopping(arguments, splits)
    source = arguments.model.checkpoint or assets.checkpoint_folder()
    _check_codebooks(arguments, source)
    extractor = load_extractor(source, "model.checkpoint")
    if arguments.data.max_length_seconds is not None:
        extractor.max_length_seconds = arguments.data.max_length_seconds
    companions = read_companions(arguments.mpc, extractor, AudioFormerConfig.from_pretrained(source).hidden_size)
    trained = sorted({index for split in splits for index in split.train})
    device = None if use_cpu else state.device
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
    prepare_output(arguments.output_dir, recipe, resume=arguments.resume, overwrite=arguments.overwrite)

    shared = _Shared(clips, versions, extractor, source, companions, use_cpu)
    results = []
    for position, split in enumerate(splits, start=1):
        if state.is_main_process:
            print(f"\n[{position}/{len(splits)}] {_describe(split, clips)}")
        results.append(_run_split(shared, split, arguments))
    if state.is_main_process:
        print(f"\n{format_results(results)}\n\nModels, cards and results are in {arguments.output_dir}")
        write_results(Path(arguments.output_dir) / "results.json", results)
    return results


@dataclass(frozen=True)
class _Shared:
    """What all splits have in common."""

    clips: ClipTable
    versions: Mapping[int, Sequence[CodeVersion]]
    extractor: AudioFormerFeatureExtractor
    source: str
    companions: list[AudioFormerModel]
    use_cpu: bool


def _run_split(shared: _Shared, split: Split, arguments: FinetuneArguments) -> SplitResult:
    """Trains on the split's training part and tests once, on the last or (with validation) the best epoch's model."""
    folder = split_folder(arguments, split)
    result_file = folder / "result.json"
    if arguments.resume and result_file.is_file():
        return read_results(result_file)[0]
    clips = shared.clips
    parts = {part: _dataset(shared, getattr(split, part), part) for part in ("train", "validation", "test")}
    trainer, done = _train_in_steps(shared, parts, folder, arguments)
    prediction = trainer.predict(parts["test"])
    metrics = classification_metrics(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))
    result = SplitResult(
        name=split.name,
        score=_score(metrics),
        metric="macro mAP" if clips.multi_label else "accuracy",
        chance=chance_level(clips.targets(split.train), clips.targets(split.test)),
        metrics=metrics,
        num_clips={part: len(dataset) for part, dataset in parts.items()},
        seconds=done.seconds,
    )
    weights = trainer.gather_weights()
    if trainer.is_world_process_zero():
        save_final(trainer.model, shared.extractor, folder, weights)
        write_model_card(
            folder,
            result=result,
            recipe=asdict(arguments),
            source=arguments.data.source,
            label_names=clips.label_names,
            base_model=arguments.model.checkpoint,
            random_weights=arguments.model.random_weights,
            history=done.history,
        )
        write_results(result_file, [result])
        remove_checkpoints(folder)
        remove_steps(folder)
    trainer.accelerator.wait_for_everyone()
    return result


def _train_in_steps(
    shared: _Shared, parts: dict[str, CodeDataset], folder: Path, arguments: FinetuneArguments
) -> tuple[AudioTrainer, FinishedStep]:
    """Trains once, or step after step, each from the weights of the one before; the last Trainer, and all the log."""
    source, done = shared.source, FinishedStep([], 0.0)
    *earlier, last = _settings_of_steps(arguments)
    for number, settings in enumerate(earlier, start=1):
        step_folder = folder / f"step_{number}"
        finished = read_step(step_folder) if arguments.resume else None
        if finished is None:
            trainer, finished = _train(shared, parts, step_folder, settings, source, done)
            write_step(step_folder, trainer, finished)
        source, done = str(step_folder), finished
    return _train(shared, parts, folder, last, source, done)


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


def _train(
    shared: _Shared,
    parts: dict[str, CodeDataset],
    folder: Path,
    settings: FinetuneArguments,
    source: str,
    before: FinishedStep,
) -> tuple[AudioTrainer, FinishedStep]:
    """Trains from the checkpoint `source` in `folder`; the Trainer, and its log after that of the steps `before`."""
    extractor = shared.extractor
    set_seed(settings.seed)
    parts["train"].augmentation = CodeAugmentation(
        codebook_size=extractor.codebook_size,
        mask_rate=settings.data.mask_rate,
        crop_frames=_frames(settings.data.crop_seconds, extractor),
        codebook_dropout=settings.data.codebook_dropout,
        seed=settings.seed,
    )
    collator = CodeCollator(extractor.special_token_id("pad"))
    model = build_model(source, shared.clips, settings.model, extractor)
    trainer = AudioTrainer(
        model=model,
        args=split_arguments(settings, folder, shared.use_cpu, validated=len(parts["validation"]) > 0),
        train_dataset=parts["train"],
        eval_dataset=parts["validation"] if len(parts["validation"]) else None,
        data_collator=CompanionCollator(collator) if shared.companions else collator,
        eval_collator=collator,
        objective=contrastive_objective(settings.mpc, shared.companions, "classification_loss"),
        sampling_weights=_sampling_weights(parts["train"], settings.data),
        compute_metrics=_compute_metrics,
        processing_class=extractor,
        callbacks=_callbacks(settings),
    )
    if settings.model.probe_first:
        start_from_probe(model, parts["train"].own_labels_only(), collator)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=newest_complete_checkpoint(folder) if settings.resume else None)
    seconds = before.seconds + time.perf_counter() - started
    log = [entry | {"epoch": before.epochs + entry["epoch"]} for entry in trainer.state.log_history]
    return trainer, FinishedStep(before.history + log, seconds)


def split_arguments(arguments: FinetuneArguments, folder: Path, use_cpu: bool, *, validated: bool) -> TrainingArguments:
    """The Trainer's arguments for a split: with validation clips the best epoch is kept, otherwise the last."""
    defaults = TRAINING_DEFAULTS | {"save_strategy": "epoch"}
    if validated:
        defaults |= {"eval_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": "score"}
    return trainer_arguments(defaults, arguments.training, output_dir=str(folder), seed=arguments.seed, use_cpu=use_cpu)


def split_folder(arguments: FinetuneArguments, split: Split) -> Path:
    """Where a split's model goes: `output_dir` itself for protocols with one split, a folder in it otherwise."""
    single = arguments.split.kind in ("column", "fraction")
    return Path(arguments.output_dir) if single else Path(arguments.output_dir) / split.name


def _describe(split: Split, clips: ClipTable) -> str:
    parts = ("train", "validation", "test")
    counts = ", ".join(f"{len(getattr(split, part))} {part}" for part in parts if getattr(split, part))
    return f"{split.name}: {counts} clips of {len(clips.label_names)} classes"


def _dataset(shared: _Shared, indices: Sequence[int], part: str) -> CodeDataset:
    """The clips of a part that could be read, for training in all versions, otherwise in the first."""
    readable = [index for index in indices if index in shared.versions]
    versions = [shared.versions[index] if part == "train" else shared.versions[index][:1] for index in readable]
    names = [shared.clips.ids[index] for index in readable]
    return CodeDataset(versions, shared.clips.targets(readable), names=names)


def _sampling_weights(dataset: CodeDataset, arguments: DataArguments) -> np.ndarray | None:
    if arguments.sampling == "uniform" or dataset.targets is None:
        return None
    return class_balanced_weights(dataset.targets)


def _frames(seconds: float | None, extractor: AudioFormerFeatureExtractor) -> int | None:
    return None if seconds is None else max(1, round(seconds * extractor.frame_rate))


def _check_early_stopping(arguments: FinetuneArguments, splits: Sequence[Split]) -> None:
    if arguments.early_stopping_patience is not None and not all(split.validation for split in splits):
        raise ValueError("early_stopping_patience needs validation clips: set split.validation_fraction above 0.")


def _check_codebooks(arguments: FinetuneArguments, source: str) -> None:
    if arguments.data.codebook_dropout and AudioFormerConfig.from_pretrained(source).num_codebooks == 1:
        raise ValueError(
            f"data.codebook_dropout is {arguments.data.codebook_dropout}, and model.checkpoint reads one codebook; "
            "leave it at 0, or take a checkpoint of several."
        )


def _callbacks(arguments: FinetuneArguments) -> list[EarlyStoppingCallback]:
    patience = arguments.early_stopping_patience
    return [] if patience is None else [EarlyStoppingCallback(patience)]


def _compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """All metrics, and as `score` the one that chooses the best epoch."""
    metrics = classification_metrics(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))
    return metrics | {"score": _score(metrics)}


def _score(metrics: dict[str, float]) -> float:
    """The main metric: macro mAP for several labels per clip, otherwise accuracy."""
    return metrics["map"] if "map" in metrics else metrics["accuracy"]
