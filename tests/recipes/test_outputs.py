"""Numbers, events, numbers along time and vectors from labelled clips to a folder that evaluate and predict take: one
training of each."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForAudioXVector,
)

from hf_audioformer import cli, load_audio, read_clips
from hf_audioformer.event_metrics import EventCounts, count_events, count_segments, macro_f1
from hf_audioformer.inference import AudioClassifier
from hf_audioformer.recipes import finetune
from hf_audioformer.training.arguments import parse_config

from ..fixtures_recipes import PITCHES_HZ, SAMPLING_RATE, tone

pytestmark = [pytest.mark.cli, pytest.mark.usefixtures("one_thread")]

SHORT = ["--training.num_train_epochs", "1", "--training.per_device_train_batch_size", "4"]
SHORT += ["--training.disable_tqdm", "true", "--training.learning_rate", "0.01"]
BY_COLUMN = ["--split.kind", "column", "--split.column", "split"]
VOICES = ("anna", "ben", "cleo", "dora")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 tones by four voices, two of them tested, with two numbers each; not to be changed."""
    folder = tmp_path_factory.mktemp("voices")
    with (folder / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "voice", "split", "pitch", "half"])
        for index in range(16):
            voice, pitch = index % 4, 200 + 60 * index
            time = np.arange(SAMPLING_RATE // 4) / SAMPLING_RATE
            wave = np.sin(2 * np.pi * pitch * time) + 0.5 * np.sin(2 * np.pi * (voice + 2) * 800 * time)
            soundfile.write(folder / f"{index}.wav", 0.2 * wave, SAMPLING_RATE)
            rows.writerow([f"{index}.wav", VOICES[voice], "test" if voice > 1 else "train", pitch, index // 8])
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv of eight clips in two folds, and a table of the tones in them, which begin and end within."""
    folder = tmp_path_factory.mktemp("events")
    names, random = list(PITCHES_HZ), np.random.default_rng(0)
    with (folder / "clips.csv").open("w", newline="") as file, (folder / "strong.csv").open("w", newline="") as strong:
        rows, events = csv.writer(file), csv.writer(strong)
        rows.writerow(["file_name", "fold"])
        events.writerow(["filename", "onset", "offset", "event_label"])
        for index in range(8):
            waveform = 0.01 * random.standard_normal(SAMPLING_RATE).astype(np.float32)
            for place in range(2):
                label, onset = names[(index + place) % 3], 0.1 + 0.4 * place
                start = round(onset * SAMPLING_RATE)
                waveform[start : start + SAMPLING_RATE // 4] += tone([label], seed=index, seconds=0.25)
                events.writerow([f"{index}.wav", onset, onset + 0.25, label])
            soundfile.write(folder / f"{index}.wav", waveform, SAMPLING_RATE)
            rows.writerow([f"{index}.wav", 1 + index // 4])
    return folder


@pytest.fixture(scope="module")
def glides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv of 16 tones whose pitch glides, in two folds, with a pause in each; and a table of their pitch in octaves,
    empty in the pause, and of their level."""
    folder = tmp_path_factory.mktemp("glides")
    random = np.random.default_rng(0)
    with (folder / "clips.csv").open("w", newline="") as file, (folder / "f0.csv").open("w", newline="") as curves:
        rows, points = csv.writer(file), csv.writer(curves)
        rows.writerow(["file_name", "fold"])
        points.writerow(["filename", "time", "pitch", "level"])
        for index in range(16):
            seconds = np.arange(SAMPLING_RATE) / SAMPLING_RATE
            start, end = random.permutation(random.uniform([0, 3], [1, 4]))
            octaves = start + (end - start) * seconds
            wave = 0.2 * np.sin(2 * np.pi * np.cumsum(200 * 2**octaves) / SAMPLING_RATE)
            wave[SAMPLING_RATE // 2 : 3 * SAMPLING_RATE // 4] = 0
            wave += 0.003 * random.standard_normal(SAMPLING_RATE)
            soundfile.write(folder / f"{index}.wav", wave, SAMPLING_RATE)
            rows.writerow([f"{index}.wav", 1 + index % 4 // 3])
            for step in random.permutation(101):
                is_pause = 50 <= step < 75
                pitch = "" if is_pause else start + (end - start) * step / 100
                points.writerow([f"{index}.wav", step / 100, pitch, -50 if is_pause else -17])
    return folder


def command(*words: Any) -> None:
    assert cli.main([str(word) for word in words]) == 0


def trained(checkpoint: str, source: Path, output_dir: Path, *options: Any) -> dict[str, Any]:
    """What a training of one epoch left in `results.json`."""
    base = ["finetune", "--data.source", source, "--model.checkpoint", checkpoint, "--output_dir", output_dir]
    command(*base, "--split.validation_fraction", "0", *SHORT, *options)
    (result,) = json.loads((output_dir / "results.json").read_text())
    return result


def evaluated(model: Path, source: Path, output_dir: Path, *options: Any) -> dict[str, Any]:
    base = ["evaluate", "--model", model, "--data.source", source, "--output_dir", output_dir, "--resamples", "20"]
    command(*base, *options)
    return json.loads((output_dir / "metrics.json").read_text())


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_numbers_are_learnt_and_told_in_the_units_of_the_data(
    clips: Path, tiny_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_folder, columns = tmp_path / "model", ["--data.target_columns", '["pitch", "half"]']
    result = trained(tiny_checkpoint, clips, model_folder, *columns)
    assert (result["metric"], result["floor_is"]) == ("R2", "ridge regression")
    assert "predict 2 numbers of each clip: pitch, half." in (model_folder / "README.md").read_text()

    report = evaluated(model_folder, clips, tmp_path / "report")  # it knows the columns
    model = AutoModelForAudioClassification.from_pretrained(model_folder)
    extractor = AutoFeatureExtractor.from_pretrained(model_folder)
    table = read_clips(clips, target_columns=["pitch", "half"])
    inputs = [
        extractor(audio["array"], audio["sampling_rate"], return_tensors="pt") for audio in map(table.load, range(16))
    ]
    with torch.no_grad():
        found = torch.cat([model(**of_clip).logits for of_clip in inputs])
    targets = torch.from_numpy(table.targets())
    assert report["metrics"]["mae"] == pytest.approx(float((found - targets).abs().mean()), rel=1e-4)
    assert result["chance"] < 0.1
    rows = rows_of(tmp_path / "report" / "predictions.csv")
    assert list(rows[0]) == ["id", "pitch", "pitch_predicted", "half", "half_predicted"]
    np.testing.assert_allclose([float(row["pitch_predicted"]) for row in rows], found[:, 0], rtol=1e-4)

    with torch.no_grad():
        loss = model(**inputs[0], labels=targets[:1]).loss
    standardised = (found[0] - targets[0]) / torch.tensor(model.config.target_scale)
    assert float(loss) == pytest.approx(float(standardised.square().mean()), rel=1e-4)
    assert abs(float(found[:, 0].mean()) - model.config.target_mean[0]) < 3 * model.config.target_scale[0]

    capsys.readouterr()
    command("predict", model_folder, clips.parent / "3.wav")
    assert "  pitch\n" in capsys.readouterr().out
    assert AudioClassifier.from_pretrained(str(model_folder))(clips.parent / "3.wav").scores == pytest.approx(
        found[table.ids.index("3.wav")].tolist(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("front_end", "step"),
    [((), 1 / 75), (("--model.random_weights", "true", "--model.front_end", "log_mel", "--model.num_mel_bins", "32",
      "--model.patch_size", "[4, 32]"), 0.04)],
    ids=["codes", "patches"],
)  # fmt: skip
def test_events_are_learnt_and_told_along_time(
    front_end: tuple[str, ...],
    step: float,
    events: Path,
    tiny_checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model_folder, source = tmp_path / "model", events / "clips.csv"
    folds = ["--split.kind", "folds", "--split.column", "fold", "--split.run_folds", "[2]"]
    strong = ["--data.events", events / "strong.csv"]
    head = ["--model.head", "moments", "--data.crop_seconds", "0.2"]
    result = trained(tiny_checkpoint, source, model_folder, *head, *strong, *folds, *front_end)
    model_folder /= "fold_2"
    assert result["metric"] == "segment F1"
    assert "tell when each of 3 classes is heard: high, low, middle." in (model_folder / "README.md").read_text()

    report = evaluated(
        model_folder, source, tmp_path / "report", *strong, "--split.column", "fold", "--split.values", "[2]"
    )
    for name, value in result["metrics"].items():  # one batch of the Trainer, and clip by clip
        assert report["metrics"][name] == pytest.approx(value, abs=1e-6)

    classifier = AudioClassifier.from_pretrained(str(model_folder))
    model = AutoModelForAudioFrameClassification.from_pretrained(model_folder)
    assert classifier.grid.seconds == pytest.approx(step)
    table = read_clips(source, events=events / "strong.csv")
    segments, pairs = [], []
    for index in range(4, 8):
        heard = classifier(events / f"{index}.wav")
        audio = load_audio(events / f"{index}.wav")
        inputs = classifier.front_end.extractor(audio["array"], audio["sampling_rate"], return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        boundaries = classifier.grid.boundaries
        expected = logits.sigmoid()[boundaries : len(logits) - boundaries]
        assert heard.scores == pytest.approx(_medians(expected, step).amax(dim=0).tolist(), abs=1e-5)
        found = [
            (table.label_names.index(event.label), event.start_seconds, event.end_seconds) for event in heard.events()
        ]
        true = [(table.label_names.index(label), onset, offset) for label, onset, offset in _strong(events, index)]
        segments.append(count_segments(true, found, 1.0, 3))
        pairs.append(count_events(true, found, 3))
    assert report["metrics"]["segment_f1"] == pytest.approx(macro_f1(EventCounts.of_clips(segments).total()))
    assert report["metrics"]["event_f1"] == pytest.approx(macro_f1(EventCounts.of_clips(pairs).total()))

    capsys.readouterr()
    command("predict", model_folder, events / "5.wav", "--threshold", "0", "--csv", tmp_path / "found.csv")
    assert "heard:\n        0.00 to     1.00 s" in capsys.readouterr().out
    assert [row["end_seconds"] for row in rows_of(tmp_path / "found.csv")] == ["1.0"] * 3
    assert cli.main(["predict", str(model_folder), str(events / "5.wav"), "--timestamps", "0.1"]) == 1
    assert "gives classes along time; leave it out" in capsys.readouterr().err


def test_numbers_along_time_are_learnt_and_told_in_the_units_of_the_data(
    glides: Path, tiny_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, curves = glides / "clips.csv", ["--data.curves", glides / "f0.csv"]
    folds = ["--split.kind", "folds", "--split.column", "fold", "--split.run_folds", "[2]"]
    log_mel = ["--model.random_weights", "true", "--model.front_end", "log_mel", "--model.num_mel_bins", "40"]
    options = ["--model.head", "moments", *curves, *folds, *log_mel, "--model.patch_size", "[4, 40]"]
    result = trained(tiny_checkpoint, source, tmp_path, *options, "--training.num_train_epochs", "10")
    assert result["metric"] == "R2"
    assert result["score"] > 0.8  # the level of chance is that of the mean
    assert -0.2 < result["chance"] <= 0
    model_folder = tmp_path / "fold_2"
    card = (model_folder / "README.md").read_text()
    assert "to predict numbers along time (2 of each moment): pitch, level." in card
    assert "### Numbers\n\n| number | clips | mse | mae | rmse | r2 | pearson | spearman | moments |" in card
    assert "It gives numbers also where there are none." in card

    tested = [*curves, "--split.column", "fold", "--split.values", "[2]"]
    report = evaluated(model_folder, source, tmp_path / "report", *tested)
    for name, value in result["metrics"].items():  # one batch of the Trainer, and clip by clip
        assert report["metrics"][name] == pytest.approx(value, rel=1e-4)
    assert (tmp_path / "report" / "curves.png").is_file()
    assert "4 clips of 2 numbers" in capsys.readouterr().out

    model = AutoModelForAudioFrameClassification.from_pretrained(model_folder)
    extractor = AutoFeatureExtractor.from_pretrained(model_folder)
    audio = load_audio(glides / "3.wav")
    with torch.no_grad():
        found = model(**extractor(audio["array"], audio["sampling_rate"], return_tensors="pt")).logits[0].numpy()
    rows = [row for row in rows_of(tmp_path / "report" / "predictions.csv") if row["id"] == "3.wav"]
    np.testing.assert_allclose([float(row["pitch_predicted"]) for row in rows], found[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([float(row["seconds"]) for row in rows], 0.02 + 0.04 * np.arange(25), atol=1e-9)
    true = np.array([float(row["pitch"] or "nan") for row in rows])
    points = {row["time"]: row["pitch"] for row in rows_of(glides / "f0.csv") if row["filename"] == "3.wav"}
    assert true[0] == pytest.approx(float(points["0.02"]), rel=1e-5)
    np.testing.assert_array_equal(np.isnan(true), [0.5 <= float(row["seconds"]) < 0.75 for row in rows])
    heard = [index for index in range(16) if index % 4 != 3]
    known = [
        float(row["pitch"])
        for row in rows_of(glides / "f0.csv")
        if int(row["filename"][:-4]) in heard and row["pitch"] and round(100 * float(row["time"])) % 4 == 2
    ]
    assert model.config.target_mean[0] == pytest.approx(np.mean(known), rel=1e-5)
    assert model.config.target_scale[0] == pytest.approx(np.std(known), rel=1e-5)

    targets = ["--csv", tmp_path / "found.csv", "--json", tmp_path / "found.jsonl"]
    command("predict", model_folder, glides / "3.wav", *targets)
    assert f"{found[:, 0].mean():10.5g}  pitch (mean; {found[:, 0].min():.5g} to " in capsys.readouterr().out
    steps = rows_of(tmp_path / "found.csv")
    assert list(steps[0]) == ["file", "seconds", "pitch", "level"]
    np.testing.assert_allclose([float(row["level"]) for row in steps], found[:, 1], rtol=1e-4)
    record = json.loads((tmp_path / "found.jsonl").read_text())
    assert record.keys() == {"file", "seconds", "scores", "track"}
    np.testing.assert_allclose(record["track"]["scores"]["pitch"], found[:, 0], rtol=1e-4, atol=1e-5)

    told = AudioClassifier.from_pretrained(str(model_folder))(glides / "3.wav")
    np.testing.assert_allclose(told.track(), found, rtol=1e-4, atol=1e-5)
    assert told.scores == pytest.approx(found.mean(axis=0).tolist(), rel=1e-4)
    with pytest.raises(ValueError, match="events are stretches of classes, and this model gives numbers"):
        told.events()

    in_milliseconds = tmp_path / "in_milliseconds.csv"
    in_milliseconds.write_text("filename,time,pitch,level\n0.wav,100,1,-9\n0.wav,900,2,-8\n")
    for words, message in (
        (["--data.curves", in_milliseconds], "'0.wav' lasts 1.00 s, and what is told of it goes on until 900; give ti"),
        ([], "gives numbers along time; name a table of the true ones by data.curves"),
        (["--data.events", "x.csv"], "gives numbers along time; leave it out"),
        ([*curves, "--data.target_columns", '["pitch"]'], "data.target_columns is ['pitch'], and model"),
    ):
        asked = ["--model", model_folder, "--data.source", source, "--output_dir", tmp_path / "no", *words]
        assert cli.main(["evaluate", *map(str, asked)]) == 1
        assert message in capsys.readouterr().err


def test_codes_of_clips_give_one_of_the_numbers_along_time(glides: Path, tiny_checkpoint: str, tmp_path: Path) -> None:
    source, curves = glides / "clips.csv", ["--data.curves", glides / "f0.csv"]
    chosen = [*curves, "--data.target_columns", '["level"]', "--model.head", "moments"]
    folds = ["--split.kind", "folds", "--split.column", "fold", "--split.run_folds", "[2]"]
    result = trained(tiny_checkpoint, source, tmp_path, *chosen, *folds)
    model_folder, tested = tmp_path / "fold_2", [*curves, "--split.column", "fold", "--split.values", "[2]"]
    report = evaluated(model_folder, source, tmp_path / "report", *tested)
    assert report["metrics"] == pytest.approx(result["metrics"], rel=1e-4)  # boundary tokens are no moments
    told = AudioClassifier.from_pretrained(str(model_folder))
    assert told.labels == ("level",)
    assert told(glides / "0.wav").track().shape == (75, 1)
    assert len(rows_of(tmp_path / "report" / "predictions.csv")) == 4 * 75


def _medians(probabilities: torch.Tensor, step: float) -> torch.Tensor:
    """The median over 0.45 s around each moment, the first and the last one repeated beyond the ends."""
    half = round(0.45 / step / 2)
    last = len(probabilities) - 1
    around = [
        torch.stack([probabilities[min(max(moment + shift, 0), last)] for shift in range(-half, half + 1)])
        for moment in range(len(probabilities))
    ]
    return torch.stack([of_moment.median(dim=0).values for of_moment in around])


def _strong(folder: Path, index: int) -> list[tuple[str, float, float]]:
    rows = [row for row in rows_of(folder / "strong.csv") if row["filename"] == f"{index}.wav"]
    return [(row["event_label"], float(row["onset"]), float(row["offset"])) for row in rows]


def test_vectors_tell_voices_apart_that_were_never_heard(
    clips: Path, tiny_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_folder = tmp_path / "model"
    by_voice = ["--data.label_column", "voice"]
    result = trained(tiny_checkpoint, clips, model_folder, "--model.head", "vectors", *by_voice, *BY_COLUMN)
    assert (result["metric"], result["chance"], result["floor_is"]) == ("EER", 0.5, "cosine")
    assert result["num_clips"] == {"train": 8, "validation": 0, "test": 8}

    tested = [*by_voice, "--split.column", "split", "--split.values", '["test"]']
    report = evaluated(model_folder, clips, tmp_path / "report", *tested)
    assert report["metrics"] == pytest.approx(result["metrics"], abs=1e-6)
    assert {row["name"] for row in rows_of(tmp_path / "report" / "per_class.csv")} == {"cleo", "dora"}

    extractor = AutoFeatureExtractor.from_pretrained(model_folder)
    model = AutoModelForAudioXVector.from_pretrained(model_folder)
    vectors = []
    for index in (2, 3, 6, 7):
        audio = load_audio(clips.parent / f"{index}.wav")
        with torch.no_grad():
            vectors.append(
                model(**extractor(audio["array"], audio["sampling_rate"], return_tensors="pt")).embeddings[0]
            )
    same = [
        torch.cosine_similarity(vectors[0], vectors[2], dim=0),
        torch.cosine_similarity(vectors[1], vectors[3], dim=0),
    ]
    other = torch.cosine_similarity(vectors[0], vectors[1], dim=0)
    (tmp_path / "trials.csv").write_text("first,second\n2.wav,6.wav\n3.wav,7.wav\n2.wav,3.wav\n")
    listed = evaluated(model_folder, clips, tmp_path / "listed", *tested, "--data.trials", tmp_path / "trials.csv")
    rate = 0.0 if other < min(same) else 1.0 if other > max(same) else 0.5
    assert listed["metrics"]["eer"] == pytest.approx(rate)

    with_bad = tmp_path / "with_bad"
    with_bad.mkdir()
    for index in (2, 3, 6, 7):
        shutil.copy(clips.parent / f"{index}.wav", with_bad)
    (with_bad / "bad.wav").write_bytes(b"no sound")
    names = zip(("bad", 2, 3, 6, 7), ("cleo", "cleo", "dora", "cleo", "dora"), strict=True)
    (with_bad / "clips.csv").write_text("file_name,voice\n" + "".join(f"{name}.wav,{voice}\n" for name, voice in names))
    trials = with_bad / "trials.csv"
    trials.write_text("first,second\nbad.wav,2.wav\n2.wav,6.wav\n3.wav,7.wav\n2.wav,3.wav\n")
    options = [*by_voice, "--data.trials", trials, "--data.skip_bad", "true"]
    left = evaluated(model_folder, with_bad / "clips.csv", tmp_path / "left", *options)
    assert left["metrics"] == pytest.approx(listed["metrics"])
    trials.write_text("first,second\n2.wav,nobody.wav\n")
    words = ["--model", str(model_folder), "--data.source", str(with_bad / "clips.csv"), *map(str, options)]
    capsys.readouterr()
    assert cli.main(["evaluate", *words, "--output_dir", str(tmp_path / "unknown")]) == 1
    told = capsys.readouterr().err
    assert "line 2: 'nobody.wav' is none of the 5 clips" in told
    assert "classify" not in told


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--data.target_columns", '["voice"]'],
            r"column 'voice': 'anna' is no finite number, and target",
        ),
        (
            ["--data.target_columns", '["tempo"]'],
            r"target_columns names 'tempo'; the columns are audio, ",
        ),
        (
            ["--data.target_columns", '["pitch"]', "--model.probe_first", "true"],
            "model.probe_first is True, which is ",
        ),
        (
            ["--data.target_columns", '["pitch"]', "--model.head", "moments"],
            "goes with model.head clips, found moments; numbers along time are in data.curves",
        ),
        (
            ["--data.label_column", "voice", "--model.head", "moments"],
            "the clips have labels without onsets and offsets",
        ),
        (["--data.label_column", "voice", "--data.events", "strong.csv"], "goes with model.head moments, found clips"),
        (["--model.head", "vectors", "--model.pooling", "max"], "model.pooling is 'max' with model.head vectors"),
        (
            ["--data.label_column", "pitch", "--model.head", "vectors", *BY_COLUMN],
            r"each of the \d clips of the (validation|test) part has a label of its own, and errors need pairs",
        ),
        (["--data.events", "x.csv", "--data.target_columns", '["pitch"]'], "give numbers or events"),
        (["--data.events", "x.csv", "--data.curves", "y.csv"], "data.curves is y.csv and data.events x.csv; give numb"),
        (["--data.curves", "y.csv"], "data.curves is y.csv; it goes with model.head moments, found clips"),
        (["--data.curve_gap_seconds", "0.1"], "data.curve_gap_seconds is 0.1, which is for data.curves; leave it out"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_claimed(
    options: list[str], message: str, clips: Path, tiny_checkpoint: str, tmp_path: Path
) -> None:
    words = ["--data.source", str(clips), "--model.checkpoint", tiny_checkpoint, "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=message):
        finetune.run(parse_config(finetune.FinetuneArguments, [*words, *options], description=""))
    assert not (tmp_path / "out").exists()


@pytest.mark.fault
@pytest.mark.parametrize("option", ["events", "curves"])
def test_changes_that_move_sound_in_time_are_refused(
    option: str, events: Path, glides: Path, tiny_checkpoint: str, tmp_path: Path
) -> None:
    source, file = (events, "strong.csv") if option == "events" else (glides, "f0.csv")
    words = ["--data.source", str(source / "clips.csv"), f"--data.{option}", str(source / file)]
    words += ["--model.checkpoint", tiny_checkpoint, "--model.head", "moments", "--output_dir", str(tmp_path / "out")]
    for options, message in (
        (["--augmentation.copies", "1"], r"augmentation.speed is \[0.85, 1.2\] and augmentation.shift 0.0, which move"),
        (
            ["--data.sampling", "class_balanced"],
            "data.sampling is class_balanced, which is for classes of clips, and mo",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            finetune.run(parse_config(finetune.FinetuneArguments, [*words, *options], description=""))
