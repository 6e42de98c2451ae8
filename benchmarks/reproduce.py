"""Runs the experiments of `docs/experiments.md` and prints their tables.

    python -m benchmarks.reproduce [NAME|FILE.yaml ...] [--jobs 2] [--seeds 0 1] [--variants NAME ...] [--dry-run]

An experiment is a YAML file, by name one in `benchmarks/experiments`; `esc10.yaml` there shows every key. Each of
its variants is a list of stages, commands of `hf-audioformer`, run for every seed and every cell of the grid. A stage
with the same command, config file and settings is run once and shared, within an experiment and between them.

Everything lies in `--output-dir`: under `stages` a folder, a log and (once finished) a record for each, so that the
same command again runs only what is missing and goes on with what was interrupted; and for each experiment a table and
the record of every run. With `--results` the records are kept in that folder, and a run that is recorded there with the
same settings is not repeated: so the seeds can be run on several machines.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.experiment import EXPERIMENTS, Experiment, Run, Stage, plan, read_experiment, table

POLL_SECONDS = 0.2


def run_stages(stages: Sequence[Stage], jobs: int) -> dict[str, str]:
    """Runs what is not finished, `jobs` at a time, in order, each after those it needs; returns the failures' reasons.

    A stage that fails keeps those that need it from running, and no other.
    """
    waiting = [stage for stage in stages if not stage.finished]
    total = len(waiting)
    running: dict[Stage, tuple[subprocess.Popen, float]] = {}
    failures: dict[str, str] = {}
    try:
        while waiting or running:
            for stage in list(waiting):
                lost = [need for need in stage.needs if need in failures]
                if lost:
                    failures[stage.key] = f"not run, since {lost[0]} failed"
                    waiting.remove(stage)
                elif len(running) < jobs and not {*stage.needs} & {other.key for other in (*waiting, *running)}:
                    running[stage] = (_start(stage), time.perf_counter())
                    waiting.remove(stage)
            time.sleep(POLL_SECONDS)
            for stage in [stage for stage, (process, _) in running.items() if process.poll() is not None]:
                process, started = running.pop(stage)
                outcome = _finish(stage, process.returncode, time.perf_counter() - started, failures)
                done = total - len(waiting) - len(running)
                left = _time_left([*waiting, *running], stages, jobs)
                print(f"[{done}/{total}] {stage.label}: {outcome}{left}", flush=True)
    finally:
        for process, _ in running.values():
            process.terminate()
            process.wait()
    return failures


def _finish(stage: Stage, exit_code: int, seconds: float, failures: dict[str, str]) -> str:
    """Records a stage that ended, as finished or among the failures; returns what to say of it."""
    if exit_code:
        failures[stage.key] = f"exit code {exit_code}: {_last_line(stage.log)} ({stage.log})"
        return f"failed after {seconds:.0f} s"
    stage.record.write_text(json.dumps({"argv": stage.settled_argv, "seconds": seconds}), encoding="utf-8")
    return f"done in {seconds:.0f} s"


def _start(stage: Stage) -> subprocess.Popen:
    stage.folder.parent.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-m", "hf_audioformer", *stage.command()[1:]]
    with stage.log.open("ab") as log:
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        return subprocess.Popen(program, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _last_line(log: Path) -> str:
    return (log.read_text(encoding="utf-8", errors="replace").strip() or "no output").splitlines()[-1]


def _time_left(left: Sequence[Stage], stages: Sequence[Stage], jobs: int) -> str:
    """By the mean time of finished stages of the same command and config, or of all."""
    times: dict[str, list[float]] = {}
    for stage in stages:
        if stage.finished:
            times.setdefault(stage.key.rpartition("-")[0], []).append(stage.seconds)
    everything = [seconds for of_kind in times.values() for seconds in of_kind]
    if not left or not everything:
        return ""
    seconds = sum(statistics.mean(times.get(stage.key.rpartition("-")[0], everything)) for stage in left) / jobs
    return f"; {len(left)} left, about {seconds / 60:.0f} min"


def read_records(experiment: Experiment, folder: Path | None) -> list[dict[str, Any]]:
    """The records of an experiment's runs in the folder `--results`, if there are any."""
    file = None if folder is None else folder / f"{experiment.name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else []


def write_tables(
    experiments: Sequence[Experiment], runs: Mapping[str, Sequence[Run]], output_dir: Path, results: Path | None
) -> None:
    """Prints each experiment's table and leaves it as `NAME.md`, with every single run in `NAME.json`; records that are
    there already are kept, unless they are of the same run with other settings."""
    for experiment in experiments:
        of_experiment = runs[experiment.name]
        text = table(experiment, of_experiment)
        records = {_which(record): record for record in read_records(experiment, results)}
        records |= {_which(run.record): run.record for run in of_experiment if run.finished}
        _write(output_dir / f"{experiment.name}.md", text)
        _write((results or output_dir) / f"{experiment.name}.json", json.dumps(list(records.values()), indent=1))
        print(f"\n{text}", flush=True)


def _which(record: Mapping[str, Any]) -> str:
    """Variant, seed and cell of a record."""
    return json.dumps({name: value for name, value in record.items() if name not in ("key", "chosen", "measures")})


def _write(path: Path, text: str) -> None:
    """Writes a file in one atomic step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _chosen(experiment: Experiment, options: argparse.Namespace) -> Experiment:
    """The experiment with the seeds and variants that the command line asks for."""
    unknown = set(options.variants or []) - set(experiment.variants)
    if unknown:
        raise ValueError(
            f"{experiment.name} has no variant {min(unknown)!r}; there are {', '.join(experiment.variants)}"
        )
    chosen = {name: experiment.variants[name] for name in options.variants or experiment.variants}
    return replace(experiment, variants=chosen, seeds=options.seeds or experiment.seeds)


def _unique(runs: Mapping[str, Sequence[Run]]) -> list[Stage]:
    """Each stage of the runs without a record, once, where it is first wanted, in that order."""
    stages: dict[str, Stage] = {}
    needed_runs = [run for of in runs.values() for run in of if run.recorded is None]
    for stage in (stage for run in needed_runs for stage in run.stages.values()):
        for needed in (*stage.trials, stage):
            stages.setdefault(needed.key, needed)
    return list(stages.values())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="NAME", help="all of benchmarks/experiments by default")
    parser.add_argument("--jobs", type=int, default=1, help="stages at the same time, one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the experiment's own")
    parser.add_argument("--variants", nargs="+", help="only these")
    parser.add_argument("--dry-run", action="store_true", help="list the commands that are left to run")
    parser.add_argument("--report", action="store_true", help="the tables of what is finished; runs nothing")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--results", type=Path, help="where the records are kept; what is recorded is not repeated")
    options = parser.parse_args(argv)
    names = options.experiments or sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
    try:
        experiments = [_chosen(read_experiment(name), options) for name in names]
        runs = {
            experiment.name: plan(experiment, options.output_dir, read_records(experiment, options.results))
            for experiment in experiments
        }
    except (ValueError, OSError) as error:
        parser.error(str(error))
    stages = _unique(runs)
    if options.dry_run:
        for stage in stages:
            print(f"# {stage.label}{': finished' if stage.finished else ''}\n{shlex.join(stage.command())}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the stages end with us
    try:
        failures = {} if options.report else run_stages(stages, options.jobs)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    write_tables(experiments, runs, options.output_dir, options.results)
    for key, reason in failures.items():
        print(f"FAILED {key}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
