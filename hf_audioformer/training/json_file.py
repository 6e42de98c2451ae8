"""JSON that every reader takes: written whole or not at all, with null for what is not defined."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["is_undefined", "write_json"]


def write_json(path: Path, content: Any) -> None:
    """Writes the content in one atomic step; NaN and infinite numbers, which JSON does not have, become null."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(_finite(content), indent=1, allow_nan=False), encoding="utf-8")
    os.replace(temporary, path)


def is_undefined(value: Any) -> bool:
    """NaN, or infinite as d' of a perfect ranking is."""
    return isinstance(value, float) and not math.isfinite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if is_undefined(value) else value
