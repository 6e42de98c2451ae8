"""Feature extractor of AudioFormer's continuous front ends: waveforms in, spectral features or samples out."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import TensorType

from .fbank_audioformer import (
    features_of_clips,
    kaldi_log_mel,
    kaldi_log_spectrogram,
    kaldi_mfcc,
    num_frames,
    num_frequencies,
    samples_of_frames,
)
from .waveform_audioformer import Waveform, as_clips, leave_parents_threads, prepared, samples_allowed

FeatureKind = Literal["log_mel", "spectrogram", "mfcc", "waveform"]

# The rate in Hz at which Kaldi's frames are a sample apart.
LOWEST_SAMPLING_RATE = 100
# Transformers pads features of one value as if they were samples.
FEWEST_FEATURES = 2


class AudioFormerSignalFeatureExtractor(SequenceFeatureExtractor):
    r"""Turns waveforms of any sampling rate and length into what an AudioFormer with a continuous front end reads.

    Spectral features have Kaldi's frames of 25 ms every 10 ms. All are normalised by the statistics of a data set,
    which are saved with the other settings.

    Args:
        kind (`str`, defaults to `"log_mel"`): `"log_mel"`, `"spectrogram"` (log power at all frequencies), `"mfcc"`, or
            `"waveform"` for the samples themselves.
        sampling_rate (`int`, defaults to 16000): Rate in Hz at which features are made.
        num_mel_bins (`int`, defaults to 128): Mel bands of log-mels and MFCC.
        num_coefficients (`int`, defaults to 40): Coefficients of MFCC.
        mean, std (`list[float]`, *optional*): What features are normalised by, `(x - mean) / std`, a value for each;
            not at all if not given.
        max_length_seconds (`float`, *optional*): Longest clip; longer ones are cut at the end unless
            `truncation=False`.
        rms_level_dbfs (`float`, *optional*): Level that every clip is brought to first, in dB relative to a root mean
            square of 1; clips are left as they are if not given.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_audioformer import AudioFormerSignalFeatureExtractor

    >>> extractor = AudioFormerSignalFeatureExtractor(kind="mfcc", num_coefficients=20)
    >>> noise = np.random.default_rng(0).normal(scale=0.1, size=44100)
    >>> extractor(noise, sampling_rate=44100, return_tensors="pt")["input_values"].shape
    torch.Size([1, 98, 20])

    ```"""

    # As AST calls log-mels and Wav2Vec2 samples; pipelines pad it, and the Trainer takes any name.
    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        kind: FeatureKind = "log_mel",
        sampling_rate: int = 16_000,
        num_mel_bins: int = 128,
        num_coefficients: int = 40,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        max_length_seconds: float | None = None,
        rms_level_dbfs: float | None = None,
        return_attention_mask: bool = True,
        padding_side: str = "right",
        **kwargs: Any,
    ):
        if kind not in get_args(FeatureKind):
            raise ValueError(f"kind is {kind!r}; allowed: {', '.join(get_args(FeatureKind))}.")
        if sampling_rate < LOWEST_SAMPLING_RATE:
            raise ValueError(f"sampling_rate is {sampling_rate}; it must be at least {LOWEST_SAMPLING_RATE} Hz.")
        if min(num_mel_bins, num_coefficients) < FEWEST_FEATURES:
            raise ValueError(
                f"num_mel_bins is {num_mel_bins} and num_coefficients {num_coefficients}; both must be at least "
                f"{FEWEST_FEATURES}."
            )
        if kind == "mfcc" and num_coefficients > num_mel_bins:
            raise ValueError(
                f"num_coefficients is {num_coefficients}; it must be at most {num_mel_bins} (num_mel_bins)."
            )
        sizes = {
            "log_mel": num_mel_bins,
            "spectrogram": num_frequencies(sampling_rate),
            "mfcc": num_coefficients,
            "waveform": 1,
        }
        for derived in ("feature_size", "padding_value"):
            kwargs.pop(derived, None)
        super().__init__(
            feature_size=sizes[kind],
            sampling_rate=sampling_rate,
            padding_value=0.0,
            return_attention_mask=return_attention_mask,
            padding_side=padding_side,
            **kwargs,
        )
        self.kind = kind
        self.num_mel_bins = num_mel_bins
        self.num_coefficients = num_coefficients
        self.max_length_seconds = max_length_seconds
        self.rms_level_dbfs = rms_level_dbfs
        self.set_statistics(mean, std)
        self.limit_samples(max_length_seconds)

    def set_statistics(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Normalises features by these from now on, `feature_size` values each; None for not at all.

        Raises:
            ValueError: One is missing, there is not one value per feature, or a deviation is not above 0.
        """
        self.mean, self.std = (None if values is None else [float(value) for value in values] for values in (mean, std))
        sizes = [None if values is None else len(values) for values in (self.mean, self.std)]
        if sizes not in ([None, None], [self.feature_size, self.feature_size]) or min(self.std or [1.0]) <= 0:
            raise ValueError(
                f"mean and std have {sizes[0]} and {sizes[1]} values; give {self.feature_size} of both, deviations "
                "above 0, or none of them."
            )

    @property
    def frame_rate(self) -> float:
        """Frames, or samples of a waveform, per second."""
        return (
            self.sampling_rate / samples_of_frames(1, 1, self.sampling_rate).start
            if self.is_spectral
            else float(self.sampling_rate)
        )

    @property
    def is_spectral(self) -> bool:
        """Whether features are those of frames, not samples."""
        return self.kind != "waveform"

    @property
    def shortest_samples(self) -> int:
        """Samples of the shortest clip: one frame."""
        return samples_of_frames(0, 1, self.sampling_rate).stop if self.is_spectral else 1

    def limit_samples(self, seconds: float | None) -> int | None:
        """The samples at the extractor's rate in `seconds`, at least one frame; None for no limit."""
        return samples_allowed(seconds, self.sampling_rate, self.shortest_samples)

    def __call__(
        self,
        audio: Waveform | Sequence[Waveform],
        sampling_rate: int | None = None,
        padding: bool | str | None = None,
        truncation: bool | None = None,
        max_length_seconds: float | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
        channel_axis: int | None = None,
        device: str | torch.device | None = None,
        keep_level: bool = False,
    ) -> BatchFeature:
        """Features of one clip or a list of clips.

        Args:
            audio: Floats, nominally in [-1, 1]: one mono clip (samples,) as array, tensor or list, or a list of such
                clips. A two-dimensional clip needs `channel_axis` and is mixed to mono.
            sampling_rate: Rate of `audio` in Hz, required; audio of another rate than the extractor's is resampled.
            padding: `True` or `"longest"`, `"max_length"` (up to `max_length_seconds`), or `False`. By default clips
                are padded when `return_tensors` is given.
            truncation: Whether clips longer than `max_length_seconds` are cut at the end; the default if that is set.
            max_length_seconds: In place of the extractor's own.
            pad_to_multiple_of: Frames, or samples of a waveform.
            return_attention_mask: Whether `attention_mask` is returned; by default it is.
            return_tensors: `"pt"`, `"np"` or nothing.
            channel_axis: Axis of the channels in each clip, 0 or 1.
            device: Where features are computed; the CPU by default.
            keep_level: Leave clips at their level, whatever `rms_level_dbfs` is: for windows of a clip that was
                brought to its level as a whole.

        Returns:
            `input_values`, float32 (batch, frames, feature_size), or (batch, samples) of a waveform, with zeros where
            there is padding, and `attention_mask` (batch, frames), 1 for frames.

        Raises:
            ValueError: A clip is not float, empty, shorter than a frame, not finite, or has channels on an axis that
                was not said; the message names the clip by its place in the list.
        """
        limit = self.limit_samples(self.max_length_seconds if max_length_seconds is None else max_length_seconds)
        cut = limit if truncation or truncation is None else None
        if (truncation or padding == "max_length") and limit is None:
            raise ValueError("truncation and padding='max_length' need max_length_seconds, here or in the extractor.")
        waveforms = self.waveforms(audio, sampling_rate, channel_axis=channel_axis, keep_level=keep_level)
        clips = [clip[:cut] for clip in waveforms]
        features = [self.normalised(of_clip).cpu().numpy() for of_clip in self.features(clips, device)]
        return self.pad(
            BatchFeature({"input_values": features}),
            padding=return_tensors is not None if padding is None else padding,
            max_length=self._num_frames(limit) if limit is not None and padding == "max_length" else None,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=return_attention_mask,
            return_tensors=return_tensors,
        )

    def waveforms(
        self,
        audio: Waveform | Sequence[Waveform],
        sampling_rate: int | None = None,
        *,
        channel_axis: int | None = None,
        keep_level: bool = False,
    ) -> list[torch.Tensor]:
        """Checked mono waveforms, float32 (samples,), at the extractor's rate and level, not cut.

        Arguments and errors are those of a call.
        """
        if sampling_rate is None:
            raise ValueError(
                f"sampling_rate is required: say at which rate, in Hz, the audio was sampled (features are made at "
                f"{self.sampling_rate} Hz; other rates are resampled)."
            )
        leave_parents_threads()
        return [
            prepared(
                clip,
                index,
                sampling_rate,
                self.sampling_rate,
                channel_axis,
                shortest=self.shortest_samples,
                rms_level_dbfs=None if keep_level else self.rms_level_dbfs,
            )
            for index, clip in enumerate(as_clips(audio))
        ]

    def features(
        self, waveforms: Sequence[torch.Tensor], device: str | torch.device | None = None
    ) -> list[torch.Tensor]:
        """What `waveforms` gives as features, not normalised: float32 (frames, feature_size), or (samples,)."""
        if not self.is_spectral:
            return list(waveforms)
        on_device = [waveform.to(device) for waveform in waveforms]
        return features_of_clips(self._spectral, on_device, self.sampling_rate)

    def normalised(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., feature_size) or (samples,) as the model reads them: (x - mean) / std."""
        if self.mean is None:
            return features
        mean, std = features.new_tensor(self.mean), features.new_tensor(self.std)
        return (features - mean) / std

    def _spectral(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) to (batch, frames, feature_size)."""
        if self.kind == "spectrogram":
            return kaldi_log_spectrogram(waveforms, self.sampling_rate)
        if self.kind == "mfcc":
            return kaldi_mfcc(waveforms, self.sampling_rate, self.num_coefficients, self.num_mel_bins)
        return kaldi_log_mel(waveforms, self.sampling_rate, self.num_mel_bins)

    def _num_frames(self, num_samples: int) -> int:
        return num_frames(num_samples, self.sampling_rate) if self.is_spectral else num_samples


__all__ = ["AudioFormerSignalFeatureExtractor"]
