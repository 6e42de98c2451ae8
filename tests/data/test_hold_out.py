"""What is held out is what was meant, and what means nothing is refused."""

import datasets
import pytest

from hf_audioformer.data import ClipTable
from hf_audioformer.data.hold_out import HoldOut, held_out_clips, parse_hold_out

SOURCES = ["esc10", "C:/my folder", "fsdd"]


def table(**columns: list) -> ClipTable:
    rows = len(next(iter(columns.values())))
    return ClipTable(
        datasets.Dataset.from_dict({"id": [str(row) for row in range(rows)], **columns}), ("a",), multi_label=False
    )


@pytest.fixture
def tables() -> list[ClipTable]:
    return [table(fold=[1, 2, 2, 5]), table(fold=["5", "x"]), table(speaker=["theo", "jackson", "theo"])]


@pytest.mark.unit
def test_entries_are_understood() -> None:
    entries = ["esc10:fold=5", "C:/my folder:fold=x", "speaker=theo", "speaker=a:b=c"]
    assert parse_hold_out(entries, SOURCES) == [
        HoldOut("esc10", "fold", "5"),
        HoldOut("C:/my folder", "fold", "x"),
        HoldOut(None, "speaker", "theo"),
        HoldOut(None, "speaker", "a:b=c"),
    ]
    assert [str(one) for one in parse_hold_out(entries, SOURCES)] == entries


@pytest.mark.unit
@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], [set(), set(), set()]),
        (["fold=5"], [{3}, {0}, set()]),
        (["esc10:fold=5"], [{3}, set(), set()]),
        (["esc10:fold=5", "esc10:fold=2", "speaker=theo"], [{1, 2, 3}, set(), {0, 2}]),
    ],
)
def test_clips_of_any_entry_are_held_out(entries: list[str], expected: list[set], tables: list[ClipTable]) -> None:
    assert held_out_clips(SOURCES, tables, parse_hold_out(entries, SOURCES)) == expected


@pytest.mark.fault
@pytest.mark.parametrize("entry", ["fold", "esc10:fold", "=5", "esc50:fold=5", ""])
def test_a_malformed_entry_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"must be COLUMN=VALUE or SOURCE:COLUMN=VALUE with a SOURCE out of \['esc10'"):
        parse_hold_out([entry], SOURCES)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("fold=3", r"'fold=3' leaves no clip out: the column fold of esc10 holds 1, 2, 5; the column fold of C:"),
        ("esc10:fold=x", r"'esc10:fold=x' leaves no clip out: the column fold of esc10 holds 1, 2, 5$"),
        ("fol=2", r"leaves no clip out: there is no column fol, but fold, id, speaker$"),
    ],
)
def test_holding_out_nothing_is_a_mistake(entry: str, message: str, tables: list[ClipTable]) -> None:
    with pytest.raises(ValueError, match=message):
        held_out_clips(SOURCES, tables, parse_hold_out([entry], SOURCES))


@pytest.mark.unit
def test_only_some_of_many_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"holds 0, 1, .*, \.\.\.$"):
        held_out_clips(["many"], [table(fold=list(range(11)))], parse_hold_out(["fold=99"], ["many"]))
