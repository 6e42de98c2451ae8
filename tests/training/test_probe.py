"""The classifier starts as logistic regression on the pooled vectors."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

from hf_audioformer import AudioFormerConfig, AudioFormerForAudioClassification
from hf_audioformer.data.code_dataset import CodeDataset, CodeVersion
from hf_audioformer.data.collators import CodeCollator
from hf_audioformer.training.probe import INVERSE_REGULARIZATION, MAX_ITERATIONS, start_from_probe

from ..warm_processes import exit_codes, start_together

pytestmark = pytest.mark.usefixtures("one_thread")

CODEBOOK_SIZE = 50
COLLATOR = CodeCollator(CODEBOOK_SIZE + 3)


def classifier(pooling: str, problem_type: str, num_labels: int) -> AudioFormerForAudioClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AudioFormerConfig(
        codebook_size=CODEBOOK_SIZE,
        **sizes,
        pooling=pooling,
        problem_type=problem_type,
        num_labels=num_labels,
        initializer_range=0.2,
    )
    return AudioFormerForAudioClassification(config)


def clips(targets: np.ndarray) -> CodeDataset:
    """Clips of 20 to 30 codes, each class from a part of the codebook of its own, and a little from all of it."""
    random = np.random.default_rng(0)
    classes = targets if targets.ndim == 1 else targets @ (1 + np.arange(targets.shape[1]))
    codes = []
    for label in classes:
        own = random.integers(10, size=random.integers(20, 30)) + 10 * int(label)
        codes.append(np.where(random.random(len(own)) < 0.5, own, random.integers(CODEBOOK_SIZE, size=len(own))))
    return CodeDataset([[CodeVersion(code)] for code in codes], targets)


def logits(model: AudioFormerForAudioClassification, dataset: CodeDataset) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        return np.stack([model(**COLLATOR([{"input_ids": item["input_ids"]}])).logits[0].numpy() for item in dataset])


@pytest.mark.reference
@pytest.mark.parametrize("pooling", ["mean", "statistics"])
@pytest.mark.parametrize("num_labels", [2, 4])
def test_single_labels_give_what_scikit_learn_predicts(pooling: str, num_labels: int) -> None:
    model = classifier(pooling, "single_label_classification", num_labels)
    dataset = clips(np.arange(40) % num_labels)
    vectors = []
    hook = model.dropout.register_forward_hook(
        lambda module, inputs, output: vectors.append(inputs[0].double().numpy())
    )
    logits(model, dataset)
    hook.remove()
    raw = np.concatenate(vectors).astype(np.float64)
    raw = (raw - raw.mean(axis=0)) / (raw.std(axis=0) + 1e-6)
    expected = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=MAX_ITERATIONS).fit(raw, dataset.targets)
    start_from_probe(model, dataset, COLLATOR)
    probabilities = torch.from_numpy(logits(model, dataset)).softmax(dim=-1).numpy()
    np.testing.assert_allclose(probabilities, expected.predict_proba(raw), atol=1e-3)
    assert (probabilities.argmax(axis=1) == dataset.targets).mean() > 0.9


@pytest.mark.unit
def test_several_labels_are_fitted_one_by_one_and_absent_ones_are_unlikely() -> None:
    model = classifier("statistics", "multi_label_classification", 3)
    targets = np.zeros((40, 3), dtype=np.float32)
    targets[:, 0] = np.arange(40) % 2
    targets[:, 1] = np.arange(40) // 2 % 2
    start_from_probe(model, clips(targets), COLLATOR)
    found = logits(model, clips(targets)) > 0
    assert (found == (targets > 0)).mean() > 0.9
    assert not found[:, 2].any()


@pytest.mark.unit
def test_only_versions_with_their_own_labels_count_and_only_once_each() -> None:
    own, mixed = CodeVersion(np.zeros(5, dtype=np.int64)), CodeVersion(np.ones(5, dtype=np.int64), np.array([0.5, 0.5]))
    dataset = CodeDataset([[own, own, mixed], [own]], np.array([1, 0]))
    items = [dataset.own_labels_only()[index] for index in range(3)]
    assert len(dataset.own_labels_only()) == 3
    assert [item["labels"].tolist() for item in items] == [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    model = classifier("mean", "single_label_classification", 2)
    start_from_probe(model, dataset.own_labels_only(), COLLATOR)


def probe_of_two() -> None:
    """Only the first process has clips; each saves its model."""
    state = PartialState(cpu=True)
    model = classifier("statistics", "single_label_classification", 2)
    dataset = clips(np.arange(40) % 2) if state.is_main_process else []
    start_from_probe(model, dataset, COLLATOR)
    save_file(model.state_dict(), Path(sys.argv[1], f"{state.process_index}.safetensors"))
    torch.distributed.destroy_process_group()


@pytest.mark.invariant
def test_processes_share_what_the_first_fits(tmp_path: Path) -> None:
    printed = tmp_path / "printed.txt"
    assert exit_codes(start_together(probe_of_two, tmp_path, output=printed)) == [0, 0], printed.read_text()
    alone = classifier("statistics", "single_label_classification", 2)
    start_from_probe(alone, clips(np.arange(40) % 2), COLLATOR)
    for rank in (0, 1):
        for name, weight in load_file(tmp_path / f"{rank}.safetensors").items():
            torch.testing.assert_close(weight, alone.state_dict()[name], msg=name)


@pytest.mark.fault
def test_regression_has_no_probe() -> None:
    with pytest.raises(ValueError, match="problem_type is regression; leave it out"):
        start_from_probe(classifier("mean", "regression", 1), clips(np.arange(4)), COLLATOR)
