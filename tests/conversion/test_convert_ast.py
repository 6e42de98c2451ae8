"""A converted official AST gives the official logits; the official network is rewritten here as modules."""

import csv
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from conversion.convert_ast import (
    ast_config,
    ast_from_official,
    feature_extractor,
    main,
    read_label_names,
    read_official_weights,
    verify,
)
from hf_audioformer import load_ast

pytestmark = pytest.mark.reference

HIDDEN_SIZE, LAYERS = 128, 2


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(HIDDEN_SIZE, 3 * HIDDEN_SIZE), nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, HIDDEN_SIZE // 64, 64).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*qkv)
        return self.proj(attended.transpose(1, 2).reshape(batch, tokens, HIDDEN_SIZE))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(HIDDEN_SIZE, 96), nn.Linear(96, HIDDEN_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(HIDDEN_SIZE, eps=1e-6), nn.LayerNorm(HIDDEN_SIZE, eps=1e-6)
        self.attn, self.mlp = Attention(), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DistilledVisionTransformer(nn.Module):
    """timm's, as the official AST holds it, with the heads for images that it does not use."""

    def __init__(self, strides: tuple[int, int], num_patches: int) -> None:
        super().__init__()
        self.cls_token, self.dist_token = (nn.Parameter(torch.zeros(1, 1, HIDDEN_SIZE)) for _ in range(2))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_patches + 2, HIDDEN_SIZE))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, HIDDEN_SIZE, 16, stride=strides)})
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(HIDDEN_SIZE, eps=1e-6)
        self.head, self.head_dist = nn.Linear(HIDDEN_SIZE, 10), nn.Linear(HIDDEN_SIZE, 10)


class OfficialAST(nn.Module):
    """The official `ASTModel` without pretraining; its input is (batch, frames, 128)."""

    def __init__(self, num_labels: int, strides: tuple[int, int] = (10, 10), frames: int = 1024) -> None:
        super().__init__()
        num_patches = ((128 - 16) // strides[0] + 1) * ((frames - 16) // strides[1] + 1)
        self.v = DistilledVisionTransformer(strides, num_patches)
        self.mlp_head = nn.Sequential(nn.LayerNorm(HIDDEN_SIZE), nn.Linear(HIDDEN_SIZE, num_labels))
        for name, weight in self.named_parameters():
            is_norm = name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "mlp_head.0.weight"))
            nn.init.normal_(weight, mean=float(is_norm), std=0.1)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        v = self.v
        x = v.patch_embed["proj"](x.unsqueeze(1).transpose(2, 3)).flatten(2).transpose(1, 2)
        tokens = (v.cls_token.expand(len(x), -1, -1), v.dist_token.expand(len(x), -1, -1))
        x = torch.cat((*tokens, x), dim=1) + v.pos_embed
        for block in v.blocks:
            x = block(x)
        x = v.norm(x)
        return self.mlp_head((x[:, 0] + x[:, 1]) / 2)


def official_file(model: nn.Module, folder: Path) -> Path:
    """As the official script saves a model: from within `DataParallel`."""
    path = folder / "audio_model.pth"
    torch.save(nn.DataParallel(model).state_dict(), path)
    return path


def converted(official: OfficialAST, folder: Path, **settings: Any) -> ASTForAudioClassification:
    weights = read_official_weights(official_file(official, folder))
    model = ast_from_official(weights, ast_config(weights, **settings))
    assert verify(model, weights) <= 1e-4
    return model


@torch.no_grad()
def assert_equal_logits(model: nn.Module, official: OfficialAST, frames: int) -> None:
    features = torch.randn(2, frames, 128)
    torch.testing.assert_close(model(features).logits, official(features), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("num_labels", "stride", "frames"),
    [(527, 10, 1024), (527, 12, 1024), (527, 14, 1024), (527, 16, 1024), (50, 10, 512), (35, 10, 128)],
)
def test_official_shapes_are_found_and_give_equal_logits(
    tmp_path: Path, num_labels: int, stride: int, frames: int
) -> None:
    official = OfficialAST(num_labels, (stride, stride), frames)
    model = converted(official, tmp_path)
    config = model.config
    assert (config.frequency_stride, config.time_stride, config.max_length) == (stride, stride, frames)
    assert (config.num_labels, config.num_attention_heads) == (num_labels, 2)
    assert_equal_logits(model, official, frames)


def test_other_shapes_are_given(tmp_path: Path) -> None:
    official = OfficialAST(4, (12, 8), 200)
    assert_equal_logits(converted(official, tmp_path, strides=(12, 8), max_length=200), official, 200)
    weights = official.state_dict()
    with pytest.raises(ValueError, match=r"240 positions do not fit strides=10, 12, 14 or 16 with max_length=1024"):
        ast_config(weights)
    with pytest.raises(ValueError, match=r"240 positions do not fit strides=\(12, 8\) with max_length=100"):
        ast_config(weights, (12, 8), 100)
    with pytest.raises(ValueError, match="give both or none"):
        ast_config(weights, max_length=200)


def test_plain_state_dict_converts_as_well(tmp_path: Path) -> None:
    official = OfficialAST(35, frames=128)
    torch.save(official.state_dict(), tmp_path / "plain.pth")
    weights = read_official_weights(tmp_path / "plain.pth")
    assert_equal_logits(ast_from_official(weights, ast_config(weights)), official, 128)


def test_converted_checkpoint_adapts_to_other_lengths(tmp_path: Path) -> None:
    """The official start of ESC-50: positions cut to 512 frames, and the body's weights as they were."""
    audioset = OfficialAST(527)
    converted(audioset, tmp_path).save_pretrained(tmp_path / "audioset")
    official = OfficialAST(50, frames=512)
    weights = {name: weight for name, weight in audioset.v.state_dict().items() if name != "pos_embed"}
    grid = audioset.v.pos_embed[:, 2:].transpose(1, 2).reshape(1, HIDDEN_SIZE, 12, 101)
    t_dim = 50
    cut = grid[:, :, :, 50 - int(t_dim / 2) : 50 - int(t_dim / 2) + t_dim].reshape(1, HIDDEN_SIZE, 600).transpose(1, 2)
    weights["pos_embed"] = torch.cat([audioset.v.pos_embed[:, :2], cut], dim=1)
    official.v.load_state_dict(weights)
    adapted = load_ast(str(tmp_path / "audioset"), num_labels=50, max_length=512)
    adapted.classifier.layernorm.load_state_dict(official.mlp_head[0].state_dict())
    adapted.classifier.dense.load_state_dict(official.mlp_head[1].state_dict())
    assert_equal_logits(adapted, official, 512)


def test_a_wrong_weight_is_noticed() -> None:
    weights = {name: w for name, w in OfficialAST(35, frames=128).state_dict().items() if not name.startswith("v.head")}
    model = ast_from_official(weights, ast_config(weights))
    assert verify(model, weights) <= 1e-4
    with torch.no_grad():
        model.audio_spectrogram_transformer.layers[1].attention.k_proj.weight.neg_()
    with pytest.raises(ValueError, match=r"logits differ from the official network's by .*: nothing is written"):
        verify(model, weights)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.fault
@pytest.mark.parametrize("save", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data, protocol=2))])
def test_malicious_file_is_refused_and_does_nothing(tmp_path: Path, save: Any) -> None:
    trace = tmp_path / "trace"
    save({"v.pos_embed": Malicious(trace)}, tmp_path / "malicious.pth")
    with pytest.raises(ValueError, match="not a whole file of plain tensors; it is refused"):
        read_official_weights(tmp_path / "malicious.pth")
    assert not trace.exists()
    if save is torch.save:
        torch.load(tmp_path / "malicious.pth", weights_only=False)
        assert trace.exists(), "the file would have done harm"


@pytest.mark.fault
def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = official_file(OfficialAST(35, frames=128), tmp_path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(ValueError, match="not a whole file"):
        read_official_weights(path)
    torch.save({"model": {"v.pos_embed": torch.zeros(1)}, "epoch": 3}, path)
    with pytest.raises(ValueError, match="something else than tensors by name"):
        read_official_weights(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such file"):
        read_official_weights(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="no official AST"):
        ast_config({"conv.weight": torch.zeros(1)})


def test_missing_and_unknown_weights_are_refused() -> None:
    weights = OfficialAST(35, frames=128).state_dict()
    config = ast_config(weights)
    with pytest.raises(ValueError, match=r"(?s)weights of another network.*Unexpected.*v\.head\.weight"):
        ast_from_official(weights, config)
    weights = {name: w for name, w in weights.items() if not name.startswith("v.head")}
    del weights["v.blocks.1.norm2.bias"]
    with pytest.raises(ValueError, match=r"(?s)weights of another network.*Missing.*layers\.1\.layernorm_after\.bias"):
        ast_from_official(weights, config)


def test_statistics_are_known_or_given() -> None:
    weights = OfficialAST(7, frames=128).state_dict()
    with pytest.raises(ValueError, match=r"for 7 classes, only for \[35, 50, 527\]: give --mean and --std"):
        feature_extractor(ast_config(weights), -4.0, None)
    extractor = feature_extractor(ast_config(weights), -4.0, 3.0)
    assert (extractor.mean, extractor.std, extractor.max_length) == (-4.0, 3.0, 128)


@pytest.mark.cli
def test_command_converts_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    official = OfficialAST(35, frames=128)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "mid", "display_name"])
        writer.writerows([row, f"/m/{row}", f"word, {row}"] for row in range(35))
    words = [official_file(official, tmp_path), tmp_path / "target", "--labels", tmp_path / "labels.csv"]
    monkeypatch.setattr(sys, "argv", ["convert_ast.py", *map(str, words)])
    main()
    printed = capsys.readouterr().out
    assert float(re.search(r"largest difference of logits: (\S+)", printed)[1]) <= 1e-4
    model = ASTForAudioClassification.from_pretrained(tmp_path / "target")
    assert model.config.id2label[34] == "word, 34"
    assert_equal_logits(model, official, 128)
    extractor = ASTFeatureExtractor.from_pretrained(tmp_path / "target")
    assert (extractor.mean, extractor.std, extractor.max_length) == (-6.845978, 5.5654526, 128)
    with pytest.raises(ValueError, match="35 classes, but the head has 527"):
        read_label_names(tmp_path / "labels.csv", 527)


@pytest.mark.cli
def test_help_says_where_the_weights_come_from(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["convert_ast.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr().out
    assert "github.com/YuanGongND/ast" in printed
    assert "BSD 3-Clause" in printed
    assert "--no-verify" in printed
