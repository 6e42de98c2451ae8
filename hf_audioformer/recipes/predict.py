"""Labels sound files by an audio classifier: AudioFormer, AST, Wav2Vec2, HuBERT, Whisper, ...

    hf-audioformer predict MODEL FILES|FOLDERS ...                      the best labels of each clip
    hf-audioformer predict MODEL FILES|FOLDERS ... --timestamps 0.5     and when each is heard, in steps of 0.5 s
    hf-audioformer predict MODEL FILES|FOLDERS ... --json FILE --csv FILE

Clips may have any length, rate and format that soundfile reads (wav, flac, ogg, opus, mp3). One longer than a window is
heard in windows that overlap by half, and its scores are those of the mean of their logits. A model trained with
model.head moments says when each label is heard without --timestamps; one for regression gives its numbers, of clips or
along time (then their means are shown). Results are written as they come, so that none is lost when the command is
stopped. Files that cannot be used are named and left out; the exit code is then 1.

--json writes one object per line and clip (JSON Lines): file, seconds, scores; with --timestamps also events and
track, the scores of every class, one per step. --csv writes a line per clip and label; with --timestamps a line per
event. Numbers along time have a track too, and in --csv a line per step and a column per number.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..inference.classifier import HEARD, AudioClassifier, ClipScores
from ..inference.events import EVENT_WINDOW_SECONDS, Event
from ..inference.front_end import longest_window
from ..inference.loading import DESCRIBED, choose_device, load_classifier, output_of
from ..training.arguments import parse_config
from .inputs import check_free, clip_bar, files_of, interruption_says, report_left_out, stopped_after, with_names

__all__ = ["PredictArguments", "main", "run"]

Write = Callable[[str, ClipScores], None]
Rows = Iterable[list[Any]]
RowsOf = Callable[[ClipScores, "PredictArguments"], Rows]


@dataclass(frozen=True)
class PredictArguments:
    """All settings of the command."""

    model: str = field(metadata={"help": "folder or Hub id of an audio classifier"})
    sources: list[str] = field(metadata={"help": "sound files, and folders of them"})
    top: int = field(default=5, metadata={"help": "how many labels of each clip"})
    timestamps: float | None = field(
        default=None, metadata={"help": "seconds from score to score along time; also says when each label is heard"}
    )
    threshold: float = field(
        default=0.5, metadata={"help": "with timestamps: a label is heard where it scores so much"}
    )
    merge_gaps: float = field(
        default=0.0,
        metadata={"help": "with timestamps: two stretches of a label are one if at most so many seconds lie between"},
    )
    window: float | None = field(
        default=None,
        metadata={
            "help": "seconds heard at a time; by default as long as the model reads, or 30; with timestamps "
            f"{EVENT_WINDOW_SECONDS:g}"
        },
    )
    ignore_padding: bool = field(
        default=False, metadata={"help": "leave out the padding of shorter clips, for an AST trained so"}
    )
    json: str | None = field(default=None, metadata={"help": "file for the results, one JSON object per line"})
    csv: str | None = field(default=None, metadata={"help": "file for the results as a table"})
    batch_size: int = field(default=8, metadata={"help": "windows classified together; changes nothing but speed"})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, ...; the accelerator if there is one"})
    overwrite: bool = field(default=False, metadata={"help": "replace the files of json and csv"})

    def __post_init__(self) -> None:
        if self.top < 1 or self.batch_size < 1:
            raise ValueError(f"top and batch_size must be at least 1, found {self.top} and {self.batch_size}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must lie between 0 and 1, as scores do")
        if self.merge_gaps < 0:
            raise ValueError(f"merge_gaps is {self.merge_gaps} s; it must be at least 0")
        if self.json is not None and self.csv is not None and Path(self.json).resolve() == Path(self.csv).resolve():
            raise ValueError(f"json and csv are both {self.json}; name two files")


def main(argv: list[str]) -> None:
    """Runs the command; MODEL and the files may be given without their names."""
    run(parse_config(PredictArguments, with_names(argv, "model", rest="sources"), description=__doc__ or ""))


def run(arguments: PredictArguments) -> None:
    """Prints the best labels of each clip, and writes what the arguments ask for.

    Raises:
        FileNotFoundError: A source does not exist.
        FileExistsError: A result file exists, and `overwrite` is not set.
        ValueError: The model is no classifier, an argument is out of range, or, at the end, some clips were left out.
    """
    files = files_of(arguments.sources)
    targets = [target for target in (arguments.json, arguments.csv) if target is not None]
    for target in targets:
        check_free(target, overwrite=arguments.overwrite)
    classifier = _load(arguments)
    found, failures = 0, 0
    with ExitStack() as stack:
        stack.enter_context(interruption_says(lambda: stopped_after(found, len(files), targets)))
        along_time = arguments.timestamps is not None or classifier.grid is not None
        writers = [stack.enter_context(writer) for writer in _writers(arguments, classifier, along_time)]
        bar = stack.enter_context(clip_bar("classify", len(files)))
        for name, result in classifier.each(files, heard=bar.update):
            if isinstance(result, Exception):
                failures += 1
                report_left_out(name, result)
                continue
            tqdm.write(_shown(name, result, arguments, along_time))
            for write in writers:
                write(name, result)
            found += 1
    if failures:
        raise ValueError(f"{failures} of {len(files)} clips could not be classified; they are named above")


def _load(arguments: PredictArguments) -> AudioClassifier:
    model, extractor = load_classifier(arguments.model, choose_device(arguments.device), HEARD)
    output = output_of(model.config)
    if arguments.timestamps is not None and output != "classes":
        raise ValueError(
            f"timestamps is {arguments.timestamps}, and model {arguments.model} gives {DESCRIBED[output]}; leave it out"
        )
    window = arguments.window
    if window is None and arguments.timestamps is not None:
        longest = longest_window(model, extractor)
        window = (
            EVENT_WINDOW_SECONDS if longest is None else min(EVENT_WINDOW_SECONDS, longest / extractor.sampling_rate)
        )
    if window is not None and arguments.timestamps is not None and not 0 < arguments.timestamps <= window:
        raise ValueError(f"timestamps is {arguments.timestamps} s; it must be above 0 and at most window, {window:g} s")
    return AudioClassifier(
        model,
        extractor,
        batch_size=arguments.batch_size,
        window_seconds=window,
        hop_seconds=arguments.timestamps,
        ignore_padding=arguments.ignore_padding,
    )


def _shown(name: str, result: ClipScores, arguments: PredictArguments, along_time: bool) -> str:
    lines = [f"{name}  ({result.seconds:.2f} s)"]
    form = "10.5g" if result.are_numbers else "8.4f"
    lines += [f"{guess['score']:{form}}  {guess['label']}" for guess in result.top(arguments.top)]
    if along_time and result.are_numbers:
        bounds = zip(result.track().min(axis=0), result.track().max(axis=0), strict=True)
        lines[1:] = [
            f"{line} (mean; {low:.5g} to {high:.5g})" for line, (low, high) in zip(lines[1:], bounds, strict=True)
        ]
    elif along_time:
        events = _events(result, arguments)
        lines += ["  heard:" if events else f"  no label scores {arguments.threshold:g} anywhere"]
        lines += [
            f"    {event.start_seconds:8.2f} to {event.end_seconds:8.2f} s  {event.score:6.4f}  {event.label}"
            for event in events
        ]
    return "\n".join(lines)


def _events(result: ClipScores, arguments: PredictArguments) -> list[Event]:
    return result.events(arguments.threshold, merge_gaps_seconds=arguments.merge_gaps)


def _writers(arguments: PredictArguments, classifier: AudioClassifier, along_time: bool) -> Iterator[Any]:
    if arguments.json is not None:
        yield _json_writer(Path(arguments.json), arguments, along_time)
    if arguments.csv is not None:
        if not along_time:
            form: tuple[list[str], RowsOf] = ["label", "score"], _rows_of_labels
        elif classifier.gives_numbers:
            form = ["seconds", *classifier.labels], _rows_of_steps
        else:
            form = ["start_seconds", "end_seconds", "label", "score"], _rows_of_events
        yield _csv_writer(Path(arguments.csv), arguments, *form)


@contextmanager
def _json_writer(path: Path, arguments: PredictArguments, along_time: bool) -> Iterator[Write]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", buffering=1) as file:

        def write(name: str, result: ClipScores) -> None:
            record: dict[str, Any] = {"file": name, "seconds": result.seconds, "scores": result.top(arguments.top)}
            if along_time:
                track = result.track() if result.are_numbers else result.track().round(6)
                columns = zip(result.labels, track.T.tolist(), strict=True)
                if not result.are_numbers:
                    record["events"] = [asdict(event) for event in _events(result, arguments)]
                record["track"] = {"hop_seconds": result.hop_seconds, "scores": dict(columns)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _csv_writer(path: Path, arguments: PredictArguments, header: Sequence[str], rows_of: RowsOf) -> Iterator[Write]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="", buffering=1) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", *header])

        def write(name: str, result: ClipScores) -> None:
            rows.writerows([name, *row] for row in rows_of(result, arguments))

        yield write


def _rows_of_labels(result: ClipScores, arguments: PredictArguments) -> Rows:
    return ([guess["label"], guess["score"]] for guess in result.top(arguments.top))


def _rows_of_events(result: ClipScores, arguments: PredictArguments) -> Rows:
    return ([event.start_seconds, event.end_seconds, event.label, event.score] for event in _events(result, arguments))


def _rows_of_steps(result: ClipScores, arguments: PredictArguments) -> Rows:
    return (
        [f"{(step + 0.5) * result.hop_seconds:.4f}", *numbers] for step, numbers in enumerate(result.track().tolist())
    )
