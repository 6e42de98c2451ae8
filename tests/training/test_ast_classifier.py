"""The AST that fine-tuning starts from has the form that was asked for; what cannot be is said."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ASTFeatureExtractor, ASTModel, ViTConfig, ViTModel

from hf_audioformer.recipes.finetune_ast import FinetuneASTArguments
from hf_audioformer.training.arguments import parse_config
from hf_audioformer.training.ast_classifier import (
    DEFAULT_CHECKPOINT,
    ASTModelArguments,
    FeatureArguments,
    build_ast,
    load_front_end,
    model_length,
)

from ..models.ast.tiny_ast import saved, tiny_ast

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
SMALL = ASTModelArguments(random_weights=True, time_stride=4, frequency_stride=8, **SIZES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An AST of 64 bands and 510 frames, with statistics of its own."""
    folder = tmp_path_factory.mktemp("checkpoint")
    ASTFeatureExtractor(num_mel_bins=64, max_length=510, mean=-1.5, std=2.5).save_pretrained(folder)
    return saved(tiny_ast(num_labels=4), folder)


@pytest.mark.unit
@pytest.mark.parametrize("preset", ["ast_small", "ast_esc10", "ast_esc10_mix", "ast_fsdd"])
def test_presets_start_from_what_comes_with_the_package(preset: str) -> None:
    arguments = parse_config(FinetuneASTArguments, [preset], description="")
    extractor = load_front_end(arguments.model, arguments.features)
    model = build_ast(arguments.model, extractor, ["seven", "eleven"], multi_label=False, seed=0)
    assert model.dtype == torch.float32
    start = ASTModel.from_pretrained(str(arguments.model.source), dtype=torch.float32)
    layers = model.audio_spectrogram_transformer.layers.state_dict()
    for name, weight in start.layers.state_dict().items():
        torch.testing.assert_close(layers[name], weight, rtol=0, atol=0)


@pytest.mark.fault
def test_a_network_that_does_not_come_with_the_package() -> None:
    message = (
        "model.checkpoint is bundled:ast_digits; with the package come bundled:ast_synthetic and bundled:ast_spoken_"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        ASTModelArguments(checkpoint="bundled:ast_digits")


@pytest.mark.unit
@pytest.mark.parametrize("multi_label", [False, True])
def test_random_weights_in_the_sizes_asked_for(multi_label: bool) -> None:
    extractor = load_front_end(SMALL, FeatureArguments(num_mel_bins=24))
    extractor.max_length = 40
    model = build_ast(SMALL, extractor, ["a", "b"], multi_label=multi_label, seed=3)
    config: Any = model.config
    assert [getattr(config, name) for name in SIZES] == list(SIZES.values())
    assert (config.intermediate_size, config.num_mel_bins, config.max_length) == (64, 24, 40)
    assert (config.time_stride, config.frequency_stride) == (4, 8)
    assert config.problem_type == f"{'multi' if multi_label else 'single'}_label_classification"
    assert config.id2label == {0: "a", 1: "b"}
    assert model(torch.zeros(1, 40, 24)).logits.shape == (1, 2)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("features", "longest", "expected"),
    [
        ({}, 37, 40),  # 8 frames of a patch and 8 steps of 4
        ({}, 40, 40),
        ({}, 41, 44),
        ({}, 3, 8),
        ({}, 4000, 1024),
        ({"seconds": 0.5}, 37, 48),  # 48 frames lie within 0.5 s
        ({"max_length": 33}, 4000, 33),
    ],
)
def test_the_length_covers_the_longest_clip(features: dict[str, Any], longest: int, expected: int) -> None:
    assert model_length(SMALL, FeatureArguments(**features), 16_000, lambda: longest) == expected


@pytest.mark.unit
def test_a_checkpoint_brings_its_front_end_and_weights(checkpoint: str) -> None:
    arguments = ASTModelArguments(checkpoint=checkpoint, hidden_dropout=0.25)
    extractor = load_front_end(arguments, FeatureArguments())
    assert (extractor.num_mel_bins, extractor.mean, extractor.std) == (64, -1.5, 2.5)
    own = load_front_end(arguments, FeatureArguments(mean=-4.0, std=3.0))
    assert (own.mean, own.std, own.sampling_rate) == (-4.0, 3.0, 16000)
    assert load_front_end(arguments, FeatureArguments(sampling_rate=8000)).sampling_rate == 8000
    assert model_length(arguments, FeatureArguments(), 16_000, lambda: 40) == 43  # 8 frames of a patch and 7 steps of 5
    extractor.max_length = 43
    model = build_ast(arguments, extractor, ["a", "b", "c"], multi_label=False, seed=0)
    layers = tiny_ast(num_labels=4).audio_spectrogram_transformer.layers
    assert model.config.hidden_dropout_prob == 0.25
    assert model.config.max_length == 43
    assert len(model.audio_spectrogram_transformer.layers) == len(layers)
    kept = build_ast(arguments, extractor, ["LABEL_2", "new"], multi_label=False, seed=0).state_dict()
    rows = ASTModelArguments(checkpoint=checkpoint, keep_labels=True)
    known = build_ast(rows, extractor, ["LABEL_2", "new"], multi_label=False, seed=0).state_dict()
    differing = {name for name, weight in kept.items() if not torch.equal(weight, known[name])}
    assert {name.partition(".")[0] for name in differing} == {"classifier"}


@pytest.mark.unit
def test_a_model_of_images_starts_an_ast_with_the_front_end_of_ast(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**sizes, image_size=96, patch_size=8), add_pooling_layer=False).save_pretrained(tmp_path)
    arguments = ASTModelArguments(checkpoint=str(tmp_path), time_stride=8)
    extractor = load_front_end(arguments, FeatureArguments())
    assert (extractor.num_mel_bins, extractor.mean) == (128, ASTFeatureExtractor().mean)
    extractor.max_length = model_length(arguments, FeatureArguments(), 16_000, lambda: 50)
    assert extractor.max_length == 56
    model = build_ast(arguments, extractor, ["a", "b"], multi_label=False, seed=0)
    assert model(torch.zeros(1, 56, 128)).logits.shape == (1, 2)
    with pytest.raises(ValueError, match=r"model.keep_labels is true and model.checkpoint .* a vit, of images"):
        build_ast(
            ASTModelArguments(checkpoint=str(tmp_path), keep_labels=True), extractor, ["a"], multi_label=False, seed=0
        )


@pytest.mark.fault
def test_what_does_not_go_together() -> None:
    with pytest.raises(ValueError, match=r"take nothing from a checkpoint. Add --model.checkpoint null"):
        ASTModelArguments(random_weights=True, checkpoint="x")
    with pytest.raises(ValueError, match=r"model.patch_size is 8; a checkpoint has its own sizes"):
        ASTModelArguments(patch_size=8)
    with pytest.raises(ValueError, match=r"features.seconds is 1.0 and features.max_length 100; give one of the two"):
        FeatureArguments(seconds=1.0, max_length=100)
    with pytest.raises(ValueError, match=r"model.num_attention_heads is 5 and model.hidden_size 96; the heads"):
        ASTModelArguments(random_weights=True, hidden_size=96, num_attention_heads=5)
    with pytest.raises(ValueError, match=r"model.num_attention_heads is 7 and model.hidden_size 768"):
        ASTModelArguments(random_weights=True, num_attention_heads=7)
    with pytest.raises(ValueError, match=r"model.patch_size is 0; it must be at least 1"):
        ASTModelArguments(random_weights=True, patch_size=0)
    with pytest.raises(ValueError, match=r"features.sampling_rate is 8; it must be at least 2000 Hz"):
        FeatureArguments(sampling_rate=8)
    for mean, std in ((1.0, None), (None, 1.0), (1.0, 0.0)):
        with pytest.raises(ValueError, match="give both, std above 0"):
            FeatureArguments(mean=mean, std=std)


@pytest.mark.fault
def test_a_checkpoint_that_cannot_be_had_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match=rf"{DEFAULT_CHECKPOINT}: there is no such folder (?s:.*)random_weights true"):
        load_front_end(ASTModelArguments(), FeatureArguments())
    monkeypatch.chdir(tmp_path)
    own = ["ast_esc10", "--model.checkpoint", "./runs/ast_synthetic"]
    preset = parse_config(FinetuneASTArguments, own, description="")
    with pytest.raises(OSError, match=r"runs/ast_synthetic: (?s:.*)run it first: hf-audioformer finetune-ast ast_s"):
        load_front_end(preset.model, preset.features)
    (tmp_path / "runs" / "ast_synthetic").mkdir(parents=True)
    with pytest.raises(OSError, match=r"has no config.json(?s:.*)--resume true if it was stopped"):
        load_front_end(preset.model, preset.features)
