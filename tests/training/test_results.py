import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hf_audioformer.training.results import (
    SplitResult,
    chance_level,
    format_results,
    read_results,
    with_official_epoch,
    write_results,
)


def result(name: str, score: float) -> SplitResult:
    clips = {"train": 30, "validation": 5, "test": 10}
    return SplitResult(name, "accuracy", score, 0.25, {"accuracy": score, "macro_f1": 0.1}, clips, 12.34)


@pytest.mark.unit
def test_chance_of_single_labels_is_the_most_frequent_training_class() -> None:
    assert chance_level(np.array([2, 2, 0, 1]), np.array([2, 0, 0, 0])) == 0.25
    assert chance_level(np.array([2, 2, 0]), np.array([1, 1])) == 0.0


@pytest.mark.unit
def test_chance_of_several_labels_is_the_map_of_a_random_ranking() -> None:
    from sklearn.metrics import average_precision_score

    random = np.random.default_rng(0)
    shares = np.array([0.1, 0.4, 0.7, 0.0])
    targets = (random.random((4000, 4)) < shares).astype(np.float32)
    ranked = [average_precision_score(targets[:, i], random.random(4000)) for i in range(3)]
    assert chance_level(targets[:0], targets) == pytest.approx(np.mean(ranked), abs=0.02)


@pytest.mark.unit
def test_a_table_of_several_splits_ends_with_mean_and_spread() -> None:
    lines = format_results([result("fold_1", 0.5), result("speaker_theo", 0.7)]).splitlines()
    assert lines[0].split() == ["split", "accuracy", "chance", "train", "test", "seconds"]
    assert lines[1].split() == ["fold_1", "50.0%", "25.0%", "30", "10", "12"]
    assert lines[2].split()[:2] == ["speaker_theo", "70.0%"]
    assert lines[3].split() == ["mean", "60.0%", "(standard", "deviation", "14.1%)"]
    assert len({line.index("%") for line in lines[1:]}) == 1
    assert len(format_results([result("fold_1", 0.5)]).splitlines()) == 2


@pytest.mark.unit
def test_floors_have_a_column_and_a_line() -> None:
    floor = {"floor": 0.41, "floor_features": "statistics of log-mels"}
    results = [replace(result("fold_1", 0.5), **floor), replace(result("fold_2", 0.7), **floor | {"floor": 0.43})]
    lines = format_results(results).splitlines()
    assert lines[0].split() == ["split", "accuracy", "floor", "chance", "train", "test", "seconds"]
    assert lines[1].split()[1:4] == ["50.0%", "41.0%", "25.0%"]
    assert lines[-1] == "floor: logistic regression on statistics of log-mels of the source's clips, mean 42.0%"
    assert len({len(line) for line in lines[:3]}) == 1
    assert format_results(results[:1]).splitlines()[-1].endswith("of the source's clips")
    assert format_results([*results, result("fold_3", 0.5)]).splitlines()[3].split()[2] == "-"


@pytest.mark.unit
def test_the_official_epoch_is_the_best_in_the_mean_over_the_splits() -> None:
    """Not each split's own best; an epoch that one split has not is not compared."""
    first = replace(result("fold_1", 0.5), test_scores=[0.2, 0.9, 0.6, 1.0])
    second = replace(result("fold_2", 0.7), test_scores=[0.8, 0.1, 0.6])
    found = with_official_epoch([first, second])
    assert [(one.official_epoch, one.official_score) for one in found] == [(3, 0.6), (3, 0.6)]
    assert [one.score for one in found] == [0.5, 0.7]
    *_, mean, official = format_results(found).splitlines()
    assert mean.split()[:2] == ["mean", "60.0%"]
    assert official.endswith("epoch 3, which was chosen on these test clips: 60.0%")
    assert with_official_epoch([first, result("fold_2", 0.7)])[0].official_epoch is None
    assert "epoch" not in format_results([first, second])


@pytest.mark.fault
def test_what_is_not_defined_is_null_in_the_file_and_nan_again(tmp_path: Path) -> None:
    metrics = {"accuracy": 1.0, "dprime": math.inf, "map": math.nan}
    write_results(tmp_path / "results.json", [replace(result("fold_1", math.nan), metrics=metrics)])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    (written,) = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert written["metrics"] == {"accuracy": 1.0, "dprime": None, "map": None}
    (again,) = read_results(tmp_path / "results.json")
    assert again.metrics["accuracy"] == 1.0
    assert math.isnan(again.metrics["dprime"])
    assert "nan%" in format_results([again])


@pytest.mark.unit
def test_results_read_back_equal(tmp_path: Path) -> None:
    results = [replace(result("fold_1", 0.5), test_scores=[0.1, 0.5]), result("fold_2", 1 / 3)]
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results
    assert json.loads((tmp_path / "results.json").read_text())[1]["score"] == 1 / 3
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
