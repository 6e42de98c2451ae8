"""Versions of clips with what they are compared with."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_audioformer import AudioFormerModel
from hf_audioformer.codes.companions import companion_vectors, load_companions
from hf_audioformer.data.clip_companions import add_companion_codes, add_companion_vectors, first_codebooks
from hf_audioformer.data.code_dataset import CodeVersion

from ..fixtures_recipes import save_companion

pytestmark = pytest.mark.unit


@pytest.fixture
def networks(tmp_path: Path) -> list[AudioFormerModel]:
    folders = [save_companion(tmp_path / str(index), index) for index in (1, 2)]
    return load_companions(folders, codebook_size=64, hidden_size=32)


@pytest.fixture
def versions() -> dict[int, list[CodeVersion]]:
    """Two versions of clip 0, one each of 3 and 5."""
    random = np.random.default_rng(0)
    lengths = {0: [7, 9], 3: [12], 5: [5]}
    return {
        index: [CodeVersion(random.integers(64, size=(length, 3))) for length in of_clip]
        for index, of_clip in lengths.items()
    }


def test_each_version_of_the_chosen_clips_gets_the_vectors_of_its_own_codes(networks, versions) -> None:
    found = add_companion_vectors(versions, [5, 0], networks)
    for index in (0, 5):
        for before, after in zip(versions[index], found[index], strict=True):
            expected = companion_vectors(networks, [before.input_ids])[0]
            np.testing.assert_allclose(after.companions, expected, atol=1e-5)
            assert after.input_ids is before.input_ids
    assert found[3][0].companions is None
    assert versions[0][0].companions is None


class OnDisk(list):
    """Counts how often a version is read."""

    length = 9
    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += isinstance(index, int)
        found = super().__getitem__(index)
        return OnDisk(found) if isinstance(index, slice) else found


def test_versions_that_are_read_when_asked_for_stay_so(networks, versions) -> None:
    stored = {0: OnDisk(versions[0])}
    found = first_codebooks(add_companion_codes(stored, [0]), 1)[0]
    assert stored[0].reads == 0
    assert (found.length, len(found), len(found[:1])) == (9, 2, 1)
    for version in (found[1], found[-1], found[::-1][0], pickle.loads(pickle.dumps(found))[1]):
        np.testing.assert_array_equal(version.input_ids, versions[0][1].input_ids[:, 0])
    assert not hasattr(first_codebooks(versions, 1)[0], "length")
    with_vectors = add_companion_vectors(versions, [0], networks)[0]
    for place, version in enumerate(with_vectors[::-1]):
        np.testing.assert_array_equal(version.companions, with_vectors[1 - place].companions)
    with pytest.raises(IndexError):
        found[2]


def test_codes_to_compute_vectors_from_are_whole(versions) -> None:
    found = first_codebooks(add_companion_codes(versions, [0]), 1)
    for before, after in zip(versions[0], found[0], strict=True):
        np.testing.assert_array_equal(after.companion_input_ids, before.input_ids)
        np.testing.assert_array_equal(after.input_ids, before.input_ids[:, 0])
    assert found[3][0].companion_input_ids is None


def test_the_first_codebooks_keep_their_form(versions) -> None:
    whole = versions[3][0].input_ids
    np.testing.assert_array_equal(first_codebooks(versions, 2)[3][0].input_ids, whole[:, :2])
    one = first_codebooks(versions, 1)
    np.testing.assert_array_equal(first_codebooks(one, 1)[3][0].input_ids, whole[:, 0])
