from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hf_audioformer.recipes.codec_clips import load_waveforms, set_level


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, level in (("a/loud.wav", 0.5), ("a/quiet.flac", 0.005), ("b.ogg", 0.1)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, level * np.sin(np.arange(8000) / 5), 8000)
    (tmp_path / "notes.txt").write_text("not audio")
    return tmp_path


@pytest.mark.unit
def test_all_audio_files_of_a_folder_come_at_one_rate_and_level(folder: Path) -> None:
    waveforms = load_waveforms([str(folder)], [], 24_000, -20.0)
    assert [len(waveform) for waveform in waveforms] == [24_000] * 3
    for waveform in waveforms:
        assert waveform.square().mean().sqrt().item() == pytest.approx(0.1, rel=1e-4)


@pytest.mark.unit
def test_silence_stays_silence() -> None:
    assert set_level(torch.zeros(100), -23.0).abs().max() == 0


@pytest.mark.unit
def test_held_out_clips_and_the_others_make_up_the_whole(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", np.full(800, 0.1), 8000)
    table = tmp_path / "clips.csv"
    table.write_text("path,label,fold\na.wav,x,1\nb.wav,x,2\nc.wav,y,2\n")
    source = str(table)
    assert len(load_waveforms([source], [f"{source}:fold=2"], 8000, -23.0)) == 1
    assert len(load_waveforms([source], [f"{source}:fold=2"], 8000, -23.0, only_held_out=True)) == 2


@pytest.mark.unit
def test_a_folder_with_metadata_can_be_held_out_in_part(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,label,fold\na/loud.wav,x,1\na/quiet.flac,x,2\n")
    for entry in ("fold=2", f"{folder}:fold=2"):
        assert len(load_waveforms([str(folder)], [entry], 8000, -23.0)) == 1
    with pytest.raises(ValueError, match="hold_out 'fold=3' leaves no clip out"):
        load_waveforms([str(folder)], ["fold=3"], 8000, -23.0)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("notes.txt", "lies in .*/second or below it; name a .parquet or .csv itself"),
        ("clips.parquet", "lies in .*/second or below it; name a .parquet or .csv itself"),
        ("a/b.M4A", "lies in .*/second or below it; convert .m4a to wav or flac"),
        ("plan.json", "second is a code store, which has no sound; give what it was encoded from"),
    ],
)
def test_a_folder_that_gives_no_sound_is_refused(file: str, message: str, folder: Path, tmp_path: Path) -> None:
    """Beside one that does."""
    (tmp_path / "second" / file).parent.mkdir(parents=True)
    (tmp_path / "second" / file).write_text("")
    with pytest.raises(ValueError, match=message):
        load_waveforms([str(folder / "a"), str(tmp_path / "second")], [], 24_000, -23.0)


@pytest.mark.fault
def test_files_that_cannot_be_read_are_told_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "a" / "b.m4a").write_text("")
    assert len(load_waveforms([str(folder)], [], 8000, -23.0)) == 3
    assert caplog.messages == [f"{folder}: 1 of 4 sound files are left out, .m4a cannot be read"]


@pytest.mark.fault
def test_nothing_left_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="no clips are left"):
        load_waveforms([str(folder)], [], 24_000, -23.0, only_held_out=True)
