"""Contrastive fine-tuning (FT2) from labelled files: both ways to the companions' vectors, steps, several processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from hf_audioformer import cli
from hf_audioformer.data.splits import SplitArguments
from hf_audioformer.recipes import encode, finetune
from hf_audioformer.recipes.encode import CodecArguments, EncodeArguments
from hf_audioformer.recipes.finetune import DataArguments, FinetuneArguments, ModelArguments
from hf_audioformer.recipes.inputs import ReadingArguments
from hf_audioformer.training.arguments import dump_config, parse_config
from hf_audioformer.training.contrastive import ContrastiveArguments
from hf_audioformer.training.results import read_results
from hf_audioformer.training.steps import StepArguments

from ..fixtures_recipes import save_companion
from ..warm_processes import exit_codes, start_together

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "disable_tqdm": True, "learning_rate": 1e-3}


@pytest.fixture
def arguments(tone_folder: Path, tiny_c1: str, tiny_companions: list[str], tmp_path: Path) -> FinetuneArguments:
    """Two epochs on the tones, cropped, masked and in two versions; the last epoch is kept."""
    return FinetuneArguments(
        data=DataArguments(source=str(tone_folder), mask_rate=0.2, crop_seconds=0.2),
        output_dir=str(tmp_path / "run"),
        split=SplitArguments(validation_fraction=0.0),
        augmentation=finetune.AudioAugmentation(copies=1),
        model=ModelArguments(checkpoint=tiny_c1),
        mpc=ContrastiveArguments(companions=tiny_companions, alpha=0.5),
        training=FAST,
    )


def log_of(folder: str | Path, monkeypatch: pytest.MonkeyPatch, arguments: FinetuneArguments) -> list[dict[str, Any]]:
    """Runs the recipe; the log that it hands to the card."""
    logs: list[list[dict[str, Any]]] = []
    original = finetune.write_model_card
    with monkeypatch.context() as patch:
        patch.setattr(
            finetune,
            "write_model_card",
            lambda *args, **card: (logs.append(card["measured"].history), original(*args, **card)),
        )
        finetune.run(replace(arguments, output_dir=str(folder)))
    return [entry for entry in logs[-1] if "loss" in entry]


def assert_same_weights(one: Path, other: Path, tolerance: float) -> None:
    expected, found = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=tolerance, rtol=0, msg=lambda text, name=name: name + text)


@pytest.mark.invariant
def test_vectors_stored_once_and_computed_in_each_step_train_the_same(
    arguments: FinetuneArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = {
        kind: log_of(
            tmp_path / kind, monkeypatch, replace(arguments, mpc=replace(arguments.mpc, companion_vectors=kind))
        )
        for kind in ("stored", "each_step")
    }
    assert len(logs["stored"]) == 2
    for stored, each_step in zip(logs["stored"], logs["each_step"], strict=True):
        for name in ("loss", "classification_loss", "mpc_loss"):
            assert stored[name] == pytest.approx(each_step[name], abs=1e-5)
        mean = 0.5 * stored["classification_loss"] + 0.5 * stored["mpc_loss"]
        assert stored["loss"] == pytest.approx(mean, abs=1e-4)
    assert_same_weights(tmp_path / "stored", tmp_path / "each_step", 1e-5)


@pytest.mark.invariant
@pytest.mark.parametrize("with_vectors", [True, False])
def test_a_code_store_trains_as_sound_does(
    arguments: FinetuneArguments,
    with_vectors: bool,
    tiny_c1: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Vectors that are stored with the codes are not computed again."""
    encode.run(
        EncodeArguments(
            data=ReadingArguments(source=arguments.data.source),
            output_dir=str(tmp_path / "codes"),
            codec=CodecArguments(checkpoint=tiny_c1, num_codebooks=3),
            companions=arguments.mpc.companions if with_vectors else [],
            augmentation=arguments.augmentation,
        )
    )
    expected = log_of(tmp_path / "sound", monkeypatch, arguments)
    capfd.readouterr()
    from_store = replace(arguments, data=replace(arguments.data, source=str(tmp_path / "codes")))
    found = log_of(tmp_path / "stored", monkeypatch, from_store)
    printed = capfd.readouterr().err
    assert ("companions" in printed) == (not with_vectors)
    assert "encode" not in printed
    for one, other in zip(expected, found, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert_same_weights(tmp_path / "sound", tmp_path / "stored", 1e-5)


@pytest.mark.unit
def test_what_is_left_is_a_classifier_of_one_codebook(
    arguments: FinetuneArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    contrastive = log_of(tmp_path / "ft2", monkeypatch, arguments)
    printed = capfd.readouterr()
    assert "  classification_loss " in printed.out
    assert "  mpc_loss " in printed.out
    assert "companions" in printed.err
    plain = log_of(tmp_path / "ft1", monkeypatch, replace(arguments, mpc=ContrastiveArguments()))
    assert "mpc_loss" not in plain[0]
    assert contrastive[0]["mpc_loss"] > contrastive[1]["mpc_loss"]
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "ft2").num_codebooks == 1
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("ft1", "ft2"))
    assert {name: weight.shape for name, weight in one.items()} == {name: w.shape for name, w in other.items()}
    assert any(not torch.equal(weight, other[name]) for name, weight in one.items())
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "ft2")
    assert model.config.id2label == {0: "high", 1: "low", 2: "middle"}


@pytest.mark.unit
def test_alpha_of_one_is_classification_alone(
    arguments: FinetuneArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_of(tmp_path / "ft2", monkeypatch, replace(arguments, mpc=replace(arguments.mpc, alpha=1.0)))
    log_of(tmp_path / "ft1", monkeypatch, replace(arguments, mpc=ContrastiveArguments()))
    assert_same_weights(tmp_path / "ft1", tmp_path / "ft2", 1e-6)


STEPS = [
    StepArguments(alpha=0.8, temperature=0.05, learning_rate=1e-3),
    StepArguments(alpha=0.97, temperature=0.03, learning_rate=1e-4, num_train_epochs=1),
]


class _InterruptAt:
    """Ctrl-C when the n-th training of this process begins or, with `after`, right after its first checkpoint."""

    def __init__(self, training: int, monkeypatch: pytest.MonkeyPatch, *, after_checkpoint: bool):
        self.left = training
        save, train = finetune.AudioTrainer._save_checkpoint, finetune.AudioTrainer.train

        def counted(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not after_checkpoint:
                raise KeyboardInterrupt
            return train(trainer, *args, **kwargs)

        def interrupted(trainer: Any, *args: Any, **kwargs: Any) -> None:
            save(trainer, *args, **kwargs)
            if self.left == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(finetune.AudioTrainer, "train", counted)
        monkeypatch.setattr(finetune.AudioTrainer, "_save_checkpoint", interrupted)


@pytest.mark.invariant
@pytest.mark.parametrize(
    ("training", "after_checkpoint"),
    [(2, False), (2, True)],
    ids=["between_steps", "in_the_second_step"],
)
def test_steps_that_were_interrupted_equal_unbroken_ones(
    arguments: FinetuneArguments,
    training: int,
    after_checkpoint: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = replace(arguments, steps=STEPS, model=replace(arguments.model, hidden_dropout=0.1))
    unbroken = log_of(tmp_path / "unbroken", monkeypatch, arguments)
    assert [entry["epoch"] for entry in unbroken] == [1, 2, 3]
    assert unbroken[2]["learning_rate"] <= 1e-4 < unbroken[0]["learning_rate"]
    mean = 0.97 * unbroken[2]["classification_loss"] + 0.03 * unbroken[2]["mpc_loss"]
    assert unbroken[2]["loss"] == pytest.approx(mean, abs=1e-4)
    with monkeypatch.context() as patch:
        _InterruptAt(training, patch, after_checkpoint=after_checkpoint)
        with pytest.raises(KeyboardInterrupt):
            finetune.run(arguments)
    assert (Path(arguments.output_dir) / "step_1" / "step.json").exists()
    resumed = log_of(arguments.output_dir, monkeypatch, replace(arguments, resume=True))
    assert [entry["loss"] for entry in resumed] == pytest.approx([entry["loss"] for entry in unbroken], abs=1e-6)
    assert_same_weights(tmp_path / "unbroken", Path(arguments.output_dir), 1e-6)
    assert not (Path(arguments.output_dir) / "step_1").exists()


@pytest.mark.invariant
@pytest.mark.timeout(200)
def test_two_processes_equal_one_with_twice_the_batch(
    tone_csv: Path, tiny_c1: str, tiny_companions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preset of ESC-10 on tones, in both its steps, with clips drawn by class: negatives are those of both."""
    settings = {
        **{"data.source": tone_csv, "data.crop_seconds": 0.2, "data.sampling": "class_balanced"},
        **{"model.checkpoint": tiny_c1, "mpc.companions": tiny_companions, "data.mask_rate": 0.3},
        **{"model.hidden_dropout": 0, "model.classifier_dropout": 0},
        **{"split.run_folds": "['1']", "augmentation.copies": 1, "training.disable_tqdm": "true"},
        "steps": "[{alpha: 0.8, learning_rate: 1e-3, num_train_epochs: 1}, {alpha: 0.97, num_train_epochs: 1}]",
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    shared = ["--output_dir", str(tmp_path / "shared"), "--training.per_device_train_batch_size", "4"]
    output = tmp_path / "printed.txt"
    words = ["finetune", "esc10_ft2", *options, *shared, "--world_size", "2"]
    assert exit_codes(start_together(cli.main, *words, output=output)) == [0, 0], output.read_text()
    printed = output.read_text()
    assert printed.count("epoch 1/1") == 2
    assert "world_size: 2" in (tmp_path / "shared" / "recipe.yaml").read_text()
    alone = parse_config(
        FinetuneArguments, ["esc10_ft2", *options, "--training.per_device_train_batch_size", "8"], description=""
    )
    expected = log_of(tmp_path / "alone", monkeypatch, alone)
    shown = [line.split("  mpc_loss ")[1] for line in printed.splitlines() if "  mpc_loss " in line]
    assert [float(value.split()[0]) for value in shown] == pytest.approx([e["mpc_loss"] for e in expected], abs=2e-4)
    assert_same_weights(tmp_path / "alone" / "fold_1", tmp_path / "shared" / "fold_1", 1e-5)
    metrics = [read_results(tmp_path / name / "results.json")[0].metrics for name in ("alone", "shared")]
    assert metrics[0] == pytest.approx(metrics[1])


@pytest.mark.fault
def test_companions_of_another_size_are_refused_before_anything_is_encoded(
    arguments: FinetuneArguments, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = save_companion(tmp_path / "other", 1, hidden_size=16)
    capfd.readouterr()
    with pytest.raises(ValueError, match="other has hidden_size 16; the network it accompanies has 32"):
        finetune.run(replace(arguments, mpc=ContrastiveArguments(companions=[other])))
    assert capfd.readouterr().err == ""


@pytest.mark.cli
def test_codebook_dropout_of_a_network_of_one_codebook_is_refused(
    arguments: FinetuneArguments, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(arguments))
    assert cli.main(["finetune", str(tmp_path / "config.yaml"), "--data.codebook_dropout", "0.5"]) == 1
    message = capfd.readouterr().err
    assert "data.codebook_dropout is 0.5, and model.checkpoint reads one codebook" in message
    assert "encode" not in message
