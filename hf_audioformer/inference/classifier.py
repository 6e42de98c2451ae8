"""Classifying sound of any length by any audio classifier of Transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.moments import MomentGrid
from ..data.windows import mean_scores
from ..metrics import class_probabilities
from .each_clip import HeardClip, each_clip
from .events import Event, find_events, score_track, smoothed
from .front_end import FrontEnd, Sound
from .loading import Output, choose_device, load_classifier, output_of

__all__ = ["HEARD", "AudioClassifier", "ClipScores"]

# What models may give that an `AudioClassifier` hears by.
HEARD: tuple[Output, ...] = ("classes", "numbers", "moments", "curves")


@dataclass(frozen=True)
class ClipScores:
    """What a classifier says of a clip.

    Attributes:
        labels: Names of the classes, or of numbers.
        scores: Probabilities of the whole clip, float64 (classes,): of its windows' mean logits; numbers as they are,
            those along time as means.
        seconds: Length of the clip.
        window_seconds: Where each window begins and ends, float64 (windows, 2).
        window_scores: Probabilities of each window, float64 (windows, classes).
        hop_seconds: From window to window; the last one may follow sooner.
        are_numbers: Whether all this is of numbers in the units of the data, not of classes.
    """

    labels: tuple[str, ...]
    scores: np.ndarray
    seconds: float
    window_seconds: np.ndarray
    window_scores: np.ndarray
    hop_seconds: float
    are_numbers: bool = False

    def top(self, count: int) -> list[dict[str, Any]]:
        """`label` and `score` of the best classes, the best first, as the pipeline gives them; all numbers in their own
        order."""
        order = range(len(self.labels)) if self.are_numbers else np.argsort(-self.scores, kind="stable")[:count]
        return [{"label": self.labels[index], "score": float(self.scores[index])} for index in order]

    def track(self) -> np.ndarray:
        """Scores along time, (steps, classes), one step per `hop_seconds`; see `score_track`."""
        return score_track(self.window_scores, self.window_seconds.mean(axis=1), self.hop_seconds, self.seconds)

    def events(self, threshold: float = 0.5, *, merge_gaps_seconds: float = 0.0) -> list[Event]:
        """The stretches in which a class scores at least `threshold`; see `find_events`.

        Raises:
            ValueError: An argument is out of range, or the scores are numbers.
        """
        if self.are_numbers:
            raise ValueError("events are stretches of classes, and this model gives numbers; take track()")
        return find_events(
            self.track(), self.labels, self.hop_seconds, self.seconds, threshold, merge_gaps_seconds=merge_gaps_seconds
        )


class AudioClassifier:
    """A classifier for clips of any length: AudioFormer, AST, Wav2Vec2, HuBERT, Whisper, ...

    Clips that fit into one window get the scores of `pipeline("audio-classification")`, longer ones those of the mean
    logits of their windows. Scores are softmax probabilities, or sigmoid ones for a model of several labels; a model
    for regression gives its numbers. A model of moments has them in place of windows, `hop_seconds` apart, and as score
    of a clip the highest of its moments, or of numbers their mean.

    Args:
        model: With a classification head, in evaluation mode.
        extractor: Its feature extractor.
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
        output = output_of(config)
        self.gives_numbers = output in ("numbers", "curves")
        self.grid = MomentGrid.of(config, extractor) if output in ("moments", "curves") else None
        self.multi_label = config.problem_type == "multi_label_classification" or config.num_labels == 1
        self.batch_size = batch_size
        self._model = model

    @classmethod
    def from_pretrained(cls, source: str, *, device: str | None = None, **settings: Any) -> AudioClassifier:
        """The classifier of a folder or Hub id, in float32; on the accelerator if there is one.

        Raises:
            ValueError: The checkpoint has no trained classifier, or gives vectors.
        """
        return cls(*load_classifier(source, choose_device(device), HEARD), **settings)

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
        """Logits of each window, float32 (classes,), or of its moments, (moments, classes)."""
        logits: dict[int, np.ndarray] = {}
        for places, features in self.front_end.batches(windows):
            found = self._model(**features).logits
            of_places = self.grid.of_sound(found, features) if self.grid else found.float().cpu().numpy()
            logits |= zip(places, of_places, strict=True)
        return [logits[place] for place in range(len(windows))]

    def _scores(self, clip: HeardClip[np.ndarray]) -> ClipScores:
        rate = self.front_end.sampling_rate
        if self.grid is not None:
            return self._along_time(clip, self.grid.seconds)
        logits = np.stack(clip.outputs)
        (mean,) = mean_scores(logits, np.zeros(len(logits), dtype=np.int64))
        scores = np.vstack([mean, logits]).astype(np.float64)
        if not self.gives_numbers:
            scores = class_probabilities(scores, multi_label=self.multi_label)
        return ClipScores(
            labels=self.labels,
            scores=scores[0],
            seconds=len(clip.waveform) / rate,
            window_seconds=clip.window_seconds(rate),
            window_scores=scores[1:],
            hop_seconds=self.front_end.hop_samples / rate,
            are_numbers=self.gives_numbers,
        )

    def _along_time(self, clip: HeardClip[np.ndarray], step: float) -> ClipScores:
        """Scores of moments, smoothed, in place of those of windows, and of the whole clip the highest of each class;
        or numbers as they are, and their means.

        Of windows that overlap each moment is taken from the one in whose middle it is rather.
        """
        windows = clip.window_seconds(self.front_end.sampling_rate)
        borders = [-np.inf, *((windows[:-1, 1] + windows[1:, 0]) / 2), np.inf]
        centres, logits = [], []
        for (start, _), first, end, of_window in zip(windows, borders, borders[1:], clip.outputs, strict=False):
            middles = start + (np.arange(len(of_window)) + 0.5) * step
            kept = (first <= middles) & (middles < end)
            centres.append(middles[kept])
            logits.append(of_window[kept])
        track = np.concatenate(logits).astype(np.float64)
        if not self.gives_numbers:
            track = smoothed(class_probabilities(track, multi_label=self.multi_label), step)
        middles = np.concatenate(centres)
        return ClipScores(
            labels=self.labels,
            scores=track.mean(axis=0) if self.gives_numbers else track.max(axis=0),
            seconds=len(clip.waveform) / self.front_end.sampling_rate,
            window_seconds=np.stack([middles - step / 2, middles + step / 2], axis=1),
            window_scores=track,
            hop_seconds=step,
            are_numbers=self.gives_numbers,
        )
