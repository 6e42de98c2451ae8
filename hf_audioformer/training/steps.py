"""Training in several steps, each of which goes on from the weights of the one before."""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checkpoints import check_finite
from .console import quiet_transformers
from .trainer import AudioTrainer

__all__ = ["FinishedStep", "StepArguments", "read_step", "remove_steps", "write_step"]

RECORD = "step.json"


@dataclass(frozen=True)
class StepArguments:
    """What a step changes; null keeps what holds for all."""

    alpha: float | None = field(default=None, metadata={"help": "in place of mpc.alpha"})
    temperature: float | None = field(default=None, metadata={"help": "in place of mpc.temperature"})
    learning_rate: float | None = field(default=None, metadata={"help": "in place of training.learning_rate"})
    num_train_epochs: float | None = field(default=None, metadata={"help": "in place of training.num_train_epochs"})

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the settings `names` that the step changes."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class FinishedStep:
    """The Trainer's log of a step, its epochs counted on from those of the steps before, and how long it took."""

    history: list[dict[str, Any]]
    seconds: float

    @property
    def epochs(self) -> float:
        """The last epoch in the log."""
        return max((entry.get("epoch", 0.0) for entry in self.history), default=0.0)


def write_step(folder: Path, trainer: AudioTrainer, step: FinishedStep) -> None:
    """Leaves the step's model in `folder`, and then, in one atomic write, the record that it is there."""
    weights = trainer.gather_weights()
    if trainer.is_world_process_zero():
        check_finite(weights)
        with quiet_transformers():
            trainer.model.save_pretrained(folder, state_dict=weights)
        temporary = folder / f"{RECORD}.tmp"
        temporary.write_text(json.dumps({"history": step.history, "seconds": step.seconds}), encoding="utf-8")
        os.replace(temporary, folder / RECORD)
    trainer.accelerator.wait_for_everyone()


def read_step(folder: Path) -> FinishedStep | None:
    """What `write_step` wrote; None if the step was not finished."""
    record = folder / RECORD
    return FinishedStep(**json.loads(record.read_text(encoding="utf-8"))) if record.is_file() else None


def remove_steps(folder: Path) -> None:
    """Deletes the steps in a folder; like checkpoints they are only there for what comes after them."""
    for record in folder.glob(f"*/{RECORD}"):
        shutil.rmtree(record.parent)
