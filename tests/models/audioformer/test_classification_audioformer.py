"""The classifier: pooling, losses, and classes that change."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hf_audioformer import AudioFormerForAudioClassification
from hf_audioformer.models.audioformer.modeling_audioformer import (
    AudioFormerPooling,
    classification_loss,
    masked_mean,
)

from .tiny_models import random_codes, tiny_config, tiny_model

pytestmark = pytest.mark.unit

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
WEIGHTS = (0.5, 1.0, 3.0)
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.2, -0.7], [-1.5, 0.0, 1.0], [0.1, 0.9, 0.4]])
CLASS_IDS = torch.tensor([0, 2, 1, 1])
MULTI_HOT = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
SMOOTHING_AND_WEIGHTS = pytest.mark.parametrize(
    ("smoothing", "weights"), [(0.0, None), (0.1, None), (0.0, WEIGHTS), (0.1, WEIGHTS)]
)


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "attention", "statistics"])
@pytest.mark.parametrize("padding", [1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pooling_never_reads_padding(pooling, padding, side):
    pool = AudioFormerPooling(tiny_config(pooling=pooling))
    frames = torch.randn(1, 5, 32)
    filler = torch.full((1, 3, 32), padding)
    with_padding = torch.cat([frames, filler] if side == "right" else [filler, frames], dim=1)
    mask = torch.tensor([[1] * 5 + [0] * 3] if side == "right" else [[0] * 3 + [1] * 5])
    torch.testing.assert_close(pool(with_padding, mask), pool(frames, None))


def test_pooling_by_hand():
    frames = torch.tensor([[[1.0] * 32, [5.0] * 32, [3.0] * 32, [100.0] * 32]])
    mask = torch.tensor([[1, 1, 1, 0]])
    for pooling, expected in {"mean": 3.0, "max": 5.0, "cls": 1.0}.items():
        pooled = AudioFormerPooling(tiny_config(pooling=pooling))(frames, mask)
        torch.testing.assert_close(pooled, torch.full((1, 32), expected))
    pool = AudioFormerPooling(tiny_config(pooling="attention"))
    weights = pool.score(frames)[:, :3].softmax(dim=1)
    torch.testing.assert_close(pool(frames, mask), (weights * frames[:, :3]).sum(dim=1))


@pytest.mark.parametrize("lags", [(1, 4, 16)])
@pytest.mark.parametrize("frames", [1, 3, 17, 40])
def test_statistics_by_hand(frames, lags):
    states = torch.randn(2, frames, 32)
    found = AudioFormerPooling(tiny_config(pooling="statistics"))(states, None)
    expected = [states.mean(1), states.std(1, correction=0)]
    for lag in lags:
        changes = states[:, lag:] - states[:, :-lag]
        expected.append(changes.square().mean(1).sqrt() if frames > lag else torch.zeros(2, 32))
    torch.testing.assert_close(found, torch.cat(expected, dim=1), atol=5e-3, rtol=1e-3)


def test_statistics_of_a_constant_have_finite_gradients():
    states = torch.ones(1, 20, 32, requires_grad=True)
    AudioFormerPooling(tiny_config(pooling="statistics"))(states, None).sum().backward()
    assert torch.isfinite(states.grad).all()


def test_statistics_are_scaled_by_what_is_saved(tmp_path: Path):
    model = tiny_model(AudioFormerForAudioClassification, pooling="statistics")
    model.pooling.mean += 1.0
    model.pooling.spread *= 2.0
    model.save_pretrained(tmp_path)
    loaded = AudioFormerForAudioClassification.from_pretrained(tmp_path)
    assert (loaded.pooling.mean == 1.0).all()
    assert (loaded.pooling.spread == 2.0).all()
    encoder = tmp_path / "encoder"
    model.audioformer.save_pretrained(encoder)
    fresh = AudioFormerForAudioClassification.from_pretrained(encoder, pooling="statistics")
    assert (fresh.pooling.mean == 0.0).all()
    assert (fresh.pooling.spread == 1.0).all()


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "attention", "statistics"])
def test_pooling_of_a_long_clip_in_half_precision(pooling):
    pool = AudioFormerPooling(tiny_config(pooling=pooling)).half()
    frames, mask = torch.full((1, 45_000, 32), 2.0, dtype=torch.float16), torch.ones(1, 45_000)  # ten minutes
    torch.testing.assert_close(pool(frames, mask)[:, :32], torch.full((1, 32), 2.0, dtype=torch.float16))


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "attention", "statistics"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_every_pooling_works_under_autocast(pooling, dtype):
    model = tiny_model(AudioFormerForAudioClassification, pooling=pooling)
    codes, mask = random_codes(model.config, 2, 9), torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    exact = model(codes, attention_mask=mask).logits
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(model(codes, attention_mask=mask).logits.float(), exact, atol=0.1, rtol=0.1)


@SMOOTHING_AND_WEIGHTS
def test_single_label_loss(smoothing, weights):
    config = tiny_config(problem_type=SINGLE, label_smoothing=smoothing, class_weights=weights)
    weight = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(LOGITS, CLASS_IDS, weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(classification_loss(LOGITS, CLASS_IDS, config), expected)
    torch.testing.assert_close(classification_loss(LOGITS, CLASS_IDS.int(), config), expected)


@SMOOTHING_AND_WEIGHTS
def test_probabilities_of_zero_and_one_give_the_loss_of_the_class_ids(smoothing, weights):
    config = tiny_config(problem_type=SINGLE, label_smoothing=smoothing, class_weights=weights)
    expected = classification_loss(LOGITS, CLASS_IDS, config)
    one_hot = F.one_hot(CLASS_IDS, 3)
    torch.testing.assert_close(classification_loss(LOGITS, one_hot.float(), config), expected)
    assert classification_loss(LOGITS.bfloat16(), one_hot.bfloat16(), config).dtype == torch.float32


@SMOOTHING_AND_WEIGHTS
def test_loss_of_class_probabilities_by_hand(smoothing, weights):
    config = tiny_config(problem_type=SINGLE, label_smoothing=smoothing, class_weights=weights)
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]])
    smoothed = (mixed * (1 - smoothing) + smoothing / 3) * torch.tensor(weights or (1.0, 1.0, 1.0))
    share = (mixed * torch.tensor(weights or (1.0, 1.0, 1.0))).sum()
    expected = -(smoothed * LOGITS.log_softmax(dim=1)).sum() / share
    torch.testing.assert_close(classification_loss(LOGITS, mixed, config), expected)
    torch.testing.assert_close(classification_loss(LOGITS, mixed.double(), config), expected)


@SMOOTHING_AND_WEIGHTS
def test_multi_label_loss(smoothing, weights):
    config = tiny_config(problem_type=MULTI, label_smoothing=smoothing, class_weights=weights)
    targets = MULTI_HOT.clamp(smoothing / 2, 1 - smoothing / 2)
    probabilities = LOGITS.sigmoid()
    losses = -(targets * probabilities.log() + (1 - targets) * (1 - probabilities).log())
    expected = (losses * torch.tensor(weights or (1.0, 1.0, 1.0))).mean()
    torch.testing.assert_close(classification_loss(LOGITS, MULTI_HOT, config), expected)
    torch.testing.assert_close(classification_loss(LOGITS, MULTI_HOT.long(), config), expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_regression_loss(weights):
    config = tiny_config(problem_type=REGRESSION, class_weights=weights)
    expected = ((LOGITS - MULTI_HOT) ** 2 * torch.tensor(weights or (1.0, 1.0, 1.0))).mean()
    torch.testing.assert_close(classification_loss(LOGITS, MULTI_HOT, config), expected)
    statistics = {"target_mean": [3.0, 0.0, 1.0], "target_scale": [2.0, 0.5, 10.0]}
    in_units = tiny_config(problem_type=REGRESSION, class_weights=weights, **statistics)
    std, mean = torch.tensor(in_units.target_scale), torch.tensor(in_units.target_mean)
    torch.testing.assert_close(classification_loss(LOGITS * std + mean, MULTI_HOT * std + mean, in_units), expected)


@torch.no_grad()
def test_numbers_in_half_precision_are_not_rounded_to_its_steps():
    """At 4000, bfloat16 has steps of 16, a third of the deviation."""
    config = tiny_config(num_labels=1, problem_type=REGRESSION, target_mean=[4000.0], target_scale=[50.0])
    model = AudioFormerForAudioClassification(config).eval()
    codes = torch.arange(24).view(4, 6)
    exact = model(codes).logits
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(codes).logits, exact, rtol=0, atol=0.02 * 50)
    assert exact.unique().numel() == 4


@pytest.mark.parametrize("labels", [torch.tensor([0.5, 2.0]), torch.tensor([[0.5], [2.0]]), torch.tensor([1, 2])])
def test_regression_of_one_value(labels):
    loss = classification_loss(torch.tensor([[1.0], [2.0]]), labels, tiny_config(num_labels=1))
    torch.testing.assert_close(loss, ((torch.tensor([1.0, 2.0]) - labels.flatten()) ** 2).mean())


@pytest.mark.parametrize(("labels", "problem_type"), [(CLASS_IDS, SINGLE), (MULTI_HOT, MULTI)])
def test_problem_type_follows_the_labels(labels, problem_type):
    stated = classification_loss(LOGITS, labels, tiny_config(problem_type=problem_type))
    torch.testing.assert_close(classification_loss(LOGITS, labels, tiny_config()), stated)


@pytest.mark.parametrize(
    ("problem_type", "labels", "message"),
    [
        (None, MULTI_HOT.long(), 'multi-hot rows, for which problem_type="multi_label_classification" must be set'),
        (
            SINGLE,
            MULTI_HOT[:3],
            r"class ids, shape \(4,\), or float probabilities, shape \(4, 3\); found torch.float32 \(3",
        ),
        (SINGLE, MULTI_HOT.long(), r"found torch.int64 \(4, 3\). For several labels per clip"),
        (SINGLE, CLASS_IDS.float(), r"found torch.float32 \(4,\)"),
        (SINGLE, CLASS_IDS[:3], r"shape \(4,\), or float probabilities.*; found torch.int64 \(3,\)"),
        (MULTI, CLASS_IDS, r"one value per class, shape \(4, 3\); found \(4,\). Turn class ids into multi-hot rows"),
        (REGRESSION, CLASS_IDS.float(), r"regression takes \(4, 3\) values; found \(4,\)"),
        (REGRESSION, MULTI_HOT.T, r"regression takes \(4, 3\) values; found \(3, 4\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(problem_type, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_loss(LOGITS, labels, tiny_config(problem_type=problem_type))


@pytest.mark.parametrize(("problem_type", "labels"), [(SINGLE, CLASS_IDS), (MULTI, MULTI_HOT), (REGRESSION, MULTI_HOT)])
def test_loss_of_half_precision_logits_is_computed_in_float32(problem_type, labels):
    config = tiny_config(problem_type=problem_type)
    loss = classification_loss(LOGITS.bfloat16(), labels, config)
    torch.testing.assert_close(loss, classification_loss(LOGITS.bfloat16().float(), labels, config))


def test_model_returns_the_loss_of_its_logits():
    model = tiny_model(AudioFormerForAudioClassification)
    outputs = model(random_codes(model.config, 4, 9), labels=CLASS_IDS)
    assert outputs.logits.shape == (4, 3)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, CLASS_IDS))


@pytest.mark.parametrize("pooling", ["mean", "attention", "statistics"])
def test_model_returns_the_mean_of_its_frames_whatever_is_classified(pooling):
    model = tiny_model(AudioFormerForAudioClassification, pooling=pooling)
    codes = random_codes(model.config, 4, 9)
    mask = torch.ones(4, 9, dtype=torch.long)
    mask[0, 5:] = 0
    outputs = model(codes, attention_mask=mask)
    frames = model.audioformer(codes, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(model.classifier(model.pooling(frames, mask)), outputs.logits)
    torch.testing.assert_close(outputs.pooler_output, masked_mean(frames, mask))
    assert model(codes, return_dict=False)[0].shape == (4, 3)


def test_new_classes_keep_the_rows_of_known_names(tmp_path: Path):
    names = {"id2label": {0: "dog", 1: "rain", 2: "sea"}, "label2id": {"dog": 0, "rain": 1, "sea": 2}}
    model = tiny_model(AudioFormerForAudioClassification, class_weights=WEIGHTS, **names)
    codes = random_codes(model.config, 2, 9)
    before = model(codes).logits
    model.resize_classifier(["sea", "clock", "dog", "rooster"])
    after = model(codes, labels=torch.tensor([3, 0]))
    torch.testing.assert_close(after.logits[:, [0, 2]], before[:, [2, 0]])
    assert model.config.id2label == {0: "sea", 1: "clock", 2: "dog", 3: "rooster"}
    assert model.config.label2id["rooster"] == 3
    assert model.num_labels == model.config.num_labels == 4
    assert model.config.class_weights is None

    model.save_pretrained(tmp_path)
    loaded = AudioFormerForAudioClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(codes).logits, after.logits)
    assert loaded.config.id2label == model.config.id2label


@pytest.mark.parametrize("stored", [{"class_weights": WEIGHTS}, {"target_mean": WEIGHTS, "target_scale": WEIGHTS}])
def test_numbers_of_other_labels_are_dropped_or_refused(stored, tmp_path: Path):
    tiny_model(AudioFormerForAudioClassification, **stored).save_pretrained(tmp_path)
    load = AudioFormerForAudioClassification.from_pretrained
    model = load(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert model(random_codes(model.config, 1, 5)).logits.shape == (1, 5)
    assert not any(getattr(model.config, name) for name in stored)
    assert all(getattr(load(tmp_path, num_labels=3).config, name) for name in stored)
    with pytest.raises(ValueError, match="has 3 values for 2 labels"):
        load(tmp_path, id2label={0: "dog", 1: "sea"}, ignore_mismatched_sizes=True)


def test_new_classes_keep_dtype():
    model = tiny_model(AudioFormerForAudioClassification).bfloat16()
    model.resize_classifier(["dog", "sea"])
    assert model(random_codes(model.config, 1, 5)).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("names", [[], ["dog", "dog"]])
def test_class_names_must_differ(names):
    with pytest.raises(ValueError, match="different names"):
        tiny_model(AudioFormerForAudioClassification).resize_classifier(names)


def test_another_number_of_classes_must_be_meant(tmp_path: Path):
    tiny_model(AudioFormerForAudioClassification).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AudioFormerForAudioClassification.from_pretrained(tmp_path, num_labels=5)
    loaded = AudioFormerForAudioClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert loaded(random_codes(loaded.config, 1, 5)).logits.shape == (1, 5)
