"""Every packaged preset is one of its recipe, and those of the paper have the paper's values."""

from dataclasses import replace
from typing import Any

import pytest

from hf_audioformer.recipes.finetune import FinetuneArguments
from hf_audioformer.recipes.finetune_ast import FinetuneASTArguments
from hf_audioformer.recipes.pretrain import PretrainArguments
from hf_audioformer.recipes.train_codec import TrainCodecArguments
from hf_audioformer.recipes.train_generation import TrainGenerationArguments
from hf_audioformer.training.arguments import parse_config, presets
from hf_audioformer.training.trainer import trainer_arguments

pytestmark = pytest.mark.unit

RECIPES = {
    "pretrain": PretrainArguments,
    "train_codec": TrainCodecArguments,
    "ast_": FinetuneASTArguments,
    "denoise_": TrainGenerationArguments,
}
CONTRASTIVE = [name for name in presets() if name.endswith("_ft2")]


def recipe_of(name: str) -> type:
    return next((recipe for prefix, recipe in RECIPES.items() if name.startswith(prefix)), FinetuneArguments)


def parse(name: str) -> Any:
    return parse_config(recipe_of(name), [name], description="")


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_read(name: str) -> None:
    arguments = parse(name)
    assert arguments.output_dir.removeprefix("runs/") in (name, name.replace("train_codec", "codec"))
    if hasattr(arguments, "training"):
        trainer_arguments({}, arguments.training, output_dir="x", seed=0, use_cpu=True)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_contrastive_presets_have_the_steps_of_the_paper_and_the_data_of_their_plain_twin(name: str) -> None:
    arguments = parse(name)
    assert len(arguments.mpc.companions) == 3
    first, second = arguments.steps
    assert (first.alpha, first.temperature) == (0.8, 0.05)
    assert (second.alpha, second.temperature) == (0.97, 0.03)
    assert second.learning_rate == pytest.approx(first.learning_rate / 10)
    plain = parse(next(twin for twin in (name.replace("_ft2", "_ft1"), name.removesuffix("_ft2")) if twin in presets()))
    assert (arguments.data, arguments.split) == (plain.data, plain.split)
    assert arguments.augmentation == plain.augmentation
    assert replace(arguments.model, checkpoint=None) == replace(plain.model, checkpoint=None)
    assert first.learning_rate == plain.training["learning_rate"]
    assert not plain.mpc.companions


@pytest.mark.parametrize(
    ("name", "rate", "batch", "epochs"),
    [
        ("audioset20k_ft1", 1e-4, 16, 10),
        ("audioset2m_ft1", 1e-4, 16, 10),
        ("fsd50k_ft1", 1e-4, 16, 4),
        ("esc50_ft1", 1e-5, 32, 20),
    ],
)
def test_values_of_the_paper(name: str, rate: float, batch: int, epochs: int) -> None:
    arguments = parse(name)
    found = [arguments.training[key] for key in ("learning_rate", "per_device_train_batch_size", "num_train_epochs")]
    assert found == [rate, batch, epochs]
    assert arguments.early_stopping_patience == (3 if name.startswith("audioset") else None)
    assert arguments.data.mask_rate == (0.1 if name.startswith("fsd50k") else 0)


@pytest.mark.parametrize(
    ("name", "rate", "epochs", "batch", "schedule", "warmup", "masks", "mixup", "frames", "statistics"),
    [
        ("ast_audioset", 1e-5, 5, 12, (2, 1, 0.5), 1000, (48, 192), 0.5, 1024, (-4.2677393, 4.5689974)),
        ("ast_audioset_balanced", 5e-5, 25, 12, (10, 5, 0.5), 1000, (48, 192), 0.5, 1024, (-4.2677393, 4.5689974)),
        ("ast_esc50", 1e-5, 25, 48, (5, 1, 0.85), 0, (24, 96), 0.0, 512, (-6.6268077, 5.358466)),
        ("ast_speech_commands", 2.5e-4, 30, 128, (5, 1, 0.85), 0, (48, 48), 0.6, 128, (-6.845978, 5.5654526)),
    ],
)
def test_official_values_of_ast(
    name: str,
    rate: float,
    epochs: int,
    batch: int,
    schedule: tuple[int, int, float],
    warmup: int,
    masks: tuple[int, int],
    mixup: float,
    frames: int,
    statistics: tuple[float, float],
) -> None:
    arguments = parse(name)
    training, optimization, augmentation = arguments.training, arguments.optimization, arguments.augmentation
    assert [training[key] for key in ("learning_rate", "num_train_epochs", "per_device_train_batch_size")] == [
        rate,
        epochs,
        batch,
    ]
    assert [training[key] for key in ("adam_beta1", "adam_beta2", "weight_decay", "max_grad_norm")] == [
        0.95,
        0.999,
        5e-7,
        0,
    ]
    assert optimization.schedule == "step"
    assert optimization.decay_all
    assert (optimization.full_rate_epochs, optimization.decay_every, optimization.gamma) == schedule
    assert training["warmup_steps"] == warmup
    assert (augmentation.frequency_mask, augmentation.time_mask, augmentation.mixup) == (*masks, mixup)
    assert (augmentation.spectrogram_noise, augmentation.roll_frames) == (
        (0.1, 10) if name == "ast_speech_commands" else (0, 0)
    )
    assert arguments.features.max_length == frames
    assert (arguments.features.mean, arguments.features.std) == statistics
    assert arguments.data.sampling == ("class_balanced" if name == "ast_audioset" else "uniform")
    averaged_from = {"ast_audioset": 1, "ast_audioset_balanced": 6}.get(name)
    assert arguments.averaging.kind == ("none" if averaged_from is None else "epochs")
    assert arguments.averaging.from_epoch == (averaged_from or 1)
    start = "MIT/ast-finetuned-audioset-10-10-0.4593" if name == "ast_esc50" else None
    assert arguments.model.checkpoint == (start or "facebook/deit-base-distilled-patch16-384")
    assert arguments.report_official_epoch == (name == "ast_esc50")
