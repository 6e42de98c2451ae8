"""The ratio of signal to distortion is that of its formula, whatever the level."""

import math

import numpy as np
import pytest
import torch

from hf_audioformer.audio.distortion import si_sdr_db


@pytest.mark.reference
def test_it_is_the_ratio_of_the_formula() -> None:
    random = np.random.default_rng(0)
    clean, noise = random.standard_normal((2, 1000))
    estimate = 3 * clean + noise
    clean_mean, estimate_mean = clean - clean.mean(), estimate - estimate.mean()
    target = np.dot(estimate_mean, clean_mean) / np.dot(clean_mean, clean_mean) * clean_mean
    expected = 10 * math.log10(np.sum(target**2) / np.sum((estimate_mean - target) ** 2))
    found = si_sdr_db(torch.from_numpy(estimate), torch.from_numpy(clean))
    assert found == pytest.approx(expected)
    assert found == pytest.approx(20 * math.log10(3), abs=0.5)
    assert si_sdr_db(torch.from_numpy(-0.1 * estimate), torch.from_numpy(clean)) == pytest.approx(expected)
    assert si_sdr_db(torch.from_numpy(np.append(estimate, 9.0)), torch.from_numpy(clean)) == pytest.approx(expected)


@pytest.mark.unit
def test_silence_has_none() -> None:
    assert math.isnan(si_sdr_db(torch.zeros(10), torch.arange(10.0)))
    assert math.isnan(si_sdr_db(torch.arange(10.0), torch.ones(10)))
