"""Selecting, pickling and asking for columns."""

import pickle

import datasets
import numpy as np
import pytest

from hf_audioformer.data import ClipTable


@pytest.fixture
def clips(wav: bytes) -> ClipTable:
    columns = {"id": ["a", "b", "c"], "audio": [{"bytes": wav, "path": None}] * 3, "label": [1, 0, 1]}
    return ClipTable(datasets.Dataset.from_dict(columns), ("x", "y"), multi_label=False)


@pytest.mark.unit
def test_select_keeps_order_and_names(clips: ClipTable) -> None:
    chosen = clips.select([2, 1])
    assert len(chosen) == 2
    assert chosen.ids == ["c", "b"]
    assert chosen.label_names == ("x", "y")
    np.testing.assert_array_equal(chosen.targets(), [1, 0])
    np.testing.assert_array_equal(clips.targets([2, 1]), [1, 0])
    assert clips.targets().dtype == np.int64


@pytest.mark.unit
def test_pickles_for_worker_processes(clips: ClipTable) -> None:
    copy = pickle.loads(pickle.dumps(clips))
    assert copy.ids == clips.ids
    np.testing.assert_array_equal(copy.load(1)["array"], clips.load(1)["array"])


@pytest.mark.fault
def test_missing_column(clips: ClipTable) -> None:
    with pytest.raises(ValueError, match="no column 'fold' in the clips; there are audio, id, label"):
        clips.column("fold")
