"""The folder a recipe writes to: never lost by accident, never gone on with under other settings."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

__all__ = ["RECIPE_FILE", "check_output", "check_same", "prepare_output", "resumable"]

RECIPE_FILE = "recipe.yaml"

# Settings that a resumed run may have otherwise than the run it goes on with.
_FREE = frozenset({"output_dir", "resume", "overwrite", "split.run_folds"})


def check_output(output_dir: str, recipe: str, *, resume: bool, overwrite: bool) -> None:
    """Makes sure that a run with the settings `recipe` (YAML) may write there; changes nothing.

    Recipes call it first, and `prepare_output` once their data is read, so that a mistyped source costs no earlier run.

    Raises:
        FileExistsError: The folder holds something, and neither `resume` nor `overwrite` is set, or it is not ours.
        ValueError: Both are set, or the run to be resumed had other settings.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite are both set; resume goes on in output_dir, overwrite deletes it")
    folder = Path(output_dir)
    earlier = folder / RECIPE_FILE
    if folder.is_dir() and any(folder.iterdir()):
        if not (resume or overwrite):
            raise FileExistsError(
                f"{folder} is not empty. Go on with its training with --resume true, replace it with --overwrite true, "
                "or name another --output_dir."
            )
        if not earlier.is_file():
            raise FileExistsError(
                f"{folder} is not empty and was not made by this command ({RECIPE_FILE} is missing). Name another "
                "--output_dir, or empty it yourself."
            )
        if resume:
            check_same(yaml.safe_load(earlier.read_text(encoding="utf-8")), yaml.safe_load(recipe), folder)


def prepare_output(output_dir: str, recipe: str, *, resume: bool, overwrite: bool) -> None:
    """Makes the folder with the settings in it, emptying one that was made here if `overwrite` is set.

    Raises:
        FileExistsError, ValueError: As `check_output`.
    """
    check_output(output_dir, recipe, resume=resume, overwrite=overwrite)
    state = PartialState()
    folder = Path(output_dir)
    state.wait_for_everyone()
    if state.is_main_process:
        if overwrite and folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{RECIPE_FILE}.tmp"
        temporary.write_text(recipe, encoding="utf-8")
        os.replace(temporary, folder / RECIPE_FILE)
    state.wait_for_everyone()


@contextmanager
def resumable(output_dir: str) -> Iterator[None]:
    """Lets Ctrl-C say how the run that writes to `output_dir` goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the same command with --resume true goes on from the last checkpoint in {output_dir}"
        ) from None


def check_same(earlier: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raises a ValueError, with both values, if a setting of the run to go on with in `folder` has changed."""
    before, after = dict(_flat(earlier)), dict(_flat(now))
    for name in sorted((before.keys() | after.keys()) - _FREE):
        if before.get(name) != after.get(name):
            raise ValueError(
                f"cannot resume in {folder}: {name} was {before.get(name)!r} and is {after.get(name)!r} now. Set it "
                "back, or start anew with --overwrite true."
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
