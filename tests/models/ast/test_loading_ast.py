"""An AST at another length, stride or set of labels keeps its body; what did not load is an error."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    ASTForAudioClassification,
    ASTModel,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    DeiTModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from hf_audioformer import ast_from_deit, ast_from_vit, load_ast, new_ast
from hf_audioformer.models.ast.positions_ast import patch_grid, resize_positions

from .tiny_ast import random_features, randomize, saved, tiny_ast, tiny_ast_config

POSITIONS = "audio_spectrogram_transformer.embeddings.position_embeddings"
IMAGE_SIZES = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37},
    **{"patch_size": 8, "image_size": 8 * 24},
}
PLAIN_LOGITS = """
import sys, torch
from transformers import AutoModelForAudioClassification
model = AutoModelForAudioClassification.from_pretrained(sys.argv[1])
with torch.no_grad():
    logits = model.eval()(torch.load(sys.argv[2], weights_only=True)).logits
assert not any(name.startswith("hf_audioformer") for name in sys.modules)
torch.save(logits, sys.argv[3])
"""


@torch.no_grad()
def logits_of(model: ASTForAudioClassification) -> torch.Tensor:
    return model(random_features(model)).logits


def body_of(model: ASTForAudioClassification) -> dict[str, torch.Tensor]:
    return {name: w for name, w in model.state_dict().items() if name != POSITIONS and "classifier" not in name}


def distilled(folder: Path, **settings: Any) -> tuple[DeiTForImageClassificationWithTeacher, str]:
    model = randomize(DeiTForImageClassificationWithTeacher(DeiTConfig(**(IMAGE_SIZES | settings))))
    return model, saved(model, folder)


def damage_weights(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.invariant
def test_unchanged_settings_change_nothing(tmp_path: Path) -> None:
    source = tiny_ast()
    loaded = load_ast(saved(source, tmp_path))
    torch.testing.assert_close(loaded.state_dict(), source.state_dict(), atol=0, rtol=0)
    assert type(loaded) is ASTForAudioClassification
    assert not loaded.training
    assert all(weight.requires_grad for weight in loaded.parameters())
    assert torch.equal(logits_of(loaded), logits_of(source))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("settings", "grid"),
    [
        ({"max_length": 255}, (12, 50)),
        ({"max_length": 1020}, (12, 203)),
        ({"seconds": 1.0}, (12, 19)),
        ({"time_stride": 8, "frequency_stride": 8}, (8, 63)),
        ({"num_mel_bins": 80, "max_length": 128}, (15, 25)),
    ],
)
def test_another_grid_keeps_the_body_and_the_head(tmp_path: Path, settings: dict, grid: tuple[int, int]) -> None:
    source = tiny_ast()
    loaded = load_ast(saved(source, tmp_path), **settings)
    assert patch_grid(loaded.config) == grid
    torch.testing.assert_close(body_of(loaded), body_of(source), atol=0, rtol=0)
    torch.testing.assert_close(loaded.classifier.state_dict(), source.classifier.state_dict(), atol=0, rtol=0)
    expected = resize_positions(source.state_dict()[POSITIONS], (12, 101), grid)
    assert torch.equal(loaded.state_dict()[POSITIONS], expected)
    assert logits_of(loaded).shape == (2, 2)


@pytest.mark.reference
def test_middle_of_a_clip_is_embedded_as_it_was_within_the_whole(tmp_path: Path) -> None:
    source = tiny_ast()
    embeddings = source.audio_spectrogram_transformer.embeddings
    loaded = load_ast(saved(source, tmp_path), max_length=255).audio_spectrogram_transformer.embeddings
    features = random_features(source)
    start = (50 - 25) * 5  # the first frame of the middle 50 of 101 patches
    with torch.no_grad():
        whole = embeddings(features)[:, 2:].unflatten(1, (12, 101))[:, :, 25:75]
        cut = loaded(features[:, start : start + 255])[:, 2:].unflatten(1, (12, 50))
    torch.testing.assert_close(cut, whole)


@pytest.mark.unit
def test_new_labels_renew_the_head_only(tmp_path: Path) -> None:
    source = tiny_ast(num_labels=5, problem_type="multi_label_classification")
    folder = saved(source, tmp_path)
    loaded = load_ast(folder, label_names=["dog", "rain", "siren"])
    torch.testing.assert_close(body_of(loaded), body_of(source), atol=0, rtol=0)
    assert loaded.config.id2label == {0: "dog", 1: "rain", 2: "siren"}
    assert loaded.config.label2id == {"dog": 0, "rain": 1, "siren": 2}
    assert loaded.config.problem_type is None
    assert loaded.num_labels == 3
    assert torch.equal(loaded.classifier.layernorm.weight, torch.ones(32))
    assert torch.equal(loaded.classifier.dense.bias, torch.zeros(3))
    assert load_ast(folder, num_labels=7).config.id2label[6] == "LABEL_6"


@pytest.mark.invariant
def test_new_head_depends_on_the_seed_alone(tmp_path: Path) -> None:
    folder = saved(tiny_ast(), tmp_path)
    before = torch.get_rng_state()
    first = load_ast(folder, num_labels=3, seed=5).classifier.dense.weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(load_ast(folder, num_labels=3, seed=5).classifier.dense.weight, first)
    assert not torch.equal(load_ast(folder, num_labels=3, seed=6).classifier.dense.weight, first)


@pytest.mark.unit
def test_rows_of_known_labels_are_kept(tmp_path: Path) -> None:
    names = ["rain", "dog", "cat"]
    source = tiny_ast(id2label=dict(enumerate(names)), label2id={name: row for row, name in enumerate(names)})
    folder = saved(source, tmp_path)
    loaded = load_ast(folder, label_names=["dog", "siren", "rain"], keep_labels=True)
    assert torch.equal(logits_of(loaded)[:, [2, 0]], logits_of(source)[:, [0, 1]])
    assert not logits_of(loaded)[:, 1].eq(0).any()
    with pytest.raises(ValueError, match=r"none of \['siren'\] is a class of the checkpoint.*'rain', 'dog', 'cat'"):
        load_ast(folder, label_names=["siren"], keep_labels=True)


@pytest.mark.unit
@pytest.mark.parametrize("settings", [{"num_labels": 0}, {"label_names": ["a", "a"]}, {"label_names": []}])
def test_impossible_labels_are_refused(tmp_path: Path, settings: dict) -> None:
    with pytest.raises(ValueError, match="at least one class, and no name twice"):
        load_ast(saved(tiny_ast(), tmp_path), **settings)


@pytest.mark.unit
def test_settings_that_contradict_are_refused(tmp_path: Path) -> None:
    folder = saved(tiny_ast(), tmp_path)
    with pytest.raises(ValueError, match=r"max_length=100 and seconds=1.0: give one of the two"):
        load_ast(folder, max_length=100, seconds=1.0)
    with pytest.raises(ValueError, match="num_labels=2 with label_names"):
        load_ast(folder, num_labels=2, label_names=["a", "b", "c"])
    with pytest.raises(TypeError, match="stride"):
        load_ast(folder, stride=3)  # type: ignore[call-arg]


@pytest.mark.reference
def test_saved_checkpoint_loads_in_plain_transformers(tmp_path: Path) -> None:
    source = saved(tiny_ast(), tmp_path / "source")
    model = load_ast(source, seconds=1.0, frequency_stride=8, label_names=["a", "b", "c"])
    adapted = saved(model, tmp_path / "adapted")
    torch.save(random_features(model), tmp_path / "features.pt")
    paths = [adapted, str(tmp_path / "features.pt"), str(tmp_path / "logits.pt")]
    subprocess.run([sys.executable, "-c", PLAIN_LOGITS, *paths], check=True, capture_output=True, cwd=tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), logits_of(model))
    torch.testing.assert_close(load_ast(adapted).state_dict(), model.state_dict(), atol=0, rtol=0)


@pytest.mark.fault
def test_positions_that_transformers_zeroed_are_refused(tmp_path: Path) -> None:
    whole = saved(tiny_ast(), tmp_path / "whole")
    guide = ASTForAudioClassification.from_pretrained(whole, max_length=255, ignore_mismatched_sizes=True)
    assert not guide.state_dict()[POSITIONS].any(), "what the guides' call does"
    with pytest.raises(ValueError, match=r"position embeddings are not finite or the same.*from 0 to 0"):
        load_ast(saved(guide, tmp_path / "zeroed"), num_labels=3)


@pytest.mark.fault
def test_missing_and_misshapen_weights_are_refused(tmp_path: Path) -> None:
    folder = Path(saved(tiny_ast(), tmp_path))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_length": 255}))
    with pytest.raises(ValueError, match=r"1 weights are missing or have another size.*position_embeddings"):
        load_ast(str(folder))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(ValueError, match=r"16 weights have no place in the 1 layers of config.json: .*layers\.1\."):
        load_ast(str(folder))
    (folder / "config.json").write_text(json.dumps(config))
    damage_weights(folder, lambda weights: weights.pop(POSITIONS))
    with pytest.raises(ValueError, match=r"1 weights are missing.*position_embeddings"):
        load_ast(str(folder), num_labels=3)


@pytest.mark.unit
def test_bare_body_needs_labels(tmp_path: Path) -> None:
    body = randomize(ASTModel(tiny_ast_config()))
    folder = saved(body, tmp_path)
    loaded = load_ast(folder, num_labels=3)
    torch.testing.assert_close(loaded.audio_spectrogram_transformer.state_dict(), body.state_dict(), atol=0, rtol=0)
    for settings in ({}, {"label_names": ["a"], "keep_labels": True}):
        with pytest.raises(ValueError, match=r"4 weights are missing.*classifier\.dense\.bias"):
            load_ast(folder, **settings)


@pytest.mark.unit
def test_another_kind_of_model_is_refused_with_its_loader(tmp_path: Path) -> None:
    deit = distilled(tmp_path / "deit")[1]
    with pytest.raises(
        ValueError, match=r'model_type is "deit", not "audio-spectrogram-transformer"; use ast_from_deit'
    ):
        load_ast(deit, num_labels=3)
    with pytest.raises(ValueError, match='model_type is "deit", not "vit"; use ast_from_deit'):
        ast_from_vit(deit, num_labels=3)


@pytest.mark.reference
def test_from_deit_follows_the_official_rule(tmp_path: Path) -> None:
    source, folder = distilled(tmp_path)
    loaded = ast_from_deit(folder, num_labels=3)  # 1024 frames, 128 bands, strides of 10
    image, audio = source.deit.embeddings, loaded.audio_spectrogram_transformer.embeddings
    assert patch_grid(loaded.config) == (13, 102)
    summed = torch.sum(image.patch_embeddings.projection.weight, dim=1).unsqueeze(1)
    assert torch.equal(audio.patch_embeddings.projection.weight, summed)
    assert torch.equal(audio.patch_embeddings.projection.bias, image.patch_embeddings.projection.bias)
    assert torch.equal(audio.cls_token, image.cls_token)
    assert torch.equal(audio.distillation_token, image.distillation_token)
    expected = resize_positions(image.position_embeddings, (24, 24), (13, 102))
    assert torch.equal(audio.position_embeddings, expected)


@pytest.mark.reference
@pytest.mark.parametrize("settings", [{}, {"image_size": (40, 64), "qkv_bias": False, "layer_norm_eps": 1e-6}])
@torch.no_grad()
def test_deits_body_is_asts(tmp_path: Path, settings: dict) -> None:
    """A grey image, read as a spectrogram whose frequency is the height, gives DeiT's states."""
    source, folder = distilled(tmp_path, **settings)
    height, width = source.deit.embeddings.patch_embeddings.image_size
    shape = {"num_mel_bins": height, "max_length": width, "time_stride": 8, "frequency_stride": 8}
    loaded = ast_from_deit(folder, num_labels=3, **shape)
    grey = torch.randn(2, 1, height, width)
    expected = source.deit(grey.expand(-1, 3, -1, -1)).last_hidden_state
    found = loaded.audio_spectrogram_transformer(grey[:, 0].transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.reference
@torch.no_grad()
def test_from_vit_doubles_the_class_token(tmp_path: Path) -> None:
    source = randomize(ViTForImageClassification(ViTConfig(**IMAGE_SIZES)))
    shape = {"num_mel_bins": 192, "max_length": 192, "time_stride": 8, "frequency_stride": 8}
    loaded = ast_from_vit(saved(source, tmp_path), num_labels=3, **shape).audio_spectrogram_transformer
    grey = torch.randn(2, 1, 192, 192)
    image = source.vit.embeddings(grey.expand(-1, 3, -1, -1))
    hidden_states = torch.cat([image[:, :1], image], dim=1)
    for layer in source.vit.layers:
        hidden_states = layer(hidden_states)
    expected = source.vit.layernorm(hidden_states)
    found = loaded(grey[:, 0].transpose(1, 2))
    torch.testing.assert_close(found.last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.pooler_output, expected[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.fault
@pytest.mark.parametrize(("loader", "model"), [(ast_from_deit, DeiTModel), (ast_from_vit, ViTModel)])
def test_images_whose_positions_are_lost_are_refused(tmp_path: Path, loader: Any, model: Any) -> None:
    source = randomize(model(model.config_class(**IMAGE_SIZES), add_pooling_layer=False))
    folder = saved(source, tmp_path)
    damage_weights(tmp_path, lambda weights: weights["embeddings.position_embeddings"].zero_())
    with pytest.raises(ValueError, match="position embeddings are not finite or the same"):
        loader(folder, num_labels=3)
    damage_weights(tmp_path, lambda weights: weights.pop("embeddings.position_embeddings"))
    with pytest.raises(ValueError, match=r"1 weights are missing.*position_embeddings"):
        loader(folder, num_labels=3)


@pytest.mark.unit
def test_images_need_labels_and_square_patches(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give num_labels or label_names"):
        ast_from_deit(distilled(tmp_path / "square")[1])
    with pytest.raises(ValueError, match="its patches are 8 x 16: an AST has square ones"):
        ast_from_deit(distilled(tmp_path / "oblong", patch_size=(8, 16))[1], num_labels=3)


@pytest.mark.unit
def test_a_new_model_has_random_positions_and_tokens_drawn_by_the_seed() -> None:
    state = torch.get_rng_state()
    config = tiny_ast_config(initializer_range=0.02)
    one, same, other = (new_ast(config, seed=seed, label_names=["a", "b"], max_length=200) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not one.training
    assert (one.config.max_length, one.config.id2label) == (200, {0: "a", 1: "b"})
    for name, weight in one.named_parameters():
        assert torch.equal(weight, same.get_parameter(name))
    embeddings, others = (model.audio_spectrogram_transformer.embeddings for model in (one, other))
    positions = embeddings.position_embeddings
    assert positions.shape == (1, 2 + 12 * 39, 32)
    assert positions.abs().max() <= 0.04
    assert positions.std().item() == pytest.approx(0.02 * 0.8796, rel=0.02)  # of a normal cut at two deviations
    for name in ("cls_token", "distillation_token", "position_embeddings"):
        assert getattr(embeddings, name).abs().min() > 0
        assert not torch.equal(getattr(embeddings, name), getattr(others, name))


@pytest.mark.unit
def test_dropout_is_changed_and_checked(tmp_path: Path) -> None:
    source = saved(tiny_ast(), tmp_path)
    model = load_ast(source, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    layer = model.audio_spectrogram_transformer.layers[0]
    assert (layer.dropout.p, layer.attention.attention_dropout) == (0.3, 0.2)
    assert load_ast(source).config.hidden_dropout_prob == 0.0
    with pytest.raises(ValueError, match=r"hidden_dropout_prob=1.0: allowed are numbers from 0 to below 1"):
        load_ast(source, hidden_dropout_prob=1.0)
