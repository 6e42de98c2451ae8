"""Training steps of an AST as this package feeds and trains it, against Transformers' AST fed by its own extractor.

    python -m benchmarks.ast_speed [--seconds 1 5 10] [--precision float32 bfloat16] [--layers 12] [--hidden-size 192]
                                   [--clips 2] [--repeats 3] [--threads 1]

A step makes log-mels of waveforms, runs the network forward and backward and updates it by AdamW, in one precision on
both sides. Theirs reads 1024 frames, whatever the clip, as the extractor's and the model's defaults say; ours as many
as the clip has, and trains as `AudioTrainer` does on a CPU (`hf_audioformer.training.cpu`). The last column drops half
of the patches in addition (`augmentation.patch_dropout`), which is another training. Prints clips per second and ratios
with their goals. Each side runs in processes of its own, which take turns; seconds are processor time, medians.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from hf_audioformer import ASTLogMelFeatureExtractor
from hf_audioformer.data.spectrogram_collator import SpectrogramCollator
from hf_audioformer.models.ast.lean_ast import make_lean
from hf_audioformer.models.ast.loading_ast import new_ast
from hf_audioformer.models.ast.tokens_ast import keep_tokens
from hf_audioformer.training.cpu import keep_freed_memory, quick_attention

SAMPLING_RATE = 16_000
NUM_CLASSES = 50
GOALS = {1.0: 6.0, 5.0: 2.0, 10.0: 1.2}
SIDES = ("theirs", "ours", "dropped")

Batch = dict[str, torch.Tensor]
Training = tuple[ASTForAudioClassification, Callable[[], Batch]]


def their_training(config: ASTConfig, clips: Sequence[np.ndarray], labels: torch.Tensor) -> Training:
    extractor = ASTFeatureExtractor()
    settings = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"}
    return ASTForAudioClassification(config), lambda: {**extractor(list(clips), **settings), "labels": labels}


def our_training(
    config: ASTConfig, clips: Sequence[np.ndarray], labels: torch.Tensor, patch_dropout: float
) -> Training:
    model = new_ast(config, num_labels=NUM_CLASSES, seconds=len(clips[0]) / SAMPLING_RATE)
    extractor = ASTLogMelFeatureExtractor(max_length=model.config.max_length)
    keep_tokens(model)
    make_lean(model)
    padding = (0 - extractor.mean) / (2 * extractor.std)
    collate = SpectrogramCollator(model.config, padding, patch_dropout=patch_dropout)

    def make_batch() -> Batch:
        log_mels = extractor.log_mels(list(clips), SAMPLING_RATE)
        items = zip(map(extractor.normalised, log_mels), labels.tolist(), strict=True)
        return collate(
            [
                {"input_values": values.numpy(), "labels": label, "clip_index": index}
                for index, (values, label) in enumerate(items)
            ]
        )

    return model, make_batch


def seconds_of_step(side: str, arguments: argparse.Namespace) -> float:
    """Median processor seconds of a training step of one side, after a warm-up."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden_size // 64,
        intermediate_size=4 * arguments.hidden_size,
        num_labels=NUM_CLASSES,
    )
    random = np.random.default_rng(0)
    samples = int(arguments.seconds[0] * SAMPLING_RATE)
    clips = [random.normal(scale=0.1, size=samples).astype(np.float32) for _ in range(arguments.clips)]
    labels = torch.arange(arguments.clips)
    in_bfloat16 = arguments.precision[0] == "bfloat16"
    with ExitStack() as stack:
        if side == "theirs":
            model, make_batch = their_training(config, clips, labels)
        else:
            model, make_batch = our_training(config, clips, labels, 0.5 if side == "dropped" else 0.0)
            stack.enter_context(keep_freed_memory())
            if in_bfloat16:
                stack.enter_context(quick_attention(model))
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        took = []
        for _ in range(1 + arguments.repeats):
            started = time.process_time()
            batch = make_batch()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
                loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            took.append(time.process_time() - started)
    return statistics.median(took[1:])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=list(GOALS))
    parser.add_argument("--precision", choices=["float32", "bfloat16"], nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden-size", type=int, default=192)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.only:
        print(seconds_of_step(arguments.only, arguments))
        return
    print(
        f"training steps of {arguments.clips} clips, {arguments.layers} layers of {arguments.hidden_size}, "
        f"{arguments.threads} threads, {arguments.repeats} rounds; clips per second of processor time"
    )
    print(f"{'seconds':>7} {'precision':>9} {'theirs':>8} {'ours':>8} {'ratio':>7} {'goal':>6} {'half dropped':>13}")
    own = sys.argv[1:] if argv is None else argv
    for seconds in arguments.seconds:
        for precision in arguments.precision:
            cell = ["--seconds", str(seconds), "--precision", precision]
            took: dict[str, list[float]] = {side: [] for side in SIDES}
            for side in SIDES * arguments.repeats:
                command = [sys.executable, "-m", "benchmarks.ast_speed", *own, *cell, "--only", side]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                took[side].append(float(done.stdout.split()[-1]))
            rates = {side: arguments.clips / statistics.median(values) for side, values in took.items()}
            goal = GOALS.get(seconds)
            print(
                f"{seconds:7g} {precision:>9} {rates['theirs']:8.2f} {rates['ours']:8.2f} "
                f"{rates['ours'] / rates['theirs']:6.2f}x {f'{goal:g}x' if goal else '-':>6} "
                f"{rates['dropped'] / rates['theirs']:12.2f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
