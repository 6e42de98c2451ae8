"""Frozen weights stay as they are bit for bit, LoRA ends in a stock model with equal logits, and both resume."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ASTForAudioClassification

from hf_audioformer import AudioFormerForAudioClassification
from hf_audioformer.audio.ast_features import ASTLogMelFeatureExtractor
from hf_audioformer.training.adaptation import AdaptationArguments, adapt, add_lora, freeze_body, merge_lora
from hf_audioformer.training.averaging import AveragingArguments
from hf_audioformer.training.checkpoints import save_final
from hf_audioformer.training.optimization import OptimizationArguments
from hf_audioformer.training.trainer import AudioTrainer

from ..fixtures_recipes import tiny_config
from .tiny_ast import assert_equal_bits, log_of, make_clips, make_model, make_trainer, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")

BODY = "audio_spectrogram_transformer."
LORA = AdaptationArguments(kind="lora", lora_rank=2, lora_alpha=8, lora_dropout=0.2)


def head_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in weights.items() if not name.startswith(BODY)}


def body_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in weights.items() if name.startswith(BODY) and "lora_" not in name}


@pytest.mark.invariant
@pytest.mark.parametrize("kind", ["head", "lora"])
def test_frozen_weights_are_bit_equal_and_all_others_learn(tmp_path: Path, kind: Any) -> None:
    """With weight decay and a decay of all weights, which would change a weight without a gradient too."""
    model = make_model()
    adapt(model, AdaptationArguments(kind=kind))
    before = weights_of(model)
    chosen = {"weight_decay": 0.5, "max_steps": 3}
    make_trainer(tmp_path, model, chosen=chosen, optimization=OptimizationArguments(decay_all=True)).train()
    after = weights_of(model)
    assert_equal_bits(body_of(after), body_of(before))
    learning = before.keys() - body_of(before).keys()
    assert learning == {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(not torch.equal(after[name], before[name]) for name in learning)


@pytest.mark.unit
def test_a_frozen_body_has_no_dropout_and_the_head_of_the_audioformer_keeps_its_own(tmp_path: Path) -> None:
    settings = {"hidden_dropout": 0.5, "attention_dropout": 0.5, "classifier_dropout": 0.5}
    model = AudioFormerForAudioClassification(tiny_config(num_labels=2, **settings))
    codes = torch.zeros(2, 10, 2, dtype=torch.long)
    freeze_body(model)
    model.train()
    bodies = [model.audioformer(codes).last_hidden_state for _ in range(2)]
    assert torch.equal(*bodies)
    assert not bodies[0].requires_grad
    model.train()
    first, second = (model(codes).logits for _ in range(2))
    assert not torch.equal(first, second)
    assert model.training


@pytest.mark.invariant
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_lora_starts_as_the_model_was_and_ends_as_a_stock_one(tmp_path: Path, dropout: float) -> None:
    model, clips = make_model(hidden_dropout_prob=0.0), torch.stack([c["input_values"] for c in make_clips([0, 1])])
    names = weights_of(model).keys()
    expected = model.eval()(clips).logits
    generator = torch.get_rng_state()
    add_lora(model, rank=2, alpha=8, dropout=dropout, targets=["q_proj", "fc2"])
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(model.eval()(clips).logits, expected)

    trainer = make_trainer(tmp_path / "run", model, chosen={"max_steps": 4})
    trainer.train()
    trained = model.eval()(clips).logits
    assert (trained - expected).abs().min() > 1e-3
    low_rank = {name: weight for name, weight in weights_of(model).items() if "lora_" in name}
    assert len(low_rank) == 8  # A and B of two layers' two
    merge_lora(model)
    assert weights_of(model).keys() == names
    torch.testing.assert_close(model.eval()(clips).logits, trained, atol=1e-5, rtol=1e-5)
    save_final(model, ASTLogMelFeatureExtractor(num_mel_bins=8, max_length=16), tmp_path / "final")
    stock = ASTForAudioClassification.from_pretrained(tmp_path / "final")
    assert torch.equal(stock(clips).logits, model(clips).logits)
    assert {path.name for path in (tmp_path / "final").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


@pytest.mark.reference
def test_merging_adds_alpha_over_rank_times_b_a() -> None:
    model = make_model()
    before = weights_of(model)
    add_lora(model, rank=2, alpha=8)
    layer = model.audio_spectrogram_transformer.layers[1].attention.v_proj
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
    change = 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merge_lora(model)
    name = BODY + "layers.1.attention.v_proj.weight"
    after = weights_of(model)
    torch.testing.assert_close(after.pop(name), before.pop(name) + change)
    assert_equal_bits(after, before)
    merge_lora(model)  # which has none any more
    assert_equal_bits({name: weight for name, weight in weights_of(model).items() if name in before}, before)


@pytest.mark.invariant
@pytest.mark.parametrize("arguments", [AdaptationArguments(kind="head"), LORA], ids=["head", "lora"])
def test_resumed_within_an_epoch_it_ends_as_if_unbroken(tmp_path: Path, arguments: AdaptationArguments) -> None:
    chosen = {"save_strategy": "steps", "save_steps": 4}
    averaging = AveragingArguments(kind="ema", decay=0.5)
    trainers = []
    for seed, checkpoint in ((0, None), (1, str(tmp_path / "checkpoint-4"))):
        model = make_model()
        adapt(model, arguments, seed=seed)
        trainer = make_trainer(tmp_path, model, chosen=chosen, averaging=averaging)
        trainer.train(resume_from_checkpoint=checkpoint)
        trainers.append(trainer)
    assert_equal_bits(weights_of(trainers[1].model), weights_of(trainers[0].model))
    assert log_of(trainers[1]) == log_of(trainers[0])


@pytest.mark.invariant
def test_lora_learns_the_same_with_gradient_checkpointing(tmp_path: Path) -> None:
    weights = []
    for checkpointing in (False, True):
        model = make_model(hidden_dropout_prob=0.0)
        add_lora(model)
        chosen = {"max_steps": 2, "activation_checkpointing": checkpointing}
        make_trainer(tmp_path, model, chosen=chosen).train()
        weights.append(weights_of(model))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.unit
def test_lora_of_the_audioformer_changes_query_and_value() -> None:
    model = AudioFormerForAudioClassification(tiny_config(num_labels=2))
    names = weights_of(model).keys()
    add_lora(model)
    changed = {name.split(".lora_")[0].rpartition(".")[2] for name in weights_of(model) if "lora_" in name}
    assert changed == {"query", "value"}
    assert {name for name, weight in model.named_parameters() if weight.requires_grad and "lora_" not in name} == {
        "classifier.weight",
        "classifier.bias",
    }
    merge_lora(model)
    assert weights_of(model).keys() == names


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 0}, "adaptation.lora_rank is 0; it must be at least 1"),
        ({"lora_alpha": 0}, "adaptation.lora_alpha is 0; it must be at least 1"),
        ({"lora_dropout": 1.0}, r"adaptation.lora_dropout is 1.0; it must lie in \[0, 1\)"),
    ],
)
def test_values_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptationArguments(**settings)


@pytest.mark.fault
def test_only_models_with_lora_may_not_be_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    monkeypatch.setattr(AudioTrainer, "_refuse_sharing", lambda self, setting: refused.append(setting))
    model = make_model()
    make_trainer(tmp_path, model, chosen={})
    assert refused == []
    add_lora(model)
    make_trainer(tmp_path, model, chosen={})
    assert refused == ["adaptation.kind is 'lora'"]


@pytest.mark.fault
def test_unknown_layers_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    message = r"no linear layer's name ends in 'query'; adaptation.lora_targets are among \['fc1', 'fc2', 'k_proj'"
    with pytest.raises(ValueError, match=message):
        add_lora(make_model(), targets=["q_proj", "query"])
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'hf_audioformer\[lora\]'"):
        add_lora(make_model())
