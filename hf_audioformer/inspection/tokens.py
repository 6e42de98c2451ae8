"""Where a model's tokens stand in time and, for the patches of an AST, in frequency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ..audio.fbank import HOP_SECONDS, LOWEST_HZ, WINDOW_SECONDS
from ..models.ast.positions_ast import patch_grid

__all__ = ["TokenLayout", "layout_of"]


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of one clip: special ones, then a grid of `rows` over frequency and `steps` over time, special ones.

    The grid is flattened frequency-major, as an AST has it, or with `time_major` the patches of one time after the
    other, as an AudioFormer has them; of all other models it has one row.

    Args:
        step_seconds: From the middle of a step to the middle of the next.
        first_seconds: The middle of the first step.
        rows_over: What the rows divide: frequency, or the coefficients of MFCC.
        row_edges_hz: Where rows over frequency begin and the last one ends, lowest first, (rows + 1).
        leading, trailing: Names of the special tokens before and behind the grid.
        summary: Whether the leading tokens are what the model classifies by, as those of an AST.
    """

    steps: int
    step_seconds: float
    first_seconds: float
    rows: int = 1
    rows_over: Literal["frequency", "coefficients"] = "frequency"
    row_edges_hz: tuple[float, ...] | None = None
    leading: tuple[str, ...] = ()
    trailing: tuple[str, ...] = ()
    summary: bool = False
    time_major: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.leading) + self.rows * self.steps + len(self.trailing)

    @property
    def seconds(self) -> np.ndarray:
        """The middle of each step, (steps,)."""
        return self.first_seconds + self.step_seconds * np.arange(self.steps)

    def steps_before(self, seconds: float) -> int:
        """How many steps have their middle before a time; at least 1. A model that pads has more steps than that."""
        return max(1, int(np.count_nonzero(self.seconds < seconds)))

    def fold(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """The grid of values by token: an axis of tokens becomes two, rows and steps, and special tokens go.

        Raises:
            ValueError: The axis has another length than there are tokens.
        """
        axis %= values.ndim
        if values.shape[axis] != self.num_tokens:
            raise ValueError(f"axis {axis} of {values.shape} must have the {self.num_tokens} tokens of the layout.")
        start = len(self.leading)
        grid = values[(slice(None),) * axis + (slice(start, start + self.rows * self.steps),)]
        before, after = values.shape[:axis], values.shape[axis + 1 :]
        if self.time_major:
            return grid.reshape(*before, self.steps, self.rows, *after).swapaxes(axis, axis + 1)
        return grid.reshape(*before, self.rows, self.steps, *after)


def layout_of(
    config: Any, extractor: Any, inputs: Mapping[str, Any], num_tokens: int, clip_seconds: float
) -> TokenLayout:
    """The layout of the tokens that an encoder makes of one clip.

    It is exact for AudioFormer, AST, Whisper and encoders that convolve the waveform (Wav2Vec2, HuBERT, WavLM, ...);
    of any other model, and of one that joins steps afterwards, the tokens are taken to lie evenly over the clip.

    Args:
        config: The model's configuration.
        inputs: What the extractor made of the clip, a batch of one.
        num_tokens: Tokens of the encoder's output.
        clip_seconds: Length of the clip.
    """
    candidates = (
        _audioformer_layout(config, extractor, inputs, num_tokens),
        _signal_layout(config, extractor, num_tokens),
        _ast_layout(config, extractor),
        _whisper_layout(config, extractor),
        None if "input_ids" in inputs else _waveform_layout(config, extractor, clip_seconds),
    )
    for layout in candidates:
        if layout is not None and layout.num_tokens == num_tokens:
            return layout
    step = clip_seconds / num_tokens
    return TokenLayout(num_tokens, step, step / 2)


def _audioformer_layout(config: Any, extractor: Any, inputs: Mapping[str, Any], num_tokens: int) -> TokenLayout | None:
    if config.model_type != "audioformer" or "input_ids" not in inputs:
        return None
    first_book = np.asarray(inputs["input_ids"][0]).reshape(num_tokens, -1)[:, 0]
    leading = ("BOA",) if first_book[0] == config.boa_token_id else ()
    trailing = ("EOA",) if first_book[-1] == config.eoa_token_id else ()
    step = 1 / extractor.frame_rate
    steps = num_tokens - len(leading) - len(trailing)
    return TokenLayout(steps, step, step / 2, leading=leading, trailing=trailing)


def _signal_layout(config: Any, extractor: Any, num_tokens: int) -> TokenLayout | None:
    """An AudioFormer's step stands for the frames or samples up to the next one, or for those of a patch."""
    if config.model_type != "audioformer" or config.front_end == "codes":
        return None
    window = 1 / extractor.frame_rate if config.front_end == "waveform" else WINDOW_SECONDS
    step, frames, patches = config.input_stride / extractor.frame_rate, config.input_stride, _PatchRows(1)
    if config.front_end == "patches":
        (frames, bands), band_stride = config.patch_size, config.patch_stride[1]
        patches = _patch_rows(config.num_features, bands, band_stride, extractor.kind, extractor.sampling_rate)
    middle = ((frames - 1) / extractor.frame_rate + window) / 2
    return TokenLayout(num_tokens // patches.rows, step, middle, *patches, time_major=True)


class _PatchRows(NamedTuple):
    """The fields of a layout of these names."""

    rows: int
    rows_over: Literal["frequency", "coefficients"] = "frequency"
    row_edges_hz: tuple[float, ...] | None = None


def _patch_rows(num_features: int, height: int, stride: int, kind: str, sampling_rate: int) -> _PatchRows:
    """The rows of patches of `height` features, `stride` apart. Where patches overlap, each row is drawn as wide as the
    stride, around the middle of its patches."""
    rows = (num_features - height) // stride + 1
    if kind == "mfcc":
        return _PatchRows(rows, "coefficients")
    features = (height - stride) / 2 + stride * np.arange(rows + 1)  # feature k lies between k and k + 1
    if kind == "spectrogram":  # linear: the middles of its features lie from 0 to half the rate
        edges = (features - 0.5) * sampling_rate / 2 / (num_features - 1)
    else:
        edges = _hz_of_mel_share(features / num_features, sampling_rate)
    return _PatchRows(rows, "frequency", tuple(edges.clip(0, sampling_rate / 2).tolist()))


def _hz_of_mel_share(shares: np.ndarray, sampling_rate: int) -> np.ndarray:
    """The frequencies at shares of the mel axis of Kaldi's log-mels, which goes from 20 Hz to half the rate."""
    lowest, highest = math.log(1 + LOWEST_HZ / 700), math.log(1 + sampling_rate / 2 / 700)
    return 700 * (np.exp(lowest + shares * (highest - lowest)) - 1)


def _ast_layout(config: Any, extractor: Any) -> TokenLayout | None:
    """A patch hears its frames of 10 ms and the rest of the last one's window."""
    if config.model_type != "audio-spectrogram-transformer":
        return None
    _, steps = patch_grid(config)
    patch_seconds = (config.patch_size - 1) * HOP_SECONDS + WINDOW_SECONDS
    sizes = (config.num_mel_bins, config.patch_size, config.frequency_stride)
    return TokenLayout(
        *(steps, config.time_stride * HOP_SECONDS, patch_seconds / 2),
        *_patch_rows(*sizes, "log_mel", extractor.sampling_rate),
        leading=("class", "distillation"),
        summary=True,
    )


def _whisper_layout(config: Any, extractor: Any) -> TokenLayout | None:
    """Frames are centred on multiples of the hop, and the second convolution keeps every other one."""
    if config.model_type != "whisper":
        return None
    return TokenLayout(config.max_source_positions, 2 * extractor.hop_length / extractor.sampling_rate, 0.0)


def _waveform_layout(config: Any, extractor: Any, clip_seconds: float) -> TokenLayout | None:
    """The convolutions' common stride; a step's middle is that of the samples it hears."""
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    if not isinstance(kernels, (list, tuple)) or not isinstance(strides, (list, tuple)):
        return None
    heard = 1 + sum((kernel - 1) * math.prod(strides[:index]) for index, kernel in enumerate(kernels))
    rate, stride = extractor.sampling_rate, math.prod(strides)
    steps = (round(clip_seconds * rate) - heard) // stride + 1
    return TokenLayout(steps, stride / rate, heard / 2 / rate)
