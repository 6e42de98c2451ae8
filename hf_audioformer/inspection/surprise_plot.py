"""Where a clip surprises a masked language model, under its spectrogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..audio.io import Audio
from .classification_plots import ACCENT, INK, PALE
from .panels import log_mel_of, panels, show_log_mel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["surprise_figure"]

SMOOTHING_SECONDS = 0.1


def surprise_figure(audio: Audio, surprise: np.ndarray, frame_rate: float, codebook_size: int, title: str) -> Figure:
    """The log-mel spectrogram of a clip, and under it the surprise of its frames, mean over codebooks, in nats.

    Args:
        audio: The clip.
        surprise: In nats, (frames, num_codebooks).
        frame_rate: Frames per second.
        codebook_size: Of which the surprise of guessing blindly, its logarithm, is marked.
        title: Of the figure.
    """
    seconds = len(audio["array"]) / audio["sampling_rate"]
    times = (np.arange(len(surprise)) + 0.5) / frame_rate
    of_frames = surprise.mean(axis=1)
    with panels(2, 1, title, width=9.0, height=2.2, sharex=True) as (figure, ((above,), (below,))):
        image = show_log_mel(above, log_mel_of(audio), seconds)
        above.set_xlabel("")
        figure.colorbar(image, ax=above, label="power, dB", pad=0.01)
        below.plot(times, of_frames, color=PALE, linewidth=0.8, label="each frame")
        width = max(1, round(SMOOTHING_SECONDS * frame_rate))
        smooth = np.convolve(of_frames, np.ones(width), "same") / np.convolve(
            np.ones_like(of_frames), np.ones(width), "same"
        )
        below.plot(times, smooth, color=ACCENT, linewidth=1.6, label=f"mean over {SMOOTHING_SECONDS:g} s")
        blind = float(np.log(codebook_size))
        below.axhline(blind, color=INK, linewidth=1, linestyle=(0, (2, 3)), label=f"blind guess {blind:.2f}")
        below.set(xlim=(0, seconds), ylim=(0, None), xlabel="time, s", ylabel="surprise, nats")
        below.grid(color="#e8e8e8", linewidth=0.8)
        below.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)
    return figure
