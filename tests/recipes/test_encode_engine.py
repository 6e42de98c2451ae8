"""The pipeline steps, and what is handed to the engine's executors; tests/recipes/test_encode.py kills and resumes."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_audioformer.codes.store import missing_shards, read_plan
from hf_audioformer.recipes import encode
from hf_audioformer.recipes.encode import ClusterArguments, CodecArguments, EncodeArguments
from hf_audioformer.recipes.encode_engine import (
    EncodeShards,
    ReadShards,
    WriteShards,
    open_job,
    shards_of_task,
)
from hf_audioformer.recipes.inputs import ReadingArguments

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def arguments(tone_folder: Path, tiny_checkpoint: str, tmp_path: Path) -> EncodeArguments:
    """Eight shards in three tasks of Slurm."""
    return EncodeArguments(
        data=ReadingArguments(source=str(tone_folder)),
        output_dir=str(tmp_path / "codes"),
        codec=CodecArguments(checkpoint=tiny_checkpoint),
        shard_clips=3,
        executor="slurm",
        tasks=3,
        workers=2,
        cluster=ClusterArguments(partition="cpu", cpus_per_task=2, gpus_per_task=1, sbatch={"account": "birds"}),
    )


@pytest.fixture
def begun(arguments: EncodeArguments) -> EncodeArguments:
    """A store that has its plan and no shards."""
    assert encode.run(replace(arguments, dry_run=True)) is None
    return arguments


@pytest.mark.unit
@pytest.mark.parametrize("tasks", [1, 3, 8, 11])
def test_each_shard_has_one_task(tasks: int, begun: EncodeArguments) -> None:
    plan = read_plan(begun.output_dir)
    assert plan is not None
    assert [shard for rank in range(tasks) for shard in shards_of_task(plan, rank, tasks)] == list(range(8))


@pytest.mark.unit
def test_three_steps_write_the_missing_shards_of_a_task(begun: EncodeArguments) -> None:
    steps = [ReadShards(begun.output_dir), EncodeShards(begun, threads=1), WriteShards()]
    plan = read_plan(begun.output_dir)
    assert plan is not None
    for expected in ([2, 3, 4], []):
        documents = None
        for step in steps:
            documents = step(documents, rank=1, world_size=3)
        assert [document.metadata for document in documents] == [{"shard": shard} for shard in expected]
        assert missing_shards(begun.output_dir, plan) == [0, 1, 5, 6, 7]


@pytest.mark.fault
def test_a_task_refuses_clips_that_the_store_was_not_begun_with(begun: EncodeArguments) -> None:
    with pytest.raises(ValueError, match=r"num_codebooks was 8 and is 2 now"):
        open_job(replace(begun, codec=replace(begun.codec, num_codebooks=2)))
    with pytest.raises(ValueError, match=r"other is no code store; `hf-audioformer encode` begins one"):
        open_job(replace(begun, output_dir=f"{begun.output_dir}/other"))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("missing", "executor", "message"),
    [
        ("datatrove", "local", r"--executor local needs datatrove: pip install 'hf_audioformer\[encode\]'"),
        ("ray", "ray", "--executor ray needs Ray beside datatrove: pip install ray"),
    ],
)
def test_a_missing_engine_is_named(
    missing: str, executor: Any, message: str, arguments: EncodeArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "datatrove":
        monkeypatch.delitem(sys.modules, "hf_audioformer.recipes.encode_engine")
        for module in [name for name in sys.modules if name.startswith("datatrove.")]:
            monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=message):
        encode.run(replace(arguments, executor=executor))


@pytest.mark.unit
def test_a_dry_run_shows_what_would_be_submitted(
    arguments: EncodeArguments, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert encode.run(replace(arguments, dry_run=True)) is None
    jobs = re.split(r"^# sbatch ", capfd.readouterr().out, flags=re.MULTILINE)[1:]
    array, merge, finish, _ = jobs
    logs = f"{arguments.output_dir}/engine/slurm-3"
    for line in ("array=0-2%2", "cpus-per-task=2", "gpus=1", "partition=cpu", "time=24:00:00", "account=birds"):
        assert f"\n#SBATCH --{line}\n" in array
    assert f"launch_pickled_pipeline {logs}/executor.pik" in array
    assert f'export PATH="{Path(sys.executable).parent}:$PATH"' in array
    assert "#SBATCH --dependency=afterok:JOB" in merge
    assert finish.startswith("--export=ALL,RUN_OFFSET=0 --dependency=afterok:JOB ")
    assert "gpus" not in finish
    for number, job in enumerate(jobs):
        script = tmp_path / f"{number}.sh"
        script.write_text(job.partition("\n")[2])
        subprocess.run(["bash", "-n", str(script)], check=True)
    assert missing_shards(arguments.output_dir, read_plan(arguments.output_dir)) == list(range(8))


@pytest.mark.fault
def test_a_dry_run_changes_nothing_in_a_store(begun: EncodeArguments) -> None:
    alone = replace(begun, executor=None, tasks=1, workers=None)
    encode.run(alone)
    Path(begun.output_dir, read_plan(begun.output_dir).shard_file(2)).unlink()
    Path(begun.output_dir, "data", ".half-written.tmp").touch()  # by a task that is still running
    before = store_files(begun.output_dir)
    with pytest.raises(ValueError, match="dry_run changes nothing in a store, and overwrite would empty it"):
        encode.run(replace(begun, dry_run=True, overwrite=True))
    assert encode.run(replace(begun, dry_run=True)) is None
    assert store_files(begun.output_dir) == before


def store_files(folder: str) -> dict[Path, int]:
    """When the files of a store were written."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.fault
def test_shards_of_a_task_from_before_overwriting_are_made_again(begun: EncodeArguments, tmp_path: Path) -> None:
    alone = replace(begun, executor=None, tasks=1, workers=None)
    former = open_job(begun)
    encode.run(replace(alone, codec=replace(begun.codec, num_codebooks=2), overwrite=True))
    former.write(2, *former.encode(2, lambda seconds: None))
    encode.run(replace(alone, codec=replace(begun.codec, num_codebooks=2)))
    assert encode.run(replace(alone, output_dir=str(tmp_path / "alone"), codec=replace(begun.codec, num_codebooks=2)))
    shard = read_plan(begun.output_dir).shard_file(2)
    assert Path(begun.output_dir, shard).read_bytes() == Path(tmp_path, "alone", shard).read_bytes()


# A cluster of one machine: sbatch runs each task of an array at once.
SBATCH = """#!/bin/bash
for script; do :; done
array=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
grep -q merge_stats "$script" || for task in $(seq 0 "$array"); do
    SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here bash "$script" > /dev/null 2>> "$0.log" || exit 1
done
echo Submitted batch job 7
"""


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_submitted_jobs_leave_what_one_process_leaves(
    arguments: EncodeArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {"sbatch": SBATCH, "srun": '#!/bin/bash\nshift 3\nexec "$@"\n', "scontrol": "#!/bin/bash\necho here\n"}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    alone = replace(arguments, executor=None, tasks=1, workers=None, output_dir=str(tmp_path / "alone"))
    expected = encode.run(alone)
    cluster = ClusterArguments(partition="cpu")
    assert encode.run(replace(arguments, tasks=1, cluster=cluster)) is None
    assert encode.run(replace(arguments, tasks=1, cluster=cluster)) == expected, (tmp_path / "sbatch.log").read_text()


@pytest.mark.unit
def test_a_local_task_takes_no_more_threads_than_the_process_has(begun: EncodeArguments) -> None:
    """With one worker, tasks run in this process, which was given one thread."""
    assert encode.run(replace(begun, executor="local", tasks=2, workers=1)) is not None
    assert torch.get_num_threads() == 1


@pytest.mark.fault
def test_a_failing_task_is_told_and_the_rest_is_kept(begun: EncodeArguments) -> None:
    """Something is in the way of the last shard; a shard that is deleted later is made again by its finished task."""
    plan, local = read_plan(begun.output_dir), replace(begun, executor="local", tasks=2, workers=1)
    assert plan is not None
    obstacle = Path(begun.output_dir, plan.shard_file(7))
    obstacle.mkdir()
    message = r"1 of 8 shards are missing, a task failed: .*: Is a directory; .* The logs are in .*/engine/local-2; the"
    with pytest.raises(ValueError, match=f"{message} same command goes on"):
        encode.run(local)
    assert missing_shards(begun.output_dir, plan) == [7]
    obstacle.rmdir()
    Path(begun.output_dir, plan.shard_file(0)).unlink()
    manifest = encode.run(local)
    assert manifest is not None
    assert manifest.rows == 24
