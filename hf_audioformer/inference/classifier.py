"""Classifying sound of any length by any audio classifier of Transformers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.windows import mean_scores
from ..metrics import class_probabilities
from .events import Event, find_events, score_track
from .front_end import FrontEnd, Sound, name_of
from .loading import choose_device, load_classifier

__all__ = ["AudioClassifier", "ClipScores"]


@dataclass(frozen=True)
class ClipScores:
    """What a classifier says of a clip.

    Attributes:
        labels: Names of the classes.
        scores: Probabilities of the whole clip, float64 (classes,): of its windows' mean logits.
        seconds: Length of the clip.
        window_seconds: Where each window begins and ends, float64 (windows, 2).
        window_scores: Probabilities of each window, float64 (windows, classes).
        hop_seconds: From window to window; the last one may follow sooner.
    """

    labels: tuple[str, ...]
    scores: np.ndarray
    seconds: float
    window_seconds: np.ndarray
    window_scores: np.ndarray
    hop_seconds: float

    def top(self, count: int) -> list[dict[str, Any]]:
        """`label` and `score` of the best classes, the best first, as the pipeline gives them."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [{"label": self.labels[index], "score": float(self.scores[index])} for index in order]

    def track(self) -> np.ndarray:
        """Scores along time, (steps, classes), one step per `hop_seconds`; see `score_track`."""
        return score_track(self.window_scores, self.window_seconds.mean(axis=1), self.hop_seconds, self.seconds)

    def events(self, threshold: float = 0.5) -> list[Event]:
        """The stretches in which a class scores at least `threshold`; see `find_events`."""
        return find_events(self.track(), self.labels, self.hop_seconds, self.seconds, threshold)


class AudioClassifier:
    """A classifier for clips of any length: AudioFormer, AST, Wav2Vec2, HuBERT, Whisper, ...

    Clips that fit into one window get the scores of `pipeline("audio-classification")`, longer ones those of the mean
    logits of their windows. Scores are softmax probabilities, or sigmoid ones for a model of several labels.

    Args:
        model: With a classification head, in evaluation mode.
        extractor: Its feature extractor; of an AST, `ASTLogMelFeatureExtractor`.
        batch_size: Windows classified together; changes nothing but speed.
        window_seconds, hop_seconds, ignore_padding: As for `FrontEnd`.

    Example:

    ```python
    >>> from hf_audioformer.inference import AudioClassifier

    >>> classifier = AudioClassifier.from_pretrained("quickstart", window_seconds=1.0, hop_seconds=0.1)
    >>> heard = classifier("clip.wav")
    >>> heard.top(3), heard.events(threshold=0.5)

    ```"""

    def __init__(self, model: PreTrainedModel, extractor: Any, *, batch_size: int = 8, **windows: Any):
        config: Any = model.config
        self.front_end = FrontEnd(model, extractor, **windows)
        self.labels = tuple(config.id2label[index] for index in range(config.num_labels))
        self.multi_label = config.problem_type == "multi_label_classification" or config.num_labels == 1
        self.batch_size = batch_size
        self._model = model

    @classmethod
    def from_pretrained(cls, source: str, *, device: str | None = None, **settings: Any) -> AudioClassifier:
        """The classifier of a folder or Hub id, in float32; on the accelerator if there is one.

        Raises:
            ValueError: The checkpoint has no trained classifier, or one for regression.
        """
        return cls(*load_classifier(source, choose_device(device)), **settings)

    def __call__(self, sound: Sound) -> ClipScores:
        """Classifies one clip.

        Raises:
            FileNotFoundError, ValueError: It cannot be read, or is too short for the model.
        """
        ((_, result),) = self.each([sound])
        if isinstance(result, Exception):
            raise result
        return result

    def each(
        self, sounds: Iterable[Sound], *, heard: Callable[[float], object] = lambda share: None
    ) -> Iterator[tuple[str, ClipScores | Exception]]:
        """Each clip's name with its scores, or with the error that tells why it has none; in order, as they come.

        Clips are read one after the other, and windows of several share a batch. After each batch `heard` is told how
        many clips more, in parts of one, have been heard.
        """
        waiting: deque[_Clip] = deque()
        batch: list[tuple[_Clip, Tensor]] = []
        for place, sound in enumerate(sounds):
            clip = self._opened(sound, place)
            waiting.append(clip)
            for window in clip.windows:
                batch.append((clip, clip.waveform[window]))
                if len(batch) == self.batch_size:
                    heard(self._score(batch))
                    batch = []
            while waiting and waiting[0].is_done:
                yield self._finished(waiting.popleft())
        if batch:
            heard(self._score(batch))
        yield from map(self._finished, waiting)

    def _opened(self, sound: Sound, place: int) -> _Clip:
        clip = _Clip(name_of(sound, place))
        try:
            clip.waveform = self.front_end.waveform(sound)
            clip.windows = self.front_end.windows(len(clip.waveform))
        except (ValueError, OSError) as error:
            clip.error = error
        return clip

    def _score(self, batch: list[tuple[_Clip, Tensor]]) -> float:
        """Adds the logits of windows to their clips; returns how many clips these windows are, in parts of one."""
        try:
            logits = self._logits([window for _, window in batch])
        except ValueError as error:
            if len(batch) > 1:
                return sum(self._score([one]) for one in batch)
            batch[0][0].error = error
            return 1 / len(batch[0][0].windows)
        for (clip, _), of_window in zip(batch, logits, strict=True):
            clip.logits.append(of_window)
        return sum(1 / len(clip.windows) for clip, _ in batch)

    @torch.inference_mode()
    def _logits(self, windows: list[Tensor]) -> np.ndarray:
        """Logits of windows, float32 (windows, classes)."""
        logits = np.empty((len(windows), len(self.labels)), dtype=np.float32)
        for places, features in self.front_end.batches(windows):
            logits[places] = self._model(**features).logits.float().cpu().numpy()
        return logits

    def _finished(self, clip: _Clip) -> tuple[str, ClipScores | Exception]:
        if clip.error is not None:
            return clip.name, clip.error
        rate = self.front_end.sampling_rate
        logits = np.stack(clip.logits)
        (mean,) = mean_scores(logits, np.zeros(len(logits), dtype=np.int64))
        scores = class_probabilities(np.vstack([mean, logits]), multi_label=self.multi_label)
        return clip.name, ClipScores(
            labels=self.labels,
            scores=scores[0],
            seconds=len(clip.waveform) / rate,
            window_seconds=np.array([(window.start, window.stop) for window in clip.windows]) / rate,
            window_scores=scores[1:],
            hop_seconds=self.front_end.hop_samples / rate,
        )


@dataclass
class _Clip:
    """A clip that is being heard."""

    name: str
    waveform: Tensor = field(default_factory=lambda: torch.empty(0))
    windows: list[slice] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or len(self.logits) == len(self.windows)
