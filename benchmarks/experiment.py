"""One experiment: read from its YAML file, laid out as stages to run, and told as a table of what they gave."""

import hashlib
import itertools
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from hf_audioformer.cli import COMMANDS
from hf_audioformer.training.arguments import parse_config, presets

EXPERIMENTS = Path(__file__).parent / "experiments"
RESULT_FILES = ("results.json", "measures.json", "metrics.json")  # of finetune, pretrain, evaluate


@dataclass(frozen=True)
class ChoiceTemplate:
    """Settings that are chosen by the measure `by`, in each cell of the grid anew and without its tested part.

    Each candidate of `among` is first run with `settings` added, in which `{inner}` stands for each of the
    `num_inner` values that follow the cell's own value of the grid's variable `over`, round to the beginning.
    """

    among: dict[str, dict[str, Any]]
    over: str
    settings: dict[str, Any]
    num_inner: int = 1
    by: str = "score"


@dataclass(frozen=True)
class StageTemplate:
    """A command of `hf-audioformer` with its settings, in which `{seed}`, the grid's variables and the names of earlier
    stages (for their folders) stand for their values."""

    name: str
    command: str
    config: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    choose: ChoiceTemplate | None = None


@dataclass(frozen=True)
class Experiment:
    name: str
    title: str
    question: str
    variants: dict[str, list[StageTemplate]]
    seeds: list[int] = field(default_factory=lambda: [0])
    grid: dict[str, list[Any]] = field(default_factory=dict)
    report: list[str] = field(default_factory=lambda: ["score"])

    def cells(self) -> list[dict[str, Any]]:
        """Every combination of the grid's values, by the names of its variables."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


@dataclass(frozen=True)
class Candidate:
    """One of the settings to choose from: its words of a command line, and the finished or planned trials of it."""

    name: str
    options: tuple[str, ...]
    trials: tuple["Stage", ...]

    def score(self, by: str) -> float:
        """Mean of the measure over the trials."""
        return statistics.mean(measures(trial)[by] for trial in self.trials)


@dataclass(frozen=True)
class Stage:
    """A stage with every value in its place; `key` is a digest of all of them and names its folder.

    With `candidates` the one of the highest mean measure `chosen_by` is added to the command, once all trials are
    finished; of equals the first.
    """

    key: str
    argv: tuple[str, ...]
    folder: Path
    needs: tuple[str, ...]
    label: str
    candidates: tuple[Candidate, ...] = ()
    chosen_by: str = "score"

    @property
    def log(self) -> Path:
        return self.folder.with_name(self.key + ".log")

    @property
    def record(self) -> Path:
        return self.folder.with_name(self.key + ".json")

    @property
    def finished(self) -> bool:
        return self.record.is_file() and self.folder.is_dir()

    @property
    def seconds(self) -> float:
        """Wall clock of the command, from its record."""
        return json.loads(self.record.read_text(encoding="utf-8"))["seconds"]

    @property
    def trials(self) -> list["Stage"]:
        """What must be run to choose among the candidates."""
        return [trial for candidate in self.candidates for trial in candidate.trials]

    @property
    def chosen(self) -> Candidate | None:
        """The best candidate; None if there are none, or while trials are missing."""
        if not self.candidates or not all(trial.finished for trial in self.trials):
            return None
        return max(self.candidates, key=lambda candidate: candidate.score(self.chosen_by))

    @property
    def settled_argv(self) -> tuple[str, ...]:
        """`argv` with the settings that were chosen."""
        return (*self.argv, *(self.chosen.options if self.chosen else ()))

    def command(self) -> list[str]:
        """What a shell would run, going on with what lies in the folder."""
        argv = ["hf-audioformer", *self.settled_argv, "--output_dir", str(self.folder)]
        options = {option.name for option in fields(arguments_class(self.argv[0]))}
        begun = self.folder.is_dir() and any(self.folder.iterdir())
        again = next((option for option in ("resume", "overwrite") if option in options), None)
        return [*argv, f"--{again}", "true"] if begun and again else argv


@dataclass(frozen=True)
class Run:
    """The stages of one variant for one seed and one cell of the grid, in order, by name.

    `recorded` is the record of the same run made elsewhere, if there is one; its stages are then not needed.
    """

    variant: str
    seed: int
    cell: dict[str, Any]
    stages: dict[str, Stage]
    recorded: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """The key of its last stage, which depends on all that came before."""
        return list(self.stages.values())[-1].key

    @property
    def finished(self) -> bool:
        return self.recorded is not None or all(stage.finished for stage in self.stages.values())

    @property
    def record(self) -> dict[str, Any]:
        """What is kept of a finished run: which it is, the candidates chosen in its stages, and its measures."""
        if self.recorded is not None:
            return self.recorded
        chosen = {name: stage.chosen.name for name, stage in self.stages.items() if stage.chosen is not None}
        which = {"variant": self.variant, "seed": self.seed, **self.cell, "key": self.key}
        return which | {"chosen": chosen, "measures": self._measures()}

    def _measures(self) -> dict[str, float]:
        """All measures, those of a stage as `stage.measure` and those of the last by their bare names;
        `training_seconds` is the time of all stages, without start and encoding where the stage says so."""
        of_stages = {name: measures(stage) for name, stage in self.stages.items()}
        named = {f"{name}.{measure}": value for name, of in of_stages.items() for measure, value in of.items()}
        seconds = sum(of_stages[name].get("seconds", stage.seconds) for name, stage in self.stages.items())
        return {**named, **of_stages[list(self.stages)[-1]], "training_seconds": seconds}


def read_experiment(name: str) -> Experiment:
    """The experiment of a YAML file, given by path or by its name in `benchmarks/experiments`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key is missing or unknown; the message names the file and the keys that there are.
    """
    path = Path(name) if name.endswith(".yaml") else EXPERIMENTS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in EXPERIMENTS.glob("*.yaml")))
        raise FileNotFoundError(f"no experiment {name!r}; there are {known}, or give a .yaml file")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content.pop("anchors", None)  # a place for what the variants share by YAML's own & and *
    variants = {
        variant: [_filled(StageTemplate, stage, f"{path}: variant {variant!r}") for stage in stages]
        for variant, stages in content.pop("variants", {}).items()
    }
    return _filled(Experiment, content | {"name": path.stem, "variants": variants}, str(path))


def _filled(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    if values.get("choose") is not None:
        values = {**values, "choose": _filled(ChoiceTemplate, values["choose"], f"{where}: choose")}
    try:
        return cls(**values)
    except TypeError as error:
        keys = ", ".join(option.name for option in fields(cls))
        raise ValueError(f"{where}: {error}; the keys are {keys}") from None


def arguments_class(command: str) -> Any:
    """The dataclass that holds the settings of a command: the one with an `output_dir`.

    Raises:
        ValueError: No such command, or it writes no folder.
    """
    if command in COMMANDS:
        module = import_module(COMMANDS[command].module)
        for value in (getattr(module, name) for name in getattr(module, "__all__", [])):
            if is_dataclass(value) and any(option.name == "output_dir" for option in fields(value)):
                return value
    raise ValueError(f"{command!r} is not a command of hf-audioformer with an output_dir")


def plan(experiment: Experiment, output_dir: Path, records: Sequence[dict[str, Any]] = ()) -> list[Run]:
    """Every run of the experiment, the first seed of all variants first; all settings are checked.

    A run whose key, and so every setting, is that of one of the `records` has that record.

    Raises:
        ValueError, FileNotFoundError: Unknown commands, configs, settings, or variables in braces.
    """
    known = {record["key"]: record for record in records}
    runs = [
        Run(variant, seed, cell, _stages(variant, templates, {"seed": seed, **cell}, experiment.grid, output_dir))
        for seed in experiment.seeds
        for cell in experiment.cells()
        for variant, templates in experiment.variants.items()
    ]
    return [replace(run, recorded=known.get(run.key)) for run in runs]


def _stages(
    variant: str,
    templates: Sequence[StageTemplate],
    values: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    output_dir: Path,
) -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    described = ", ".join([variant, *(f"{name} {value}" for name, value in values.items())])
    for template in templates:
        label = f"{template.name} ({described})"
        stage = _stage(template, values, stages, label, output_dir)
        if template.choose is not None:
            stage = _with_candidates(stage, template, template.choose, values, stages, grid, label, output_dir)
        stages[template.name] = stage
    return stages


def _stage(
    template: StageTemplate, values: Mapping[str, Any], before: Mapping[str, Stage], label: str, output_dir: Path
) -> Stage:
    options = _options(template, {**values, **{name: stage.folder for name, stage in before.items()}}, label)
    argv = (template.command, *([template.config] if template.config else []), *options)
    parse_config(arguments_class(template.command), [*argv[1:], "--output_dir", "checked"], description="")
    key = _key(template, _options(template, {**values, **{name: stage.key for name, stage in before.items()}}, label))
    used = tuple(stage.key for stage in before.values() if any(str(stage.folder) in option for option in options))
    return Stage(key, argv, output_dir / "stages" / key, used, label)


def _with_candidates(
    stage: Stage,
    template: StageTemplate,
    choice: ChoiceTemplate,
    values: Mapping[str, Any],
    before: Mapping[str, Stage],
    grid: Mapping[str, Sequence[Any]],
    label: str,
    output_dir: Path,
) -> Stage:
    """The stage with the trials of its candidates, on which its key and its start depend."""
    if choice.over not in grid:
        raise ValueError(f"{label}: choose.over is {choice.over!r}; the grid has {', '.join(grid)}")
    if not 1 <= choice.num_inner < len(grid[choice.over]):
        raise ValueError(
            f"{label}: choose.num_inner is {choice.num_inner}; {choice.over} has {len(grid[choice.over])} values, of "
            "which one is tested"
        )
    own = grid[choice.over].index(values[choice.over])
    inner = [grid[choice.over][(own + step) % len(grid[choice.over])] for step in range(1, choice.num_inner + 1)]
    candidates = []
    for name, settings in choice.among.items():
        changed = replace(template, settings={**template.settings, **settings, **choice.settings}, choose=None)
        trials = [
            _stage(changed, {**values, "inner": value}, before, f"{label}: {name}, trial on {value}", output_dir)
            for value in inner
        ]
        options = _options(replace(template, settings=settings), values, label)
        candidates.append(Candidate(name, tuple(options), tuple(trials)))
    keys = [trial.key for candidate in candidates for trial in candidate.trials]
    digest = hashlib.sha256(json.dumps([stage.key, choice.by, keys]).encode()).hexdigest()
    key = f"{stage.key.rpartition('-')[0]}-{digest[:10]}"
    return replace(
        stage,
        key=key,
        folder=stage.folder.with_name(key),
        needs=(*stage.needs, *keys),
        candidates=tuple(candidates),
        chosen_by=choice.by,
    )


def _options(template: StageTemplate, values: Mapping[str, Any], label: str) -> list[str]:
    """The settings as words of a command line."""
    words = []
    for name, setting in template.settings.items():
        try:
            setting = _fill_in(setting, values)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"{label}: {name}: {setting!r} has braces that are none of {', '.join(values)} ({error!r})"
            ) from None
        words += [f"--{name}", setting if isinstance(setting, str) else json.dumps(setting)]
    return words


def _fill_in(setting: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(setting, str):
        return setting.format(**values)
    if isinstance(setting, list):
        return [_fill_in(item, values) for item in setting]
    if isinstance(setting, dict):
        return {name: _fill_in(item, values) for name, item in setting.items()}
    return setting


def _key(template: StageTemplate, options: Sequence[str]) -> str:
    """Command, config and a digest of what they say; comments in the config do not count."""
    config = template.config and Path(presets().get(template.config, template.config))
    content = config and yaml.safe_load(config.read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps([template.command, content, options], sort_keys=True).encode()).hexdigest()
    return "-".join(filter(None, [template.command, config and config.stem, digest[:10]]))


def measures(stage: Stage) -> dict[str, float]:
    """The numbers that a finished stage left: `score`, `seconds` and the metrics of fine-tuning (mean over its splits),
    the measures of pretraining, the metrics of an evaluation."""
    files = [stage.folder / name for name in RESULT_FILES if (stage.folder / name).is_file()]
    if not files:
        return {}
    content = json.loads(files[0].read_text(encoding="utf-8"))
    results = content if isinstance(content, list) else [content]
    flat = [{**result, **result.get("metrics", {})} for result in results]
    return {
        name: statistics.mean(result[name] for result in flat)
        for name, value in flat[0].items()
        if isinstance(value, (int, float))
    }


def table(experiment: Experiment, runs: Sequence[Run]) -> str:
    """Markdown: per variant each measure's mean over the cells of the grid, then mean and spread over the seeds whose
    cells are all finished, and the command of each row."""
    titles = [f"{measure}, mean ± sd over seeds" for measure in experiment.report]
    rows = [f"| variant | {' | '.join(titles)} | seeds | seconds a run |", f"|---{'|---' * len(titles)}|---|---|"]
    for variant in experiment.variants:
        own = [run for run in runs if run.variant == variant]
        by_seed = {seed: [run for run in own if run.seed == seed] for seed in experiment.seeds}
        found = [
            [run.record["measures"] for run in of_seed]
            for of_seed in by_seed.values()
            if all(run.finished for run in of_seed)
        ]
        cells = [_mean_and_spread(found, measure) for measure in experiment.report]
        seconds = f"{statistics.mean(run['training_seconds'] for of in found for run in of):.0f}" if found else "-"
        rows.append(f"| {variant} | {' | '.join(cells)} | {len(found)} of {len(by_seed)} | {seconds} |")
    grid = "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in experiment.grid.items())
    commands = [
        f"* {variant}: `python -m benchmarks.reproduce {experiment.name} --variants {shlex.quote(variant)}`"
        for variant in experiment.variants
    ]
    head = [f"### {experiment.title}", "", experiment.question, ""]
    notes = [*([f"Each figure is a mean over {grid}."] if grid else []), *_choices(runs)]
    return "\n".join([*head, *rows, "", *notes, "", *commands])


def _choices(runs: Sequence[Run]) -> list[str]:
    """A line for each candidate that was chosen anywhere: in which cells."""
    cells: dict[str, list[str]] = {}
    for run in (run for run in runs if run.finished):
        for candidate in run.record["chosen"].values():
            cells.setdefault(f"{run.variant}: {candidate}", []).append(" ".join(map(str, run.cell.values())))
    return [f"Chosen without the tested part, {name}: {', '.join(dict.fromkeys(of))}." for name, of in cells.items()]


def _mean_and_spread(of_seeds: Sequence[Sequence[Mapping[str, float]]], measure: str) -> str:
    if not of_seeds:
        return "-"
    unknown = next((run for of_seed in of_seeds for run in of_seed if measure not in run), None)
    if unknown is not None:
        raise ValueError(f"report: no measure {measure!r}; there are {', '.join(unknown)}")
    means = [statistics.mean(run[measure] for run in of_seed) for of_seed in of_seeds]
    spread = f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else ""
    return f"{statistics.mean(means):.3f}{spread}"
