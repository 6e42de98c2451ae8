"""Error rates of verification against slow counting and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from hf_audioformer.verification import all_trials, cosines, equal_error_rate, min_detection_cost, trials_of


@pytest.fixture(scope="module")
def trials() -> tuple[np.ndarray, np.ndarray]:
    """Scores, some equal, and whether pairs are the same."""
    random = np.random.default_rng(0)
    same = random.random(300) < 0.2
    return np.round(random.normal(size=300) + 1.5 * same, 1), same


@pytest.mark.reference
def test_rates_equal_counting_at_every_threshold(trials: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = trials
    costs, nearest = [], (np.inf, 0.0, 0.0)
    for threshold in [*sorted(set(scores.tolist())), np.inf]:
        misses = np.mean([score < threshold for score in scores[same]])
        alarms = np.mean([score >= threshold for score in scores[~same]])
        costs.append((0.01 * misses + 0.99 * alarms) / 0.01)
        nearest = min(nearest, (abs(misses - alarms), misses, alarms))
    assert min_detection_cost(scores, same) == pytest.approx(min(costs))
    assert min(nearest[1:]) <= equal_error_rate(scores, same) <= max(nearest[1:])
    false, hits, _ = roc_curve(same, scores, drop_intermediate=False)
    grid = np.linspace(0, 1, 200_001)  # on the lines between the points of the curve
    crossing = grid[np.abs(1 - np.interp(grid, false, hits) - grid).argmin()]
    assert equal_error_rate(scores, same) == pytest.approx(crossing, abs=1e-4)


@pytest.mark.unit
def test_perfect_useless_and_upside_down() -> None:
    same = np.array([True, True, False, False])
    assert equal_error_rate(np.array([0.9, 0.8, 0.1, 0.0]), same) == 0
    assert min_detection_cost(np.array([0.9, 0.8, 0.1, 0.0]), same) == 0
    assert equal_error_rate(np.zeros(4), same) == pytest.approx(0.5)
    assert min_detection_cost(np.zeros(4), same) == pytest.approx(1.0)
    assert equal_error_rate(np.array([0.0, 0.1, 0.8, 0.9]), same) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="0 of 4 pairs of clips have the same label; errors need same and different"):
        equal_error_rate(np.zeros(4), np.zeros(4, dtype=bool))


@pytest.mark.unit
def test_trials_are_all_pairs_or_those_of_a_list() -> None:
    assert all_trials(4).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    many = all_trials(4000)
    assert many.shape == (5_000_000, 2)
    assert (many[:, 0] != many[:, 1]).all()
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected = [a @ b / np.sqrt(a @ a * (b @ b)) for a, b in [vectors[[0, 3]].astype(float)]]
    rows = [{"first": "a", "second": "d"}]
    np.testing.assert_allclose(cosines(vectors, trials_of(rows, list("abcd"), "trials.csv")), expected)
    with pytest.raises(ValueError, match=r"trials.csv, line 2: 'd' is none of the 3 clips"):
        trials_of(rows, list("abc"), "trials.csv")
    with pytest.raises(ValueError, match="expected rows with the columns first and second"):
        trials_of([{"a": "b"}], ["a"], "trials.csv")
