"""Fine-tuning from labelled files to a folder that works alone: results, resume, several processes, mistakes."""

import json
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import ASTConfig, ASTFeatureExtractor, AutoModelForAudioClassification, TrainerCallback, pipeline

from hf_audioformer import (
    AudioFormerForAudioClassification,
    AudioFormerForCausalLM,
    AudioFormerForConditionalGeneration,
    cli,
    load_audio,
    read_clips,
)
from hf_audioformer.data.splits import SplitArguments, make_splits
from hf_audioformer.recipes import finetune, split_training
from hf_audioformer.recipes.finetune import DataArguments, FinetuneArguments, ModelArguments
from hf_audioformer.training.arguments import dump_config
from hf_audioformer.training.floor import log_mel_statistics
from hf_audioformer.training.results import read_results
from hf_audioformer.training.steps import StepArguments

from ..warm_processes import exit_codes, start, start_together

pytestmark = pytest.mark.usefixtures("one_thread")

# The last weights are kept, since the best ones may come from an epoch before anything could go wrong.
LAST = {"load_best_model_at_end": False}
FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "disable_tqdm": True}


@pytest.fixture
def arguments(tone_folder: Path, tiny_checkpoint: str, tmp_path: Path) -> FinetuneArguments:
    """Two epochs on the tones; a fifth of them is tested."""
    return FinetuneArguments(
        data=DataArguments(source=str(tone_folder), mask_rate=0.2, crop_seconds=0.2),
        output_dir=str(tmp_path / "run"),
        split=SplitArguments(validation_fraction=0.2),
        model=ModelArguments(checkpoint=tiny_checkpoint, hidden_dropout=0.1),
        training=FAST,
    )


@pytest.fixture
def two_folds(arguments: FinetuneArguments, tone_csv: Path) -> FinetuneArguments:
    """Several labels per clip, and the two folds of the csv's column."""
    return replace(
        arguments,
        data=DataArguments(source=str(tone_csv)),
        split=SplitArguments(kind="folds", column="fold", validation_fraction=0.0),
    )


class _Interrupt(TrainerCallback):
    """Ctrl-C right after the n-th checkpoint of this process."""

    def __init__(self, after: int):
        self.left = after

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def interrupted(arguments: FinetuneArguments, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt = _Interrupt(after)
    with monkeypatch.context() as patch:
        original = finetune.callbacks
        patch.setattr(finetune, "callbacks", lambda arguments: [*original(arguments), interrupt])
        with pytest.raises(KeyboardInterrupt):
            finetune.run(arguments)


def assert_same_weights(one: Path, other: Path, tolerance: float) -> None:
    expected, found = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=tolerance, rtol=0, msg=lambda text, name=name: name + text)


@pytest.mark.unit
def test_a_folder_of_classes_becomes_a_checkpoint_that_works_alone(
    arguments: FinetuneArguments,
    tone_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (result,) = finetune.run(arguments)
    printed = capfd.readouterr()
    assert (result.metric, result.name) == ("accuracy", "fraction")
    assert sum(result.num_clips.values()) == 24
    assert result.metrics["accuracy"] == result.score
    assert [line[:9] for line in printed.out.splitlines() if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert "[1/1] fraction: " in printed.out
    assert all("encode" in line or "floor" in line for line in printed.err.splitlines() if line.strip())

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    moved = tmp_path / "moved"
    shutil.move(arguments.output_dir, moved)
    files = {path.name for path in moved.iterdir()}
    expected = {"README.md", "codec", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert files == expected | {"recipe.yaml", "result.json", "results.json", "learning_curve.png", "clips.sha256"}
    assert read_results(moved / "result.json") == read_results(moved / "results.json") == [result]
    model = AutoModelForAudioClassification.from_pretrained(moved)
    assert model.config.id2label == {0: "high", 1: "low", 2: "middle"}
    classifier = pipeline("audio-classification", model=str(moved), device="cpu")
    guesses = classifier(dict(load_audio(tone_folder / "low" / "0.wav")))
    assert {guess["label"] for guess in guesses} == {"high", "low", "middle"}
    assert sum(guess["score"] for guess in guesses) == pytest.approx(1.0)


@pytest.mark.unit
def test_the_score_is_that_of_the_saved_model_on_the_test_clips(arguments: FinetuneArguments) -> None:
    (result,) = finetune.run(arguments)
    clips = read_clips(arguments.data.source)
    (split,) = make_splits(clips, arguments.split)
    classifier = pipeline("audio-classification", model=arguments.output_dir, device="cpu", top_k=1)
    guesses = [classifier(dict(clips.load(index)))[0]["label"] for index in split.test]
    truth = [clips.label_names[label] for label in clips.targets(split.test)]
    right = [guess == label for guess, label in zip(guesses, truth, strict=True)]
    assert result.score == pytest.approx(sum(right) / len(right))
    card = ModelCard.load(Path(arguments.output_dir) / "README.md")
    assert card.data.eval_results[0].metric_value == pytest.approx(result.score, abs=1e-4)
    assert f"| accuracy | {result.score:.4f} |" in card.text
    size = sum(weights.numel() for weights in classifier.model.parameters())
    assert "at 24000 Hz (other rates are resampled): 2 of 64 codes for each of 75 frames a second." in card.text
    assert f"Clips may have any length.\nThe network has {size:,} parameters." in card.text
    vectors = [log_mel_statistics(clips.load(index)) for index in range(len(clips))]
    train, test = ([vectors[index] for index in part] for part in (split.train, split.test))
    peer = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, clips.targets(split.train))
    assert result.floor == peer.score(test, clips.targets(split.test))
    assert f"statistics of log-mels, trained on the source's training clips | {result.floor:.4f} |" in card.text
    assert "learning_rate: " in card.text
    for path in (str(Path(arguments.output_dir).parent), str(Path(arguments.data.source).parent)):
        assert path not in str(card)


@pytest.mark.unit
def test_folds_of_clips_with_several_labels(
    two_folds: FinetuneArguments, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = replace(two_folds, model=replace(two_folds.model, pooling="attention"))
    results = finetune.run(arguments)
    assert [result.name for result in results] == ["fold_1", "fold_2"]
    assert {result.metric for result in results} == {"macro mAP"}
    assert all(result.score == result.metrics["map"] for result in results)
    assert results[0].num_clips == {"train": 12, "validation": 0, "test": 12}
    assert results[0].chance == pytest.approx(0.5)
    output = Path(arguments.output_dir)
    assert read_results(output / "results.json") == results
    assert "mean" in capfd.readouterr().out
    for result in results:
        model = AutoModelForAudioClassification.from_pretrained(output / result.name)
        assert model.config.problem_type == "multi_label_classification"
        assert model.config.pooling == "attention"
        assert list((output / result.name).glob("checkpoint-*")) == []
        assert f"{result.score:.4f}" in (output / result.name / "README.md").read_text()
    classifier = pipeline("audio-classification", model=str(output / "fold_1"), device="cpu")
    assert sum(guess["score"] for guess in classifier(torch.zeros(24_000).numpy())) != pytest.approx(1.0)  # sigmoids


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
    arguments: FinetuneArguments, training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, masks, crops and a copy with changed sound."""
    arguments = replace(
        arguments,
        training=FAST | LAST | training,
        augmentation=replace(arguments.augmentation, copies=1),
        early_stopping_patience=2,
    )
    unbroken = replace(arguments, output_dir=str(tmp_path / "unbroken"))
    (expected,) = finetune.run(unbroken)
    interrupted(arguments, 1, monkeypatch)
    (found,) = finetune.run(replace(arguments, resume=True))
    assert_same_weights(Path(unbroken.output_dir), Path(arguments.output_dir), 1e-6)
    assert replace(found, seconds=0) == replace(expected, seconds=0)


@pytest.mark.invariant
def test_testing_after_each_epoch_is_reported_apart_and_changes_nothing(
    two_folds: FinetuneArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Resumed in the second fold too."""
    arguments = replace(two_folds, training=FAST | {"num_train_epochs": 3, "learning_rate": 1e-2})
    plain = finetune.run(replace(arguments, output_dir=str(tmp_path / "plain")))
    asked = replace(arguments, report_official_epoch=True)
    capfd.readouterr()
    expected = finetune.run(replace(asked, output_dir=str(tmp_path / "unbroken")))
    assert capfd.readouterr().out.count("  loss ") == 2 * 3  # of each epoch in both folds, as without
    interrupted(asked, 5, monkeypatch)
    capfd.readouterr()
    results = finetune.run(replace(asked, resume=True))
    assert [replace(result, seconds=0) for result in results] == [replace(result, seconds=0) for result in expected]
    assert_same_weights(tmp_path / "plain" / "fold_2", Path(asked.output_dir) / "fold_2", 0)
    for result, without in zip(results, plain, strict=True):
        assert (len(result.test_scores), without.test_scores) == (3, [])
        assert result.test_scores[-1] == result.score == without.score
    means = [(first + second) / 2 for first, second in zip(*(result.test_scores for result in results), strict=True)]
    assert results[0].official_epoch == results[1].official_epoch == 1 + means.index(max(means))
    assert read_results(Path(asked.output_dir) / "results.json") == results
    assert f"chosen on these test clips: {max(means):.1%}" in capfd.readouterr().out


@pytest.mark.fault
def test_finished_splits_are_kept(
    two_folds: FinetuneArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = finetune.run(replace(two_folds, output_dir=str(tmp_path / "unbroken")))
    interrupted(two_folds, 3, monkeypatch)  # two epochs of the first fold, one of the second
    first = Path(two_folds.output_dir) / "fold_1"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    results = finetune.run(replace(two_folds, resume=True))
    after = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert {path.name for path in after if after[path] != before.get(path)} == {"README.md"}  # tells of both folds
    assert after.keys() == before.keys()
    for result in results:
        assert "This is one of 2 models" in Path(two_folds.output_dir, result.name, "README.md").read_text()
    assert [replace(result, seconds=0) for result in results] == [replace(result, seconds=0) for result in expected]
    assert_same_weights(tmp_path / "unbroken" / "fold_2", Path(two_folds.output_dir) / "fold_2", 1e-6)
    again = finetune.run(replace(two_folds, resume=True))
    assert again == results


@pytest.mark.fault
def test_patience_counts_over_a_resume(
    arguments: FinetuneArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a step that changes anything, the run stops two evaluations after the first."""
    training = FAST | {"learning_rate": 1e-12, "num_train_epochs": 6, "save_total_limit": None}
    arguments = replace(arguments, training=training, early_stopping_patience=2, floor_clips=5)
    interrupted(arguments, 2, monkeypatch)
    finetune.run(replace(arguments, resume=True))
    history = ModelCard.load(Path(arguments.output_dir) / "README.md").text
    assert "floor: not computed" in history
    assert "\n| 3 | " in history
    assert "\n| 4 | " not in history


def test_what_patience_ended_is_not_trained_on(arguments: FinetuneArguments, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted once all is trained and tested; the seconds are those of the training, too."""
    training = FAST | {"learning_rate": 1e-12, "num_train_epochs": 6, "save_total_limit": None}
    arguments = replace(arguments, training=training, early_stopping_patience=1)
    with monkeypatch.context() as patched:
        patched.setattr(split_training, "write_results", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune.run(arguments)
    *_, checkpoint = sorted(Path(arguments.output_dir).glob("checkpoint-*/running_loss_0.json"))
    seconds_before = json.loads(checkpoint.read_text())["seconds"]
    (result,) = finetune.run(replace(arguments, resume=True))
    history = ModelCard.load(Path(arguments.output_dir) / "README.md").text
    assert "\n| 2 | " in history
    assert "\n| 3 | " not in history
    assert result.seconds > seconds_before > 0


@pytest.fixture
def config(arguments: FinetuneArguments, tmp_path: Path) -> str:
    (tmp_path / "config.yaml").write_text(dump_config(arguments))
    return str(tmp_path / "config.yaml")


@pytest.mark.fault
def test_a_killed_run_goes_on(arguments: FinetuneArguments, config: str, tmp_path: Path) -> None:
    """kill -9 as soon as a checkpoint stands there, whole or not."""
    longer = ["--training.num_train_epochs", "12", "--training.load_best_model_at_end", "false"]
    output = Path(arguments.output_dir)
    run = start(cli.main, "finetune", config, *longer)
    while run.is_alive() and not list(output.glob("checkpoint-*/model.safetensors")):
        time.sleep(0.001)
    run.kill()
    assert exit_codes([run]) == [-signal.SIGKILL]
    assert not (output / "result.json").exists()
    unbroken = replace(
        arguments, training=FAST | LAST | {"num_train_epochs": 12}, output_dir=str(tmp_path / "unbroken")
    )
    finetune.run(replace(unbroken, output_dir=str(output), resume=True))
    finetune.run(unbroken)
    assert_same_weights(tmp_path / "unbroken", output, 1e-6)


@pytest.mark.cli
def test_ctrl_c_says_how_to_go_on(
    arguments: FinetuneArguments, config: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finetune, "callbacks", lambda arguments: [_Interrupt(1)])
    assert cli.main(["finetune", config]) == 130
    *_, last = capfd.readouterr().err.splitlines()
    assert last == (
        "hf-audioformer: interrupted; the same command with --resume true goes on from the last checkpoint in "
        f"{arguments.output_dir}"
    )
    monkeypatch.undo()
    assert cli.main(["finetune", config]) == 1
    assert "is not empty. Go on with its training with --resume true" in capfd.readouterr().err
    assert cli.main(["finetune", config, "--resume", "true"]) == 0


@pytest.mark.invariant
def test_two_processes_equal_one_with_twice_the_batch(
    arguments: FinetuneArguments, config: str, tmp_path: Path
) -> None:
    """16 training clips in steps of 12: the last step of an epoch is not whole."""
    shared = ["--model.hidden_dropout", "0", "--world_size", "2", "--training.per_device_train_batch_size", "6"]
    shared += ["--training.load_best_model_at_end", "false"]
    output = tmp_path / "printed.txt"
    processes = start_together(cli.main, "finetune", config, *shared, output=output)
    assert exit_codes(processes) == [0, 0], output.read_text()
    assert output.read_text().count("epoch 1/2") == 1
    assert "world_size: 2" in (Path(arguments.output_dir) / "recipe.yaml").read_text()
    alone = replace(
        arguments,
        output_dir=str(tmp_path / "alone"),
        model=replace(arguments.model, hidden_dropout=0.0),
        training=FAST | LAST | {"per_device_train_batch_size": 12},
    )
    (expected,) = finetune.run(alone)
    assert expected.num_clips["train"] % 12
    (found,) = read_results(Path(arguments.output_dir) / "result.json")
    assert found.num_clips == expected.num_clips
    assert found.metrics == pytest.approx(expected.metrics)
    assert_same_weights(tmp_path / "alone", Path(arguments.output_dir), 1e-5)


@pytest.mark.cli
def test_a_launch_that_would_train_alone_is_refused_with_the_right_command(
    arguments: FinetuneArguments, config: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What `accelerate launch --cpu --num_processes 2` hands on; tests/training/test_launch.py really launches it."""
    monkeypatch.setattr(sys, "argv", ["/env/bin/hf-audioformer", "finetune", config])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert cli.main(["finetune", config]) == 1
    message = capfd.readouterr().err
    assert f"Launch with: torchrun --nproc_per_node N -m hf_audioformer finetune {config}" in message
    assert not Path(arguments.output_dir).exists()


@pytest.mark.fault
def test_patience_without_validation_is_refused_before_anything_is_encoded(
    arguments: FinetuneArguments, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = replace(arguments, split=SplitArguments(validation_fraction=0.0), early_stopping_patience=1)
    with pytest.raises(ValueError, match="early_stopping_patience needs validation clips"):
        finetune.run(arguments)
    assert capfd.readouterr().err == ""


@pytest.mark.fault
def test_a_checkpoint_of_another_model_is_refused(arguments: FinetuneArguments, tmp_path: Path) -> None:
    ASTConfig().save_pretrained(tmp_path / "other")
    ASTFeatureExtractor().save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="holds a ASTFeatureExtractor; only AudioFormer checkpoints"):
        finetune.run(replace(arguments, model=ModelArguments(checkpoint=str(tmp_path / "other"))))


@pytest.mark.cli
def test_an_unknown_key_names_the_nearest(config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = Path(config).read_text().replace("mask_rate:", "mask_ratio:")
    (tmp_path / "typo.yaml").write_text(text)
    assert cli.main(["finetune", str(tmp_path / "typo.yaml")]) == 1
    assert "unknown key 'data.mask_ratio'; did you mean 'data.mask_rate'?" in capfd.readouterr().err


@pytest.mark.fault
def test_bad_clips_are_named_or_left_out(
    arguments: FinetuneArguments, tone_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "with_bad"
    shutil.copytree(tone_folder, folder)
    (folder / "low" / "3.wav").write_bytes((folder / "low" / "3.wav").read_bytes()[:1000])
    soundfile.write(folder / "high" / "5.wav", torch.rand(300).numpy(), 16_000)  # shortest where sped up
    arguments = replace(arguments, data=replace(arguments.data, source=str(folder)))
    with pytest.raises(ValueError, match=r"low/3.wav.*truncated.*--data.skip_bad true"):
        finetune.run(arguments)
    skipping = replace(arguments, data=replace(arguments.data, skip_bad=True), overwrite=True)
    (result,) = finetune.run(skipping)
    assert sum(result.num_clips.values()) == 23
    assert "left out 1 of 24 clips:" in caplog.messages
    assert any("low/3.wav" in message and "truncated" in message for message in caplog.messages)


@pytest.mark.unit
def test_a_classifier_with_another_pooling_lends_its_encoder(
    arguments: FinetuneArguments, tiny_extractor: Any, tmp_path: Path
) -> None:
    clips = read_clips(arguments.data.source)
    source = str(arguments.model.checkpoint)
    statistics = replace(arguments.model, pooling="statistics")
    finetune.build_model(source, clips, statistics, tiny_extractor).save_pretrained(tmp_path)
    model = finetune.build_model(str(tmp_path), clips, replace(arguments.model, pooling="mean"), tiny_extractor)
    assert model.classifier.in_features == model.config.hidden_size
    name = "audioformer.embeddings.code_embeddings.weight"
    assert torch.equal(model.state_dict()[name], load_file(Path(source) / "model.safetensors")[name])
    assert torch.isfinite(model.classifier.weight).all()


@pytest.mark.unit
def test_a_model_of_one_number_lends_its_encoder_to_classes(
    arguments: FinetuneArguments, tiny_extractor: Any, tmp_path: Path
) -> None:
    source = str(arguments.model.checkpoint)
    number = {"problem_type": "regression", "target_mean": [3.0], "target_scale": [2.0]}
    AudioFormerForAudioClassification.from_pretrained(source, num_labels=1, **number).save_pretrained(tmp_path)
    clips = read_clips(arguments.data.source)
    model = finetune.build_model(str(tmp_path), clips, arguments.model, tiny_extractor)
    assert (model.config.problem_type, model.config.target_mean) == ("single_label_classification", None)
    assert tuple(model.config.id2label.values()) == clips.label_names


@pytest.mark.unit
@pytest.mark.parametrize("model_class", [AudioFormerForCausalLM, AudioFormerForConditionalGeneration])
def test_a_generator_lends_its_encoder(
    model_class: Any, arguments: FinetuneArguments, tiny_extractor: Any, tmp_path: Path
) -> None:
    generator = model_class.from_pretrained(str(arguments.model.checkpoint))
    generator.save_pretrained(tmp_path)
    clips = read_clips(arguments.data.source)
    weights = finetune.build_model(str(tmp_path), clips, arguments.model, tiny_extractor).state_dict()
    for name, weight in generator.audioformer.state_dict().items():
        assert torch.equal(weights[f"audioformer.{name}"], weight)


@pytest.mark.fault
def test_a_checkpoint_without_a_layer_of_its_configuration_is_refused(
    arguments: FinetuneArguments, tiny_extractor: Any, tmp_path: Path
) -> None:
    source = Path(str(arguments.model.checkpoint))
    shutil.copytree(source, tmp_path / "network")
    config = json.loads((source / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (tmp_path / "network" / "config.json").write_text(json.dumps(config))
    clips = read_clips(arguments.data.source)
    with pytest.raises(ValueError, match=r"network lacks weights of its configuration: audioformer\.layers\."):
        finetune.build_model(str(tmp_path / "network"), clips, arguments.model, tiny_extractor)


@pytest.mark.fault
def test_settings_of_steps_are_checked_at_once(arguments: FinetuneArguments) -> None:
    with pytest.raises(ValueError, match=r"step 1 of steps has alpha, which needs mpc\.companions"):
        replace(arguments, steps=[StepArguments(alpha=0.8)])


@pytest.mark.unit
def test_random_weights_take_configuration_and_codec_only(arguments: FinetuneArguments, tiny_extractor: Any) -> None:
    clips = read_clips(arguments.data.source)
    source = str(arguments.model.checkpoint)
    kept = finetune.build_model(source, clips, arguments.model, tiny_extractor)
    fresh, blank = (
        finetune.build_model(
            source, clips, replace(arguments.model, random_weights=True, codec_embeddings=sounding), tiny_extractor
        )
        for sounding in (True, False)
    )
    stored = load_file(Path(source) / "model.safetensors")
    name = "audioformer.embeddings.code_embeddings.weight"
    assert torch.equal(kept.state_dict()[name], stored[name])
    assert not torch.equal(fresh.state_dict()[name], stored[name])
    assert not torch.equal(fresh.state_dict()[name], blank.state_dict()[name])
    assert fresh.config.hidden_size == kept.config.hidden_size
    assert kept.config.hidden_dropout == kept.config.classifier_dropout == 0.1
