"""The README.md of a trained checkpoint: what was measured, how it was made and how to use it, and nothing else."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .results import SplitResult

__all__ = ["write_model_card"]

PACKAGES = ("hf_audioformer", "transformers", "torch", "torchaudio", "accelerate", "datasets")

BODY = """
# AudioFormer trained on {source}

An [AudioFormer](https://arxiv.org/abs/2308.07221) (a rotary-position encoder over the codes of a neural audio codec)
trained from {base} to tell apart {num_labels} classes: {labels}.
The folder holds the model, its feature extractor and the codec; it works without a network.

## Use

```python
import hf_audioformer
from transformers import pipeline

classifier = pipeline("audio-classification", model="PATH_OR_ID_OF_THIS_CHECKPOINT")
classifier(hf_audioformer.load_audio("clip.wav"))
```

## Results

Test clips were used once, after training; the epoch was chosen {choice}.

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
) -> None:
    """Writes `README.md` into a checkpoint's folder.

    Args:
        result: What was measured on the test clips.
        recipe: The resolved settings; of local paths only the last part is told.
        source: The data set, as the recipe names it.
        label_names: The classes, in order.
        base_model: Hub id or folder of the checkpoint the training started from; the bundled one if not given.
        random_weights: Whether only its configuration and codec were taken.
        history: The Trainer's log.
    """
    name = _public(source)
    base = "the small checkpoint of the package hf_audioformer" if base_model is None else f"`{_public(base_model)}`"
    is_hub_base = base_model is not None and not Path(base_model).exists()
    data = ModelCardData(
        license=None if base_model else "cc-by-sa-4.0",
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["audioformer", "audio-classification", "hf_audioformer"],
        base_model=base_model if is_hub_base and not random_weights else None,
        datasets=[source] if "/" in source and not Path(source).exists() else None,
        model_name=f"AudioFormer trained on {name}",
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
        source=name,
        base=f"random weights in the form of {base}" if random_weights else base,
        num_labels=len(label_names),
        labels=", ".join(label_names),
        choice="on validation clips" if result.num_clips["validation"] else "beforehand (the last one)",
        metrics="\n".join(f"| {metric} | {value:.4f} |" for metric, value in result.metrics.items()),
        chance=result.chance,
        metric=result.metric,
        clips=", ".join(f"{count} {part}" for part, count in result.num_clips.items()),
        seconds=result.seconds,
        history=_history_rows(history),
        licence="" if base_model else BUNDLED_LICENCE,
        recipe=yaml.safe_dump(_public(recipe), sort_keys=False, allow_unicode=True),
        environment="\n".join(f"* {package} {version(package)}" for package in PACKAGES)
        + f"\n* Python {platform.python_version()}",
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n{text}").save(folder / "README.md")


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
