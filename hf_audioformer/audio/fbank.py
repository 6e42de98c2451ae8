"""Kaldi's log-mel filterbank, under the name by which the rest of the package knows it.

It lies with the model files, because the feature extractors that use it may be pushed to the Hub as code.
"""

from ..models.audioformer.fbank_audioformer import (
    HOP_SECONDS,
    LOWEST_HZ,
    WINDOW_SECONDS,
    kaldi_log_mel,
    log_mels_of_clips,
    num_frames,
    samples_of_frames,
)

__all__ = [
    "HOP_SECONDS",
    "LOWEST_HZ",
    "WINDOW_SECONDS",
    "kaldi_log_mel",
    "log_mels_of_clips",
    "num_frames",
    "samples_of_frames",
]
