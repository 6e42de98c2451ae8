"""The one Trainer of all recipes: Transformers' own, with what it gets wrong for audio set right."""

import math
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .checkpoints import mark_complete
from .console import quiet_transformers
from .launch import check_world_size

__all__ = ["AudioTrainer"]


class AudioTrainer(Trainer):
    """A `transformers.Trainer` that

    * refuses to train when the processes that were launched have not found each other,
    * stops at a loss that is not finite, before such weights are saved,
    * marks checkpoints that were written to their end (see [`newest_complete_checkpoint`]).

    Takes the arguments of `transformers.Trainer`.

    Raises:
        ValueError: The launch would train each process alone.
        FloatingPointError: The loss became NaN or infinite.
    """

    def __init__(self, *, args: TrainingArguments, **kwargs: Any):
        check_world_size(args)
        args.logging_nan_inf_filter = False  # it would hide what the callback looks for
        super().__init__(args=args, **kwargs)
        self.add_callback(_StopAtNonFiniteLoss())

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with quiet_transformers():
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(f"{self._get_output_dir(trial=trial)}/checkpoint-{self.state.global_step}")


class _StopAtNonFiniteLoss(TrainerCallback):
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {state.global_step}; the weights are lost. Resume from the last "
                "checkpoint with a lower learning_rate, or train in float32 (bf16 and fp16 off)."
            )
