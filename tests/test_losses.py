"""MPC against plain loops, finite differences, and itself in other arrangements."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_audioformer.losses import MultiPositiveContrastiveLoss, classification_loss

from .warm_processes import exit_codes, start_together

FORMS = pytest.mark.parametrize("form", ["supcon", "lsep"])
SIMILARITIES = pytest.mark.parametrize("similarity", ["cosine", "dot"])


def reference(
    anchors: Tensor, companions: Tensor, present: Tensor, clip_ids: Tensor, temperature: float, form: str, cosine: bool
) -> float:
    """The formulas of the docstring, one exponential after the other."""

    def exp(one: Tensor, other: Tensor, sign: int = 1) -> float:
        scale = one.norm() * other.norm() if cosine else 1.0
        return math.exp(sign * float(one @ other / scale) / temperature)

    losses = []
    for i in range(len(anchors)):
        positives = [companions[i, k] for k in range(companions.shape[1]) if present[i, k]]
        others = [j for j in range(len(anchors)) if clip_ids[j] != clip_ids[i]]
        rows = [anchors[j] for j in others]
        rows += [companions[j, k] for j in others for k in range(companions.shape[1]) if present[j, k]]
        pushed = sum(exp(anchors[i], row) for row in rows)
        if positives and form == "supcon":
            pulled = [exp(anchors[i], row) for row in positives]
            losses.append(-sum(math.log(p / (p + pushed)) for p in pulled) / len(pulled))
        elif positives:
            losses.append(math.log(1 + pushed * sum(exp(anchors[i], row, -1) for row in positives)))
    return sum(losses) / len(losses) if losses else 0.0


def batch(seed: int, clips: int, num_companions: int, hidden: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchors, companions, which of them are there, and ids of clips, of which some are the same; in float64."""
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.randn(clips, hidden, generator=generator, dtype=torch.float64)
    companions = torch.randn(clips, num_companions, hidden, generator=generator, dtype=torch.float64)
    present = torch.rand(clips, num_companions, generator=generator) < 0.7
    return anchors, companions, present, torch.randint(max(1, clips), (clips,), generator=generator)


@pytest.mark.reference
@FORMS
@SIMILARITIES
@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 3), st.sampled_from([0.1, 0.5, 2.0]))
def test_equals_plain_loops(form, similarity, seed, clips, num_companions, temperature):
    loss = MultiPositiveContrastiveLoss(temperature=temperature, form=form, similarity=similarity)
    inputs = batch(seed, clips, num_companions)
    expected = reference(*inputs, temperature, form, similarity == "cosine")
    assert loss(*inputs).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.reference
@FORMS
@SIMILARITIES
def test_the_gradient_is_that_of_the_anchor_alone(form, similarity):
    """By finite differences: each anchor is moved as an anchor, while its copy among the negatives stays."""
    loss = MultiPositiveContrastiveLoss(temperature=0.5, form=form, similarity=similarity)
    anchors, companions, present, clip_ids = batch(3, 5, 2)
    anchors.requires_grad_(), companions.requires_grad_()
    loss(anchors, companions, present, clip_ids).backward()
    assert companions.grad is None or not companions.grad.any()

    rows = torch.cat((anchors.detach()[:, None], companions.detach()), 1)

    def moved(clip: int, step: Tensor) -> float:
        return one_anchor(anchors[clip].detach() + step, rows, present, clip_ids, clip, form, similarity)

    steps = 1e-6 * torch.eye(6, dtype=torch.float64)
    differences = [[(moved(clip, step) - moved(clip, -step)) / 2e-6 for step in steps] for clip in range(5)]
    expected = torch.tensor(differences, dtype=torch.float64) / present.any(1).sum()
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(anchors.grad, expected, atol=1e-8, rtol=1e-6)


def one_anchor(
    anchor: Tensor, rows: Tensor, present: Tensor, clip_ids: Tensor, i: int, form: str, similarity: str
) -> float:
    """The loss of `anchor` as clip i, with rows (clips, 1 + companions) that do not move with it."""
    if not present[i].any():
        return 0.0
    if similarity == "cosine":
        anchor, rows = anchor / anchor.norm(), rows / rows.norm(dim=-1, keepdim=True)
    s = (rows @ anchor / 0.5).exp()
    there = torch.cat((torch.ones(len(rows), 1, dtype=torch.bool), present), 1)
    pushed = s[there & (clip_ids != clip_ids[i])[:, None]].sum()
    pulled = s[i, 1:][present[i]]
    if form == "supcon":
        return -(pulled / (pulled + pushed)).log().mean().item()
    return (1 + pushed * (1 / pulled).sum()).log().item()


@pytest.mark.reference
@FORMS
def test_gradcheck(form):
    """Of the first of two clips; the second has no companion, so that it is a negative and no anchor."""
    loss = MultiPositiveContrastiveLoss(temperature=0.3, form=form)
    anchors, companions, _, _ = batch(5, 2, 3)
    present = torch.tensor([[True] * 3, [False] * 3])

    def of_first(anchor: Tensor) -> Tensor:
        return loss(torch.cat((anchor, anchors[1:])), companions, present)

    assert torch.autograd.gradcheck(of_first, anchors[:1].requires_grad_())


@pytest.mark.property
@FORMS
@given(st.integers(0, 10_000), st.permutations(range(5)), st.permutations(range(3)))
@settings(deadline=None)
def test_order_and_scale_change_nothing(form, seed, clips, rows):
    loss = MultiPositiveContrastiveLoss(form=form)
    anchors, companions, present, clip_ids = batch(seed, 5, 3)
    expected = loss(anchors, companions, present, clip_ids)
    moved = loss(
        3.7 * anchors[clips], 0.2 * companions[clips][:, rows], present[clips][:, rows], 10 + 3 * clip_ids[clips]
    )
    torch.testing.assert_close(moved, expected)
    hidden = torch.where(present[..., None], companions, torch.randn_like(companions))
    torch.testing.assert_close(loss(anchors, hidden, present, clip_ids), expected)


@pytest.mark.unit
def test_one_companion_makes_both_forms_equal():
    anchors, companions, _, _ = batch(0, 4, 1)
    losses = [MultiPositiveContrastiveLoss(form=form)(anchors, companions) for form in ("supcon", "lsep")]
    torch.testing.assert_close(*losses)


@pytest.mark.unit
def test_clips_are_different_unless_told():
    anchors, companions, _, _ = batch(0, 4, 2)
    loss = MultiPositiveContrastiveLoss()
    expected = loss(anchors, companions, torch.ones(4, 2, dtype=torch.bool), torch.arange(4))
    torch.testing.assert_close(loss(anchors, companions), expected)
    twice = [0, 1, 2, 3, 0]
    ids = torch.tensor(twice)
    told = loss(anchors[twice], companions[twice], clip_ids=ids)
    assert told < loss(anchors[twice], companions[twice])


@pytest.mark.fault
@FORMS
@SIMILARITIES
@pytest.mark.parametrize(
    ("clips", "num_companions", "present", "clip_ids"),
    [
        (1, 3, None, None),
        (1, 0, None, None),
        (4, 0, None, None),
        (4, 2, torch.zeros(4, 2, dtype=torch.bool), None),
        (4, 2, None, torch.zeros(4, dtype=torch.int64)),
    ],
    ids=["one_clip", "one_row", "no_companions", "all_missing", "one_clip_four_times"],
)
def test_nothing_to_compare_gives_zero(form, similarity, clips, num_companions, present, clip_ids):
    anchors, companions, _, _ = batch(0, clips, num_companions)
    loss = MultiPositiveContrastiveLoss(form=form, similarity=similarity)(
        anchors.requires_grad_(), companions, present, clip_ids
    )
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(anchors.grad, torch.zeros_like(anchors))


@pytest.mark.fault
@FORMS
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_extreme_vectors_stay_finite(form, scale):
    anchors, companions, _, _ = batch(0, 4, 2)
    anchors = (scale * anchors).float().requires_grad_()
    loss = MultiPositiveContrastiveLoss(temperature=1e-3, form=form)(anchors, companions.float())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(anchors.grad).all()


@pytest.mark.unit
@FORMS
def test_half_precision_is_computed_in_float32(form):
    loss = MultiPositiveContrastiveLoss(form=form)
    anchors, companions, _, _ = batch(0, 8, 3)
    anchors, companions = anchors.bfloat16(), companions.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(anchors, companions)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(anchors.float(), companions), atol=0, rtol=0)


def half_of_a_batch() -> int:
    """What one of two processes finds for its half of the anchors; the inputs and a folder are `sys.argv[1:]`."""
    anchors, companions, present, clip_ids = torch.load(sys.argv[1])
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    own = slice(rank * len(anchors) // 2, (rank + 1) * len(anchors) // 2)
    results: dict[Any, Any] = {}
    for form in ("supcon", "lsep"):
        for name, ids in (("told", clip_ids[own]), ("different", None)):
            mine = anchors[own].clone().requires_grad_()
            loss = MultiPositiveContrastiveLoss(form=form)(mine, companions[own], present[own], ids)
            loss.backward()
            results[form, name] = (loss.detach(), mine.grad)
    try:
        MultiPositiveContrastiveLoss()(anchors[: rank + 1], companions[: rank + 1])
    except ValueError as error:
        results["error"] = str(error)
    torch.save(results, f"{sys.argv[2]}/{rank}.pt")
    torch.distributed.destroy_process_group()
    return 0


@pytest.mark.invariant
@pytest.mark.timeout(100)
def test_two_processes_equal_one(tmp_path: Path):
    """The second process has fewer anchors with a companion, so that a mean of means would differ."""
    anchors, companions, present, clip_ids = batch(1, 8, 2)
    present[4:7] = False
    torch.save((anchors, companions, present, clip_ids), tmp_path / "inputs.pt")
    printed = tmp_path / "printed.txt"
    processes = start_together(half_of_a_batch, tmp_path / "inputs.pt", tmp_path, output=printed)
    assert exit_codes(processes) == [0, 0], printed.read_text()
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for form in ("supcon", "lsep"):
        for name, ids in (("told", clip_ids), ("different", None)):
            together = anchors.clone().requires_grad_()
            expected = MultiPositiveContrastiveLoss(form=form)(together, companions, present, ids)
            expected.backward()
            losses, gradients = zip(*(process[form, name] for process in found), strict=True)
            torch.testing.assert_close(torch.stack(losses).mean(), expected.detach())
            torch.testing.assert_close(torch.cat(gradients) / 2, together.grad)
    assert all("different shape: [[1, 3, 6], [2, 3, 6]]" in process["error"] for process in found)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, got nan"),
        ({"form": "circle"}, "form must be one of supcon, lsep, got 'circle'"),
        ({"similarity": "l2"}, "similarity must be one of cosine, dot, got 'l2'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        MultiPositiveContrastiveLoss(**settings)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("anchors", "companions", "more", "message"),
    [
        ((4, 6), (4, 6), {}, r"anchors has shape \(4, 6\) and companions \(4, 6\); they must be"),
        ((4, 6), (3, 2, 6), {}, r"companions \(3, 2, 6\)"),
        ((4, 6), (4, 2, 5), {}, r"companions \(4, 2, 5\)"),
        ((4, 6), (4, 2, 6), {"is_present": torch.ones(4, 2)}, r"bool \(4, 2\) .*, got torch.float32 \(4, 2\)"),
        ((4, 6), (4, 2, 6), {"is_present": torch.ones(4, dtype=torch.bool)}, r"got torch.bool \(4,\)"),
        ((4, 6), (4, 2, 6), {"clip_ids": torch.arange(3)}, r"clip_ids must be integers \(4,\) .*, got torch.int64 \(3"),
        ((4, 6), (4, 2, 6), {"clip_ids": torch.ones(4)}, r"got torch.float32 \(4,\)"),
    ],
)
def test_shapes_that_do_not_fit(anchors, companions, more, message):
    with pytest.raises(ValueError, match=message):
        MultiPositiveContrastiveLoss()(torch.ones(anchors), torch.ones(companions), **more)


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0]])
SHARES = torch.tensor([[0.7, 0.0, 0.3], [0.25, 0.25, 0.5]])


@pytest.mark.reference
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_shares_keeps_their_mass(smoothing: float) -> None:
    """Against the sum over classes, clip by clip; ids are shares of 1."""
    log_shares = LOGITS - LOGITS.exp().sum(1, keepdim=True).log()
    targets = SHARES * (1 - smoothing) + smoothing / 3
    expected = -sum(float(t * p) for t, p in zip(targets.flatten(), log_shares.flatten(), strict=True)) / 2
    found = classification_loss(LOGITS, SHARES, "single_label_classification", smoothing)
    assert float(found) == pytest.approx(expected, abs=1e-6)
    ids = torch.tensor([2, 0])
    by_id = classification_loss(LOGITS, ids, "single_label_classification", smoothing)
    one_hot = torch.nn.functional.one_hot(ids, 3).float()
    by_share = classification_loss(LOGITS, one_hot, "single_label_classification", smoothing)
    torch.testing.assert_close(by_id, by_share)


@pytest.mark.reference
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_takes_shares(smoothing: float) -> None:
    targets = SHARES * (1 - smoothing) + smoothing / 2
    likely = 1 / (1 + (-LOGITS).exp())
    expected = -(targets * likely.log() + (1 - targets) * (1 - likely).log()).mean()
    found = classification_loss(LOGITS, SHARES, "multi_label_classification", smoothing)
    torch.testing.assert_close(found, expected)
    assert classification_loss(LOGITS.bfloat16(), SHARES, "multi_label_classification").dtype == torch.float32


@pytest.mark.fault
@pytest.mark.parametrize(
    ("problem_type", "labels", "smoothing", "message"),
    [
        ("regression", SHARES, 0.0, "problem_type must be one of single_label_classification, multi_label_class"),
        ("multi_label_classification", SHARES, 1.0, r"label_smoothing must lie in \[0, 1\), got 1.0"),
        (
            "multi_label_classification",
            torch.tensor([0, 1]),
            0.0,
            "multi-label classification takes one value per class",
        ),
        ("single_label_classification", SHARES[:1], 0.0, "takes integer class ids, shape"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    problem_type: str, labels: torch.Tensor, smoothing: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classification_loss(LOGITS, labels, problem_type, smoothing)
