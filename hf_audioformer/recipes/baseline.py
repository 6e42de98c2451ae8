"""The floors beside every result: logistic regression on statistics of log-mels, and on histograms of codes.

    hf-audioformer baseline commands|esc10|fsdd

prints the log-mel accuracy on the unheard voices of the spoken commands, on each fold of ESC-10, or on each speaker of
FSDD, after training on the rest.
"""

import argparse
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..audio.io import Audio
from ..audio.log_mel import log_mel
from ..data.readers import read_clips
from ..data.splits import SplitArguments, make_splits
from ..models.audioformer.waveform_audioformer import resample

__all__ = ["bag_of_codes_baseline", "log_mel_baseline"]

SAMPLING_RATE = 16000
PROTOCOLS = {
    "commands": SplitArguments(kind="column", column="split", validation_fraction=0),
    "esc10": SplitArguments(kind="folds", column="fold", validation_fraction=0),
    "fsdd": SplitArguments(kind="folds", column="speaker", validation_fraction=0),
}


def log_mel_baseline(
    train_audio: Iterable[Audio], train_labels: ArrayLike, test_audio: Iterable[Audio], test_labels: ArrayLike
) -> float:
    """Test accuracy (0 to 1) of logistic regression on mean and deviation over time of 64 log-mels at 16 kHz."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit([_log_mel_statistics(audio) for audio in train_audio], train_labels)
    return float(classifier.score([_log_mel_statistics(audio) for audio in test_audio], test_labels))


def bag_of_codes_baseline(
    train_codes: Iterable[Tensor],
    train_labels: ArrayLike,
    test_codes: Iterable[Tensor],
    test_labels: ArrayLike,
    codebook_size: int,
) -> float:
    """Test accuracy (0 to 1) of logistic regression on how often each code occurs, whatever the order.

    Codes are int64 (num_codebooks, frames) per clip, below `codebook_size`. The features are square roots of relative
    frequencies, which keeps frequent codes from drowning the rare ones; they share a scale and are not standardised.
    """
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(max_iter=2000)
    classifier.fit([_code_histogram(codes, codebook_size) for codes in train_codes], train_labels)
    return float(classifier.score([_code_histogram(codes, codebook_size) for codes in test_codes], test_labels))


def _log_mel_statistics(audio: Audio) -> np.ndarray:
    """(128,): the mean, then the standard deviation of each mel band over time."""
    waveform = resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], SAMPLING_RATE)
    frames = log_mel(waveform, SAMPLING_RATE)
    return torch.cat([frames.mean(0), frames.std(0, correction=0)]).numpy()


def _code_histogram(codes: Tensor, codebook_size: int) -> np.ndarray:
    """(num_codebooks * codebook_size,): the square root of each code's share of the frames."""
    counts = torch.stack([codebook.bincount(minlength=codebook_size) for codebook in codes])
    return (counts / codes.shape[-1]).sqrt().flatten().numpy()


def main(argv: list[str] | None = None) -> None:
    """Prints the log-mel accuracy on each test part of a known set, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=PROTOCOLS)
    name = parser.parse_args(argv).data

    clips = read_clips(name)
    audio, labels = [clips.load(index) for index in range(len(clips))], clips.targets()
    accuracies = []
    for split in make_splits(clips, PROTOCOLS[name]):
        train, test = ([audio[index] for index in part] for part in (split.train, split.test))
        accuracies.append(log_mel_baseline(train, labels[split.train], test, labels[split.test]))
        print(f"{split.name}: {accuracies[-1]:.1%}")
    print(f"mean: {np.mean(accuracies):.1%}")


if __name__ == "__main__":
    main()
