"""Objectives, other masks in each epoch, whole checkpoints, and no weights lost to a NaN."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from hf_audioformer import AudioFormerForAudioClassification, AudioFormerForMaskedLM, AudioFormerForPreTraining
from hf_audioformer.data import CodeCollator, MaskedCodeCollator
from hf_audioformer.data.code_dataset import CodeAugmentation, CodeDataset, CodeVersion
from hf_audioformer.training.checkpoints import newest_complete_checkpoint
from hf_audioformer.training.trainer import AudioTrainer, trainer_arguments

from ..fixtures_recipes import tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")

CODEBOOK_SIZE = 64
PAD = CODEBOOK_SIZE + 3
DEFAULTS = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "save_strategy": "epoch", "disable_tqdm": True}


def clips(count: int = 10, **settings: Any) -> CodeDataset:
    codes = np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(count, 20, 2))
    return CodeDataset([[CodeVersion(code)] for code in codes], np.arange(count) % 2, **settings)


def classifier() -> AudioFormerForAudioClassification:
    torch.manual_seed(0)
    return AudioFormerForAudioClassification(tiny_config(num_labels=2))


def trainer(output_dir: Path, dataset: CodeDataset, model: torch.nn.Module, **chosen: Any) -> AudioTrainer:
    args = trainer_arguments(DEFAULTS, chosen, output_dir=str(output_dir), seed=0, use_cpu=True)
    return AudioTrainer(model=model, args=args, train_dataset=dataset, data_collator=CodeCollator(PAD))


@pytest.mark.invariant
@pytest.mark.parametrize("settings", [{"per_device_train_batch_size": 8}, {"gradient_accumulation_steps": 2}])
def test_an_objective_takes_the_place_of_the_models_loss_in_training_alone(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Half the loss at twice the rate is the same step; its parts are logged as means over the epoch."""

    def half(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, Any, dict[str, torch.Tensor]]:
        outputs = model(**batch)
        return outputs.loss / 2, outputs, {"whole_loss": outputs.loss, "one_loss": torch.ones(())}

    chosen = {"optim": "sgd", "max_grad_norm": 0.0, "save_strategy": "no", "logging_strategy": "epoch"} | settings
    logs, models = [], [classifier(), classifier()]
    for model, objective, rate in zip(models, (None, half), (0.1, 0.2), strict=True):
        args = trainer_arguments(
            DEFAULTS, chosen | {"learning_rate": rate}, output_dir=str(tmp_path), seed=0, use_cpu=True
        )
        trained = AudioTrainer(
            model=model, args=args, train_dataset=clips(), data_collator=CodeCollator(PAD), objective=objective
        )
        trained.train()
        logs.append([entry for entry in trained.state.log_history if "loss" in entry])
        evaluated = trained.evaluate(clips())
        assert not {"eval_whole_loss", "eval_one_loss"} & evaluated.keys()
    for plain, halved in zip(*logs, strict=True):
        assert halved["whole_loss"] == pytest.approx(plain["loss"], abs=1e-5)
        assert halved["loss"] == pytest.approx(plain["loss"] / 2, abs=1e-5)
        assert halved["one_loss"] == 1
        assert "whole_loss" not in plain
    for name, weight in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], weight, atol=1e-6, rtol=0, msg=name)


@pytest.mark.invariant
@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_objective_of_a_loss_per_item_weighs_items_and_not_batches(tmp_path: Path, accumulation: int) -> None:
    """Masked modelling of clips of different length: micro-batches have different numbers of labels."""

    def own(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, Any, dict[str, torch.Tensor]]:
        outputs = model(**batch)
        return outputs.loss, outputs, {}

    dataset = CodeDataset([versions[:1] for versions in clips(8).versions])
    for index, versions in enumerate(dataset.versions):
        dataset.versions[index] = [replace(versions[0], input_ids=versions[0].input_ids[: 4 + 2 * index])]
    weights = []
    for objective in (None, own):
        torch.manual_seed(0)
        model = AudioFormerForPreTraining(tiny_config())
        chosen = {"gradient_accumulation_steps": accumulation, "save_strategy": "no", "optim": "sgd"}
        args = trainer_arguments(
            DEFAULTS, chosen | {"learning_rate": 0.5}, output_dir=str(tmp_path), seed=0, use_cpu=True
        )
        collator = MaskedCodeCollator(CODEBOOK_SIZE)
        AudioTrainer(model=model, args=args, train_dataset=dataset, data_collator=collator, objective=objective).train()
        weights.append(model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=1e-6, rtol=0, msg=name)


@pytest.mark.invariant
def test_accumulation_equals_a_large_batch(tmp_path: Path) -> None:
    """With ten clips and steps of eight: the incomplete last step is where the two usually part."""
    weights = []
    for settings in (
        {"per_device_train_batch_size": 8},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    ):
        model = classifier()
        trained = trainer(tmp_path, clips(), model, save_strategy="no", **settings)
        trained.train()
        assert trained.state.global_step == 4
        weights.append(model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=1e-6, rtol=0, msg=name)


@pytest.mark.unit
def test_data_and_masks_are_drawn_anew_in_each_epoch_and_evaluated_on_the_same(tmp_path: Path) -> None:
    seen: dict[str, list[torch.Tensor]] = {"train": [], "eval": []}

    class Watched(AudioFormerForMaskedLM):
        def forward(self, **inputs: Any) -> Any:
            seen["train" if self.training else "eval"].append(inputs["labels"].clone())
            return super().forward(**inputs)

    collator, eval_collator = MaskedCodeCollator(CODEBOOK_SIZE), MaskedCodeCollator(CODEBOOK_SIZE)
    chosen = {"num_train_epochs": 3, "eval_strategy": "epoch", "save_strategy": "no", "logging_strategy": "no"}
    AudioTrainer(
        model=Watched(tiny_config()),
        args=trainer_arguments(DEFAULTS, chosen, output_dir=str(tmp_path), seed=0, use_cpu=True),
        train_dataset=CodeDataset(clips(4).versions, augmentation=CodeAugmentation(CODEBOOK_SIZE)),
        eval_dataset=CodeDataset(clips(4).versions),
        data_collator=collator,
        eval_collator=eval_collator,
    ).train()
    masks = [sorted((labels != -100).flatten(1).int().tolist()) for labels in seen["train"]]
    assert len(masks) == 3
    assert masks[0] != masks[1] != masks[2] != masks[0]
    assert torch.equal(seen["eval"][0], seen["eval"][1])
    assert torch.equal(seen["eval"][0], seen["eval"][2])


@pytest.mark.invariant
def test_a_clip_drawn_again_is_changed_otherwise_and_neither_workers_nor_a_resume_change_that(tmp_path: Path) -> None:
    def inputs(folder: str, *, resume: bool = False, **chosen: Any) -> list[list[int]]:
        seen: list[list[int]] = []

        class Watched(AudioFormerForMaskedLM):
            def forward(self, **batch: Any) -> Any:
                seen.extend(batch["labels"].flatten(1).tolist())
                return super().forward(**batch)

        settings = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 9} | chosen
        torch.manual_seed(0)
        trainer = AudioTrainer(
            model=Watched(tiny_config()),
            args=trainer_arguments(DEFAULTS, settings, output_dir=str(tmp_path / folder), seed=0, use_cpu=True),
            train_dataset=clips(8, augmentation=CodeAugmentation(CODEBOOK_SIZE, crop_frames=12)),
            data_collator=MaskedCodeCollator(CODEBOOK_SIZE),
            sampling_weights=np.eye(8)[5],
        )
        trainer.train(resume_from_checkpoint=f"{tmp_path / folder}/checkpoint-1" if resume else None)
        return seen

    unbroken = inputs("run")
    assert len({tuple(labels) for labels in unbroken}) == len(unbroken) == 16
    assert inputs("run", resume=True) == unbroken[4:]
    assert inputs("workers", dataloader_num_workers=2) == unbroken


@pytest.mark.unit
def test_checkpoints_are_marked_and_one_line_is_printed_per_epoch(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer(tmp_path, clips(), classifier(), logging_strategy="epoch").train()
    assert newest_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")
    assert (tmp_path / "checkpoint-3" / "complete.json").is_file()
    printed = capfd.readouterr()
    assert [line.split("  loss ")[0] for line in printed.out.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert printed.err == ""


class _TooLarge(AudioFormerForAudioClassification):
    """Says what torch says when an accelerator's memory is full; a CPU has no such limit to run into."""

    def forward(self, **inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.fault
def test_too_little_memory_ends_in_what_to_lower(tmp_path: Path) -> None:
    chosen = {"gradient_accumulation_steps": 3}
    message = r"per_device_train_batch_size 4 and gradient_accumulation_steps 3\. Set them to 2 and 6.*checkpointing"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, clips(), _TooLarge(tiny_config(num_labels=3)), **chosen).train()


@pytest.mark.fault
@pytest.mark.parametrize("setting", [{"fsdp": True}, {"deepspeed": "zero3.json"}])
def test_sharding_that_the_cpu_would_ignore_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"training.{next(iter(setting))} is set, but this training runs on the CPU"):
        trainer_arguments({}, setting, output_dir="x", seed=0, use_cpu=True)


@pytest.mark.fault
def test_the_only_checkpoint_may_not_be_deleted_for_the_next() -> None:
    with pytest.raises(ValueError, match=r"save_total_limit is 1; it must be at least 2"):
        trainer_arguments({}, {"save_total_limit": 1}, output_dir="x", seed=0, use_cpu=True)


class _NanFrom(AudioFormerForAudioClassification):
    """Its loss is NaN when it sees the clip that begins with code 0, 0."""

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        outputs = super().forward(input_ids=input_ids, **inputs)
        poisoned = (input_ids[:, 0] == 0).all(dim=-1).any()
        outputs.loss = outputs.loss * (float("nan") if poisoned else 1.0)
        return outputs


@pytest.mark.fault
def test_a_loss_that_is_not_finite_stops_before_the_weights_change_and_names_the_clips(tmp_path: Path) -> None:
    dataset = clips(names=[f"clip_{index}" for index in range(10)])
    dataset.versions[7][0].input_ids[0] = 0
    model = _NanFrom(tiny_config(num_labels=2))
    trained = trainer(tmp_path, dataset, model, save_strategy="steps", save_steps=1)
    step = next(step for step in range(3) if 7 in trained.sampler.clips_of_step(step))
    with pytest.raises(ValueError, match=rf"the loss is nan at step {step + 1}, with the clips .*clip_7\b") as caught:
        trained.train()
    assert str(caught.value).count("clip_") == 4
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert not (tmp_path / f"checkpoint-{step + 1}").exists()


@pytest.mark.fault
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = classifier()
    model.classifier.bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ValueError, match="no longer finite and are not saved"):
        trainer(tmp_path, clips(), model, save_strategy="steps", save_steps=1, max_grad_norm=0).train()
    assert list(tmp_path.glob("checkpoint-*")) == []


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "own"), [("output_dir", "output_dir"), ("seed", "seed"), ("resume_from_checkpoint", "resume")]
)
def test_settings_of_the_recipe_are_not_set_twice(name: str, own: str) -> None:
    with pytest.raises(ValueError, match=f"training.{name} is not read; set {own} instead"):
        trainer_arguments({}, {name: 1}, output_dir="x", seed=0, use_cpu=True)


@pytest.mark.fault
def test_training_settings_that_do_not_go_together_are_named() -> None:
    with pytest.raises(ValueError, match=r"the section training does not fit together: .*load_best_model_at_end"):
        trainer_arguments({"load_best_model_at_end": True}, {}, output_dir="x", seed=0, use_cpu=True)


@pytest.mark.unit
def test_the_users_settings_win_over_the_defaults() -> None:
    args = trainer_arguments(
        {"learning_rate": 1.0, "use_cpu": False},
        {"learning_rate": 2.0, "use_cpu": False},
        output_dir="x",
        seed=3,
        use_cpu=True,
    )
    assert isinstance(args, TrainingArguments)
    assert (args.learning_rate, args.seed, args.use_cpu, args.remove_unused_columns) == (2.0, 3, True, False)
