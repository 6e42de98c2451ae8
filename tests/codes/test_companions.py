"""Vectors of companions: those of each clip alone, of its own codebook."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_audioformer import AudioFormerModel
from hf_audioformer.codes.companions import companion_vectors, load_companions, num_codebooks_read, pool_companions

from ..fixtures_recipes import save_companion

CODEBOOK_SIZE = 64


@pytest.fixture
def networks(tmp_path: Path) -> list[AudioFormerModel]:
    """C4 and C2."""
    folders = [save_companion(tmp_path / f"c{codebook + 1}", codebook) for codebook in (3, 1)]
    return load_companions(folders, codebook_size=CODEBOOK_SIZE, hidden_size=32)


def codes(*lengths: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(CODEBOOK_SIZE, size=(length, 4)) for length in lengths]


@pytest.mark.unit
def test_each_network_reads_its_codebook_and_means_its_frames(networks: list[AudioFormerModel]) -> None:
    clips = codes(7, 30, 12, 4, 12)
    found = companion_vectors(networks, clips, batch_size=2)
    assert (found.shape, found.dtype) == ((5, 2, 32), np.float32)
    for clip, vectors in zip(clips, found, strict=True):
        for network, codebook, vector in zip(networks, (3, 1), vectors, strict=True):
            frames = network(torch.from_numpy(clip[None, :, codebook])).last_hidden_state
            np.testing.assert_allclose(vector, frames[0].mean(0).detach().numpy(), atol=1e-5)
    assert num_codebooks_read(networks) == 4
    assert companion_vectors(networks, []).shape == (0, 2, 32)


@pytest.mark.invariant
def test_batches_change_nothing(networks: list[AudioFormerModel]) -> None:
    clips = codes(7, 30, 12, 4, 12)
    alone = companion_vectors(networks, clips, "cpu", 1)
    np.testing.assert_allclose(companion_vectors(networks, clips, "cpu", 5), alone, atol=1e-5)
    assert np.abs(alone - alone[:1]).max(axis=(1, 2))[1:].min() > 0.01


@pytest.mark.unit
def test_companions_are_frozen(networks: list[AudioFormerModel]) -> None:
    assert not any(network.training for network in networks)
    assert not any(weight.requires_grad for network in networks for weight in network.parameters())
    vectors = pool_companions(networks, torch.from_numpy(codes(5)[0][None]), torch.ones(1, 5))
    assert not vectors.requires_grad


@pytest.mark.fault
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"num_codebooks": 2, "fusion": "sum", "codebook_index": 0}, {}, "c2 is a AudioFormerModel of 2 codebooks"),
        ({"codebook_size": 32}, {}, "c2 has codebook_size 32; the network it accompanies has 64"),
        ({}, {"hidden_size": 16}, "c3 has hidden_size 16; the network it accompanies has 32"),
        ({}, {"codebook_index": 1}, r"the companions .*c2 and .*c3 read the same codebook, 1"),
    ],
)
def test_networks_that_cannot_be_companions(
    first: dict[str, Any], second: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folders = [
        save_companion(tmp_path / name, **({"codebook_index": index} | settings))
        for index, (name, settings) in enumerate({"c2": first, "c3": second}.items(), start=1)
    ]
    with pytest.raises(ValueError, match=message):
        load_companions(folders, codebook_size=CODEBOOK_SIZE, hidden_size=32)


@pytest.mark.fault
@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_codes_that_lack_a_codebook(shape: tuple[int, ...], networks: list[AudioFormerModel]) -> None:
    with pytest.raises(ValueError, match=r"clip 1 has codes of shape \(5, .*the companions read 4 codebooks"):
        companion_vectors(networks, [codes(5)[0], np.zeros(shape, dtype=np.int64)])
    with pytest.raises(ValueError, match="no companion networks"):
        companion_vectors([], codes(5))
