"""Fine-tuning an Audio Spectrogram Transformer on labelled clips, at any length: per split train, test and save a
folder that plain Transformers loads."""

from collections.abc import Callable, Mapping, Sequence, Set
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from transformers import ASTConfig, EvalPrediction, set_seed

from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..audio.fbank import num_frames, samples_of_frames
from ..audio.spectrogram_augment import SpectrogramAugmentation
from ..data import ClipTable
from ..data.added_clips import with_added_clips
from ..data.clip_table import file_paths, linked_files
from ..data.running_statistics import RunningStatistics, shared_statistics
from ..data.spectrogram_collator import SpectrogramCollator
from ..data.spectrogram_dataset import SpectrogramDataset
from ..data.splits import Split, make_splits
from ..data.waveform_cache import WaveformCache
from ..data.windows import WindowedDataset, check_overlap, mean_scores
from ..models.ast.lean_ast import make_lean
from ..models.ast.positions_ast import longest_step
from ..models.ast.tokens_ast import keep_tokens
from ..training.adaptation import AdaptationArguments, adapt, merge_lora
from ..training.arguments import parse_config
from ..training.ast_classifier import (
    STOCK_RATE,
    ASTModelArguments,
    FeatureArguments,
    build_ast,
    check_patches,
    load_front_end,
    model_length,
)
from ..training.averaging import AveragingArguments
from ..training.checkpoints import save_final
from ..training.model_card import AST, Measured, size_of, write_model_card
from ..training.optimization import OptimizationArguments
from ..training.output import resumable
from ..training.results import SplitResult
from ..training.spectrogram import spectrogram_objective
from ..training.steps import FinishedStep
from ..training.tasks import ScoredClips
from ..training.trainer import AudioTrainer
from .inputs import TrainingClips, read
from .split_training import (
    PARTS,
    SPLIT_DEFAULTS,
    SplitTraining,
    SplitTrainingArguments,
    callbacks,
    check_splits,
    claim_output_for,
    compute_metrics,
    sampling_weights,
    split_arguments,
    usable_splits,
)
from .training_run import begin

__all__ = ["FinetuneASTArguments", "SpectrogramClips", "main", "run"]

TRAINING_DEFAULTS: dict[str, Any] = SPLIT_DEFAULTS | {
    "num_train_epochs": 25,
    "learning_rate": 5e-5,
    "weight_decay": 0.01,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
}


@dataclass(frozen=True)
class SpectrogramClips(TrainingClips):
    """Which clips, and how they meet the model."""

    ignore_padding: bool = field(
        default=False,
        metadata={
            "help": "leave out the patches that hold only padding, which is faster for clips of many lengths, but not "
            "what plain Transformers does with the saved model"
        },
    )
    window_overlap: float = field(
        default=0.5,
        metadata={"help": "clips longer than the model reads are tested in windows that share this much, in [0, 1)"},
    )

    also: str | None = field(
        default=None,
        metadata={
            "help": "another source, of the same labels or some of them, that is learnt from as well and never tested; "
            "with few speakers or recordings it keeps the model from knowing these alone. Where it has the column of "
            "the split or of its groups, clips with a value that tested ones have are left out"
        },
    )
    also_clips: int | None = field(
        default=None, metadata={"help": "learn from so many clips of data.also, drawn by the seed; default all"}
    )

    def __post_init__(self) -> None:
        check_overlap(self.window_overlap)
        if self.also_clips is not None and self.also is None:
            raise ValueError(f"data.also_clips is {self.also_clips}, which is for data.also; name that or leave it out")


@dataclass(frozen=True)
class FinetuneASTArguments(SplitTrainingArguments):
    """All settings of the recipe."""

    data: SpectrogramClips
    features: FeatureArguments = field(default_factory=FeatureArguments)
    augmentation: SpectrogramAugmentation = field(default_factory=SpectrogramAugmentation)
    model: ASTModelArguments = field(default_factory=ASTModelArguments)
    adaptation: AdaptationArguments = field(default_factory=AdaptationArguments)
    optimization: OptimizationArguments = field(default_factory=OptimizationArguments)
    averaging: AveragingArguments = field(default_factory=AveragingArguments)
    training: dict[str, Any] = field(
        default_factory=lambda: dict(TRAINING_DEFAULTS), metadata={"keywords_of": "transformers.TrainingArguments"}
    )


def main(argv: list[str]) -> None:
    """Runs the recipe from a config file and command-line options."""
    arguments = parse_config(FinetuneASTArguments, argv, description=__doc__ or "")
    with resumable(arguments.output_dir):
        run(arguments)


def run(arguments: FinetuneASTArguments) -> list[SplitResult]:
    """Trains and tests one model per split; returns and prints the results and leaves them in `output_dir`.

    Raises:
        FileExistsError: `output_dir` holds something and neither `resume` nor `overwrite` is set, or is not ours.
        OSError: The checkpoint cannot be had.
        ValueError: Data, settings or the launch do not fit; the message says what to change.
    """
    arguments, use_cpu = begin(arguments, TRAINING_DEFAULTS)
    clips = read(arguments.data)
    splits = make_splits(clips, arguments.split)
    check_splits(arguments, splits, use_cpu)
    clips, splits = _with_added_clips(arguments, clips, splits)
    extractor = load_front_end(arguments.model, arguments.features)
    used = sorted({index for split in splits for part in PARTS for index in getattr(split, part)})
    waveforms = WaveformCache(clips, used, extractor.sampling_rate, skip_bad=arguments.data.skip_bad)
    splits = usable_splits(arguments, clips, splits, waveforms, use_cpu)
    waveforms.learn_lengths({index for split in splits for index in (*split.validation, *split.test)})
    # A clip of one fold is trained on in the next, which may be named as late as on resume.
    parts = PARTS if arguments.split.kind in ("folds", "drawn_folds") else ("train",)
    trained = {index for split in splits for part in parts for index in getattr(split, part)}
    extractor.max_length = model_length(
        arguments.model,
        arguments.features,
        extractor.sampling_rate,
        lambda: _longest(waveforms, trained),
    )
    check_patches(arguments.model, extractor)
    claim_output_for(arguments, clips)
    if PartialState().is_main_process:
        print(f"The model reads {extractor.max_length} frames of 10 ms at once, {_seconds(extractor):.2f} s")
    return _FinetuningAST(arguments, clips, waveforms, extractor, use_cpu).run(splits)


class _FinetuningAST(SplitTraining[FinetuneASTArguments]):
    """Fine-tuning on log-mel spectrograms.

    Args:
        waveforms: The sound of the clips that could be read.
        extractor: Makes the log-mels, but for each split's own statistics.
    """

    def __init__(
        self,
        arguments: FinetuneASTArguments,
        clips: ClipTable,
        waveforms: WaveformCache,
        extractor: ASTLogMelFeatureExtractor,
        use_cpu: bool,
    ):
        super().__init__(arguments, clips)
        self.waveforms = waveforms
        self.extractor = extractor
        self.use_cpu = use_cpu

    def parts(self, split: Split) -> dict[str, SpectrogramDataset]:
        """The training part is normalised by its own statistics, and so are the other two."""
        extractor = copy(self.extractor)
        features = self.arguments.features
        if features.statistics == "data" and features.mean is None:
            extractor.normalise_by(*self._statistics(split.train))
        return {part: self._dataset(getattr(split, part), part, extractor) for part in PARTS}

    def train(self, parts: Mapping[str, SpectrogramDataset], folder: Path) -> tuple[AudioTrainer, FinishedStep]:
        arguments, training, validation = self.arguments, parts["train"], parts["validation"]
        set_seed(arguments.seed)
        model = build_ast(
            arguments.model,
            training.extractor,
            self.clips.label_names,
            multi_label=self.clips.multi_label,
            seed=arguments.seed,
        )
        keep_tokens(model)
        make_lean(model)
        adapt(model, arguments.adaptation, seed=arguments.seed)
        windows = self._windows(validation, model.config) if len(validation) else None
        collator = SpectrogramCollator(model.config, training.padding_value, arguments.data.ignore_padding)
        trainer = AudioTrainer(
            model=model,
            args=split_arguments(arguments, folder, self.use_cpu, validated=windows is not None),
            train_dataset=training,
            eval_dataset=windows,
            data_collator=replace(collator, patch_dropout=arguments.augmentation.patch_dropout, seed=arguments.seed),
            eval_collator=collator,
            objective=spectrogram_objective(str(model.config.problem_type), arguments.model.label_smoothing),
            sampling_weights=sampling_weights(arguments.data, self.clips.targets(training.indices)),
            optimization=arguments.optimization,
            averaging=arguments.averaging,
            compute_metrics=None if windows is None else _metrics_of_clips(windows),
            processing_class=training.extractor,
            callbacks=callbacks(arguments),
        )
        done = self.train_to_the_end(trainer, parts, folder)
        merge_lora(trainer.model)
        return trainer, done

    def predict(self, trainer: AudioTrainer, dataset: SpectrogramDataset) -> ScoredClips:
        """The mean of the logits of a clip's windows."""
        windows = self._windows(dataset, cast(ASTConfig, trainer.model.config))
        of_windows = self.predict_and_measure(trainer, windows, None)
        logits = mean_scores(of_windows.logits, windows.clip_of_window)
        return replace(of_windows, ids=dataset.names, logits=logits, labels=np.asarray(dataset.targets))

    def save(self, trainer: AudioTrainer, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        save_final(trainer.model, cast(ASTLogMelFeatureExtractor, trainer.processing_class), folder, weights)

    def write_card(self, trainer: AudioTrainer, folder: Path, measured: Measured) -> None:
        write_model_card(
            folder,
            measured=measured,
            recipe=asdict(self.arguments),
            source=self.arguments.data.source,
            also=self.arguments.data.also,
            label_names=self.clips.label_names,
            base_model=self.arguments.model.source,
            random_weights=self.arguments.model.random_weights,
            kind=AST,
            details=self._details(trainer),
        )

    def _details(self, trainer: AudioTrainer) -> list[str]:
        """What the card says of this model."""
        extractor, data = cast(ASTLogMelFeatureExtractor, trainer.processing_class), self.arguments.data
        normalised = "not normalised"
        if extractor.do_normalize:
            normalised = f"normalised by mean {extractor.mean:.4f} and deviation {extractor.std:.4f}"
        sentences = [
            f"It hears {_seconds(extractor):.2f} s at once, of audio at {extractor.sampling_rate} Hz: "
            f"{extractor.max_length} frames of {extractor.num_mel_bins} mel bands, {normalised}. "
            f"Transformers cuts what is longer; here it was "
            f"tested in windows that share {data.window_overlap:.0%} (`hf-audioformer evaluate`).",
            size_of(trainer.model),
        ]
        if extractor.sampling_rate != STOCK_RATE:
            sentences.append(
                f"At {extractor.sampling_rate} Hz plain Transformers computes these features only where torchaudio is "
                "installed."
            )
        if data.ignore_padding:
            sentences.append(
                "Padding of shorter clips was left out in training and testing (`data.ignore_padding`); plain "
                "Transformers lets the model see it, so its scores for such clips differ."
            )
        average = trainer.averaging_result
        if average is not None and average.kept:
            scores = "" if average.averaged is None else f" (validation: {average.averaged:.4f}, {average.plain:.4f})"
            sentences.append(f"Its weights are an average along training, in place of the last or best ones{scores}.")
        return sentences

    def _dataset(self, indices: Sequence[int], part: str, extractor: ASTLogMelFeatureExtractor) -> SpectrogramDataset:
        return SpectrogramDataset(
            self.clips,
            indices,
            extractor,
            targets=self.clips.targets(indices),
            augmentation=self.arguments.augmentation if part == "train" else None,
            seed=self.arguments.seed,
            waveforms=self.waveforms,
        )

    def _statistics(self, indices: Sequence[int]) -> tuple[float, float]:
        """Mean and standard deviation of all log-mels of the clips."""

        def of_clip(place: int) -> RunningStatistics:
            (log_mel,) = self.extractor.log_mels(self.waveforms[indices[place]], self.extractor.sampling_rate)
            return RunningStatistics.of(log_mel.numpy())

        found = shared_statistics(len(indices), of_clip)
        if found.std == 0:
            raise ValueError(f"{self.arguments.data.source}: all frames of the training clips are the same (silence?)")
        if PartialState().is_main_process:
            print(f"log-mels of its training clips: mean {found.mean:.4f}, deviation {found.std:.4f}")
        return found.mean, found.std

    def _windows(self, dataset: SpectrogramDataset, config: ASTConfig) -> WindowedDataset:
        return WindowedDataset(dataset, self.arguments.data.window_overlap, longest_step(config))


def _longest(waveforms: WaveformCache, indices: Set[int]) -> int:
    """The frames of the longest of these clips."""
    waveforms.learn_lengths(indices)
    return num_frames(max(map(waveforms.num_samples, indices)), waveforms.sampling_rate)


def _with_added_clips(
    arguments: FinetuneASTArguments, clips: ClipTable, splits: list[Split]
) -> tuple[ClipTable, list[Split]]:
    """The clips and their splits, with those of `data.also` in the training parts."""
    data = arguments.data
    if data.also is None:
        return clips, splits
    if Path(data.also).resolve() == Path(data.source).resolve():
        raise ValueError(f"data.also is {data.also}, which is data.source too: its clips for testing would be learnt")
    kept_apart = [name for name in (arguments.split.column, arguments.split.group_column) if name is not None]
    added = read(TrainingClips(data.also, multi_label=clips.multi_label, skip_bad=data.skip_bad))
    files, added_files = (linked_files(file_paths(table)) for table in (clips.table, added.table))
    if shared := {*files} & {*added_files}:
        raise ValueError(
            f"data.also is {data.also}, {len(shared)} of whose files are in data.source too, as {min(shared)}: those "
            "for testing would be learnt"
        )
    return with_added_clips(clips, splits, added, data.also, data.also_clips, arguments.seed, kept_apart)


def _seconds(extractor: ASTLogMelFeatureExtractor) -> float:
    """How much sound the frames of `max_length` hold."""
    return samples_of_frames(0, extractor.max_length, extractor.sampling_rate).stop / extractor.sampling_rate


def _metrics_of_clips(windows: WindowedDataset) -> Callable[[EvalPrediction], dict[str, float]]:
    """Metrics of the validation clips, from the logits of their windows."""

    def of_clips(prediction: EvalPrediction) -> dict[str, float]:
        logits = mean_scores(np.asarray(prediction.predictions), windows.clip_of_window)
        return compute_metrics(EvalPrediction(logits, np.asarray(windows.dataset.targets)))

    return of_clips
