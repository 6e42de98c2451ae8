"""Time and memory of an AudioFormer over a long clip, with full and with local attention.

    python -m benchmarks.long_clips [--minutes 1 10] [--window 128] [--layers 1] [--hidden-size 64] [--threads 1]

A forward pass over codes (75 per second) in a process of its own for each row, which tells the seconds and by how many
MB its memory grew at most. `full` is scaled_dot_product_attention over all positions; `local` is a layer of
`sliding_attention`, `window` positions on either side.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

from hf_audioformer import AudioFormerConfig, AudioFormerModel

FRAMES_PER_SECOND = 75


def measure(minutes: float, window: int | None, layers: int, hidden_size: int) -> tuple[float, float]:
    """Seconds, and MB of memory, of one forward pass."""
    config = AudioFormerConfig(
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden_size // 64),
        intermediate_size=4 * hidden_size,
        sliding_window=window,
    )
    model = AudioFormerModel(config).eval()
    codes = torch.randint(1024, (1, int(minutes * 60 * FRAMES_PER_SECOND)))
    with torch.inference_mode():
        model(codes[:, :1000])
        before, started = _peak_mb(), time.perf_counter()
        model(codes)
    return time.perf_counter() - started, _peak_mb() - before


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=["full", "local"], help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.only:
        window = arguments.window if arguments.only == "local" else None
        print(*measure(arguments.minutes[0], window, arguments.layers, arguments.hidden_size))
        return
    print(
        f"AudioFormer, {arguments.layers} layers of {arguments.hidden_size} channels, float32, CPU, "
        f"{arguments.threads} threads; {arguments.window} positions on either side\n"
    )
    print(f"{'':10} {'full':>10} {'local':>10} {'ratio':>8} {'full':>10} {'local':>10}")
    own = sys.argv[1:] if argv is None else argv
    for minutes in arguments.minutes:
        rows = []
        for kind in ("full", "local"):
            command = [sys.executable, "-m", "benchmarks.long_clips", *own, "--minutes", str(minutes), "--only", kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append([float(number) for number in done.stdout.split()])
        (full, full_mb), (local, local_mb) = rows
        print(
            f"{minutes:6g} min {full:8.2f} s {local:8.2f} s {full / local:7.1f}x {full_mb:7.0f} MB {local_mb:7.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
