"""Classifying sound of any length by any audio classifier of Transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.windows import mean_scores
from ..metrics import class_probabilities
from .each_clip import HeardClip, each_clip
from .events import Event, find_events, score_track
from .front_end import FrontEnd, Sound
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

    def events(self, threshold: float = 0.5, *, merge_gaps_seconds: float = 0.0) -> list[Event]:
        """The stretches in which a class scores at least `threshold`; see `find_events`."""
        return find_events(
            self.track(), self.labels, self.hop_seconds, self.seconds, threshold, merge_gaps_seconds=merge_gaps_seconds
        )


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

        `heard` is told how many clips more, in parts of one, are done with, those with an error too.
        """
        clips = each_clip(sounds, self.front_end, self._logits, batch_size=self.batch_size, heard=heard)
        for clip in clips:
            yield clip.name, clip.error or self._scores(clip)

    @torch.inference_mode()
    def _logits(self, windows: list[Tensor]) -> list[np.ndarray]:
        """Logits of each window, float32 (classes,)."""
        logits = np.empty((len(windows), len(self.labels)), dtype=np.float32)
        for places, features in self.front_end.batches(windows):
            logits[places] = self._model(**features).logits.float().cpu().numpy()
        return list(logits)

    def _scores(self, clip: HeardClip[np.ndarray]) -> ClipScores:
        rate = self.front_end.sampling_rate
        logits = np.stack(clip.outputs)
        (mean,) = mean_scores(logits, np.zeros(len(logits), dtype=np.int64))
        scores = class_probabilities(np.vstack([mean, logits]), multi_label=self.multi_label)
        return ClipScores(
            labels=self.labels,
            scores=scores[0],
            seconds=len(clip.waveform) / rate,
            window_seconds=clip.window_seconds(rate),
            window_scores=scores[1:],
            hop_seconds=self.front_end.hop_samples / rate,
        )
