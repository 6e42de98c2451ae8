"""Clips that a training never hears, said by `[SOURCE:]COLUMN=VALUE`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .clip_table import ClipTable

__all__ = ["HoldOut", "held_out_clips", "parse_hold_out"]

# So many values of a column are named in a message.
VALUES_SHOWN = 10


@dataclass(frozen=True)
class HoldOut:
    """The clips with `value` in `column`: those of `source`, or of every source that has the column."""

    source: str | None
    column: str
    value: str

    def concerns(self, source: str) -> bool:
        """Whether clips of a source can be among these."""
        return self.source in (None, source)

    def clips(self, table: ClipTable) -> set[int]:
        """The indices of these clips in a source's table."""
        if self.column not in table.table.column_names:
            return set()
        return {index for index, found in enumerate(table.column(self.column)) if str(found) == self.value}

    def __str__(self) -> str:
        return f"{self.source + ':' if self.source else ''}{self.column}={self.value}"


def parse_hold_out(entries: Sequence[str], sources: Sequence[str]) -> list[HoldOut]:
    """What each of the `entries` leaves out of `sources`; several values are several entries.

    `esc10:fold=5` is fold 5 of the source esc10, `speaker=theo` that speaker in every source with speakers.

    Raises:
        ValueError: An entry has another form or names another source.
    """
    parsed = []
    for entry in entries:
        source = next((source for source in sources if entry.startswith(f"{source}:")), None)
        column, equals, value = entry.removeprefix(f"{source}:").partition("=")
        if not (column and equals) or ":" in column:
            raise ValueError(
                f"hold_out {entry!r} must be COLUMN=VALUE or SOURCE:COLUMN=VALUE with a SOURCE out of {list(sources)}"
            )
        parsed.append(HoldOut(source, column, value))
    return parsed


def held_out_clips(sources: Sequence[str], tables: Sequence[ClipTable], hold_out: Sequence[HoldOut]) -> list[set[int]]:
    """For each source the indices of the clips in its table that are left out.

    Raises:
        ValueError: One of `hold_out` leaves nothing out, so that it is mistyped.
    """
    left_out: list[set[int]] = [set() for _ in sources]
    for one in hold_out:
        concerned = [index for index, source in enumerate(sources) if one.concerns(source)]
        found = {index: one.clips(tables[index]) for index in concerned}
        if not any(found.values()):
            raise ValueError(f"hold_out {str(one)!r} leaves no clip out: {_what_there_is(one, sources, tables)}")
        for index, clips in found.items():
            left_out[index] |= clips
    return left_out


def _what_there_is(one: HoldOut, sources: Sequence[str], tables: Sequence[ClipTable]) -> str:
    known = []
    for source, table in zip(sources, tables, strict=True):
        if one.concerns(source) and one.column in table.table.column_names:
            values = sorted({str(value) for value in table.column(one.column)})
            shown = ", ".join(values[:VALUES_SHOWN]) + (", ..." if len(values) > VALUES_SHOWN else "")
            known.append(f"the column {one.column} of {source} holds {shown}")
    columns = sorted({name for table in tables for name in table.table.column_names})
    return "; ".join(known) or f"there is no column {one.column}, but {', '.join(columns)}"
