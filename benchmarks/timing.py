"""Timing of several functions side by side on a machine that does other things too."""

import statistics
import time
from collections.abc import Callable


def compare(
    candidates: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each candidate, over `repeats` rounds in which all take turns, after a warm-up.

    They are wall-clock seconds; with `time.process_time`, seconds of all cores in work for this process, which other
    work on the machine changes less.
    """
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
