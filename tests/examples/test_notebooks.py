"""The notebooks run from the first cell to the last, with fewer clips than they have when read."""

import re
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))

pytestmark = pytest.mark.usefixtures("one_thread")


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **parameters: int) -> dict[str, Any]:
    """What the cells leave in their names, once all have run in `folder`; the first cell sets the parameters."""
    cells = [cell.source for cell in nbformat.read(EXAMPLES / f"{name}.ipynb", 4).cells if cell.cell_type == "code"]
    for parameter, value in parameters.items():
        cells[0], found = re.subn(rf"^{parameter} = \d+", f"{parameter} = {value}", cells[0], flags=re.MULTILINE)
        assert found == 1
    monkeypatch.chdir(folder)
    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"{name}, code cell {number}", "exec"), names)
    return names


@pytest.mark.unit
def test_they_are_valid_and_saved_without_outputs() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["encode_pretrain_finetune", "quickstart"]
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@pytest.mark.cli
def test_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("quickstart", tmp_path, monkeypatch, CLIPS_PER_WORD=4, EPOCHS=4)
    assert {path.name for path in tmp_path.iterdir()} >= {"codes.png", "before.wav", "after.wav", "words"}
    assert names["accuracy"] >= 0.5  # of three words; it was 0.83
    assert {guess["label"] for guess in names["guesses"]} == {"left", "right", "stop"}
    assert (len(names["train"]), len(names["test"])) == (12, 6)


@pytest.mark.cli
def test_encode_pretrain_finetune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"CLIPS_PER_WORD": 4, "PRETRAINING_EPOCHS": 2, "FINETUNING_EPOCHS": 2}
    names = run("encode_pretrain_finetune", tmp_path, monkeypatch, **few)
    assert len(names["codes"]) == 12
    for folder in ("my_codes", "my_network", "my_model"):
        assert (tmp_path / folder).is_dir()
    assert f"on {names['result']['num_clips']['test']} clips, by chance" in capsys.readouterr().out
