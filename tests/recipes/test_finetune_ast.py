"""Fine-tuning an AST from labelled files to a stock checkpoint: results, resume, several processes, mistakes."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import ASTConfig, ASTForAudioClassification, TrainerCallback

from hf_audioformer import ASTLogMelFeatureExtractor, cli, read_clips
from hf_audioformer.audio.spectrogram_augment import SpectrogramAugmentation
from hf_audioformer.data.splits import Split, SplitArguments, make_splits
from hf_audioformer.data.waveform_cache import WaveformCache
from hf_audioformer.models.ast.loading_ast import new_ast
from hf_audioformer.recipes import finetune_ast
from hf_audioformer.recipes.finetune_ast import FinetuneASTArguments, SpectrogramClips
from hf_audioformer.recipes.split_training import SplitTraining
from hf_audioformer.training.adaptation import AdaptationArguments
from hf_audioformer.training.arguments import dump_config
from hf_audioformer.training.ast_classifier import (
    ASTModelArguments,
    FeatureArguments,
)
from hf_audioformer.training.averaging import AveragingArguments
from hf_audioformer.training.optimization import OptimizationArguments
from hf_audioformer.training.results import read_results

from ..fixtures_recipes import SAMPLING_RATE
from ..warm_processes import exit_codes, start, start_together

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = {
    **{"num_train_epochs": 2, "per_device_train_batch_size": 4, "disable_tqdm": True, "learning_rate": 3e-3},
    # The last weights are kept, since the best ones may come from an epoch before anything could go wrong.
    "load_best_model_at_end": False,
}
SMALL = ASTModelArguments(
    random_weights=True,
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8},
    **{"time_stride": 8, "frequency_stride": 8},
)
EVERYTHING = SpectrogramAugmentation(
    **{"frequency_mask": 8, "time_mask": 8, "mixup": 0.5, "spectrogram_noise": 0.1, "roll_frames": 3},
    **{"gain_db": (-6.0, 6.0), "speed": (0.9, 1.1), "shift": 0.2, "noise_snr_db": (10.0, 30.0), "patch_dropout": 0.2},
)


@pytest.fixture
def arguments(tone_folder: Path, tmp_path: Path) -> FinetuneASTArguments:
    """Two epochs on the tones; a fifth of them is tested."""
    return FinetuneASTArguments(
        data=SpectrogramClips(source=str(tone_folder)),
        output_dir=str(tmp_path / "run"),
        split=SplitArguments(validation_fraction=0.2),
        features=FeatureArguments(num_mel_bins=32),
        model=SMALL,
        training=FAST,
    )


class _Interrupt(TrainerCallback):
    """Ctrl-C right after the n-th checkpoint."""

    def __init__(self, after: int):
        self.left = after

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def assert_same_weights(one: str | Path, other: str | Path, tolerance: float) -> None:
    expected, found = (load_file(Path(folder) / "model.safetensors") for folder in (one, other))
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=tolerance, rtol=0, msg=lambda text, name=name: name + text)


PLAIN_PIPELINE = """
import json, sys
import soundfile
from transformers import pipeline

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_audioformer":
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
classifier = pipeline("audio-classification", model=sys.argv[1], device="cpu")
answers = []
for path in sys.argv[2:]:
    waveform, rate = soundfile.read(path, dtype="float32")
    guesses = classifier({"raw": waveform, "sampling_rate": rate})
    answers.append({guess["label"]: guess["score"] for guess in guesses})
print(json.dumps([type(classifier.model).__name__, type(classifier.feature_extractor).__name__, answers]))
"""


@pytest.mark.reference
def test_a_folder_of_classes_becomes_a_stock_checkpoint(
    arguments: FinetuneASTArguments, tone_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a process that cannot import this package it gives what it gives here."""
    (result,) = finetune_ast.run(replace(arguments, training=FAST | {"num_train_epochs": 25}))
    printed = capfd.readouterr()
    assert (result.metric, result.name) == ("accuracy", "fraction")
    assert sum(result.num_clips.values()) == 24
    assert result.score > 0.8
    assert "The model reads 40 frames of 10 ms at once, 0.41 s" in printed.out  # the longest training clip has 37

    folder = tmp_path / "moved"
    shutil.move(arguments.output_dir, folder)
    files = {"README.md", "learning_curve.png", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in folder.iterdir()} == files | {
        "recipe.yaml",
        "result.json",
        "results.json",
        "clips.sha256",
    }
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["max_length"]) == (["ASTForAudioClassification"], 40)
    names = load_file(folder / "model.safetensors").keys()
    assert "audio_spectrogram_transformer.encoder.layer.0.attention.attention.query.weight" in names

    clips = read_clips(arguments.data.source)
    (split,) = make_splits(clips, arguments.split)
    extractor = ASTLogMelFeatureExtractor.from_pretrained(folder)
    frames = [extractor.log_mels(clips.load(index)["array"], SAMPLING_RATE)[0].double() for index in split.train]
    assert extractor.mean == pytest.approx(torch.cat(frames).mean().item())
    assert extractor.std == pytest.approx(torch.cat(frames).std(correction=0).item())

    paths = [str(tone_folder / clips.ids[index]) for index in split.test]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_PIPELINE, str(folder), *paths],
        **{"capture_output": True, "text": True, "timeout": 100, "check": True, "cwd": tmp_path},
    )
    model_class, extractor_class, answers = json.loads(done.stdout.splitlines()[-1])
    assert (model_class, extractor_class) == ("ASTForAudioClassification", "ASTFeatureExtractor")
    truth = [clips.label_names[label] for label in clips.targets(split.test)]
    right = [max(answer, key=answer.__getitem__) == label for answer, label in zip(answers, truth, strict=True)]
    assert result.score == pytest.approx(sum(right) / len(right))
    model = ASTForAudioClassification.from_pretrained(folder).eval()
    for index, answer in zip(split.test, answers, strict=True):
        with torch.no_grad():
            logits = model(**extractor(clips.load(index)["array"], SAMPLING_RATE, return_tensors="pt")).logits[0]
        for row, probability in enumerate(logits.softmax(0)):
            assert answer[model.config.id2label[row]] == pytest.approx(probability.item(), abs=1e-4)


@pytest.mark.unit
def test_folds_of_long_clips_with_several_labels(
    arguments: FinetuneASTArguments, tone_csv: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Read in windows of a third of their length; the padding of what is shorter is left out."""
    several = replace(
        arguments,
        data=SpectrogramClips(source=str(tone_csv), ignore_padding=True, sampling="class_balanced"),
        split=SplitArguments(kind="folds", column="fold", validation_fraction=0.25),
        features=FeatureArguments(num_mel_bins=32, max_length=8),
        augmentation=EVERYTHING,
        optimization=OptimizationArguments(schedule="step", full_rate_epochs=1, layer_decay=0.5),
        averaging=AveragingArguments(kind="epochs"),
        training=FAST | {"load_best_model_at_end": True},
    )
    results = finetune_ast.run(several)
    assert [result.name for result in results] == ["fold_1", "fold_2"]
    _, *printed_by_fold = re.split(r"\n\[\d/2\] ", capfd.readouterr().out)
    printed = {text.partition(":")[0]: text for text in printed_by_fold}
    assert all(result.metric == "macro mAP" and result.score == result.metrics["map"] for result in results)
    clips = read_clips(several.data.source)
    for result, split in zip(results, make_splits(clips, several.split), strict=True):
        folder = Path(several.output_dir) / result.name
        assert list(folder.glob("checkpoint-*")) == []
        config = ASTForAudioClassification.from_pretrained(folder).config
        assert (config.problem_type, config.max_length) == ("multi_label_classification", 8)
        card = (folder / "README.md").read_text()
        assert "It hears 0.10 s at once, of audio at 16000 Hz: 8 frames of 32 mel bands" in card
        assert "Padding of shorter clips was left out" in card
        assert ("Its weights are an average along training" in card) == ("averaged weights kept" in printed[split.name])
        assert result.num_clips == {part: len(getattr(split, part)) for part in ("train", "validation", "test")}
    means = [ASTLogMelFeatureExtractor.from_pretrained(Path(several.output_dir) / r.name).mean for r in results]
    assert means[0] != means[1]


@pytest.mark.unit
def test_a_fold_alone_is_read_at_the_length_of_all(
    arguments: FinetuneASTArguments, tone_folder: Path, tmp_path: Path
) -> None:
    """Other folds may join it on resume; the longest clip is in the second of them."""
    paths = sorted(tone_folder.glob("*/*.wav"), key=lambda path: soundfile.info(path).frames)
    shutil.copytree(tone_folder, tmp_path / "clips")
    rows = [f"{path.relative_to(tone_folder)},{path.parent.name},{1 + index // 12}" for index, path in enumerate(paths)]
    (tmp_path / "clips" / "clips.csv").write_text("\n".join(["file_name,label,fold", *rows]))
    folds = SplitArguments(kind="folds", column="fold", validation_fraction=0.0)
    lengths = []
    for fold in (1, 2):
        alone = replace(
            arguments,
            data=SpectrogramClips(source=str(tmp_path / "clips" / "clips.csv")),
            split=replace(folds, run_folds=[fold]),
            output_dir=str(tmp_path / f"run_{fold}"),
            training=FAST | {"max_steps": 1},
        )
        finetune_ast.run(alone)
        config = Path(alone.output_dir) / f"fold_{fold}" / "config.json"
        lengths.append(json.loads(config.read_text())["max_length"])
    assert lengths[0] == lengths[1] >= soundfile.info(paths[-1]).duration * 100 - 3


@pytest.mark.fault
def test_values_of_a_column_lead_to_no_other_folder(arguments: FinetuneASTArguments) -> None:
    folds = replace(arguments, split=SplitArguments(kind="folds", column="speaker"))
    folders = [
        SplitTraining._folder(SimpleNamespace(arguments=folds), Split(f"speaker_{value}", [0], [], [1]))
        for value in ("a/../../b", "a%2F..%2F..%2Fb", "AC/DC")
    ]
    assert {folder.parent for folder in folders} == {Path(arguments.output_dir)}
    assert len({*folders}) == 3


@pytest.mark.unit
def test_clips_of_another_source_are_learnt_from_and_not_tested(
    arguments: FinetuneASTArguments, tone_csv: Path, tmp_path: Path
) -> None:
    data = SpectrogramClips(source=str(tone_csv), also=str(arguments.data.source), also_clips=10)
    split = SplitArguments(kind="folds", column="fold", run_folds=[1], validation_fraction=0)
    (result,) = finetune_ast.run(replace(arguments, data=data, split=split))
    assert result.num_clips == {"train": 12 + 10, "validation": 0, "test": 12}
    card = (tmp_path / "run" / result.name / "README.md").read_text(encoding="utf-8")
    for source in (tone_csv, Path(arguments.data.source)):
        assert f"* Data: `{source.name}`" in card


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["head", "lora"])
def test_a_part_of_the_model_may_learn(arguments: FinetuneASTArguments, kind: Any, tmp_path: Path) -> None:
    """From a checkpoint, whose statistics and length are kept; what is left is a stock checkpoint."""
    finetune_ast.run(replace(arguments, output_dir=str(tmp_path / "before")))
    partly = replace(
        arguments,
        features=FeatureArguments(statistics="checkpoint"),
        model=ASTModelArguments(checkpoint=str(tmp_path / "before"), keep_labels=True),
        adaptation=AdaptationArguments(kind=kind, lora_rank=2),
    )
    finetune_ast.run(partly)
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "before", tmp_path / "run"))
    assert before.keys() == after.keys()
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert {name for name in changed if name.startswith("classifier.")}
    in_layers = {name.partition(".layer.0.")[2] for name in changed if not name.startswith("classifier.")}
    attention = "attention.attention."
    assert in_layers == ({f"{attention}query.weight", f"{attention}value.weight"} if kind == "lora" else set())
    extractors = [ASTLogMelFeatureExtractor.from_pretrained(tmp_path / name) for name in ("before", "run")]
    assert extractors[0].to_dict() == extractors[1].to_dict()


@pytest.mark.invariant
@pytest.mark.parametrize(
    "training",
    [
        {"num_train_epochs": 3, "dataloader_num_workers": 2, "dataloader_persistent_workers": True},
        {"save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps", "eval_steps": 3},
    ],
    ids=["workers", "within_an_epoch"],
)
def test_a_resumed_run_equals_an_unbroken_one(
    arguments: FinetuneASTArguments, training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every kind of augmentation, dropout, a moving average and rates by layer."""
    arguments = replace(
        arguments,
        training=FAST | training,
        augmentation=EVERYTHING,
        model=replace(SMALL, hidden_dropout=0.1, attention_dropout=0.1, label_smoothing=0.1),
        optimization=OptimizationArguments(layer_decay=0.75),
        averaging=AveragingArguments(kind="ema", decay=0.9, keep="always"),
        early_stopping_patience=2,
    )
    unbroken = replace(arguments, output_dir=str(tmp_path / "unbroken"))
    (expected,) = finetune_ast.run(unbroken)
    original = finetune_ast.callbacks
    with monkeypatch.context() as patch:
        patch.setattr(finetune_ast, "callbacks", lambda arguments: [*original(arguments), _Interrupt(1)])
        with pytest.raises(KeyboardInterrupt):
            finetune_ast.run(arguments)
    (found,) = finetune_ast.run(replace(arguments, resume=True))
    assert_same_weights(unbroken.output_dir, arguments.output_dir, 0)
    assert replace(found, seconds=0) == replace(expected, seconds=0)


@pytest.fixture
def config(arguments: FinetuneASTArguments, tmp_path: Path) -> str:
    (tmp_path / "config.yaml").write_text(dump_config(arguments))
    return str(tmp_path / "config.yaml")


@pytest.mark.fault
def test_a_killed_run_goes_on(arguments: FinetuneASTArguments, config: str, tmp_path: Path) -> None:
    """kill -9 as soon as a checkpoint stands there, whole or not."""
    output = Path(arguments.output_dir)
    run = start(cli.main, "finetune-ast", config, "--training.num_train_epochs", "12")
    while run.is_alive() and not list(output.glob("checkpoint-*/model.safetensors")):
        time.sleep(0.001)
    run.kill()
    assert exit_codes([run]) == [-signal.SIGKILL]
    longer = replace(arguments, training=FAST | {"num_train_epochs": 12})
    (found,) = finetune_ast.run(replace(longer, resume=True))
    (expected,) = finetune_ast.run(replace(longer, output_dir=str(tmp_path / "unbroken")))
    assert_same_weights(tmp_path / "unbroken", output, 0)
    assert replace(found, seconds=0) == replace(expected, seconds=0)


@pytest.mark.invariant
def test_two_processes_equal_one_with_twice_the_batch(
    arguments: FinetuneASTArguments, config: str, tmp_path: Path
) -> None:
    """As on two nodes; `test_finetune.py` trains on one. 15 clips in steps of 12: an epoch's last is not whole."""
    shared = ["--world_size", "2", "--training.per_device_train_batch_size", "6", "--augmentation.mixup", "0.5"]
    output = tmp_path / "printed.txt"
    processes = start_together(cli.main, "finetune-ast", config, *shared, output=output, nodes=2)
    assert exit_codes(processes) == [0, 0], output.read_text()
    assert output.read_text().count("epoch 1/2") == 1
    assert "world_size: 2" in (Path(arguments.output_dir) / "recipe.yaml").read_text()
    alone = replace(
        arguments,
        output_dir=str(tmp_path / "alone"),
        augmentation=SpectrogramAugmentation(mixup=0.5),
        training=FAST | {"per_device_train_batch_size": 12},
    )
    (expected,) = finetune_ast.run(alone)
    assert expected.num_clips["train"] % 12
    (found,) = read_results(Path(arguments.output_dir) / "result.json")
    assert found.num_clips == expected.num_clips
    assert found.metrics == pytest.approx(expected.metrics)
    assert_same_weights(alone.output_dir, arguments.output_dir, 1e-5)


@pytest.mark.cli
def test_one_fold_of_esc10(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_AUDIOFORMER_DATA", str(data_folder))
    preset = ["ast_esc10", "--output_dir", str(tmp_path / "run"), "--split.run_folds", "[1]"]
    short = ["--training.max_steps", "3", "--averaging.kind", "none", "--training.disable_tqdm", "true"]
    assert cli.main(["finetune-ast", *preset, *short]) == 0
    (result,) = read_results(tmp_path / "run" / "results.json")
    assert (result.name, result.num_clips["train"] > 200) == ("fold_1", True)
    assert ASTForAudioClassification.from_pretrained(tmp_path / "run" / "fold_1").config.num_labels == 10


@pytest.mark.fault
def test_bad_clips_are_named_or_left_out(
    arguments: FinetuneASTArguments, tone_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "with_bad"
    shutil.copytree(tone_folder, folder)
    (folder / "low" / "3.wav").write_bytes((folder / "low" / "3.wav").read_bytes()[:1000])
    arguments = replace(arguments, data=SpectrogramClips(source=str(folder)))
    with pytest.raises(ValueError, match=r"low/3.wav.*truncated.*--data.skip_bad true"):
        finetune_ast.run(arguments)
    assert not Path(arguments.output_dir).exists()
    (result,) = finetune_ast.run(replace(arguments, data=replace(arguments.data, skip_bad=True)))
    assert sum(result.num_clips.values()) == 23
    assert result.clips_skipped == ["low/3.wav"]
    assert any("low/3.wav" in message and "truncated" in message for message in caplog.messages)
    assert "1 more could not be read and were left out" in Path(arguments.output_dir, "README.md").read_text()


@pytest.mark.fault
def test_a_bad_clip_for_testing_is_named_before_training(
    arguments: FinetuneASTArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(WaveformCache.__init__.__kwdefaults__, "max_gigabytes", 0.0)
    rows = ["file_name,label,split"]
    for index in range(12):
        sound = (Path(arguments.data.source) / ("low", "high")[index % 2] / "0.wav").read_bytes()
        (tmp_path / f"{index}.wav").write_bytes(sound[:1000] if index == 11 else sound)
        rows.append(f"{index}.wav,{('low', 'high')[index % 2]},{'test' if index > 7 else 'train'}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    split = SplitArguments(kind="column", column="split", validation_fraction=0)
    arguments = replace(arguments, data=SpectrogramClips(source=str(tmp_path / "clips.csv")), split=split)
    with pytest.raises(ValueError, match=r"11.wav.*truncated.*--data.skip_bad true"):
        finetune_ast.run(arguments)
    assert "epoch" not in capsys.readouterr().out


@pytest.mark.fault
def test_files_that_a_list_names_and_that_are_missing_are_left_out(
    arguments: FinetuneASTArguments, tone_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [file.relative_to(tone_folder).as_posix() for file in sorted(tone_folder.glob("*/*.wav"))]
    rows = ["file_name,label", "rare/gone.wav,rare", *(f"{file},{file.split('/')[0]}" for file in files)]
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    data = SpectrogramClips(source=str(tmp_path / "clips.csv"), audio_root=str(tone_folder))
    with pytest.raises(FileNotFoundError, match=r"names 25 files, of which 1 do not .*gone\.wav;.*skip_bad true"):
        finetune_ast.run(replace(arguments, data=data))
    (result,) = finetune_ast.run(replace(arguments, data=replace(data, skip_bad=True)))
    assert (sum(result.num_clips.values()), result.clips_skipped) == (24, ["rare/gone.wav"])
    assert any("gone.wav" in message for message in caplog.messages)
    assert any("no training clip of rare can be used" in message for message in caplog.messages)


@pytest.mark.fault
def test_a_list_whose_files_lie_elsewhere_is_refused_at_once(arguments: FinetuneASTArguments, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file_name,label\na.wav,low\nb.wav,high\n")
    data = SpectrogramClips(source=str(tmp_path / "clips.csv"), skip_bad=True)
    with pytest.raises(FileNotFoundError, match=r"names 2 files, of which 2 do not exist, .* relative to audio_root"):
        finetune_ast.run(replace(arguments, data=data))
    assert not Path(arguments.output_dir).exists()


@pytest.mark.fault
def test_a_part_whose_clips_are_all_bad_is_told_of(arguments: FinetuneASTArguments, tmp_path: Path) -> None:
    rows = ["file_name,label,split"]
    for index in range(24):
        part, label = ("test" if index < 2 else "train"), ("low", "high")[index % 2]
        sound = b"no sound" if part == "test" else (Path(arguments.data.source) / label / "0.wav").read_bytes()
        (tmp_path / f"{index}.wav").write_bytes(sound)
        rows.append(f"{index}.wav,{label},{part}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    data = SpectrogramClips(source=str(tmp_path / "clips.csv"), skip_bad=True)
    split = SplitArguments(kind="column", column="split", validation_fraction=0)
    with pytest.raises(ValueError, match="'split': none of the 2 clips of the test part can be used"):
        finetune_ast.run(replace(arguments, data=data, split=split))
    assert not Path(arguments.output_dir).exists()


@pytest.mark.fault
def test_a_run_whose_clips_have_changed_does_not_go_on(
    arguments: FinetuneASTArguments, tone_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(tone_folder, folder)
    arguments = replace(arguments, data=SpectrogramClips(source=str(folder)))
    finetune_ast.run(arguments)
    finetune_ast.run(replace(arguments, resume=True))
    (folder / "low").rename(folder / "quiet")
    with pytest.raises(ValueError, match="the clips, or their labels, are not those it began with"):
        finetune_ast.run(replace(arguments, resume=True))


@pytest.mark.fault
def test_settings_out_of_range_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match=r"overlap is 1.0; it must be at least 0 and below 1"):
        SpectrogramClips("clips", window_overlap=1.0)
    with pytest.raises(ValueError, match=r"model.label_smoothing is 1.5; it must be at least 0 and below 1"):
        replace(SMALL, label_smoothing=1.5)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("features", {"max_length": 3}, r"features and model do not fit together: max_length=3 with time_stride"),
        ("features", {"num_mel_bins": 3}, r"features and model do not fit together: num_mel_bins=3 with"),
        ("model", {"frequency_stride": 0}, r"allowed are num_mel_bins >= \d+ and frequency_stride >= 1"),
    ],
)
def test_a_model_that_cannot_be_built_leaves_no_output_dir(
    arguments: FinetuneASTArguments, section: str, settings: dict[str, int], message: str
) -> None:
    wrong = replace(arguments, **{section: replace(getattr(arguments, section), **settings)})
    with pytest.raises(ValueError, match=message):
        finetune_ast.run(wrong)
    assert not Path(arguments.output_dir).exists()


@pytest.mark.fault
def test_silence_and_patience_without_validation_are_refused(arguments: FinetuneASTArguments, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="early_stopping_patience is 0; it must be at least 1"):
        finetune_ast.run(replace(arguments, early_stopping_patience=0))
    with pytest.raises(ValueError, match="early_stopping_patience needs validation clips"):
        finetune_ast.run(replace(arguments, split=SplitArguments(validation_fraction=0.0), early_stopping_patience=1))
    for label in ("a", "b"):
        (tmp_path / "silence" / label).mkdir(parents=True)
        for index in range(4):
            soundfile.write(tmp_path / "silence" / label / f"{index}.wav", np.zeros(4000), SAMPLING_RATE)
    with pytest.raises(ValueError, match="all frames of the training clips are the same"):
        finetune_ast.run(replace(arguments, data=SpectrogramClips(source=str(tmp_path / "silence"))))


@pytest.mark.fault
def test_statistics_that_are_measured_are_used(arguments: FinetuneASTArguments, tmp_path: Path) -> None:
    """By a checkpoint whose front end does not normalise, as it is set where statistics are measured."""
    ast = ASTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=40)
    new_ast(ast).save_pretrained(tmp_path / "raw")
    ASTLogMelFeatureExtractor(max_length=40, do_normalize=False).save_pretrained(tmp_path / "raw")
    model = ASTModelArguments(checkpoint=str(tmp_path / "raw"))
    short = replace(arguments, model=model, training=FAST | {"num_train_epochs": 1})
    for statistics, card in (("data", "normalised by mean"), ("checkpoint", "not normalised")):
        features = replace(arguments.features, statistics=statistics)
        finetune_ast.run(replace(short, features=features, output_dir=str(tmp_path / statistics)))
        used = ASTLogMelFeatureExtractor.from_pretrained(tmp_path / statistics)
        assert used.do_normalize == (statistics == "data")
        assert card in (tmp_path / statistics / "README.md").read_text()


@pytest.mark.fault
def test_settings_that_the_trainer_refuses_leave_nothing_behind(arguments: FinetuneASTArguments) -> None:
    with pytest.raises(ValueError, match=r"training.save_total_limit is 1; it must be at least 2"):
        finetune_ast.run(replace(arguments, training={"save_total_limit": 1}))
    assert not Path(arguments.output_dir).exists()


@pytest.mark.fault
def test_the_tested_source_is_no_second_one(arguments: FinetuneASTArguments, tone_folder: Path) -> None:
    data = replace(arguments.data, also=f"{tone_folder.parent}/./{tone_folder.name}")
    with pytest.raises(ValueError, match=r"which is data.source too: its clips for testing would be learnt"):
        finetune_ast.run(replace(arguments, data=data))
    assert not Path(arguments.output_dir).exists()


@pytest.mark.unit
def test_a_second_source_is_learnt_from_and_not_compared_with(
    arguments: FinetuneASTArguments, tone_folder: Path, tmp_path: Path
) -> None:
    """The floor knows the clips of `data.source` alone: those of the other, whose labels are wrong, do not harm it."""
    labels = sorted(folder.name for folder in tone_folder.iterdir())
    for label, wrong in zip(labels, labels[1:] + labels[:1], strict=True):
        shutil.copytree(tone_folder / label, tmp_path / "others" / wrong)
    data = replace(arguments.data, also=str(tmp_path / "others"))
    (result,) = finetune_ast.run(replace(arguments, data=data, training=FAST | {"num_train_epochs": 1}))
    assert result.num_clips["train"] == 24 + 15
    assert result.floor == 1
