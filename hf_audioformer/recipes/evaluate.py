"""Measuring a classifier, or several together, on labelled clips: metrics with their uncertainty, a table of the
classes, every prediction, and figures. Takes AudioFormer checkpoints, also those that give numbers, classes or numbers
along time, or vectors, and any other that AutoModelForAudioClassification loads."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import ASTConfig, ASTForAudioClassification, PreTrainedModel

from .. import AudioFormerConfig, AudioFormerFeatureExtractor, AudioFormerSignalFeatureExtractor
from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..checkpoint_config import read_config
from ..codes.encoding import check_bad_share
from ..data import ClipTable
from ..data.clip_codes import codes_of_clips
from ..data.collators import CodeCollator
from ..data.moments import MomentGrid
from ..data.readers import read_rows
from ..data.spectrogram_collator import SpectrogramCollator
from ..data.spectrogram_dataset import SpectrogramDataset
from ..data.waveform_cache import WaveformCache
from ..data.windows import WindowedDataset, check_overlap, mean_scores
from ..inference.front_end import FrontEnd
from ..inference.loading import DESCRIBED, Output, choose_device, load_classifier, output_of
from ..metrics import class_probabilities
from ..models.ast.lean_ast import make_lean
from ..models.ast.positions_ast import longest_step
from ..models.ast.tokens_ast import keep_tokens
from ..training.arguments import parse_config
from ..training.curve_task import CurveRegression
from ..training.event_task import EventDetection
from ..training.launch import check_launch
from ..training.moment_task import MomentTask
from ..training.tasks import CLASSIFICATION, Regression, Task
from ..training.verification_task import Verification
from ..verification import trials_of
from .evaluation_report import METRICS_FILE, ScoredClips, measure, summary, write_report, write_tables
from .inputs import OtherTargets, ReadingArguments, SubsetArguments, interruption_says, read, subset

__all__ = ["EvaluateArguments", "main", "run"]

logger = logging.getLogger(__name__)

FeatureBatch = dict[str, Tensor]
Batch = tuple[list[int], FeatureBatch]
# What is kept of a model's outputs for a batch, an array for each clip.
Taken = Callable[[Any, Mapping[str, Tensor]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class EvaluationClips(ReadingArguments, OtherTargets):
    """Which clips, and what is done with bad and with long ones."""

    skip_bad: bool = field(default=False, metadata={"help": "leave out clips that cannot be read, and list them"})
    max_length_seconds: float | None = field(
        default=None, metadata={"help": "cut longer clips at the end (AudioFormer only)"}
    )
    window_overlap: float = field(
        default=0.5,
        metadata={
            "help": "clips longer than an AST or another model of Transformers reads at once (30 s if it says nothing) "
            "are classified in windows that share this much, in [0, 1)"
        },
    )
    ignore_padding: bool = field(
        default=False, metadata={"help": "leave out the padding of shorter clips, for an AST trained so"}
    )

    trials: str | None = field(
        default=None,
        metadata={
            "help": "for a model of vectors: a .csv with the columns first and second, the pairs of clips to compare; "
            "all pairs by default"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_overlap(self.window_overlap)


@dataclass(frozen=True)
class EvaluateArguments:
    """All settings of the recipe."""

    model: str | list[str] = field(
        metadata={
            "help": "folder or Hub id of a classifier: an AudioFormer, AST, Wav2Vec2, ...; of a list of them, [A, B], "
            "the mean of the probabilities is measured"
        }
    )
    data: EvaluationClips
    output_dir: str = field(metadata={"help": "where metrics, tables and figures go"})
    split: SubsetArguments = field(default_factory=SubsetArguments)
    batch_size: int = field(default=16, metadata={"help": "clips classified together; changes nothing but speed"})
    resamples: int = field(default=1000, metadata={"help": "bootstrap draws for confidence intervals; 0: none"})
    seed: int = field(default=0, metadata={"help": "seed of the bootstrap"})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, ...; the accelerator if there is one"})
    overwrite: bool = field(default=False, metadata={"help": "replace an earlier evaluation in output_dir"})

    def __post_init__(self) -> None:
        for name, lowest in (("batch_size", 1), ("resamples", 0), ("seed", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {lowest}")


def main(argv: list[str]) -> None:
    """Runs the recipe from a config file and command-line options."""
    run(parse_config(EvaluateArguments, argv, description=__doc__ or ""))


def run(arguments: EvaluateArguments) -> dict[str, Any]:
    """Classifies the clips; returns and prints what it leaves as `metrics.json` in `output_dir`.

    Beside it lie `per_class.csv`, `predictions.csv`, `precision_recall.png`, and `confusion.png` for single labels or
    `average_precision.png` for several.

    Raises:
        FileExistsError: `output_dir` holds an earlier evaluation and `overwrite` is not set.
        ValueError: The model is no classifier, the clips have labels it does not know, or a clip cannot be read.
    """
    check_launch(1)
    folder = Path(arguments.output_dir)
    if (folder / METRICS_FILE).exists() and not arguments.overwrite:
        raise FileExistsError(
            f"{folder} holds an earlier evaluation. Replace it with --overwrite true, or name another."
        )
    sources = [arguments.model] if isinstance(arguments.model, str) else arguments.model
    task, scored, clips = measured_clips(sources, arguments)
    left_out = set(clips.ids).difference(scored.ids)
    write_tables(folder, scored, task)
    with interruption_says(lambda: f"interrupted; all predictions are in {folder}, but no metrics with intervals"):
        measured = measure(scored, resamples=arguments.resamples, seed=arguments.seed, task=task)
    report = {
        "model": arguments.model,
        "source": arguments.data.source,
        **measured,
        "clips_skipped": [clip_id for clip_id in clips.ids if clip_id in left_out],
        "settings": asdict(arguments),
    }
    title = Path(sources[0]).name if len(sources) == 1 else f"{len(sources)} models together"
    about = f"{title} on {Path(arguments.data.source).name}, {len(scored.ids)} clips"
    write_report(folder, report, scored, about, task)
    print(f"{summary(report, task)}\nMetrics, tables and figures are in {folder}")
    return report


def measured_clips(sources: Sequence[str], arguments: EvaluateArguments) -> tuple[Task, ScoredClips, ClipTable]:
    """What the models do with clips, what they gave for each that could be read, and all clips.

    Raises:
        FileNotFoundError, NotADirectoryError: A model or the clips do not exist.
        ValueError: Several models that give something else than classes, clips without what they are compared with, or
            as `score`.
    """
    if not sources:
        raise ValueError("model is an empty list; name at least one")
    configs = [read_config(source, "model") for source in sources]
    outputs = {output_of(config) for config in configs}
    data, names = arguments.data, [configs[0].id2label[index] for index in range(configs[0].num_labels)]
    if len(sources) > 1 and outputs != {"classes"}:
        raise ValueError(f"model names {len(sources)} models, and only probabilities of classes have a mean; name one")
    (output,) = outputs
    _check_data(data, output, names, sources[0])
    _check_kinds(data, {config.model_type for config in configs})
    if output in ("numbers", "curves"):
        data = replace(data, target_columns=names)
    if output in ("moments", "curves"):
        clips = subset(read(data, label_names=names), arguments.split)
        return *_along_time(clips, sources[0], arguments), clips
    if output == "vectors":
        clips = subset(read(data), arguments.split)
        return *_verified(clips, sources[0], arguments), clips
    clips = subset(read(data), arguments.split)
    scored = ensemble(clips, sources, [score(clips, source, arguments) for source in sources])
    return Regression() if output == "numbers" else CLASSIFICATION, scored, clips


def _check_data(data: EvaluationClips, output: Output, names: Sequence[str], source: str) -> None:
    """Raises a ValueError for a setting that the model has no use for."""
    for name, value, only in (
        ("target_columns", data.target_columns, ("numbers", "curves")),
        ("events", data.events, ("moments",)),
        ("curves", data.curves, ("curves",)),
        ("trials", data.trials, ("vectors",)),
    ):
        if value and output not in only:
            raise ValueError(f"data.{name} is {value}, and model {source} gives {DESCRIBED[output]}; leave it out")
    if output == "curves" and data.curves is None:
        raise ValueError(f"model {source} gives {DESCRIBED[output]}; name a table of the true ones by data.curves")
    if data.target_columns and sorted(data.target_columns) != sorted(names):
        raise ValueError(f"data.target_columns is {data.target_columns}, and model {source} predicts {list(names)}")


def _check_kinds(data: EvaluationClips, kinds: set[str]) -> None:
    """Raises a ValueError for a setting that none of the models, of these types, has a use for."""
    for name, of, described in (
        ("max_length_seconds", AudioFormerConfig, "an AudioFormer"),
        ("ignore_padding", ASTConfig, "an AST"),
    ):
        value = getattr(data, name)
        if value != getattr(EvaluationClips, name) and of.model_type not in kinds:
            raise ValueError(f"data.{name} is {value}, which is for {described}, and model is none; leave it out")
    if data.window_overlap != EvaluationClips.window_overlap and kinds == {AudioFormerConfig.model_type}:
        raise ValueError(
            f"data.window_overlap is {data.window_overlap}, and an AudioFormer hears clips as a whole; leave it out"
        )


def _along_time(clips: ClipTable, source: str, arguments: EvaluateArguments) -> tuple[Task, ScoredClips]:
    """Classes or numbers of every moment of the clips, whose labels are in the model's order."""
    model, extractor = load_classifier(source, choose_device(arguments.device), ("moments", "curves"))
    grid = MomentGrid.of(model.config, extractor)
    task: MomentTask = CurveRegression(clips, grid) if clips.has_curves else EventDetection(clips, grid)
    found = classify(clips, model, extractor, arguments, lambda outputs, batch: grid.of_sound(outputs.logits, batch))
    indices = sorted(found)
    ids = [clips.ids[index] for index in indices]
    for index, name in zip(indices, ids, strict=True):
        grid.check_times(task.truths[name], len(found[index]) * grid.seconds, name)
    return task, task.compared(ids, [found[index] for index in indices], clips.label_names)


def _verified(clips: ClipTable, source: str, arguments: EvaluateArguments) -> tuple[Task, ScoredClips]:
    """Vectors of the clips, whose labels need not be those that the model was trained on."""
    if clips.multi_label:
        raise ValueError(f"{arguments.data.source}: the clips have several labels each; vectors are compared by one")
    file = arguments.data.trials
    trials = None if file is None else trials_of(read_rows(Path(file)), clips.ids, file)
    model, extractor = load_classifier(source, choose_device(arguments.device), ("vectors",))
    found = classify(clips, model, extractor, arguments, _embeddings_of)
    indices = sorted(found)
    task = Verification()
    if trials is not None:
        heard = trials[np.isin(trials, indices).all(axis=1)]  # without those of clips that could not be read
        task = Verification(lambda ids: np.searchsorted(indices, heard))
    vectors = np.stack([found[index] for index in indices])
    ids = [clips.ids[index] for index in indices]
    return task, ScoredClips(ids, vectors, clips.targets(indices), clips.label_names)


@dataclass(frozen=True)
class ModelScores:
    """What one model says: logits, float32 (classes,), of each clip that could be read, by its index."""

    names: list[str]
    problem_type: str | None
    logits: dict[int, np.ndarray]


def score(clips: ClipTable, source: str, arguments: EvaluateArguments) -> ModelScores:
    """Classifies the clips by one model.

    Raises:
        ValueError: The model is no classifier, or a clip cannot be read.
    """
    model, extractor = load_classifier(source, choose_device(arguments.device), ("classes", "numbers"))
    config: Any = model.config
    names = [config.id2label[index] for index in range(config.num_labels)]
    targets_of_model(clips, names, config.problem_type)  # raises before anything is classified
    return ModelScores(names, config.problem_type, classify(clips, model, extractor, arguments))


def ensemble(clips: ClipTable, sources: Sequence[str], models: Sequence[ModelScores]) -> ScoredClips:
    """The clips that all models could read, with the logits of one or, of several, of their mean probabilities.

    Raises:
        ValueError: They do not know the same classes, or some give one label and others several.
    """
    names = models[0].names
    found = sorted(set.intersection(*(set(model.logits) for model in models)))
    targets = [targets_of_model(clips, names, model.problem_type)[found] for model in models]
    logits = []
    for source, model, labels in zip(sources, models, targets, strict=True):
        if sorted(model.names) != sorted(names) or labels.ndim != targets[0].ndim:
            raise ValueError(
                f"model {source} cannot be put together with {sources[0]}: both must have the same classes, and one "
                f"label per clip or several; found {model.names[:5]} ({model.problem_type}) and {names[:5]} "
                f"({models[0].problem_type})"
            )
        order = [model.names.index(name) for name in names]
        logits.append(np.stack([model.logits[index][order] for index in found]))
    together = logits[0] if len(logits) == 1 else _of_mean_probabilities(logits, multi_label=targets[0].ndim == 2)
    return ScoredClips(ids=[clips.ids[index] for index in found], logits=together, labels=targets[0], names=names)


def _of_mean_probabilities(logits: Sequence[np.ndarray], *, multi_label: bool) -> np.ndarray:
    """Logits (clips, classes) that have the mean of the models' probabilities, as AST's ensembles on AudioSet do."""

    def log_of_mean(sign: int) -> np.ndarray:
        probabilities = [class_probabilities(sign * of_model, multi_label=multi_label) for of_model in logits]
        return np.log(np.maximum(np.mean(probabilities, axis=0), np.finfo(np.float64).tiny))

    return log_of_mean(1) - log_of_mean(-1) if multi_label else log_of_mean(1)


def targets_of_model(clips: ClipTable, names: Sequence[str], problem_type: str | None) -> np.ndarray:
    """The clips' labels in the order of a model's outputs, `names`: int64 (clips,), or multi-hot (clips, classes)
    where the model or, if it does not say, the clips may have several labels; numbers as float32 (clips, numbers).

    Raises:
        ValueError: A label that the model does not know, or several labels for a model of single ones.
    """
    found = clips.targets()
    if clips.target_columns:
        return found[:, [clips.label_names.index(name) for name in names]]
    occurring = np.flatnonzero(found.any(0)) if clips.multi_label else np.unique(found)
    unknown = [clips.label_names[index] for index in occurring if clips.label_names[index] not in names]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of the clips' {len(occurring)} labels are unknown to the model, first {unknown[:5]}; it "
            f"knows {list(names[:10])}. The names must be the same; their order does not matter"
        )
    if clips.multi_label and problem_type == "single_label_classification":
        raise ValueError("the clips have several labels each, and the model was trained to give one")
    index_of = np.array([names.index(name) if name in names else -1 for name in clips.label_names])
    if not clips.multi_label and problem_type != "multi_label_classification":
        return index_of[found]
    targets = np.zeros((len(clips), len(names)), dtype=np.int64)
    rows, classes = np.nonzero(found) if clips.multi_label else (np.arange(len(clips)), found)
    targets[rows, index_of[classes]] = 1
    return targets


def _logits_of(outputs: Any, batch: Mapping[str, Tensor]) -> Sequence[np.ndarray]:
    return outputs.logits.float().cpu().numpy()


def _embeddings_of(outputs: Any, batch: Mapping[str, Tensor]) -> Sequence[np.ndarray]:
    return outputs.embeddings.float().cpu().numpy()


@torch.inference_mode()
def classify(
    clips: ClipTable, model: PreTrainedModel, extractor: Any, arguments: EvaluateArguments, taken: Taken = _logits_of
) -> dict[int, np.ndarray]:
    """Logits, float32 (classes,), of each clip that can be read, by its index; or what is `taken` of the outputs."""
    if isinstance(model, ASTForAudioClassification):
        return _classify_windows(clips, model, extractor, arguments)
    if isinstance(extractor, AudioFormerFeatureExtractor):
        batches = _code_batches(clips, model, extractor, arguments)
        return _logits(batches, model, len(clips), taken)
    return _classify_features(clips, model, extractor, arguments, taken)


def _logits(
    batches: Iterable[Batch], model: PreTrainedModel, total: int, taken: Taken = _logits_of
) -> dict[int, np.ndarray]:
    logits: dict[int, np.ndarray] = {}
    with tqdm(total=total, desc="classify", unit="clip", dynamic_ncols=True) as bar:
        for indices, batch in batches:
            outputs = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
            logits |= zip(indices, taken(outputs, batch), strict=True)
            bar.update(len(indices))
    return logits


def _classify_windows(
    clips: ClipTable,
    model: ASTForAudioClassification,
    extractor: ASTLogMelFeatureExtractor,
    arguments: EvaluateArguments,
) -> dict[int, np.ndarray]:
    """As `classify`, by an AST: the mean of the logits of a clip's windows."""
    extractor.max_length = model.config.max_length
    waveforms = WaveformCache(clips, range(len(clips)), extractor.sampling_rate, skip_bad=arguments.data.skip_bad)
    found = [index for index in range(len(clips)) if index in waveforms]
    sound = SpectrogramDataset(clips, found, extractor, waveforms=waveforms)
    windows = WindowedDataset(sound, arguments.data.window_overlap, longest_step(model.config))
    collate = SpectrogramCollator(model.config, windows.padding_value, arguments.data.ignore_padding)
    keep_tokens(model)
    make_lean(model)
    batches = (
        (chunk, collate([windows[window] for window in chunk]))
        for chunk in _chunks(range(len(windows)), arguments.batch_size)
    )
    of_windows = _logits(batches, model, len(windows))
    logits = mean_scores(np.stack([of_windows[window] for window in range(len(windows))]), windows.clip_of_window)
    return dict(zip(found, logits, strict=True))


def _code_batches(
    clips: ClipTable, model: PreTrainedModel, extractor: AudioFormerFeatureExtractor, arguments: EvaluateArguments
) -> Iterator[Batch]:
    """The codes of the clips, long clips together; padding changes nothing."""
    if arguments.data.max_length_seconds is not None:
        extractor.max_length_seconds = arguments.data.max_length_seconds
    versions = codes_of_clips(clips, extractor, skip_bad=arguments.data.skip_bad, device=model.device)
    codes = {index: of_clip[0].input_ids for index, of_clip in versions.items()}
    collate = CodeCollator(extractor.special_token_id("pad"))
    by_length = sorted(codes, key=lambda index: -len(codes[index]))
    return (
        (indices, collate([{"input_ids": codes[index]} for index in indices]))
        for indices in _chunks(by_length, arguments.batch_size)
    )


def _classify_features(
    clips: ClipTable, model: PreTrainedModel, extractor: Any, arguments: EvaluateArguments, taken: Taken
) -> dict[int, np.ndarray]:
    """As `classify`, by a model that reads what its extractor makes of waveforms: the mean of the logits of a clip's
    windows. An AudioFormer hears clips as a whole, and so does a model of which something else than logits is taken."""
    front_end = FrontEnd(model, extractor, overlap=arguments.data.window_overlap)
    in_windows = taken is _logits_of and not isinstance(extractor, AudioFormerSignalFeatureExtractor)
    of_windows: dict[int, list[np.ndarray]] = {}
    failures: dict[str, str] = {}
    with tqdm(total=len(clips), desc="classify", unit="clip", dynamic_ncols=True) as bar:
        for chunk in _chunks(range(len(clips)), arguments.batch_size):
            batches: dict[int, list[FeatureBatch]] = {}
            for index in chunk:
                try:
                    batches[index] = _features(clips, index, front_end, in_windows=in_windows)
                except (ValueError, OSError) as error:
                    reason = str(error) if clips.ids[index] in str(error) else f"{clips.ids[index]}: {error}"
                    if not arguments.data.skip_bad:
                        raise ValueError(f"{reason} (--data.skip_bad true leaves such clips out)") from error
                    logger.warning("left out: %s", reason)
                    failures[clips.ids[index]] = reason
                    check_bad_share(failures, len(clips))
            for indices, batch in _of_one_shape(batches, arguments.batch_size):
                for index, scores in zip(indices, taken(model(**batch), batch), strict=True):
                    of_windows.setdefault(index, []).append(scores)
            bar.update(len(chunk))
    return {index: scores[0] if len(scores) == 1 else np.mean(scores, axis=0) for index, scores in of_windows.items()}


def _features(clips: ClipTable, index: int, front_end: FrontEnd, *, in_windows: bool) -> list[FeatureBatch]:
    """What the model reads of a clip, in batches of windows of one shape.

    Raises:
        ValueError, OSError: The clip cannot be read, or is too short for the model.
    """
    waveform = front_end.waveform(clips.load(index))
    windows = front_end.windows(len(waveform))
    return [batch for _, batch in front_end.batches([waveform[each] for each in windows] if in_windows else [waveform])]


def _of_one_shape(batches: Mapping[int, list[FeatureBatch]], size: int) -> Iterator[Batch]:
    """The windows of several clips in batches of one shape and at most `size`, with the clip of each: not every model
    leaves padding out."""
    shapes: dict[tuple, list[tuple[int, FeatureBatch]]] = {}
    for index, of_clip in batches.items():
        for batch in of_clip:
            shapes.setdefault(tuple(tensor.shape[1:] for tensor in batch.values()), []).append((index, batch))
    for group in shapes.values():
        clip_of_window = [index for index, batch in group for _ in next(iter(batch.values()))]
        together = {name: torch.cat([batch[name] for _, batch in group]) for name in group[0][1]}
        for chosen in _chunks(range(len(clip_of_window)), size):
            yield [clip_of_window[place] for place in chosen], {name: rows[chosen] for name, rows in together.items()}


def _chunks(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    return (list(indices[start : start + size]) for start in range(0, len(indices), size))
