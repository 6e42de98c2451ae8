"""What the conversion scripts share: their command line, reading tensors from foreign files, and the verdict."""

import argparse
import pickle
from pathlib import Path

import torch
from torch import Tensor


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--verify`, which is the default, and `--help` that shows the description as it stands."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--verify", action=argparse.BooleanOptionalAction, default=True, help="compare source and target before writing"
    )
    return parser


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file by name, in float32 where they are floats, without the prefix of `DataParallel`.

    Raises:
        ValueError: The file holds anything but tensors by name, or is damaged; nothing in it is executed.
        FileNotFoundError: There is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. The script's --help says where to take it from.")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a whole file of plain tensors; it is refused. Take the official one.") from error
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError(f"{path}: holds something else than tensors by name. Save the model's state_dict() alone.")
    return {
        name.removeprefix("module."): weight.float() if weight.is_floating_point() else weight
        for name, weight in weights.items()
    }


def largest_difference(first: Tensor, second: Tensor) -> float:
    """The largest difference of two tensors of one shape.

    Raises:
        ValueError: The shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {tuple(first.shape)} of the target and {tuple(second.shape)} of the source.")
    return (first.double() - second.double()).abs().max().item()


def accept(difference: float, limit: float, what: str) -> float:
    """Returns a difference that is small enough.

    Raises:
        ValueError: It is above the limit, or not a number.
    """
    if not difference <= limit:
        raise ValueError(f"{what} by {difference:.1e}, more than {limit:.0e}: nothing is written.")
    return difference
