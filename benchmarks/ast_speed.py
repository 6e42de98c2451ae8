"""Training steps of an AST as this package feeds it, against Transformers' AST fed by its own extractor, in one run.

    python -m benchmarks.ast_speed [--seconds 1 5 10] [--layers 12] [--hidden-size 192] [--clips 2] [--repeats 3]
                                   [--threads 1]

A step makes log-mels of waveforms, runs the network forward and backward and updates it by AdamW. Theirs reads 1024
frames, whatever the clip, as the extractor's and the model's defaults say; ours as many as the clip has. The last
column drops half of the patches in addition (`augmentation.patch_dropout`), which is another training. Prints clips per
second and ratios with their goals. Seconds are processor time.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from benchmarks.timing import compare
from hf_audioformer import ASTLogMelFeatureExtractor
from hf_audioformer.data.spectrogram_collator import SpectrogramCollator
from hf_audioformer.models.ast.loading_ast import new_ast
from hf_audioformer.models.ast.positions_ast import covering_length
from hf_audioformer.models.ast.tokens_ast import keep_tokens

SAMPLING_RATE = 16_000
NUM_CLASSES = 50
GOALS = {1.0: 6.0, 5.0: 2.0, 10.0: 1.2}

Batch = dict[str, torch.Tensor]


def make_step(model: ASTForAudioClassification, make_batch: Callable[[], Batch]) -> Callable[[], None]:
    """A function that makes a batch and trains on it."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        model(**make_batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def their_step(config: ASTConfig, clips: Sequence[np.ndarray], labels: torch.Tensor) -> Callable[[], None]:
    extractor = ASTFeatureExtractor()
    settings = {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"}
    model = ASTForAudioClassification(config)
    return make_step(model, lambda: {**extractor(list(clips), **settings), "labels": labels})


def our_step(
    config: ASTConfig, clips: Sequence[np.ndarray], labels: torch.Tensor, patch_dropout: float
) -> Callable[[], None]:
    model = new_ast(config, num_labels=NUM_CLASSES, seconds=len(clips[0]) / SAMPLING_RATE)
    extractor = ASTLogMelFeatureExtractor(max_length=model.config.max_length)
    keep_tokens(model)
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

    return make_step(model, make_batch)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=list(GOALS))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden-size", type=int, default=192)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden_size // 64,
        intermediate_size=4 * arguments.hidden_size,
        num_labels=NUM_CLASSES,
    )

    print(
        f"training steps of {arguments.clips} clips, {arguments.layers} layers of {arguments.hidden_size}, "
        f"{arguments.threads} threads, median of {arguments.repeats}; clips per second of processor time"
    )
    print(f"{'seconds':>7} {'frames':>7} {'theirs':>8} {'ours':>8} {'ratio':>7} {'goal':>6} {'half dropped':>13}")
    for seconds in arguments.seconds:
        random = np.random.default_rng(0)
        samples = int(seconds * SAMPLING_RATE)
        clips = [random.normal(scale=0.1, size=samples).astype(np.float32) for _ in range(arguments.clips)]
        labels = torch.arange(arguments.clips)
        steps = {
            "theirs": their_step(config, clips, labels),
            "ours": our_step(config, clips, labels, 0.0),
            "dropped": our_step(config, clips, labels, 0.5),
        }
        took = compare(steps, arguments.repeats, clock=time.process_time)
        rates = {name: arguments.clips / value for name, value in took.items()}
        ratio, goal = rates["ours"] / rates["theirs"], GOALS.get(seconds)
        print(
            f"{seconds:7g} {covering_length(seconds, config):7d} {rates['theirs']:8.2f} {rates['ours']:8.2f} "
            f"{ratio:6.2f}x {f'{goal:g}x' if goal else '-':>6} {rates['dropped'] / rates['theirs']:12.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
