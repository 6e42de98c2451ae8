"""Networks of one codebook each, made companions, give the vectors that they gave on their own codebooks."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import RoFormerConfig, RoFormerModel

from conversion.convert_companions import check_sizes, companion_of, main, verify
from hf_audioformer import AudioFormerModel
from hf_audioformer.codes.companions import load_companions, num_codebooks_read, pool_companions

from ..fixtures_recipes import save_companion, tiny_config

pytestmark = pytest.mark.reference


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """An AudioFormer of masked modelling, a RoFormer, and an AudioFormer that reads the first codebook as well."""
    roformer = RoFormerConfig(
        vocab_size=68,
        embedding_size=32,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.3,
    )
    RoFormerModel(roformer).save_pretrained(tmp_path / "roformer")
    first, third = (save_companion(tmp_path / name, 0) for name in ("first", "third"))
    return [first, str(tmp_path / "roformer"), third]


@torch.no_grad()
def test_command_makes_companions(
    sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / "target"
    monkeypatch.setattr(sys, "argv", ["convert_companions", *sources, str(target)])
    main()
    assert "largest difference of outputs: " in capsys.readouterr().out
    networks = load_companions([str(target / name) for name in ("c2", "c3")], codebook_size=64, hidden_size=32)
    assert num_codebooks_read(networks) == 3
    codes = torch.randint(64, (2, 30, 3))
    vectors = pool_companions(networks, codes, torch.ones(2, 30, dtype=torch.long))
    originals = [RoFormerModel.from_pretrained(sources[1]), AudioFormerModel.from_pretrained(sources[2])]
    expected = [model.eval()(codes[..., 1 + index]).last_hidden_state.mean(1) for index, model in enumerate(originals)]
    torch.testing.assert_close(vectors, torch.stack(expected, dim=1), atol=1e-5, rtol=1e-5)


def test_a_network_of_another_codebook_is_noticed(sources: list[str]) -> None:
    networks, originals = zip(*(companion_of(source, index) for index, source in enumerate(sources)), strict=True)
    assert verify(networks, originals) <= 1e-5
    networks[2].embeddings.codebook_index = 0
    with pytest.raises(ValueError, match=r"outputs differ from the sources' by .*: nothing is written"):
        verify(networks, originals)


def test_networks_that_do_not_fit_are_refused(sources: list[str], tmp_path: Path) -> None:
    wide = save_companion(tmp_path / "wide", 0, hidden_size=48)
    networks = [companion_of(source, 0)[0] for source in (sources[0], wide)]
    with pytest.raises(ValueError, match=r"wide: hidden_size is 48, but that of .*first is 32; all must agree"):
        check_sizes(networks, [sources[0], wide])
    AudioFormerModel(tiny_config()).save_pretrained(tmp_path / "both")
    with pytest.raises(ValueError, match="both: reads 2 codebooks; companions read one each"):
        companion_of(str(tmp_path / "both"), 0)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match='model_type is "vit"; allowed are audioformer, roformer'):
        companion_of(str(tmp_path), 0)
