"""A whole experiment on labelled tones: stages run once, in order, two at a time, and failures stop nothing else."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks import reproduce

PROJECT_ROOT = Path(__file__).parents[2]
NETWORK = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture
def tones(tone_csv: Path, tiny_codec: str, tiny_checkpoint: str, tmp_path: Path) -> str:
    """An experiment with a variant that works, one that fails in its first stage, and one fold."""
    network = {f"model.{name}": value for name, value in NETWORK.items()}
    pretrain = {
        **{"data.sources": [str(tone_csv)], "data.validation_fraction": 0.2, "model.codec": tiny_codec},
        **{**network, "model.num_codebooks": 2, "training.max_steps": 2, "seed": "{seed}"},
    }
    finetune = {
        **{"data.source": str(tone_csv), "split.kind": "folds", "split.column": "fold", "split.run_folds": ["{fold}"]},
        **{"split.validation_fraction": 0, "training.max_steps": 2, "model.checkpoint": "{pretrain}"},
    }
    stages = [
        {"name": "pretrain", "command": "pretrain", "settings": pretrain},
        {"name": "finetune", "command": "finetune", "settings": finetune},
    ]
    broken = [{**stages[0], "settings": {**pretrain, "data.sources": ["/no/clips.csv"]}}, stages[1]]
    content = {
        **{"title": "Tones", "question": "Do they run?", "grid": {"fold": [1]}},
        "report": ["score", "pretrain.accuracy"],
        "variants": {"broken": broken, "pretrained": stages},
    }
    path = tmp_path / "tones.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.cli
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_experiment_runs_once(tones: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    argv = [tones, "--jobs", "2", "--output-dir", str(output)]
    assert reproduce.main([*argv, "--dry-run"]) == 0
    assert capfd.readouterr().out.count("hf-audioformer finetune") == 2
    assert not output.exists()

    assert reproduce.main(argv) == 1
    shown = capfd.readouterr()
    assert "/no/clips.csv does not exist" in shown.err
    assert "not run, since pretrain-" in shown.err
    assert shown.err.count("FAILED") == 2
    assert "finetune (pretrained, seed 0, fold 1): done in" in shown.out
    (run,) = json.loads((output / "tones.json").read_text())
    assert (run["variant"], run["seed"], run["fold"]) == ("pretrained", 0, 1)
    row = f"| pretrained | {run['measures']['score']:.3f} | {run['measures']['pretrain.accuracy']:.3f} | 1 of 1 | "
    assert row in (output / "tones.md").read_text()
    assert row in shown.out

    before = {path: path.stat().st_mtime_ns for path in output.glob("stages/*/*")}
    assert reproduce.main([*argv, "--variants", "pretrained"]) == 0
    assert row in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in output.glob("stages/*/*")} == before

    elsewhere = [tones, "--variants", "pretrained", "--output-dir", str(tmp_path / "elsewhere"), "--results"]
    assert reproduce.main([*elsewhere, str(output)]) == 0  # the record of the run is enough
    assert row in capfd.readouterr().out
    assert not (tmp_path / "elsewhere" / "stages").exists()
    assert json.loads((output / "tones.json").read_text()) == [run]
    assert reproduce.main([*elsewhere, str(output), "--seeds", "1", "--dry-run"]) == 0
    assert capfd.readouterr().out.count("hf-audioformer finetune") == 1  # another seed is another run


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stopped_experiment_goes_on(tones: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(Path(tones).read_text())
    (pretrain, _) = content["variants"]["pretrained"]
    pretrain["settings"] |= {"training.max_steps": 30, "training.save_strategy": "steps", "training.save_steps": 1}
    Path(tones).write_text(yaml.safe_dump(content | {"variants": {"pretrained": [pretrain]}, "report": ["accuracy"]}))
    argv = [tones, "--output-dir", str(tmp_path / "out")]
    program = [sys.executable, "-m", "benchmarks.reproduce", *argv]
    stages = tmp_path / "out" / "stages"
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as driver:
        while driver.poll() is None and not list(stages.glob("*/checkpoint-*/complete*")):
            time.sleep(0.05)
        driver.terminate()
        assert driver.communicate(timeout=60)[1] == "stopped; the same command goes on from here\n"
    assert driver.returncode == 130
    assert list(stages.glob("*.json")) == []
    written = {path: path.stat().st_mtime_ns for path in stages.rglob("*")}
    time.sleep(1)
    assert {path: path.stat().st_mtime_ns for path in stages.rglob("*")} == written  # its stage was stopped too

    assert reproduce.main([*argv, "--dry-run"]) == 0
    assert "--resume true" in capfd.readouterr().out
    assert reproduce.main(argv) == 0
    assert "| pretrained | " in capfd.readouterr().out


@pytest.mark.cli
def test_mistakes_are_one_message(tones: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        reproduce.main([tones, "--variants", "pretraind"])
    assert "tones has no variant 'pretraind'; there are broken, pretrained" in capsys.readouterr().err
