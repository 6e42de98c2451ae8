"""The README.md of a trained checkpoint: what was measured, how it was made and how to use it, and nothing else.

The texts are the templates in `cards/`; what varies from model to model is filled in here.
"""

import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..assets import ASTS, ast_folder
from ..codes.store import is_code_store, read_manifest
from ..inspection.learning_curve import learning_curve_figure
from .hub import ID_OF_THIS_CHECKPOINT
from .masked_measures import format_measures
from .results import SplitResult
from .tasks import CLASSIFICATION, ScoredClips, Task

__all__ = [
    "AST",
    "AUDIOFORMER",
    "Kind",
    "Measured",
    "size_of",
    "tell_of_all_splits",
    "write_generation_card",
    "write_model_card",
    "write_pretraining_card",
]

# What the card of a model that generates says of it, without an encoder and with one.
GENERATES_ALONE = {
    "parts": "A causal language model of codes of a neural audio codec",
    "auto_class": "AutoModelForCausalLM",
    "generation": (
        'known = heard["input_ids"][0, 1:-1].reshape(1, -1, extractor.num_codebooks)  # without BOA and EOA\n'
        "codes = model.generate_codes(torch.tensor([known.shape[1] + 75]), known)[0]  # 75 frames more"
    ),
}
GENERATES_FROM_HEARD = {
    "parts": "An encoder of codes of a neural audio codec and a decoder that generates codes",
    "auto_class": "AutoModelForSeq2SeqLM",
    "generation": "codes = model.generate_codes(torch.tensor([75]), **heard)[0]  # (75 frames, codebooks)",
}

CURVE_FILE = "learning_curve.png"
PACKAGES = ("hf_audioformer", "transformers", "torch", "torchaudio", "accelerate", "datasets")
# The draws of a bootstrap.
RESAMPLES = 200
CLASSES_SHOWN = 60
# Measures of a class of which less is better.
ERRORS = ("eer", "mse")
FEW_CLIPS = 10
# Beyond this line a paragraph on the other splits may stand, once they are done.
ALL_SPLITS = "<!-- all splits -->"

BUNDLED_LICENCE = """CC BY-SA 4.0: {what} hf_audioformer, trained on ESC-10 (K. J. Piczak; CC0 and CC BY 3.0) and the
Free Spoken Digit Dataset (Z. Jackson and contributors; CC BY-SA 4.0). The cards `audioformer-small.md` and
`audioformer-codec-small.md` of the package name all authors."""
BUNDLED_CODEC = (
    "the small codec of hf_audioformer, which is under CC BY-SA 4.0 (card `audioformer-codec-small.md` of the package)"
)
OWN_LICENCE = "No licence was given to the weights; what the licences of the above ask for holds for them."

ESC10 = (
    "[ESC-10](https://github.com/karolpiczak/ESC-50) (K. J. Piczak, ESC: Dataset for Environmental Sound "
    "Classification, ACM MM 2015), recordings from Freesound under CC0 and CC BY 3.0"
)
KNOWN_DATA = {
    "commands": "the synthetic spoken commands of hf_audioformer (CC0; card `spoken-commands.md` of the package)",
    "esc10": ESC10,
    "esc10_mix": f"mixtures of clips of {ESC10}",
    "fsdd": "the [Free Spoken Digit Dataset](https://github.com/Jakobovski/free-spoken-digit-dataset) (Z. Jackson and "
    "contributors), under CC BY-SA 4.0",
    "spoken_digits": "digits spoken by the synthesiser espeak-ng, made by hf_audioformer (none is a recording; no "
    "licence restricts them)",
    "synthetic": "the synthetic sounds of hf_audioformer (noise, tones and clicks made by a program; no licence "
    "restricts them)",
}
ESC10_CLIPS = (
    "ESC-10 as published holds ten kinds of sound, forty clips of each in five folds, chosen by hand (how many of "
    "them were here stands above)"
)
SYNTHETIC_VOICES = "All voices it has heard are those of one speech synthesiser; no human being is among them."
KNOWN_LIMITS = {
    "commands": SYNTHETIC_VOICES,
    "esc10": f"{ESC10_CLIPS}.",
    "esc10_mix": f"{ESC10_CLIPS}; the mixtures are artificial.",
    "fsdd": "The set holds English digits by a handful of speakers.",
    "spoken_digits": SYNTHETIC_VOICES,
    "synthetic": "Its labels are of sounds made by a program: of use to start another training from, and little else.",
}
BUNDLED_HEARD_OF = ("commands", "esc10", "esc10_mix", "fsdd")
BUNDLED_HEARD = """
{what} had heard some clips of such sets before, without labels: folds 1, 2 and 4 of ESC-10, the
speakers george, jackson, lucas and theo of FSDD, and the spoken commands. Tests on those are not on wholly new
clips."""
PAPER = """
The paper of AudioFormer reports 53.9 mAP on AudioSet for its method. That figure was not reproduced with this package,
and says nothing about this model."""

CITE_PACKAGE = """@software{hf_audioformer,
  title = {hf_audioformer},
  author = {{The hf_audioformer contributors}}
}"""
CITE_AUDIOFORMER = """@article{li2023audioformer,
  title = {AudioFormer: Audio Transformer learns audio feature representations from discrete acoustic codes},
  author = {Li, Zhaohui and Wang, Haitao and Jiang, Xinghua},
  journal = {arXiv preprint arXiv:2308.07221},
  year = {2023}
}"""
CITE_AST = """@inproceedings{gong21b_interspeech,
  title = {{AST: Audio Spectrogram Transformer}},
  author = {Yuan Gong and Yu-An Chung and James Glass},
  booktitle = {Proc. Interspeech 2021},
  pages = {571--575},
  year = {2021}
}"""


@dataclass(frozen=True)
class Kind:
    """What the cards of one kind of classifier say: its name and its tag on the Hub, what it is, what its folder holds,
    how a clip is classified, which paper is cited, and a note on its figures."""

    name: str
    tag: str
    description: str
    holds: str
    use: str
    citation: str
    note: str = ""


AUDIOFORMER = Kind(
    name="AudioFormer",
    tag="audioformer",
    description="[AudioFormer](https://arxiv.org/abs/2308.07221) (a rotary-position encoder over the codes of a neural "
    "audio codec)",
    holds="the model, its feature extractor and the codec; it works without a network",
    use=f"""import hf_audioformer
from transformers import pipeline

classifier = pipeline("audio-classification", model="{ID_OF_THIS_CHECKPOINT}")
classifier(hf_audioformer.load_audio("clip.wav"))""",
    citation=CITE_AUDIOFORMER,
    note=PAPER,
)
AUDIOFORMER_OF_SIGNALS = replace(
    AUDIOFORMER,
    description="AudioFormer encoder on continuous features in place of the codes of its "
    "[paper](https://arxiv.org/abs/2308.07221)",
    holds="the model and its feature extractor; it works without a network",
)
AST = Kind(
    name="Audio Spectrogram Transformer",
    tag="audio-spectrogram-transformer",
    description="[Audio Spectrogram Transformer](https://arxiv.org/abs/2104.01778) (AST)",
    holds="the model and its feature extractor; it needs no package but Transformers",
    use=f"""import soundfile
from transformers import pipeline

classifier = pipeline("audio-classification", model="{ID_OF_THIS_CHECKPOINT}")
waveform, sampling_rate = soundfile.read("clip.wav", dtype="float32", always_2d=True)
classifier({{"raw": waveform.mean(1), "sampling_rate": sampling_rate}})""",
    citation=CITE_AST,
)


@dataclass(frozen=True)
class Measured:
    """What was measured: the result on the test clips, what it comes from, the Trainer's log, and what was learnt."""

    result: SplitResult
    scored: ScoredClips
    history: Sequence[Mapping[str, Any]]
    task: Task = CLASSIFICATION


def write_model_card(
    folder: Path,
    *,
    measured: Measured,
    recipe: Mapping[str, Any],
    source: str,
    label_names: Sequence[str],
    base_model: str | None,
    random_weights: bool,
    kind: Kind = AUDIOFORMER,
    codec: str | None = None,
    also: str | None = None,
    details: Sequence[str] = (),
) -> None:
    """Writes `README.md` into a checkpoint's folder, with the picture it shows, and for a data set of the Hub its
    evaluation results as the Hub takes them.

    Args:
        measured: What was measured on the test clips, and the log.
        recipe: The resolved settings; of local paths only the last part is told.
        source: The data set, as the recipe names it.
        label_names: The classes, in order.
        base_model: Hub id or folder of the checkpoint the training started from; if not given, of an AudioFormer the
            bundled one, of an AST none.
        random_weights: Whether its weights were not taken.
        kind: What was trained.
        codec: Hub id or folder that the codec was taken from; not given for the bundled one, and of an AST.
        also: A second data set, if it learnt from that as well.
        details: Sentences on what is particular to this model.
    """
    store, source = source, source_of_sound(source)
    sources = [source, *([also] if also is not None else [])]
    result, name, task = measured.result, without_paths(source), measured.task
    is_bundled = kind is AUDIOFORMER and base_model is None
    is_hub_base = base_model is not None and not Path(base_model).exists()
    data = ModelCardData(
        license="cc-by-sa-4.0" if is_bundled else None,
        library_name="transformers",
        pipeline_tag=task.pipeline,
        tags=[kind.tag, *([task.pipeline] if task.pipeline else []), "hf_audioformer"],
        base_model=base_model if is_hub_base and not random_weights else None,
        datasets=[found for found in sources if is_of_hub(found)] or None,
        model_name=f"{kind.name} trained on {name}",
        eval_results=[
            EvalResult(
                task_type="audio-classification",
                dataset_type=name,
                dataset_name=name,
                metric_type=result.metric.replace(" ", "_"),
                metric_value=round(result.score, 4),
            )
        ],
    )
    if store != source:
        details = [*details, f"Its clips came as codes, encoded once, from the code store `{without_paths(store)}`."]
    origins = _origins(sources, None if random_weights else base_model, codec)
    rows = task.table(measured.scored)
    intervals = _intervals(measured)
    text = _template("classifier").format(
        kind=kind.name,
        description=kind.description,
        holds=kind.holds,
        use=task.use or kind.use,
        details="".join(f"\n{sentence}" for sentence in details),
        source=name,
        base=_base(base_model, kind, random_weights=random_weights),
        scores_are=task.scores_are,
        labels=", ".join(label_names),
        aim=task.aim.format(num_labels=len(label_names)),
        origins=origins,
        licence=_licence_of_bundled(random_weights=random_weights) if is_bundled else OWN_LICENCE,
        split=result.name,
        choice="on validation clips" if _is_chosen(result, recipe) else "beforehand (the last one)",
        official=_official_note(result),
        metrics="\n".join(
            f"| {metric} | {value:.4f} | {_interval(intervals, metric)} |" for metric, value in result.metrics.items()
        ),
        spread=_spread(intervals),
        metric=result.metric,
        score=result.score,
        beside=_beside(result, task),
        clips=", ".join(f"{count} {part}" for part, count in result.num_clips.items()) + _skipped(result),
        seconds=result.seconds,
        all_splits=ALL_SPLITS,
        Outputs=task.outputs.capitalize(),
        classes=_class_table(rows, task),
        selection=task.selection_is(result.metric),
        curve=_curve(folder, measured.history, task.selection_is(result.metric), f"{kind.name} trained on {name}"),
        history=_history_rows(measured.history),
        limits=_limits([source], rows, task, limit=task.limit(measured.scored))
        + _heard_before(source, is_bundled=is_bundled, origins=origins)
        + kind.note,
        recipe=_recipe_yaml(recipe),
        environment=_environment(),
        citation=f"{CITE_PACKAGE}\n\n{kind.citation}",
    )
    _save(folder, data, text)
    _write_evaluation_results(folder, source, result)


def size_of(model: torch.nn.Module) -> str:
    """A sentence on how large a network is, without a codec."""
    return f"The network has {sum(weights.numel() for weights in model.parameters()):,} parameters."


def tell_of_all_splits(folder: Path, results: Sequence[SplitResult]) -> None:
    """Adds to the card in a folder what all splits gave, in place of what an earlier run has added."""
    file = folder / "README.md"
    scores = np.array([result.score for result in results])
    floors = [result.floor for result in results if result.floor is not None]
    floor = f"; mean of the floors {np.mean(floors):.4f}" if floors else ""
    told = (
        f"{ALL_SPLITS}\nThis is one of {len(results)} models, each tested on another split ({results[0].metric}: "
        f"{', '.join(f'{result.name} {result.score:.4f}' for result in results)}): mean {scores.mean():.4f}, standard "
        f"deviation {scores.std(ddof=1):.4f}{floor}.\n"
    )
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(f"{ALL_SPLITS}\n(This is one of [^\n]*\n)?", lambda _: told, text), encoding="utf-8")


def _base(base_model: str | None, kind: Kind, *, random_weights: bool) -> str:
    """What the training started from, in words."""
    if kind is AST and random_weights:
        return "random weights"
    base = (
        "the small checkpoint of the package hf_audioformer" if base_model is None else f"`{without_paths(base_model)}`"
    )
    return f"random weights in the form of {base}" if random_weights else base


def _skipped(result: SplitResult) -> str:
    return f"; {len(result.clips_skipped)} more could not be read and were left out" if result.clips_skipped else ""


def _official_note(result: SplitResult) -> str:
    if not result.test_scores:
        return ""
    return f"""
They were also looked at after each epoch, for comparison with figures published so; the best {result.metric} on them
was {max(result.test_scores):.4f}, which is no estimate for new clips."""


def write_pretraining_card(
    folder: Path,
    *,
    measures: Mapping[str, Any],
    recipe: Mapping[str, Any],
    sources: Sequence[str],
    codec: str | None,
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Writes `README.md` into the folder of a model pretrained by masking, with the picture it shows.

    Args:
        measures: `codebooks`, as `format_measures` takes them, and how many `training_clips` and `validation_clips`.
        recipe: The resolved settings; of local paths only the last part is told.
        sources: What it learnt from, as the recipe names it.
        codec: Hub id or folder of the codec; the bundled one if not given.
        history: The Trainer's log.
    """
    sources = list(map(source_of_sound, sources))
    source = ", ".join(map(without_paths, sources))
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["audioformer", "hf_audioformer", "masked-language-modeling"],
        datasets=[name for name in sources if is_of_hub(name)] or None,
        model_name=f"AudioFormer pretrained on {source}",
    )
    text = _template("pretrained").format(
        source=source,
        origins=_origins(sources, None, codec) + (f"\n* Codec: {BUNDLED_CODEC}." if codec is None else ""),
        licence=OWN_LICENCE,
        training_clips=measures["training_clips"],
        validation_clips=measures["validation_clips"],
        measures=format_measures(measures["codebooks"]),
        curve=_curve(folder, history, "", f"AudioFormer pretrained on {source}"),
        history="\n".join(f"| {entry['epoch']:g} | {entry['loss']:.4f} |" for entry in history if "loss" in entry),
        limits=_limits(sources, []) + PAPER,
        recipe=_recipe_yaml(recipe),
        environment=_environment(),
        citation=f"{CITE_PACKAGE}\n\n{CITE_AUDIOFORMER}",
    )
    _save(folder, data, text)


def write_generation_card(
    folder: Path,
    *,
    table: str,
    clips: tuple[int, int],
    recipe: Mapping[str, Any],
    source: str,
    base_model: str | None,
    causal: bool,
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Writes `README.md` into the folder of a model that generates, with the picture it shows.

    Args:
        table: What was measured.
        clips: How many were learnt from, and measured on.
        recipe: The resolved settings; of local paths only the last part is told.
        source: What it learnt from, as the recipe names it.
        base_model: Hub id or folder of the encoder that it started from; the bundled one if not given.
        causal: It has no encoder.
        history: The Trainer's log.
    """
    source = source_of_sound(source)
    name = f"AudioFormer that generates, trained on {without_paths(source)}"
    is_bundled = base_model is None
    is_hub_base = base_model is not None and not Path(base_model).exists()
    origins = _origins([source], base_model, base_model)
    data = ModelCardData(
        license="cc-by-sa-4.0" if is_bundled else None,
        library_name="transformers",
        pipeline_tag="audio-to-audio",
        tags=["audioformer", "hf_audioformer"],
        base_model=base_model if is_hub_base else None,
        datasets=[source] if is_of_hub(source) else None,
        model_name=name,
    )
    text = _template("generation").format(
        name=name,
        **(GENERATES_ALONE if causal else GENERATES_FROM_HEARD),
        tasks=", ".join(recipe["tasks"]),
        task=recipe["tasks"][0],
        origins=origins,
        licence=_licence_of_bundled(random_weights=False) if is_bundled else OWN_LICENCE,
        training_clips=clips[0],
        validation_clips=clips[1],
        measures=table,
        curve=_curve(folder, history, "", name),
        history="\n".join(f"| {entry['epoch']:g} | {entry['loss']:.4f} |" for entry in history if "loss" in entry),
        limits=_limits([source], []) + _heard_before(source, is_bundled=is_bundled, origins=origins),
        recipe=_recipe_yaml(recipe),
        environment=_environment(),
        citation=f"{CITE_PACKAGE}\n\n{CITE_AUDIOFORMER}",
    )
    _save(folder, data, text)


def _template(name: str) -> str:
    return (Path(__file__).parent / "cards" / f"{name}.md").read_text(encoding="utf-8")


def _save(folder: Path, data: ModelCardData, text: str) -> None:
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").save(folder / "README.md")


def _write_evaluation_results(folder: Path, source: str, result: SplitResult) -> None:
    """The newer form of a model's results, for sets of the Hub, which alone it can name.

    Source: github.com/huggingface/hub-docs, eval_results.yaml.
    """
    if not is_of_hub(source):
        return
    parts = ", ".join(f"{count} {part}" for part, count in result.num_clips.items())
    entry = {
        "dataset": {"id": source, "task_id": "default"},
        "value": round(result.score, 4),
        "notes": f"{result.metric} on the test clips of {result.name} ({parts})",
    }
    file = folder / ".eval_results" / f"{source.replace('/', '_')}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump([entry], sort_keys=False), encoding="utf-8")


def is_of_hub(source: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None and not Path(source).exists()


def _origins(sources: Sequence[str], base_model: str | None, codec: str | None) -> str:
    """What is known of where the data, the weights started from and the codec come from, and under which licence."""
    lines = [f"* Data: {origin_of_data(source)}." for source in sources]
    if base_model is not None:
        lines.append(f"* Weights started from: {origin_of_checkpoint(base_model)}.")
    if codec is not None and base_model is not None and without_paths(codec) == without_paths(base_model):
        lines.append("* Codec, in `codec/`: that of these weights.")
    elif codec is not None:
        lines.append(f"* Codec, in `codec/`: {origin_of_checkpoint(codec)}.")
    return "\n".join(lines)


def _heard_before(source: str, *, is_bundled: bool, origins: str) -> str:
    """That what ships with the package has heard clips of the set already, where it is part of this model."""
    if source not in BUNDLED_HEARD_OF or not (is_bundled or BUNDLED_CODEC in origins):
        return ""
    return BUNDLED_HEARD.format(what="Codec and starting weights" if is_bundled else "The small codec")


def _licence_of_bundled(*, random_weights: bool) -> str:
    """That of what started from the bundled checkpoint, or took its form and its codec alone."""
    both = "the weights started from, and the codec in `codec/`, are the small ones of"
    return BUNDLED_LICENCE.format(what="the codec in `codec/` is the small one of" if random_weights else both)


def source_of_sound(source: str) -> str:
    """What a code store was encoded from; anything else is its own source."""
    return read_manifest(source).source if is_code_store(source) else source


def origin_of_data(source: str) -> str:
    if is_of_hub(source):
        return f"[{source}](https://huggingface.co/datasets/{source}), whose card states its licence"
    return KNOWN_DATA.get(source, f"`{without_paths(source)}`, local files whose licence is not known to the recipe")


def origin_of_checkpoint(checkpoint: str) -> str:
    """Where a model comes from, as far as its id, or the card in its folder, says so."""
    if is_of_hub(checkpoint):
        return f"[{checkpoint}](https://huggingface.co/{checkpoint}), whose card states its licence"
    if checkpoint in map(ast_folder, ASTS):
        return f"the small AST `{without_paths(checkpoint)}` of the package hf_audioformer (Apache-2.0)"
    name, told = without_paths(checkpoint), _origins_told(Path(checkpoint) / "README.md")
    if not told:
        return f"`{name}`, a local folder whose licence is not known to the recipe"
    return "\n".join([f"`{name}`, a local folder, whose own card says:", *told]).removesuffix(".")


def _origins_told(card: Path) -> list[str]:
    """The list of origins in a card that was written here, indented; none in any other."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    section = text.partition("\n## Data, codec and licence\n")[2].partition("\n## ")[0]
    return [f"  {line}" for line in section.splitlines() if line.lstrip().startswith("* ")]


def _intervals(measured: Measured) -> dict[str, tuple[float, float]]:
    """95 % intervals of the metrics; none where they would take long."""
    if sum(map(np.size, measured.scored.logits)) > measured.task.most_scores:
        return {}
    return measured.task.intervals(measured.scored, resamples=RESAMPLES)


def _is_chosen(result: SplitResult, recipe: Mapping[str, Any]) -> bool:
    """Whether validation clips chose the epoch; the user may have kept the last one all the same."""
    return bool(result.num_clips["validation"]) and recipe["training"].get("load_best_model_at_end", True)


def _interval(intervals: Mapping[str, tuple[float, float]], metric: str) -> str:
    low, high = intervals.get(metric, (math.nan, math.nan))
    return f"{low:.4f} to {high:.4f}" if math.isfinite(low) and math.isfinite(high) else "-"


def _spread(intervals: Mapping[str, tuple[float, float]]) -> str:
    if not intervals:
        return "No intervals were computed; `hf-audioformer evaluate` gives them."
    return (
        f"Intervals are of {RESAMPLES} bootstrap draws of the test clips; how much another seed of the training would "
        "change is not in them."
    )


def _beside(result: SplitResult, task: Task) -> str:
    """The rows of what the model has to beat on the same clips."""
    floor = "| floor: not computed (`floor_clips` in the recipe below) | - |\n" if task.floor_is else ""
    if result.floor is not None:
        what = f"{result.floor_is} on {result.floor_features}, trained on the source's training clips"
        floor = f"| floor: {what} | {result.floor:.4f} |\n"
    return f"{floor}| chance: {task.chance_is(result.metric)} | {result.chance:.4f} |"


def _class_table(rows: Sequence[Mapping[str, float | str]], task: Task = CLASSIFICATION) -> str:
    """A row per class or number; of many the worst ones by the first measure."""
    shown = [row for row in rows if row["clips"]]
    note = ""
    if len(shown) > CLASSES_SHOWN:
        by = next(column for column in shown[0] if column not in ("name", "clips"))
        worst = "highest" if by in ERRORS else "lowest"
        note = f"\n\nThe {CLASSES_SHOWN} {task.outputs} of {worst} {by.replace('_', ' ')}, out of {len(shown)}."
        shown = sorted(shown, key=lambda row: float(row[by]), reverse=by in ERRORS)[:CLASSES_SHOWN]
    columns = [column for column in shown[0] if column != "name"]
    lines = [
        f"| {task.output} | {' | '.join(column.replace('_', ' ') for column in columns)} |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for row in shown:
        values = [str(row[name]) if isinstance(row[name], int) else _or_dash(float(row[name])) for name in columns]
        lines.append(f"| {row['name']} | {' | '.join(values)} |")
    return "\n".join(lines) + note


def _limits(
    sources: Sequence[str],
    rows: Sequence[Mapping[str, float | str]],
    task: Task = CLASSIFICATION,
    *,
    limit: str = "",
) -> str:
    sentences = [limit] if limit else []
    sentences += [KNOWN_LIMITS[source] for source in sources if source in KNOWN_LIMITS]
    if rows:
        sentences.append(
            "Kinds of sound, voices and devices that are rare among its clips are likely to be recognised worse; the "
            f"table above {'shows it for the classes alone' if task.output == 'class' else 'does not show it'}."
        )
        few = sum(1 for row in rows if int(row["clips"]) < FEW_CLIPS)
        if few:
            sentences.append(
                f"{few} of {len(rows)} {task.outputs} have fewer than {FEW_CLIPS} test clips; their rows say little."
            )
    return "\n".join(sentences)


def _curve(folder: Path, history: Sequence[Mapping[str, Any]], metric: str, title: str) -> str:
    """The line that shows the learning curve, which it draws; none of less than two epochs."""
    rows = _history(history)
    if sum("loss" in row for row in rows.values()) < 2:
        return ""
    learning_curve_figure(rows, metric, title).savefig(folder / CURVE_FILE)
    return f"![Learning curve]({CURVE_FILE})\n\n"


def _recipe_yaml(recipe: Mapping[str, Any]) -> str:
    return yaml.safe_dump(without_paths(recipe), sort_keys=False, allow_unicode=True)


def _environment() -> str:
    packages = [f"* {package} {version(package)}" for package in PACKAGES]
    return "\n".join([*packages, f"* Python {platform.python_version()}"])


def _history(history: Sequence[Mapping[str, Any]]) -> dict[float, dict[str, float]]:
    """What was logged of loss and validation score, by epoch."""
    rows: dict[float, dict[str, float]] = {}
    for entry in history:
        row = rows.setdefault(round(entry.get("epoch", 0), 2), {})
        row |= {key: entry[key] for key in ("loss", "eval_score") if key in entry}
    return {epoch: row for epoch, row in rows.items() if row}


def _history_rows(history: Sequence[Mapping[str, Any]]) -> str:
    """A row per epoch that was logged, with the validation score where there was one."""
    return "\n".join(
        f"| {epoch:g} | {_or_dash(row.get('loss'))} | {_or_dash(row.get('eval_score'))} |"
        for epoch, row in _history(history).items()
    )


def _or_dash(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def without_paths(value: Any) -> Any:
    """The value with every path of this machine cut down to its last part."""
    if isinstance(value, str) and (Path(value).is_absolute() or Path(value).exists()):
        return Path(value).resolve().name
    if isinstance(value, Mapping):
        return {name: without_paths(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item) for item in value]
    return value
