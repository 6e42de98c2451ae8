"""What the heads for moments and for vectors promise."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForAudioFrameClassification, AutoModelForAudioXVector

from hf_audioformer import AudioFormerForAudioFrameClassification, AudioFormerForAudioXVector
from hf_audioformer.models.audioformer.modeling_audioformer import RMS_OFFSET, mean_and_deviation

from .tiny_models import (
    FRONT_ENDS,
    VARIANTS,
    padded,
    padded_values,
    random_codes,
    random_values,
    tiny_config,
    tiny_model,
)

MULTI, SINGLE, REGRESSION = "multi_label_classification", "single_label_classification", "regression"
INPUTS = {"codes": VARIANTS["c4_pre"], "patches": FRONT_ENDS["patches"], "waveform": FRONT_ENDS["waveform"]}
HEADS = {
    AudioFormerForAudioFrameClassification: AutoModelForAudioFrameClassification,
    AudioFormerForAudioXVector: AutoModelForAudioXVector,
}

cached_model = lru_cache(maxsize=None)(tiny_model)


def batch_of(config: Any, *lengths: int) -> dict[str, Tensor]:
    if config.front_end == "codes":
        clips = [random_codes(config, 1, length, seed)[0] for seed, length in enumerate(lengths)]
        return padded(clips, config.pad_token_id)
    return padded_values([random_values(config, length, seed) for seed, length in enumerate(lengths)])


def alone(batch: dict[str, Tensor], row: int, length: int) -> dict[str, Tensor]:
    return {name: tensor[row : row + 1, :length] for name, tensor in batch.items() if name != "attention_mask"}


@pytest.mark.invariant
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_alone_equals_batched(head, kind):
    model = cached_model(head, **INPUTS[kind])
    batch = batch_of(model.config, 9, 20)
    together = model(**batch)
    for row, length in enumerate((9, 20)):
        single = model(**alone(batch, row, length))
        if head is AudioFormerForAudioXVector:
            torch.testing.assert_close(together.embeddings[row], single.embeddings[0], atol=1e-5, rtol=1e-4)
        moments = single.logits.shape[1] if single.logits.dim() == 3 else None
        torch.testing.assert_close(together.logits[row][:moments], single.logits[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "moments"), [("codes", 20), ("patches", 7), ("waveform", 4)])
@torch.no_grad()
def test_logits_are_those_of_moments(kind, moments):
    model = cached_model(AudioFormerForAudioFrameClassification, **INPUTS[kind])
    outputs = model(**batch_of(model.config, 20), output_hidden_states=True)
    assert outputs.logits.shape == (1, moments, 3)
    height = model.audioformer.embeddings.positions_per_frame
    states = model.audioformer(**batch_of(model.config, 20)).last_hidden_state[0]
    for moment in range(moments):
        mean = states[moment * height : (moment + 1) * height].mean(0)
        torch.testing.assert_close(outputs.logits[0, moment], model.classifier(mean), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("problem", [SINGLE, MULTI, REGRESSION])
@torch.no_grad()
def test_frame_loss_is_the_mean_over_what_is_known(problem):
    model = tiny_model(AudioFormerForAudioFrameClassification, problem_type=problem)
    batch = batch_of(model.config, 5, 8)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2, 8), generator=generator)
    if problem != SINGLE:
        labels = torch.randint(2, (2, 8, 3), generator=generator).float()
    labels[0, 2] = labels[1, 7] = -100
    outputs = model(**batch, labels=labels)
    losses = []
    for clip, length in enumerate((5, 8)):
        for moment in range(length):
            if (clip, moment) in ((0, 2), (1, 7)):
                continue
            logits, label = outputs.logits[clip, moment], labels[clip, moment]
            if problem == SINGLE:
                losses.append(-logits.log_softmax(0)[label])
            elif problem == MULTI:
                losses.append(F.binary_cross_entropy(logits.sigmoid(), label))
            else:
                losses.append((logits - label).square().mean())
    assert len(losses) == 11
    torch.testing.assert_close(outputs.loss, torch.stack(losses).mean())


def test_each_of_several_numbers_may_be_unknown_by_itself():
    model = tiny_model(AudioFormerForAudioFrameClassification, problem_type=REGRESSION, class_weights=[1.0, 2.0, 4.0])
    batch = batch_of(model.config, 5, 8)
    labels = torch.rand(2, 8, 3)
    labels[0, 1:3, 0] = labels[1, 7] = labels[1, 3, 1:] = -100
    outputs = model(**batch, labels=labels)
    known = (labels != -100) & (batch["attention_mask"] != 0)[..., None]
    assert int(known.sum()) == 3 * 13 - 2 - 3 - 2
    weighted = (outputs.logits - labels).square() * torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(outputs.loss, weighted[known].mean())
    (gradient,) = torch.autograd.grad(outputs.loss, outputs.logits)
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).all()


def test_no_label_no_loss_and_a_value_per_moment():
    model = tiny_model(AudioFormerForAudioFrameClassification, num_labels=1)
    batch = batch_of(model.config, 6, 6)
    loss = model(**batch, labels=torch.full((2, 6), -100.0)).loss
    loss.backward()
    assert loss == 0
    values = torch.rand(2, 6)
    outputs = model(**batch, labels=values)
    torch.testing.assert_close(outputs.loss, (outputs.logits[..., 0] - values).square().mean())


@pytest.mark.parametrize("shape", [(2, 7), (2,), (2, 8, 2)])
def test_labels_of_other_moments_are_refused(shape):
    model = cached_model(AudioFormerForAudioFrameClassification)
    with pytest.raises(ValueError, match=r"labels have shape .*; expected one for each moment, \(2, 8\), or a row"):
        model(**batch_of(model.config, 8, 8), labels=torch.zeros(shape))


@torch.no_grad()
def test_vectors_are_compared_by_direction_with_a_margin():
    model = tiny_model(AudioFormerForAudioXVector, xvector_output_dim=12, xvector_margin=0.3, xvector_scale=8.0)
    labels = torch.tensor([2, 0])
    outputs = model(**batch_of(model.config, 9, 20), labels=labels)
    assert outputs.embeddings.shape == (2, 12)
    losses = []
    for row, label in enumerate(labels.tolist()):
        scores = [F.cosine_similarity(outputs.embeddings[row], weight, dim=0) for weight in model.classifier.weight]
        torch.testing.assert_close(outputs.logits[row], torch.stack(scores))
        scores[label] = scores[label] - 0.3
        losses.append(-(8.0 * torch.stack(scores)).log_softmax(0)[label])
    torch.testing.assert_close(outputs.loss, torch.stack(losses).mean())


@torch.no_grad()
def test_vectors_have_class_weights_and_smoothing():
    settings = {"label_smoothing": 0.2, "class_weights": [1.0, 2.0, 4.0], "xvector_margin": 0.3, "xvector_scale": 8.0}
    model = tiny_model(AudioFormerForAudioXVector, **settings)
    labels = torch.tensor([2, 0])
    outputs = model(**batch_of(model.config, 9, 20), labels=labels)
    scores = 8.0 * (outputs.logits - 0.3 * F.one_hot(labels, 3))
    weight = torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(outputs.loss, F.cross_entropy(scores, labels, weight=weight, label_smoothing=0.2))


@torch.no_grad()
def test_cosines_are_not_rounded_under_autocast():
    model = tiny_model(AudioFormerForAudioXVector)
    batch = batch_of(model.config, 9, 20)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**batch)
    cosines = F.cosine_similarity(outputs.embeddings.float()[:, None], model.classifier.weight, dim=-1)
    torch.testing.assert_close(outputs.logits, cosines)


@pytest.mark.reference
def test_statistics_of_half_precision_are_measured_in_float32():
    states = (5 + 0.05 * torch.randn(2, 30, 16)).bfloat16()
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, 12:] = 0
    for row, frames in enumerate((30, 12)):
        found = [statistic[row] for statistic in mean_and_deviation(states, mask)]
        exact = states[row, :frames].double()
        torch.testing.assert_close(found[0], exact.mean(0).float(), atol=0, rtol=1e-6)
        deviation = (exact.var(0, correction=0) + RMS_OFFSET).sqrt() - RMS_OFFSET**0.5
        torch.testing.assert_close(found[1], deviation.float(), atol=0, rtol=1e-4)
    model = tiny_model(AudioFormerForAudioXVector).bfloat16()
    assert model(**batch_of(model.config, 9, 20)).embeddings.dtype == torch.bfloat16


@pytest.mark.parametrize(("head", "auto_class"), HEADS.items())
def test_classes_can_be_changed_and_saved(head, auto_class, tmp_path: Path):
    model = tiny_model(head, id2label={0: "dog", 1: "sea", 2: "rain"})
    rows = model.classifier.weight.clone()
    model.resize_classifier(["rain", "wind", "dog", "cat"])
    torch.testing.assert_close(model.classifier.weight[[0, 2]], rows[[2, 0]])
    model.save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path)
    assert type(loaded) is head
    batch = batch_of(model.config, 7)
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
    assert loaded.config.id2label == {0: "rain", 1: "wind", 2: "dog", 3: "cat"}


def test_every_weight_learns():
    for head in HEADS:
        model = head(tiny_config())
        labels = torch.zeros((2, 9) if head is AudioFormerForAudioFrameClassification else 2, dtype=torch.long)
        model(**batch_of(model.config, 9, 9), labels=labels).loss.backward()
        assert all(weight.grad is not None for weight in model.parameters())
