"""Numbers along time: read as points of curves, and what they are between the points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .clip_names import ClipNames
from .clip_table import CURVE_COLUMNS, ClipTable

if TYPE_CHECKING:
    import datasets

__all__ = ["Curves", "add_curves", "curves_of_clips"]

COLUMNS = ("filename", "time")
# How far apart points may be by default, in steps of the table: two that follow each other, but not with an unknown one
# between them.
STEPS = 1.5
# Differences of decimal times are not exact.
ROUNDING_SECONDS = 1e-9


@dataclass(frozen=True)
class Curves:
    """Numbers of a clip along time.

    Between two known points that are at most a gap apart a number lies on the line between them. Elsewhere it is that
    of the nearest known point, if it is at most half a gap away, and unknown otherwise.

    Args:
        times: Of the points, in seconds, rising, float64 (points,).
        values: Of the numbers, NaN where they are unknown, float64 (points, numbers).
        gaps: Of each number, in seconds, float64 (numbers,).
    """

    times: np.ndarray
    values: np.ndarray
    gaps: np.ndarray

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.gaps)

    @property
    def last_seconds(self) -> float:
        """When the last point is; 0 without points."""
        return float(self.times[-1]) if len(self.times) else 0.0

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """The numbers at these times, float64 (times, numbers), NaN where they are unknown."""
        numbers = zip(self.values.T, self.gaps.tolist(), strict=True)
        return np.stack([_number_at(seconds, self.times, values, gap) for values, gap in numbers], axis=1)


def _number_at(seconds: np.ndarray, times: np.ndarray, values: np.ndarray, gap: float) -> np.ndarray:
    known = ~np.isnan(values)
    times, values = times[known], values[known]
    if not len(times):
        return np.full(len(seconds), np.nan)
    before = (np.searchsorted(times, seconds, side="right") - 1).clip(min=0)
    after = np.searchsorted(times, seconds).clip(max=len(times) - 1)
    nearest = np.where(np.abs(seconds - times[before]) <= np.abs(seconds - times[after]), before, after)
    is_near = np.abs(seconds - times[nearest]) <= gap / 2 + ROUNDING_SECONDS
    is_between = (times[before] <= seconds) & (seconds <= times[after])
    is_between &= times[after] - times[before] <= gap + ROUNDING_SECONDS
    elsewhere = np.where(is_near, values[nearest], np.nan)
    return np.where(is_between, np.interp(seconds, times, values), elsewhere)


def add_curves(
    table: datasets.Dataset,
    rows: Sequence[Mapping[str, Any]],
    file: str,
    names: Sequence[str] = (),
    gap_seconds: float | None = None,
) -> tuple[datasets.Dataset, tuple[str, ...]]:
    """Give clips the columns `curve_times`, `curve_values` and `curve_gaps`, as `Curves` has them, from rows with the
    columns filename, time (seconds) and one for each number, in any order; and the names of the numbers.

    A clip is found as by `ClipNames`. An empty cell, or NaN, says that the number is not known there; along clips
    without rows none is.

    Args:
        names: The columns of the numbers; by default all but filename and time.
        gap_seconds: The gap of all numbers. By default that of a number is one and a half times the median step between
            its known points.

    Raises:
        ValueError: A column is missing, a row names no clip or several, or a time twice, or has no time, or text in
            place of a number; or `gap_seconds` is not above 0, or not given where no clip has two points.
    """
    import datasets

    if gap_seconds is not None and not 0 < gap_seconds < math.inf:
        raise ValueError(f"curve_gap_seconds is {gap_seconds}; it must be above 0")
    names = _names_of_numbers(list(rows[0]) if rows else [], file, names)
    times, values = _points_of_clips(table["id"][:], rows, file, names)
    gaps = [
        _gap(gap_seconds, times, [of_clip[:, index] for of_clip in values], f"{file}, column {name!r}")
        for index, name in enumerate(names)
    ]
    number = datasets.List(datasets.Value("float64"))
    table = table.remove_columns([name for name in CURVE_COLUMNS if name in table.column_names])
    columns: tuple[tuple[list[Any], Any], ...] = (
        ([of_clip.tolist() for of_clip in times], number),
        ([of_clip.tolist() for of_clip in values], datasets.List(number)),
        ([gaps] * len(table), number),
    )
    for column, (cells, feature) in zip(CURVE_COLUMNS, columns, strict=True):
        table = table.add_column(column, cells, feature=feature)
    return table, tuple(names)


def _points_of_clips(
    ids: Sequence[str], rows: Sequence[Mapping[str, Any]], file: str, names: Sequence[str]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Times and values of the points of each clip, as `Curves` has them."""
    clips = ClipNames(ids)
    points: list[dict[float, list[float]]] = [{} for _ in ids]
    for line, row in enumerate(rows, start=2):
        where = f"{file}, line {line}"
        of_clip = points[clips.index(row["filename"], where)]
        time = _time(row["time"], where)
        if time in of_clip:
            raise ValueError(
                f"{where}: {row['filename']!r} has a row for {time:g} s already; give each time of a clip once"
            )
        of_clip[time] = [_number(row[name], f"{where}, column {name!r}") for name in names]
    times = [np.array(sorted(of_clip)) for of_clip in points]
    values = [np.array([of_clip[time] for time in sorted(of_clip)]).reshape(-1, len(names)) for of_clip in points]
    return times, values


def _names_of_numbers(columns: Sequence[str], file: str, names: Sequence[str]) -> Sequence[str]:
    found = ", ".join(map(repr, columns)) if columns else "no rows"
    if not set(COLUMNS) <= {*columns}:
        raise ValueError(f"{file}: expected rows with the columns {', '.join(COLUMNS)} and numbers; found {found}")
    numbers = [column for column in columns if column not in COLUMNS]
    for name in names:
        if name not in numbers:
            raise ValueError(f"{file}: target_columns names {name!r}; the columns of numbers are {_or_none(numbers)}")
    if not numbers:
        raise ValueError(f"{file}: no column but {found}; expected one more for each number")
    return names or numbers


def _or_none(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _time(cell: Any, where: str) -> float:
    try:
        time = float(cell)
    except (TypeError, ValueError):
        time = math.nan
    if not 0 <= time < math.inf:
        raise ValueError(f"{where}: time is {cell!r}; expected seconds, at least 0")
    return time


def _number(cell: Any, where: str) -> float:
    """A number, NaN for an empty cell."""
    try:
        number = math.nan if cell in (None, "") else float(cell)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise ValueError(
            f"{where}: {cell!r} is no finite number; leave the cell empty where it is not known, or name the columns "
            "of numbers by data.target_columns"
        )
    return number


def _gap(given: float | None, times: Sequence[np.ndarray], values: Sequence[np.ndarray], where: str) -> float:
    """The gap of a number; by default one and a half times the median step between its known points."""
    known = [of_clip[~np.isnan(numbers)] for of_clip, numbers in zip(times, values, strict=True)]
    steps = np.concatenate([np.diff(of_clip) for of_clip in known])
    if not any(map(len, known)):
        raise ValueError(f"{where}: no number is known; give some, or name other columns by target_columns")
    if given is None and not len(steps):
        raise ValueError(
            f"{where}: no clip has known numbers at two times, so that how far apart they may be cannot be told; give "
            "more of them, or curve_gap_seconds"
        )
    return STEPS * float(np.median(steps)) if given is None else given


def curves_of_clips(clips: ClipTable) -> list[Curves]:
    """The numbers of each clip along time.

    Raises:
        ValueError: They have none.
    """
    of_clips = zip(*(clips.column(name) for name in CURVE_COLUMNS), strict=True)
    shape = (-1, len(clips.target_columns))
    return [
        Curves(np.array(times, dtype=np.float64), np.array(values, dtype=np.float64).reshape(shape), np.array(gaps))
        for times, values, gaps in of_clips
    ]
