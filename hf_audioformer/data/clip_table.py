"""`ClipTable`: labelled clips in a `datasets.Dataset`, decoded one by one on request."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio import Audio, load_audio
from ..metrics import known_mean

if TYPE_CHECKING:
    import datasets

    from .stored_codes import StoredCodes

__all__ = ["CURVE_COLUMNS", "ClipTable", "decode_audio_column", "file_paths", "linked_files"]

# What a clip's numbers along time are read to.
CURVE_COLUMNS = ("curve_times", "curve_values", "curve_gaps")


def decode_audio_column(row: Mapping[str, Any]) -> Audio:
    """Decode the `audio` entry of a row: its `bytes`, or the file at its `path`."""
    audio = row["audio"]
    if audio["bytes"] is None:
        return load_audio(audio["path"], name=f"clip {row['id']!r} ({audio['path']})")
    return load_audio(audio["bytes"], name=f"clip {row['id']!r}")


def file_paths(table: datasets.Dataset) -> list[str]:
    """The files that hold the sound of the clips of a table as it was read; none of clips whose sound it has itself."""
    import pyarrow
    import pyarrow.compute

    if "audio" not in table.column_names or not pyarrow.types.is_struct(table.data.column("audio").type):
        return []
    audio = table.data.column("audio")
    held = pyarrow.compute.is_valid(pyarrow.compute.struct_field(audio, "bytes")).to_pylist()
    paths = pyarrow.compute.struct_field(audio, "path").to_pylist()
    return [os.path.abspath(path) for path, is_held in zip(paths, held, strict=True) if path and not is_held]


def linked_files(paths: Sequence[str]) -> list[str]:
    """What the paths lead to where they, or folders in them, are links."""
    real_folder = cache(os.path.realpath)  # a link is looked for in each part of a path, of which most have the same

    def real_file(path: str) -> str:
        folder, name = os.path.split(path)
        file = os.path.join(real_folder(folder), name)
        return os.path.realpath(file) if os.path.islink(file) else file

    return [real_file(path) for path in paths]


@dataclass(frozen=True)
class ClipTable:
    """Labelled clips.

    `table` has the columns `id` (str, unique), `label` (class index) or, when `multi_label`, `labels` (list of class
    indices), what `load_row` needs to make the sound (by default `audio` = {"bytes", "path"}), and all else the source
    has, such as `fold`, `speaker`, `split`.
    `label_names[i]` is the name of class i; without labels there are none, and neither column. Where clips are to have
    numbers in place of classes, `label_names` are the `target_columns` that hold them, or, with `has_curves`, the names
    of numbers along time, which `curves_of_clips` gives. Clips of a code store have `codes` in place of sound.
    """

    table: datasets.Dataset
    label_names: tuple[str, ...]
    multi_label: bool
    load_row: Callable[[Mapping[str, Any]], Audio] = decode_audio_column
    codes: StoredCodes | None = None
    target_columns: tuple[str, ...] = ()
    has_curves: bool = False

    def __len__(self) -> int:
        return len(self.table)

    @property
    def problem_type(self) -> str:
        """What the labels make of it, as configurations of models call it."""
        if self.target_columns:
            return "regression"
        return "multi_label_classification" if self.multi_label else "single_label_classification"

    @cached_property
    def ids(self) -> list[str]:
        """The unique name of each clip."""
        return self.column("id")

    def column(self, name: str) -> list[Any]:
        """All values of a column, one per clip.

        Raises:
            ValueError: there is no such column.
        """
        if name not in self.table.column_names:
            raise ValueError(f"no column {name!r} in the clips; there are {', '.join(sorted(self.table.column_names))}")
        return self.table[name][:]

    def load(self, index: int) -> Audio:
        """The waveform of clip `index`, at its own sampling rate.

        Raises:
            FileNotFoundError, ValueError: the sound cannot be read; the message names the clip.
        """
        return self.load_row(self.table[index])

    def targets(self, indices: Sequence[int] | None = None) -> np.ndarray:
        """Labels of the clips (default: all): int64 (clips,); if `multi_label` multi-hot float32 (clips, classes);
        numbers, float32 (clips, columns), where there are `target_columns`; of those along time the mean of each
        clip's known points, NaN without any.

        Raises:
            ValueError: The clips have no labels.
        """
        if not self.label_names:
            raise ValueError("the clips have no labels; they can be encoded and pretrained on, and no more")
        table = self.table if indices is None else self.table.select(indices)
        if self.has_curves:
            shape = (-1, len(self.target_columns))
            means = [known_mean(np.array(values).reshape(shape)) for values in table[CURVE_COLUMNS[1]][:]]
            return np.array(means, dtype=np.float32).reshape(shape)
        if self.target_columns:
            return np.stack([np.asarray(table[name][:], dtype=np.float32) for name in self.target_columns], axis=1)
        if not self.multi_label:
            return np.asarray(table["label"][:], dtype=np.int64)
        targets = np.zeros((len(table), len(self.label_names)), dtype=np.float32)
        for row, classes in enumerate(table["labels"][:]):
            targets[row, classes] = 1.0
        return targets

    def digest(self, columns: Sequence[str] = ()) -> str:
        """A SHA-256 of the clips' ids, labels and values in some columns, all in order: the same for the same data."""
        digest = hashlib.sha256(self.targets().tobytes())
        for names in (self.ids, self.label_names, *(map(str, self.column(name)) for name in columns)):
            digest.update("\0".join((*names, "\n")).encode())
        return digest.hexdigest()

    def select(self, indices: Sequence[int]) -> ClipTable:
        """The clips at `indices`, in that order."""
        return replace(self, table=self.table.select(indices))
