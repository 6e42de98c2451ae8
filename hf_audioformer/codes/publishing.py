"""A code store as others may have it: whole, and without the paths of the machine that made it."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from .store import (
    MANIFEST_FILE,
    PLAN_FILE,
    Failure,
    Manifest,
    StorePlan,
    failures_of,
    is_code_store,
    read_manifest,
    with_failures,
)

__all__ = ["published_files", "published_manifest"]


def published_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of a finished store, in which folders of this machine are told by their last part.

    Raises:
        ValueError: There is no code store, or it is not finished.
        FileNotFoundError: A shard is missing.
    """
    if not is_code_store(folder):
        raise ValueError(f"{folder} is no code store; `hf-audioformer encode` makes one.")
    manifest = read_manifest(folder)
    for shard in manifest.shards:
        if not Path(folder, shard["file"]).is_file():
            raise FileNotFoundError(f"{Path(folder, shard['file'])} is missing; the manifest names it. Copy it again.")
    companions = _distinct(map(_last_part, manifest.companions))
    return replace(
        manifest,
        source=_last_part(manifest.source),
        codec=_last_part(manifest.codec),
        companions=dict(zip(companions, manifest.companions.values(), strict=True)),
    )


def published_files(folder: str | os.PathLike[str]) -> dict[str, Path | bytes]:
    """The files of a finished store by their paths in it, as they are, or the bytes they become.

    Raises:
        ValueError, FileNotFoundError: As `published_manifest`.
    """
    manifest = published_manifest(folder)
    shards = {shard["file"]: _shard(folder, manifest, number) for number, shard in enumerate(manifest.shards)}
    manifest = replace(manifest, shards=[_described(shard, shards[shard["file"]]) for shard in manifest.shards])
    content = asdict(manifest)
    plan = {item.name: content[item.name] for item in fields(StorePlan)}
    return {MANIFEST_FILE: _json(content), PLAN_FILE: _json(plan), **shards}


def _shard(folder: str | os.PathLike[str], plan: StorePlan, number: int) -> Path | bytes:
    """A shard; if it says what could not be encoded, it says so by the clips' ids alone."""
    file = Path(folder, plan.shard_file(number))
    failures = failures_of(folder, plan, number)
    nameless = [Failure(failure.id, "", failure.copy, _without_path(failure)) for failure in failures]
    return file if nameless == failures else with_failures(file, nameless)


def _described(shard: dict[str, Any], file: Path | bytes) -> dict[str, Any]:
    return shard | {"sha256": sha256(file).hexdigest()} if isinstance(file, bytes) else shard


def _without_path(failure: Failure) -> str:
    return failure.reason.replace(failure.path, failure.id) if failure.path else failure.reason


def _last_part(name: str) -> str:
    return Path(name).resolve().name if Path(name).is_absolute() or Path(name).exists() else name


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, with a number before those that stand there already."""
    seen: list[str] = []
    for number, name in enumerate(names):
        seen.append(f"{number}_{name}" if name in seen else name)
    return seen


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()
