"""AudioFormer and `transformers.RoFormerModel` hold the same network: weights convert both ways, outputs are equal."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import RoFormerConfig, RoFormerModel
from transformers.models.roformer.modeling_roformer import RoFormerSelfAttention, RoFormerSinusoidalPositionalEmbedding

from conversion.convert_roformer import audioformer_from_roformer, main, roformer_from_audioformer, verify
from hf_audioformer import AudioFormerConfig, AudioFormerModel
from hf_audioformer.models.audioformer.modeling_audioformer import AudioFormerRotaryEmbedding, rotate_pairs

pytestmark = pytest.mark.reference

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}


def roformer(**settings: Any) -> RoFormerModel:
    config = RoFormerConfig(**({"vocab_size": 68, "embedding_size": 48, "initializer_range": 0.1} | SIZES | settings))
    return RoFormerModel(config).eval()


def audioformer(**settings: Any) -> AudioFormerModel:
    return AudioFormerModel(AudioFormerConfig(**({"codebook_size": 64, "initializer_range": 0.1} | SIZES | settings)))


@torch.no_grad()
def assert_equal_outputs(first: torch.nn.Module, second: torch.nn.Module) -> None:
    codes = torch.randint(64, (2, 200))
    mask = torch.ones_like(codes)
    mask[0, 150:] = 0
    found = first(codes, attention_mask=mask).last_hidden_state[mask.bool()]
    expected = second(codes, attention_mask=mask).last_hidden_state[mask.bool()]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert verify(first, second) < 1e-5


def test_outputs_of_a_converted_roformer_are_equal():
    source = roformer()
    assert_equal_outputs(audioformer_from_roformer(source), source)


def test_outputs_of_a_converted_audioformer_are_equal():
    source = audioformer().eval()
    assert_equal_outputs(roformer_from_audioformer(source), source)


def test_there_and_back_changes_no_weight():
    source = audioformer()
    there_and_back = audioformer_from_roformer(roformer_from_audioformer(source))
    torch.testing.assert_close(there_and_back.state_dict(), source.state_dict(), atol=0, rtol=0)
    assert there_and_back.config.to_dict() == source.config.to_dict()


def test_rotary_positions_are_roformers():
    config = AudioFormerConfig(**SIZES)
    query, key = torch.randn(2, 1, 4, 300, 12)
    ours = [rotate_pairs(states, AudioFormerRotaryEmbedding(config)(torch.empty(1, 300))) for states in (query, key)]
    table = RoFormerSinusoidalPositionalEmbedding(300, 12).create_weight()
    theirs = RoFormerSelfAttention.apply_rotary_position_embeddings(table[None, None], query, key)
    products = [query_ @ key_.transpose(2, 3) for query_, key_ in (ours, theirs)]
    torch.testing.assert_close(products[0], products[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"rotary_value": True}, {"is_decoder": True}, {"embedding_size": 24}])
def test_roformers_of_another_kind_are_refused(settings):
    with pytest.raises(ValueError, match="allowed are False, False and equal sizes"):
        audioformer_from_roformer(roformer(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"norm_position": "pre"},
        {"num_codebooks": 2, "fusion": "sum"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ],
)
def test_audioformers_of_another_kind_are_refused(settings):
    with pytest.raises(ValueError, match='RoFormer has "post", 1 and 10000'):
        roformer_from_audioformer(audioformer(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"sliding_window": 400},  # more than the codes that are compared
        {"position_embedding_type": "learned"},
        {"front_end": "patches", "num_features": 8, "patch_size": (4, 4)},
    ],
)
def test_audioformers_with_other_attention_or_inputs_are_refused(settings):
    with pytest.raises(ValueError, match="RoFormer reads codes, with rotary positions and full attention"):
        roformer_from_audioformer(audioformer(**settings))


def test_unequal_networks_are_noticed():
    source = roformer()
    target = audioformer_from_roformer(source)
    assert verify(target, source) < 1e-5
    with torch.no_grad():
        target.layers[2].attention.value.bias.add_(0.1)
    with pytest.raises(ValueError, match=r"outputs differ by .*, more than 1e-05: nothing is written"):
        verify(target, source)


@pytest.mark.cli
def test_command_converts_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    source, target = tmp_path / "roformer", tmp_path / "audioformer"
    roformer().save_pretrained(source)
    monkeypatch.setattr(sys, "argv", ["convert_roformer.py", str(source), str(target)])
    main()
    found = re.search(r"outputs: (\S+)", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) < 1e-5
    assert_equal_outputs(AudioFormerModel.from_pretrained(target), RoFormerModel.from_pretrained(source))
