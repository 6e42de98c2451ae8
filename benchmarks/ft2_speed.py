"""Steps of FT1, of FT2 with stored companion vectors, and of FT2 that runs the companions, measured in one run.

    python -m benchmarks.ft2_speed [--layers 12] [--hidden-size 768] [--clips 4] [--seconds 2] [--repeats 3]
                                   [--threads 2] [--device cpu] [--bf16]

A step makes the batch, runs the network of C1 forward and backward and updates it by AdamW; three companions read C2 to
C4. Prints the seconds of each step, ratios with their goals, the largest difference of the losses of the two kinds of
FT2 over the first steps, and what it takes to compute the vectors once. On a CPU seconds are processor time.
"""

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.timing import compare
from hf_audioformer import AudioFormerConfig, AudioFormerForAudioClassification, AudioFormerModel
from hf_audioformer.codes.companions import companion_vectors
from hf_audioformer.data.clip_companions import add_companion_codes, first_codebooks
from hf_audioformer.data.code_dataset import CodeAugmentation, CodeDataset, CodeVersion
from hf_audioformer.data.collators import CodeCollator, CompanionCollator
from hf_audioformer.losses import MultiPositiveContrastiveLoss
from hf_audioformer.training.contrastive import ContrastiveObjective

FRAMES_PER_SECOND = 75
CODEBOOK_SIZE = 1024
NUM_CODEBOOKS = 4
NUM_CLASSES = 527
COMPARED_STEPS = 2
PAD = CODEBOOK_SIZE + 3

Step = Callable[[], float]


def make_networks(arguments: argparse.Namespace) -> tuple[AudioFormerForAudioClassification, list[AudioFormerModel]]:
    """The network of C1 without dropout, so that losses can be compared, and its three companions.

    Their weights are larger than usual, so that the vectors of clips differ.
    """
    sizes: dict[str, Any] = {
        "initializer_range": 0.1,
        "num_hidden_layers": arguments.layers,
        "hidden_size": arguments.hidden_size,
        "num_attention_heads": arguments.hidden_size // 64,
        "intermediate_size": 4 * arguments.hidden_size,
    }
    config = partial(AudioFormerConfig, hidden_dropout=0, attention_dropout=0, **sizes)
    classifier = AudioFormerForAudioClassification(
        config(num_labels=NUM_CLASSES, problem_type="multi_label_classification")
    )
    companions = [AudioFormerModel(config(codebook_index=index)).eval() for index in range(1, NUM_CODEBOOKS)]
    return classifier.to(arguments.device), [network.to(arguments.device) for network in companions]


def make_dataset(versions: dict[int, list[CodeVersion]]) -> CodeDataset:
    """The clips in the form that the network of C1 reads, a tenth of the frames masked, with random labels."""
    targets = (np.random.default_rng(0).random((len(versions), NUM_CLASSES)) < 0.01).astype(np.float32)
    return CodeDataset(
        list(first_codebooks(versions, 1).values()), targets, CodeAugmentation(CODEBOOK_SIZE, mask_rate=0.1)
    )


def make_step(
    model: AudioFormerForAudioClassification,
    dataset: CodeDataset,
    collator: CodeCollator | CompanionCollator,
    objective: ContrastiveObjective | None,
    arguments: argparse.Namespace,
) -> Step:
    """A function that trains on the next epoch's draws of the clips and returns the loss."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    epoch = iter(range(10**9))

    def step() -> float:
        dataset.set_epoch(next(epoch))
        batch = collator([dataset[index] for index in range(len(dataset))])
        batch = {name: tensor.to(arguments.device) for name, tensor in batch.items()}
        with torch.autocast(torch.device(arguments.device).type, torch.bfloat16, enabled=arguments.bf16):
            loss = model(**batch).loss if objective is None else objective(model, batch)[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="networks under autocast to bfloat16")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    model, companions = make_networks(arguments)
    frames = arguments.seconds * FRAMES_PER_SECOND
    random = np.random.default_rng(0)
    # Of nearly one length: with padding, vectors of clips alone and in a batch are rounded differently.
    codes = [random.integers(CODEBOOK_SIZE, size=(frames - index, NUM_CODEBOOKS)) for index in range(arguments.clips)]
    versions = {index: [CodeVersion(clip)] for index, clip in enumerate(codes)}
    clock = time.process_time if arguments.device == "cpu" else time.perf_counter
    started = clock()
    vectors = companion_vectors(companions, codes, batch_size=1)
    once = clock() - started

    stored = {index: [CodeVersion(clip, companions=vectors[index])] for index, clip in enumerate(codes)}
    mpc = MultiPositiveContrastiveLoss(temperature=0.05)
    steps = {
        name: make_step(model, make_dataset(clips), collator, objective, arguments)
        for name, clips, collator, objective in (
            ("FT1", versions, CodeCollator(PAD), None),
            ("FT2, stored vectors", stored, CompanionCollator(CodeCollator(PAD)), ContrastiveObjective(0.8, mpc)),
            (
                "FT2, running companions",
                add_companion_codes(versions, versions),
                CompanionCollator(CodeCollator(PAD)),
                ContrastiveObjective(0.8, mpc, companions),
            ),
        )
    }
    plain, with_stored, running = steps
    difference = max(abs(steps[with_stored]() - steps[running]()) for _ in range(COMPARED_STEPS))
    seconds = compare(steps, arguments.repeats, clock)

    print(
        f"fine-tuning steps of {arguments.clips} clips of {arguments.seconds} s, {arguments.layers} layers of "
        f"{arguments.hidden_size}, {arguments.device}{', bf16' if arguments.bf16 else ''}, "
        f"{arguments.threads} threads, median of {arguments.repeats}"
    )
    for name, value in seconds.items():
        print(f"{name:26} {value:8.3f} s {value / seconds[plain]:7.2f}x FT1")
    print(f"stored vectors against FT1: {seconds[with_stored] / seconds[plain]:.2f}x (goal: at most 1.1x)")
    print(
        f"stored vectors against running: {seconds[running] / seconds[with_stored]:.2f}x faster (goal: at least 1.7x)"
    )
    print(f"largest difference of the losses in {COMPARED_STEPS} steps: {difference:.1e} (goal: 1e-5 in float32)")
    print(f"computing the vectors once: {once / arguments.clips:.3f} s per clip")


if __name__ == "__main__":
    main()
