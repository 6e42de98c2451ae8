"""What continuous front ends, kinds of positions and windows of attention promise."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hf_audioformer import (
    AudioFormerForAudioClassification,
    AudioFormerForMaskedLM,
    AudioFormerForPreTraining,
)

from .tiny_models import FRONT_ENDS, padded, padded_values, random_codes, random_values, tiny_config, tiny_model

KINDS = pytest.mark.parametrize("kind", FRONT_ENDS)
POSITIONS = ("rotary", "sinusoidal", "learned")

cached_model = lru_cache(maxsize=None)(tiny_model)


def classifier(kind: str, **more: Any) -> Any:
    return cached_model(AudioFormerForAudioClassification, **(FRONT_ENDS[kind] | more))


def clips_of(config: Any, *lengths: int) -> list[Tensor]:
    return [random_values(config, length, seed) for seed, length in enumerate(lengths)]


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from([*FRONT_ENDS]),
    positions=st.sampled_from(POSITIONS),
    pooling=st.sampled_from(["mean", "statistics", "attention"]),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    extra=st.integers(0, 9),
    side=st.sampled_from(["right", "left"]),
)
@torch.no_grad()
def test_alone_equals_batched_and_padded(kind, positions, pooling, lengths, extra, side):
    model = classifier(kind, position_embedding_type=positions, pooling=pooling)
    clips = clips_of(model.config, *lengths)
    batch = padded_values(clips, side, extra)
    batch["input_values"][batch["attention_mask"] == 0] = torch.nan  # whatever padding holds
    together = model.audioformer(**batch)
    logits = model(**batch).logits
    for row, clip in enumerate(clips):
        alone = model.audioformer(input_values=clip.unsqueeze(0)).last_hidden_state[0]
        found = together.last_hidden_state[row][together.attention_mask[row].bool()]
        torch.testing.assert_close(found, alone, atol=2e-5, rtol=1e-4)
        expected = model(input_values=clip.unsqueeze(0)).logits[0]
        torch.testing.assert_close(logits[row], expected, atol=2e-5, rtol=1e-4)


@KINDS
@torch.no_grad()
def test_a_position_stands_for_stride_frames(kind):
    model = cached_model(**FRONT_ENDS[kind])
    stride, height = model.config.input_stride, model.embeddings.positions_per_frame
    for frames in (1, stride - 1, stride, stride + 1, 50):
        if frames:
            found = model(input_values=random_values(model.config, frames).unsqueeze(0)).last_hidden_state
            assert found.shape == (1, int(np.ceil(frames / stride)) * height, 32)


@torch.no_grad()
def test_convolutions_are_those_of_the_clip_between_zeros():
    layer = cached_model(**FRONT_ENDS["frames_conv"]).embeddings.conv_layers[0]
    frames = torch.randn(1, 11, 5)
    kernel, bias = layer.conv.weight.numpy(), layer.conv.bias.numpy()  # (channels, features, 3), stride 2
    for output in range(6):
        total = bias.copy()
        for tap in range(3):
            place = output * 2 + tap  # with (3 - 2) // 2 = 0 zeros before the clip
            if place < 11:
                total += kernel[:, :, tap] @ frames[0, place].numpy()
        scaled = (total - total.mean()) / np.sqrt(total.var() + 1e-5)
        expected = torch.nn.functional.gelu(torch.from_numpy(scaled))
        torch.testing.assert_close(layer(frames, None)[0][0, output], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_patches_are_products_of_their_rectangle():
    embeddings = cached_model(**FRONT_ENDS["patches"]).embeddings  # 4 x 3 every 3 x 2 of 7 features
    spectrogram = torch.randn(1, 8, 7)
    vectors, _ = embeddings.embed(spectrogram)
    weight, bias = embeddings.projection.weight[:, 0].numpy(), embeddings.projection.bias.numpy()
    beyond = np.pad(spectrogram[0].numpy(), ((0, 4), (0, 0)))
    assert vectors.shape == (1, 3 * 3, 32)
    for moment in range(3):
        for height in range(3):
            rectangle = beyond[moment * 3 : moment * 3 + 4, height * 2 : height * 2 + 3]
            expected = (weight * rectangle).sum((1, 2)) + bias + embeddings.height_embeddings.weight[height].numpy()
            torch.testing.assert_close(vectors[0, moment * 3 + height], torch.from_numpy(expected), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("size", "stride"), [([2, 64], [2, 64]), ([4, 64], [2, 64]), ([16, 16], [10, 10])])
def test_patches_as_high_as_the_spectrogram_are_right_in_bfloat16(size, stride):
    """PyTorch's convolution gave what lay in memory for the first two, on CPUs with AMX."""
    spectrograms = torch.randn(16, 998, 64)
    sizes = {"num_features": 64, "patch_size": size, "patch_stride": stride, "hidden_size": 160}
    projection = tiny_model(**(FRONT_ENDS["patches"] | sizes)).embeddings.projection
    torch.full((16 * 499 * 160,), float("nan"))  # freed at once, and had again
    with torch.autocast("cpu", torch.bfloat16):
        found = projection(spectrograms).float()
    expected = F.conv2d(spectrograms.unsqueeze(1), projection.weight, projection.bias, stride=stride)
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1), atol=0.2, rtol=0.02)


@pytest.mark.parametrize("positions", POSITIONS)
@KINDS
@torch.no_grad()
def test_order_matters_and_patches_of_a_moment_are_at_one_place(kind, positions):
    model = cached_model(**FRONT_ENDS[kind], position_embedding_type=positions, pooling="mean")
    vectors = torch.randn(1, 12, 32)
    states = model(inputs_embeds=vectors).last_hidden_state
    assert (states.flip(1) - model(inputs_embeds=vectors.flip(1)).last_hidden_state).abs().max() > 1e-2
    height = model.embeddings.positions_per_frame
    order = torch.arange(12).view(-1, height).flip(1).flatten()
    swapped = model(inputs_embeds=vectors[:, order]).last_hidden_state
    torch.testing.assert_close(swapped, states[:, order], atol=1e-5, rtol=1e-4)


def test_sinusoids_are_those_of_the_paper():
    positions = cached_model(position_embedding_type="sinusoidal").embeddings.position_embeddings
    found = positions(torch.arange(50).unsqueeze(0))[0]
    for pos in (0, 1, 7, 49):
        for i in range(16):
            angle = pos / 10000 ** (2 * i / 32)
            assert found[pos, i].item() == pytest.approx(np.sin(angle), abs=1e-5)
            assert found[pos, 16 + i].item() == pytest.approx(np.cos(angle), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_takes_no_learned_position(side):
    model = tiny_model(AudioFormerForAudioClassification, position_embedding_type="learned", max_source_positions=8)
    codes = random_codes(model.config, 1, 8)
    before, after = (3, 0) if side == "left" else (0, 3)
    padded_codes = F.pad(codes, (before, after), value=model.config.pad_token_id)
    mask = F.pad(torch.ones(1, 8, dtype=torch.long), (before, after))
    torch.testing.assert_close(model(padded_codes, mask).logits, model(codes).logits, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="a clip has 9 moments"):
        model(padded_codes, F.pad(torch.ones(1, 9, dtype=torch.long), (before and 2, after and 2)))


@torch.no_grad()
def test_learned_positions_are_resized(tmp_path: Path):
    model = tiny_model(AudioFormerForAudioClassification, position_embedding_type="learned", max_source_positions=8)
    codes = random_codes(model.config, 1, 8)
    before, rows = model(codes).logits, model.audioformer.get_position_embeddings().weight.clone()
    with pytest.raises(ValueError, match=r"a clip has 9 moments, and this model learned positions of 8 .*resize_pos"):
        model(random_codes(model.config, 1, 9))
    with pytest.raises(ValueError, match="new_num_position_embeddings is 0; it must be at least 1"):
        model.resize_position_embeddings(0)
    model.resize_position_embeddings(16)
    stretched = model.get_position_embeddings().weight
    torch.testing.assert_close(stretched[1], 0.75 * rows[0] + 0.25 * rows[1])
    model.save_pretrained(tmp_path)
    loaded = AudioFormerForAudioClassification.from_pretrained(tmp_path)
    longer = random_codes(model.config, 1, 16)
    assert torch.equal(loaded(longer).logits, model(longer).logits)
    fresh = tiny_model(AudioFormerForAudioClassification, position_embedding_type="learned", max_source_positions=8)
    fresh.load_state_dict(model.state_dict() | {"audioformer.embeddings.position_embeddings.table.weight": rows})
    fresh.audioformer.resize_position_embeddings(6)
    torch.testing.assert_close(fresh.audioformer.get_position_embeddings().weight, rows[:6])
    fresh.audioformer.resize_position_embeddings(6)
    assert before.shape == fresh(codes[:, :6]).logits.shape


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
def test_only_learned_positions_have_a_table(positions):
    model = tiny_model(position_embedding_type=positions)
    with pytest.raises(ValueError, match=f'position_embedding_type is "{positions}"'):
        model.resize_position_embeddings(9)
    with pytest.raises(ValueError, match='only "learned" positions can be resized'):
        model.get_position_embeddings()


@pytest.mark.parametrize("norm_position", ["post", "pre"])
@pytest.mark.invariant
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@KINDS
def test_trains_saves_and_checkpoints_gradients(kind, norm_position, tmp_path: Path):
    config = tiny_config(**FRONT_ENDS[kind], norm_position=norm_position, initializer_range=0.2)
    batch = padded_values(clips_of(config, 9, 30))
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = AudioFormerForAudioClassification(config).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(1)  # of the dropout
        model(**batch, labels=torch.tensor([0, 2])).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0])
    assert all(gradient is not None for gradient in gradients[0].values())
    model.eval().save_pretrained(tmp_path)
    loaded, info = AudioFormerForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert loaded.config.to_diff_dict() == config.to_diff_dict()


@pytest.mark.invariant
def test_compiles_without_graph_breaks():
    torch._dynamo.reset()
    model = classifier("waveform")
    batch = padded_values(clips_of(model.config, 20, 36))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits)


@KINDS
def test_digital_silence_has_finite_gradients(kind):
    model = AudioFormerForAudioClassification(tiny_config(**FRONT_ENDS[kind]))
    silence = torch.zeros_like(random_values(model.config, 40)).unsqueeze(0)
    model(input_values=silence, labels=torch.tensor([1])).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("frames", (2, 9, 4), r"\(batch, frames, 5\)"),
        ("frames", (2, 9), r"\(batch, frames, 5\)"),
        ("patches", (2, 9, 5), r"\(batch, frames, 7\)"),
        ("waveform", (2, 9, 1), r"\(batch, samples\)"),
    ],
)
def test_features_of_another_shape_are_refused(kind, shape, expected):
    with pytest.raises(ValueError, match=rf"input_values has shape .*; this model reads {expected}"):
        classifier(kind)(input_values=torch.zeros(shape))


def test_inputs_of_another_front_end_are_refused():
    with pytest.raises(ValueError, match="exactly one of input_values and inputs_embeds; found input_ids"):
        classifier("frames")(input_ids=torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds; found input_values"):
        cached_model()(input_values=torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="found neither"):
        classifier("frames")()


@pytest.mark.parametrize("model_class", [AudioFormerForMaskedLM, AudioFormerForPreTraining])
def test_masked_modelling_is_for_codes(model_class):
    with pytest.raises(ValueError, match='front_end is "frames"; masked modelling predicts codes'):
        model_class(tiny_config(**FRONT_ENDS["frames"]))


@KINDS
def test_the_input_layer_can_be_had_and_replaced(kind):
    model = tiny_model(**FRONT_ENDS[kind])
    assert model.main_input_name == "input_values"
    layer = model.get_input_embeddings()
    model.set_input_embeddings(torch.nn.Identity())
    assert isinstance(model.embeddings.projection, torch.nn.Identity)
    assert layer is not model.get_input_embeddings()


def with_weights_of(model: Any, **changed: Any) -> Any:
    other = tiny_model(type(model), **changed)
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.invariant
@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
@torch.no_grad()
def test_a_window_over_the_whole_clip_is_full_attention(attention):
    full = cached_model()
    local = with_weights_of(full, sliding_window=15)
    local.set_attn_implementation(attention)
    mask = torch.tensor([[1] * 9 + [0] * 7, [1] * 16])
    codes = random_codes(full.config, 2, 16)
    expected = full(codes, mask).last_hidden_state
    with torch.compiler.set_stance("force_eager"):
        found = local(codes, mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
@torch.no_grad()
def test_a_local_layer_sees_its_window_and_no_more(attention):
    model = with_weights_of(cached_model(), layer_types=["sliding_attention", "sliding_attention"], sliding_window=3)
    model.set_attn_implementation(attention)
    codes = random_codes(model.config, 1, 30)
    changed = codes.clone()
    changed[0, 15] = (changed[0, 15] + 1) % 99
    with torch.compiler.set_stance("force_eager"):
        difference = (model(codes).last_hidden_state - model(changed).last_hidden_state).abs().amax(-1)[0]
    assert torch.equal(difference > 1e-6, (torch.arange(30) - 15).abs() <= 2 * 3)  # two layers, three on either side


@pytest.mark.reference
@pytest.mark.parametrize("side", ["right", "left"])
@torch.no_grad()
def test_blocks_of_sdpa_are_the_masked_window(side):
    model = tiny_model(sliding_window=3, num_hidden_layers=3)
    eager = with_weights_of(model, sliding_window=3, num_hidden_layers=3)
    eager.set_attn_implementation("eager")
    clips = [random_codes(model.config, 1, length, length)[0] for length in (1, 4, 11, 12, 13)]
    batch = padded(clips, model.config.pad_token_id, side)
    for inputs in (batch, {"input_ids": batch["input_ids"]}):
        mask = inputs.get("attention_mask", torch.ones_like(batch["attention_mask"])).bool()
        found, expected = model(**inputs).last_hidden_state, eager(**inputs).last_hidden_state
        torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=1e-5)
        assert found.isfinite().all()


@torch.no_grad()
def test_layers_can_be_local_and_global_in_turn():
    model = with_weights_of(cached_model(), layer_types=["sliding_attention", "full_attention"], sliding_window=3)
    model.set_attn_implementation("eager")
    first, second = model(random_codes(model.config, 1, 12), output_attentions=True).attentions
    near = (torch.arange(12)[:, None] - torch.arange(12)).abs() <= 3
    assert torch.equal(first[0, 0] > 0, near)
    assert (second[0, 0] > 0).all()
