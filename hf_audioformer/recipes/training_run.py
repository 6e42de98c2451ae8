"""What every recipe that trains begins and ends with, whatever it trains."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from transformers import TrainingArguments

from ..training.arguments import dump_config
from ..training.checkpoints import remove_checkpoints
from ..training.hub import check_hub_settings
from ..training.launch import check_launch, join_processes
from ..training.output import check_output, prepare_output
from ..training.trackers import check_trackers
from ..training.trainer import AudioTrainer, trainer_arguments

__all__ = [
    "MEASURES_FILE",
    "RunArguments",
    "begin",
    "claim_output",
    "finish",
    "finished_measures",
    "trainer_arguments_of",
]

MEASURES_FILE = "measures.json"


class RunArguments(Protocol):
    """The settings that the recipes have in common; they are dataclasses."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def output_dir(self) -> str: ...
    @property
    def training(self) -> dict[str, Any]: ...
    @property
    def seed(self) -> int: ...
    @property
    def resume(self) -> bool: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def world_size(self) -> int | None: ...


Arguments = TypeVar("Arguments", bound=RunArguments)


def begin(arguments: Arguments, defaults: Mapping[str, Any], *, models: int = 1) -> tuple[Arguments, bool]:
    """Joins the processes that were launched and checks that they may write to `output_dir`, before anything is read.

    Returns the arguments with all that was left open (of `training` what `defaults` say), and whether training runs on
    the CPU.

    Args:
        models: How many are trained at once.

    Raises:
        FileExistsError: `output_dir` holds something and neither `resume` nor `overwrite` is set, or is not ours.
        ValueError: The launch would train apart, the run to resume had other settings, or what `training` says of the
            Hub or of trackers does not fit.
    """
    use_cpu = check_launch(arguments.world_size, use_cpu=arguments.training.get("use_cpu"))
    state = join_processes(use_cpu, arguments.training)
    check_hub_settings(arguments.training, models)
    check_trackers(arguments.training)
    arguments = replace(arguments, world_size=state.num_processes, training={**defaults, **arguments.training})
    check_output(arguments.output_dir, _recipe(arguments), resume=arguments.resume, overwrite=arguments.overwrite)
    return arguments, use_cpu


def claim_output(arguments: RunArguments) -> None:
    """Makes `output_dir` with the recipe in it, once nothing is known to be wrong.

    Raises:
        FileExistsError, ValueError: As `begin`.
    """
    prepare_output(arguments.output_dir, _recipe(arguments), resume=arguments.resume, overwrite=arguments.overwrite)


def trainer_arguments_of(arguments: RunArguments, defaults: Mapping[str, Any], use_cpu: bool) -> TrainingArguments:
    """The Trainer's arguments for a model in `output_dir`.

    Raises:
        ValueError: As `trainer_arguments`.
    """
    return trainer_arguments(
        defaults, arguments.training, output_dir=arguments.output_dir, seed=arguments.seed, use_cpu=use_cpu
    )


def finished_measures(arguments: RunArguments) -> dict[str, Any] | None:
    """What was measured of a model that is finished and to be gone on with."""
    file = Path(arguments.output_dir) / MEASURES_FILE
    return json.loads(file.read_text(encoding="utf-8")) if arguments.resume and file.is_file() else None


def finish(trainer: AudioTrainer, folder: Path) -> None:
    """Leaves the finished model alone in its folder, and pushes it if the settings say so; for the first process."""
    remove_checkpoints(folder)
    if trainer.args.push_to_hub:
        print(f"pushed to {trainer.push_finished(folder).url}")


def _recipe(arguments: RunArguments) -> str:
    return dump_config(replace(arguments, resume=False, overwrite=False))
