"""The first thing a newcomer runs, as a whole."""

from pathlib import Path

import pytest
from transformers import pipeline

from hf_audioformer import assets, cli, load_audio, read_clips
from hf_audioformer.training.results import read_results


@pytest.fixture
def bundled() -> None:
    for folder in (assets.codec_folder(), assets.checkpoint_folder()):
        if not (Path(folder) / "model.safetensors").is_file():
            pytest.skip(f"{folder} has no model.safetensors")


@pytest.mark.cli
def test_help_says_what_it_does_and_its_one_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli.main(["quickstart", "--help"])
    assert leaving.value.code == 0
    printed = capsys.readouterr().out
    assert "Three minutes on two CPU cores, no network" in printed
    assert "--output_dir: str, default quickstart" in printed


@pytest.mark.fault
def test_a_folder_of_the_users_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert cli.main(["quickstart", "--output_dir", str(tmp_path)]) == 1
    assert "was not made by this command" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").is_file()


@pytest.mark.slow
@pytest.mark.cli
@pytest.mark.timeout(900)
def test_quickstart_beats_baseline_and_chance_and_its_folder_loads(
    bundled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    output = tmp_path / "quickstart"
    assert cli.main(["quickstart", "--output_dir", str(output)]) == 0
    printed = capsys.readouterr().out
    shown = {
        name: float(line.split()[-1].removesuffix("%")) / 100
        for line in printed.splitlines()
        for name in ("AudioFormer", "log-mel baseline", "chance")
        if line.startswith(f"  {name}")
    }
    (result,) = read_results(output / "result.json")
    assert shown["AudioFormer"] == pytest.approx(result.score, abs=0.001)
    assert shown["AudioFormer"] > shown["log-mel baseline"] > shown["chance"]
    assert f'model="{output}"' in printed

    clips = read_clips("commands")
    classifier = pipeline("audio-classification", model=str(output), device="cpu", top_k=1)
    assert classifier(dict(load_audio(assets.example_wav())))[0]["label"] in clips.label_names
    assert sorted(classifier.model.config.label2id) == sorted(clips.label_names)
