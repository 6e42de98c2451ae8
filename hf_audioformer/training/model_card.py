"""The README.md of a trained checkpoint: what was measured, how it was made and how to use it, and nothing else."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .masked_measures import format_measures
from .results import SplitResult

__all__ = ["AST", "AUDIOFORMER", "Kind", "write_model_card", "write_pretraining_card"]

BUNDLED_CODEC = "the small codec of hf_audioformer, which is under CC BY-SA 4.0 (card `audioformer-codec-small.md`)"
PACKAGES = ("hf_audioformer", "transformers", "torch", "torchaudio", "accelerate", "datasets")


@dataclass(frozen=True)
class Kind:
    """What the cards of one kind of classifier say: its name and its tag on the Hub, what it is, what its folder holds,
    and how a clip is classified."""

    name: str
    tag: str
    description: str
    holds: str
    use: str


AUDIOFORMER = Kind(
    name="AudioFormer",
    tag="audioformer",
    description="[AudioFormer](https://arxiv.org/abs/2308.07221) (a rotary-position encoder over the codes of a neural "
    "audio codec)",
    holds="the model, its feature extractor and the codec; it works without a network",
    use="""import hf_audioformer
from transformers import pipeline

classifier = pipeline("audio-classification", model="PATH_OR_ID_OF_THIS_CHECKPOINT")
classifier(hf_audioformer.load_audio("clip.wav"))""",
)
AST = Kind(
    name="Audio Spectrogram Transformer",
    tag="audio-spectrogram-transformer",
    description="[Audio Spectrogram Transformer](https://arxiv.org/abs/2104.01778) (AST)",
    holds="the model and its feature extractor; it needs no package but Transformers",
    use="""import soundfile
from transformers import pipeline

classifier = pipeline("audio-classification", model="PATH_OR_ID_OF_THIS_CHECKPOINT")
waveform, sampling_rate = soundfile.read("clip.wav", dtype="float32")
classifier({"raw": waveform, "sampling_rate": sampling_rate})""",
)

BODY = """
# {kind} trained on {source}

An {description}
trained from {base} to tell apart {num_labels} classes: {labels}.
The folder holds {holds}.{details}

## Use

```python
{use}
```

## Results

Test clips were used once, after training; the epoch was chosen {choice}.{official}

| metric | value |
| --- | --- |
{metrics}

Chance is {chance:.3f} ({metric}). Clips: {clips}. Training took {seconds:.0f} s.

### Training

| epoch | training loss | validation {metric} |
| --- | --- | --- |
{history}

## Recipe

```yaml
{recipe}```

{licence}## Limits

Measured on the test clips of {source} alone. Other microphones, rooms, speakers or sources of sound
than those trained on were not tested. Scores are not calibrated probabilities.

## Environment

{environment}
"""


PRETRAINING_BODY = """
# AudioFormer pretrained on {source}

An [AudioFormer](https://arxiv.org/abs/2308.07221) (a rotary-position encoder over the codes of a neural audio codec)
pretrained by predicting masked codes, without labels.
It reads the codes of {codec}.
The folder holds the model, its feature extractor and the codec; it works without a network.

## Use

```python
import hf_audioformer
from transformers import AutoFeatureExtractor, AutoModel

checkpoint = "PATH_OR_ID_OF_THIS_CHECKPOINT"
extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
model = AutoModel.from_pretrained(checkpoint)
clip = hf_audioformer.load_audio("clip.wav")
features = extractor(clip["array"], sampling_rate=clip["sampling_rate"], return_tensors="pt")
frames = model(**features).last_hidden_state
```

A classifier on top of it:
`hf-audioformer finetune --model.checkpoint PATH_OR_ID_OF_THIS_CHECKPOINT --data.source CLIPS --output_dir FOLDER`.

## Results

On {validation_clips} clips drawn from the sources and not learnt from ({training_clips} were); always the same codes
were masked. *Unigram* is guessing by the frequency of each code among the clips learnt from.

{measures}

### Training

| epoch | training loss |
| --- | --- |
{history}

## Recipe

```yaml
{recipe}```

## Limits

It has heard the sources above alone, and whatever it is tested on must not be among them: `hold_out` in the recipe says
what was left out. How useful its vectors are was not measured here.

## Environment

{environment}
"""

# For what starts from the bundled checkpoint; of other checkpoints and their codecs the licence is not known here.
BUNDLED_LICENCE = """## Licence

CC BY-SA 4.0: the weights started from, and the codec in `codec/`, are the small ones of hf_audioformer, trained on
ESC-10 (K. J. Piczak; CC0 and CC BY 3.0) and the Free Spoken Digit Dataset (Z. Jackson and contributors; CC BY-SA 4.0).
The cards `audioformer-small.md` and `audioformer-codec-small.md` of the package name all authors.

"""


def write_model_card(
    folder: Path,
    *,
    result: SplitResult,
    recipe: Mapping[str, Any],
    source: str,
    label_names: Sequence[str],
    base_model: str | None,
    random_weights: bool,
    history: Sequence[Mapping[str, Any]],
    kind: Kind = AUDIOFORMER,
    details: Sequence[str] = (),
) -> None:
    """Writes `README.md` into a checkpoint's folder.

    Args:
        result: What was measured on the test clips.
        recipe: The resolved settings; of local paths only the last part is told.
        source: The data set, as the recipe names it.
        label_names: The classes, in order.
        base_model: Hub id or folder of the checkpoint the training started from; if not given, of an AudioFormer the
            bundled one, of an AST none.
        random_weights: Whether its weights were not taken.
        history: The Trainer's log.
        kind: What was trained.
        details: Sentences on what is particular to this model.
    """
    name = _public(source)
    is_bundled = kind is AUDIOFORMER and base_model is None
    is_hub_base = base_model is not None and not Path(base_model).exists()
    data = ModelCardData(
        license="cc-by-sa-4.0" if is_bundled else None,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=[kind.tag, "audio-classification", "hf_audioformer"],
        base_model=base_model if is_hub_base and not random_weights else None,
        datasets=[source] if "/" in source and not Path(source).exists() else None,
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
    text = BODY.format(
        kind=kind.name,
        description=kind.description,
        holds=kind.holds,
        use=kind.use,
        details="".join(f"\n{sentence}" for sentence in details),
        source=name,
        base=_base(base_model, kind, random_weights=random_weights),
        num_labels=len(label_names),
        labels=", ".join(label_names),
        choice="on validation clips" if result.num_clips["validation"] else "beforehand (the last one)",
        official=_official_note(result),
        metrics="\n".join(f"| {metric} | {value:.4f} |" for metric, value in result.metrics.items()),
        chance=result.chance,
        metric=result.metric,
        clips=", ".join(f"{count} {part}" for part, count in result.num_clips.items()),
        seconds=result.seconds,
        history=_history_rows(history),
        licence=BUNDLED_LICENCE if is_bundled else "",
        recipe=_recipe_yaml(recipe),
        environment=_environment(),
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n{text}").save(folder / "README.md")


def _base(base_model: str | None, kind: Kind, *, random_weights: bool) -> str:
    """What the training started from, in words."""
    if kind is AST and random_weights:
        return "random weights"
    base = "the small checkpoint of the package hf_audioformer" if base_model is None else f"`{_public(base_model)}`"
    return f"random weights in the form of {base}" if random_weights else base


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
    """Writes `README.md` into the folder of a model pretrained by masking.

    Args:
        measures: `codebooks`, as `format_measures` takes them, and how many `training_clips` and `validation_clips`.
        recipe: The resolved settings; of local paths only the last part is told.
        sources: What it learnt from, as the recipe names it.
        codec: Hub id or folder of the codec; the bundled one if not given.
        history: The Trainer's log.
    """
    source = ", ".join(map(_public, sources))
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["audioformer", "hf_audioformer", "masked-language-modeling"],
        datasets=[name for name in sources if "/" in name and not Path(name).exists()] or None,
        model_name=f"AudioFormer pretrained on {source}",
    )
    text = PRETRAINING_BODY.format(
        source=source,
        codec=BUNDLED_CODEC if codec is None else f"the codec `{_public(codec)}`",
        training_clips=measures["training_clips"],
        validation_clips=measures["validation_clips"],
        measures=format_measures(measures["codebooks"]),
        history="\n".join(f"| {entry['epoch']:g} | {entry['loss']:.4f} |" for entry in history if "loss" in entry),
        recipe=_recipe_yaml(recipe),
        environment=_environment(),
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n{text}").save(folder / "README.md")


def _recipe_yaml(recipe: Mapping[str, Any]) -> str:
    return yaml.safe_dump(_public(recipe), sort_keys=False, allow_unicode=True)


def _environment() -> str:
    packages = [f"* {package} {version(package)}" for package in PACKAGES]
    return "\n".join([*packages, f"* Python {platform.python_version()}"])


def _history_rows(history: Sequence[Mapping[str, Any]]) -> str:
    """A row per epoch that was logged, with the validation score where there was one."""
    rows: dict[float, dict[str, float]] = {}
    for entry in history:
        row = rows.setdefault(round(entry.get("epoch", 0), 2), {})
        row |= {key: entry[key] for key in ("loss", "eval_score") if key in entry}
    return "\n".join(
        f"| {epoch:g} | {_or_dash(row.get('loss'))} | {_or_dash(row.get('eval_score'))} |"
        for epoch, row in rows.items()
        if row
    )


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _public(value: Any) -> Any:
    """The value with every path of this machine cut down to its last part."""
    if isinstance(value, str) and (Path(value).is_absolute() or Path(value).exists()):
        return Path(value).resolve().name
    if isinstance(value, Mapping):
        return {name: _public(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(item) for item in value]
    return value
