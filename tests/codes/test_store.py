"""The code store on disk: what `datasets` reads of it, and that nothing half-written is ever seen."""

import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet
import pytest

from hf_audioformer.codes.store import (
    CodeRow,
    Failure,
    StorePlan,
    failures_of,
    is_code_store,
    is_finished,
    locked,
    missing_shards,
    read_manifest,
    read_plan,
    remove_leftovers,
    write_manifest,
    write_plan,
    write_report,
    write_shard,
)

SETTINGS = {"codec_sha256": "0", "sampling_rate": 24_000, "hop_length": 320, "codebook_size": 256}
PLAN = StorePlan(
    source="birds.csv",
    clips=5,
    clips_sha256="0",
    label_names=["owl", "wren"],
    multi_label=True,
    codec="codec",
    codec_revision=None,
    settings=SETTINGS,
    num_codebooks=4,
    augmentation={"copies": 1},
    seed=0,
    companions={"c2": "1", "c3": "2"},
    companion_size=8,
    shard_clips=2,
)
LABELS = [[0], [1], [0, 1], [], [1]]
BAD = Failure("c2.wav", "/birds/c2.wav", 0, "not readable, as audio")


def rows_of(plan: StorePlan, shard: int) -> list[CodeRow]:
    """Codes of 5 to 9 frames in two versions; the second shard has none."""
    random = np.random.default_rng(shard)
    return [
        CodeRow(
            clip,
            copy,
            random.integers(256, size=(5 + clip, plan.num_codebooks)),
            random.normal(size=(2, 8)).astype(np.float32) if plan.companions else None,
        )
        for clip in plan.clips_of(shard)
        for copy in range(2)
        if shard != 1
    ]


def write(folder: Path, plan: StorePlan = PLAN) -> list[CodeRow]:
    """A finished store, and its rows."""
    label = datasets.List(datasets.ClassLabel(names=plan.label_names))
    features = {"id": datasets.Value("string"), "labels": label, "fold": datasets.Value("int32")}
    columns = {"id": [f"c{index}.wav" for index in range(5)], "labels": LABELS, "fold": [1, 2, 3, 4, 5]}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    write_plan(folder, plan)
    for shard in missing_shards(folder, plan):
        bad = [BAD] if shard == 1 else []
        write_shard(folder, plan, shard, table.select(plan.clips_of(shard)), rows_of(plan, shard), bad)
    failures = [failure for shard in range(plan.num_shards) for failure in failures_of(folder, plan, shard)]
    write_report(folder, failures)
    write_manifest(folder, plan, "cpu", failures)
    return [row for shard in range(plan.num_shards) for row in rows_of(plan, shard)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.unit
@pytest.mark.parametrize("companions", [{}, PLAN.companions], ids=["codes", "with companions"])
@pytest.mark.parametrize("reader", ["folder", "parquet", "stream"])
def test_datasets_reads_rows_with_named_classes(companions: dict[str, str], reader: str, tmp_path: Path) -> None:
    plan = replace(PLAN, companions=companions, companion_size=8 if companions else 0)
    expected = write(tmp_path / "store", plan)
    files = sorted(map(str, (tmp_path / "store").rglob("*.parquet")))
    cache = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    found: Any = {
        "folder": lambda: datasets.load_dataset(str(tmp_path / "store"), **cache),
        "parquet": lambda: datasets.Dataset.from_parquet(files, cache_dir=cache["cache_dir"]),
        "stream": lambda: datasets.load_dataset("parquet", data_files=files, streaming=True, **cache),
    }[reader]()
    assert found.features["labels"] == datasets.List(datasets.ClassLabel(names=["owl", "wren"]))
    assert found.features["codes"] == datasets.List(datasets.List(datasets.Value("uint16"), length=4))
    rows = list(found)
    assert [(row["id"], row["copy"]) for row in rows] == [(f"c{row.clip}.wav", row.copy) for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row["codes"], wanted.codes)
        assert row["length"] == len(wanted.codes)
        assert (row["labels"], row["fold"]) == (LABELS[wanted.clip], wanted.clip + 1)
        if companions:
            np.testing.assert_array_equal(row["companions"], wanted.companions)
    assert ("companions" in found.features) == bool(companions)


@pytest.mark.unit
def test_plan_manifest_and_report_say_what_is_there(tmp_path: Path) -> None:
    write(tmp_path)
    assert read_plan(tmp_path) == PLAN
    manifest = read_manifest(tmp_path)
    assert {name: asdict(manifest)[name] for name in asdict(PLAN)} == asdict(PLAN)
    assert (manifest.rows, manifest.skipped, [shard["rows"] for shard in manifest.shards]) == (6, 1, [4, 0, 2])
    assert manifest.seconds == pytest.approx((5 + 6 + 9) * 320 / 24_000)
    assert set(manifest.versions) >= {"torch", "transformers", "hf_audioformer"}
    text = 'id,path,copy,reason\nc2.wav,/birds/c2.wav,0,"not readable, as audio"\n'
    assert (tmp_path / "report.csv").read_text() == text


@pytest.mark.invariant
def test_the_same_plan_leaves_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    (tmp_path / "other" / PLAN.shard_file(1)).unlink()
    assert missing_shards(tmp_path / "other", PLAN) == [1]
    write(tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


@contextmanager
def no_file_above(num_bytes: int) -> Iterator[None]:
    """The system refuses to write more into any file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.fault
def test_a_disk_without_room_leaves_no_half_shard(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN)
    columns = datasets.Dataset.from_dict({"id": ["c0.wav", "c1.wav"]})
    with (
        no_file_above(1_000),
        pytest.raises(OSError, match=r"00000-of-00003.parquet \([\d,]+ bytes\) could not be written: File too large"),
    ):
        write_shard(tmp_path, PLAN, 0, columns, rows_of(PLAN, 0), [])
    assert list((tmp_path / "data").iterdir()) == []
    assert missing_shards(tmp_path, PLAN) == [0, 1, 2]


@pytest.mark.fault
def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    write(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "data" / ".train-00000-of-00003.parquet.1a2b3c4d.tmp").write_bytes(b"PAR1")
    remove_leftovers(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.fault
@pytest.mark.parametrize("damage", [b"", b"PAR1 nothing else PAR1"])
def test_a_damaged_shard_is_named(damage: bytes, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / PLAN.shard_file(2)).write_bytes(damage)
    with pytest.raises(ValueError, match=r"data/train-00002-of-00003.parquet is damaged .* Delete it and run the same"):
        failures_of(tmp_path, PLAN, 2)


@pytest.mark.fault
def test_a_store_is_finished_when_its_manifest_is_there(tmp_path: Path) -> None:
    assert not is_code_store(tmp_path)
    assert read_plan(tmp_path) is None
    write(tmp_path)
    assert is_finished(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert is_code_store(tmp_path)
    assert not is_finished(tmp_path)
    with pytest.raises(ValueError, match="is not finished; run `hf-audioformer encode` as it was begun"):
        read_manifest(tmp_path)


@pytest.mark.fault
@pytest.mark.parametrize("elsewhere", ["/etc/passwd", "../other/data/train-00000-of-00003.parquet"])
def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path, elsewhere: str) -> None:
    write(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(PLAN.shard_file(1), elsewhere))
    with pytest.raises(ValueError, match=f"shard 1 is '{elsewhere}'; a store's own is '{PLAN.shard_file(1)}'"):
        read_manifest(tmp_path)


@pytest.mark.fault
def test_another_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, replace(PLAN, format_version=7))
    with pytest.raises(ValueError, match=r"format_version 7, this release reads 1\. Encode"):
        read_manifest(tmp_path)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"settings": SETTINGS | {"codebook_size": 2**16 + 1}}, "65537 codes per codebook; .* up to 65536"),
        ({"shard_clips": 0}, "shard_clips is 0; a shard holds at least one clip"),
    ],
)
def test_plans_that_cannot_be_stored_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **settings)


@pytest.mark.fault
def test_a_store_that_is_gone_on_with_is_not_finished(tmp_path: Path) -> None:
    write(tmp_path)
    write_plan(tmp_path, PLAN)
    assert not is_finished(tmp_path)
    assert missing_shards(tmp_path, PLAN) == []


@pytest.mark.fault
def test_shards_of_another_plan_are_none_of_this_one(tmp_path: Path) -> None:
    """As a task writes them that was begun before the store was overwritten."""
    other = replace(PLAN, seed=1)
    write(tmp_path / "other", other)
    write(tmp_path / "store")
    os.replace(tmp_path / "other" / PLAN.shard_file(2), tmp_path / "store" / PLAN.shard_file(2))
    assert missing_shards(tmp_path / "store", PLAN) == [2]
    assert missing_shards(tmp_path / "store", PLAN, [0, 1]) == []
    for refused in (
        lambda: failures_of(tmp_path / "store", PLAN, 2),
        lambda: write_manifest(tmp_path / "store", PLAN, "cpu", []),
    ):
        with pytest.raises(ValueError, match=r"train-00002-of-00003.parquet is of another plan: .* Stop that task and"):
            refused()
    before = contents(tmp_path / "store")
    write(tmp_path / "store")
    assert contents(tmp_path / "store") != before
    assert missing_shards(tmp_path / "store", PLAN) == []


@pytest.mark.unit
def test_a_plan_is_the_same_where_folders_have_other_names(tmp_path: Path) -> None:
    """As in a store that was pushed; and shards of earlier releases do not say which plan they are of."""
    elsewhere = replace(PLAN, source="wrens.csv", codec="other", companions={"d": "1", "e": "2"})
    write(tmp_path)
    assert missing_shards(tmp_path, elsewhere) == []
    assert read_manifest(tmp_path).digest == elsewhere.digest != replace(PLAN, clips_sha256="1").digest
    shard = tmp_path / PLAN.shard_file(0)
    table = pyarrow.parquet.read_table(shard)
    facts = json.loads(table.schema.metadata[b"hf_audioformer"])
    del facts["plan_sha256"]
    metadata = table.schema.metadata | {b"hf_audioformer": json.dumps(facts).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), shard)
    assert missing_shards(tmp_path, PLAN) == []
    assert failures_of(tmp_path, PLAN, 0) == []


@pytest.mark.fault
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "lockf", refused)
    with locked(tmp_path / "store"):
        pass
    (message,) = caplog.messages
    assert message.startswith(f"the file system of {tmp_path} cannot lock (no locks here): make sure that no other")


HOLD_LOCK = """
import os, sys, time
from hf_audioformer.codes.store import locked
with locked(sys.argv[1]):
    if os.fork() == 0:  # a helper that outlives its killed parent
        time.sleep(60)
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.fault
def test_one_process_at_a_time_and_none_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    program = [sys.executable, "-c", HOLD_LOCK, str(folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, start_new_session=True) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == b"locked\n"
            with pytest.raises(BlockingIOError, match=r"another process is encoding into .*store"), locked(folder):
                pass
            other.kill()
            other.wait()
            with locked(folder):
                assert not folder.exists()  # the lock lies beside it
        finally:
            subprocess.run(["kill", "-9", "--", f"-{other.pid}"], check=True)
