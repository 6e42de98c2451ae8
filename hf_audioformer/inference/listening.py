"""Sound that comes out of codes: round trips of a codec, filled gaps, and where a clip surprises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import AudioFormerFeatureExtractor, AudioFormerForMaskedLM
from ..data.windows import window_starts
from ..models.audioformer.codec_audioformer import AudioCodec
from ..models.audioformer.waveform_audioformer import level_gain
from .front_end import DEFAULT_WINDOW_SECONDS
from .masked_codes import fill_frames, surprise

__all__ = ["Infilled", "encode_clip", "infill", "kbps", "level_gain", "round_trips", "surprise_track"]


def encode_clip(codec: AudioCodec, waveform: Tensor) -> Tensor:
    """Codes of all codebooks, int64 (num_codebooks, frames), of a waveform (samples,) of the codec's level and rate."""
    whole_frames = F.pad(waveform, (0, -len(waveform) % codec.hop_length))
    return codec.encode(whole_frames[None], codec.num_codebooks)[0]


def kbps(codec: AudioCodec, num_codebooks: int) -> float:
    """The bit rate of so many codebooks, in kilobits per second."""
    return codec.frame_rate * num_codebooks * math.log2(codec.codebook_size) / 1000


def round_trips(
    codec: AudioCodec, waveform: Tensor, codebooks: Sequence[int], rms_level_dbfs: float | None = None
) -> dict[int, Tensor]:
    """What is left of a waveform after the codec, float32 (samples,), by the number of codebooks.

    Args:
        codec: Encodes with all its codebooks and decodes the first ones of them.
        waveform: float32 (samples,) at the codec's rate.
        codebooks: Numbers of codebooks.
        rms_level_dbfs: Level at which the codec hears the clip, in dB relative to 1; the clip gets its own back.

    Raises:
        ValueError: The codec has not so many codebooks.
    """
    wrong = [count for count in codebooks if not 1 <= count <= codec.num_codebooks]
    if wrong:
        raise ValueError(f"codebooks are {list(codebooks)}; this codec has 1 to {codec.num_codebooks}")
    gain = level_gain(waveform, rms_level_dbfs)
    codes = encode_clip(codec, waveform * gain)
    return {count: codec.decode(codes[None, :count])[0].cpu()[: len(waveform)] / gain for count in codebooks}


@dataclass(frozen=True)
class Infilled:
    """A clip with a filled gap.

    Attributes:
        waveform: Decoded from the filled codes, float32 (samples,).
        round_trip: Decoded from the clip's own codes, to compare with.
        start_seconds, end_seconds: The gap, in whole frames.
    """

    waveform: Tensor
    round_trip: Tensor
    start_seconds: float
    end_seconds: float


def infill(
    model: AudioFormerForMaskedLM,
    extractor: AudioFormerFeatureExtractor,
    waveform: Tensor,
    start_seconds: float,
    end_seconds: float,
    **settings: Any,
) -> Infilled:
    """Has a masked language model fill a stretch of a clip, which it does not hear.

    Args:
        waveform: float32 (samples,) at the extractor's rate.
        start_seconds, end_seconds: The stretch; all frames that it touches are filled.
        settings: `steps`, `temperature`, `seed` and `on_step` of `fill_frames`.

    Raises:
        ValueError: The stretch does not lie within the clip, or is all of it.
    """
    seconds = len(waveform) / extractor.sampling_rate
    frames = -(-len(waveform) // extractor.hop_length)
    first = math.floor(round(start_seconds * extractor.frame_rate, 6))
    last = min(math.ceil(round(end_seconds * extractor.frame_rate, 6)), frames)
    if not 0 <= start_seconds < end_seconds <= seconds or last - first == frames:
        raise ValueError(
            f"the stretch from {start_seconds} to {end_seconds} s must lie within the clip, which has {seconds:.2f} s, "
            "and leave some of it"
        )
    input_ids = _tokens(extractor, waveform)
    hidden = torch.zeros(len(input_ids), dtype=torch.bool)
    hidden[first + extractor.add_boundary_tokens : last + extractor.add_boundary_tokens] = True
    filled = fill_frames(model, input_ids, hidden, **settings)
    gain = level_gain(waveform, extractor.rms_level_dbfs)
    decoded, own = (extractor.decode(ids)[: len(waveform)] / gain for ids in (filled, input_ids))
    return Infilled(decoded, own, first / extractor.frame_rate, last / extractor.frame_rate)


def surprise_track(
    model: AudioFormerForMaskedLM,
    extractor: AudioFormerFeatureExtractor,
    waveform: Tensor,
    *,
    window_seconds: float = DEFAULT_WINDOW_SECONDS,
    heard: Callable[[float], object] = lambda share: None,
    **settings: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Where each frame begins, in seconds, float64 (frames,), and how little its codes were expected, in nats, float32
    (frames, num_codebooks).

    Args:
        waveform: float32 (samples,) at the extractor's rate.
        window_seconds: Longer clips are heard in such windows, one after the other; each knows its own frames alone.
        heard: Told after each batch which share of the clip it was.
        settings: `span_frames`, `gap_frames` and `batch_size` of `surprise`.

    Raises:
        ValueError: The clip is too short for a frame, or a setting is out of range.
    """
    boundaries = int(extractor.add_boundary_tokens)
    tokens = _tokens(extractor, waveform)
    codes = tokens[boundaries : len(tokens) - boundaries].numpy()
    window = round(window_seconds * extractor.frame_rate)
    if window < 1:
        raise ValueError(f"window is {window_seconds} s; it must be at least a frame, {1 / extractor.frame_rate:g} s")
    found: list[Tensor] = []
    done = 0
    for start in window_starts(len(codes), window, window):
        part = torch.from_numpy(extractor.tokens(codes[start : start + window].reshape(-1, extractor.num_codebooks)))
        share = min(window, len(codes) - done) / len(codes)  # of the clip, in this part
        nats = surprise(model, part, heard=partial(_scaled, heard, share), **settings)
        found.append(nats[done - start :])
        done = start + len(nats)
    return np.arange(len(codes)) / extractor.frame_rate, torch.cat(found).numpy()


def _scaled(heard: Callable[[float], object], share: float, of_part: float) -> None:
    heard(share * of_part)


def _tokens(extractor: AudioFormerFeatureExtractor, waveform: Tensor) -> Tensor:
    """`input_ids` of one clip, int64 (frames,) or (frames, num_codebooks), none of it cut off."""
    features = extractor(waveform, sampling_rate=extractor.sampling_rate, truncation=False, return_tensors="pt")
    return features["input_ids"][0]
