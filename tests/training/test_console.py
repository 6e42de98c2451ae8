"""One line per epoch, and silence where Transformers would repeat itself."""

import pytest
from transformers import TrainerState

from hf_audioformer.training.console import _line, quiet_transformers


@pytest.mark.unit
def test_a_line_shows_loss_and_measures_and_no_speeds() -> None:
    state = TrainerState(epoch=2.0, num_train_epochs=20)
    logs = {"eval_loss": 1.5, "eval_accuracy": 0.75, "eval_score": 0.75, "eval_runtime": 2.0, "epoch": 2.0}
    logs |= {"eval_samples_per_second": 5.0, "eval_model_preparation_time": 1.0}
    assert _line(state, {"loss": 1.25}, logs) == "epoch 2/20  loss 1.2500  validation: loss 1.5000  accuracy 0.7500"
    losses = {"loss": 1.25, "mpc_loss": 2.5}
    assert _line(state, losses, losses) == "epoch 2/20  loss 1.2500  mpc_loss 2.5000"


@pytest.mark.unit
def test_silence_ends_with_the_block() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity()
    with quiet_transformers():
        assert not logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == before
    assert logging.is_progress_bar_enabled()
