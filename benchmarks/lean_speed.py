"""A small AST and the resampler beside what they stand for, Transformers' AST and torchaudio's resampler: same results.

    python -m benchmarks.lean_speed [--clips 16] [--repeats 9] [--threads 1]

The first table runs the network of the presets `ast_synthetic` and `ast_esc10` forward and backward on spectrograms of
5 s, half of whose patches are dropped: as Transformers has it, and as `make_lean` leaves it. The second resamples clips
of about 5 s, no two equally long. Both sides take turns in one process; milliseconds are processor time, medians.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torchaudio.transforms import Resample
from transformers import ASTConfig, ASTForAudioClassification

from hf_audioformer.models.ast.lean_ast import make_lean
from hf_audioformer.models.ast.positions_ast import patch_grid
from hf_audioformer.models.ast.tokens_ast import NUM_SPECIAL_TOKENS, keep_tokens
from hf_audioformer.models.audioformer.waveform_audioformer import resample
from hf_audioformer.training.cpu import keep_freed_memory, quick_attention

from .timing import compare

NUM_CLASSES = 10
CONFIG = ASTConfig(
    num_hidden_layers=2,
    hidden_size=256,
    num_attention_heads=8,
    intermediate_size=512,
    patch_size=32,
    time_stride=8,
    frequency_stride=32,
    num_mel_bins=32,
    max_length=498,
    num_labels=NUM_CLASSES,
)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RATES = ((44_100, 16_000), (22_050, 24_000), (12_900, 16_000))  # the last is a changed speed
SECONDS = 5

Sides = dict[str, Callable[[], object]]


@contextmanager
def steps(clips: int, precision: torch.dtype) -> Iterator[Sides]:
    """A forward and backward pass of either network, of the same weights, on the same spectrograms."""
    stock, lean = ASTForAudioClassification(CONFIG), ASTForAudioClassification(CONFIG)
    lean.load_state_dict(stock.state_dict())
    make_lean(lean)
    over_frequency, over_time = patch_grid(CONFIG)
    patches = torch.arange(over_frequency * over_time)[::2] + NUM_SPECIAL_TOKENS
    batch = {
        "input_values": torch.randn(clips, CONFIG.max_length, CONFIG.num_mel_bins),
        "labels": torch.arange(clips) % NUM_CLASSES,
        "kept_tokens": torch.cat([torch.arange(NUM_SPECIAL_TOKENS), patches]).expand(clips, -1),
    }

    def step(model: ASTForAudioClassification) -> Callable[[], object]:
        keep_tokens(model)

        def run() -> None:
            with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
                loss = model(**batch).loss
            loss.backward()

        return run

    if precision == torch.float32:
        yield {"theirs": step(stock), "ours": step(lean)}
    else:  # as `AudioTrainer` does on a CPU, here on both sides
        with quick_attention(stock), quick_attention(lean):
            yield {"theirs": step(stock), "ours": step(lean)}


def resamplings(rate: int, new_rate: int) -> Sides:
    """Either resampler, whose every clip is a few samples longer than the one before."""

    def on_clips(run: Callable[[torch.Tensor], object]) -> Callable[[], object]:
        sound = torch.randn(2 * SECONDS * rate)
        lengths = itertools.count(SECONDS * rate, 37)
        return lambda: run(sound[: next(lengths)])

    return {"theirs": on_clips(Resample(rate, new_rate)), "ours": on_clips(lambda clip: resample(clip, rate, new_rate))}


def print_row(title: str, sides: Sides, repeats: int) -> None:
    took = compare(sides, repeats, clock=time.process_time)
    theirs, ours = 1000 * took["theirs"], 1000 * took["ours"]
    print(f"{title:>30} {theirs:9.1f} {ours:9.1f} {theirs / ours:7.1f}x", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16, help="of a step")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"milliseconds of processor time, {arguments.threads} threads, {arguments.repeats} rounds")
    print(f"{'':>30} {'theirs':>9} {'ours':>9} {'ratio':>8}")
    with keep_freed_memory():
        for name, precision in PRECISIONS.items():
            with steps(arguments.clips, precision) as sides:
                print_row(f"{arguments.clips} clips, {name}", sides, arguments.repeats)
        for rate, new_rate in RATES:
            print_row(f"{rate} to {new_rate} Hz", resamplings(rate, new_rate), arguments.repeats)


if __name__ == "__main__":
    main()
