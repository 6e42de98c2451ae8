"""Statistics of parts are those of the whole, and processes share the measuring."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from hypothesis import given
from hypothesis import strategies as st

from hf_audioformer.data.running_statistics import RunningStatistics, shared_statistics

from ..warm_processes import exit_codes, start_together


@pytest.mark.property
@given(parts=st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), min_size=1, max_size=5))
def test_statistics_of_parts_are_those_of_all_values(parts: list[list[float]]) -> None:
    found = RunningStatistics()
    for part in parts:
        found = found.merged(RunningStatistics.of(np.asarray(part)))
    values = np.concatenate([np.asarray(part) for part in parts])
    assert found.count == len(values)
    assert found.mean == pytest.approx(values.mean(), abs=1e-9)
    assert found.std == pytest.approx(values.std(), abs=1e-5)
    assert found.merged(RunningStatistics()) == found
    assert RunningStatistics().merged(RunningStatistics()) == RunningStatistics()


@pytest.mark.property
def test_statistics_are_exact_far_from_zero() -> None:
    values = 1e8 + np.random.default_rng(0).standard_normal(20_000)
    found = RunningStatistics()
    for part in np.split(values, 20):
        found = found.merged(RunningStatistics.of(part))
    assert found.std == pytest.approx(values.std(), rel=1e-9)


def statistics_of_row(row: int) -> RunningStatistics:
    return RunningStatistics.of(np.random.default_rng(row).standard_normal((2 + row % 3, 4)), axis=0)


def share_measuring() -> None:
    """Each process says what it measured of 70 clips, and what it knows of all."""
    state = PartialState(cpu=True)
    measured: list[int] = []
    found = shared_statistics(70, lambda row: (measured.append(row), statistics_of_row(row))[1])
    known = {"rows": measured, "count": found.count, "mean": list(found.mean), "std": list(found.std)}
    with pytest.raises(ValueError, match="row 20 is no number"):  # which one process alone is to measure
        shared_statistics(70, lambda row: statistics_of_row(row) if row != 20 else float("row 20 is no number"))
    Path(sys.argv[1], f"{state.process_index}.json").write_text(json.dumps(known))
    torch.distributed.destroy_process_group()


@pytest.mark.invariant
def test_two_processes_share_the_measuring(tmp_path: Path) -> None:
    printed = tmp_path / "printed.txt"
    assert exit_codes(start_together(share_measuring, tmp_path, output=printed)) == [0, 0], printed.read_text()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert sorted(first.pop("rows") + second.pop("rows")) == list(range(70))
    alone = shared_statistics(70, statistics_of_row)
    assert first == second == {"count": alone.count, "mean": list(alone.mean), "std": list(alone.std)}
    values = np.concatenate([np.random.default_rng(row).standard_normal((2 + row % 3, 4)) for row in range(70)])
    np.testing.assert_allclose(alone.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(alone.std, values.std(axis=0), rtol=1e-12)
