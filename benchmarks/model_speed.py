"""AudioFormer against `transformers.RoFormerModel` with the same weights, measured in one run.

    python -m benchmarks.model_speed [--layers 12] [--repeats 5] [--threads 2]

Prints the seconds of both for the forward pass and for a training step (forward and backward), at 10 s, at 30 s and for
a padded batch of mixed lengths, the ratio, and the largest difference of the outputs. One clip of n seconds is
75 n frames, BOA and EOA. The peer's table of positions ends at 1536 frames, 20.5 s.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import RoFormerConfig, RoFormerModel

from benchmarks.timing import compare
from conversion.convert_roformer import audioformer_from_roformer

FRAMES_PER_SECOND = 75
CODEBOOK_SIZE = 1024
BATCHES = {"10 s": (10,), "30 s": (30,), "2, 5, 8, 10 s": (2, 5, 8, 10)}


def make_batch(seconds: tuple[int, ...]) -> dict[str, Tensor]:
    """Random codes of clips of these lengths, padded on the right."""
    lengths = [FRAMES_PER_SECOND * s + 2 for s in seconds]
    input_ids = torch.randint(CODEBOOK_SIZE, (len(lengths), max(lengths)))
    attention_mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    batch = {"input_ids": input_ids}
    return batch if len(set(lengths)) == 1 else batch | {"attention_mask": attention_mask}


@torch.no_grad()
def forward(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).last_hidden_state


def training_step(model: nn.Module, batch: dict[str, Tensor]) -> None:
    model.zero_grad()
    model(**batch).last_hidden_state.square().mean().backward()


def largest_difference(ours: Tensor, theirs: Tensor, batch: dict[str, Tensor]) -> float:
    """Over frames that are not padding."""
    frames = batch.get("attention_mask", torch.ones(ours.shape[:2])).bool()
    return (ours - theirs)[frames].abs().max().item()


def row(name: str, step: Callable, ours: nn.Module, theirs: nn.Module, batch: dict[str, Tensor], repeats: int) -> str:
    """One line of the table; the peer is left out where its positions end."""
    if batch["input_ids"].shape[1] > theirs.config.max_position_embeddings:
        seconds = compare({"ours": lambda: step(ours, batch)}, repeats)
        return f"{name:28} {seconds['ours']:8.2f} s     peer: more frames than its table of positions"
    candidates = {"ours": lambda: step(ours, batch), "peer": lambda: step(theirs, batch)}
    seconds = compare(candidates, repeats)
    difference = largest_difference(forward(ours.eval(), batch), forward(theirs.eval(), batch), batch)
    return (
        f"{name:28} {seconds['ours']:8.2f} s {seconds['peer']:8.2f} s {seconds['peer'] / seconds['ours']:7.2f}x "
        f"{difference:12.1e}"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    theirs = RoFormerModel(RoFormerConfig(vocab_size=CODEBOOK_SIZE + 4, num_hidden_layers=arguments.layers)).eval()
    ours = audioformer_from_roformer(theirs)
    print(f"AudioFormer and RoFormerModel, {arguments.layers} layers, float32, CPU, {arguments.threads} threads\n")
    print(f"{'':28} {'ours':>10} {'peer':>10} {'ratio':>8} {'difference':>12}")
    for name, seconds in BATCHES.items():
        print(row(f"forward, {name}", forward, ours, theirs, make_batch(seconds), arguments.repeats), flush=True)
    for name in ("10 s", "2, 5, 8, 10 s"):
        ours.train(), theirs.train()
        batch = make_batch(BATCHES[name])
        print(row(f"training step, {name}", training_step, ours, theirs, batch, arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
