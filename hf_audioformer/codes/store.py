"""The code store: a folder with the codes of a data set's clips, encoded once.

    manifest.json                     what the codes are, and every shard with its rows and checksum; written last
    plan.json                         what was asked for; a restart must find it unchanged
    report.csv                        clips that were left out, and why
    data/train-00000-of-00016.parquet shards, each with the codes of `shard_clips` clips that follow each other

A shard has a row for each version of a clip, clip after clip: `id`, `copy` (0: the clip as it is, 1, 2, ...: changed
copies), `length` in frames, `codes` uint16 (frames, num_codebooks) without special tokens, `label` or `labels`, what
else the source says of the clip, and at times `companions` float32 (num_companions, hidden_size).
Names are such that `datasets.load_dataset(folder)` finds the shards. Shards appear whole or not at all, and what a
shard holds depends on the plan alone, so that it does not matter which process writes it, or when.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from ..models.audioformer.feature_extraction_audioformer import AudioFormerFeatureExtractor

if TYPE_CHECKING:
    import datasets
    import pyarrow

__all__ = [
    "MANIFEST_FILE",
    "OWN_COLUMNS",
    "PLAN_FILE",
    "ROW_COLUMN",
    "CodeRow",
    "Failure",
    "Manifest",
    "StorePlan",
    "code_settings",
    "failures_of",
    "is_code_store",
    "is_finished",
    "locked",
    "missing_shards",
    "read_manifest",
    "read_plan",
    "remove_leftovers",
    "with_failures",
    "write_manifest",
    "write_plan",
    "write_report",
    "write_shard",
]

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST_FILE, PLAN_FILE, REPORT_FILE = "manifest.json", "plan.json", "report.csv"
# Where in a store a clip's rows begin, a column of the table of its clips.
ROW_COLUMN = "code_row"
# Columns of a store and of that table which say nothing that the source said.
OWN_COLUMNS = ("copy", "length", "codes", "companions", ROW_COLUMN)
PACKAGES = ("hf_audioformer", "torch", "transformers", "datasets", "pyarrow")
_SHARD_KEY = b"hf_audioformer"


def code_settings(extractor: AudioFormerFeatureExtractor) -> dict[str, Any]:
    """What decides which codes a clip has, whatever their number: the codec by its checksum, and how clips reach it."""
    return {
        "codec_sha256": extractor.load_codec().fingerprint(),
        "sampling_rate": extractor.sampling_rate,
        "hop_length": extractor.hop_length,
        "codebook_size": extractor.codebook_size,
        "rms_level_dbfs": extractor.rms_level_dbfs,
        "max_length_seconds": extractor.max_length_seconds,
    }


@dataclass(frozen=True)
class StorePlan:
    """Everything that decides what a store holds.

    `settings` are those of `code_settings`, `augmentation` the fields of an `AudioAugmentation`; `clips_sha256` is that
    of all columns of the source but its audio; `companions` maps the folder of each network to its checksum, and
    `companion_size` is their hidden size.

    Raises:
        ValueError: The codes do not fit into 16 bits, or shards would be empty.
    """

    source: str
    clips: int
    clips_sha256: str
    label_names: list[str]
    multi_label: bool
    codec: str
    codec_revision: str | None
    settings: dict[str, Any]
    num_codebooks: int
    augmentation: dict[str, Any]
    seed: int
    companions: dict[str, str]
    companion_size: int
    shard_clips: int
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.settings["codebook_size"] > 2**16:
            raise ValueError(
                f"the codec has {self.settings['codebook_size']} codes per codebook; a store holds codes of 16 bits, "
                f"up to {2**16}."
            )
        if self.shard_clips < 1:
            raise ValueError(f"shard_clips is {self.shard_clips}; a shard holds at least one clip.")

    @property
    def num_shards(self) -> int:
        return -(-self.clips // self.shard_clips)

    @property
    def num_copies(self) -> int:
        """Changed copies of each clip."""
        return self.augmentation["copies"]

    @property
    def digest(self) -> str:
        """A SHA-256 of what decides what is in a shard: of all but the names of folders, which are others elsewhere."""
        content = {item.name: getattr(self, item.name) for item in fields(StorePlan)} | {
            **dict.fromkeys(("source", "codec", "codec_revision")),
            "companions": list(self.companions.values()),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def clips_of(self, shard: int) -> range:
        """The clips of a shard, by their place in the source."""
        start = shard * self.shard_clips
        return range(start, min(start + self.shard_clips, self.clips))

    def shard_file(self, shard: int) -> str:
        """A shard's path inside the store."""
        return f"data/train-{shard:05d}-of-{self.num_shards:05d}.parquet"


@dataclass(frozen=True)
class Manifest(StorePlan):
    """A finished store: its plan, and what came out.

    `skipped` clips are in none of the `rows`; `seconds` is the sound of the others, copies not counted; `shards` gives
    `file`, `rows` and `sha256` of each.
    """

    rows: int = 0
    skipped: int = 0
    seconds: float = 0.0
    shards: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"

    @classmethod
    def of(cls, plan: StorePlan, **outcome: Any) -> Self:
        return cls(**{item.name: getattr(plan, item.name) for item in fields(plan)}, **outcome)


class CodeRow(NamedTuple):
    """A version of a clip: its place in the source, `codes` (frames, num_codebooks) and `companions`, if there are."""

    clip: int
    copy: int
    codes: np.ndarray
    companions: np.ndarray | None = None


class Failure(NamedTuple):
    """A version of a clip that could not be encoded."""

    id: str
    path: str
    copy: int
    reason: str


def is_code_store(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder is a code store, finished or not."""
    return Path(folder, PLAN_FILE).is_file()


def is_finished(folder: str | os.PathLike[str]) -> bool:
    """Whether the store has its manifest, and so everything else."""
    return Path(folder, MANIFEST_FILE).is_file()


def read_plan(folder: str | os.PathLike[str]) -> StorePlan | None:
    """The plan of a store, finished or not; None if there is none in the folder."""
    path = Path(folder, PLAN_FILE)
    return _parse(StorePlan, path) if path.is_file() else None


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of a finished store.

    Raises:
        ValueError: The store is not finished, was made by another release, or names other files than its own shards.
    """
    path = Path(folder, MANIFEST_FILE)
    if not path.is_file():
        raise ValueError(
            f"{folder} is a code store that is not finished; run `hf-audioformer encode` as it was begun to go on."
        )
    manifest: Manifest = _parse(Manifest, path)
    for shard, found in enumerate(manifest.shards):
        if found["file"] != manifest.shard_file(shard):  # a store may come from the Hub: no file elsewhere is read
            raise ValueError(
                f"{path}: shard {shard} is {found['file']!r}; a store's own is {manifest.shard_file(shard)!r}. Do not "
                "use it: somebody changed it after it was made."
            )
    return manifest


def write_plan(folder: str | os.PathLike[str], plan: StorePlan) -> None:
    """Begins a store, or goes on with one, which is not finished from now on."""
    Path(folder, "data").mkdir(parents=True, exist_ok=True)
    Path(folder, MANIFEST_FILE).unlink(missing_ok=True)
    _write_whole(Path(folder, PLAN_FILE), json.dumps(asdict(plan), indent=1).encode())


def missing_shards(folder: str | os.PathLike[str], plan: StorePlan, shards: Iterable[int] | None = None) -> list[int]:
    """Those of `shards` (default: all) that are not there yet, or are of another plan.

    Raises:
        ValueError: A shard is damaged.
    """
    return [
        shard
        for shard in (range(plan.num_shards) if shards is None else shards)
        if not (file := Path(folder, plan.shard_file(shard))).is_file()
        or not _is_of(plan, _read_footer(file, plan.shard_file(shard))[1])
    ]


def _is_of(plan: StorePlan, facts: Mapping[str, Any]) -> bool:
    """Whether a shard that says this of itself is of the plan; earlier releases did not say."""
    digest = plan.digest
    return facts.get("plan_sha256", digest) == digest


def write_shard(
    folder: str | os.PathLike[str],
    plan: StorePlan,
    shard: int,
    columns: datasets.Dataset,
    rows: Sequence[CodeRow],
    failures: Sequence[Failure],
) -> None:
    """Writes a shard, whole or not at all.

    Args:
        columns: What the source says of the shard's clips, one row each, with `id`.
        rows: In the order of clip and copy.

    Raises:
        OSError: It cannot be written; the disk may be full.
    """
    frames = sum(len(row.codes) for row in rows if row.copy == 0)
    facts = {
        "failures": failures,
        "seconds": frames * plan.settings["hop_length"] / plan.settings["sampling_rate"],
        "plan_sha256": plan.digest,
    }
    table = _shard_table(plan, shard, columns, rows)
    _write_whole(Path(folder, plan.shard_file(shard)), _shard_bytes(table, facts))


def with_failures(shard: str | os.PathLike[str], failures: Sequence[Failure]) -> bytes:
    """The file of a shard, were these its failures."""
    import pyarrow.parquet

    _, facts = _read_footer(Path(shard), str(shard))
    return _shard_bytes(pyarrow.parquet.read_table(shard), facts | {"failures": failures})


def write_report(folder: str | os.PathLike[str], failures: Sequence[Failure]) -> None:
    """Writes the list of what could not be encoded."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(Failure._fields)
    rows.writerows(failures)
    _write_whole(Path(folder, REPORT_FILE), text.getvalue().encode())


def write_manifest(
    folder: str | os.PathLike[str], plan: StorePlan, device: str, failures: Sequence[Failure]
) -> Manifest:
    """Ends a store whose shards are all there; `failures` are those of all shards.

    Raises:
        ValueError: A shard is damaged, or of another plan.
    """
    shards, seconds = [], 0.0
    for shard in range(plan.num_shards):
        content = Path(folder, plan.shard_file(shard)).read_bytes()
        num_rows, facts = _read_shard_footer(io.BytesIO(content), plan, shard)
        shards.append({"file": plan.shard_file(shard), "rows": num_rows, "sha256": hashlib.sha256(content).hexdigest()})
        seconds += facts["seconds"]
    manifest = Manifest.of(
        plan,
        rows=sum(shard["rows"] for shard in shards),
        skipped=sum(failure.copy == 0 for failure in failures),
        seconds=seconds,
        shards=shards,
        versions={package: version(package) for package in PACKAGES},
        device=device,
    )
    _write_whole(Path(folder, MANIFEST_FILE), json.dumps(asdict(manifest), indent=1).encode())
    return manifest


def failures_of(folder: str | os.PathLike[str], plan: StorePlan, shard: int) -> list[Failure]:
    """What could not be encoded of a shard that is there.

    Raises:
        ValueError: The shard is damaged, or of another plan.
    """
    _, facts = _read_shard_footer(Path(folder, plan.shard_file(shard)), plan, shard)
    return [Failure(*failure) for failure in facts["failures"]]


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Deletes what a killed process left half-written."""
    for path in Path(folder).rglob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps a second process from writing the same store; a process that ends, however it ends, lets go.

    The lock file lies beside the folder, which may be deleted under the lock. It is a record lock, which forked helper
    processes do not inherit: one that outlives a killed parent must not keep the store locked.

    On a file system that knows no locks it warns, and keeps no process away.

    Raises:
        BlockingIOError: Another process has the lock.
    """
    import fcntl

    path = Path(os.path.abspath(folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(
                    f"another process is encoding into {folder}. Wait for it or stop it, or name another --output_dir."
                ) from None
            logger.warning(
                "the file system of %s cannot lock (%s): make sure that no other process encodes into %s",
                path.parent,
                error.strerror,
                folder,
            )
        yield


def _shard_table(plan: StorePlan, shard: int, columns: datasets.Dataset, rows: Sequence[CodeRow]) -> pyarrow.Table:
    """All columns of a shard, with the features that `datasets` reads from a parquet file."""
    import datasets
    import pyarrow

    first = plan.clips_of(shard).start
    features = {
        **columns.features,
        "copy": datasets.Value("int32"),
        "length": datasets.Value("int32"),
        "codes": datasets.List(datasets.List(datasets.Value("uint16"), length=plan.num_codebooks)),
    }
    frames = [len(row.codes) for row in rows]
    codes = [np.empty((0, plan.num_codebooks), np.uint16), *(row.codes.astype(np.uint16) for row in rows)]
    source = columns.with_format("arrow")[:].take(pyarrow.array([row.clip - first for row in rows], pyarrow.int64()))
    arrays = {
        **{name: source.column(name) for name in columns.column_names},
        "copy": [row.copy for row in rows],
        "length": frames,
        "codes": pyarrow.ListArray.from_arrays(np.cumsum([0, *frames]), _fixed_lists(np.concatenate(codes))),
    }
    if plan.companions:
        shape = (len(plan.companions), plan.companion_size)
        stored = [row.companions[None] for row in rows if row.companions is not None]
        vector = datasets.List(datasets.Value("float32"), length=plan.companion_size)
        features["companions"] = datasets.List(vector, length=len(plan.companions))
        arrays["companions"] = _fixed_lists(np.concatenate([np.empty((0, *shape), np.float32), *stored]))
    schema = datasets.Features(features).arrow_schema
    return pyarrow.table(arrays).cast(schema)


def _shard_bytes(table: pyarrow.Table, facts: dict[str, Any]) -> bytes:
    """A parquet file with the table's rows, and beside them what else the shard says of itself."""
    import pyarrow.parquet

    table = table.replace_schema_metadata({**table.schema.metadata, _SHARD_KEY: json.dumps(facts)})
    buffer = io.BytesIO()
    with pyarrow.parquet.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        if len(table):  # `datasets` reads a file without row groups, and fails at an empty one
            writer.write_table(table)
    return buffer.getvalue()


def _fixed_lists(values: np.ndarray) -> pyarrow.Array:
    """Lists of fixed length, nested to the shape (rows, ...) of the values."""
    import pyarrow

    array = pyarrow.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        array = pyarrow.FixedSizeListArray.from_arrays(array, size)
    return array


def _read_shard_footer(file: Path | io.BytesIO, plan: StorePlan, shard: int) -> tuple[int, dict[str, Any]]:
    """As `_read_footer`; a shard of another plan is an error, too."""
    num_rows, facts = _read_footer(file, plan.shard_file(shard))
    if not _is_of(plan, facts):
        raise ValueError(
            f"the shard {plan.shard_file(shard)} is of another plan: a task from before the store was overwritten "
            "wrote it. Stop that task and run the same command again, without --overwrite."
        )
    return num_rows, facts


def _read_footer(file: Path | io.BytesIO, name: str) -> tuple[int, dict[str, Any]]:
    """The number of rows of a shard and what else it says of itself.

    Raises:
        ValueError: It is damaged.
    """
    import pyarrow.parquet

    try:
        footer = pyarrow.parquet.read_metadata(file)
        return footer.num_rows, json.loads(footer.metadata[_SHARD_KEY])
    except (pyarrow.ArrowException, KeyError, TypeError) as error:
        raise ValueError(
            f"the shard {name} is damaged ({error}). Delete it and run the same command again, without --overwrite."
        ) from error


def _parse(cls: type[Any], path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8"))
    found = content.get("format_version")
    if found != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format_version {found}, this release reads {FORMAT_VERSION}. Encode again, with --overwrite "
            "true or into another --output_dir."
        )
    return cls(**content)


def _write_whole(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all, whatever happens to the process or the machine."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"{path} ({len(content):,} bytes) could not be written: {error.strerror}; {free:,} bytes are free there. "
            "Nothing half-written is left. Make room and run the same command again, without --overwrite, to go on."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
