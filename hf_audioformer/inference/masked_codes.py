"""What a masked language model makes of hidden frames: filling a gap, and surprise along a clip.

Both take the `input_ids` of one clip, as its feature extractor gives them, of an AudioFormer with the head for masked
codes. Frames are hidden with all their codebooks, as in pretraining; special tokens never are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import AudioFormerForMaskedLM
from ..models.audioformer.configuration_audioformer import special_token_id

__all__ = ["GAP_FRAMES", "SPAN_FRAMES", "fill_frames", "surprise"]

# How surprise is measured where nothing else is asked for: one frame alone is easily guessed from the next.
SPAN_FRAMES, GAP_FRAMES = 4, 12


@torch.inference_mode()
def fill_frames(
    model: AudioFormerForMaskedLM,
    input_ids: Tensor,
    hidden: Tensor,
    *,
    steps: int = 12,
    temperature: float = 1.0,
    seed: int = 0,
    on_step: Callable[[int], object] = lambda frames: None,
) -> Tensor:
    """The clip with its hidden frames filled, a few in each step: int64 in the shape of `input_ids`.

    In each step codes are drawn for all frames that are still hidden, and of these the model keeps the ones it is
    surest of (the mean log-probability of the drawn codes, with Gumbel noise that dies down with the steps) and hides
    the others again. After step s of S cos(pi / 2 * s / S) of the frames are still hidden: few are kept at first, when
    there is little to go by.

    Args:
        model: In evaluation mode.
        input_ids: int64 (frames,) or (frames, num_codebooks), with the special tokens.
        hidden: bool (frames,): which to fill. Their codes are not looked at.
        steps: More steps hear more of what was filled before.
        temperature: Of the draw; 0 takes the likeliest code and the surest frames, without chance.
        seed: Of the draw.
        on_step: Told after each step how many frames it filled.

    Raises:
        ValueError: No frame or a special token is to be filled, or a setting is out of range.

    Source: MaskGIT (arXiv 2202.04200), section 3.2; here a token is a frame with all its codebooks.
    """
    if steps < 1 or temperature < 0:
        raise ValueError(f"steps must be at least 1 and temperature at least 0; found {steps} and {temperature}")
    _check_hidden(model, input_ids, hidden)
    random = torch.Generator().manual_seed(seed)
    filled, hidden = input_ids.clone(), hidden.clone()
    total, mask = int(hidden.sum()), special_token_id(model.config.codebook_size, "mask")
    for step in range(1, steps + 1):
        left = math.floor(total * math.cos(math.pi / 2 * step / steps)) if step < steps else 0
        places = hidden.nonzero().flatten()
        if len(places) <= left:
            continue
        filled[hidden] = mask
        codes, log_probabilities = _drawn(_log_probabilities(model, filled[None])[0, places], temperature, random)
        noise = -torch.empty(len(places)).exponential_(generator=random).log()
        sureness = log_probabilities + temperature * (1 - step / steps) * noise
        kept = sureness.topk(len(places) - left).indices
        filled[places[kept]] = codes[kept].reshape(-1, *filled.shape[1:])
        hidden[places[kept]] = False
        on_step(len(kept))
    return filled


@torch.inference_mode()
def surprise(
    model: AudioFormerForMaskedLM,
    input_ids: Tensor,
    *,
    span_frames: int = SPAN_FRAMES,
    gap_frames: int = GAP_FRAMES,
    batch_size: int = 4,
    heard: Callable[[float], object] = lambda share: None,
) -> Tensor:
    """How little each code was expected from the others: float32 (frames, num_codebooks), in nats.

    It is the negative log-probability of a code whose frame is hidden, with all its codebooks, in a span of
    `span_frames`; spans that are hidden at the same time have `gap_frames` between them. With a gap as long as the clip
    each span is hidden alone. Special tokens have no surprise and no row.

    Args:
        model: In evaluation mode.
        input_ids: int64 (frames,) or (frames, num_codebooks), with the special tokens.
        span_frames: Frames hidden together; a longer span has less to go by, and is less easily guessed from its
            neighbours.
        gap_frames: Longer gaps take more passes: 1 + gap / span of them, each of the whole clip.
        batch_size: Passes computed together; changes nothing but speed.
        heard: Told after each batch which share of the passes it was.

    Raises:
        ValueError: There is no code among the tokens, or a setting is out of range.
    """
    if span_frames < 1 or gap_frames < 1:
        raise ValueError(f"span_frames and gap_frames must be at least 1; found {span_frames} and {gap_frames}")
    is_code = _is_code(model, input_ids)
    _check_hidden(model, input_ids, is_code)
    places, mask = is_code.nonzero().flatten(), special_token_id(model.config.codebook_size, "mask")
    passes = min(1 + math.ceil(gap_frames / span_frames), math.ceil(len(places) / span_frames))
    turn = torch.arange(len(places)) // span_frames % passes
    found = torch.empty(len(places), model.config.num_codebooks)
    for turns in torch.arange(passes).split(batch_size):
        rows = input_ids.repeat(len(turns), *[1] * input_ids.dim())
        for row, now in zip(rows, turns, strict=True):
            row[places[turn == now]] = mask
        log_probabilities = _log_probabilities(model, rows)
        for of_pass, now in zip(log_probabilities, turns, strict=True):
            hidden = places[turn == now]
            codes = input_ids[hidden].reshape(len(hidden), -1, 1)
            found[turn == now] = -of_pass[hidden].gather(2, codes)[..., 0]
        heard(len(turns) / passes)
    return found


def _log_probabilities(model: AudioFormerForMaskedLM, input_ids: Tensor) -> Tensor:
    """Log-probabilities among the codes alone, float32 (batch, frames, num_codebooks, codebook_size), on the CPU."""
    config = model.config
    logits = model(input_ids.to(model.device)).logits.float().cpu()
    logits = logits.reshape(*input_ids.shape[:2], config.num_codebooks, config.vocab_size)
    return F.log_softmax(logits[..., : config.codebook_size], dim=-1)


def _drawn(log_probabilities: Tensor, temperature: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes (frames, num_codebooks) from (frames, num_codebooks, codebook_size), and their mean log-probability."""
    if temperature == 0:
        codes = log_probabilities.argmax(dim=-1)
    else:
        weights = (log_probabilities / temperature).softmax(dim=-1).flatten(0, 1)
        codes = torch.multinomial(weights, 1, generator=random).view(log_probabilities.shape[:2])
    return codes, log_probabilities.gather(2, codes[..., None])[..., 0].mean(dim=1)


def _is_code(model: AudioFormerForMaskedLM, input_ids: Tensor) -> Tensor:
    """Which frames hold codes and no special token, bool (frames,)."""
    return (input_ids.reshape(len(input_ids), -1) < model.config.codebook_size).all(dim=1)


def _check_hidden(model: AudioFormerForMaskedLM, input_ids: Tensor, hidden: Tensor) -> None:
    """Raises a ValueError unless `hidden` names some frames of a clip that the model reads, and no special token."""
    codebooks = model.config.num_codebooks
    if input_ids.dim() == 0 or input_ids.shape[1:] != (() if codebooks == 1 else (codebooks,)):
        expected = "(frames,)" if codebooks == 1 else f"(frames, {codebooks})"
        raise ValueError(f"input_ids has shape {tuple(input_ids.shape)}; this model reads one clip, {expected}")
    if hidden.dtype != torch.bool or hidden.shape != input_ids.shape[:1]:
        raise ValueError(
            f"hidden is {hidden.dtype} {tuple(hidden.shape)}; it must be torch.bool ({len(input_ids)},), one per frame"
        )
    if not hidden.any() or not _is_code(model, input_ids)[hidden].all():
        raise ValueError("the frames to hide must be one or more, and no special tokens (BOA, EOA, PAD) among them")
