"""The command line: it finds its commands, and users' mistakes end in one message."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from hf_audioformer import cli


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Registers a command `sample` whose module has the given lines as the body of its `main(argv)`."""

    def register(*lines: str) -> None:
        (tmp_path / "sample_command.py").write_text("\n    ".join(["def main(argv):", *lines]))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "sample_command", raising=False)
        monkeypatch.setitem(cli.COMMANDS, "sample", cli.Command("sample_command", "a sample"))

    return register


@pytest.mark.cli
def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().out == shown
    assert re.findall(r"^  ([a-z-]+) ", shown, re.MULTILINE) == list(cli.COMMANDS)


@pytest.mark.cli
def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("hf_audioformer")


@pytest.mark.cli
@pytest.mark.parametrize(
    ("name", "hint"), [("finetun", "did you mean 'finetune'?"), ("zzz", "choose from quickstart,")]
)
def test_unknown_command(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name]) == 2
    assert f"unknown command {name!r}; {hint}" in capsys.readouterr().err


@pytest.mark.cli
@pytest.mark.parametrize(
    "lines",
    [
        ["from hf_audioformer.training.launch import check_launch", "check_launch(expected_world_size=3)"],
        ["open('/no/such/file')"],
    ],
    ids=["raised by the package", "a missing file"],
)
def test_a_users_mistake_is_one_message(
    lines: list[str], command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(*lines)
    assert cli.main(["sample"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("hf-audioformer: ")
    assert "Traceback" not in shown
    monkeypatch.setenv("HF_AUDIOFORMER_DEBUG", "1")
    assert cli.main(["sample"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.cli
@pytest.mark.parametrize(("line", "error"), [("int('x')", ValueError), ("import no_such_module", ModuleNotFoundError)])
def test_a_bug_keeps_its_stack_trace(line: str, error: type[Exception], command) -> None:
    command(line)
    with pytest.raises(error):
        cli.main(["sample"])


@pytest.mark.cli
@pytest.mark.parametrize(
    ("raised", "line"),
    [("KeyboardInterrupt", "hf-audioformer: interrupted"), ("KeyboardInterrupt('step 3 saved')", "step 3 saved")],
)
def test_ctrl_c_is_one_line(raised: str, line: str, command, capsys: pytest.CaptureFixture[str]) -> None:
    command(f"raise {raised}")
    assert cli.main(["sample"]) == 130
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.count("\n") == 1


@pytest.mark.cli
def test_the_commands_arguments_reach_it(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("print(argv)")
    assert cli.main(["sample", "config.yaml", "--a.b", "1"]) == 0
    assert capsys.readouterr().out == "['config.yaml', '--a.b', '1']\n"


@pytest.mark.cli
@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli.main([name, "--help"])
    assert leaving.value.code in (None, 0)
    assert len(capsys.readouterr().out) > 50


@pytest.mark.cli
def test_the_installed_command_explains_a_missing_config() -> None:
    script = Path(sys.executable).with_name("hf-audioformer")
    done = subprocess.run(
        [script, "finetune", "missing.yaml"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("hf-audioformer: config file 'missing.yaml' does not exist")
    assert "Traceback" not in done.stderr
