"""A halved AST hears as it did, in half the bytes."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from conversion.halve_ast import main, verify

from ..models.ast.tiny_ast import saved, tiny_ast

pytestmark = pytest.mark.reference


def test_command_halves_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = saved(tiny_ast(num_labels=4), tmp_path / "source"), tmp_path / "target"
    ASTFeatureExtractor(mean=-1.5, std=2.5).save_pretrained(source)
    monkeypatch.setattr(sys, "argv", ["halve_ast", source, str(target)])
    main()
    assert "largest difference of logits: " in capsys.readouterr().out
    original = ASTForAudioClassification.from_pretrained(source)
    halved = ASTForAudioClassification.from_pretrained(target)
    before, after = (Path(folder, "model.safetensors").stat().st_size for folder in (source, target))
    assert after < 0.6 * before
    assert halved.dtype == torch.float32
    for name, weight in halved.state_dict().items():
        torch.testing.assert_close(weight, original.state_dict()[name].half().float(), rtol=0, atol=0)
    assert ASTFeatureExtractor.from_pretrained(target).mean == -1.5


def test_a_wrong_weight_is_noticed() -> None:
    original, halved = (tiny_ast(num_labels=4) for _ in range(2))
    halved.load_state_dict(original.state_dict())
    assert verify(halved.half(), original) < 0.01
    with torch.no_grad():
        halved.classifier.dense.weight.neg_()
    with pytest.raises(ValueError, match=r"logits differ from the source's by .*: nothing is written"):
        verify(halved, original)
