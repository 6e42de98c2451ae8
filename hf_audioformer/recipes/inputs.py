"""What several recipes start from: words of the command line, clips, and the feature extractor of a checkpoint."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm.auto import tqdm
from transformers import AutoFeatureExtractor

from .. import AudioFormerFeatureExtractor
from ..checkpoint_config import read_config
from ..codes.encoding import MAX_BAD_SHARE
from ..data import ClipTable, read_clips
from ..data.readers import MissingFilesError, sound_files
from ..training.console import quiet_transformers

__all__ = [
    "OtherTargets",
    "ReadingArguments",
    "SubsetArguments",
    "TrainingClips",
    "check_free",
    "claim_folder",
    "clip_bar",
    "files_of",
    "interruption_says",
    "load_extractor",
    "read",
    "report_left_out",
    "stopped_after",
    "subset",
    "unique_names",
    "with_names",
]


@dataclass(frozen=True)
class ReadingArguments:
    """Which clips, and where their sound and labels stand."""

    source: str = field(
        metadata={
            "help": "a folder (a subfolder per class, or metadata.csv), a .csv, .tsv or .parquet, a code store, a Hub "
            "id, or a known set: commands, synthetic, spoken_digits, esc10, fsdd, esc10_mix"
        }
    )
    audio_column: str | None = field(default=None, metadata={"help": "column of the audio, if its name is unusual"})
    label_column: str | None = field(default=None, metadata={"help": "column of the labels, if its name is unusual"})
    label_separator: str = field(default=";", metadata={"help": "what separates several labels in one cell"})
    multi_label: bool | None = field(default=None, metadata={"help": "several labels per clip; found out by default"})
    hub_config: str | None = field(default=None, metadata={"help": "configuration of a data set from the Hub"})
    revision: str | None = field(default=None, metadata={"help": "revision of a data set from the Hub"})
    audio_root: str | None = field(
        default=None, metadata={"help": "the folder that paths in a csv or parquet start from; its own by default"}
    )


@dataclass(frozen=True, kw_only=True)
class OtherTargets:
    """What an AudioFormer may learn of clips in place of classes."""

    target_columns: list[str] = field(
        default_factory=list,
        metadata={
            "help": "columns of numbers to predict in place of labels (regression), of the clips or of data.curves"
        },
    )
    events: str | None = field(
        default=None,
        metadata={
            "help": "a .csv, .tsv or .parquet with the columns filename, onset, offset (in seconds), event_label: when "
            "each label is heard (for model.head moments); esc10_mix has them itself"
        },
    )

    curves: str | None = field(
        default=None,
        metadata={
            "help": "a .csv, .tsv or .parquet with the columns filename, time (in seconds) and one for each number: "
            "numbers along time (for model.head moments); empty where one is not known"
        },
    )
    curve_gap_seconds: float | None = field(
        default=None,
        metadata={
            "help": "between times of data.curves that lie further apart nothing is known; by default one and a half "
            "times their usual distance"
        },
    )

    def __post_init__(self) -> None:
        for name, value in (("target_columns", self.target_columns), ("curves", self.curves)):
            if value and self.events:
                raise ValueError(f"data.{name} is {value} and data.events {self.events}; give numbers or events")
        if self.curve_gap_seconds is not None and self.curves is None:
            raise ValueError(
                f"data.curve_gap_seconds is {self.curve_gap_seconds}, which is for data.curves; leave it out"
            )


@dataclass(frozen=True)
class TrainingClips(ReadingArguments):
    """Which clips a classifier learns from and is tested on, and how often each is seen."""

    skip_bad: bool = field(default=False, metadata={"help": "leave out clips that cannot be read, and list them"})
    sampling: Literal["uniform", "class_balanced"] = field(
        default="uniform",
        metadata={"help": "class_balanced: draw with replacement, so that clips of rare classes come more often"},
    )


@dataclass(frozen=True)
class SubsetArguments:
    """Which of the clips: all by default."""

    column: str | None = field(default=None, metadata={"help": "only clips with one of split.values in this column"})
    values: list[str | int] = field(default_factory=list, metadata={"help": "the values of split.column to keep"})

    def __post_init__(self) -> None:
        if (self.column is None) != (not self.values):
            raise ValueError(
                f"split.column={self.column!r} and split.values={self.values} go together: a column and what to keep"
            )


def read(
    arguments: ReadingArguments,
    *,
    needs_labels: bool = True,
    label_names: Sequence[str] | None = None,
    missing_share: float | None = None,
) -> ClipTable:
    """The clips that the arguments name, read by `read_clips`; with `skip_bad` a share of files may be missing.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: As `read_clips`.
    """
    others = arguments if isinstance(arguments, OtherTargets) else OtherTargets()
    skip_bad = getattr(arguments, "skip_bad", None)
    if missing_share is None:
        missing_share = MAX_BAD_SHARE if skip_bad else 0.0
    try:
        return read_clips(
            arguments.source,
            audio_column=arguments.audio_column,
            audio_root=arguments.audio_root,
            label_column=arguments.label_column,
            label_separator=arguments.label_separator,
            multi_label=arguments.multi_label,
            hub_config=arguments.hub_config,
            revision=arguments.revision,
            label_names=label_names,
            needs_labels=needs_labels,
            target_columns=others.target_columns,
            events=others.events,
            curves=others.curves,
            curve_gap_seconds=others.curve_gap_seconds,
            missing_share=missing_share,
        )
    except MissingFilesError as error:
        if skip_bad is not False:
            raise
        raise FileNotFoundError(
            f"{error} (--data.skip_bad true leaves missing clips out, up to {MAX_BAD_SHARE:.0%} of all)"
        ) from error


def subset(clips: ClipTable, split: SubsetArguments) -> ClipTable:
    """The clips with one of the values in the column.

    Raises:
        ValueError: No such column, or a value that no clip has.
    """
    if split.column is None:
        return clips
    found = [str(value) for value in clips.column(split.column)]
    missing = [value for value in map(str, split.values) if value not in found]
    if missing:
        raise ValueError(
            f"split.values: no clip has {missing[0]!r} in column {split.column!r}; there are {sorted(set(found))[:10]}"
        )
    return clips.select([index for index, value in enumerate(found) if value in map(str, split.values)])


def with_names(argv: Sequence[str], *names: str, rest: str | None = None) -> list[str]:
    """The words of a command line without `--`, as values of options: one for each of `names`, in their order, and a
    list of the others for `rest`; `A B --x 1 C` with the names a, b and rest c becomes `--a A --b B --c ["C"] --x 1`.
    """
    words, options, tokens = [], [], iter(argv)
    for token in tokens:
        if not token.startswith("-"):
            words.append(token)
        elif token in ("--help", "-h") or "=" in token:
            options.append(token)
        else:
            options += [token, *([value] if (value := next(tokens, None)) is not None else [])]
    named = [word for pair in zip((f"--{name}" for name in names), words, strict=False) for word in pair]
    others = words[len(names) :]
    if rest is None or not others:
        return [*named, *others, *options]
    return [*named, f"--{rest}", json.dumps(others, ensure_ascii=False), *options]


def files_of(sources: Sequence[str]) -> list[str]:
    """The files that `sources` name, each once: files themselves, and all sound files below folders.

    Raises:
        FileNotFoundError: A source is neither a file nor a folder.
        ValueError: There is no source, or no sound file in a folder.
    """
    if not sources:
        raise ValueError("no sound is named: give files or folders")
    files: list[str] = []
    for source in sources:
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{source}: there is no such file or folder")
        found = [str(file) for file in sound_files(path)] if path.is_dir() else [source]
        if not found:
            raise ValueError(f"{source}: there is no sound file in this folder or below it")
        files += found
    return list(dict.fromkeys(files))


def clip_bar(description: str, total: int) -> tqdm:
    """A bar in clips; windows of a long one are parts of it."""
    shape = "{l_bar}{bar}| {n:.1f}/{total} clips [{elapsed}<{remaining}]"
    return tqdm(total=total, desc=description, bar_format=shape, dynamic_ncols=True)


@contextmanager
def interruption_says(message: Callable[[], str]) -> Iterator[None]:
    """Has Ctrl-C within the block end in this message."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(message()) from interrupt


def stopped_after(done: int, total: int, targets: Sequence[str]) -> str:
    """What is told after Ctrl-C: how far it came, and where that is."""
    return f"stopped after {done} of {total} clips" + (f"; they are in {', '.join(targets)}" if targets else "")


def report_left_out(name: str, error: Exception) -> None:
    """Says beside a bar why a clip was left out."""
    tqdm.write(f"left out: {error if name in str(error) else f'{name}: {error}'}", file=sys.stderr)


def unique_names(files: Sequence[str], taken: str = "") -> dict[str, str]:
    """A name for what is made of each file: its own without the ending, and a number where two would have the same, or
    one would have the name that is `taken`."""
    names: dict[str, str] = {}
    used = {taken}
    for file in files:
        stem, number = Path(file).stem, 1
        while (name := stem if number == 1 else f"{stem}_{number}") in used:
            number += 1
        names[file] = name
        used.add(name)
    return names


def check_free(file: str | Path, *, overwrite: bool) -> None:
    """Raises a FileExistsError if there is such a file, and `overwrite` is not set."""
    if Path(file).exists() and not overwrite:
        raise FileExistsError(f"{file} exists. Replace it with --overwrite true, or name another.")


def claim_folder(folder: Path, file: str, *, overwrite: bool) -> None:
    """Makes a folder for the results of a command, of which `file` is one.

    Raises:
        FileExistsError: There is an earlier `file`, and `overwrite` is not set.
    """
    if (folder / file).exists() and not overwrite:
        raise FileExistsError(f"{folder} holds earlier results. Replace them with --overwrite true, or name another.")
    folder.mkdir(parents=True, exist_ok=True)


def load_extractor(checkpoint: str, argument: str) -> AudioFormerFeatureExtractor:
    """The feature extractor of an AudioFormer checkpoint, with its codec loaded; errors call it `argument`.

    Raises:
        FileNotFoundError, NotADirectoryError: As `read_config`.
        ValueError: `checkpoint` holds another model.
    """
    read_config(checkpoint, argument)
    with quiet_transformers():
        extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
        if not isinstance(extractor, AudioFormerFeatureExtractor):
            raise ValueError(
                f"{argument} is {checkpoint}, which holds a {type(extractor).__name__}; only AudioFormer checkpoints "
                "can be used here."
            )
        extractor.load_codec()
    return extractor
