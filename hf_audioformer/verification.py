"""Metrics of verification: whether two clips have the same label (speaker), told by how alike their vectors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["all_trials", "cosines", "equal_error_rate", "error_rates", "min_detection_cost", "trials_of"]

# Costs of NIST's speaker recognition evaluations: one pair in a hundred is the same speaker, both mistakes cost 1.
TARGET_SHARE = 0.01
# Of so many pairs more would change nothing that counts; they are drawn.
MOST_TRIALS = 5_000_000


def all_trials(num_clips: int) -> np.ndarray:
    """Every pair of clips, int64 (trials, 2); of more than five million so many, drawn the same each time."""
    if num_clips * (num_clips - 1) // 2 <= MOST_TRIALS:
        return np.stack(np.triu_indices(num_clips, k=1), axis=1)
    random = np.random.default_rng(0)
    first = random.integers(num_clips, size=MOST_TRIALS)
    return np.stack([first, (first + random.integers(1, num_clips, size=MOST_TRIALS)) % num_clips], axis=1)


def trials_of(rows: Sequence[Mapping[str, str]], ids: Sequence[str], file: str) -> np.ndarray:
    """The pairs of clips that rows name in their columns `first` and `second`, int64 (trials, 2).

    Raises:
        ValueError: The columns are missing, or a clip is not among the `ids`.
    """
    if not rows or not {"first", "second"} <= rows[0].keys():
        raise ValueError(f"{file}: expected rows with the columns first and second, the names of two clips each")
    index_of = {clip_id: index for index, clip_id in enumerate(ids)}
    for line, row in enumerate(rows, start=2):
        for column in ("first", "second"):
            if row[column] not in index_of:
                raise ValueError(f"{file}, line {line}: {row[column]!r} is none of the {len(ids)} clips that were read")
    return np.array([[index_of[row["first"]], index_of[row["second"]]] for row in rows])


def cosines(vectors: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """The cosine of each pair of vectors (clips, size), float64 (trials,)."""
    vectors = vectors.astype(np.float64)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    chunks = np.array_split(trials, max(1, len(trials) // 100_000))
    return np.concatenate([np.einsum("ts,ts->t", units[chunk[:, 0]], units[chunk[:, 1]]) for chunk in chunks])


def error_rates(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds in rising order, and at each the share of same pairs that score less (misses) and of different ones
    that score at least as much (false alarms); beyond the highest score both are 1 and 0.

    Args:
        scores: Float (trials,), the higher the more alike.
        same: Booleans (trials,).

    Raises:
        ValueError: All pairs are the same, or none is.
    """
    if same.all() or not same.any():
        raise ValueError(
            f"{same.sum()} of {len(same)} pairs of clips have the same label; errors need same and different pairs, so "
            "test clips of several labels, and several of each"
        )
    thresholds = np.append(np.unique(scores), np.inf)
    alike, different = np.sort(scores[same]), np.sort(scores[~same])
    misses = alike.searchsorted(thresholds) / len(alike)
    false_alarms = 1 - different.searchsorted(thresholds) / len(different)
    return thresholds, misses, false_alarms


def equal_error_rate(scores: np.ndarray, same: np.ndarray) -> float:
    """The rate at which misses and false alarms are equally frequent, in [0, 1], on the line between the two
    thresholds where they cross; arguments as for `error_rates`."""
    _, misses, false_alarms = error_rates(scores, same)
    crossing = int((misses >= false_alarms).argmax())
    before, after = (false_alarms[place] - misses[place] for place in (crossing - 1, crossing))
    share = before / (before - after)
    return float(misses[crossing - 1] + share * (misses[crossing] - misses[crossing - 1]))


def min_detection_cost(scores: np.ndarray, same: np.ndarray, target_share: float = TARGET_SHARE) -> float:
    """The lowest cost of mistakes at any threshold, where `target_share` of the pairs are the same; 1 is what deciding
    without the scores costs. Arguments as for `error_rates`."""
    _, misses, false_alarms = error_rates(scores, same)
    costs = target_share * misses + (1 - target_share) * false_alarms
    return float(costs.min() / min(target_share, 1 - target_share))
