"""What is true along time, as targets of the moments of a model; and spans of sound, read with onsets and offsets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from ..event_metrics import Span, merged
from ..models.audioformer.configuration_audioformer import AudioFormerConfig
from .clip_names import ClipNames
from .clip_table import ClipTable
from .collators import IGNORED_LABEL

if TYPE_CHECKING:
    import datasets

__all__ = [
    "EVENT_COLUMNS",
    "AlongTime",
    "MomentCollator",
    "MomentDataset",
    "MomentGrid",
    "Spans",
    "add_spans",
    "spans_of_clips",
]

COLUMNS = ("filename", "onset", "offset", "event_label")
# What the rows of such a file become in a table of clips.
EVENT_COLUMNS = ("event_labels", "event_onsets", "event_offsets")
NO_LABEL = ("", "nan", "None")
# How many times as long as a clip its times may be, and a second: labels are often rough, other units never so near.
TIMES_TOO_LONG = 2


def add_spans(table: datasets.Dataset, rows: Sequence[Mapping[str, Any]], file: str) -> datasets.Dataset:
    """Give clips the columns `labels` (names), `event_labels`, `event_onsets` and `event_offsets` (seconds) from rows
    of the form of DCASE's strong labels: filename, onset, offset, event_label.

    A clip is found as by `ClipNames`. A row without a label says that nothing is heard in its clip;
    so do clips without rows.

    Raises:
        ValueError: A column is missing, a row names no clip or several, or has no onset before its offset.
    """
    import datasets

    if not rows or not set(COLUMNS) <= rows[0].keys():
        found = ", ".join(map(repr, rows[0])) if rows else "no rows"
        raise ValueError(f"{file}: expected rows with the columns {', '.join(COLUMNS)}; found {found}")
    clips = ClipNames(table["id"][:])
    of_clip: list[list[tuple[str, float, float]]] = [[] for _ in range(len(table))]
    for line, row in enumerate(rows, start=2):
        where = f"{file}, line {line}"
        events = of_clip[clips.index(row["filename"], where)]
        if _label(row) not in NO_LABEL:
            events.append(_event(row, where))
    columns: dict[str, list[Any]] = {
        "labels": [sorted({label for label, *_ in events}) for events in of_clip],
        "event_labels": [[label for label, *_ in events] for events in of_clip],
        "event_onsets": [[onset for _, onset, _ in events] for events in of_clip],
        "event_offsets": [[offset for *_, offset in events] for events in of_clip],
    }
    table = table.remove_columns([name for name in columns if name in table.column_names])
    for name, values in columns.items():
        kind = "string" if name.endswith("labels") else "float64"
        table = table.add_column(name, values, feature=datasets.List(datasets.Value(kind)))
    return table


def _event(row: Mapping[str, Any], where: str) -> tuple[str, float, float]:
    try:
        onset, offset = float(row["onset"]), float(row["offset"])
    except (TypeError, ValueError):
        onset = offset = math.nan
    if not 0 <= onset < offset < math.inf:
        raise ValueError(
            f"{where}: onset is {row['onset']!r} and offset {row['offset']!r}; expected seconds, the onset at least 0 "
            "and before the offset"
        )
    return _label(row), onset, offset


def _label(row: Mapping[str, Any]) -> str:
    return str(row["event_label"]).strip()


def spans_of_clips(clips: ClipTable) -> list[list[Span]]:
    """When which class is heard in each clip.

    Raises:
        ValueError: The clips have no onsets and offsets.
    """
    if not {*EVENT_COLUMNS} <= {*clips.table.column_names}:
        raise ValueError(
            "the clips have labels without onsets and offsets; name a csv with the columns "
            f"{', '.join(COLUMNS)} by data.events"
        )
    index_of = {name: index for index, name in enumerate(clips.label_names)}
    of_clips = zip(*(clips.column(name) for name in EVENT_COLUMNS), strict=True)
    return [
        merged((index_of[label], onset, offset) for label, onset, offset in zip(*of_clip, strict=True))
        for of_clip in of_clips
    ]


class AlongTime(Protocol):
    """What is true of a clip along time."""

    @property
    def size(self) -> int:
        """How many classes or numbers there are."""

    @property
    def last_seconds(self) -> float:
        """The last time that is told of; 0 without any."""

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """What is true at these times, floats (times, size), NaN where it is not known."""


@dataclass(frozen=True)
class Spans:
    """Classes by when they are heard.

    Args:
        spans: Of class indices.
        size: How many classes there are.
    """

    spans: Sequence[Span]
    size: int

    @property
    def last_seconds(self) -> float:
        """When the last span begins, as it may go on to whatever end; 0 without spans."""
        return max((onset for _, onset, _ in self.spans), default=0.0)

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """Which classes are heard at these times, zeros and ones, float32 (times, classes)."""
        heard = np.zeros((len(seconds), self.size), dtype=np.float32)
        for label, onset, offset in self.spans:
            heard[(onset <= seconds) & (seconds < offset), label] = 1.0
        return heard


@dataclass(frozen=True)
class MomentGrid:
    """Where the moments of a model lie in a clip: moment k from k to k + 1 times `seconds`.

    Attributes:
        seconds: From moment to moment.
        stride: Input frames (or samples) of a moment.
        boundaries: Moments at either end that are no sound, but boundary tokens.
        max_seconds: Where longer clips are cut; None for nowhere.
        sampling_rate: Of the samples in which lengths of clips and starts of stretches are counted; None where they are
            moments.
    """

    seconds: float
    stride: int = 1
    boundaries: int = 0
    max_seconds: float | None = None
    sampling_rate: int | None = None

    @classmethod
    def of(cls, config: Any, extractor: Any) -> MomentGrid:
        """That of an AudioFormer by its configuration and its feature extractor.

        Raises:
            ValueError: It is another model.
        """
        if not isinstance(config, AudioFormerConfig):
            raise ValueError(
                f"what is heard along time is read from an AudioFormer alone, found {type(config).__name__}"
            )
        longest = extractor.max_length_seconds
        if config.front_end == "codes":
            return cls(1 / extractor.frame_rate, boundaries=int(extractor.add_boundary_tokens), max_seconds=longest)
        return cls(
            config.input_stride / extractor.frame_rate,
            config.input_stride,
            max_seconds=longest,
            sampling_rate=extractor.sampling_rate,
        )

    def num_moments(self, length: int) -> int:
        """Moments of an input of so many frames, tokens or samples, boundaries included."""
        return -(-length // self.stride)

    def of_sound(self, outputs: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
        """What a model gave for the moments of each clip of a batch, (batch, moments, size), without padding and
        boundaries: float32 (moments, size) each."""
        mask = batch.get("attention_mask")
        lengths = [self.num_moments(int(of_clip.sum())) for of_clip in mask] if mask is not None else None
        return [
            of_clip[self.boundaries : (len(of_clip) if lengths is None else lengths[row]) - self.boundaries]
            for row, of_clip in enumerate(outputs.float().cpu().numpy())
        ]

    def middles(self, moments: int) -> np.ndarray:
        """Where the first moments of sound are, in seconds, float64 (moments,)."""
        return (np.arange(moments) + 0.5) * self.seconds

    def seconds_of(self, count: int) -> float:
        """How long a clip of this length is, or when a stretch of this start begins."""
        return count * self.seconds if self.sampling_rate is None else count / self.sampling_rate

    def check_times(self, truth: AlongTime, seconds: float, name: str) -> None:
        """Raises a ValueError if what is true of a clip that lasts so long goes on long after its end, as where times
        are not in seconds."""
        is_cut = self.max_seconds is not None and seconds > self.max_seconds - self.seconds
        if truth.last_seconds > TIMES_TOO_LONG * seconds + 1 and not is_cut:
            raise ValueError(
                f"{name!r} lasts {seconds:.2f} s, and what is told of it goes on until {truth.last_seconds:.6g}; give "
                "times in seconds from its beginning"
            )

    def targets(self, truth: AlongTime, length: int, start: float = 0.0) -> np.ndarray:
        """What is true in the middle of each moment of an input of this length that begins at `start` seconds, float32
        (moments, size); -100 for what is not known, and for boundaries."""
        targets = np.full((self.num_moments(length), truth.size), IGNORED_LABEL, dtype=np.float32)
        sound = targets[self.boundaries : len(targets) - self.boundaries]
        values = truth.at(start + self.middles(len(sound))).astype(np.float32)
        values[values == IGNORED_LABEL] = np.nextafter(np.float32(IGNORED_LABEL), np.float32(0))  # a level in dB, say
        np.copyto(sound, values, where=~np.isnan(values))
        return targets


class MomentDataset(Dataset):
    """The clips of a data set with a row of targets for each moment, `labels` float32 (moments, size).

    Args:
        dataset: Clips, or stretches of them with their `start`.
        truths: What is true of each of them along time.
        grid: Where the moments lie.
    """

    def __init__(self, dataset: Any, truths: Sequence[AlongTime], grid: MomentGrid):
        self.dataset = dataset
        self.truths = truths
        self.grid = grid
        self.lengths: list[int] = dataset.lengths

    @property
    def names(self) -> list[str]:
        """The names of the clips."""
        return self.dataset.names

    @property
    def targets(self) -> np.ndarray:
        """The labels of whole clips."""
        return self.dataset.targets

    def set_epoch(self, epoch: int) -> None:
        """Draw anew from now on."""
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = dict(self.dataset[index])
        length = len(item["input_ids"] if "input_ids" in item else item["input_values"])
        self.grid.check_times(self.truths[index], self.grid.seconds_of(self.lengths[index]), self.names[index])
        start = self.grid.seconds_of(item.pop("start", 0))
        item["labels"] = self.grid.targets(self.truths[index], length, start)
        return item


@dataclass(frozen=True)
class MomentCollator:
    """Batches of `collator` with the targets of moments as `labels`, float32 (batch, moments, size), -100 in
    padding."""

    collator: Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]

    def __call__(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        unlabelled = [{name: value for name, value in clip.items() if name != "labels"} for clip in clips]
        labels = [torch.as_tensor(clip["labels"]) for clip in clips]
        padded = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=float(IGNORED_LABEL))
        return self.collator(unlabelled) | {"labels": padded}
