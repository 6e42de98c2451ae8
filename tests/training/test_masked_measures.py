"""Measures of masked codes against plain counting."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from hf_audioformer.training.masked_measures import (
    format_measures,
    masked_counts,
    masked_measures,
    mean_measures,
    unigram_baseline,
)

ROWS = {
    "C1": {"accuracy": 0.5, "perplexity": 4.0, "unigram_accuracy": 0.1, "unigram_perplexity": 100.0},
    "C2": {"accuracy": 0.3, "perplexity": 9.0, "unigram_accuracy": 0.3, "unigram_perplexity": 1.0},
}


@pytest.mark.reference
@pytest.mark.parametrize("num_codebooks", [None, 3])
def test_masked_codes_are_counted_per_codebook(num_codebooks: int | None) -> None:
    shape = (4, 20) if num_codebooks is None else (4, 20, num_codebooks)
    logits = 3 * torch.randn(*shape, 7)
    labels = torch.where(torch.rand(shape) < 0.3, torch.randint(7, shape), -100)
    in_parts = torch.cat([masked_counts(logits[:1], labels[:1]), masked_counts(logits[1:], labels[1:])])
    accuracy, perplexity = masked_measures(in_parts.numpy())
    assert in_parts.shape == (4, num_codebooks or 1, 3)
    for book in range(num_codebooks or 1):
        scores, codes = (
            (x if num_codebooks is None else x[:, :, book]).flatten(0, 1).double() for x in (logits, labels)
        )
        right, surprise, total = 0, 0.0, 0
        for row, code in zip(scores, codes.long().tolist(), strict=True):
            if code >= 0:
                right += int(row.argmax()) == code
                surprise -= math.log(row.softmax(0)[code])
                total += 1
        assert accuracy[book] == pytest.approx(right / total)
        assert perplexity[book] == pytest.approx(math.exp(surprise / total), rel=1e-5)


@pytest.mark.reference
def test_the_unigram_baseline_is_a_count() -> None:
    random = np.random.default_rng(0)
    size = 5
    train, test = (
        [random.integers(size + 4, size=(frames, 2)) ** 2 // 9 for frames in lengths]
        for lengths in ((40, 30), (20, 25))
    )
    accuracy, perplexity = unigram_baseline(train, test, size)

    def codes(clips: list[np.ndarray], book: int) -> list[int]:
        return [int(frame[book]) for clip in clips for frame in clip if max(frame) < size]

    for book in range(2):
        counts = Counter(codes(train, book))
        best = max(range(size), key=lambda code: counts[code])
        found = codes(test, book)
        surprise = -sum(math.log((counts[code] + 1) / (len(codes(train, book)) + size)) for code in found)
        assert accuracy[book] == pytest.approx(sum(code == best for code in found) / len(found))
        assert perplexity[book] == pytest.approx(math.exp(surprise / len(found)))


@pytest.mark.unit
def test_means_and_the_table() -> None:
    assert mean_measures(ROWS) == pytest.approx(
        {"accuracy": 0.4, "perplexity": 6.0, "unigram_accuracy": 0.2, "unigram_perplexity": 10.0}
    )
    lines = format_measures(ROWS).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[-1].strip("|").split("|")] == ["mean", "40.0%", "20.0%", "6.0", "10.0"]
    assert len(format_measures({"C3": ROWS["C1"]}).splitlines()) == 3
