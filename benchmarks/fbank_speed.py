"""Log-mels by `ASTLogMelFeatureExtractor` against Transformers' `ASTFeatureExtractor`, measured in one run.

    python -m benchmarks.fbank_speed [--seconds 10] [--clips 8] [--repeats 5] [--threads 1]

The stock extractor computes in torchaudio or, where that is not installed, in numpy; both are timed. Prints the
milliseconds of processor time per clip from waveform to normalised features of 1024 frames, how many times faster we
are, and the largest difference.
"""

import argparse
import time
from unittest.mock import patch

import torch
from transformers import ASTFeatureExtractor
from transformers.models.audio_spectrogram_transformer import feature_extraction_audio_spectrogram_transformer as stock

from benchmarks.timing import compare
from hf_audioformer import ASTLogMelFeatureExtractor

SAMPLING_RATE = 16_000
SETTINGS = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"}


def numpy_features(clips: list) -> torch.Tensor:
    """What the stock extractor gives where torchaudio is not installed."""
    with patch.object(stock, "is_speech_available", lambda: False):
        return ASTFeatureExtractor()(clips, **SETTINGS)["input_values"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    clips = [0.1 * torch.randn(int(arguments.seconds * SAMPLING_RATE)).numpy() for _ in range(arguments.clips)]
    theirs, ours = ASTFeatureExtractor(), ASTLogMelFeatureExtractor()
    seconds = compare(
        {
            "stock, torchaudio": lambda: theirs(clips, **SETTINGS),
            "stock, numpy": lambda: numpy_features(clips),
            "ours, one by one": lambda: [ours(clip, **SETTINGS) for clip in clips],
            "ours, as a list": lambda: ours(clips, **SETTINGS),
        },
        arguments.repeats,
        clock=time.process_time,
    )

    print(
        f"log-mels of {len(clips)} clips of {arguments.seconds:g} s, {arguments.threads} threads, "
        f"median of {arguments.repeats}"
    )
    print(f"{'':20} {'ms per clip':>12} {'against torchaudio':>20} {'against numpy':>15}")
    for name, value in seconds.items():
        ratios = [seconds[f"stock, {peer}"] / value for peer in ("torchaudio", "numpy")]
        print(f"{name:20} {1000 * value / len(clips):12.2f} {ratios[0]:19.2f}x {ratios[1]:14.1f}x")
    found = ours(clips, **SETTINGS)["input_values"]
    for name, peer in (("torchaudio", theirs(clips, **SETTINGS)["input_values"]), ("numpy", numpy_features(clips))):
        print(f"largest difference to {name}: {(found - peer).abs().max():.1e}")


if __name__ == "__main__":
    main()
