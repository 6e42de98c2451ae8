"""Learning rates by layer and by epoch, against tables; and a Trainer that uses them, resumed as well."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_audioformer import AudioFormerForAudioClassification
from hf_audioformer.training.checkpoints import newest_complete_checkpoint
from hf_audioformer.training.optimization import OptimizationArguments, decays, learning_rate_factors, step_schedule

from ..fixtures_recipes import tiny_config
from .tiny_ast import assert_equal_bits, log_of, make_model, make_trainer, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 40  # an epoch
LAYER_RATES = {"embeddings": 0.25, "layers.0": 0.5, "layers.1": 1.0, "norm": 1.0}


def rates(arguments: OptimizationArguments, rate: float, steps: int, warmup_steps: int = 0) -> list[float]:
    """The learning rate of each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = step_schedule(optimizer, arguments, warmup_steps=warmup_steps, steps_per_epoch=STEPS)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.unit
def test_a_warm_up_that_is_shorter_than_its_updates_rises_each_step() -> None:
    assert rates(OptimizationArguments(schedule="step"), 1e-3, 5, warmup_steps=4) == [0, 2.5e-4, 5e-4, 7.5e-4, 1e-3]


@pytest.mark.reference
@pytest.mark.parametrize(
    ("settings", "rate", "by_epoch"),
    [
        ((2, 1, 0.5), 1e-5, [1e-5, 1e-5, 5e-6, 2.5e-6, 1.25e-6]),
        ((10, 5, 0.5), 5e-5, [5e-5] * 10 + [2.5e-5] * 5 + [1.25e-5] * 5 + [6.25e-6] * 5),
        ((5, 1, 0.85), 1e-5, [1e-5] * 5 + [1e-5 * 0.85**k for k in range(1, 21)]),
    ],
    ids=["AudioSet", "balanced AudioSet", "ESC-50"],
)
def test_official_rates_by_epoch(settings: tuple[int, int, float], rate: float, by_epoch: list[float]) -> None:
    """Source: the official recipe's settings, as tabulated from its run scripts and logs."""
    full_rate_epochs, decay_every, gamma = settings
    arguments = OptimizationArguments(
        schedule="step", full_rate_epochs=full_rate_epochs, decay_every=decay_every, gamma=gamma
    )
    expected = [value for value in by_epoch for _ in range(STEPS)]
    assert rates(arguments, rate, len(expected)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.reference
def test_the_official_warm_up_is_a_staircase_from_zero() -> None:
    """Against the official loop: `if global_step <= 1000 and global_step % 50 == 0: lr = global_step / 1000 * lr0`."""
    expected, rate = [], 1e-5
    for global_step in range(1200):
        if global_step <= 1000 and global_step % 50 == 0:
            rate = global_step / 1000 * 1e-5
        expected.append(rate)
    arguments = OptimizationArguments(schedule="step", full_rate_epochs=1000)
    found = rates(arguments, 1e-5, 1200, warmup_steps=1000)
    assert found == pytest.approx(expected, rel=1e-12)
    assert [found[step] for step in (0, 49, 50, 999, 1000)] == pytest.approx([0, 0, 5e-7, 9.5e-6, 1e-5])


@pytest.mark.unit
def test_decays_within_the_warm_up_hold() -> None:
    arguments = OptimizationArguments(schedule="step", full_rate_epochs=1, gamma=0.5, warmup_update_every=20)
    found = rates(arguments, 1.0, 3 * STEPS, warmup_steps=80)
    assert found[::20] == pytest.approx([0, 0.25, 0.25, 0.375, 0.25, 0.25])


def classifier() -> AudioFormerForAudioClassification:
    return AudioFormerForAudioClassification(tiny_config(num_labels=2, num_hidden_layers=2))


@pytest.mark.unit
@pytest.mark.parametrize("make", [make_model, classifier], ids=["AST", "AudioFormer"])
def test_deeper_layers_learn_more_slowly_in_both_models(make: Any) -> None:
    model = make()
    factors = learning_rate_factors(model, layer_decay=0.5, head_factor=10)
    assert factors.keys() == dict(model.named_parameters()).keys()
    body = model.base_model_prefix + "."
    for name, factor in factors.items():
        part = name.removeprefix(body)
        expected = next((rate for start, rate in LAYER_RATES.items() if start in part), None)
        assert factor == (expected if name.startswith(body) else 10), name
    assert set(factors.values()) == {0.25, 0.5, 1.0, 10}


@pytest.mark.invariant
def test_the_trainer_uses_them_also_after_a_resume_within_an_epoch(tmp_path: Path) -> None:
    settings = OptimizationArguments(
        schedule="step", full_rate_epochs=1, gamma=0.1, warmup_update_every=1, layer_decay=0.5, head_factor=4
    )
    chosen = {"save_strategy": "steps", "save_steps": 4, "logging_strategy": "steps", "logging_steps": 1}
    chosen |= {"learning_rate": 0.01, "weight_decay": 0.3, "warmup_steps": 2}
    unbroken = make_trainer(tmp_path, make_model(), chosen=chosen, optimization=settings)
    unbroken.train()
    logged = [entry["learning_rate"] for entry in log_of(unbroken)]
    assert logged == pytest.approx([0, 0.005, 0.01, *[0.001] * 3, *[0.0001] * 3])
    assert {group["initial_lr"] for group in unbroken.optimizer.param_groups} == {0.0025, 0.005, 0.01, 0.04}

    resumed = make_trainer(tmp_path, make_model(seed=1), chosen=chosen, optimization=settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert log_of(resumed) == log_of(unbroken)
    assert_equal_bits(weights_of(resumed.model), weights_of(unbroken.model))
    assert newest_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


@pytest.mark.invariant
def test_a_step_of_each_group_is_that_of_its_own_rate(tmp_path: Path) -> None:
    """Plain gradient descent: the change of a weight is its rate times its gradient."""
    changes = []
    for settings in (OptimizationArguments(), OptimizationArguments(layer_decay=0.5, head_factor=4)):
        model = make_model(hidden_dropout_prob=0.0)
        before = weights_of(model)
        chosen = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0}
        make_trainer(tmp_path, model, chosen=chosen, optimization=settings).train()
        changes.append({name: weight - before[name] for name, weight in weights_of(model).items()})
    factors = learning_rate_factors(make_model(), layer_decay=0.5, head_factor=4)
    for name, change in changes[0].items():
        torch.testing.assert_close(changes[1][name], factors[name] * change, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.unit
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_norms_biases_positions_and_tokens_do_not_decay_unless_told(tmp_path: Path, layer_decay: float) -> None:
    decayed = {}
    for decay_all in (False, True):
        settings = OptimizationArguments(decay_all=decay_all, layer_decay=layer_decay)
        trainer = make_trainer(tmp_path, make_model(), chosen={"weight_decay": 0.3}, optimization=settings)
        groups = trainer.create_optimizer().param_groups
        assert {group["weight_decay"] for group in groups} <= {0.0, 0.3}
        by_weight = {weight: group["weight_decay"] for group in groups for weight in group["params"]}
        assert len(by_weight) == len(dict(trainer.model.named_parameters()))
        decayed[decay_all] = {name for name, weight in trainer.model.named_parameters() if by_weight[weight]}
    matrices = {name for name, weight in make_model().named_parameters() if weight.dim() == 2 or weight.dim() == 4}
    assert decayed == {False: matrices, True: {name for name, _ in make_model().named_parameters()}}


@pytest.mark.unit
@pytest.mark.parametrize(
    "settings",
    [{"position_embedding_type": "learned"}, {"front_end": "patches", "num_features": 8, "patch_size": (4, 4)}],
    ids=["learned", "patches"],
)
def test_learned_positions_of_an_audioformer_do_not_decay(settings: dict[str, Any]) -> None:
    model = AudioFormerForAudioClassification(tiny_config(**settings))
    kept = {name for name, _ in model.named_parameters() if not decays(name)}
    assert len(kept) == 1
    assert all("position_embeddings" in name or "height_embeddings" in name for name in kept)


@pytest.mark.fault
def test_an_optimizer_that_makes_its_own_groups_is_refused(tmp_path: Path) -> None:
    """As GaLore's is made by Transformers."""
    trainer = make_trainer(
        tmp_path,
        make_model(),
        chosen={},
        optimization=OptimizationArguments(layer_decay=0.5),
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1, "params": []}),
    )
    with pytest.raises(ValueError, match=r"SGD groups the weights by itself; optimization.layer_decay"):
        trainer.create_optimizer()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"full_rate_epochs": 0}, "optimization.full_rate_epochs is 0; it must be at least 1"),
        ({"decay_every": 0}, "optimization.decay_every is 0"),
        ({"warmup_update_every": 0}, "optimization.warmup_update_every is 0"),
        ({"gamma": 1.5}, r"optimization.gamma is 1.5; it must lie in \(0, 1\]"),
        ({"layer_decay": 0.0}, r"optimization.layer_decay is 0.0; it must lie in \(0, 1\]"),
        ({"head_factor": 0.0}, "optimization.head_factor is 0.0; it must be above 0"),
    ],
)
def test_values_out_of_range_are_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizationArguments(**setting)
