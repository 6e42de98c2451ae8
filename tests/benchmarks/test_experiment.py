"""An experiment's YAML becomes stages that are shared where they are the same, and a table of what they gave."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.experiment import (
    EXPERIMENTS,
    ChoiceTemplate,
    Experiment,
    Run,
    StageTemplate,
    plan,
    read_experiment,
    table,
)

PRETRAIN = StageTemplate("pretrain", "pretrain", "pretrain", {"data.hold_out": ["fold={fold}"]})
TUNED = {"split.run_folds": ["{fold}"], "model.checkpoint": "{pretrain}", "seed": "{seed}"}
FINETUNE = StageTemplate("finetune", "finetune", "esc10", TUNED)
RANDOM = replace(FINETUNE, settings={"split.run_folds": ["{fold}"], "seed": "{seed}"})


def experiment(**variants: list[StageTemplate]) -> Experiment:
    return Experiment("sample", "Title", "Question?", variants, seeds=[0, 1], grid={"fold": [1, 2]})


def finish(stage_folder: Path, results: Any, seconds: float) -> None:
    """What a finished stage of fine-tuning leaves."""
    stage_folder.mkdir(parents=True)
    (stage_folder / "results.json").write_text(json.dumps(results))
    stage_folder.with_name(stage_folder.name + ".json").write_text(json.dumps({"argv": [], "seconds": seconds}))


@pytest.mark.unit
def test_every_packaged_experiment_can_be_planned(tmp_path: Path) -> None:
    names = [path.stem for path in EXPERIMENTS.glob("*.yaml")]
    assert "esc10" in names
    for name in names:
        found = read_experiment(name)
        runs = plan(found, tmp_path)
        assert len(runs) == len(found.variants) * len(found.seeds) * len(found.cells())


@pytest.mark.unit
def test_stages_are_shared_where_everything_is_the_same(tmp_path: Path) -> None:
    other = replace(FINETUNE, settings={**TUNED, "training.learning_rate": 1e-3})
    runs = plan(experiment(one=[PRETRAIN, FINETUNE], other=[PRETRAIN, other]), tmp_path)
    assert [(run.seed, run.cell["fold"], run.variant) for run in runs][:3] == [
        (0, 1, "one"),
        (0, 1, "other"),
        (0, 2, "one"),
    ]
    stages = [stage for run in runs for stage in run.stages.values()]
    assert len({stage.key for stage in stages if stage.argv[0] == "pretrain"}) == 2  # one per fold; it knows no seed
    assert len({stage.key for stage in stages if stage.argv[0] == "finetune"}) == 8
    first = runs[0].stages["finetune"]
    assert first.needs == (runs[0].stages["pretrain"].key,)
    assert first.command() == [
        *["hf-audioformer", "finetune", "esc10", "--split.run_folds", '["1"]'],
        *["--model.checkpoint", str(tmp_path / "stages" / first.needs[0]), "--seed", "0"],
        *["--output_dir", str(first.folder)],
    ]


@pytest.mark.unit
def test_a_stage_depends_on_all_that_came_before_and_on_its_config_file(tmp_path: Path) -> None:
    def finetune_key(pretrain: StageTemplate, finetune: StageTemplate = FINETUNE) -> str:
        return plan(experiment(one=[pretrain, finetune]), tmp_path)[0].stages["finetune"].key

    assert finetune_key(PRETRAIN) == finetune_key(PRETRAIN)
    assert finetune_key(PRETRAIN) != finetune_key(replace(PRETRAIN, settings={**PRETRAIN.settings, "mask.rate": 0.15}))
    config = tmp_path / "own.yaml"
    keys = []
    for text in ("data: {source: esc10}", "# the same\ndata:\n  source: esc10", "data: {source: fsdd}"):
        config.write_text(f"{text}\nsplit: {{kind: folds, column: fold}}")
        keys.append(finetune_key(PRETRAIN, replace(FINETUNE, config=str(config))))
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.unit
def test_what_was_begun_goes_on(tmp_path: Path) -> None:
    stage = plan(experiment(one=[RANDOM]), tmp_path)[0].stages["finetune"]
    stage.folder.mkdir(parents=True)
    assert "--resume" not in stage.command()
    (stage.folder / "recipe.yaml").touch()
    assert stage.command()[-2:] == ["--resume", "true"]


@pytest.mark.unit
def test_the_table_has_means_over_cells_and_spread_over_finished_seeds(tmp_path: Path) -> None:
    sample = experiment(**{"first one": [RANDOM], "second": [replace(RANDOM, config="fsdd")]})
    runs = plan(sample, tmp_path)
    scores = {("first one", 0): [0.5, 0.7], ("first one", 1): [0.6, 0.8], ("second", 0): [0.9]}

    def of_cell(run: Run) -> float | None:
        cells = scores.get((run.variant, run.seed), [])
        return cells[run.cell["fold"] - 1] if run.cell["fold"] <= len(cells) else None

    for run in runs:
        if (score := of_cell(run)) is not None:
            result = {"score": score, "metric": "accuracy", "seconds": 10, "metrics": {"macro_f1": score / 2}}
            finish(run.stages["finetune"].folder, [result], seconds=99)
    lines = table(replace(sample, report=["score", "finetune.macro_f1"]), runs).splitlines()
    assert "### Title" in lines
    assert "| first one | 0.650 ± 0.071 | 0.325 ± 0.035 | 2 of 2 | 10 |" in lines
    assert "| second | - | - | 0 of 2 | - |" in lines
    assert "Each figure is a mean over fold 1, 2." in lines
    assert "* first one: `python -m benchmarks.reproduce sample --variants 'first one'`" in lines
    with pytest.raises(ValueError, match=r"report: no measure 'accuracy'; there are finetune.score, "):
        table(replace(sample, report=["accuracy"]), runs)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"sed": 1}}, "unknown key 'sed'; did you mean 'seed'?"),
        ({"settings": {"seed": "{sed}"}}, r"finetune \(one, seed 0, fold 1\): seed: '\{sed\}' has braces"),
        ({"config": "esc11"}, "config file 'esc11' does not exist"),
        ({"command": "doctor"}, "'doctor' is not a command of hf-audioformer with an output_dir"),
    ],
)
def test_mistakes_are_found_before_anything_runs(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        plan(experiment(one=[replace(RANDOM, **change)]), tmp_path)


@pytest.mark.fault
def test_files_that_are_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no experiment 'nothing'; there are .*esc10"):
        read_experiment("nothing")
    file = tmp_path / "own.yaml"
    stage = {"name": "finetune", "command": "finetune"}
    content: dict[str, Any] = {"title": "T", "question": "Q", "variants": {"one": [stage]}}
    file.write_text(yaml.safe_dump({**content, "sedes": [0]}))
    with pytest.raises(ValueError, match=r"own.yaml: .*'sedes'; the keys are name, title, question, variants, seeds"):
        read_experiment(str(file))
    content["variants"] = {"one": [{**stage, "setings": {}}]}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"variant 'one': .*'setings'; the keys are name, command, config, settings"):
        read_experiment(str(file))


CHOICE = ChoiceTemplate(
    among={"slow": {"training.learning_rate": 1e-5}, "fast": {"training.learning_rate": 1e-3}},
    over="fold",
    settings={"split.run_folds": ["{inner}"], "split.without_folds": ["{fold}"], "seed": 0},
    num_inner=2,
)


@pytest.mark.unit
def test_settings_are_chosen_by_trials_without_the_tested_part(tmp_path: Path) -> None:
    sample = replace(experiment(one=[replace(RANDOM, choose=CHOICE)]), grid={"fold": [1, 2, 4]}, seeds=[3])
    runs = plan(sample, tmp_path)
    stage = runs[1].stages["finetune"]
    trials = [trial.argv[2:] for trial in stage.trials]
    expected = [
        *["--split.run_folds", '["4"]', "--seed", "0", "--training.learning_rate", "1e-05"],
        *["--split.without_folds", '["2"]'],
    ]
    assert trials[0] == tuple(expected)
    assert [trial[1] for trial in trials] == ['["4"]', '["1"]'] * 2
    assert {trial[-1] for trial in trials} == {'["2"]'}
    assert stage.needs == tuple(trial.key for trial in stage.trials)
    assert stage.key not in {run.stages["finetune"].key for run in (runs[0], runs[2])}

    for trial, score in zip(stage.trials, [0.9, 0.1, 0.6, 0.5], strict=True):
        assert stage.chosen is None
        finish(trial.folder, [{"score": score, "metrics": {}}], seconds=1)
    assert stage.chosen is not None
    assert stage.chosen.name == "fast"
    assert stage.command()[-4:] == ["--training.learning_rate", "0.001", "--output_dir", str(stage.folder)]
    finish(stage.folder, [{"score": 0.7, "metrics": {}}], seconds=1)
    assert runs[1].record["chosen"] == {"finetune": "fast"}
    assert "Chosen without the tested part, one: fast: 2." in table(sample, runs)


@pytest.mark.unit
def test_a_recorded_run_is_finished_as_long_as_its_settings_are_the_same(tmp_path: Path) -> None:
    sample = experiment(one=[RANDOM])
    (first, *_) = plan(sample, tmp_path)
    finish(first.stages["finetune"].folder, [{"score": 0.7, "seconds": 5, "metrics": {}}], seconds=1)
    records = [json.loads(json.dumps(first.record))]
    elsewhere = tmp_path / "elsewhere"
    runs = plan(sample, elsewhere, records)
    assert [run.finished for run in runs] == [True, False, False, False]
    assert runs[0].record == first.record
    changed = replace(RANDOM, settings={**RANDOM.settings, "training.learning_rate": 1e-3})
    assert not any(run.finished for run in plan(experiment(one=[changed]), elsewhere, records))


@pytest.mark.fault
def test_a_choice_is_over_a_variable_of_the_grid(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"choose\.over is 'speaker'; the grid has fold"):
        plan(experiment(one=[replace(RANDOM, choose=replace(CHOICE, over="speaker"))]), tmp_path)
    with pytest.raises(ValueError, match=r"choose.num_inner is 2; fold has 2 values, of which one is tested"):
        plan(experiment(one=[replace(RANDOM, choose=CHOICE)]), tmp_path)
