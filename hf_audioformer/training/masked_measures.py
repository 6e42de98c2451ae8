"""How well masked codes are predicted, codebook by codebook, beside what the frequencies of codes alone give."""

from collections.abc import Iterable, Mapping
from typing import TypedDict

import numpy as np
import torch
from torch.nn import functional as F

from ..data.collators import IGNORED_LABEL

__all__ = [
    "Measures",
    "format_measures",
    "masked_counts",
    "masked_measures",
    "mean_measures",
    "unigram_baseline",
]


class Measures(TypedDict):
    """Accuracy in [0, 1] and perplexity of predicting masked codes, and of guessing by their frequency."""

    accuracy: float
    perplexity: float
    unigram_accuracy: float
    unigram_perplexity: float


def masked_counts(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For each clip and codebook the masked codes, those predicted right, and the sum of their surprise in nats.

    Args:
        logits: (batch, frames, vocab_size) or (batch, frames, num_codebooks, vocab_size).
        labels: (batch, frames) or (batch, frames, num_codebooks), -100 where nothing was masked.

    Returns:
        float32 (batch, num_codebooks, 3): so little that the counts of all clips can be kept.
    """
    if labels.dim() == 2:
        logits, labels = logits.unsqueeze(2), labels.unsqueeze(2)
    surprise = F.cross_entropy(logits.float().movedim(-1, 1), labels, ignore_index=IGNORED_LABEL, reduction="none")
    counts = (labels != IGNORED_LABEL, logits.argmax(dim=-1) == labels, surprise)
    return torch.stack([count.sum(dim=1, dtype=torch.float32) for count in counts], dim=-1)


def masked_measures(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and perplexity of each codebook, (num_codebooks,) each, from `masked_counts` of clips, (clips, ...)."""
    masked, right, surprise = counts.sum(axis=0, dtype=np.float64).T
    return right / masked, np.exp(surprise / masked)


def unigram_baseline(
    training_codes: Iterable[np.ndarray], validation_codes: Iterable[np.ndarray], codebook_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and perplexity, (num_codebooks,) each, of predicting codes by their training frequency (add-one)."""
    train, test = (_code_counts(codes, codebook_size) for codes in (training_codes, validation_codes))
    shares = (train + 1) / (train + 1).sum(axis=1, keepdims=True)
    found = test / test.sum(axis=1, keepdims=True)
    accuracy = found[np.arange(len(train)), train.argmax(axis=1)]
    return accuracy, np.exp(-(found * np.log(shares)).sum(axis=1))


def mean_measures(codebooks: Mapping[str, Measures]) -> Measures:
    """The means over codebooks, geometric for perplexities: exact where all have as many masked codes."""
    rows = codebooks.values()
    return {
        "accuracy": float(np.mean([row["accuracy"] for row in rows])),
        "perplexity": float(np.exp(np.mean([np.log(row["perplexity"]) for row in rows]))),
        "unigram_accuracy": float(np.mean([row["unigram_accuracy"] for row in rows])),
        "unigram_perplexity": float(np.exp(np.mean([np.log(row["unigram_perplexity"]) for row in rows]))),
    }


def format_measures(codebooks: Mapping[str, Measures]) -> str:
    """A Markdown table with a row per codebook, by its name, and one of their means."""
    rows = {**codebooks, **({"mean": mean_measures(codebooks)} if len(codebooks) > 1 else {})}
    lines = [
        "| codebook | masked accuracy | unigram | masked perplexity | unigram |",
        "| -------- | --------------- | ------- | ----------------- | ------- |",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name:8} | {row['accuracy']:15.1%} | {row['unigram_accuracy']:7.1%} "
            f"| {row['perplexity']:17.1f} | {row['unigram_perplexity']:7.1f} |"
        )
    return "\n".join(lines)


def _code_counts(codes: Iterable[np.ndarray], codebook_size: int) -> np.ndarray:
    """How often each code occurs in clips that are looked at one by one, int64 (num_codebooks, codebook_size)."""
    total: np.ndarray | int = 0
    for clip in codes:
        frames = clip.reshape(len(clip), -1)
        frames = frames[(frames < codebook_size).all(axis=1)]  # without special tokens
        total = total + np.stack([np.bincount(column, minlength=codebook_size) for column in frames.T])
    return np.asarray(total)
