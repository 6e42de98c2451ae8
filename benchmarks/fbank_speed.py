"""Log-mels by `ASTLogMelFeatureExtractor` against Transformers' `ASTFeatureExtractor`, measured in one run.

    python -m benchmarks.fbank_speed [--seconds 10] [--clips 8] [--rounds 3] [--repeats 5] [--threads 1]

The stock extractor computes in torchaudio or, where that is not installed, in numpy; both are timed. Each runs in
processes of its own, which take turns, since who shares a heap with numpy's extractor is slowed down by it; a process
makes the clips once to warm up. Prints the milliseconds of processor time per clip from waveform to normalised features
of 1024 frames, medians, how many times faster we are, and the largest difference.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from unittest.mock import patch

import numpy as np
import torch
from transformers import ASTFeatureExtractor
from transformers.models.audio_spectrogram_transformer import feature_extraction_audio_spectrogram_transformer as stock

from hf_audioformer import ASTLogMelFeatureExtractor

SAMPLING_RATE = 16_000
SETTINGS = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"}

Clips = Sequence[np.ndarray]
Extract = Callable[[Clips], torch.Tensor]


def by_torchaudio() -> Extract:
    extractor = ASTFeatureExtractor()
    return lambda clips: extractor(list(clips), **SETTINGS)["input_values"]


def by_numpy() -> Extract:
    """What the stock extractor gives where torchaudio is not installed."""
    without_torchaudio = patch.object(stock, "is_speech_available", lambda: False)
    with without_torchaudio:
        extractor = ASTFeatureExtractor()

    def extract(clips: Clips) -> torch.Tensor:
        with without_torchaudio:
            return extractor(list(clips), **SETTINGS)["input_values"]

    return extract


def ours() -> Extract:
    extractor = ASTLogMelFeatureExtractor()
    return lambda clips: extractor(list(clips), **SETTINGS)["input_values"]


def ours_one_by_one() -> Extract:
    extractor = ASTLogMelFeatureExtractor()
    return lambda clips: torch.cat([extractor(clip, **SETTINGS)["input_values"] for clip in clips])


EXTRACTORS: dict[str, Callable[[], Extract]] = {
    "stock, torchaudio": by_torchaudio,
    "stock, numpy": by_numpy,
    "ours, one by one": ours_one_by_one,
    "ours, as a list": ours,
}


def make_clips(arguments: argparse.Namespace) -> list[np.ndarray]:
    torch.manual_seed(0)
    return [0.1 * torch.randn(int(arguments.seconds * SAMPLING_RATE)).numpy() for _ in range(arguments.clips)]


def seconds_of(name: str, arguments: argparse.Namespace) -> list[float]:
    """Processor seconds for all clips, each time."""
    clips, extract = make_clips(arguments), EXTRACTORS[name]()
    extract(clips)
    seconds = []
    for _ in range(arguments.repeats):
        started = time.process_time()
        extract(clips)
        seconds.append(time.process_time() - started)
    return seconds


def in_own_process(name: str, argv: Sequence[str]) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.fbank_speed", *argv, "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each extractor")
    parser.add_argument("--repeats", type=int, default=5, help="how often a process makes all clips")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=EXTRACTORS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.only:
        print(*seconds_of(arguments.only, arguments))
        return

    own = sys.argv[1:] if argv is None else argv
    seconds: dict[str, list[float]] = {name: [] for name in EXTRACTORS}
    for _ in range(arguments.rounds):
        for name in EXTRACTORS:
            seconds[name] += in_own_process(name, own)
    of_clip = {name: statistics.median(values) / arguments.clips for name, values in seconds.items()}
    print(
        f"log-mels of {arguments.clips} clips of {arguments.seconds:g} s, {arguments.threads} threads, "
        f"median of {arguments.repeats} in each of {arguments.rounds} processes"
    )
    print(f"{'':20} {'ms per clip':>12} {'against torchaudio':>20} {'against numpy':>15}")
    for name, value in of_clip.items():
        ratios = [of_clip[f"stock, {peer}"] / value for peer in ("torchaudio", "numpy")]
        print(f"{name:20} {1000 * value:12.2f} {ratios[0]:19.2f}x {ratios[1]:14.1f}x")
    clips = make_clips(arguments)
    for peer, extractor in (("torchaudio", by_torchaudio), ("numpy", by_numpy)):
        print(f"largest difference to {peer}: {(ours()(clips) - extractor()(clips)).abs().max():.1e}")


if __name__ == "__main__":
    main()
