"""Puts audio transformers side by side on a clip, and draws what they make of it.

    hf-audioformer inspect MODEL [MODEL ...] --clip FILE [FILE ...] --output_dir FOLDER
    hf-audioformer inspect facebook/wav2vec2-base openai/whisper-tiny MIT/ast-finetuned-audioset-10-10-0.4593 \\
        my_audioformer --clip rain.wav dog.wav --output_dir report

Takes folders and Hub ids of AudioFormers, Audio Spectrogram Transformers, Wav2Vec2 and its relatives, Whisper, and
other models of Transformers that return their attention. The folder then holds report.html, which has everything in it
and needs no network; the same figures as PNG; and inspect.json with the numbers. Clips are cut to --max_seconds, since
attention grows with the square of the length. A model that cannot be inspected is named and left out; the exit code is
then 1.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .. import AudioFormerForMaskedLM
from ..audio.io import Audio, load_audio
from ..inference.masked_codes import surprise
from ..inspection.clip_view import ClipView, ModelFacts, model_facts, view_of
from ..inspection.html_page import html_page
from ..inspection.tracing import InspectedModel, Trace, load_model, trace_clip
from ..training.arguments import parse_config
from ..training.console import quiet_transformers
from .inputs import report_left_out
from .inspection_report import numbers, sections, summary

__all__ = ["InspectArguments", "main", "run", "short_names"]

REPORT_FILE, NUMBERS_FILE = "report.html", "inspect.json"


@dataclass(frozen=True)
class InspectArguments:
    """All settings of the command."""

    models: list[str] = field(metadata={"help": "folders or Hub ids, as many as you like"})
    clip: list[str] | str = field(metadata={"help": "a sound file, or several to compare: wav, flac, ogg, opus, mp3"})
    output_dir: str = field(metadata={"help": "where report.html, the PNGs and inspect.json go"})
    layer: int = field(
        default=-1, metadata={"help": "whose heads are drawn: from 0, or from -1 backwards; the last by default"}
    )
    max_seconds: float = field(
        default=10.0,
        metadata={"help": "longer clips are cut at the end: attention grows with the square of the length"},
    )
    overwrite: bool = field(default=False, metadata={"help": "replace an earlier report in output_dir"})

    def __post_init__(self) -> None:
        if not self.models or not self.clips:
            raise ValueError("models and clip: name at least one of each; see hf-audioformer inspect --help")
        if self.max_seconds <= 0:
            raise ValueError(f"max_seconds is {self.max_seconds}; it must be above 0")

    @property
    def clips(self) -> list[str]:
        return [self.clip] if isinstance(self.clip, str) else self.clip


def main(argv: list[str]) -> None:
    """Runs the command; models may be given without their name, and several words after an option make a list."""
    run(parse_config(InspectArguments, _with_lists(argv), description=__doc__ or ""))


def _with_lists(argv: Sequence[str]) -> list[str]:
    """`A B --clip x y` as `--models [A, B] --clip [x, y]`."""
    named = ["--models", *argv] if argv and not argv[0].startswith("-") else list(argv)
    words: list[list[str]] = []
    for word in named:
        if word.startswith("--"):
            words.append([word])
        elif words:
            words[-1].append(word)
    listed = [
        [option, json.dumps(values, ensure_ascii=False) if len(values) > 1 or option == "--models" else "".join(values)]
        if values
        else [option]
        for option, *values in words
    ]
    return [word for option in listed for word in option]


def run(arguments: InspectArguments) -> dict[str, Any]:
    """Writes the report; returns and prints what it leaves as `inspect.json`.

    Raises:
        FileExistsError: `output_dir` holds an earlier report and `overwrite` is not set.
        ValueError: A clip cannot be read, or, at the end, some models could not be inspected.
        FileNotFoundError, OSError: There is no such clip; or, of a single model, no such checkpoint.
    """
    folder = Path(arguments.output_dir)
    if (folder / REPORT_FILE).exists() and not arguments.overwrite:
        raise FileExistsError(f"{folder} holds an earlier report. Replace it with --overwrite true, or name another.")
    clips = _read_clips(arguments)
    facts, views = _inspect(arguments, clips)
    drawn = sections(facts, views, clips)
    parts = list(tqdm(drawn, desc="draw", total=3 + len(facts), unit="section"))
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for name, png in part.figures:
            (folder / name).write_bytes(png)
    report = numbers(facts, views) | {"settings": asdict(arguments)}
    (folder / NUMBERS_FILE).write_text(json.dumps(report, indent=1), encoding="utf-8")
    title = f"{', '.join(row.model for row in facts)} on {', '.join(clips)}"
    (folder / REPORT_FILE).write_text(html_page(title, parts), encoding="utf-8")
    print(f"{summary(facts)}\nOpen {folder / REPORT_FILE}; the figures and {NUMBERS_FILE} lie beside it.")
    if len(facts) < len(arguments.models):
        raise ValueError(_left_out(len(arguments.models) - len(facts), len(arguments.models)))
    return report


def _left_out(count: int, total: int) -> str:
    return f"{count} of {total} models could not be inspected; they are named above"


def _read_clips(arguments: InspectArguments) -> dict[str, Audio]:
    """The clips by their names, cut."""
    clips: dict[str, Audio] = {}
    names = short_names(arguments.clips, [Path(path).stem for path in arguments.clips])
    for name, path in zip(names, arguments.clips, strict=True):
        audio = load_audio(path)
        rate = audio["sampling_rate"]
        seconds = len(audio["array"]) / rate
        if seconds > arguments.max_seconds:
            print(f"{name}: {seconds:.1f} s, of which the first {arguments.max_seconds:g} s are taken (--max_seconds)")
        clips[name] = {"array": audio["array"][: round(arguments.max_seconds * rate)], "sampling_rate": rate}
    return clips


def short_names(sources: Sequence[str], names: Sequence[str]) -> list[str]:
    """The short name of each source, or the source itself where that is not its alone.

    Raises:
        ValueError: A source is named twice.
    """
    twice = {source for source in sources if list(sources).count(source) > 1}
    if twice:
        raise ValueError(f"{min(twice)} is named twice; name each model and each clip once")
    return [name if list(names).count(name) == 1 else source for name, source in zip(names, sources, strict=True)]


def _inspect(arguments: InspectArguments, clips: dict[str, Audio]) -> tuple[list[ModelFacts], list[ClipView]]:
    """The facts of each model, by the first clip, and its views of all; one that cannot be inspected is named and left
    out.

    Raises:
        ValueError: None of several models can be inspected.
        Exception: What came of a single one.
    """
    facts: list[ModelFacts] = []
    views: list[ClipView] = []
    names = short_names(arguments.models, [Path(source).name for source in arguments.models])
    with quiet_transformers(), tqdm(total=len(names) * len(clips), desc="inspect", unit="clip") as bar:
        for done, (name, source) in enumerate(zip(names, arguments.models, strict=True), start=1):
            try:
                of_model = list(_views(source, name, clips, arguments.layer, bar))
            except Exception as error:  # the code of any model may raise anything
                if len(names) == 1:
                    raise
                report_left_out(source, error)
                bar.update(done * len(clips) - bar.n)
                continue
            facts.append(of_model[0][0])
            views += [view for _, view in of_model]
    if not facts:
        raise ValueError(_left_out(len(names), len(names)))
    return facts, views


def _views(
    source: str, name: str, clips: dict[str, Audio], layer: int, bar: tqdm
) -> Iterator[tuple[ModelFacts, ClipView]]:
    """The facts and the view of a model by each clip; raw attention is held of one clip at a time."""
    loaded = load_model(source)
    size = getattr(loaded.model.config, "codebook_size", None)
    for clip, audio in clips.items():
        trace = trace_clip(loaded, audio)
        surprise_of_clip = _surprise(loaded, trace)
        view = view_of(trace, model=name, clip=clip, codebook_size=size, surprise=surprise_of_clip, layer=layer)
        yield model_facts(loaded, trace, name), view
        bar.update()


def _surprise(loaded: InspectedModel, trace: Trace) -> np.ndarray | None:
    """Of a model that predicts masked codes, the surprise along the clip, (frames, codebooks)."""
    if trace.input_ids is None or type(loaded.model) is not AudioFormerForMaskedLM:
        return None
    return surprise(loaded.model, torch.from_numpy(trace.input_ids)).numpy()
