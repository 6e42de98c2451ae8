"""Attention over time, rollout and distances, against plain loops and attention made by hand."""

import numpy as np
import pytest

from hf_audioformer.inspection.attention import (
    attention_focus,
    attention_over_time,
    attention_rollout,
    even_distance,
    mean_distances,
)
from hf_audioformer.inspection.tokens import TokenLayout

pytestmark = pytest.mark.unit

PATCHES = TokenLayout(4, 0.1, 0.05, rows=3, leading=("class", "distillation"), summary=True)
FRAMES = TokenLayout(5, 0.02, 0.01, leading=("BOA",), trailing=("EOA",))


def random_attention(*shape: int) -> np.ndarray:
    weights = np.random.default_rng(0).exponential(size=shape)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def test_over_time_sums_keys_and_means_queries_over_frequency() -> None:
    weights = random_attention(2, 14, 14)
    found = attention_over_time(weights, PATCHES, steps=3)
    assert found.shape == (2, 3, 3)
    for head in range(2):
        for query in range(3):
            for key in range(3):
                cells = [
                    weights[head, 2 + 4 * row + query, 2 + 4 * other + key] for row in range(3) for other in range(3)
                ]
                assert found[head, query, key] == pytest.approx(sum(cells) / 3)


def test_rows_over_time_sum_to_what_special_tokens_leave() -> None:
    weights = random_attention(7, 7)
    found = attention_over_time(weights, FRAMES, steps=5)
    assert found.sum(-1) == pytest.approx(1 - weights[1:6, [0, 6]].sum(-1))


def test_rollout_is_that_of_plain_loops() -> None:
    layers = [random_attention(2, 4, 4), random_attention(2, 4, 4)[::-1] ** 2]
    reached = [[float(i == j) for j in range(4)] for i in range(4)]
    for weights in layers:
        mixed = []
        for query in range(4):
            mean = [(weights[0, query, key] + weights[1, query, key]) / 2 for key in range(4)]
            mixed.append([(mean[key] / sum(mean) + (query == key)) / 2 for key in range(4)])
        reached = [[sum(mixed[i][k] * reached[k][j] for k in range(4)) for j in range(4)] for i in range(4)]
    found = attention_rollout(layers)
    assert found == pytest.approx(np.array(reached), rel=1e-5)
    assert found.sum(-1) == pytest.approx(np.ones(4), rel=1e-5)


def test_focus_of_an_ast_is_what_its_class_tokens_look_at() -> None:
    weights = random_attention(14, 14)
    weights[0], weights[1] = 0, 0
    weights[0, 2 + 4 * 1 + 2] = weights[1, 2 + 4 * 2 + 0] = 1.0
    grid = attention_focus(weights, PATCHES, steps=4)
    expected = np.zeros((3, 4))
    expected[1, 2] = expected[2, 0] = 6  # half of all on each of 12 cells
    assert grid == pytest.approx(expected)


def test_focus_of_a_sequence_is_the_mean_of_the_clips_steps() -> None:
    weights = random_attention(7, 7)
    looks = weights[1:4].mean(0)[1:4]
    assert attention_focus(weights, FRAMES, steps=3)[0] == pytest.approx(looks / looks.mean())
    even = np.full((7, 7), 1 / 7)
    assert attention_focus(even, FRAMES, steps=5) == pytest.approx(np.ones((1, 5)))


def test_distances_of_attention_made_by_hand() -> None:
    steps = 6
    diagonal, even = np.eye(steps), np.full((steps, steps), 1 / steps)
    next_step = 0.5 * np.roll(diagonal, 1, axis=1)  # half of it lies on special tokens; the last row looks at the first
    found = mean_distances(np.stack([diagonal, even, next_step]), step_seconds=0.02)
    assert found == pytest.approx([0, 0.02 * (steps**2 - 1) / (3 * steps), 0.02 * (5 * 1 + 5) / 6])
    assert even_distance(steps, 0.02) == pytest.approx(found[1])
