"""A classifier's scores along a clip, under its waveform and its spectrogram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..audio.io import Audio
from .classification_plots import ACCENT
from .panels import log_mel_of, panels, show_log_mel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["scores_figure"]


def scores_figure(audio: Audio, tracks: Mapping[str, np.ndarray], hop_seconds: float, title: str) -> Figure:
    """The waveform and the log-mel spectrogram of a clip, and under them a line of steps for each label.

    Args:
        audio: The clip.
        tracks: By label, its score of each step of `hop_seconds`, (steps,), in [0, 1].
        hop_seconds: Length of a step; the last one is drawn to the end of the clip.
        title: Of the figure.

    Raises:
        ValueError: The clip is shorter than a window of 25 ms.
    """
    waveform, seconds = audio["array"], len(audio["array"]) / audio["sampling_rate"]
    with panels(3, 1, title, width=9.0, height=1.7, sharex=True, height_ratios=(0.7, 1, 1)) as (
        figure,
        ((wave,), (spectrogram,), (scores,)),
    ):
        wave.plot(np.arange(len(waveform)) / audio["sampling_rate"], waveform, color=ACCENT, linewidth=0.5)
        wave.set(ylabel="waveform")
        image = show_log_mel(spectrogram, log_mel_of(audio), seconds)
        spectrogram.set_xlabel("")
        figure.colorbar(image, ax=spectrogram, label="power, dB", pad=0.01)
        for label, track in tracks.items():
            edges = np.minimum(np.arange(len(track) + 1) * hop_seconds, seconds)
            scores.stairs(track, edges, baseline=None, linewidth=1.6, label=label)
        scores.set(xlim=(0, seconds), ylim=(-0.02, 1.02), xlabel="time, s", ylabel="score")
        scores.grid(color="#e8e8e8", linewidth=0.8)
        figure.legend(*scores.get_legend_handles_labels(), loc="outside lower left", ncols=5, fontsize=8)
    return figure
