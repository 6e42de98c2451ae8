"""The folder a recipe writes to: never lost by accident, never gone on with under other settings."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

__all__ = ["CLIPS_FILE", "RECIPE_FILE", "check_output", "check_same", "check_same_clips", "prepare_output", "resumable"]

RECIPE_FILE = "recipe.yaml"
CLIPS_FILE = "clips.sha256"

# Settings that a resumed run may have otherwise than the run it goes on with.
_FREE = frozenset(
    {"output_dir", "resume", "overwrite", "split.run_folds"}
    | {f"training.{name}" for name in ("per_device_eval_batch_size", "dataloader_num_workers", "dataloader_pin_memory")}
)


def check_output(output_dir: str, recipe: str, *, resume: bool, overwrite: bool) -> None:
    """Makes sure that a run with the settings `recipe` (YAML) may write there; changes nothing.

    Recipes call it first, and `prepare_output` once their data is read, so that a mistyped source costs no earlier run.

    Raises:
        FileExistsError: The folder holds something, and neither `resume` nor `overwrite` is set, or it is not ours.
        ValueError: Both are set, the run to be resumed had other settings, or what is to be read would be deleted.
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
        if overwrite:
            _check_inputs_stay(yaml.safe_load(recipe), folder)
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
            _empty(folder)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{RECIPE_FILE}.tmp"
        temporary.write_text(recipe, encoding="utf-8")
        os.replace(temporary, folder / RECIPE_FILE)
    state.wait_for_everyone()


def _empty(folder: Path) -> None:
    """Deletes what is in a folder; not itself, which may be a link or where a volume is mounted."""
    for inside in folder.iterdir():
        if inside.is_dir() and not inside.is_symlink():
            shutil.rmtree(inside)
        else:
            inside.unlink()


@contextmanager
def resumable(output_dir: str) -> Iterator[None]:
    """Lets Ctrl-C say how the run that writes to `output_dir` goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the same command with --resume true goes on from the last checkpoint in {output_dir}"
        ) from None


def _check_inputs_stay(settings: Mapping[str, Any], folder: Path) -> None:
    """Raises a ValueError if a setting names something in the folder that is to be deleted."""
    for name, value in _flat(settings):
        for path in value if isinstance(value, list) else [value]:
            if name == "output_dir" or not isinstance(path, str) or not os.path.exists(path):
                continue
            if Path(path).resolve().is_relative_to(folder.resolve()):
                raise ValueError(
                    f"{name} is {path}, which lies in output_dir {folder} and would be deleted by overwrite before it "
                    "is read. Name another --output_dir."
                )


def check_same_clips(folder: Path, digest: str, *, resume: bool) -> None:
    """Leaves a digest of the clips in the folder, or, of a run that goes on there, compares it with the one before.

    Raises:
        ValueError: The clips, their labels or their order have changed since.
    """
    file = folder / CLIPS_FILE
    if resume and file.is_file() and file.read_text(encoding="utf-8").strip() != digest:
        raise ValueError(
            f"cannot resume in {folder}: the clips, or their labels, are not those it began with, so that tested ones "
            "could have been learnt. Bring them back as they were, or start anew with --overwrite true."
        )
    state = PartialState()
    state.wait_for_everyone()
    if state.is_main_process:
        file.write_text(digest + "\n", encoding="utf-8")


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
