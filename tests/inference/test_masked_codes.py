"""Surprise is that of hiding each frame alone, and gaps are filled as a plain loop fills them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_audioformer import AudioFormerForMaskedLM
from hf_audioformer.inference import fill_frames, surprise
from hf_audioformer.inference.masked_codes import _drawn

from ..models.audioformer.tiny_models import VARIANTS, random_codes, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = 13


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(AudioFormerForMaskedLM, **VARIANTS[request.param])


def clip(model: Any) -> Tensor:
    """`input_ids` of a clip between BOA and EOA."""
    codes = random_codes(model.config, 1, FRAMES)[0]
    boundary = torch.full_like(codes[:1], 0)
    return torch.cat([boundary + model.config.boa_token_id, codes, boundary + model.config.eoa_token_id])


@torch.no_grad()
def log_probabilities(model: Any, input_ids: Tensor, hidden: list[int]) -> Tensor:
    """(frames, num_codebooks, codes) of a clip with some frames hidden; tokens that are no codes do not count."""
    masked = input_ids.clone()
    masked[hidden] = model.config.mask_token_id
    logits = model(input_ids=masked[None]).logits[0]
    return logits.reshape(len(input_ids), model.config.num_codebooks, -1)[..., :99].log_softmax(-1)


@pytest.mark.reference
@pytest.mark.parametrize(("span", "gap"), [(1, 99), (1, 3), (3, 4)])
def test_surprise_is_that_of_a_plain_loop(model: Any, span: int, gap: int) -> None:
    """With a gap longer than the clip each frame is hidden alone."""
    input_ids, expected = clip(model), {}
    spans = [range(start, min(start + span, FRAMES + 1)) for start in range(1, FRAMES + 1, span)]
    passes = min(len(spans), 1 + math.ceil(gap / span))
    for first in range(passes):
        hidden = [frame for frames in spans[first::passes] for frame in frames]
        found = log_probabilities(model, input_ids, hidden)
        for frame in hidden:
            codes = input_ids[frame].reshape(-1).tolist()
            expected[frame] = torch.stack([-found[frame, book, code] for book, code in enumerate(codes)])
    for batch_size in (1, 4):
        shares: list[float] = []
        nats = surprise(model, input_ids, span_frames=span, gap_frames=gap, batch_size=batch_size, heard=shares.append)
        torch.testing.assert_close(nats, torch.stack([expected[frame] for frame in range(1, FRAMES + 1)]))
        assert sum(shares) == pytest.approx(1)


@pytest.mark.reference
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_without_chance_a_gap_is_filled_as_by_a_plain_loop(model: Any, steps: int) -> None:
    input_ids = clip(model)
    hidden = torch.zeros(FRAMES + 2, dtype=torch.bool)
    hidden[[2, 3, 4, 5, 9, 12]] = True
    expected, open_frames = input_ids.clone(), [2, 3, 4, 5, 9, 12]
    for step in range(1, steps + 1):
        left = int(6 * math.cos(math.pi / 2 * step / steps)) if step < steps else 0
        best = log_probabilities(model, expected, open_frames).max(-1)
        surest = sorted(open_frames, key=lambda frame: -float(best.values[frame].mean()))
        for frame in surest[: max(0, len(open_frames) - left)]:
            expected[frame] = best.indices[frame].reshape(expected[frame].shape)
            open_frames.remove(frame)
    filled_frames: list[int] = []
    found = fill_frames(model, input_ids, hidden, steps=steps, temperature=0, on_step=filled_frames.append)
    assert torch.equal(found, expected)
    assert sum(filled_frames) == 6


@pytest.mark.property
def test_what_is_filled_depends_on_the_rest_and_the_seed_alone(model: Any) -> None:
    input_ids, hidden = clip(model), torch.zeros(FRAMES + 2, dtype=torch.bool)
    hidden[4:11] = True
    other = input_ids.clone()
    other[4:11] = 5
    first, again, another = (
        fill_frames(model, ids, hidden, seed=seed) for ids, seed in ((input_ids, 3), (other, 3), (input_ids, 4))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, another)
    assert torch.equal(first[~hidden], input_ids[~hidden])
    assert first.max() == input_ids[-1].max()
    assert (first[hidden] < 99).all()


@pytest.mark.reference
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_codes_are_drawn_with_their_probability(temperature: float) -> None:
    random = torch.Generator().manual_seed(0)
    log_probabilities = torch.randn(2, 5, generator=random).log_softmax(-1)
    codes, means = _drawn(log_probabilities.expand(20_000, 2, 5), temperature, random)
    for book in range(2):
        shares = torch.bincount(codes[:, book], minlength=5) / 20_000
        expected = (log_probabilities[book] / temperature).softmax(0)
        torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)
    torch.testing.assert_close(means[7], log_probabilities[[0, 1], codes[7]].mean())


@pytest.mark.fault
def test_refuses_what_cannot_be_filled(model: Any) -> None:
    input_ids, hidden = clip(model), torch.zeros(FRAMES + 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="the frames to hide must be one or more, and no special tokens"):
        fill_frames(model, input_ids, hidden)
    with pytest.raises(ValueError, match="no special tokens"):
        fill_frames(model, input_ids, ~hidden)
    hidden[3] = True
    with pytest.raises(
        ValueError, match=r"hidden is torch.int64 \(15,\); it must be torch.bool \(15,\), one per frame"
    ):
        fill_frames(model, input_ids, hidden.long())
    with pytest.raises(ValueError, match="this model reads one clip, "):
        fill_frames(model, input_ids[None], hidden)
    with pytest.raises(ValueError, match="steps must be at least 1 and temperature at least 0; found 0"):
        fill_frames(model, input_ids, hidden, steps=0)
    with pytest.raises(ValueError, match="span_frames and gap_frames must be at least 1; found 1 and 0"):
        surprise(model, input_ids, span_frames=1, gap_frames=0)
