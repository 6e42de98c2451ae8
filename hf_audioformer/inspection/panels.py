"""Grids of panels in the house's style, and a clip's spectrogram with seconds and hertz, for the figures of models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..audio.fbank import HOP_SECONDS, LOWEST_HZ, WINDOW_SECONDS, kaldi_log_mel
from ..audio.io import Audio
from ..models.audioformer.waveform_audioformer import resample
from .classification_plots import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["log_mel_of", "mark_unheard", "mel_position", "panels", "show_log_mel"]

DPI = 110
SAMPLING_RATE = 16_000
NUM_MEL_BINS = 128
LONGEST_STEP_SECONDS = 0.2  # up to so much may be missing at the end of any model's steps
TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000)


@contextmanager
def panels(
    rows: int, columns: int, title: str, *, width: float = 4.2, height: float = 3.0, **settings: Any
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure of `rows` x `columns` panels, each of a size in inches, and its axes (rows, columns)."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | {"font.size": 9, "axes.titlesize": 9}):
        lines = 1 + title.count("\n")
        figure = Figure(
            figsize=(width * columns + 0.9, height * rows + 0.25 + 0.25 * lines), layout="constrained", dpi=DPI
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        yield figure, figure.subplots(rows, columns, squeeze=False, **settings)


def log_mel_of(audio: Audio) -> np.ndarray:
    """The log-mel spectrogram that an AST sees of a clip: natural logarithm of power, (frames, 128), at 16 kHz.

    Raises:
        ValueError: The clip is shorter than a window of 25 ms.
    """
    waveform = resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], SAMPLING_RATE)
    return kaldi_log_mel(waveform, SAMPLING_RATE, NUM_MEL_BINS).numpy()


def mel_position(hz: float) -> float:
    """Where a frequency lies on the mel axis from 20 Hz to 8 kHz, from 0 to 1; lower and higher ones beyond."""
    lowest, highest, mel = (np.log(1 + value / 700) for value in (LOWEST_HZ, SAMPLING_RATE / 2, hz))
    return float((mel - lowest) / (highest - lowest))


def show_log_mel(axes: Axes, log_mel: np.ndarray, clip_seconds: float, *, cmap: str = "gray_r") -> Any:
    """Draws a spectrogram of `log_mel_of` from 0 to 1 over its mel axis, ticked in kHz, and over the clip's seconds."""
    decibels = 10 / np.log(10) * log_mel
    start = (WINDOW_SECONDS - HOP_SECONDS) / 2
    image = axes.imshow(
        np.maximum(decibels, decibels.max() - 80).T,
        origin="lower",
        aspect="auto",
        cmap=cmap,
        extent=(start, start + len(log_mel) * HOP_SECONDS, 0, 1),
    )
    axes.set_yticks([mel_position(hz) for hz in TICKS_HZ], [f"{hz / 1000:g}" for hz in TICKS_HZ])
    axes.set(xlim=(0, clip_seconds), ylim=(0, 1), xlabel="time, s", ylabel="frequency, kHz")
    return image


def mark_unheard(axes: Axes, end_seconds: float, clip_seconds: float) -> None:
    """Hatches what of the clip lies behind the last step of a model that takes so much and no more."""
    if end_seconds < clip_seconds - LONGEST_STEP_SECONDS:
        axes.axvspan(end_seconds, clip_seconds, facecolor="none", edgecolor="#bbbbbb", hatch="//", linewidth=0)
        middle = (end_seconds + clip_seconds) / 2
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(middle, 0.5, "not heard", transform=axes.get_xaxis_transform(), ha="center", fontsize=8, bbox=box)
