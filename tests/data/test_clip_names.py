"""Clips found by what a table calls them."""

import pytest

from hf_audioformer.data.clip_names import ClipNames, few


@pytest.mark.unit
def test_a_clip_is_found_by_its_id_or_the_last_part_of_it() -> None:
    names = ClipNames(["a/1.wav", "b/1.wav", "b/2.wav", "1.wav"])
    assert [names.index(name, "t.csv") for name in ("a/1.wav", "b/1.wav", "2.wav", "1.wav")] == [0, 1, 2, 3]


@pytest.mark.fault
def test_names_that_say_nothing_are_refused() -> None:
    names = ClipNames(["a/1.wav", "b/1.wav", "b/2.wav"])
    with pytest.raises(ValueError, match=r"t.csv, line 7: several clips are called '1.wav' .* as 'a/1.wav'"):
        names.index("1.wav", "t.csv, line 7")
    with pytest.raises(
        ValueError, match=r"t.csv, line 7: no clip is called 3; there are '1.wav', '2.wav', 'a/1.wav', "
    ):
        names.index(3, "t.csv, line 7")
    assert few(["a", "b"]) == "'a', 'b'"
