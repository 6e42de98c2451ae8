"""Labels along time: spans of sound, read with their onsets and offsets, to targets of the moments of a model."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..audio.fbank import HOP_SECONDS
from ..event_metrics import Span, merged
from ..models.audioformer.configuration_audioformer import AudioFormerConfig
from .clip_table import ClipTable
from .collators import IGNORED_LABEL

if TYPE_CHECKING:
    import datasets

__all__ = ["MomentCollator", "MomentDataset", "MomentGrid", "add_spans", "spans_of_clips"]

COLUMNS = ("filename", "onset", "offset", "event_label")
NO_LABEL = ("", "nan", "None")


def add_spans(table: datasets.Dataset, rows: Sequence[Mapping[str, Any]], file: str) -> datasets.Dataset:
    """Give clips the columns `labels` (names), `event_labels`, `event_onsets` and `event_offsets` (seconds) from rows
    of the form of DCASE's strong labels: filename, onset, offset, event_label.

    A clip is found by its id, or by the last part of it. A row without a label says that nothing is heard in its clip;
    so do clips without rows.

    Raises:
        ValueError: A column is missing, a row names no clip or several, or has no onset before its offset.
    """
    import datasets

    if not rows or not set(COLUMNS) <= rows[0].keys():
        found = ", ".join(map(repr, rows[0])) if rows else "no rows"
        raise ValueError(f"{file}: expected rows with the columns {', '.join(COLUMNS)}; found {found}")
    index_of = {clip_id: index for index, clip_id in enumerate(table["id"])}
    last_parts = [os.path.basename(clip_id) for clip_id in index_of]
    repeated = {name for name, count in Counter(last_parts).items() if count > 1} - index_of.keys()
    index_of = dict(zip(last_parts, index_of.values(), strict=True)) | index_of
    of_clip: list[list[tuple[str, float, float]]] = [[] for _ in range(len(table))]
    for number, row in enumerate(rows, start=2):
        if row["filename"] in repeated:
            raise ValueError(
                f"{file}, line {number}: several clips are called {row['filename']!r} in different folders; give the "
                f"whole name, as {next(name for name in index_of if os.path.basename(name) == row['filename'])!r}"
            )
        if row["filename"] not in index_of:
            raise ValueError(
                f"{file}, line {number}: no clip is called {row['filename']!r}; there are {_few(index_of)}"
            )
        if str(row["event_label"]) not in NO_LABEL:
            of_clip[index_of[row["filename"]]].append(_event(row, f"{file}, line {number}"))
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
    return str(row["event_label"]), onset, offset


def _few(names: Mapping[str, int]) -> str:
    return ", ".join([*map(repr, list(names)[:3]), *(["..."] if len(names) > 3 else [])])


def spans_of_clips(clips: ClipTable) -> list[list[Span]]:
    """When which class is heard in each clip.

    Raises:
        ValueError: The clips have no onsets and offsets.
    """
    names = ("event_labels", "event_onsets", "event_offsets")
    if not set(names) <= {*clips.table.column_names}:
        raise ValueError(
            "the clips have labels without onsets and offsets; name a csv with the columns "
            f"{', '.join(COLUMNS)} by data.events"
        )
    index_of = {name: index for index, name in enumerate(clips.label_names)}
    of_clips = zip(*(clips.column(name) for name in names), strict=True)
    return [
        merged((index_of[label], onset, offset) for label, onset, offset in zip(*of_clip, strict=True))
        for of_clip in of_clips
    ]


@dataclass(frozen=True)
class MomentGrid:
    """Where the moments of a model lie in a clip: moment k from k to k + 1 times `seconds`.

    Attributes:
        seconds: From moment to moment.
        stride: Input frames (or samples) of a moment.
        boundaries: Moments at either end that are no sound, but boundary tokens.
    """

    seconds: float
    stride: int = 1
    boundaries: int = 0

    @classmethod
    def of(cls, config: Any, extractor: Any) -> MomentGrid:
        """That of an AudioFormer by its configuration and its feature extractor.

        Raises:
            ValueError: It is another model.
        """
        if not isinstance(config, AudioFormerConfig):
            raise ValueError(f"classes along time are read from an AudioFormer alone, found {type(config).__name__}")
        if config.front_end == "codes":
            return cls(1 / extractor.frame_rate, boundaries=int(extractor.add_boundary_tokens))
        step = HOP_SECONDS if extractor.is_spectral else 1 / extractor.sampling_rate
        return cls(config.input_stride * step, config.input_stride)

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

    def targets(self, spans: Sequence[Span], length: int, num_labels: int) -> np.ndarray:
        """Which classes are heard in the middle of each moment of an input of this length, float32 (moments, classes);
        -100 for boundaries."""
        targets = np.zeros((self.num_moments(length), num_labels), dtype=np.float32)
        sound = targets[self.boundaries : len(targets) - self.boundaries]
        middles = (np.arange(len(sound)) + 0.5) * self.seconds
        for label, onset, offset in spans:
            sound[(onset <= middles) & (middles < offset), label] = 1.0
        if self.boundaries:
            targets[: self.boundaries] = targets[-self.boundaries :] = IGNORED_LABEL
        return targets


class MomentDataset(Dataset):
    """The clips of a data set with a row of targets for each moment, `labels` float32 (moments, classes).

    Args:
        dataset: Clips whose items are whole, not cropped.
        spans: When which class is heard in each of them.
    """

    def __init__(self, dataset: Any, spans: Sequence[Sequence[Span]], grid: MomentGrid, num_labels: int):
        self.dataset = dataset
        self.spans = spans
        self.grid = grid
        self.num_labels = num_labels

    @property
    def names(self) -> list[str]:
        """The names of the clips."""
        return self.dataset.names

    @property
    def lengths(self) -> list[int]:
        """The lengths of the clips."""
        return self.dataset.lengths

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
        item["labels"] = self.grid.targets(self.spans[index], length, self.num_labels)
        return item


@dataclass(frozen=True)
class MomentCollator:
    """Batches of `collator` with the targets of moments as `labels`, float32 (batch, moments, classes), -100 in
    padding."""

    collator: Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]

    def __call__(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        unlabelled = [{name: value for name, value in clip.items() if name != "labels"} for clip in clips]
        labels = [torch.as_tensor(clip["labels"]) for clip in clips]
        padded = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=float(IGNORED_LABEL))
        return self.collator(unlabelled) | {"labels": padded}
