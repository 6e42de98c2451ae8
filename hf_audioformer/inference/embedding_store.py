"""Embeddings in files: safetensors, or a parquet table with a row per clip."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .embedder import ClipEmbedding

__all__ = ["SUFFIXES", "StoredEmbeddings", "embedding_writer", "read_embeddings"]

SUFFIXES = (".safetensors", ".parquet")
# Clips in a row group of a parquet file, which are held in memory until it is full.
ROW_GROUP_CLIPS = 64

Write = Callable[[str, ClipEmbedding], None]


@dataclass(frozen=True)
class StoredEmbeddings:
    """What a file of embeddings holds: `vectors`, float32 (clips, size), of the clips `files`, and `settings`, how they
    were made."""

    files: list[str]
    vectors: np.ndarray
    settings: dict[str, Any]


def check_suffix(path: Path) -> None:
    """Raises a ValueError if the name does not say which of the two formats the file has."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: embeddings are written to a file named *{' or *'.join(SUFFIXES)}")


@contextmanager
def embedding_writer(path: Path, settings: Mapping[str, Any], *, frames: bool) -> Iterator[Write]:
    """A function that takes a clip's name and vectors; whatever ends the block, the file then holds all it was given.

    Parquet has the columns `file`, `seconds`, `embedding` and with `frames` `frame_starts`, in seconds, and `frames`, a
    list of vectors. Safetensors has `embeddings` (clips, size), `seconds` (clips,) and with `frames` those of all clips
    one after the other, `frames` (frames, hidden_size), with `frame_starts` (frames,) and `frame_counts` (clips,); the
    names are in its metadata as a JSON list, `files`. Both have `settings` in their metadata.

    Raises:
        ValueError: The name ends otherwise than in .safetensors or .parquet.
    """
    check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write = _parquet_writer if path.suffix == ".parquet" else _safetensors_writer
    with write(path, json.dumps(settings), frames) as writer:
        yield writer


def read_embeddings(path: Path) -> StoredEmbeddings:
    """The vectors of the clips in a file that `embedding_writer` made.

    Raises:
        ValueError: It is of another kind, or holds no clip.
    """
    from safetensors import SafetensorError

    check_suffix(path)
    try:
        stored = _read_parquet(path) if path.suffix == ".parquet" else _read_safetensors(path)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: not a file of embeddings made by hf-audioformer embed ({error})") from error
    if not stored.files:
        raise ValueError(f"{path}: the file holds no clip")
    return stored


@contextmanager
def _safetensors_writer(path: Path, settings: str, frames: bool) -> Iterator[Write]:
    from safetensors.numpy import save_file

    names: list[str] = []
    vectors: list[np.ndarray] = []
    seconds: list[float] = []
    of_frames: list[tuple[np.ndarray, np.ndarray]] = []  # left empty unless asked for: thousands of times as large

    def write(name: str, embedding: ClipEmbedding) -> None:
        names.append(name)
        vectors.append(embedding.vector)
        seconds.append(embedding.seconds)
        if frames:
            of_frames.append((embedding.frames, embedding.frame_starts))

    try:
        yield write
    finally:
        tensors = {"embeddings": np.array(vectors, dtype=np.float32), "seconds": np.array(seconds)}
        if of_frames:
            tensors["frames"] = np.concatenate([of_clip for of_clip, _ in of_frames])
            tensors["frame_starts"] = np.concatenate([starts for _, starts in of_frames])
            tensors["frame_counts"] = np.array([len(of_clip) for of_clip, _ in of_frames])
        metadata = {"files": json.dumps(names, ensure_ascii=False), "settings": settings}
        save_file(tensors, path, metadata=metadata)


@contextmanager
def _parquet_writer(path: Path, settings: str, frames: bool) -> Iterator[Write]:
    import pyarrow
    from pyarrow import parquet

    vector = pyarrow.list_(pyarrow.float32())
    fields = [("file", pyarrow.string()), ("seconds", pyarrow.float64()), ("embedding", vector)]
    if frames:
        fields += [("frame_starts", pyarrow.list_(pyarrow.float64())), ("frames", pyarrow.list_(vector))]
    schema = pyarrow.schema(fields, metadata={"settings": settings})
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as file:

        def flush() -> None:
            file.write_table(pyarrow.Table.from_pylist(rows, schema))
            rows.clear()

        def write(name: str, embedding: ClipEmbedding) -> None:
            row: dict[str, Any] = {"file": name, "seconds": embedding.seconds, "embedding": embedding.vector}
            if frames:
                row |= {"frame_starts": embedding.frame_starts, "frames": list(embedding.frames)}
            rows.append(row)
            if len(rows) == ROW_GROUP_CLIPS:
                flush()

        try:
            yield write
        finally:
            flush()


def _read_safetensors(path: Path) -> StoredEmbeddings:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        return StoredEmbeddings(
            json.loads(metadata["files"]), file.get_tensor("embeddings"), json.loads(metadata["settings"])
        )


def _read_parquet(path: Path) -> StoredEmbeddings:
    from pyarrow import parquet

    table = parquet.read_table(path, columns=["file", "embedding"])
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    return StoredEmbeddings(table["file"].to_pylist(), vectors, json.loads(table.schema.metadata[b"settings"]))
