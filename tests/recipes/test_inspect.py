"""`hf-audioformer inspect`, as a user runs it: on four architectures, and where it must say no."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import HfApi

from hf_audioformer import cli, load_audio
from hf_audioformer.inference.masked_codes import surprise
from hf_audioformer.inspection.tracing import load_model, trace_clip
from hf_audioformer.recipes import inspect

from ..fixtures_codec import varied_sound
from ..hub_double import HubDouble
from ..inspection.tiny_zoo import save_zoo

pytestmark = pytest.mark.cli

NAMES = ["wav2vec2", "whisper", "ast", "audioformer"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return save_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """1.5 s of changing noise."""
    file = tmp_path_factory.mktemp("clips") / "noise.wav"
    soundfile.write(file, varied_sound(36_000).numpy(), 24_000)
    return str(file)


def test_four_architectures_in_one_call(
    zoo: dict[str, str], clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["inspect", *zoo.values(), "--clip", clip, "--max_seconds", "1", "--output_dir", str(tmp_path)]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "noise: 1.5 s, of which the first 1 s are taken" in printed
    assert str(tmp_path / "report.html") in printed
    report = json.loads((tmp_path / "inspect.json").read_text())
    assert [row["model"] for row in report["models"]] == NAMES
    page = (tmp_path / "report.html").read_text()
    pngs = list(tmp_path.glob("*.png"))
    assert len(pngs) == 2 + 4 * 4 + 3  # of all; of each; cross-attention, codes and surprise
    assert page.count("data:image/png;base64,") == len(pngs)
    assert "http" not in page
    for row in report["models"]:
        for fact in (row["model_class"], str(tuple(row["input_shape"])), f"{row['step_ms']:.4g} ms"):
            assert f"<td>{fact}" in page
            assert fact in printed
    view = next(view for view in report["views"] if view["model"] == "wav2vec2")
    audio = {"array": load_audio(clip)["array"][:24_000], "sampling_rate": 24_000}
    trace = trace_clip(load_model(zoo["wav2vec2"]), audio)
    steps = np.arange(49)
    expected = 0.02 * (trace.attentions[1] * np.abs(steps[:, None] - steps)).sum(-1).mean(-1)
    assert view["distances_seconds"][1] == pytest.approx(expected, rel=1e-3)

    network = load_model(zoo["audioformer"])
    ids = torch.from_numpy(trace_clip(network, audio).input_ids)
    nats = next(view["mean_surprise_nats"] for view in report["views"] if view["model"] == "audioformer")
    assert nats == pytest.approx(float(surprise(network.model, ids).mean()), rel=1e-3)
    assert [view["mean_surprise_nats"] for view in report["views"]][:3] == [None] * 3

    assert cli.main(command) == 1
    assert "--overwrite true" in capsys.readouterr().err


def test_ids_of_the_hub_beside_models_that_cannot_be_inspected(
    zoo: dict[str, str], clip: str, tmp_path: Path, hub_client: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """These are named, and the others go on."""
    api = HfApi()
    ids = [f"tester/{name}" for name in ("wav2vec2", "whisper")]
    for name in ids:
        api.create_repo(name, private=True)
        api.upload_folder(repo_id=name, folder_path=zoo[name.removeprefix("tester/")])
    bad = [f"{tmp_path}/none", f"{zoo['audioformer']}/codec"]
    clips = ["--clip", clip, "--max_seconds", "0.5", "--output_dir"]
    assert cli.main(["inspect", bad[0], ids[0], bad[1], ids[1], *clips, str(tmp_path / "report")]) == 1
    shown = capsys.readouterr()
    assert f"left out: models is {bad[0]}: there is no such folder" in shown.err
    assert f"left out: {bad[1]}: it holds a model of type encodec and no feature extractor" in shown.err
    assert "| 4/4 [" in shown.err
    assert shown.err.endswith("2 of 4 models could not be inspected; they are named above\n")
    assert f"Open {tmp_path / 'report' / 'report.html'}" in shown.out
    report = json.loads((tmp_path / "report" / "inspect.json").read_text())
    found = [(row["source"], row["model_class"], row["random_weights"]) for row in report["models"]]
    assert found == [
        (ids[0], "Wav2Vec2ForSequenceClassification", 0),
        (ids[1], "WhisperForConditionalGeneration", 0),
    ]
    assert cli.main(["inspect", *bad, *clips, str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.endswith("2 of 2 models could not be inspected; they are named above\n")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{ast}/none", "--clip", "{clip}"], "there is no such folder. Give one that holds a model"),
        (["{ast}", "--clip", "missing.wav"], "missing.wav: expected an audio file, found nothing"),
        (["{ast}", "{ast}", "--clip", "{clip}"], "is named twice"),
        (["{ast}", "--clip", "{clip}", "--layer", "5"], "layer is 5 and ast has 2"),
        (["{ast}", "--clip", "{clip}", "--max_seconds", "0"], "max_seconds is 0.0; it must be above 0"),
        (["--clip", "{clip}"], "models is required"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str],
    message: str,
    zoo: dict[str, str],
    clip: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word.format(clip=clip, **zoo) for word in arguments]
    assert cli.main(["inspect", *words, "--output_dir", str(tmp_path / "report")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_what_shares_a_name_is_called_by_its_path() -> None:
    assert inspect.short_names(["a/x.wav", "b/x.wav", "b/y.wav"], ["x", "x", "y"]) == ["a/x.wav", "b/x.wav", "y"]
