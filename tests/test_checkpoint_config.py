"""Whoever names a model that is not there is told so in the same words, wherever the name is given."""

import json
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest

from hf_audioformer import assets, cli
from hf_audioformer.checkpoint_config import read_config

COMMANDS = {
    "model": (
        ["evaluate", "--data.source", "commands", "--output_dir", "out", "--model"],
        ["export", "--output_dir", "out"],
    ),
    "model.checkpoint": (
        ["finetune", "--data.source", "commands", "--output_dir", "out", "--model.checkpoint"],
        ["finetune-ast", "--data.source", "commands", "--output_dir", "out", "--model.checkpoint"],
    ),
    "folder": (["push", "--repo", "me/model", "--folder"],),
    "codec.checkpoint": (["encode", "--data.source", "commands", "--output_dir", "out", "--codec.checkpoint"],),
    "codec.name": (["encode", "--data.source", "commands", "--output_dir", "out", "--codec.name"],),
    "model.codec": (["pretrain", "--data.sources", "[commands]", "--output_dir", "out", "--model.codec"],),
    "extractor": (["stats", "--data.source", "commands", "--output_dir", "out", "--extractor"],),
}


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "fold_1"
    folder.mkdir(parents=True)
    shutil.copy(Path(assets.checkpoint_folder()) / "config.json", folder)
    return folder


@pytest.mark.cli
@pytest.mark.parametrize(
    ("argument", "command"),
    [(argument, command) for argument, commands in COMMANDS.items() for command in commands],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_every_command_names_the_folder_that_is_missing(
    argument: str,
    command: list[str],
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model_folder.parent.parent)
    option = ["--model"] if command[0] == "export" else []
    missing = f"{model_folder.parent}/fold_2"
    assert cli.main([*command, *option, missing]) == 1
    told = capsys.readouterr().err
    assert f"{argument} is {missing}: there is no such folder" in told
    assert "has fold_1" in told
    assert "Repo id" not in told
    assert not Path("out").exists()


@pytest.mark.unit
def test_a_model_of_a_folder_is_read(model_folder: Path) -> None:
    assert read_config(model_folder, "model").model_type == "audioformer"


@pytest.mark.fault
def test_a_name_that_could_be_the_hubs_is_looked_for_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("no_such_model", "runs/no_such_model"):
        with pytest.raises(FileNotFoundError, match=rf"model is {name}: there is no such folder here, and as an id of"):
            read_config(name, "model")


@pytest.mark.fault
def test_a_hub_that_cannot_be_reached_is_said_at_once_and_once(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(model_folder.parent.parent)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    begin = time.monotonic()
    assert cli.main(["predict", "no_such/model", str(model_folder / "config.json")]) == 1
    assert time.monotonic() - begin < 10  # with all its attempts the client takes 23 s and more
    told = capfd.readouterr().err
    assert told.startswith("hf-audioformer: model is no_such/model: there is no such folder here, and as an id of")
    assert "the Hub cannot be reached" in told
    assert f"{model_folder.parent.parent} has runs" in told


@pytest.mark.fault
def test_what_is_no_folder_of_a_model(model_folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model is .*runs, which has no config.json; it holds fold_1: give"):
        read_config(model_folder.parent, "model")
    with pytest.raises(FileNotFoundError, match=r"which has no config.json; so it is not the folder of a model"):
        read_config(model_folder.parent.parent, "model")
    with pytest.raises(NotADirectoryError, match=r"model is .*config.json, a file; give the folder of a model"):
        read_config(model_folder / "config.json", "model")
    for content in ("{", json.dumps({"model_type": "unheard_of"}), "{}"):
        (model_folder / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"model is .*fold_1, wh"):
            read_config(model_folder, "model")
