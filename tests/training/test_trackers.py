"""What a training reports can be read back by the trackers' own readers, on this machine and without a network."""

import json
import re
import sys
from pathlib import Path

import pytest

from hf_audioformer import cli
from hf_audioformer.training.trackers import check_trackers
from hf_audioformer.training.trainer import trainer_arguments

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = ["--training.disable_tqdm", "true", "--training.num_train_epochs", "3"]


@pytest.fixture
def trackio_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where trackio keeps its database while the test runs; it asks for the folder when it is imported."""
    pytest.importorskip("trackio", reason="the extra `tracking` is not installed")
    import trackio.sqlite_storage
    import trackio.utils

    for module in (trackio.sqlite_storage, trackio.utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    return tmp_path / "trackio"


def losses_of_card(output_dir: Path) -> list[float]:
    """The training loss of each epoch, as the card's table has it: to four digits."""
    return [
        float(loss) for loss in re.findall(r"^\| \d+ \| (\d+\.\d{4}) \|", (output_dir / "README.md").read_text(), re.M)
    ]


def scalars(output_dir: Path) -> dict[str, list[float]]:
    """What TensorBoard reads, by tag."""
    pytest.importorskip("tensorboard", reason="the extra `tracking` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (output_dir / "runs").rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events)).Reload()
    return {tag: [event.value for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


@pytest.mark.cli
def test_finetune_reports_training_and_test_as_one_run(
    tone_folder: Path, tiny_checkpoint: str, tmp_path: Path, trackio_folder: Path
) -> None:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    command = ["finetune", "--data.source", str(tone_folder), "--model.checkpoint", tiny_checkpoint, *SHORT]
    command += ["--training.report_to", "[tensorboard, trackio]", "--training.project", "tones"]
    assert cli.main([*command, "--output_dir", str(tmp_path / "model")]) == 0
    losses, board = losses_of_card(tmp_path / "model"), scalars(tmp_path / "model")
    assert len(losses) == 3
    assert board["train/loss"] == pytest.approx(losses, abs=6e-5)
    assert len(board["eval/score"]) == 3

    trackio.finish()  # as the end of the process does: what was reported last is written by a thread
    (run,) = SQLiteStorage.get_runs("tones")
    assert run.startswith("model ")
    rows = SQLiteStorage.get_logs("tones", run)
    assert (trackio_folder / "tones.db").is_file()
    assert [row["train/loss"] for row in rows if "train/loss" in row] == pytest.approx(board["train/loss"])
    assert [row["eval/score"] for row in rows if "eval/score" in row] == pytest.approx(board["eval/score"])
    (result,) = json.loads((tmp_path / "model" / "results.json").read_text())
    assert [row["test/score"] for row in rows if "test/score" in row] == [result["score"]]


@pytest.mark.cli
def test_pretrain_reports_its_loss(tone_folder: Path, tiny_codec: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    command = ["pretrain", "--data.sources", f"[{tone_folder}]", "--model.codec", tiny_codec, *SHORT]
    command += [word for name, value in sizes.items() for word in (f"--model.{name}", str(value))]
    command += ["--training.report_to", "tensorboard", "--output_dir", str(tmp_path / "network")]
    assert cli.main(command) == 0
    losses = losses_of_card(tmp_path / "network")
    assert len(losses) == 3
    assert scalars(tmp_path / "network")["train/loss"] == pytest.approx(losses, abs=6e-5)


@pytest.mark.fault
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for tracker in ("trackio", "tensorboard"):
        monkeypatch.setitem(sys.modules, tracker, None)
        with pytest.raises(ImportError, match=rf"{tracker} needs {tracker}: pip install 'hf_audioformer\[tracking\]'"):
            check_trackers({"report_to": ["wandb", tracker]})
    check_trackers({"report_to": "none"})
    for command in (["finetune", "--data.source", "nothing"], ["pretrain", "--data.sources", "[nothing]"]):
        output = ["--output_dir", str(tmp_path / "out"), "--training.report_to", "trackio"]
        assert cli.main([*command, *output]) == 1
        assert "pip install 'hf_audioformer[tracking]'" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.unit
def test_a_space_of_trackio_is_private_unless_asked() -> None:
    def private(**chosen: bool) -> bool | None:
        return trainer_arguments({}, chosen, output_dir="out", seed=0, use_cpu=True).hub_private_repo

    assert private() is True
    assert private(hub_private_repo=False) is False
