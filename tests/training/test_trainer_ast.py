"""A stock AST under `AudioTrainer`: every tensor comes back from a checkpoint, and resumed runs equal unbroken ones.

Source of the trap: a stock AST is saved by other names than those that its weights have in memory; Transformers' own
Trainer loads such a checkpoint without the layers, with a warning (huggingface/transformers issues 43701 and 48805).
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import ASTForAudioClassification, TrainerCallback

from hf_audioformer.audio.ast_features import ASTLogMelFeatureExtractor
from hf_audioformer.training.averaging import AveragingArguments
from hf_audioformer.training.checkpoints import newest_complete_checkpoint, save_final

from .tiny_ast import assert_equal_bits, log_of, make_clips, make_model, make_trainer, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")

SAVING = {"save_strategy": "steps", "save_steps": 1}


def mean_loss(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, Any, dict[str, torch.Tensor]]:
    outputs = model(**batch)
    return outputs.loss, outputs, {"double_loss": 2 * outputs.loss}


class Break(TrainerCallback):
    """Ends training as a kill does, right after the checkpoint of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.invariant
@pytest.mark.parametrize("step", [2, 3, 4], ids=["within an epoch", "at its end", "at its beginning"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path: Path, step: int, accumulation: int) -> None:
    """With dropout, losses logged once an epoch, a validation in each, and a resumed model of other weights."""
    chosen = SAVING | {"eval_strategy": "epoch", "gradient_accumulation_steps": accumulation}
    chosen |= {"per_device_train_batch_size": 4 // accumulation}
    parts = {"eval_dataset": make_clips([0, 1, 2], seed=1), "objective": mean_loss}
    unbroken = make_trainer(tmp_path / "unbroken", make_model(), chosen=chosen, **parts)
    unbroken.train()
    assert len([entry for entry in log_of(unbroken) if "double_loss" in entry]) == 3

    broken = make_trainer(tmp_path / "broken", make_model(), chosen=chosen, callbacks=[Break(step)], **parts)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    checkpoint = newest_complete_checkpoint(tmp_path / "broken")
    assert Path(str(checkpoint)).name == f"checkpoint-{step}"
    torch.manual_seed(5)
    resumed = make_trainer(tmp_path / "broken", make_model(seed=1), chosen=chosen, **parts)
    resumed.train(resume_from_checkpoint=checkpoint)
    assert_equal_bits(weights_of(resumed.model), weights_of(unbroken.model))
    assert log_of(resumed) == log_of(unbroken)


@pytest.mark.invariant
def test_a_run_that_was_done_within_an_epoch_takes_no_more_steps(tmp_path: Path) -> None:
    """Broken after its last step, which is the first of the second epoch, while it waits to be tested."""
    chosen = SAVING | {"eval_strategy": "epoch", "max_steps": 4, "lr_scheduler_type": "constant"}
    parts = {"eval_dataset": make_clips([0, 1, 2], seed=1)}
    broken = make_trainer(tmp_path, make_model(), chosen=chosen, callbacks=[Break(4)], **parts)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = make_trainer(tmp_path, make_model(seed=1), chosen=chosen, **parts)
    resumed.train(resume_from_checkpoint=newest_complete_checkpoint(tmp_path))
    assert resumed.state.global_step == 4
    assert_equal_bits(weights_of(resumed.model), weights_of(broken.model))
    assert [entry["step"] for entry in log_of(resumed) if "eval_loss" in entry] == [3, 4]


@pytest.mark.invariant
def test_the_best_checkpoint_is_found_where_the_folder_was_moved_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is broken when nothing is left but to take the best of its checkpoints, that of the first epoch."""
    chosen = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    chosen |= {"metric_for_best_model": "score"}
    scores = iter([3.0, 2.0, 1.0])
    parts = {
        "eval_dataset": make_clips([0, 1, 2], seed=1),
        "compute_metrics": lambda prediction: {"score": next(scores)},
    }
    broken = make_trainer(tmp_path / "here", make_model(), chosen=chosen, callbacks=[Break(9)], **parts)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    (tmp_path / "here").rename(tmp_path / "there")
    shutil.copytree(tmp_path / "there", tmp_path / "without")
    shutil.rmtree(tmp_path / "without" / "checkpoint-3")
    resumed = make_trainer(tmp_path / "there", make_model(seed=1), chosen=chosen, **parts)
    resumed.train(resume_from_checkpoint=newest_complete_checkpoint(tmp_path / "there"))
    best = make_model(seed=1)
    best.load_state_dict(ASTForAudioClassification.from_pretrained(tmp_path / "there" / "checkpoint-3").state_dict())
    assert_equal_bits(weights_of(resumed.model), weights_of(best))
    assert not caplog.text

    bereft = make_trainer(tmp_path / "without", make_model(seed=1), chosen=chosen, **parts)
    bereft.train(resume_from_checkpoint=newest_complete_checkpoint(tmp_path / "without"))
    assert "checkpoint-3, is missing; a later one will be taken for it" in caplog.text


@pytest.mark.unit
@pytest.mark.parametrize(
    ("averaging", "epochs"),
    [(AveragingArguments(kind="ema"), 0.5), (AveragingArguments(kind="epochs", from_epoch=2), 2.5)],
    ids=["steps of an epoch", "whole epochs"],
)
def test_an_average_of_what_there_is_is_made(averaging: AveragingArguments, epochs: float, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_model(), chosen={"num_train_epochs": epochs}, averaging=averaging)
    trainer.train()
    assert trainer.average.count > 0
    with pytest.raises(ValueError, match="no weights would be averaged"):
        make_trainer(
            tmp_path, make_model(), chosen={"num_train_epochs": epochs}, averaging=replace(averaging, from_epoch=3)
        )


@pytest.mark.invariant
def test_scores_are_not_rounded_where_the_network_computes_in_bfloat16(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_model(), chosen={"bf16": True, "max_steps": 1})
    trainer.train()
    scores = torch.from_numpy(trainer.predict(make_clips([0, 1, 2])).predictions)
    assert scores.dtype == torch.float32
    assert (scores != scores.bfloat16()).any(1).all()


@pytest.mark.invariant
def test_the_best_checkpoint_comes_back_with_every_tensor(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def falling_score(prediction: Any) -> dict[str, float]:
        seen.append(weights_of(trainer.model))
        return {"score": -len(seen)}

    chosen = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = make_trainer(
        tmp_path,
        make_model(),
        chosen=chosen | {"metric_for_best_model": "score"},
        eval_dataset=make_clips([0, 1, 2], seed=1),
        compute_metrics=falling_score,
    )
    trainer.train()
    assert len(seen) == 3
    assert all(not torch.equal(seen[0][name], seen[2][name]) for name in seen[0])
    assert_equal_bits(weights_of(trainer.model), seen[0])


@pytest.mark.fault
def test_a_checkpoint_without_all_weights_is_refused(tmp_path: Path) -> None:
    """As Transformers alone writes it."""
    trainer = make_trainer(tmp_path, make_model(), chosen=SAVING | {"max_steps": 1})
    trainer.train()
    trainer.model.save_pretrained(tmp_path / "checkpoint-1")
    resumed = make_trainer(tmp_path, make_model(), chosen=SAVING)
    with pytest.raises(
        ValueError, match=r"does not hold the weights of this model: it lacks, or has beside them, audio_"
    ):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.mark.reference
def test_the_final_folder_is_a_stock_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", make_model(), chosen={"max_steps": 2})
    trainer.train()
    extractor = ASTLogMelFeatureExtractor(num_mel_bins=8, max_length=16)
    save_final(trainer.model, extractor, tmp_path / "final", trainer.gather_weights())
    trainer.save_model(str(tmp_path / "saved"))
    for folder in ("final", "saved"):
        assert any(".encoder.layer.0.attention." in name for name in load_file(tmp_path / folder / "model.safetensors"))
    loaded = ASTForAudioClassification.from_pretrained(tmp_path / "final")
    assert_equal_bits(weights_of(loaded), weights_of(trainer.model))
    saved = ASTLogMelFeatureExtractor.from_pretrained(tmp_path / "final")
    assert saved.to_dict() == extractor.to_dict()


@pytest.mark.reference
def test_weights_that_are_more_precise_than_the_network_stay_so(tmp_path: Path) -> None:
    """DeepSpeed trains a network in bfloat16, of which the optimizer holds the weights in float32."""
    model = make_model()
    precise = weights_of(model)
    save_final(model.bfloat16(), ASTLogMelFeatureExtractor(num_mel_bins=8, max_length=16), tmp_path, precise)
    assert_equal_bits(weights_of(ASTForAudioClassification.from_pretrained(tmp_path)), precise)
