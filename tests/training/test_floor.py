"""Floors against scikit-learn, on features that a slow formula gives."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_audioformer.audio.io import Audio
from hf_audioformer.data import ClipTable, read_clips
from hf_audioformer.recipes import encode
from hf_audioformer.training.floor import Floor, code_histogram, floor_metrics, log_mel_statistics

pytestmark = [pytest.mark.reference, pytest.mark.usefixtures("one_thread")]


def tone(frequency_hz: float, sampling_rate: int, seconds: float) -> Audio:
    time = torch.arange(int(seconds * sampling_rate)) / sampling_rate
    waveform = torch.sin(2 * math.pi * frequency_hz * time) + 0.1 * torch.randn(len(time))
    return {"array": waveform.numpy(), "sampling_rate": sampling_rate}


def accuracy(train: np.ndarray, test: np.ndarray, labels: np.ndarray, *, standardise: bool) -> float:
    return floor_metrics(train, labels, test, labels, num_labels=4, standardise=standardise)["accuracy"]


def test_statistics_of_log_mels_tell_tones_apart_at_any_rate_and_length() -> None:
    labels = np.array([0, 1, 2] * 8)
    pitches = [(300.0, 900.0, 2500.0)[label] for label in labels]
    train = np.stack([log_mel_statistics(tone(pitch, 16000, 0.3)) for pitch in pitches])
    test = np.stack([log_mel_statistics(tone(pitch, 24000, 0.5)) for pitch in pitches])
    assert accuracy(train, test, labels, standardise=True) == 1.0


def test_histograms_see_frequencies_and_no_order() -> None:
    labels, codebook_size = np.array([0, 1] * 20), 8
    uneven = [torch.randint(4 * label, 4 * label + 4, (2, 30 + index)) for index, label in enumerate(labels)]
    histograms = np.stack([code_histogram(codes, codebook_size) for codes in uneven])
    assert accuracy(histograms[:20], histograms[20:], labels[:20], standardise=False) == 1.0
    shares = [[(codes[book] == code).double().mean() for book in range(2) for code in range(8)] for codes in uneven]
    np.testing.assert_allclose(histograms**2, shares, atol=1e-6)
    rising = torch.arange(codebook_size).repeat(1, 5)
    np.testing.assert_array_equal(code_histogram(rising, 8), code_histogram(rising.flip(-1), 8))


def test_one_label_per_clip_is_scored_as_scikit_learn_scores_it() -> None:
    """Weak features of a large scale, and one that never changes; a class that only the test clips have."""
    random = np.random.default_rng(0)
    labels = random.integers(3, size=300)
    vectors = 40 * random.normal(size=(300, 6)) + 1000
    vectors[np.arange(300), labels] += 40
    vectors[:, 5] = 7
    train, test = slice(0, 200), slice(200, 300)
    scores = floor_metrics(vectors[train], labels[train], vectors[test], labels[test], num_labels=4, standardise=True)
    peer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(vectors[train], labels[train])
    assert 0.4 < scores["accuracy"] < 0.9
    assert scores["accuracy"] == pytest.approx(peer.score(vectors[test], labels[test]))
    labels[250:] = 3
    later = floor_metrics(vectors[train], labels[train], vectors[test], labels[test], num_labels=4, standardise=True)
    assert later["accuracy"] == pytest.approx(peer.score(vectors[test], labels[test]))


def test_several_labels_per_clip_are_fitted_one_against_the_rest(tone_csv: Path) -> None:
    clips = read_clips(str(tone_csv))
    train, test = list(range(12)), list(range(12, 24))
    features = np.stack([log_mel_statistics(clips.load(index)) for index in range(24)])
    average_precisions = []
    for label in range(3):
        targets = clips.targets()[:, label]
        peer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features[train], targets[train])
        average_precisions.append(average_precision_score(targets[test], peer.decision_function(features[test])))
    assert Floor(clips).metrics(train, test)["map"] == pytest.approx(np.mean(average_precisions), abs=1e-6)


def test_the_clips_of_a_code_store_give_histograms(tone_folder: Path, tiny_codec: str, tmp_path: Path) -> None:
    source, codec = (
        encode.ReadingArguments(source=str(tone_folder)),
        encode.CodecArguments(name=tiny_codec, num_codebooks=2),
    )
    encode.run(encode.EncodeArguments(data=source, output_dir=str(tmp_path / "codes"), codec=codec))
    clips = read_clips(str(tmp_path / "codes")).select(range(23, -1, -1))
    floor = Floor(clips)
    train, test = list(range(0, 24, 2)), list(range(1, 24, 2))
    found = floor.metrics(train, test)["accuracy"]
    histograms = np.stack([_histogram(clips, index) for index in range(24)])
    labels = clips.targets()
    peer = LogisticRegression(max_iter=2000).fit(histograms[train], labels[train])
    assert found == pytest.approx(peer.score(histograms[test], labels[test]))
    np.testing.assert_allclose(np.stack([floor._of_clip[index] for index in range(24)]), histograms, atol=1e-6)
    assert floor.features == "histograms of the codes"


def _histogram(clips: ClipTable, index: int) -> np.ndarray:
    """Of the row in the store that has the clip's name, counted one by one."""
    (codes,) = [row["codes"] for row in clips.codes.rows if row["id"] == clips.ids[index]]
    counts = np.zeros((2, 64))
    for frame in codes:
        for book, code in enumerate(frame):
            counts[book, code] += 1
    return np.sqrt(counts / len(codes)).ravel()
