"""The objective of FT2 on a batch, from stored vectors and from networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_audioformer import AudioFormerForAudioClassification
from hf_audioformer.codes.companions import load_companions
from hf_audioformer.data.clip_companions import add_companion_codes, add_companion_vectors, first_codebooks
from hf_audioformer.data.code_dataset import CodeAugmentation, CodeDataset, CodeVersion
from hf_audioformer.data.collators import CodeCollator, CompanionCollator
from hf_audioformer.losses import MultiPositiveContrastiveLoss
from hf_audioformer.training.contrastive import ContrastiveArguments, ContrastiveObjective

from ..fixtures_recipes import save_companion, tiny_config

PAD = 67


@pytest.fixture
def batches(tmp_path: Path) -> dict[str, tuple[dict[str, Any], list[Any]]]:
    """The same masked clips with stored vectors, and with codes and the networks that make the vectors."""
    networks = load_companions([save_companion(tmp_path / "c2", 1)], codebook_size=64, hidden_size=32)
    random = np.random.default_rng(0)
    versions = {index: [CodeVersion(random.integers(64, size=(8 + index, 2)))] for index in range(5)}
    made = {}
    for kind, with_companions, used in (
        ("stored", add_companion_vectors(versions, versions, networks), []),
        ("each_step", add_companion_codes(versions, versions), networks),
    ):
        dataset = CodeDataset(
            list(first_codebooks(with_companions, 1).values()),
            np.array([0, 1, 0, 1, 1]),
            CodeAugmentation(64, mask_rate=0.4, crop_frames=6),
        )
        made[kind] = (CompanionCollator(CodeCollator(PAD))([dataset[index] for index in range(5)]), used)
    return made


def model() -> AudioFormerForAudioClassification:
    torch.manual_seed(0)
    return AudioFormerForAudioClassification(
        tiny_config(num_codebooks=1, fusion="first", num_labels=2, initializer_range=0.3)
    )


@pytest.mark.invariant
@pytest.mark.parametrize("form", ["supcon", "lsep"])
def test_stored_and_computed_vectors_give_one_loss_and_gradient(batches, form: str) -> None:
    found = []
    for batch, networks in batches.values():
        network = model()
        objective = ContrastiveObjective(0.3, MultiPositiveContrastiveLoss(form=form), networks)
        loss, outputs, parts = objective(network, batch)
        loss.backward()
        assert loss.item() == pytest.approx(
            0.3 * parts["classification_loss"].item() + 0.7 * parts["mpc_loss"].item(), abs=1e-5
        )
        assert outputs.logits.shape == (5, 2)
        assert all(weight.grad is None for other in networks for weight in other.parameters())
        found.append((loss.detach(), [weight.grad for weight in network.parameters()]))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


@pytest.mark.unit
def test_the_parts_are_those_of_the_models_vectors(batches) -> None:
    batch, _ = batches["stored"]
    network = model()
    mpc = MultiPositiveContrastiveLoss(temperature=0.1)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    before = batch.keys()
    _, _, parts = ContrastiveObjective(0.5, mpc)(network, batch)
    outputs = network(**inputs)
    torch.testing.assert_close(parts["classification_loss"], outputs.loss)
    torch.testing.assert_close(parts["mpc_loss"], mpc(outputs.pooler_output, batch["companions"]))
    assert batch.keys() == before


@pytest.mark.unit
def test_a_clip_that_was_drawn_twice_is_no_negative_of_itself(batches) -> None:
    batch, _ = batches["stored"]
    twice = {name: tensor[[0, 1, 2, 3, 4, 0]] for name, tensor in batch.items()}
    objective = ContrastiveObjective(0.5, MultiPositiveContrastiveLoss(temperature=0.05))
    network = model()
    different = twice | {"clip_index": torch.arange(6)}
    losses = [objective(network, rows)[2]["mpc_loss"] for rows in (twice, different)]
    assert losses[0] < losses[1]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.1}, r"mpc.alpha must lie in \[0, 1\], got 1.1"),
        ({"alpha": float("nan")}, "got nan"),
        ({"temperature": 0.0}, "mpc.temperature must be above 0, got 0.0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastiveArguments(**settings)
