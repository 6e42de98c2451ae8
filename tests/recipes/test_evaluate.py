"""Evaluation of saved classifiers: the numbers are those of the model itself, and mistakes are named."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    pipeline,
)

from hf_audioformer import (
    ASTLogMelFeatureExtractor,
    AudioFormerFeatureExtractor,
    AudioFormerForAudioClassification,
    cli,
    new_ast,
    read_clips,
)
from hf_audioformer.data.splits import SplitArguments
from hf_audioformer.inference import AudioClassifier
from hf_audioformer.metrics import classification_metrics
from hf_audioformer.recipes import evaluate, finetune, finetune_ast
from hf_audioformer.recipes.evaluate import EvaluateArguments, EvaluationClips
from hf_audioformer.recipes.evaluation_report import ScoredClips, measure, write_report
from hf_audioformer.recipes.finetune import DataArguments, FinetuneArguments, ModelArguments
from hf_audioformer.recipes.finetune_ast import FinetuneASTArguments, SpectrogramClips
from hf_audioformer.recipes.inputs import SubsetArguments
from hf_audioformer.training.ast_classifier import ASTModelArguments, FeatureArguments
from hf_audioformer.training.checkpoints import save_final

from ..fixtures_recipes import PITCHES_HZ, SAMPLING_RATE, tiny_config, tone

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ["middle", "silence", "low", "high"]  # another order than the clips', and a class that no clip has
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}


def classifier(
    extractor: AudioFormerFeatureExtractor, folder: Path, problem_type: str | None, seed: int = 0, **settings: Any
) -> str:
    """A random classifier, balanced so that the tones get different answers."""
    torch.manual_seed(seed)
    model = AudioFormerForAudioClassification(tiny_config(problem_type=problem_type, **(LABELS | settings))).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(100)
        for label in PITCHES_HZ:
            inputs = extractor(tone([label], seed=0), sampling_rate=SAMPLING_RATE, return_tensors="pt")
            model.classifier.bias.sub_(model(**inputs).logits[0] / len(PITCHES_HZ))
    save_final(model, extractor, folder)
    return str(folder)


@pytest.fixture(scope="module")
def single(tiny_extractor: AudioFormerFeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> str:
    return classifier(tiny_extractor, tmp_path_factory.mktemp("single"), "single_label_classification")


@pytest.fixture(scope="module")
def multi(tiny_extractor: AudioFormerFeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> str:
    return classifier(tiny_extractor, tmp_path_factory.mktemp("multi"), "multi_label_classification")


def arguments(model: str | list[str], source: Path, output: Path, **settings: Any) -> EvaluateArguments:
    return EvaluateArguments(model, EvaluationClips(str(source)), str(output), resamples=20, batch_size=5, **settings)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.invariant
def test_it_scores_what_the_pipeline_answers(single: str, tone_folder: Path, tmp_path: Path) -> None:
    """The model's classes have another order than the clips'."""
    report = evaluate.run(arguments(single, tone_folder, tmp_path))
    clips = read_clips(str(tone_folder))
    answer = pipeline("audio-classification", model=single, device="cpu", top_k=1)
    answers = [answer(dict(clips.load(index)))[0] for index in range(len(clips))]
    truth = [clips.label_names[label] for label in clips.targets()]
    rows = read_csv(tmp_path / "predictions.csv")
    assert [row["id"] for row in rows] == clips.ids
    assert [row["labels"] for row in rows] == truth
    for column in ("predicted", "best"):
        assert [row[column] for row in rows] == [answer["label"] for answer in answers]
    assert [float(row["best_probability"]) for row in rows] == pytest.approx([a["score"] for a in answers], abs=1e-3)
    assert len({answer["label"] for answer in answers}) > 1
    right = np.mean([answer["label"] == label for answer, label in zip(answers, truth, strict=True)])
    assert report["score"] == report["metrics"]["accuracy"] == pytest.approx(right)
    low, high = report["confidence_95"]["accuracy"]
    assert low <= right <= high
    assert (report["clips"], report["classes"], report["chance"]) == (24, 4, pytest.approx(1 / 3))
    figures = {"confusion.png", "precision_recall.png"}
    assert {path.name for path in tmp_path.iterdir()} == figures | {"metrics.json", "per_class.csv", "predictions.csv"}


@pytest.mark.cli
def test_several_labels_of_one_fold(
    multi: str, tone_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output_dir", str(tmp_path / "out"), "--resamples", "20"]
    fold = ["--split.column", "fold", "--split.values", "[1]"]
    assert cli.main(["evaluate", "--model", multi, "--data.source", str(tone_csv), *fold, *output]) == 0
    shown = capsys.readouterr().out
    assert "12 clips of 4 classes" in shown
    assert "left out, 1 classes without a clip: silence" in shown
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["classes_left_out"] == ["silence"]
    assert report["metrics"]["skipped_classes"] == 1
    assert report["score"] == report["metrics"]["map"]
    assert f"map                {report['score']:.3f}   95 % interval" in shown
    (silence,) = [row for row in read_csv(tmp_path / "out" / "per_class.csv") if row["name"] == "silence"]
    assert silence == {"name": "silence", "clips": "0", "average_precision": "", "auc": ""}
    for row in read_csv(tmp_path / "out" / "predictions.csv"):
        assert set(row["labels"].split(";")) <= set(PITCHES_HZ)
        assert (float(row["best_probability"]) > 0.5) == (row["best"] in row["predicted"].split(";"))
    assert (tmp_path / "out" / "average_precision.png").stat().st_size > 10_000

    assert cli.main(["evaluate", "--model", multi, "--data.source", str(tone_csv), *output]) == 1
    assert "holds an earlier evaluation. Replace it with --overwrite true" in capsys.readouterr().err


@pytest.mark.invariant
@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_several_models_answer_with_their_mean_probability(
    problem_type: str, tiny_extractor: AudioFormerFeatureExtractor, tone_folder: Path, tmp_path: Path
) -> None:
    """The second has the same classes in another order; both know a class that no clip has."""
    order = ["low", "high", "silence", "middle"]
    labels = {"id2label": dict(enumerate(order)), "label2id": {name: index for index, name in enumerate(order)}}
    models = [
        classifier(tiny_extractor, tmp_path / "one", problem_type),
        classifier(tiny_extractor, tmp_path / "two", problem_type, seed=1, **labels),
    ]
    evaluate.run(arguments(models, tone_folder, tmp_path / "out"))
    clips = read_clips(str(tone_folder))
    answers: list[dict[str, float]] = [dict.fromkeys(NAMES, 0.0) for _ in range(len(clips))]
    for model in models:
        answer = pipeline("audio-classification", model=model, device="cpu", top_k=4)
        for index, scores in enumerate(answers):
            for guess in answer(dict(clips.load(index))):
                scores[guess["label"]] += guess["score"] / 2
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert [row["best"] for row in rows] == [max(scores, key=scores.__getitem__) for scores in answers]
    best = [max(scores.values()) for scores in answers]
    assert [float(row["best_probability"]) for row in rows] == pytest.approx(best, abs=1e-3)
    alone, twice = (
        evaluate.run(arguments(model, tone_folder, tmp_path / "out", overwrite=True))
        for model in (models[0], models[:1] * 2)
    )
    assert twice["metrics"] == pytest.approx(alone["metrics"])


@pytest.mark.invariant
def test_it_repeats_the_score_of_finetune(tiny_checkpoint: str, tone_csv: Path, tmp_path: Path) -> None:
    tuning = FinetuneArguments(
        data=DataArguments(source=str(tone_csv)),
        output_dir=str(tmp_path / "run"),
        split=SplitArguments(kind="folds", column="fold", run_folds=[2], validation_fraction=0.0),
        model=ModelArguments(checkpoint=tiny_checkpoint),
        training={"max_steps": 5, "learning_rate": 1e-2, "disable_tqdm": True},
    )
    (result,) = finetune.run(tuning)
    subset = SubsetArguments(column="fold", values=["2"])
    report = evaluate.run(arguments(f"{tuning.output_dir}/fold_2", tone_csv, tmp_path / "out", split=subset))
    assert report["metrics"] == pytest.approx(result.metrics)


@pytest.mark.invariant
def test_it_repeats_the_score_of_finetune_ast(tmp_path: Path) -> None:
    """Of clips that are longer than the model reads, in windows, and of shorter ones, without their padding."""
    rows = ["file_name,labels,fold"]
    for index in range(48):
        labels = [name for bit, name in enumerate(PITCHES_HZ) if (index % 7 + 1) >> bit & 1]
        soundfile.write(tmp_path / f"{index}.wav", tone(labels, seed=index, seconds=0.1 + 0.012 * index), SAMPLING_RATE)
        rows.append(f"{index}.wav,{';'.join(labels)},{1 + index % 2}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    source = str(tmp_path / "clips.csv")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8, "time_stride": 8}
    tuning = FinetuneASTArguments(
        data=SpectrogramClips(source, ignore_padding=True, window_overlap=0.25),
        output_dir=str(tmp_path / "run"),
        split=SplitArguments(kind="folds", column="fold", run_folds=[2], validation_fraction=0.0),
        features=FeatureArguments(num_mel_bins=32, max_length=32),
        model=ASTModelArguments(random_weights=True, **sizes),
        training={"max_steps": 10, "learning_rate": 1e-2, "disable_tqdm": True},
    )
    (result,) = finetune_ast.run(tuning)
    subset = SubsetArguments(column="fold", values=["2"])
    asked = arguments(f"{tuning.output_dir}/fold_2", Path(source), tmp_path / "out", split=subset, overwrite=True)
    same, padded = (
        evaluate.run(replace(asked, data=EvaluationClips(source, ignore_padding=ignored, window_overlap=0.25)))
        for ignored in (True, False)
    )
    assert same["metrics"] == pytest.approx(result.metrics)
    assert padded["metrics"]["mauc"] != pytest.approx(result.metrics["mauc"])


@pytest.mark.unit
def test_a_perfect_ranking_is_reported_though_its_dprime_is_infinite(tmp_path: Path) -> None:
    labels = np.tile(np.eye(3, dtype=np.int64), (5, 1))
    scored = ScoredClips([str(i) for i in range(15)], (labels * 2 - 1).astype(np.float32), labels, list(PITCHES_HZ))
    write_report(tmp_path, measure(scored, resamples=20, seed=0), scored, "tones")
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert (report["metrics"]["mauc"], report["metrics"]["dprime"]) == (1.0, None)
    assert report["confidence_95"]["dprime"] == [None, None]


def spectrogram_transformer() -> tuple[Any, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = ASTConfig(**sizes, max_length=32, num_mel_bins=32, **LABELS)
    return ASTForAudioClassification(config), ASTFeatureExtractor(max_length=32, num_mel_bins=32)


def waveform_transformer() -> tuple[Any, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16}
    config = Wav2Vec2Config(**sizes, **convolutions, **positions, **LABELS)
    return Wav2Vec2ForSequenceClassification(config), Wav2Vec2FeatureExtractor()


@pytest.mark.reference
def test_an_ast_hears_all_of_a_long_clip(tone_folder: Path, tmp_path: Path) -> None:
    """Clips of 23 to 37 frames in windows of 16 that begin every 4, the last one with the clip's end."""
    model, _ = spectrogram_transformer()
    config = ASTConfig(**(model.config.to_dict() | {"max_length": 16, "initializer_range": 0.5}))
    model = new_ast(config).eval()
    ASTFeatureExtractor(max_length=99, num_mel_bins=32).save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    asked = arguments(str(tmp_path / "model"), tone_folder, tmp_path / "out")
    report = evaluate.run(replace(asked, data=EvaluationClips(str(tone_folder), window_overlap=0.75)))
    clips = read_clips(str(tone_folder))
    extractor = ASTLogMelFeatureExtractor.from_pretrained(tmp_path / "model")
    logits = []
    for index in range(len(clips)):
        (log_mel,) = extractor.log_mels(clips.load(index)["array"], SAMPLING_RATE)
        starts = sorted({*range(0, len(log_mel) - 16, 4), len(log_mel) - 16})
        windows = torch.stack([extractor.normalised(log_mel[start : start + 16]) for start in starts])
        with torch.no_grad():
            logits.append(model(windows).logits.mean(0).numpy())
    labels = np.array([NAMES.index(clips.label_names[label]) for label in clips.targets()])
    assert report["metrics"] == pytest.approx(classification_metrics(np.stack(logits), labels))
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    best = [float(np.exp(one - one.max()).sum() ** -1) for one in np.stack(logits).astype(np.float64)]
    assert [float(row["best_probability"]) for row in rows] == pytest.approx(best, abs=1e-3)


@pytest.mark.reference
@pytest.mark.parametrize("make", [spectrogram_transformer, waveform_transformer], ids=["ast", "wav2vec2"])
def test_other_models_of_transformers(make: Any, tone_folder: Path, tmp_path: Path) -> None:
    """Each clip gets the logits that it gets alone, though clips differ in length."""
    torch.manual_seed(0)
    model, extractor = make()
    model.save_pretrained(tmp_path / "model"), extractor.save_pretrained(tmp_path / "model")
    report = evaluate.run(arguments(str(tmp_path / "model"), tone_folder, tmp_path / "out"))
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "model").eval()
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "model")
    clips = read_clips(str(tone_folder))
    logits = []
    for index in range(len(clips)):
        inputs = extractor(clips.load(index)["array"], sampling_rate=SAMPLING_RATE, return_tensors="pt")
        with torch.no_grad():
            logits.append(model(**inputs).logits[0].numpy())
    labels = np.array([NAMES.index(clips.label_names[label]) for label in clips.targets()])
    assert report["metrics"] == pytest.approx(classification_metrics(np.stack(logits), labels))


@pytest.mark.reference
def test_other_models_hear_all_of_a_long_clip_in_windows(
    tone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `predict` does; every clip is longer than the window that is taken for granted here."""
    monkeypatch.setattr("hf_audioformer.inference.front_end.DEFAULT_WINDOW_SECONDS", 0.15)
    model, extractor = waveform_transformer()
    model.save_pretrained(tmp_path / "model"), extractor.save_pretrained(tmp_path / "model")
    asked = arguments(str(tmp_path / "model"), tone_folder, tmp_path / "out")
    evaluate.run(replace(asked, data=replace(asked.data, window_overlap=0.3)))
    classifier = AudioClassifier.from_pretrained(tmp_path / "model", overlap=0.3)
    for row in read_csv(tmp_path / "out" / "predictions.csv"):
        heard = classifier(tone_folder / row["id"])
        assert len(heard.window_scores) > 1
        assert float(row["best_probability"]) == pytest.approx(heard.top(1)[0]["score"], abs=1e-4)


@pytest.mark.fault
def test_a_clip_that_is_too_short_for_the_model_is_named_or_left_out(tone_folder: Path, tmp_path: Path) -> None:
    model, extractor = waveform_transformer()
    model.save_pretrained(tmp_path / "model"), extractor.save_pretrained(tmp_path / "model")
    shutil.copytree(tone_folder, tmp_path / "clips")
    soundfile.write(tmp_path / "clips" / "low" / "short.wav", np.full(44, 0.1, np.float32), SAMPLING_RATE)
    asked = arguments(str(tmp_path / "model"), tmp_path / "clips", tmp_path / "out")
    with pytest.raises(ValueError, match=r"^low/short\.wav: the clip has 44 samples at 16000 Hz; the model needs 45"):
        evaluate.run(asked)
    report = evaluate.run(replace(asked, data=replace(asked.data, skip_bad=True)))
    assert report["clips_skipped"] == ["low/short.wav"]


@pytest.mark.fault
def test_bad_clips_are_named_or_left_out(single: str, tone_folder: Path, tmp_path: Path) -> None:
    for label in PITCHES_HZ:
        (tmp_path / "clips" / label).mkdir(parents=True)
        for index in range(2):
            clip = tmp_path / "clips" / label / f"{index}.wav"
            clip.write_bytes((tone_folder / label / f"{index}.wav").read_bytes())
    soundfile.write(tmp_path / "clips" / "low" / "0.wav", np.full(4000, np.nan, np.float32), 16_000, subtype="FLOAT")
    asked = arguments(single, tmp_path / "clips", tmp_path / "out")
    with pytest.raises(ValueError, match=r"low/0.wav"):
        evaluate.run(asked)
    assert not (tmp_path / "out").exists()
    report = evaluate.run(replace(asked, data=replace(asked.data, skip_bad=True)))
    assert report["clips_skipped"] == ["low/0.wav"]
    assert report["clips"] == 5


@pytest.mark.fault
@pytest.mark.parametrize("make", [spectrogram_transformer, waveform_transformer])
def test_bad_clips_for_other_models(make: Any, tmp_path: Path) -> None:
    model, extractor = make()
    model.save_pretrained(tmp_path / "model"), extractor.save_pretrained(tmp_path / "model")
    (tmp_path / "clips" / "low").mkdir(parents=True)
    (tmp_path / "clips" / "low" / "0.wav").write_bytes(b"no sound")
    asked = arguments(str(tmp_path / "model"), tmp_path / "clips", tmp_path / "out")
    with pytest.raises(ValueError, match=r"^clip 'low/0.wav' .*\(--data.skip_bad true leaves such clips out\)"):
        evaluate.run(asked)
    with pytest.raises(ValueError, match=r"1 of 1 clips cannot be used, more than 20%; the first: clip 'low/0\.wav'"):
        evaluate.run(replace(asked, data=replace(asked.data, skip_bad=True)))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ignore_padding": True}, "data.ignore_padding is True, which is for an AST, and model is none"),
        ({"window_overlap": 0.0}, "data.window_overlap is 0.0, and an AudioFormer hears clips as a whole"),
        ({"max_length_seconds": 1.0}, "data.max_length_seconds is 1.0, which is for an AudioFormer"),
    ],
)
def test_settings_for_another_kind_of_model_are_refused(
    setting: dict[str, Any], message: str, single: str, tone_folder: Path, tmp_path: Path
) -> None:
    model = single
    if "max_length_seconds" in setting:
        model = str(tmp_path / "ast")
        spectrogram_transformer()[0].save_pretrained(model)
    asked = arguments(model, tone_folder, tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        evaluate.run(replace(asked, data=EvaluationClips(str(tone_folder), **setting)))


@pytest.mark.fault
def test_what_cannot_be_evaluated(
    single: str,
    tiny_checkpoint: str,
    tiny_extractor: AudioFormerFeatureExtractor,
    tone_folder: Path,
    tone_csv: Path,
    tmp_path: Path,
) -> None:
    def refused(message: str, model: str | list[str] = single, source: Path = tone_folder, **settings: Any) -> None:
        with pytest.raises(ValueError, match=message):
            evaluate.run(arguments(model, source, tmp_path / "out", **settings))

    refused("holds no trained classifier", model=tiny_checkpoint)
    refused("model is an empty list", model=[])
    words = classifier(tiny_extractor, tmp_path / "words", None, id2label={0: "low", 1: "high", 2: "middle"})
    refused("words cannot be put together with .*must have the same classes", model=[single, words])
    numbers = classifier(tiny_extractor, tmp_path / "r", "regression")
    refused("target_columns names 'middle'; the columns are audio, id, label", model=numbers)
    refused("only probabilities of classes have a mean", model=[numbers, single])
    refused("the clips have several labels each, and the model was trained to give one", source=tone_csv)
    refused("no column 'fold' in the clips", split=SubsetArguments("fold", [1]))
    refused("no clip has '3' in column 'fold'; there are ", source=tone_csv, split=SubsetArguments("fold", [1, 3]))
    other = tmp_path / "clips" / "thunder"
    other.mkdir(parents=True)
    (other / "0.wav").write_bytes((tone_folder / "low" / "0.wav").read_bytes())
    refused(r"1 of the clips' 1 labels are unknown to the model, first \['thunder'\]; it knows", source=other.parent)
    with pytest.raises(ValueError, match=r"split.column='fold' and split.values=\[\] go together"):
        SubsetArguments("fold")
