"""`hf-audioformer reconstruct`: files, tables and means are those of the codec's round trips."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hf_audioformer import AudioCodec, cli, load_audio
from hf_audioformer.audio.log_mel import log_mel_distance
from hf_audioformer.inference.listening import round_trips

from ..fixtures_recipes import SAMPLING_RATE, tone

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two clips of one name in two folders."""
    for number, folder in enumerate(("a", "b")):
        (tmp_path / "clips" / folder).mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / folder / "clip.wav", tone(["low"], seed=number), SAMPLING_RATE)
    return tmp_path / "clips"


@pytest.mark.cli
def test_sound_and_table(clips: Path, tiny_codec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    asked = ["reconstruct", str(clips), "--output_dir", str(output), "--model", tiny_codec]
    assert cli.main([*asked, "--codebooks", "[1, 4]"]) == 0
    shown = capsys.readouterr().out
    codec = AudioCodec.from_pretrained(tiny_codec)
    with (output / "distances.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["file"]).parent.name, row["codebooks"]) for row in rows] == [
        *[("a", "1"), ("a", "4")],
        *[("b", "1"), ("b", "4")],
    ]
    distances = []
    for row, stem in zip(rows, ("clip", "clip", "clip_2", "clip_2"), strict=True):
        waveform = torch.from_numpy(load_audio(row["file"], 24_000)["array"])
        count = int(row["codebooks"])
        decoded = round_trips(codec, waveform, [count])[count]
        distances.append(log_mel_distance(decoded, waveform, 24_000))
        assert float(row["log_mel_distance"]) == pytest.approx(distances[-1], abs=1e-4)
        assert float(row["kbps"]) == pytest.approx(0.45 * count)
        written = load_audio(output / f"{stem}.{count}_codebooks.wav")
        assert written["sampling_rate"] == 24_000
        np.testing.assert_allclose(written["array"], decoded.clamp(-1, 1), atol=1e-4)
        np.testing.assert_allclose(load_audio(output / f"{stem}.original.wav")["array"], waveform, atol=1e-4)
    assert "mean of 2 clips" in shown
    assert f"{1:9}{0.45:10.2f}{np.mean(distances[::2]):18.3f}" in shown
    assert cli.main(asked) == 1
    assert "out holds earlier results. Replace them with --overwrite true" in capsys.readouterr().err


@pytest.mark.fault
def test_bad_clips_and_missing_codebooks(
    clips: Path, tiny_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The AudioFormer's codec has eight codebooks, of which it reads two; all of them can be heard."""
    (clips / "bad.wav").write_bytes(b"no sound")
    asked = ["reconstruct", str(clips), "--output_dir", str(tmp_path / "out"), "--model", tiny_checkpoint]
    assert cli.main(asked) == 1
    shown = capsys.readouterr()
    assert f"left out: {clips / 'bad.wav'}: not readable as audio" in shown.err
    assert "| 3.0/3 clips" in shown.err
    assert "1 of 3 clips could not be reconstructed" in shown.err
    assert {path.name.split(".")[1] for path in (tmp_path / "out").glob("clip.*")} == {
        *("original", "1_codebooks", "2_codebooks", "4_codebooks", "8_codebooks")
    }
