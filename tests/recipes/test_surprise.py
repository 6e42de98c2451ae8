"""`hf-audioformer surprise`: tables hold the surprise of each frame, and bad files are named."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hf_audioformer import cli, load_audio
from hf_audioformer.inference.listening import surprise_track
from hf_audioformer.recipes import surprise
from hf_audioformer.recipes.infill import load_masked_lm

from ..fixtures_recipes import SAMPLING_RATE, tone

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.cli
def test_tables_and_figures(tiny_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips, output = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    soundfile.write(clips / "clip.wav", tone(["low", "high"], seed=0, seconds=1.2), SAMPLING_RATE)
    (clips / "bad.wav").write_bytes(b"no sound")
    asked = ["surprise", str(clips), "--output_dir", str(output), "--model", tiny_checkpoint, "--span", "2"]
    assert cli.main([*asked, "--top", "2", "--device", "cpu"]) == 1
    shown = capsys.readouterr()
    assert f"left out: {clips / 'bad.wav'}: not readable as audio" in shown.err
    assert "| 2.0/2 clips" in shown.err
    assert "1 of 2 clips could not be used" in shown.err

    model, extractor = load_masked_lm(tiny_checkpoint, "cpu")
    waveform = torch.from_numpy(load_audio(clips / "clip.wav", 24_000)["array"])
    starts, nats = surprise_track(model, extractor, waveform, span_frames=2, gap_frames=12)
    with (output / "clip.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["start_seconds"]) for row in rows], starts, atol=1e-6)
    np.testing.assert_allclose([float(row["surprise"]) for row in rows], nats.mean(1), atol=1e-4)
    np.testing.assert_allclose([float(row["codebook_1"]) for row in rows], nats[:, 1], atol=1e-4)
    means = {start: nats[(starts >= start) & (starts < start + 0.5)].mean() for start in (0.0, 0.5, 1.0)}
    best = sorted(means, key=lambda start: -means[start])[:2]
    lines = [line for line in shown.out.splitlines() if " to " in line]
    assert [float(line.split()[0]) for line in lines] == best
    assert [float(line.split()[4]) for line in lines] == pytest.approx([means[start] for start in best], abs=0.006)
    assert (output / "clip.png").stat().st_size > 10_000
    with (output / "surprise.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (float(row["seconds"]), float(row["surprise"])) == (pytest.approx(1.2), pytest.approx(nats.mean(), abs=1e-4))


@pytest.mark.fault
def test_names_of_clips_and_clips_without_a_picture(
    tiny_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One has the name of the summary, one the sign of formulas; one is too short for a spectrogram and left out."""
    clips, output = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    for name, seconds in (("a_short", 0.02), ("price $_$", 0.3), ("surprise", 0.3)):
        soundfile.write(clips / f"{name}.wav", tone(["low"], seed=0, seconds=seconds), SAMPLING_RATE)
    asked = ["surprise", str(clips), str(clips / "surprise.wav"), "--model", tiny_checkpoint, "--device", "cpu"]
    assert cli.main([*asked, "--output_dir", str(output)]) == 1
    shown = capsys.readouterr().err
    assert f"left out: {clips / 'a_short.wav'}: waveform has shape (320,)" in shown
    assert "| 3.0/3 clips" in shown
    assert "1 of 3 clips could not be used" in shown
    assert {path.name for path in output.iterdir()} == {
        *("surprise.csv", "surprise_2.csv", "surprise_2.png"),
        *("price $_$.csv", "price $_$.png"),
    }
    with (output / "surprise.csv").open(newline="") as file:
        assert [Path(row["file"]).name for row in csv.DictReader(file)] == ["price $_$.wav", "surprise.wav"]
    assert cli.main([*asked, "--output_dir", str(tmp_path / "other"), "--batch_size", "0"]) == 1
    assert "top and batch_size must be at least 1, found 3 and 0" in capsys.readouterr().err


@pytest.mark.unit
@pytest.mark.parametrize(
    ("seconds", "frames", "last"),
    [
        (5.0, 376, "4.50 to 5.00 s"),
        (1.2, 90, "1.00 to 1.20 s"),
        (0.3, 23, "0.00 to 0.30 s"),
        (0.04, 3, "0.00 to 0.04 s"),
    ],
)
def test_the_last_stretch_ends_with_the_clip(seconds: float, frames: int, last: str) -> None:
    """Also where the last frame begins with the clip's end; here it is the one of highest surprise."""
    lines = surprise._lines(np.arange(frames) / 75, np.arange(float(frames))[:, None], seconds, 20)
    assert lines[0].strip().startswith(last)
    assert len(lines) == {5.0: 10, 1.2: 3}.get(seconds, 1)
