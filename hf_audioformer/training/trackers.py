"""The trackers that `training.report_to` names, looked for before anything is read or trained."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

__all__ = ["check_trackers"]

# Those that the extra `tracking` brings; of the others Transformers says itself what they need.
TRACKERS = ("tensorboard", "trackio")


def check_trackers(training: Mapping[str, Any]) -> None:
    """Checks that the trackers in the section `training` of a recipe are installed.

    Raises:
        ImportError: One is not.
    """
    named = training.get("report_to") or []
    for tracker in [named] if isinstance(named, str) else named:
        if tracker in TRACKERS and find_spec(tracker) is None:
            raise ImportError(f"training.report_to {tracker} needs {tracker}: pip install 'hf_audioformer[tracking]'")
