"""Weights and biases of classes that may not occur; against scikit-learn see `test_probe.py` and `test_floor.py`."""

import numpy as np
import pytest

from hf_audioformer.training.logistic_regression import logistic_regression


@pytest.mark.unit
def test_a_single_class_that_occurs_always_wins() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    weight, bias = logistic_regression(vectors, np.full(6, 2), 4, inverse_regularization=1.0, max_iterations=10)
    assert (vectors @ weight.T + bias).argmax(1).tolist() == [2] * 6
