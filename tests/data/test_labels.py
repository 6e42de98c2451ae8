"""Frequencies by which clips of rare classes are heard as often."""

import numpy as np
import pytest

from hf_audioformer.data.labels import class_balanced_weights


@pytest.mark.unit
def test_every_class_is_drawn_equally_often() -> None:
    classes = np.array([0, 0, 0, 2, 1, 0, 1])
    weights = class_balanced_weights(classes)
    drawn = np.bincount(classes, weights / weights.sum())
    np.testing.assert_allclose(drawn, 1 / 3, atol=0.01)
    np.testing.assert_allclose(class_balanced_weights(np.eye(3)[classes]), weights)


@pytest.mark.unit
def test_several_labels_add_up_and_no_label_weighs_nothing() -> None:
    multi_hot = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(
        class_balanced_weights(multi_hot), [1000 / 2.01 + 1000 / 1.01, 1000 / 2.01, 0.0], rtol=1e-6
    )
