"""From sound to what a model reads: windows of a waveform, and batches of their features, whatever the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import ASTConfig, ASTFeatureExtractor, PreTrainedModel

from .. import AudioFormerFeatureExtractor, AudioFormerSignalFeatureExtractor
from ..audio import load_audio
from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..audio.fbank import num_frames, samples_of_frames
from ..data.spectrogram_collator import SpectrogramCollator
from ..data.windows import check_overlap, window_starts, window_step
from ..models.ast.positions_ast import longest_step
from ..models.ast.tokens_ast import keep_tokens
from ..models.audioformer.waveform_audioformer import as_float_tensor, level_gain, resample

__all__ = ["FrontEnd", "Sound", "longest_window", "name_of"]

# A file, or a waveform {"array": float (samples,), "sampling_rate": Hz} as pipelines and `datasets` have it.
Sound = str | os.PathLike[str] | Mapping[str, Any]

# Longer clips are heard in windows of this length by models that would take any: attention grows with its square.
DEFAULT_WINDOW_SECONDS = 30.0

Batch = tuple[list[int], dict[str, Tensor]]


class FrontEnd:
    """Cuts waveforms into windows and makes of them the batches that a model reads.

    A clip that is no longer than a window is one window, of its own length; windows of longer clips begin every
    `hop_seconds`, and the last one ends with the clip, so that all are full. An AudioFormer's clip is brought to its
    level as a whole, so that what is quiet in it stays so; an AST hears levels as they are. Other models hear a window
    as if it were a clip: Wav2Vec2's feature extractor, for one, brings each to a variance of 1.

    Args:
        model: The model, whose device the batches come on.
        extractor: Its feature extractor; Transformers' of an AST, which cuts long clips, is replaced by ours.
        window_seconds: Length of a window; by default the longest that an AST or Whisper reads, 30 s for others.
        hop_seconds: From window to window; by default as `overlap` says.
        overlap: Share of a window that the next one hears again, in [0, 1).
        ignore_padding: Leave out the tokens of padding of clips shorter than an AST reads, for an AST trained so.
            (AudioFormers never see padding, and of others only windows of one length share a batch.)

    Attributes:
        sampling_rate: Rate of the waveforms, in Hz.
        window_samples, hop_samples: Length of a window and from window to window, at that rate.

    Raises:
        ValueError: `window_seconds`, `hop_seconds` or `overlap` is out of range.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        extractor: Any,
        *,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        overlap: float = 0.5,
        ignore_padding: bool = False,
    ):
        self._is_ast = isinstance(extractor, ASTFeatureExtractor)
        if self._is_ast:
            extractor = ASTLogMelFeatureExtractor.from_dict(extractor.to_dict())
        self.extractor = extractor
        self.sampling_rate: int = extractor.sampling_rate
        self._model = model
        if self._is_ast:
            padding = float(extractor.normalised(torch.zeros(())))
            self._collate = SpectrogramCollator(cast(ASTConfig, model.config), padding, ignore_padding)
            if ignore_padding:
                keep_tokens(model)
        elif ignore_padding:
            raise ValueError("ignore_padding is for an AST; other models see no padding, or need it")
        self.window_samples = self._checked_window(window_seconds)
        self.hop_samples = self._checked_hop(hop_seconds, overlap)

    def waveform(self, sound: Sound, place: int = 0) -> Tensor:
        """The sound as mono waveform, float32 (samples,), at the sampling rate and, for an AudioFormer, the level that
        the model hears; errors call an array by its place in the list.

        Raises:
            FileNotFoundError, ValueError: It cannot be read, or has NaN or infinite samples, or none.
        """
        audio = load_audio(sound) if isinstance(sound, (str, os.PathLike)) else sound
        waveform = as_float_tensor(audio["array"], place)
        if waveform.dim() != 1:
            raise ValueError(f"clip {place} has shape {tuple(waveform.shape)}; it must be mono, (samples,)")
        waveform = resample(waveform, audio["sampling_rate"], self.sampling_rate)
        return waveform * level_gain(waveform, getattr(self.extractor, "rms_level_dbfs", None))

    def windows(self, num_samples: int) -> list[slice]:
        """The samples of each window of a clip of so many.

        Raises:
            ValueError: The clip is too short for the model.
        """
        shortest = self._shortest_samples()
        if num_samples < shortest:
            raise ValueError(
                f"the clip has {num_samples} samples at {self.sampling_rate} Hz; the model needs {shortest} or more. "
                "Leave it out or pad it with silence"
            )
        if num_samples <= self.window_samples:
            return [slice(0, num_samples)]
        if not self._is_ast:
            starts = window_starts(num_samples, self.window_samples, self.hop_samples)
            return [slice(start, start + self.window_samples) for start in starts]
        frames = num_frames(self.window_samples, self.sampling_rate)
        starts = window_starts(
            num_frames(num_samples, self.sampling_rate), frames, self.hop_samples // self._samples_of_hop
        )
        return [samples_of_frames(start, frames, self.sampling_rate) for start in starts]

    def batches(self, windows: Sequence[Tensor]) -> list[Batch]:
        """What the model reads of parts of `waveform`'s, (samples,), with the places of those that share a batch.

        Raises:
            ValueError: The feature extractor refuses one of them.
        """
        if isinstance(self.extractor, AudioFormerFeatureExtractor):
            together = self.extractor(
                list(windows),
                sampling_rate=self.sampling_rate,
                return_attention_mask=True,
                return_tensors="pt",
                device=self._model.device,
                keep_level=True,
            )
            groups: list[Batch] = [(list(range(len(windows))), dict(together))]
        elif self._is_ast:
            log_mels = self.extractor.log_mels(list(windows), self.sampling_rate)
            clips = [{"input_values": self.extractor.normalised(log_mel)} for log_mel in log_mels]
            groups = [(list(range(len(windows))), self._collate(clips))]
        else:
            groups = self._batches_of_one_shape(windows)
        return [
            (places, {name: self._as_the_model_reads(tensor) for name, tensor in batch.items()})
            for places, batch in groups
        ]

    def _as_the_model_reads(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._model.device, self._model.dtype if tensor.is_floating_point() else tensor.dtype)

    def _batches_of_one_shape(self, windows: Sequence[Tensor]) -> list[Batch]:
        """Features of each window alone; only those of one shape share a batch, since not every model leaves padding
        out."""
        settings = {"keep_level": True} if isinstance(self.extractor, AudioFormerSignalFeatureExtractor) else {}
        shapes: dict[tuple, list[tuple[int, dict[str, Tensor]]]] = {}
        for place, window in enumerate(windows):
            features = dict(
                self.extractor(window.numpy(), sampling_rate=self.sampling_rate, return_tensors="pt", **settings)
            )
            shapes.setdefault(tuple(tensor.shape for tensor in features.values()), []).append((place, features))
        return [
            (
                [place for place, _ in group],
                {name: torch.cat([features[name] for _, features in group]) for name in group[0][1]},
            )
            for group in shapes.values()
        ]

    def _shortest_samples(self) -> int:
        if self._is_ast:
            return samples_of_frames(0, 1, self.sampling_rate).stop
        if isinstance(self.extractor, AudioFormerFeatureExtractor):
            return self.extractor.hop_length
        kernels = getattr(self._model.config, "conv_kernel", None)
        if not kernels:
            return 1
        samples = 1  # what the convolutions of Wav2Vec2 and its relatives make one frame of
        for kernel, stride in zip(reversed(kernels), reversed(self._model.config.conv_stride), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    def _checked_window(self, seconds: float | None) -> int:
        longest = longest_window(self._model, self.extractor)
        if seconds is None:
            return longest or round(DEFAULT_WINDOW_SECONDS * self.sampling_rate)
        samples = round(seconds * self.sampling_rate)
        shortest = self._shortest_samples()
        if samples < shortest or (longest is not None and samples > longest):
            most = "" if longest is None else f" and at most {longest / self.sampling_rate:g}"
            raise ValueError(
                f"window is {seconds} s; for this model it must be at least {shortest / self.sampling_rate:g}{most} s"
            )
        return samples

    @property
    def _samples_of_hop(self) -> int:
        """Samples from frame to frame of an AST, whose windows begin with a frame; 1 for other models."""
        return samples_of_frames(1, 1, self.sampling_rate).start if self._is_ast else 1

    def _checked_hop(self, seconds: float | None, overlap: float) -> int:
        longest = self.window_samples
        if self._is_ast:
            longest = num_frames(longest, self.sampling_rate)
        most = min(longest, longest_step(cast(ASTConfig, self._model.config))) if self._is_ast else longest
        if seconds is None:
            return window_step(longest, overlap, most) * self._samples_of_hop
        check_overlap(overlap)
        samples = round(seconds * self.sampling_rate)
        if not 1 <= samples <= self.window_samples:
            raise ValueError(
                f"hop is {seconds} s; it must be above 0 and no longer than a window, "
                f"{self.window_samples / self.sampling_rate:g} s"
            )
        return min(most, max(1, round(samples / self._samples_of_hop))) * self._samples_of_hop


def longest_window(model: PreTrainedModel, extractor: Any) -> int | None:
    """The most samples that the model reads at once, at its extractor's sampling rate; None if there is no limit."""
    if isinstance(extractor, ASTFeatureExtractor):
        return samples_of_frames(0, model.config.max_length, extractor.sampling_rate).stop
    seconds = getattr(extractor, "max_length_seconds", None)
    if seconds is not None:
        return int(seconds * extractor.sampling_rate)
    return getattr(extractor, "n_samples", None)  # Whisper's


def name_of(sound: Sound, place: int) -> str:
    """What a sound is called: its path, or its place in the list."""
    return os.fspath(sound) if isinstance(sound, (str, os.PathLike)) else f"clip {place}"
