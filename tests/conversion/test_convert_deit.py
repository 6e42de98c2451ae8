"""A converted image model hears a grey image as it saw it."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import ASTFeatureExtractor, ASTForAudioClassification, DeiTConfig, DeiTModel, ViTConfig, ViTModel

from conversion import convert_deit
from conversion.convert_deit import main, verify

from ..models.ast.tiny_ast import randomize, saved

pytestmark = pytest.mark.reference

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
IMAGE_SIZES = {**SIZES, "image_size": 48, "patch_size": 8}
MODELS = {"deit": (DeiTModel, DeiTConfig), "vit": (ViTModel, ViTConfig)}


def image_model(kind: str, folder: Path) -> str:
    model, config = MODELS[kind]
    return saved(randomize(model(config(**IMAGE_SIZES), add_pooling_layer=False)), folder / "source")


@pytest.mark.parametrize("kind", MODELS)
def test_command_converts_a_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    source, target = image_model(kind, tmp_path), str(tmp_path / "target")
    options = ["--labels", "dog, rain,sea", "--seconds", "0.5", "--strides", "8", "4", "--mean", "-4", "--std", "3"]
    monkeypatch.setattr(sys, "argv", ["convert_deit", source, target, *options])
    main()
    assert "largest difference of outputs: " in capsys.readouterr().out
    model = ASTForAudioClassification.from_pretrained(target)
    extractor = ASTFeatureExtractor.from_pretrained(target)
    assert list(model.config.id2label.values()) == ["dog", "rain", "sea"]
    assert (model.config.frequency_stride, model.config.time_stride) == (8, 4)
    assert (extractor.max_length, extractor.mean, extractor.std) == (model.config.max_length, -4.0, 3.0)
    features = extractor(torch.randn(8_000).numpy(), sampling_rate=16_000, return_tensors="pt")
    assert model(**features).logits.shape == (1, 3)


@pytest.mark.parametrize("kind", MODELS)
def test_a_wrong_weight_is_noticed(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = image_model(kind, tmp_path)
    assert verify(source) <= 1e-4
    body, convert = convert_deit.KINDS[kind]

    @torch.no_grad()
    def broken(*args: object, **settings: object) -> ASTForAudioClassification:
        model = convert(*args, **settings)
        model.audio_spectrogram_transformer.layers[1].attention.k_proj.weight.neg_()
        return model

    monkeypatch.setitem(convert_deit.KINDS, kind, (body, broken))
    with pytest.raises(ValueError, match=r"outputs differ from the image model's by .*: nothing is written"):
        verify(source)


def test_one_statistic_alone_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["convert_deit", "deit", "ast", "--labels", "a", "--seconds", "1", "--mean", "-4"])
    with pytest.raises(SystemExit):
        main()
    assert "--mean is -4.0 and --std None; give both or none" in capsys.readouterr().err


def test_other_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "roformer"}')
    with pytest.raises(ValueError, match='model_type is "roformer"; allowed are deit, vit'):
        verify(str(tmp_path))
