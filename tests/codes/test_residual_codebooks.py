from itertools import pairwise

import pytest
import torch

from hf_audioformer.codes.residual_codebooks import (
    EmaResidualQuantizer,
    fit_residual_codebooks,
    nearest_entries,
    set_codebooks,
)
from hf_audioformer.recipes.train_codec import TrainCodecArguments, build_codec


@pytest.fixture
def quantizer() -> torch.nn.Module:
    arguments = TrainCodecArguments("unused", ["unused"], num_filters=2, hidden_size=4, codebook_size=8)
    return build_codec(arguments).quantizer


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.unit
def test_k_means_finds_separate_clusters() -> None:
    centres = 10 * torch.eye(8)
    vectors = centres.repeat(50, 1) + 0.1 * torch.randn(400, 8)
    codebooks = fit_residual_codebooks(vectors, 2, 8, generator=generator())
    assert codebooks.shape == (2, 8, 8)
    assert torch.cdist(centres, codebooks[0]).min(1).values.max() < 0.1


@pytest.mark.unit
def test_every_codebook_reduces_the_error() -> None:
    residual = torch.randn(1000, 4)
    errors = [residual.square().mean()]
    for codebook in fit_residual_codebooks(residual, 3, 16, generator=generator()):
        residual = residual - codebook[nearest_entries(residual, codebook)]
        errors.append(residual.square().mean())
    assert all(after < 0.7 * before for before, after in pairwise(errors))


@pytest.mark.unit
def test_too_few_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="7 vectors cannot fill 8 entries"):
        fit_residual_codebooks(torch.randn(7, 4), 1, 8, generator=generator())


@pytest.mark.unit
def test_quantizing_in_training_gives_what_the_model_gives(quantizer: torch.nn.Module) -> None:
    vectors = torch.randn(500, 4)
    set_codebooks(quantizer, vectors, fit_residual_codebooks(vectors, 4, 8, generator=generator()))
    latents = torch.randn(2, 10, 4, requires_grad=True)
    expected = quantizer.decode(quantizer.encode(latents.detach().transpose(1, 2))).transpose(1, 2)
    quantized = EmaResidualQuantizer(quantizer)(latents, generator())
    torch.testing.assert_close(quantized.latents, expected)
    torch.testing.assert_close(quantized.commitment, (latents - expected).square().mean())
    quantized.latents.sum().backward()
    torch.testing.assert_close(latents.grad, torch.ones_like(latents))


@pytest.mark.unit
def test_codebooks_follow_the_latents_and_dead_entries_come_back(quantizer: torch.nn.Module) -> None:
    vectors = torch.randn(500, 4)
    set_codebooks(quantizer, vectors, fit_residual_codebooks(vectors, 4, 8, generator=generator()))
    ema, draws = EmaResidualQuantizer(quantizer, decay=0.9), generator()
    for _ in range(100):
        ema(torch.randn(1, 200, 4) + 20, draws)
    codes = quantizer.encode((torch.randn(1, 500, 4) + 20).transpose(1, 2))
    assert all(len(row.unique()) == 8 for row in codes)
