"""How many of a codec's codes a clip uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["CodeUsage", "code_usage"]


@dataclass(frozen=True)
class CodeUsage:
    """Of each codebook of a clip, (codebooks,) each.

    Args:
        distinct: Different codes that occur.
        perplexity: The number of codes that would be as hard to guess if all were as frequent: from 1 to `distinct`.
        counts: How often each code occurs, (codebooks, codebook_size).
    """

    distinct: np.ndarray
    perplexity: np.ndarray
    counts: np.ndarray


def code_usage(codes: np.ndarray, codebook_size: int) -> CodeUsage:
    """Usage of codes (frames, codebooks), integers in [0, codebook_size), without special tokens.

    Raises:
        ValueError: There is no frame, or a code is not of the codebook.
    """
    if not len(codes) or codes.min() < 0 or codes.max() >= codebook_size:
        found = f"from {codes.min()} to {codes.max()}" if len(codes) else "none"
        raise ValueError(f"codes must be at least one frame of numbers in [0, {codebook_size}); found {found}.")
    counts = np.stack([np.bincount(column, minlength=codebook_size) for column in codes.T])
    shares = counts / len(codes)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
    return CodeUsage(np.count_nonzero(counts, axis=1), np.exp(entropy), counts)
