"""Numbers along time: read from tables, and what they are between their points."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_audioformer.data import ClipTable, read_clips
from hf_audioformer.data.curves import Curves, curves_of_clips
from hf_audioformer.data.moments import MomentGrid

POINTS = """filename,time,f0,level
3.wav,0.02,220,-100
3.wav,0.01,,-20
3.wav,0,200,-30
3.wav,0.03,nan,
4.wav,0.1,,-9
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "curves.csv"
    file.write_text(text)
    return file


def curves_of(clips: ClipTable) -> dict[str, Curves]:
    return dict(zip(clips.ids, curves_of_clips(clips), strict=True))


@pytest.mark.unit
def test_a_table_gives_clips_numbers_along_time(tone_csv: Path, tmp_path: Path) -> None:
    clips = read_clips(tone_csv.parent, curves=written(tmp_path, POINTS))
    assert (clips.target_columns, clips.label_names, clips.problem_type) == (("f0", "level"),) * 2 + ("regression",)
    curves = curves_of(clips)
    np.testing.assert_array_equal(curves["3.wav"].times, [0, 0.01, 0.02, 0.03])
    expected = [[200, -30], [np.nan, -20], [220, -100], [np.nan, np.nan]]
    np.testing.assert_array_equal(curves["3.wav"].values, expected)
    np.testing.assert_allclose(curves["3.wav"].gaps, [0.03, 0.015])  # one and a half steps between known points
    assert (curves["4.wav"].last_seconds, curves["5.wav"].last_seconds) == (0.1, 0.0)
    assert np.isnan(curves["5.wav"].at(np.arange(4.0))).all()
    targets = dict(zip(clips.ids, clips.targets().tolist(), strict=True))  # by which clips are divided
    assert targets["3.wav"] == [210, -50]
    assert math.isnan(targets["4.wav"][0])
    assert targets["4.wav"][1] == -9
    assert clips.targets([]).shape == (0, 2)


@pytest.mark.unit
def test_columns_may_be_chosen_and_other_forms_read(tone_csv: Path, tmp_path: Path) -> None:
    one = read_clips(tone_csv.parent, curves=written(tmp_path, POINTS), target_columns=["level"], curve_gap_seconds=0.5)
    assert one.target_columns == ("level",)
    np.testing.assert_array_equal(curves_of(one)["3.wav"].gaps, [0.5])
    tabs = tmp_path / "curves.tsv"
    tabs.write_text(POINTS.replace(",", "\t"))
    table = {"filename": ["3.wav"] * 3 + ["4.wav"], "time": [0.02, 0.01, 0.0, 0.1]}
    table |= {"f0": [220.0, None, 200.0, math.nan], "level": [-100, -20, -30, -9]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "curves.parquet")
    for file in (tabs, tmp_path / "curves.parquet"):
        found = curves_of(read_clips(tone_csv.parent, curves=file, target_columns=["level", "f0"]))["3.wav"]
        np.testing.assert_array_equal(found.values[:3], [[-30, 200], [-20, np.nan], [-100, 220]])


@pytest.mark.reference
@given(
    points=st.lists(st.tuples(st.integers(0, 30), st.floats(-9, 9) | st.none()), unique_by=lambda point: point[0]),
    gap=st.integers(1, 8),
    seconds=st.lists(st.integers(0, 300), min_size=1, max_size=20),
)
def test_numbers_lie_between_their_neighbours(points: list[Any], gap: int, seconds: list[int]) -> None:
    points = sorted(points)
    values = np.array([[np.nan if value is None else value] for _, value in points]).reshape(-1, 1)
    curves = Curves(np.array([time for time, _ in points], dtype=float), values, np.array([float(gap)]))
    found = curves.at(np.array(seconds) / 10)
    known = [(time, value) for time, value in points if value is not None]
    for second, value in zip(seconds, found[:, 0], strict=True):
        before = max((point for point in known if 10 * point[0] <= second), default=None)
        after = min((point for point in known if 10 * point[0] >= second), default=None)
        near = sorted((abs(10 * point[0] - second), point) for point in known)
        if before and after and after[0] - before[0] <= gap:
            share = (second / 10 - before[0]) / (after[0] - before[0] or 1)
            assert value == pytest.approx(before[1] + share * (after[1] - before[1]), abs=1e-9)
        elif near and near[0][0] <= 5 * gap:
            assert value == near[0][1][1]
        else:
            assert math.isnan(value)


@pytest.mark.unit
def test_moments_have_targets_in_their_middles_and_a_value_of_minus_100_is_none_that_is_unknown() -> None:
    curves = Curves(np.array([0.0, 0.2, 0.4]), np.array([[0.0, -100], [2.0, -100], [np.nan, -100]]), np.full(2, 0.2))
    targets = MomentGrid(0.1, boundaries=1).targets(curves, length=9)
    assert targets.shape == (9, 2)
    assert (targets[[0, -1]] == -100).all()
    np.testing.assert_allclose(targets[1:-1, 0], [0.5, 1.5, 2.0, -100, -100, -100, -100])
    np.testing.assert_allclose(targets[1:-1, 1], -100)
    assert (targets[1:6, 1] != -100).all()
    assert (targets[6:, 1] == -100).all()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("", {}, "expected rows with the columns filename, time and numbers; found no rows"),
        ("file,time,f0\n3.wav,0,1\n", {}, "filename, time and numbers; found 'file', 'time', 'f0'"),
        ("filename,time\n3.wav,0\n", {}, "no column but 'filename', 'time'; expected one more for each number"),
        (POINTS, {"target_columns": ["pitch"]}, "target_columns names 'pitch'; the columns of numbers are 'f0', 'lev"),
        ("filename,time,f0\nno.wav,0,1\n", {}, r"line 2: no clip is called 'no.wav'; there are '0.wav', "),
        ("filename,time,f0\n3.wav,0,1\n3.wav,0.0,2\n", {}, "line 3: '3.wav' has a row for 0 s already; give each time"),
        ("filename,time,f0\n3.wav,-1,1\n", {}, "line 2: time is '-1'; expected seconds, at least 0"),
        ("filename,time,f0\n3.wav,late,1\n", {}, "line 2: time is 'late'; expected seconds"),
        ("filename,time,f0\n3.wav,0,high\n", {}, "line 2, column 'f0': 'high' is no finite number; leave the cell em"),
        (
            "filename,time,voice\n3.wav,0,anna\n",
            {},
            "'anna' is no finite number.* name the columns of numbers by data.t",
        ),
        ("filename,time,f0\n3.wav,0,inf\n", {}, "line 2, column 'f0': 'inf' is no finite number"),
        ("filename,time,f0\n3.wav,0,1\n4.wav,1,\n", {}, "column 'f0': no clip has known numbers at two times, so that"),
        ("filename,time,f0\n3.wav,0,\n", {"curve_gap_seconds": 1.0}, "column 'f0': no number is known; give some, or"),
        (POINTS, {"curve_gap_seconds": 0.0}, "curve_gap_seconds is 0.0; it must be above 0"),
    ],
)
def test_bad_curves_are_named(
    text: str, settings: dict[str, Any], message: str, tone_csv: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_clips(tone_csv.parent, curves=written(tmp_path, text), **settings)
