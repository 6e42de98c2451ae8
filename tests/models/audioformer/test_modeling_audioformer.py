"""What the AudioFormer encoder and its masked-modelling head promise."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from hf_audioformer import (
    AudioFormerForAudioClassification,
    AudioFormerForMaskedLM,
    AudioFormerForPreTraining,
    AudioFormerModel,
)

from .tiny_models import MODEL_CLASSES, VARIANTS, padded, random_codes, random_labels, tiny_config, tiny_model

POOLINGS = ["mean", "max", "cls", "attention", "statistics"]
SIDES = ("right", "left")
BOTH_VARIANTS = pytest.mark.parametrize("variant", VARIANTS)
# Where the first or only floating-point result of a class lies.
RESULT = {AudioFormerModel: "last_hidden_state", AudioFormerForPreTraining: "prediction_logits"}

cached_model = lru_cache(maxsize=None)(tiny_model)


def result(outputs: Any, model_class: type) -> Tensor:
    return getattr(outputs, RESULT.get(model_class, "logits"))


def clips_of(model: Any, *lengths: int) -> list[Tensor]:
    return [random_codes(model.config, 1, length, seed)[0] for seed, length in enumerate(lengths)]


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    extra=st.integers(0, 5),
    side=st.sampled_from(SIDES),
    pooling=st.sampled_from(POOLINGS),
    norm_position=st.sampled_from(["post", "pre"]),
    num_codebooks=st.sampled_from([1, 4]),
)
def test_alone_equals_batched_and_padded(lengths, extra, side, pooling, norm_position, num_codebooks):
    fusion = "first" if num_codebooks == 1 else "sum"
    model = cached_model(
        AudioFormerForAudioClassification,
        pooling=pooling,
        norm_position=norm_position,
        num_codebooks=num_codebooks,
        fusion=fusion,
    )
    clips = clips_of(model, *lengths)
    batch = padded(clips, model.config.pad_token_id, side, extra)
    with torch.no_grad():
        together = model(**batch, output_hidden_states=True)
        for row, clip in enumerate(clips):
            alone = model(clip.unsqueeze(0), output_hidden_states=True)
            frames = together.hidden_states[-1][row][batch["attention_mask"][row].bool()]
            torch.testing.assert_close(frames, alone.hidden_states[-1][0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_no_longest_length():
    model = cached_model()
    clip = random_codes(model.config, 1, 50)
    long = padded([clip[0]], model.config.pad_token_id, "left", extra=3950)
    late = model(**long).last_hidden_state[:, -50:]
    torch.testing.assert_close(late, model(clip).last_hidden_state, atol=1e-4, rtol=0)
    assert model(random_codes(model.config, 1, 4000)).last_hidden_state.isfinite().all()


@torch.no_grad()
def test_order_of_frames_matters():
    model = cached_model()
    clip = random_codes(model.config, 1, 20)
    assert (model(clip).last_hidden_state.flip(1) - model(clip.flip(1)).last_hidden_state).abs().max() > 1e-2


@torch.no_grad()
def test_first_codebook_alone_is_read_by_fusion_first():
    model = cached_model()
    codes = torch.randint(99, (2, 9, 4))
    torch.testing.assert_close(model(codes).last_hidden_state, model(codes[..., 0]).last_hidden_state)


@torch.no_grad()
def test_another_codebook_is_read_where_the_configuration_says_so():
    model = cached_model(codebook_index=2)
    codes = torch.randint(99, (2, 9, 4))
    expected = model(codes[..., 2]).last_hidden_state
    torch.testing.assert_close(model(codes).last_hidden_state, expected)
    torch.testing.assert_close(model(codes[..., :3]).last_hidden_state, expected)


@torch.no_grad()
def test_sum_fusion_reads_every_codebook():
    model = cached_model(**VARIANTS["c4_pre"])
    codes = random_codes(model.config, 1, 9)
    before = model(codes).last_hidden_state
    for codebook in range(4):
        changed = codes.clone()
        changed[..., codebook] = (changed[..., codebook] + 1) % 99
        assert (model(changed).last_hidden_state - before).abs().max() > 1e-2
    assert (model(codes.flip(2)).last_hidden_state - before).abs().max() > 1e-2  # a code means another in each book


@pytest.mark.parametrize("norm_position", ["post", "pre"])
@torch.no_grad()
def test_output_is_normalised(norm_position):
    model = cached_model(norm_position=norm_position)
    frames = model(random_codes(model.config, 2, 9)).last_hidden_state
    torch.testing.assert_close(frames.mean(-1), torch.zeros(2, 9), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.var(-1, correction=0), torch.ones(2, 9))


@pytest.mark.parametrize(
    ("variant", "shape"), [("c1_post", (7,)), ("c1_post", (2, 7, 3, 1)), ("c4_pre", (2, 7)), ("c4_pre", (2, 7, 3))]
)
def test_codes_of_another_shape_are_refused(variant, shape):
    with pytest.raises(ValueError, match=r"input_ids has shape .* num_codebooks"):
        cached_model(**VARIANTS[variant])(torch.zeros(shape, dtype=torch.long))


def test_codes_without_the_codebook_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 7, 2\); this model reads .* of 3 or more"):
        cached_model(codebook_index=2)(torch.zeros((2, 7, 2), dtype=torch.long))


@pytest.mark.parametrize("both", [True, False])
def test_codes_and_vectors_exclude_each_other(both):
    inputs = {"input_ids": torch.zeros(1, 3, dtype=torch.long), "inputs_embeds": torch.zeros(1, 3, 32)} if both else {}
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        cached_model()(**inputs)


@BOTH_VARIANTS
def test_hidden_states_and_attentions(variant):
    model = tiny_model(attn_implementation="eager", **VARIANTS[variant])
    batch = padded(clips_of(model, 5, 8), model.config.pad_token_id)
    outputs = model(**batch, output_hidden_states=True, output_attentions=True)
    assert isinstance(outputs.hidden_states, tuple)
    assert isinstance(outputs.attentions, tuple)
    assert [states.shape for states in outputs.hidden_states] == [(2, 8, 32)] * 3
    assert [weights.shape for weights in outputs.attentions] == [(2, 4, 8, 8)] * 2
    torch.testing.assert_close(outputs.hidden_states[-1], outputs.last_hidden_state)
    for weights in outputs.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 8))
        assert not weights[0, :, :, 5:].any()
    as_tuple = model(**batch, return_dict=False)
    assert isinstance(as_tuple, tuple)
    torch.testing.assert_close(as_tuple[0], outputs.last_hidden_state)


@pytest.mark.invariant
@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
@torch.no_grad()
def test_attention_implementations_agree(attention):
    model = cached_model()
    batch = padded(clips_of(model, 9, 16), model.config.pad_token_id)
    expected = model(**batch).last_hidden_state
    other = tiny_model()
    other.load_state_dict(model.state_dict())
    other.set_attn_implementation(attention)
    assert (model.config._attn_implementation, other.config._attn_implementation) == ("sdpa", attention)
    with torch.compiler.set_stance("force_eager"):  # flex attention computes the same without its slow compilation
        found = other(**batch).last_hidden_state
    mask = batch["attention_mask"].bool()
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.invariant
@pytest.mark.parametrize(("model_class", "variant"), [*zip(MODEL_CLASSES, [*VARIANTS] * 2, strict=True)])
def test_compiles_without_graph_breaks(model_class, variant):  # fullgraph raises at the first one
    torch._dynamo.reset()
    model = tiny_model(model_class, **VARIANTS[variant])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for frames in (9, 12):
        inputs = padded(clips_of(model, 5, frames), model.config.pad_token_id)
        if (labels := random_labels(model_class, model.config, 2, frames)) is not None:
            inputs["labels"] = labels
        expected, found = model(**inputs), compiled(**inputs)
        torch.testing.assert_close(result(found, model_class), result(expected, model_class))
        if labels is not None:
            found.loss.backward()
            torch.testing.assert_close(found.loss, expected.loss)


@pytest.mark.invariant
def test_a_cast_to_half_precision_and_back_keeps_the_rotary_angles():
    rotary, states = tiny_model(AudioFormerModel).rotary_embedding, torch.zeros(1, 2_000, 4)
    expected = rotary(states)
    torch.testing.assert_close(rotary.bfloat16().float()(states), expected)


@pytest.mark.invariant
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pooling", POOLINGS)
@BOTH_VARIANTS
@torch.no_grad()
def test_half_precision_is_close(dtype, pooling, variant):
    settings_ = VARIANTS[variant] | {"pooling": pooling}
    model = tiny_model(AudioFormerForAudioClassification, **settings_)
    batch = padded(clips_of(model, 30, 60), model.config.pad_token_id)
    expected = model(**batch).logits
    found = model.to(dtype)(**batch).logits
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
@BOTH_VARIANTS
@torch.no_grad()
def test_saved_and_loaded_is_bit_equal(model_class, variant, tmp_path: Path):
    model = tiny_model(model_class, **VARIANTS[variant])
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    with CaptureLogger(logging.get_logger("transformers.modeling_utils")) as captured:
        loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True, device_map="cpu")
    assert captured.out == ""
    assert not any(info.values()), info
    codes = random_codes(model.config, 2, 9)
    assert torch.equal(result(loaded(codes), model_class), result(model(codes), model_class))
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()


def test_heads_load_the_encoder_of_a_pretrained_model(tmp_path: Path):
    pretrained = tiny_model(AudioFormerForPreTraining)
    pretrained.save_pretrained(tmp_path)
    loaded, info = AudioFormerForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    for name, weight in pretrained.audioformer.state_dict().items():
        assert torch.equal(loaded.audioformer.state_dict()[name], weight)


@pytest.mark.parametrize("model_class", [AudioFormerForMaskedLM, AudioFormerForPreTraining])
@BOTH_VARIANTS
def test_decoder_shares_the_code_embeddings(model_class, variant, tmp_path: Path):
    model = tiny_model(model_class, **VARIANTS[variant])
    model.save_pretrained(tmp_path)
    for tied in (model, model_class.from_pretrained(tmp_path)):
        assert tied.lm_head.decoder.weight is tied.audioformer.embeddings.code_embeddings.weight
    assert "lm_head.decoder.weight" not in load_file(tmp_path / "model.safetensors")


def test_decoder_of_its_own_if_untied(tmp_path: Path):
    model = tiny_model(AudioFormerForMaskedLM, tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    loaded = AudioFormerForMaskedLM.from_pretrained(tmp_path)
    assert not torch.equal(loaded.lm_head.decoder.weight, loaded.audioformer.embeddings.code_embeddings.weight)
    assert torch.equal(loaded.lm_head.decoder.weight, model.lm_head.decoder.weight)


@pytest.mark.invariant
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@BOTH_VARIANTS
def test_gradient_checkpointing_changes_no_gradient(variant):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = AudioFormerForMaskedLM(tiny_config(**VARIANTS[variant])).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        codes = random_codes(model.config, 2, 9)
        torch.manual_seed(1)  # of the dropout
        model(codes, labels=codes).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("model_class", [AudioFormerForMaskedLM, AudioFormerForPreTraining])
@BOTH_VARIANTS
def test_masked_loss_is_the_mean_over_labelled_tokens(model_class, variant):
    model = cached_model(model_class, **VARIANTS[variant])
    codes = random_codes(model.config, 2, 9)
    chosen = torch.rand(codes.shape) < 0.3
    outputs = model(codes, labels=torch.where(chosen, codes, -100))
    logits = result(outputs, model_class)
    assert logits.shape == (*codes.shape, model.config.vocab_size)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(logits[chosen], codes[chosen]))


@pytest.mark.parametrize("codebook_index", [0, 2])
def test_masked_loss_of_one_codebook_takes_the_labels_of_several(codebook_index):
    model = cached_model(AudioFormerForMaskedLM, codebook_index=codebook_index)
    codes = torch.randint(99, (2, 9, 4))
    expected = model(codes, labels=codes[..., codebook_index]).loss
    torch.testing.assert_close(model(codes, labels=codes).loss, expected)
    with pytest.raises(ValueError, match=r"labels has shape \(2, 9, 4\) and this model predicts one codebook"):
        model(codes, labels=codes, num_items_in_batch=72)


def labels_of(codes: Tensor, per_codebook: bool) -> Tensor:
    """The codes at a quarter of the frames, or of all places, and -100 elsewhere."""
    chosen = torch.rand(codes.shape if per_codebook else codes.shape[:2]) < 0.25
    return torch.where(chosen if chosen.shape == codes.shape else chosen.unsqueeze(-1), codes, -100)


@pytest.mark.invariant
@pytest.mark.parametrize("model_class", [AudioFormerForMaskedLM, AudioFormerForPreTraining])
@pytest.mark.parametrize("per_codebook", [False, True])
@pytest.mark.parametrize("num_items", [None, 17])
@BOTH_VARIANTS
def test_sparse_prediction_changes_no_loss_and_no_gradient(model_class, per_codebook, num_items, variant):
    dense, sparse = (
        tiny_model(model_class, sparse_prediction=choice, **VARIANTS[variant]).train() for choice in (False, True)
    )
    sparse.load_state_dict(dense.state_dict())
    codes = random_codes(dense.config, 3, 20)
    inputs = {"input_ids": codes, "labels": labels_of(codes, per_codebook), "num_items_in_batch": num_items}
    outputs = []
    for model in (dense, sparse):
        torch.manual_seed(1)  # of the dropout
        outputs.append(model(**inputs))
        outputs[-1].loss.backward()
    expected, found = outputs
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=1e-6)
    gradients = [{name: weight.grad for name, weight in model.named_parameters()} for model in (dense, sparse)]
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-6)
    labelled = (inputs["labels"] != -100).reshape(60, -1).any(1)
    logits = result(found, model_class)
    assert 0 < len(logits) < 60
    torch.testing.assert_close(logits, result(expected, model_class).flatten(0, 1)[labelled])
    sparse.eval()
    assert result(sparse(**inputs), model_class).shape == (*codes.shape, sparse.config.vocab_size)


@pytest.mark.invariant
def test_a_batch_without_labelled_frames_adds_nothing_to_the_gradient():
    model = tiny_model(AudioFormerForMaskedLM).train()
    codes = random_codes(model.config, 2, 9)
    model(codes, labels=torch.full_like(codes, -100), num_items_in_batch=5).loss.backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


@pytest.mark.invariant
@BOTH_VARIANTS
def test_sparse_prediction_compiles_for_any_number_of_labels(variant):
    torch._dynamo.reset()
    model = tiny_model(AudioFormerForMaskedLM, hidden_dropout=0, attention_dropout=0, **VARIANTS[variant]).train()
    compiled = torch.compile(model, backend="aot_eager")
    for frames in (9, 12, 15):
        codes = random_codes(model.config, 2, frames)
        labels = labels_of(codes, per_codebook=False)
        expected, found = model(codes, labels=labels), compiled(codes, labels=labels)
        torch.testing.assert_close(found.logits, expected.logits)
        found.loss.backward()
        torch.testing.assert_close(found.loss, expected.loss)


@pytest.mark.parametrize(("variant", "shape"), [("c1_post", (2, 8)), ("c4_pre", (2, 9)), ("c4_pre", (2, 9, 3))])
def test_masked_labels_of_another_shape_are_refused(variant, shape):
    model = cached_model(AudioFormerForMaskedLM, **VARIANTS[variant])
    with pytest.raises(ValueError, match=r"one label per token, shape .*-100"):
        model(random_codes(model.config, 2, 9), labels=torch.zeros(shape, dtype=torch.long))


@torch.no_grad()
def test_pretraining_model_returns_the_mean_of_each_clip():
    model = cached_model(AudioFormerForPreTraining)
    clips = clips_of(model, 5, 8)
    pooled = model(**padded(clips, model.config.pad_token_id)).pooler_output
    for row, clip in enumerate(clips):
        mean = model.audioformer(clip.unsqueeze(0)).last_hidden_state.mean(1)[0]
        torch.testing.assert_close(pooled[row], mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_several_codebooks_refuse_new_tokens(model_class):
    model = tiny_model(model_class, **VARIANTS["c4_pre"])
    with pytest.raises(ValueError, match="4 codebooks of 103 tokens"):
        model.resize_token_embeddings(200)
    assert model.resize_token_embeddings() is model.get_input_embeddings()
