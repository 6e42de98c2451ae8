"""Codebooks of a residual quantizer: fitted by k-means, then kept up to date while the encoder trains."""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.encodec.modeling_encodec import EncodecEuclideanCodebook, EncodecResidualVectorQuantizer

__all__ = ["EmaResidualQuantizer", "QuantizedLatents", "fit_residual_codebooks", "nearest_entries", "set_codebooks"]


def nearest_entries(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index of the entry of `codebook` (size, dim) nearest to each of `vectors` (n, dim): int64 (n,)."""
    return (codebook.square().sum(1) - 2 * vectors @ codebook.T).argmin(1)


def fit_residual_codebooks(
    vectors: Tensor, num_codebooks: int, codebook_size: int, *, generator: torch.Generator, iterations: int = 10
) -> Tensor:
    """Residual k-means: each codebook is fitted to what the ones before it leave of `vectors` (n, dim).

    Returns float (num_codebooks, codebook_size, dim).

    Raises:
        ValueError: fewer vectors than entries.
    """
    if len(vectors) < codebook_size:
        raise ValueError(f"{len(vectors)} vectors cannot fill {codebook_size} entries; give at least as many vectors")
    residual, codebooks = vectors, []
    for _ in range(num_codebooks):
        codebook = _k_means(residual, codebook_size, iterations, generator)
        residual = residual - codebook[nearest_entries(residual, codebook)]
        codebooks.append(codebook)
    return torch.stack(codebooks)


def _k_means(vectors: Tensor, size: int, iterations: int, generator: torch.Generator) -> Tensor:
    codebook = _spread_out(vectors, size, generator)
    for _ in range(iterations):
        indices = nearest_entries(vectors, codebook)
        counts, sums = _assigned(vectors, indices, size)
        used = counts > 0
        codebook[used] = sums[used] / counts[used, None]
    return codebook


def _spread_out(vectors: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Start of k-means++: each entry is drawn with probability proportional to its squared distance from the others."""
    entries = [vectors[int(torch.randint(len(vectors), (1,), generator=generator))]]
    distance = (vectors - entries[0]).square().sum(1)
    for _ in range(size - 1):
        entries.append(vectors[_draw_distant(distance, 1, generator)[0]])
        distance = torch.minimum(distance, (vectors - entries[-1]).square().sum(1))
    return torch.stack(entries)


def _draw_distant(distance: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` indices drawn in proportion to `distance` (n,); the tiny term covers vectors that are all alike."""
    return torch.multinomial(distance.clamp(min=0) + 1e-12, count, replacement=True, generator=generator)


def _assigned(vectors: Tensor, indices: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How many vectors each entry was given, (size,), and their sum, (size, dim)."""
    counts = torch.bincount(indices, minlength=size).to(vectors)
    return counts, torch.zeros(size, vectors.shape[1]).to(vectors).index_add_(0, indices, vectors)


def set_codebooks(quantizer: EncodecResidualVectorQuantizer, vectors: Tensor, codebooks: Tensor) -> None:
    """Put `codebooks` (num_codebooks, size, dim), fitted to `vectors` (n, dim), and their averages into `quantizer`."""
    residual = vectors
    for codebook, entries in zip(_codebooks(quantizer), codebooks, strict=True):
        indices = nearest_entries(residual, entries)
        share = torch.bincount(indices, minlength=len(entries)) / len(residual)
        codebook.embed.copy_(entries)
        codebook.cluster_size.copy_(share)
        codebook.embed_avg.copy_(entries * share[:, None])
        residual = residual - entries[indices]


def _codebooks(quantizer: EncodecResidualVectorQuantizer) -> list[EncodecEuclideanCodebook]:
    return [cast(EncodecEuclideanCodebook, layer.codebook) for layer in quantizer.layers]


class QuantizedLatents(NamedTuple):
    """What `EmaResidualQuantizer` returns: `latents` (batch, frames, dim) and the scalar `commitment` loss."""

    latents: Tensor
    commitment: Tensor


class EmaResidualQuantizer:
    """Quantizes latents during training and moves the codebooks of `quantizer` after them.

    The gradient passes straight through to the encoder. Each entry follows the moving average of the vectors it was
    given; `cluster_size` holds shares of all frames (they sum to 1). An entry with less than `dead_share` of the mean
    share is replaced by a vector that the codebook covers badly.

    Args:
        quantizer: the quantizer of an `EncodecModel`, its codebooks already fitted (`set_codebooks`).
        decay: of the moving averages, per call.
        dead_share: as above.
    """

    def __init__(
        self, quantizer: EncodecResidualVectorQuantizer, *, decay: float = 0.99, dead_share: float = 0.05
    ) -> None:
        self.codebooks = _codebooks(quantizer)
        self.decay = decay
        self.dead_share = dead_share

    def __call__(self, latents: Tensor, generator: torch.Generator) -> QuantizedLatents:
        """Quantize `latents` (batch, frames, dim) and update the codebooks."""
        residual = latents.detach().flatten(0, 1)
        total = torch.zeros_like(residual)
        for codebook in self.codebooks:
            indices = nearest_entries(residual, codebook.embed)
            chosen = codebook.embed[indices]
            self._update(codebook, residual, indices, generator)
            residual, total = residual - chosen, total + chosen
        total = total.view_as(latents)
        return QuantizedLatents(latents + (total - latents).detach(), F.mse_loss(latents, total))

    @torch.no_grad()
    def _update(
        self, codebook: EncodecEuclideanCodebook, vectors: Tensor, indices: Tensor, generator: torch.Generator
    ) -> None:
        size = len(codebook.embed)
        counts, sums = _assigned(vectors, indices, size)
        codebook.cluster_size.lerp_(counts / len(vectors), 1 - self.decay)
        codebook.embed_avg.lerp_(sums / len(vectors), 1 - self.decay)
        dead = codebook.cluster_size < self.dead_share / size
        if dead.any():
            distance = (vectors - codebook.embed[indices]).square().sum(1)
            codebook.cluster_size[dead] = 1 / size
            codebook.embed_avg[dead] = vectors[_draw_distant(distance, int(dead.sum()), generator)] / size
        codebook.embed.copy_(codebook.embed_avg / codebook.cluster_size[:, None])
