"""The metrics through `evaluate.load`, from the folder alone."""

from pathlib import Path

import evaluate
import numpy as np
import pytest

from hf_audioformer import assets
from hf_audioformer.metrics import classification_metrics


@pytest.fixture
def metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> evaluate.EvaluationModule:
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_OFFLINE", True)
    return evaluate.load(assets.metric_folder(), cache_dir=str(tmp_path))


@pytest.mark.reference
@pytest.mark.parametrize("labels", [(40,), (40, 5)], ids=["single", "multi"])
def test_it_gives_what_the_package_gives(labels: tuple[int, ...], metric: evaluate.EvaluationModule) -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal((40, 5)).astype(np.float32)
    references = random.integers(2, size=labels)
    expected = classification_metrics(logits, references)
    assert metric.compute(predictions=logits, references=references) == expected
    for start in (0, 16, 32):
        metric.add_batch(predictions=logits[start : start + 16], references=references[start : start + 16].tolist())
    assert metric.compute() == expected


@pytest.mark.unit
def test_it_says_what_it_takes(metric: evaluate.EvaluationModule) -> None:
    assert metric.name == "audio_classification"
    assert "lwlrap" in metric.inputs_description
