"""What the page shows of one sound file: labels, pictures, and the sound after the codec."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import AudioFormerFeatureExtractor
from ..audio.io import Audio, load_audio
from ..inference.classifier import AudioClassifier, ClipScores
from ..inference.events import EVENT_WINDOW_SECONDS
from ..inference.front_end import longest_window
from ..inference.listening import round_trips
from ..inference.loading import load_classifier
from ..inspection.attention_plots import overlay_figure
from ..inspection.clip_view import view_of
from ..inspection.panels import log_mel_of
from ..inspection.scores_plot import scores_figure
from ..inspection.state_plots import codes_figure
from ..inspection.tracing import InspectedModel, trace_clip
from ..models.audioformer.waveform_audioformer import resample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["HeardFile", "Listener"]

SHORTEST_SECONDS = 0.1
ATTENTION_SECONDS = 10.0  # attention grows with the square of the length
MOST_WINDOWS = 24  # along a clip, so that a large model has done in seconds
LONGEST_NAME = 40

Progress = Callable[[float, str], object]


@dataclass(frozen=True)
class HeardFile:
    """What a classifier makes of a file.

    Attributes:
        scores: The best labels of the whole clip with their probabilities, the best first.
        along: Waveform, spectrogram, and the scores of these labels along time.
        attention: Where the model looks, on the spectrogram; None of a model that does not tell.
        codes: What an AudioFormer on codes reads; None of other models.
        round_trip: The clip after the codec, with the codebooks that the model reads; None without codec.
        without_attention: Why there is none; empty if there is.
    """

    scores: dict[str, float]
    along: Figure
    attention: Figure | None
    codes: Figure | None
    round_trip: Audio | None
    without_attention: str = ""


class Listener:
    """Hears sound files with any audio classifier of Transformers, on the CPU.

    Args:
        source: Folder or Hub id of the classifier.
        top: How many labels of each file.
        max_seconds: Longer files are refused.

    Raises:
        ValueError: The checkpoint has no trained classifier, or a setting is out of range.
        FileNotFoundError, OSError: There is no such checkpoint.
    """

    def __init__(self, source: str, *, top: int = 5, max_seconds: float = 30.0):
        if top < 1 or max_seconds < SHORTEST_SECONDS:
            raise ValueError(
                f"top is {top} and max_seconds {max_seconds}; they must be at least 1 and {SHORTEST_SECONDS}"
            )
        model, extractor = load_classifier(source, torch.device("cpu"))
        model.set_attn_implementation("eager")  # others return no weights
        self.name = Path(source).name
        self.top = top
        self.max_seconds = max_seconds
        self.has_codec = isinstance(extractor, AudioFormerFeatureExtractor)
        self._classifier = AudioClassifier(model, extractor)
        self._inspected = InspectedModel(source, model, extractor, tokenizer=None, missing=())

    def __call__(self, file: str | os.PathLike[str], on_progress: Progress = lambda share, doing: None) -> HeardFile:
        """What the model makes of a file; `on_progress` is told from time to time how far it is and what it does.

        Raises:
            FileNotFoundError, ValueError: The file cannot be read, is too short or too long.
        """
        on_progress(0.0, "reading the file")
        name = Path(file).name
        audio = load_audio(file, name=name, max_seconds=self.max_seconds)
        seconds = len(audio["array"]) / audio["sampling_rate"]
        if seconds < SHORTEST_SECONDS:
            raise ValueError(f"{name}: {seconds:.3f} s long; at least {SHORTEST_SECONDS:g} s are needed.")
        on_progress(0.1, "finding labels")
        scores = {guess["label"]: guess["score"] for guess in self._classifier(dict(audio)).top(self.top)}
        on_progress(0.2, "scores along time")
        along = self._along(audio, list(scores))
        on_progress(0.7, "attention")
        attention, codes, without = self._inside(audio, Path(name).stem[:LONGEST_NAME])
        on_progress(0.9, "drawing")
        return HeardFile(scores, along, attention, codes, self._round_trip(audio), without)

    def _along(self, audio: Audio, labels: list[str]) -> Figure:
        heard = self._heard_along(audio)
        track = heard.track()
        window = float(heard.window_seconds[0, 1] - heard.window_seconds[0, 0])
        tracks = {label: track[:, heard.labels.index(label)] for label in labels}
        return scores_figure(audio, tracks, heard.hop_seconds, f"Scores along time, {window:.2g} s heard at a time")

    def _heard_along(self, audio: Audio) -> ClipScores:
        """Scores of windows that are no longer than half the clip, so that there is something to see along it."""
        model, extractor = self._inspected.model, self._inspected.extractor
        seconds, longest = len(audio["array"]) / audio["sampling_rate"], longest_window(model, extractor)
        window = min(EVENT_WINDOW_SECONDS, seconds / 2)
        if longest is not None:
            window = min(window, longest / extractor.sampling_rate)
        hop = min(window, max(window / 4, (seconds - window) / (MOST_WINDOWS - 1)))
        return AudioClassifier(model, extractor, window_seconds=window, hop_seconds=hop)(dict(audio))

    def _inside(self, audio: Audio, name: str) -> tuple[Figure | None, Figure | None, str]:
        """Pictures of attention and of codes, as far as the model has them, and why it has no attention."""
        rate = audio["sampling_rate"]
        start: Audio = {"array": audio["array"][: round(ATTENTION_SECONDS * rate)], "sampling_rate": rate}
        if len(start["array"]) < len(audio["array"]):
            name += f" (the first {ATTENTION_SECONDS:g} s)"
        config: Any = self._inspected.model.config
        try:
            trace = trace_clip(self._inspected, start)
            size = getattr(config, "codebook_size", None)
            # The page's heading has the name, which may be too long for the figures' titles.
            view = view_of(trace, model="The model", clip=name, codebook_size=size)
        except ValueError as error:
            return None, None, str(error)
        attention = overlay_figure([view], [log_mel_of(start)])
        return attention, None if view.usage is None else codes_figure([view]), ""

    def _round_trip(self, audio: Audio) -> Audio | None:
        extractor = self._inspected.extractor
        if not self.has_codec:
            return None
        waveform = resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], extractor.sampling_rate)
        count = extractor.num_codebooks
        decoded = round_trips(extractor.load_codec(), waveform, [count], extractor.rms_level_dbfs)[count]
        return {"array": decoded.numpy(), "sampling_rate": extractor.sampling_rate}
