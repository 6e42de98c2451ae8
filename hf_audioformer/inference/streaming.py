"""Codes and scores of sound that arrives in chunks, as from a microphone.

Codes are those of the whole clip, since nothing of the past is computed anew or lost: the codec remembers what its
layers need. This takes a causal codec: the bundled one, facebook/encodec_24khz, and what `hf-audioformer train-codec`
makes. DAC, Mimi, X-Codec and encodec_48khz look ahead or normalise each clip, and are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import AudioFormerFeatureExtractor, AudioFormerForAudioClassification
from ..metrics import class_probabilities
from ..models.audioformer.waveform_audioformer import LEVEL_FLOOR_DBFS, Waveform, as_float_tensor, resample
from .listening import level_gain
from .loading import choose_device, load_classifier

__all__ = ["StreamResampler", "StreamScores", "StreamingClassifier", "StreamingEncoder"]

# Zero crossings of torchaudio's filter on each side, and where it begins to fall, relative to the lower Nyquist rate.
_FILTER_CROSSINGS, _FILTER_ROLLOFF = 6, 0.99


class StreamResampler:
    """Resamples a waveform that arrives in chunks; what comes out is `resample` of the whole.

    It is late by the filter's half length, 6 samples of the lower rate.

    Args:
        orig_rate, new_rate: In Hz.
    """

    def __init__(self, orig_rate: int, new_rate: int):
        common = math.gcd(orig_rate, new_rate)
        self._rates = orig_rate, new_rate
        self._orig, self._new = orig_rate // common, new_rate // common
        reach = _FILTER_CROSSINGS * self._orig / (min(self._orig, self._new) * _FILTER_ROLLOFF)
        self._context = 0 if orig_rate == new_rate else math.ceil(reach) // self._orig + 1  # in blocks of `orig`
        self._past = self._orig * self._context
        self._waiting = torch.zeros(self._past)  # the past of what comes next, and what came

    def push(self, chunk: Tensor) -> Tensor:
        """Takes float32 (samples,); returns what is known by now, float32 (new_samples,)."""
        self._waiting = torch.cat([self._waiting, chunk])
        blocks = (len(self._waiting) - 2 * self._past) // self._orig
        if blocks <= 0:
            return chunk.new_empty(0)
        used = (blocks + 2 * self._context) * self._orig
        resampled = resample(self._waiting[:used], *self._rates)
        self._waiting = self._waiting[blocks * self._orig :].clone()
        return resampled[self._context * self._new :][: blocks * self._new]

    def flush(self) -> Tensor:
        """Ends the waveform: its last samples, float32 (new_samples,)."""
        left = math.ceil((len(self._waiting) - self._past) * self._new / self._orig)
        rest = resample(F.pad(self._waiting, (0, self._past)), *self._rates)
        self._waiting = torch.zeros(self._past)
        return rest[self._context * self._new :][:left]


class StreamingEncoder:
    """Turns a stream into codes: pushed out one after the other they are those of the whole clip.

    (At least 0.999 of them: float32 rounding may flip a near tie.)

    Args:
        extractor: With a causal codec.
        sampling_rate: Of the stream, in Hz.
        level_dbfs: Root mean square of the stream in dB relative to 1, for an extractor that brings clips to one level
            (`rms_level_dbfs`): that of the whole clip is not known while it is coming. By default it is measured on the
            first `level_seconds`, which wait for it; codes are then those of a clip with that level. Silence (below
            `LEVEL_FLOOR_DBFS`) says nothing of it: it goes through as it is, and the next `level_seconds` are measured.
        level_seconds: See `level_dbfs`.

    Raises:
        ValueError: The codec is not causal, or `level_seconds` is not above 0.
    """

    def __init__(
        self,
        extractor: AudioFormerFeatureExtractor,
        sampling_rate: int,
        *,
        level_dbfs: float | None = None,
        level_seconds: float = 1.0,
    ):
        if level_seconds <= 0:
            raise ValueError(f"level_seconds is {level_seconds}; it must be above 0")
        self._extractor = extractor
        self._stream = extractor.load_codec().stream(extractor.num_codebooks)
        self._resampler = StreamResampler(sampling_rate, extractor.sampling_rate)
        self._level_dbfs = level_dbfs
        self._level_samples = round(level_seconds * extractor.sampling_rate)
        self._start()

    def push(self, chunk: Waveform) -> np.ndarray:
        """Takes floats (samples,), any number of them; returns the codes known by now, int64 (new_frames, codebooks).

        Raises:
            ValueError: The chunk is not float, not finite, or has channels.
        """
        if len(chunk) == 0:
            return self._no_codes
        samples = as_float_tensor(chunk, self._chunks)
        self._chunks += 1
        if samples.dim() != 1:
            raise ValueError(f"the chunk has shape {tuple(samples.shape)}; it must be mono, (samples,)")
        return self._encode(self._resampler.push(samples.cpu()))

    def flush(self) -> np.ndarray:
        """Ends the clip: its last codes, int64 (new_frames, codebooks); the next push starts another clip."""
        codes = [self._encode(self._resampler.flush(), is_last=True), self._stream.flush().cpu().numpy().T]
        self._start()
        return np.concatenate(codes)

    def _start(self) -> None:
        self._chunks = 0
        self._unlevelled = torch.empty(0)
        self._gain: float | None = None
        if self._extractor.rms_level_dbfs is None or self._level_dbfs is not None:
            of_stream = torch.tensor([10 ** ((self._level_dbfs or 0.0) / 20)])
            self._gain = level_gain(of_stream, self._extractor.rms_level_dbfs)

    def _encode(self, samples: Tensor, is_last: bool = False) -> np.ndarray:
        codes = [self._no_codes]
        if self._gain is None:
            samples = torch.cat([self._unlevelled, samples])
        while self._gain is None:
            first, rest = samples[: self._level_samples], samples[self._level_samples :]
            if not len(first) or (len(first) < self._level_samples and not is_last):
                self._unlevelled = samples
                return np.concatenate(codes)
            if first.square().mean().sqrt() > 10 ** (LEVEL_FLOOR_DBFS / 20):
                self._gain = level_gain(first, self._extractor.rms_level_dbfs)
            else:
                codes.append(self._stream.push(first).cpu().numpy().T)
                samples = rest
        codes.append(self._stream.push(samples * self._gain).cpu().numpy().T)
        return np.concatenate(codes)

    @property
    def _no_codes(self) -> np.ndarray:
        return np.empty((0, self._extractor.num_codebooks), dtype=np.int64)


@dataclass(frozen=True)
class StreamScores:
    """Probabilities, float64 (classes,), of the sound from `start_seconds` to `end_seconds` of the stream."""

    start_seconds: float
    end_seconds: float
    scores: np.ndarray


class StreamingClassifier:
    """Classifies a stream as it comes: every `hop_seconds` the last `window_seconds` of it.

    Sound is encoded once, whatever the overlap of the windows; a window is classified from its codes.

    Args:
        model, extractor: Of an AudioFormer classifier with a causal codec.
        sampling_rate: Of the stream, in Hz.
        window_seconds: Heard at a time.
        hop_seconds: From scores to scores.
        level: `level_dbfs` and `level_seconds` of `StreamingEncoder`.

    Attributes:
        labels: Names of the classes.

    Example:

    ```python
    >>> import hf_audioformer
    >>> from hf_audioformer.inference import StreamingClassifier

    >>> stream = StreamingClassifier.from_pretrained("quickstart", sampling_rate=48000)
    >>> for chunk in microphone:  # floats (samples,), as many as there are
    ...     for found in stream.push(chunk):
    ...         print(found.end_seconds, stream.labels[found.scores.argmax()])

    ```

    Raises:
        ValueError: The model is no AudioFormer on codes, its codec is not causal, or an argument is out of range.
    """

    _codes: np.ndarray  # those of the frames from `_first_frame` on

    def __init__(
        self,
        model: AudioFormerForAudioClassification,
        extractor: AudioFormerFeatureExtractor,
        *,
        sampling_rate: int,
        window_seconds: float = 2.0,
        hop_seconds: float = 0.5,
        **level: Any,
    ):
        if not isinstance(extractor, AudioFormerFeatureExtractor):
            raise ValueError(
                f"the feature extractor is a {type(extractor).__name__}; streaming is for AudioFormers on codes. Other "
                "models can be given the last seconds of a stream again and again, see AudioClassifier"
            )
        self._model, self._extractor = model, extractor
        self._encoder = StreamingEncoder(extractor, sampling_rate, **level)
        self._window, self._hop = (round(seconds * extractor.frame_rate) for seconds in (window_seconds, hop_seconds))
        if not 1 <= self._hop <= self._window:
            raise ValueError(
                f"window is {window_seconds} s and hop {hop_seconds} s; the hop must be at least a frame "
                f"({1 / extractor.frame_rate:g} s) and no longer than the window"
            )
        config: Any = model.config
        self.labels = tuple(config.id2label[index] for index in range(config.num_labels))
        self._multi_label = config.problem_type == "multi_label_classification" or config.num_labels == 1
        self._start()

    @classmethod
    def from_pretrained(cls, source: str, *, device: str | None = None, **settings: Any) -> StreamingClassifier:
        """The classifier of a folder or Hub id; on the accelerator if there is one."""
        model: Any
        model, extractor = load_classifier(source, choose_device(device))
        return cls(model, extractor, **settings)

    def push(self, chunk: Waveform) -> list[StreamScores]:
        """Takes floats (samples,), any number of them; returns the scores of windows that are complete now.

        Raises:
            ValueError: The chunk is not float, not finite, or has channels.
        """
        self._codes = np.concatenate([self._codes, self._encoder.push(chunk)])
        return self._complete()

    def flush(self) -> list[StreamScores]:
        """Ends the clip: the scores of its last window, which ends with it, unless there are some; the next push starts
        another clip."""
        self._codes = np.concatenate([self._codes, self._encoder.flush()])
        found = self._complete()
        end = self._first_frame + len(self._codes)
        if end > self._scored_until:
            start = max(0, end - self._window)
            found.append(self._scores(start, self._codes[-self._window :]))
        self._start()
        return found

    def _start(self) -> None:
        self._codes: np.ndarray = np.empty(
            (0, self._extractor.num_codebooks), dtype=np.int64
        )  # those from `_first_frame` on
        self._first_frame = 0
        self._next_start = 0
        self._scored_until = 0

    def _complete(self) -> list[StreamScores]:
        found = []
        while self._next_start + self._window <= self._first_frame + len(self._codes):
            first = self._next_start - self._first_frame
            found.append(self._scores(self._next_start, self._codes[first : first + self._window]))
            self._scored_until = self._next_start + self._window
            self._next_start += self._hop
        unused = max(0, min(self._next_start, self._first_frame + len(self._codes) - self._window) - self._first_frame)
        self._codes = self._codes[unused:]
        self._first_frame += unused
        return found

    @torch.inference_mode()
    def _scores(self, start: int, codes: np.ndarray) -> StreamScores:
        input_ids = torch.from_numpy(self._extractor.tokens(codes))[None].to(self._model.device)
        logits = self._model(input_ids, torch.ones_like(input_ids.reshape(*input_ids.shape[:2], -1)[..., 0])).logits
        (scores,) = class_probabilities(logits.float().cpu().numpy(), multi_label=self._multi_label)
        rate = self._extractor.frame_rate
        return StreamScores(start / rate, (start + len(codes)) / rate, scores)
