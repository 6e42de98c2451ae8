"""Encoding by many workers on datatrove (the extra `encode`): three pipeline steps, and the executors that run them.

Retries and placement are the engine's business. A task has a range of shards, and finds what is still missing of them;
what a shard holds does not depend on the task, so that any number of tasks leaves the same store.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from datatrove.data import Document, DocumentsPipeline
from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from ..codes.store import StorePlan, is_finished, missing_shards, read_plan
from ..training.output import check_same
from .encode import EncodeArguments, EncodeJob, finish, how_to_go_on

__all__ = ["EncodeShards", "FinishStore", "ReadShards", "WriteShards", "launch"]


class ReadShards(PipelineStep):
    """Gives a document for each shard of the task that is not there yet."""

    name = "read"
    type = "codes"

    def __init__(self, folder: str):
        super().__init__()
        self.folder = folder

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        plan = _plan(self.folder)
        for shard in missing_shards(self.folder, plan, shards_of_task(plan, rank, world_size)):
            yield Document(text="", id=plan.shard_file(shard), metadata={"shard": shard})


class EncodeShards(PipelineStep):
    """Reads and encodes the clips of each shard, with `threads` threads on a CPU."""

    name = "encode"
    type = "codes"

    def __init__(self, arguments: EncodeArguments, threads: int):
        super().__init__()
        self.arguments = arguments
        self.threads = threads

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        job = None
        for document in data or ():
            if job is None:
                torch.set_num_threads(self.threads)
                job = open_job(self.arguments, rank)
            with self.track_time("shard"):
                rows, failures = job.encode(document.metadata["shard"], lambda seconds: None)
            self.stat_update("versions", value=len(rows), unit="shard")
            document.metadata |= {"job": job, "rows": rows, "failures": failures}
            yield document


class WriteShards(PipelineStep):
    """Writes each shard, whole or not at all."""

    name = "write"
    type = "codes"

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data or ():
            content = document.metadata
            content.pop("job").write(content["shard"], content.pop("rows"), content.pop("failures"))
            self.stat_update("shards")
            yield document


class FinishStore(PipelineStep):
    """Ends the store once all shards are there; a job of its own on a cluster."""

    name = "finish"
    type = "codes"

    def __init__(self, arguments: EncodeArguments):
        super().__init__()
        self.arguments = arguments

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        finish(open_job(self.arguments))
        yield from ()


def shards_of_task(plan: StorePlan, rank: int, world_size: int) -> range:
    """The shards of a task: ranges that follow each other, of nearly one length."""
    return range(rank * plan.num_shards // world_size, (rank + 1) * plan.num_shards // world_size)


def open_job(arguments: EncodeArguments, rank: int = 0) -> EncodeJob:
    """The job of a task, on another machine perhaps.

    Raises:
        ValueError: Clips or codec are not those that the store was begun with.
    """
    job = EncodeJob.open(arguments, rank)
    check_same(asdict(_plan(arguments.output_dir)), asdict(job.plan), Path(arguments.output_dir))
    return job


def launch(arguments: EncodeArguments, plan: StorePlan) -> bool:
    """Runs the tasks and returns True, or submits them as jobs and returns False.

    Raises:
        ValueError: A task failed.
    """
    logs = Path(arguments.output_dir).absolute() / "engine" / f"{arguments.executor}-{arguments.tasks}"
    if arguments.dry_run:
        print(_would_submit(arguments, logs, plan))
        return False
    _forget_tasks_to_do(logs, arguments, plan)
    if arguments.executor == "slurm":
        _submission(arguments, logs).run()
        print(f"Submitted; the last job writes the manifest in {arguments.output_dir}. The logs are in {logs}")
        return False
    executor = _local(arguments, logs) if arguments.executor == "local" else _ray(arguments, logs)
    try:
        executor.run()
        reason = ""
    except (ValueError, OSError) as error:
        reason = f": {error}"
    missing = missing_shards(arguments.output_dir, plan)
    if missing or reason:
        raise ValueError(
            f"{len(missing)} of {plan.num_shards} shards are missing, a task failed{reason} The logs are in {logs}; "
            f"{how_to_go_on(arguments)} goes on."
        )
    return True


def _local(arguments: EncodeArguments, logs: Path) -> PipelineExecutor:
    workers = min(arguments.tasks, arguments.workers or arguments.tasks)
    steps = _steps(arguments, threads=max(1, torch.get_num_threads() // workers))
    return LocalPipelineExecutor(steps, tasks=arguments.tasks, workers=workers, logging_dir=str(logs))


def _ray(arguments: EncodeArguments, logs: Path) -> PipelineExecutor:
    """On the cluster that RAY_ADDRESS names, or on this machine.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError("--executor ray needs Ray beside datatrove: pip install ray") from error
    cluster = arguments.cluster
    return RayPipelineExecutor(
        _steps(arguments, cluster.cpus_per_task),
        tasks=arguments.tasks,
        workers=arguments.workers or -1,
        logging_dir=str(logs),
        cpus_per_task=cluster.cpus_per_task,
        mem_per_cpu_gb=cluster.mem_per_cpu_gb,
        gpus_per_task=cluster.gpus_per_task,
    )


def _submission(arguments: EncodeArguments, logs: Path) -> SlurmPipelineExecutor:
    """The tasks as an array of jobs, and a job after them that ends the store; submitted when it is run."""
    encoding = _slurm(arguments, logs, _steps(arguments, arguments.cluster.cpus_per_task), arguments.tasks)
    return _slurm(arguments, logs / "finish", [FinishStore(arguments)], tasks=1, depends=encoding)


def _would_submit(arguments: EncodeArguments, logs: Path, plan: StorePlan) -> str:
    """What would be submitted, found out beside the store with a copy of the engine's marks of finished tasks."""
    with tempfile.TemporaryDirectory() as folder, _recording_sbatch() as submitted:
        trial = Path(folder)
        for marks in ("completions", "finish/completions"):
            if (logs / marks).is_dir():
                shutil.copytree(logs / marks, trial / marks)
        _forget_tasks_to_do(trial, arguments, plan)
        _submission(arguments, trial).run()
        return submitted.read_text(encoding="utf-8").replace(str(trial), str(logs))


def _slurm(
    arguments: EncodeArguments,
    logs: Path,
    steps: list[PipelineStep],
    tasks: int,
    depends: SlurmPipelineExecutor | None = None,
) -> SlurmPipelineExecutor:
    cluster = arguments.cluster
    return SlurmPipelineExecutor(
        steps,
        tasks=tasks,
        workers=arguments.workers or -1,
        time=cluster.time,
        partition=cluster.partition,
        cpus_per_task=cluster.cpus_per_task,
        mem_per_cpu_gb=cluster.mem_per_cpu_gb,
        gpus_per_task=cluster.gpus_per_task if depends is None else 0,
        job_name="encode" if depends is None else "encode-finish",
        qos=None,
        env_command=cluster.setup or f'export PATH="{Path(sys.executable).parent}:$PATH"',
        sbatch_args=cluster.sbatch,
        logging_dir=str(logs),
        depends=depends,
    )


def _steps(arguments: EncodeArguments, threads: int) -> list[PipelineStep]:
    return [ReadShards(arguments.output_dir), EncodeShards(arguments, threads), WriteShards()]


def _plan(folder: str) -> StorePlan:
    plan = read_plan(folder)
    if plan is None:
        raise ValueError(f"{folder} is no code store; `hf-audioformer encode` begins one before its tasks run.")
    return plan


def _forget_tasks_to_do(logs: Path, arguments: EncodeArguments, plan: StorePlan) -> None:
    """Deletes the engine's marks of finished tasks whose shards are not all there any more."""
    missing = set(missing_shards(arguments.output_dir, plan))
    for rank in range(arguments.tasks):
        if not missing.isdisjoint(shards_of_task(plan, rank, arguments.tasks)):
            (logs / "completions" / f"{rank:05d}").unlink(missing_ok=True)
    if missing or not is_finished(arguments.output_dir):
        (logs / "finish" / "completions" / "00000").unlink(missing_ok=True)


@contextmanager
def _recording_sbatch() -> Iterator[Path]:
    """The engine has no dry run: it meets an `sbatch` that writes down what it is given."""
    with tempfile.TemporaryDirectory() as folder:
        record, sbatch = Path(folder, "submitted"), Path(folder, "sbatch")
        sbatch.write_text(f'#!/bin/sh\n(echo "# sbatch $*"; for last; do :; done; cat "$last") >> {record}\necho JOB\n')
        sbatch.chmod(0o755)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            yield record
        finally:
            os.environ["PATH"] = before
