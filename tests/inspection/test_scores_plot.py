"""The lines are the scores, over the clip's own seconds, under its own samples."""

import numpy as np
import pytest

from hf_audioformer.inspection.scores_plot import scores_figure


@pytest.mark.unit
def test_scores_over_seconds() -> None:
    random = np.random.default_rng(0)
    audio = {"array": random.standard_normal(16_000).astype(np.float32) * 0.1, "sampling_rate": 16_000}
    tracks = {name: random.uniform(size=4) for name in ("dog", "rain")}
    figure = scores_figure(audio, tracks, 0.3, "a clip")
    wave, spectrogram, scores = figure.axes[:3]
    (line,) = wave.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), audio["array"])
    np.testing.assert_allclose(line.get_xdata(), np.arange(16_000) / 16_000)
    for stairs, (name, track) in zip(scores.patches, tracks.items(), strict=True):
        values, edges, _ = stairs.get_data()
        assert stairs.get_label() == name
        np.testing.assert_array_equal(values, track)
        np.testing.assert_allclose(edges, [0, 0.3, 0.6, 0.9, 1.0])
    assert wave.get_xlim() == spectrogram.get_xlim() == scores.get_xlim() == (0, 1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(tracks)
