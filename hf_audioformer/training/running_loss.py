"""Sums of the loss since it was last logged, and the seconds of training; they go into checkpoints, so that both go on
as if unbroken."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

__all__ = ["RunningParts", "read_running_loss", "write_running_loss"]


class RunningParts:
    """Means of the parts of the loss since they were last taken; they stay on their device until then."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, parts: Mapping[str, torch.Tensor]) -> None:
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()
        self.count += 1

    def take(self) -> dict[str, torch.Tensor]:
        means = {name: value / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


def write_running_loss(
    checkpoint: str, process: int, loss: torch.Tensor, steps: int, parts: RunningParts, seconds: float
) -> None:
    """Adds one process's sums of `steps` steps, and how long it has trained, to a checkpoint; JSON keeps every bit of a
    float."""
    sums = {name: value.item() for name, value in parts.sums.items()}
    record = {"loss": loss.item(), "steps": steps, "parts": sums, "count": parts.count, "seconds": seconds}
    _path(checkpoint, process).write_text(json.dumps(record), encoding="utf-8")


def read_running_loss(
    checkpoint: str, process: int, parts: RunningParts, device: torch.device
) -> tuple[float, int, float]:
    """The sum of the loss, its steps and the seconds, 0 where the checkpoint knows none; puts the sums of the parts
    back."""
    path = _path(checkpoint, process)
    if not path.is_file():
        return 0.0, 0, 0.0
    record = json.loads(path.read_text(encoding="utf-8"))
    parts.sums = {name: torch.tensor(value, device=device) for name, value in record["parts"].items()}
    parts.count = record["count"]
    return record["loss"], record["steps"], record.get("seconds", 0.0)


def _path(checkpoint: str, process: int) -> Path:
    return Path(checkpoint, f"running_loss_{process}.json")
