"""Sound that a model generates from what it hears: a clip without its noise, its continuation, a stretch filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature

from .. import AudioFormerFeatureExtractor
from ..data.generation_dataset import hide
from ..models.audioformer.codec_audioformer import AudioCodec
from ..models.audioformer.generation_audioformer import AudioFormerGenerativeModel
from ..models.audioformer.waveform_audioformer import level_gain
from .listening import encode_clip

__all__ = ["Generated", "generate_clips"]

# What `generate_codes` takes for a code that is to be generated.
UNKNOWN = -100


@dataclass(frozen=True)
class Generated:
    """A generated clip.

    Attributes:
        codes: int64 (frames, num_codebooks).
        waveform: Decoded from them, float32 (samples,), at the level of the clip that was heard.
        round_trip: Decoded from the codes of the clip that was heard, before anything was hidden, to compare with.
    """

    codes: Tensor
    waveform: Tensor
    round_trip: Tensor


def generate_clips(
    model: AudioFormerGenerativeModel,
    extractor: AudioFormerFeatureExtractor,
    waveforms: Sequence[Tensor],
    hidden: Sequence[slice],
    **settings: Any,
) -> list[Generated]:
    """Has a model generate clips from those that it hears.

    A model without an encoder hears nothing, and goes on from the codes that are not hidden.

    Args:
        waveforms: float32 (samples,) each, at the extractor's rate.
        hidden: For each clip the frames that the model does not hear; beyond its end they are added. Where there are
            any, the other frames keep their codes; where there are none, all frames are generated.
        settings: Of Transformers' `generate`: `do_sample`, `num_beams`, `guidance_scale`, ...
    """
    codec = extractor.load_codec()
    gains = [level_gain(waveform, extractor.rms_level_dbfs) for waveform in waveforms]
    own = [
        encode_clip(codec, waveform * gain)[: extractor.num_codebooks].T.cpu()
        for waveform, gain in zip(waveforms, gains, strict=True)
    ]
    clips = [F.pad(codes, (0, 0, 0, max(0, gap.stop - len(codes)))) for codes, gap in zip(own, hidden, strict=True)]
    lengths = torch.tensor([len(codes) for codes in clips])
    known = [_kept(codes, gap) for codes, gap in zip(clips, hidden, strict=True)]
    found = model.generate_codes(
        lengths,
        pad_sequence(known, batch_first=True, padding_value=UNKNOWN),
        **(_heard(extractor, clips, hidden).to(model.device) if model.config.is_encoder_decoder else {}),
        **settings,
    ).cpu()
    generated = []
    for codes, length, heard, waveform, gain in zip(found, lengths, own, waveforms, gains, strict=True):
        samples = len(waveform) if length == len(heard) else None
        generated.append(
            Generated(
                codes[:length],
                _decode(codec, codes[:length])[:samples] / gain,
                _decode(codec, heard)[: len(waveform)] / gain,
            )
        )
    return generated


def _heard(extractor: AudioFormerFeatureExtractor, clips: Sequence[Tensor], hidden: Sequence[slice]) -> BatchFeature:
    """The inputs of the encoder."""
    tokens = [
        torch.from_numpy(extractor.tokens(hide(codes.numpy(), gap, extractor.codebook_size)))
        for codes, gap in zip(clips, hidden, strict=True)
    ]
    masks = [torch.ones(len(ids), dtype=torch.long) for ids in tokens]
    pad = extractor.special_token_id("pad")
    return BatchFeature(
        {
            "input_ids": pad_sequence(tokens, batch_first=True, padding_value=pad),
            "attention_mask": pad_sequence(masks, batch_first=True),
        }
    )


def _decode(codec: AudioCodec, codes: Tensor) -> Tensor:
    """The waveform float32 (samples,) of codes (frames, num_codebooks)."""
    return codec.decode(codes.T[None])[0].cpu()


def _kept(codes: Tensor, hidden: slice) -> Tensor:
    """The codes that are not generated, UNKNOWN where they are."""
    kept = torch.full_like(codes, UNKNOWN)
    if hidden.stop > hidden.start:
        kept[:] = codes
        kept[hidden] = UNKNOWN
    return kept
