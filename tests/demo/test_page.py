"""What the page starts from; the page itself is tested in a browser."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from hf_audioformer import cli, load_audio
from hf_audioformer.data import read_clips
from hf_audioformer.demo.page import BUNDLED, bundled_examples

from ..conftest import PROJECT_ROOT


@pytest.mark.unit
def test_bundled_examples_are_commands_of_the_test_split(tmp_path: Path) -> None:
    files = bundled_examples(tmp_path)
    assert [Path(file).stem for file in files] == list(BUNDLED)
    clips = read_clips("commands")
    test = [row for row, split in enumerate(clips.column("split")) if split == "test"]
    for file in files:
        heard = load_audio(file)["array"]
        of_word = [clips.load(row)["array"] for row in test if clips.ids[row].endswith(f"_{Path(file).stem}")]
        assert any(len(one) == len(heard) and np.abs(one - heard).max() < 1e-4 for one in of_word)


@pytest.mark.cli
def test_mistakes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "model", "--examples", f"[{tmp_path / 'none.wav'}]"]) == 1
    assert f"examples: there is no file {tmp_path / 'none.wav'}" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gradio", None)  # as where it is not installed
    assert cli.main(["demo", "model"]) == 1
    assert "pip install 'hf_audioformer[demo]'" in capsys.readouterr().err


@pytest.mark.unit
def test_the_space_names_its_file_and_the_version_of_gradio_tested_here() -> None:
    space = PROJECT_ROOT / "examples" / "space"
    _, matter, _ = (space / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    settings = yaml.safe_load(matter)
    constraints = (PROJECT_ROOT / "constraints.txt").read_text(encoding="utf-8")
    (gradio,) = re.findall(r"^gradio==(.+)$", constraints, re.MULTILINE)
    assert (settings["sdk"], settings["sdk_version"]) == ("gradio", gradio)
    assert (space / settings["app_file"]).is_file()
    assert "hf_audioformer[demo]" in (space / "requirements.txt").read_text(encoding="utf-8").splitlines()
