"""The line is the surprise, over the clip's own seconds."""

import numpy as np
import pytest

from hf_audioformer.inspection.surprise_plot import surprise_figure


@pytest.mark.unit
def test_surprise_over_seconds() -> None:
    random = np.random.default_rng(0)
    nats = random.uniform(0, 4, size=(75, 2)).astype(np.float32)
    audio = {"array": random.standard_normal(16_000).astype(np.float32) * 0.1, "sampling_rate": 16_000}
    figure = surprise_figure(audio, nats, 75.0, 64, "a clip")
    above, below = figure.axes[:2]
    each, smooth, blind = below.get_lines()
    np.testing.assert_allclose(each.get_ydata(), nats.mean(1))
    np.testing.assert_allclose(each.get_xdata(), (np.arange(75) + 0.5) / 75)
    expected = [nats.mean(1)[max(0, frame - 4) : frame + 4].mean() for frame in range(75)]
    np.testing.assert_allclose(smooth.get_ydata(), expected, rtol=1e-5)
    assert blind.get_ydata()[0] == pytest.approx(np.log(64))
    assert below.get_xlim() == above.get_xlim() == (0, 1)
