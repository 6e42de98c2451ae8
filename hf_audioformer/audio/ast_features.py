"""The front end of the Audio Spectrogram Transformer: waveforms in, normalised log-mel spectrograms out."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import ASTFeatureExtractor, BatchFeature
from transformers.utils import TensorType

from ..models.audioformer.waveform_audioformer import (
    Waveform,
    as_clips,
    as_float_tensor,
    as_mono,
    leave_parents_threads,
    resample,
)
from .fbank import log_mels_of_clips, num_frames, samples_of_frames

__all__ = ["ASTLogMelFeatureExtractor"]


class ASTLogMelFeatureExtractor(ASTFeatureExtractor):
    r"""Transformers' `ASTFeatureExtractor`, with its settings and features, for any audio and faster.

    It takes clips of any sampling rate, with channels, as arrays, tensors or lists; works on the device of the first
    clip; cuts random parts for training; pads to the longest clip if asked to; and returns the padding mask. It saves
    itself as the stock extractor, so that checkpoints need no package but Transformers.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_audioformer import ASTLogMelFeatureExtractor

    >>> extractor = ASTLogMelFeatureExtractor(max_length=128)
    >>> noise = np.random.default_rng(0).normal(scale=0.1, size=44100)
    >>> extractor(noise, sampling_rate=44100, return_tensors="pt")["input_values"].shape
    torch.Size([1, 128, 128])

    ```"""

    def __call__(  # type: ignore[override]
        self,
        raw_speech: Waveform | Sequence[Waveform],
        sampling_rate: int | None = None,
        return_tensors: str | TensorType | None = None,
        *,
        padding: Literal["max_length", "longest"] = "max_length",
        max_length: int | None = None,
        crop_keys: Sequence[Sequence[int]] | None = None,
        return_attention_mask: bool | None = None,
        channel_axis: int | None = None,
    ) -> BatchFeature:
        """The log-mel spectrograms of one clip or a list of clips.

        Args:
            raw_speech: Floats, nominally in [-1, 1]: one mono clip (samples,) as array, tensor or list, or a list of
                such clips. A two-dimensional clip needs `channel_axis` and is mixed to mono.
            sampling_rate: Rate of the clips in Hz, required; audio of another rate than the extractor's is resampled.
            return_tensors: `"pt"`, `"np"`, or nothing for a list of arrays.
            padding: `"max_length"`, as the stock extractor does, or `"longest"`: up to the longest clip. Frames of
                padding are 0 before normalisation, as the released checkpoints know them.
            max_length: Most frames of a clip, in place of the extractor's own.
            crop_keys: For each clip the numbers, say (seed, epoch, clip), that decide which part of a longer clip is
                taken; the beginning if not given.
            return_attention_mask: Whether `attention_mask` is returned; by default what the extractor is set to. It is
                of frames, and not for an AST, whose tokens are patches: `SpectrogramCollator(..., ignore_padding=True)`
                makes the mask of these.
            channel_axis: Axis of the channels in each clip, 0 or 1.

        Returns:
            `input_values`, float32 (batch, frames, num_mel_bins), and perhaps `attention_mask`, int64 (batch, frames),
            1 for frames of the clip. A clip of n samples has 1 + (n - window) // hop frames.

        Raises:
            ValueError: A clip is not float, empty, shorter than a frame, not finite, or has channels on an axis that
                was not said (the message names the clip by its place in the list); or an argument is out of range.
        """
        limit = self.max_length if max_length is None else max_length
        if limit < 1:
            raise ValueError(f"max_length is {limit}; it must be at least 1 frame.")
        if padding not in ("max_length", "longest"):
            raise ValueError(f"padding is {padding!r}; it must be 'max_length' or 'longest'.")
        clips = as_clips(raw_speech)
        if crop_keys is not None and len(crop_keys) != len(clips):
            raise ValueError(f"crop_keys has {len(crop_keys)} keys for {len(clips)} clips; each clip needs one.")
        waveforms = self._prepare(clips, sampling_rate, channel_axis)
        keys: Sequence[Sequence[int] | None] = [None] * len(clips) if crop_keys is None else crop_keys
        parts = [self._part(waveform, limit, key) for waveform, key in zip(waveforms, keys, strict=True)]
        frames = [num_frames(len(part), self.sampling_rate) for part in parts]
        length = limit if padding == "max_length" else max(frames)
        batch = {"input_values": self._normalised_batch(parts, frames, length)}
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            is_sound = torch.arange(length) < torch.tensor(frames)[:, None]
            batch["attention_mask"] = is_sound.long().to(parts[0].device)
        return _converted(batch, return_tensors)

    def log_mels(
        self,
        raw_speech: Waveform | Sequence[Waveform],
        sampling_rate: int | None = None,
        *,
        channel_axis: int | None = None,
    ) -> list[Tensor]:
        """All frames of each clip, float32 (frames, num_mel_bins), neither cut, padded nor normalised.

        Arguments and errors are those of a call.
        """
        waveforms = self._prepare(as_clips(raw_speech), sampling_rate, channel_axis)
        return log_mels_of_clips(waveforms, self.sampling_rate, self.num_mel_bins)

    def normalise_by(self, mean: float, std: float) -> None:
        """Takes mean and standard deviation of log-mels for normalisation, also if it has not normalised before."""
        self.mean, self.std, self.do_normalize = mean, std, True

    def normalised(self, log_mels: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Log-mels (..., num_mel_bins) as the model reads them: (x - mean) / (2 std), if `do_normalize`; written to
        `out` if given."""
        if self.do_normalize:
            return torch.sub(log_mels, self.mean, out=out).div_(self.std * 2)
        return log_mels if out is None else out.copy_(log_mels)

    def to_dict(self) -> dict[str, Any]:
        """The settings, which are those of the stock extractor."""
        return super().to_dict() | {"feature_extractor_type": ASTFeatureExtractor.__name__}

    def _prepare(self, clips: Sequence[Waveform], sampling_rate: int | None, channel_axis: int | None) -> list[Tensor]:
        """Checked float32 waveforms (samples,) at the extractor's rate, on the device of the first."""
        if sampling_rate is None:
            raise ValueError(
                f"sampling_rate is required: say at which rate, in Hz, the audio was sampled (features are made at "
                f"{self.sampling_rate} Hz; other rates are resampled)."
            )
        leave_parents_threads()
        waveforms: list[Tensor] = []
        for index, clip in enumerate(clips):
            waveform = as_mono(as_float_tensor(clip, index), index, channel_axis)
            waveform = resample(waveform, sampling_rate, self.sampling_rate)
            if num_frames(len(waveform), self.sampling_rate) == 0:
                raise ValueError(
                    f"clip {index} has {len(waveform)} samples at {self.sampling_rate} Hz, less than one frame of "
                    f"{samples_of_frames(0, 1, self.sampling_rate).stop}; leave it out or pad it with silence."
                )
            waveforms.append(waveform.to(waveforms[0].device) if waveforms else waveform)
        return waveforms

    def _part(self, waveform: Tensor, limit: int, key: Sequence[int] | None) -> Tensor:
        """At most `limit` frames of a waveform: the first, or from where the key says."""
        surplus = max(0, num_frames(len(waveform), self.sampling_rate) - limit)
        start = 0 if key is None else int(np.random.default_rng(key).integers(surplus + 1))
        return waveform[samples_of_frames(start, limit, self.sampling_rate)]

    def _normalised_batch(self, parts: Sequence[Tensor], frames: Sequence[int], length: int) -> Tensor:
        """Log-mels of clips of so many frames, (batch, length, num_mel_bins), padded with what becomes of 0."""
        batch = parts[0].new_empty(len(parts), length, self.num_mel_bins)
        padding = self.normalised(batch.new_zeros(()))
        clips = [row[:count] for row, count in zip(batch, frames, strict=True)]
        log_mels_of_clips(parts, self.sampling_rate, self.num_mel_bins, out=clips)
        for row, clip in zip(batch, clips, strict=True):
            self.normalised(clip, out=clip)
            row[len(clip) :] = padding
        return batch


def _converted(batch: dict[str, Tensor], return_tensors: str | TensorType | None) -> BatchFeature:
    if return_tensors is not None and TensorType(return_tensors) == TensorType.PYTORCH:
        return BatchFeature(batch)
    arrays = {name: tensor.cpu().numpy() for name, tensor in batch.items()}
    if return_tensors is None:
        return BatchFeature({name: list(array) for name, array in arrays.items()})
    return BatchFeature(arrays, tensor_type=return_tensors)
