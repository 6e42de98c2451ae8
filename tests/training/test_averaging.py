"""Averages equal slow means of the weights along training, survive a resume, and are kept when they are better."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from hf_audioformer.training.averaging import AveragingArguments
from hf_audioformer.training.trainer import AudioTrainer

from .tiny_ast import assert_equal_bits, log_of, make_clips, make_model, make_trainer, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")

Weights = dict[str, torch.Tensor]


class Watch(TrainerCallback):
    """Keeps the weights after each step."""

    def __init__(self) -> None:
        self.seen: list[Weights] = []

    def on_step_end(self, *args: Any, model: torch.nn.Module, **kwargs: Any) -> None:
        self.seen.append({name: weight.double() for name, weight in weights_of(model).items()})


def slow_mean(seen: list[Weights], shares: list[float]) -> Weights:
    total = sum(shares)
    return {name: sum(w[name] * share for w, share in zip(seen, shares, strict=True)) / total for name in seen[0]}


def train(folder: Path, averaging: AveragingArguments, resume: int | None = None, **parts: Any) -> AudioTrainer:
    """Nine steps in three epochs, from the checkpoint of step `resume` if given."""
    chosen = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9} | parts.pop("chosen", {})
    trainer = make_trainer(folder, make_model(resume or 0), chosen=chosen, averaging=averaging, **parts)
    trainer.train(resume_from_checkpoint=None if resume is None else str(folder / f"checkpoint-{resume}"))
    return trainer


@pytest.mark.reference
@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"kind": "epochs"}, [0, 0, 1, 0, 0, 1, 0, 0, 1]),
        ({"kind": "epochs", "from_epoch": 2}, [0, 0, 0, 0, 0, 1, 0, 0, 1]),
        ({"kind": "ema", "decay": 0.9}, [0.9**k for k in range(8, -1, -1)]),
        ({"kind": "ema", "decay": 0.5, "from_epoch": 3}, [0] * 6 + [0.25, 0.5, 1]),
        ({"kind": "ema", "decay": 0.0}, [0] * 8 + [1]),
    ],
)
def test_the_average_is_the_slow_mean(tmp_path: Path, settings: dict[str, Any], shares: list[float]) -> None:
    watch = Watch()
    trainer = train(tmp_path, AveragingArguments(**settings), callbacks=[watch], chosen={"save_strategy": "no"})
    assert len(watch.seen) == 9
    for name, mean in slow_mean(watch.seen, shares).items():
        weight = trainer.model.state_dict()[name]
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight.double(), mean, atol=1e-6, rtol=1e-6, msg=name)
    assert trainer.averaging_result is not None
    assert (trainer.averaging_result.kept, trainer.averaging_result.averaged) == (True, None)


@pytest.mark.reference
def test_the_weights_of_the_start_get_their_share(tmp_path: Path) -> None:
    start = weights_of(make_model())
    settings = {"kind": "ema", "decay": 0.9}
    without = weights_of(train(tmp_path / "without", AveragingArguments(**settings)).model)
    mixed = weights_of(train(tmp_path / "with", AveragingArguments(**settings, start_share=0.25)).model)
    for name, weight in mixed.items():
        torch.testing.assert_close(weight, 0.75 * without[name] + 0.25 * start[name])
        assert not torch.equal(weight, without[name])


@pytest.mark.invariant
@pytest.mark.parametrize(("kind", "start_share"), [("epochs", 0.0), ("ema", 0.0), ("ema", 0.25)])
@pytest.mark.parametrize("step", [5, 6], ids=["within an epoch", "at its end"])
def test_a_resumed_average_equals_an_unbroken_one_bit_for_bit(
    tmp_path: Path, kind: Any, start_share: float, step: int
) -> None:
    averaging = AveragingArguments(kind=kind, decay=0.9, start_share=start_share)
    unbroken = train(tmp_path, averaging)
    plain = train(tmp_path, AveragingArguments())
    assert not torch.equal(unbroken.model.classifier.dense.weight, plain.model.classifier.dense.weight)
    unbroken = train(tmp_path, averaging)  # the checkpoints of `plain` hold none
    resumed = train(tmp_path, averaging, resume=step)
    assert_equal_bits(weights_of(resumed.model), weights_of(unbroken.model))


@pytest.mark.invariant
def test_training_itself_is_the_same_with_and_without(tmp_path: Path) -> None:
    logs = [
        log_of(train(tmp_path, averaging, chosen={"save_strategy": "no", "logging_strategy": "steps"}))
        for averaging in (AveragingArguments(), AveragingArguments(kind="ema"))
    ]
    assert logs[0] == logs[1]


@pytest.mark.unit
@pytest.mark.parametrize("best_epoch", [False, True])
@pytest.mark.parametrize(
    ("keep", "averaged_is_better", "kept"),
    [("better", True, True), ("better", False, False), ("better", None, False), ("always", False, True)],
)
def test_what_scores_higher_is_kept_and_both_scores_are_noted(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    keep: Any,
    averaged_is_better: bool | None,
    kept: bool,
    best_epoch: bool,
) -> None:
    """The training's own best epoch is the second."""
    scores = iter([0.5, 0.7, 0.6, 0.65, {True: 0.9, False: 0.1, None: 0.65}[averaged_is_better]])
    watch = Watch()
    chosen = {"eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "score"}
    trainer = train(
        tmp_path,
        AveragingArguments(kind="epochs", keep=keep),
        chosen=chosen | {"load_best_model_at_end": best_epoch},
        eval_dataset=make_clips([0, 1, 2], seed=1),
        compute_metrics=lambda prediction: {"score": next(scores)},
        callbacks=[watch],
    )
    result = trainer.averaging_result
    assert result is not None
    assert (result.metric, result.plain, result.kept) == ("score", 0.65, kept)
    plain = watch.seen[5 if best_epoch else 8]
    expected = slow_mean(watch.seen[2::3], [1, 1, 1]) if kept else plain
    for name, weight in expected.items():
        torch.testing.assert_close(trainer.model.state_dict()[name].double(), weight, atol=1e-6, rtol=1e-6, msg=name)
    if not kept:
        assert_equal_bits(weights_of(trainer.model), {name: weight.float() for name, weight in plain.items()})
    noted = [entry for entry in trainer.state.log_history if "averaged_score" in entry]
    assert [(entry["plain_score"], entry["averaged_score"], entry["averaged_kept"]) for entry in noted] == [
        (0.65, result.averaged, kept)
    ]
    line = f"averaged weights {'kept' if kept else 'not kept'}: score {result.averaged:.4f}, 0.6500 without"
    assert line in capfd.readouterr().out


@pytest.mark.unit
def test_without_a_metric_the_lower_loss_is_kept(tmp_path: Path) -> None:
    trainer = train(tmp_path, AveragingArguments(kind="ema"), eval_dataset=make_clips([0, 1, 2], seed=1))
    result = trainer.averaging_result
    assert result is not None
    assert result.metric == "loss"
    assert result.kept == (result.averaged < result.plain)
    left = trainer.evaluate()["eval_loss"]
    assert left == pytest.approx(min(result.averaged, result.plain), rel=1e-6)
    assert result.averaged != pytest.approx(result.plain, rel=1e-6)


@pytest.mark.unit
def test_early_stopping_goes_on_working(tmp_path: Path) -> None:
    scores = iter([0.5, 0.4, 0.45, 0.9])
    chosen = {"eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "score"}
    trainer = train(
        tmp_path,
        AveragingArguments(kind="epochs"),
        chosen=chosen | {"load_best_model_at_end": True, "num_train_epochs": 5},
        eval_dataset=make_clips([0, 1, 2], seed=1),
        compute_metrics=lambda prediction: {"score": next(scores)},
        callbacks=[EarlyStoppingCallback(1)],
    )
    assert trainer.state.global_step == 6
    assert trainer.average is not None
    assert trainer.average.count == 2
    assert trainer.averaging_result is not None
    assert trainer.averaging_result.kept


@pytest.mark.fault
def test_training_that_ended_too_early_keeps_its_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()
    trainer = train(
        tmp_path, AveragingArguments(kind="epochs", from_epoch=2), chosen={"max_steps": 4}, callbacks=[watch]
    )
    assert trainer.averaging_result is not None
    assert not trainer.averaging_result.kept
    assert "training ended before averaging.from_epoch 2 was over" in caplog.text
    assert_equal_bits(weights_of(trainer.model), {name: weight.float() for name, weight in watch.seen[-1].items()})


@pytest.mark.fault
def test_settings_that_average_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"averaging.from_epoch is 4, and training.num_train_epochs 3: no weights"):
        train(tmp_path, AveragingArguments(kind="ema", from_epoch=4))
    with pytest.raises(ValueError, match=r"averaging.from_epoch is 0; it must be at least 1"):
        AveragingArguments(from_epoch=0)
    with pytest.raises(ValueError, match=r"averaging.decay is 1.0; it must lie in \[0, 1\)"):
        AveragingArguments(decay=1.0)
    with pytest.raises(ValueError, match=r"averaging.start_share is 1.0; it must lie in \[0, 1\)"):
        AveragingArguments(kind="ema", start_share=1.0)
    with pytest.raises(ValueError, match=r"averaging.start_share is 0.2, and averaging.kind none; choose one"):
        AveragingArguments(start_share=0.2)


@pytest.mark.fault
def test_a_checkpoint_without_the_weights_of_the_start_is_refused(tmp_path: Path) -> None:
    train(tmp_path, AveragingArguments(kind="ema"))
    with pytest.raises(ValueError, match=r"checkpoint-4 has no start_weights.safetensors: it was trained with"):
        train(tmp_path, AveragingArguments(kind="ema", start_share=0.2), resume=4)


@pytest.mark.fault
def test_a_checkpoint_without_an_average_is_refused(tmp_path: Path) -> None:
    train(tmp_path, AveragingArguments())
    with pytest.raises(ValueError, match=r"checkpoint-4 has no averaged_weights.safetensors: it was trained with"):
        train(tmp_path, AveragingArguments(kind="ema"), resume=4)


@pytest.mark.fault
@pytest.mark.parametrize("engine", ["is_deepspeed_enabled", "is_fsdp_enabled"])
def test_shared_out_weights_are_refused(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = train(tmp_path, AveragingArguments(), chosen={"max_steps": 1})
    monkeypatch.setattr(trainer, engine, True)
    with pytest.raises(ValueError, match=r"averaging.kind is 'ema', but DeepSpeed or FSDP shares the weights out"):
        trainer._make_average(AveragingArguments(kind="ema"))
