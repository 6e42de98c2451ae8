"""`hf-audioformer predict`: what is on the screen and in the files is what the classifier says."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from hf_audioformer import AudioFormerFeatureExtractor, cli
from hf_audioformer.inference import AudioClassifier
from hf_audioformer.recipes.inputs import with_names

from ..fixtures_recipes import SAMPLING_RATE, tone
from ..inference.tiny_classifiers import audioformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tiny_extractor: AudioFormerFeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> str:
    return audioformer(tmp_path_factory.mktemp("model"), tiny_extractor)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, one of them in a folder below, beside what is no sound, is hidden, or cannot be read."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "below").mkdir()
    soundfile.write(folder / "one.wav", tone(["low"], seed=0), SAMPLING_RATE)
    soundfile.write(folder / "below" / "two.flac", tone(["high", "low"], seed=1, seconds=1.3), SAMPLING_RATE)
    for name in ("notes.txt", ".hidden.wav"):
        (folder / name).write_bytes(b"no sound")
    return folder


@pytest.mark.cli
def test_screen_json_and_csv_say_what_the_classifier_says(
    model: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(clips / "below" / "two.flac"), str(clips / "one.wav")]
    targets = ["--json", str(tmp_path / "out" / "found.jsonl"), "--csv", str(tmp_path / "found.csv")]
    assert cli.main(["predict", model, str(clips), "--top", "2", "--device", "cpu", *targets]) == 0
    shown = capsys.readouterr().out
    classifier = AudioClassifier.from_pretrained(model, device="cpu")
    expected = {file: classifier(file).top(2) for file in files}
    lines = [f"{guess['score']:8.4f}  {guess['label']}" for guesses in expected.values() for guess in guesses]
    assert [line.strip() for line in shown.splitlines() if "(" not in line] == [line.strip() for line in lines]
    assert f"{files[0]}  (1.30 s)" in shown

    records = [json.loads(line) for line in (tmp_path / "out" / "found.jsonl").read_text().splitlines()]
    assert [record["file"] for record in records] == files
    for record in records:
        assert record.keys() == {"file", "seconds", "scores"}
        assert [guess["label"] for guess in record["scores"]] == [guess["label"] for guess in expected[record["file"]]]
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["label"]) for row in rows] == [
        (file, guess["label"]) for file, guesses in expected.items() for guess in guesses
    ]
    scores = [guess["score"] for guesses in expected.values() for guess in guesses]
    assert [float(row["score"]) for row in rows] == pytest.approx(scores, abs=1e-5)

    assert cli.main(["predict", model, str(clips), *targets]) == 1
    assert "found.jsonl exists. Replace it with --overwrite true" in capsys.readouterr().err


@pytest.mark.cli
def test_timestamps_say_when(model: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--timestamps", "0.1", "--window", "0.3", "--threshold", "0.4", "--merge_gaps", "0.1"]
    targets = ["--json", str(tmp_path / "found.jsonl"), "--csv", str(tmp_path / "found.csv")]
    file = str(clips / "below" / "two.flac")
    assert cli.main(["predict", model, file, *settings, *targets]) == 0
    classifier = AudioClassifier.from_pretrained(model, device="cpu", window_seconds=0.3, hop_seconds=0.1)
    events = classifier(file).events(0.4, merge_gaps_seconds=0.1)
    assert events
    shown = capsys.readouterr().out
    for event in events:
        assert f"{event.start_seconds:8.2f} to {event.end_seconds:8.2f} s  " in shown
    record = json.loads((tmp_path / "found.jsonl").read_text())
    assert [event["start_seconds"] for event in record["events"]] == [event.start_seconds for event in events]
    assert record["track"]["hop_seconds"] == pytest.approx(0.1)
    assert {len(scores) for scores in record["track"]["scores"].values()} == {13}
    with (tmp_path / "found.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(row["label"], float(row["end_seconds"])) for row in rows] == [
        (event.label, event.end_seconds) for event in events
    ]


@pytest.mark.fault
def test_bad_files_are_named_and_left_out(
    model: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"no sound")
    found = tmp_path / "found.jsonl"
    assert cli.main(["predict", model, str(bad), str(clips / "one.wav"), "--json", str(found)]) == 1
    shown = capsys.readouterr()
    assert f"left out: {bad}: not readable as audio" in shown.err
    assert "| 2.0/2 clips" in shown.err
    assert "1 of 2 clips could not be classified; they are named above" in shown.err
    assert [json.loads(line)["file"] for line in found.read_text().splitlines()] == [str(clips / "one.wav")]


@pytest.mark.fault
def test_what_was_found_is_there_when_it_is_interrupted(
    model: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, heard = tmp_path / "found.jsonl", AudioClassifier.each

    def interrupted(self: AudioClassifier, sounds: list[str], **settings: object) -> Iterator:
        yield next(heard(self, sounds, **settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(AudioClassifier, "each", interrupted)
    assert cli.main(["predict", model, str(clips), "--json", str(found)]) == 130
    assert f"stopped after 1 of 2 clips; they are in {found}" in capsys.readouterr().err
    assert len(found.read_text().splitlines()) == 1


@pytest.mark.fault
def test_mistakes_are_named(model: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error_of(*arguments: str) -> str:
        assert cli.main(["predict", "no_model", *arguments]) == 1
        return capsys.readouterr().err

    assert "sources is required" in error_of()
    assert "no such file or folder" in error_of("nowhere.wav")
    (tmp_path / "empty").mkdir()
    assert "there is no sound file in this folder" in error_of(str(tmp_path / "empty"))
    assert "threshold is 2.0; it must lie between 0 and 1" in error_of(str(clips), "--threshold", "2")
    assert cli.main(["predict", model, str(clips), "--timestamps", "0.5", "--window", "0.4"]) == 1
    assert "timestamps is 0.5 s; it must be above 0 and at most window, 0.4 s" in capsys.readouterr().err
    same = ["--json", str(tmp_path / "found"), "--csv", str(tmp_path / "empty" / ".." / "found")]
    assert f"json and csv are both {tmp_path / 'found'}; name two files" in error_of(str(clips), *same)
    assert "merge_gaps is -1.0 s; it must be at least 0" in error_of(str(clips), "--merge_gaps", "-1")
    assert "top and batch_size must be at least 1, found 0 and 8" in error_of(str(clips), "--top", "0")


@pytest.mark.unit
def test_words_without_names_are_told_from_values() -> None:
    named = with_names(["A", "--x", "1", "b c", "--y=2", 'd"é', "--help"], "model", rest="sources")
    assert named == ["--model", "A", "--sources", '["b c", "d\\"é"]', "--x", "1", "--y=2", "--help"]
    assert with_names(["--x", "1"], "model", rest="sources") == ["--x", "1"]
    assert with_names(["A", "B", "--last"], "model") == ["--model", "A", "B", "--last"]
