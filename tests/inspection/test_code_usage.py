"""Codes are counted, and the perplexity is that of their frequencies."""

import numpy as np
import pytest

from hf_audioformer.inspection.code_usage import code_usage

pytestmark = pytest.mark.unit


def test_usage_of_each_codebook() -> None:
    codes = np.array([[0, 5], [1, 5], [2, 5], [3, 5], [0, 5], [1, 5], [2, 5], [3, 5]])
    usage = code_usage(codes, codebook_size=8)
    assert usage.counts.tolist() == [[2, 2, 2, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 8, 0, 0]]
    assert usage.distinct.tolist() == [4, 1]
    assert usage.perplexity == pytest.approx([4, 1])
    uneven = code_usage(np.array([[0], [0], [0], [1]]), 2)
    assert uneven.perplexity == pytest.approx([np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))])


@pytest.mark.parametrize("codes", [np.zeros((0, 2), int), np.array([[8]]), np.array([[-1]])])
def test_codes_outside_the_codebook_are_refused(codes: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[0, 8\)"):
        code_usage(codes, 8)
