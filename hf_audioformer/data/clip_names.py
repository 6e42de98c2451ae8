"""Which clips the rows of a table beside them name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["ClipNames", "few"]


class ClipNames:
    """Clips by what a table calls them: their ids, or the last parts of these, where only one clip has them.

    Args:
        ids: Of the clips.
    """

    def __init__(self, ids: Sequence[str]):
        self._ids = ids
        index_of = {clip_id: index for index, clip_id in enumerate(ids)}
        last_parts = [os.path.basename(clip_id) for clip_id in index_of]
        self._repeated = {name for name, count in Counter(last_parts).items() if count > 1} - index_of.keys()
        self._index_of = dict(zip(last_parts, index_of.values(), strict=True)) | index_of

    def index(self, name: Any, where: str) -> int:
        """The index of the clip of that name; `where` the table has it, for messages.

        Raises:
            ValueError: No clip is called so, or several are.
        """
        if name in self._repeated:
            whole = next(clip_id for clip_id in self._ids if os.path.basename(clip_id) == name)
            raise ValueError(
                f"{where}: several clips are called {name!r} in different folders; give the whole name, as {whole!r}"
            )
        if name not in self._index_of:
            raise ValueError(f"{where}: no clip is called {name!r}; there are {few(self._index_of)}")
        return self._index_of[name]


def few(names: Iterable[str]) -> str:
    """The first names, for messages."""
    names = list(names)
    return ", ".join([*map(repr, names[:3]), *(["..."] if len(names) > 3 else [])])
