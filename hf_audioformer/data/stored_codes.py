"""The codes of a code store in place of sound: rows are read when they are asked for, from memory-mapped files."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio import Audio
from ..audio.augment import AudioAugmentation
from ..codes.store import OWN_COLUMNS, ROW_COLUMN, Manifest, code_settings, read_manifest
from ..models.audioformer.codec_audioformer import fingerprint
from ..models.audioformer.feature_extraction_audioformer import AudioFormerFeatureExtractor
from .code_dataset import CodeVersion

if TYPE_CHECKING:
    import datasets
    import pyarrow

    from ..models.audioformer.modeling_audioformer import AudioFormerModel

__all__ = ["StoredCodes", "StoredVersions"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredCodes:
    """The rows of the code store in `folder`: `rows` has `id`, `copy`, `length`, `codes` and perhaps `companions`."""

    folder: str
    manifest: Manifest
    rows: datasets.Dataset

    @classmethod
    def open(cls, folder: str) -> StoredCodes:
        """Opens a finished store; no codes are read yet.

        Raises:
            ValueError: The store is not finished, or of another format.
            FileNotFoundError: A shard is missing.
        """
        import datasets

        manifest = read_manifest(folder)
        files = [Path(folder, shard["file"]) for shard in manifest.shards]
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(
                    f"{file} is missing; the manifest of the code store names it. Copy it again, or run the command "
                    "that encoded the store, which makes what is missing."
                )
        rows = datasets.Dataset.from_parquet([glob.escape(str(file)) for file in files])
        return cls(folder, manifest, rows)

    def clips(self) -> datasets.Dataset:
        """One row per clip with what the source said of it, and in `code_row` where its rows begin."""
        starts = np.flatnonzero(self.rows.data.column("copy").to_numpy() == 0)
        columns = [name for name in self.rows.column_names if name not in OWN_COLUMNS]
        return self.rows.select_columns(columns).select(starts).add_column(ROW_COLUMN, starts)

    def no_sound(self, row: Mapping[str, Any]) -> Audio:
        """In place of loading sound.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"clip {row['id']!r} comes from the code store {self.folder}, which holds codes and no sound; give "
            f"{self.manifest.source!r}, from which it was encoded, where sound is needed."
        )

    def of_clip(self, row: Mapping[str, Any]) -> np.ndarray:
        """The unchanged codes of a clip, a row of `clips`: int64 (frames, num_codebooks), no special tokens."""
        return _list_of(self._codes[row[ROW_COLUMN]], "codes").astype(np.int64)

    @cached_property
    def _codes(self) -> datasets.Dataset:
        return self.rows.select_columns(["codes"]).with_format("arrow")

    def versions(
        self,
        first_rows: Sequence[int],
        extractor: AudioFormerFeatureExtractor,
        changed: Sequence[int],
        augmentation: AudioAugmentation | None,
        seed: int,
        companions: Sequence[AudioFormerModel] = (),
    ) -> Mapping[int, StoredVersions]:
        """Versions of the clips whose rows begin at `first_rows`; the rest as for `codes_of_clips`.

        Codes are cut where the extractor takes shorter clips than the store has. They have the vectors of `companions`
        if those very networks made the ones that are stored, of whole clips.

        Raises:
            ValueError: The extractor would encode otherwise than the store was encoded, or the store lacks the copies.
        """
        longest = self._frames_kept(extractor)
        self._check_settings(extractor, cuts=longest is not None)
        copies = 0 if augmentation is None else augmentation.copies
        if augmentation is not None and copies:
            self._check_augmentation(augmentation, seed)
        heard = np.zeros(len(first_rows), dtype=bool)
        heard[list(changed)] = True
        stored = list(self.manifest.companions.values())
        columns = ["codes"]
        if stored and longest is None and stored == [fingerprint(network) for network in companions]:
            columns.append("companions")
        copies_of = np.where(heard, copies, 0)
        return _VersionsOfClips(self.rows, columns, np.asarray(first_rows), copies_of, extractor, longest)

    def _frames_kept(self, extractor: AudioFormerFeatureExtractor) -> int | None:
        """To how many frames codes are cut for clips of the extractor's length; None where that is not the same."""
        wanted, stored = extractor.max_length_seconds, self.manifest.settings["max_length_seconds"]
        needed = extractor.load_codec().prefix_frames
        samples = extractor.limit_samples(wanted)
        if needed is None or samples is None or (stored is not None and wanted >= stored):
            return None
        frames, rest = divmod(samples, extractor.hop_length)
        return None if rest or frames < needed else frames

    def _check_settings(self, extractor: AudioFormerFeatureExtractor, *, cuts: bool) -> None:
        for name, found in code_settings(extractor).items():
            stored = self.manifest.settings[name]
            if stored != found and not (cuts and name == "max_length_seconds"):
                raise ValueError(
                    f"the code store {self.folder} was encoded with {name} {stored!r}, the checkpoint's feature "
                    f"extractor has {found!r} (codecs: {self.manifest.codec} and {extractor.codec}). Take a checkpoint "
                    "that fits, or encode again with --codec.checkpoint and this one."
                )
        if extractor.num_codebooks > self.manifest.num_codebooks:
            raise ValueError(
                f"the code store {self.folder} has {self.manifest.num_codebooks} codebooks, the checkpoint's feature "
                f"extractor reads {extractor.num_codebooks}. Encode again with more (--codec.num_codebooks)."
            )

    def _check_augmentation(self, augmentation: AudioAugmentation, seed: int) -> None:
        stored = self.manifest.augmentation
        for name, found in asdict(augmentation).items():
            found = list(found) if isinstance(found, tuple) else found
            fits = stored.get(name, 0) >= found if name == "copies" else stored.get(name) == found
            if not fits:
                raise ValueError(
                    f"the changed copies in the code store {self.folder} have augmentation.{name} "
                    f"{stored.get(name)!r}, and {found!r} is asked for. Ask for what is there, or encode again."
                )
        if seed != self.manifest.seed:
            logger.warning(
                "the changed copies in %s were drawn with seed %d, not %d", self.folder, self.manifest.seed, seed
            )


class StoredVersions(Sequence[CodeVersion]):
    """The versions of a clip, each read when it is asked for; `length` is that of the unchanged one, in tokens.

    Codes are cut after `longest` frames.
    """

    __slots__ = ("_count", "_extractor", "_first_row", "_longest", "_rows", "length")

    def __init__(
        self,
        rows: datasets.Dataset,
        first_row: int,
        count: int,
        length: int,
        extractor: AudioFormerFeatureExtractor,
        longest: int | None = None,
    ):
        self._rows = rows
        self._first_row = first_row
        self._count = count
        self._extractor = extractor
        self._longest = longest
        self.length = length

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            places = range(*index.indices(self._count))
            if places and places == range(len(places)):  # the first ones, still to be read when asked for
                return StoredVersions(
                    self._rows, self._first_row, len(places), self.length, self._extractor, self._longest
                )
            return [self[place] for place in places]
        if not -self._count <= index < self._count:
            raise IndexError(f"version {index} of a clip that has {self._count}")
        row = self._rows[self._first_row + index % self._count]
        companions = _list_of(row, "companions") if "companions" in row.column_names else None
        codes = _list_of(row, "codes")[: self._longest]
        return CodeVersion(self._extractor.tokens(codes), companions=companions)


class _VersionsOfClips(Mapping[int, StoredVersions]):
    """The versions of each clip by its index, up to as many changed copies as `copies` says."""

    def __init__(
        self,
        rows: datasets.Dataset,
        columns: list[str],
        first_rows: np.ndarray,
        copies: np.ndarray,
        extractor: AudioFormerFeatureExtractor,
        longest: int | None,
    ):
        self._copy_of_row = np.append(rows.data.column("copy").to_numpy(), 0)
        lengths = rows.data.column("length").to_numpy()
        self._lengths = lengths if longest is None else lengths.clip(max=longest)
        self._longest = longest
        self._rows = rows.select_columns(columns).with_format("arrow")
        self._first_rows = first_rows
        self._copies = copies
        self._extractor = extractor

    def __len__(self) -> int:
        return len(self._first_rows)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __getitem__(self, index: int) -> StoredVersions:
        if not 0 <= index < len(self):
            raise KeyError(index)
        first = int(self._first_rows[index])
        count = 1  # a copy that could not be encoded is not there
        while 0 < self._copy_of_row[first + count] <= self._copies[index]:
            count += 1
        length = int(self._lengths[first]) + 2 * self._extractor.add_boundary_tokens
        return StoredVersions(self._rows, first, count, length, self._extractor, self._longest)


def _list_of(row: pyarrow.Table, column: str) -> np.ndarray:
    """The list of lists, (items, size), in a column of a single row, without a copy."""
    lists = row.column(column).chunk(0).flatten()
    return lists.flatten().to_numpy().reshape(-1, lists.type.list_size)
