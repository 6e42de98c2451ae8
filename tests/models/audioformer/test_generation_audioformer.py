"""Generating codes: the delay pattern, and Transformers' `generate` with cache, beams, sampling, guidance, padding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.generation import LogitsProcessorList, SuppressTokensLogitsProcessor

from hf_audioformer import (
    AudioFormerConfig,
    AudioFormerForCausalLM,
    AudioFormerForConditionalGeneration,
    AudioFormerForMaskedLM,
)
from hf_audioformer.models.audioformer.generation_audioformer import AudioFormerDecoder, delay, undelay

from .tiny_models import (
    FRONT_ENDS,
    GENERATORS,
    VARIANTS,
    padded,
    padded_values,
    random_codes,
    random_values,
    tiny_config,
    tiny_generator,
    tiny_model,
)

LENGTHS = torch.tensor([5, 3])
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "guided": {"guidance_scale": 3.0},
    "guided_beams": {"guidance_scale": 3.0, "num_beams": 2},
}


def generator(**settings: Any) -> AudioFormerForConditionalGeneration:
    return tiny_generator(AudioFormerForConditionalGeneration, **settings)


@pytest.fixture(scope="module", params=GENERATORS)
def model(request: pytest.FixtureRequest) -> AudioFormerForConditionalGeneration:
    return generator(**GENERATORS[request.param])


@pytest.fixture(scope="module")
def four() -> AudioFormerForConditionalGeneration:
    return generator(**VARIANTS["c4_pre"])


def clips_for(model: AudioFormerForConditionalGeneration) -> list[Tensor]:
    return [random_codes(model.config, 1, frames, seed=frames)[0] for frames in (8, 4)]


@torch.no_grad()
def slow_logits(model: AudioFormerForConditionalGeneration, clip: Tensor, columns: list[list[int]]) -> Tensor:
    """Logits (num_codebooks, vocab_size) after the columns so far, by a pass over all of them."""
    config = model.config
    started = torch.tensor([[config.boa_token_id] * config.num_codebooks, *columns])[None]
    logits = model(clip[None], decoder_input_ids=started[..., 0] if config.num_codebooks == 1 else started).logits
    return logits[0, -1].view(config.num_codebooks, -1)


def slow_greedy(model: AudioFormerForConditionalGeneration, clip: Tensor, frames: int) -> Tensor:
    """The likeliest codes (frames, num_codebooks), column by column, delayed codebook by codebook."""
    config, columns = model.config, []
    for column in range(frames + config.num_codebooks - 1):
        scores = slow_logits(model, clip, columns)[:, : config.codebook_size]
        found = []
        for codebook in range(config.num_codebooks):
            if column < codebook:
                found.append(config.boa_token_id)
            else:
                found.append(int(scores[codebook].argmax()) if column - codebook < frames else config.pad_token_id)
        columns.append(found)
    return torch.tensor([[columns[frame + k][k] for k in range(config.num_codebooks)] for frame in range(frames)])


@pytest.mark.unit
def test_the_delay_pattern() -> None:
    config = tiny_config(codebook_size=50, num_codebooks=3, fusion="sum")
    boa, eoa, _, pad = range(50, 54)
    codes = torch.tensor([[[1, 11, 21], [2, 12, 22]], [[3, 13, 23], [0, 0, 0]]])
    columns = delay(codes, torch.tensor([2, 1]), config)
    assert columns.tolist() == [
        [[1, boa, boa], [2, 11, boa], [pad, 12, 21], [pad, pad, 22], [pad, pad, eoa]],
        [[3, boa, boa], [pad, 13, boa], [pad, pad, 23], [pad, pad, eoa], [pad, pad, pad]],
    ]
    assert undelay(columns, config).tolist() == [codes[0].tolist(), [[3, 13, 23], [pad] * 3]]
    assert undelay(columns[:, :3], config).tolist() == [[[1, 11, 21]], [[3, 13, 23]]]  # stopped before its end


@pytest.mark.reference
def test_greedy_codes_are_those_of_a_slow_loop(model: AudioFormerForConditionalGeneration) -> None:
    clip = clips_for(model)[0]
    found = model.generate_codes(LENGTHS[:1], input_ids=clip[None])
    assert found.shape == (1, 5, model.config.num_codebooks)
    assert found[0].tolist() == slow_greedy(model, clip, 5).tolist()
    assert len(set(found.flatten().tolist())) > 2, "codes that are all equal would hide mistakes"


@pytest.mark.invariant
@pytest.mark.parametrize("way", WAYS)
def test_cache_and_padding_change_nothing(model: AudioFormerForConditionalGeneration, way: str) -> None:
    clips = clips_for(model)
    batch = padded(clips, model.config.pad_token_id, extra=1)
    found = model.generate_codes(LENGTHS, **batch, **WAYS[way])
    assert found.tolist() == model.generate_codes(LENGTHS, **batch, **WAYS[way], use_cache=False).tolist()
    for codes, length, clip in zip(found, LENGTHS, clips, strict=True):
        alone = model.generate_codes(length[None], input_ids=clip[None], **WAYS[way])
        assert codes[:length].tolist() == alone[0].tolist()
        assert (codes[length:] == model.config.pad_token_id).all()
    if way != "greedy":
        assert found.tolist() != model.generate_codes(LENGTHS, **batch).tolist()


@pytest.mark.invariant
@pytest.mark.parametrize("kind", ["c1_post", "c3_learned"])
def test_padding_before_a_clip_changes_nothing(kind: str) -> None:
    model = generator(**GENERATORS[kind])
    clips = clips_for(model)
    columns = random_codes(model.config, 2, 3, seed=5)
    sides = (padded(clips, model.config.pad_token_id, side, extra=1) for side in ("right", "left"))
    right, left = (model(**batch, decoder_input_ids=columns).logits for batch in sides)
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.property
def test_resized_positions_are_those_of_the_decoder_too(tmp_path: Path) -> None:
    model = generator(**GENERATORS["c3_learned"], max_source_positions=7)
    clip = clips_for(model)[1][None]
    before = model.generate_codes(LENGTHS[1:], input_ids=clip)
    with pytest.raises(ValueError, match=r"learned positions of 7 .* call model.resize_position_embeddings"):
        model.generate_codes(LENGTHS[:1], input_ids=clip)
    model.resize_position_embeddings(6)  # 3 frames, and those that delay 3 codebooks
    assert model.generate_codes(LENGTHS[1:], input_ids=clip).tolist() == before.tolist()
    model.resize_position_embeddings(20)
    model.save_pretrained(tmp_path)
    loaded = AudioFormerForConditionalGeneration.from_pretrained(tmp_path)
    found = loaded.generate_codes(LENGTHS[:1], input_ids=clip)
    assert found.tolist() == model.generate_codes(LENGTHS[:1], input_ids=clip).tolist()


@pytest.mark.invariant
def test_samples_are_the_same_without_cache_and_differ_by_seed(four: AudioFormerForConditionalGeneration) -> None:
    def drawn(seed: int, **settings: Any) -> list:
        torch.manual_seed(seed)
        return four.generate_codes(
            LENGTHS[:1], input_ids=clips_for(four)[:1][0][None], do_sample=True, **settings
        ).tolist()

    assert drawn(1) == drawn(1, use_cache=False) != drawn(2)
    torch.manual_seed(1)
    three = four.generate_codes(LENGTHS, **padded(clips_for(four), 102), do_sample=True, num_return_sequences=3)
    assert three.shape == (6, 5, 4)
    assert (three[3:, 3:] == 102).all()
    assert (three[:3] < 99).all()
    assert (three[0] != three[1]).any()


@pytest.mark.reference
def test_the_score_of_a_beam_is_its_probability(four: AudioFormerForConditionalGeneration) -> None:
    clip, tokens = clips_for(four)[0], 4 * 4
    beams: Any = four.generate(
        input_ids=clip[None], num_beams=4, max_new_tokens=tokens, length_penalty=0.0, output_scores=True,
        return_dict_in_generate=True, num_return_sequences=4,
    )  # fmt: skip
    scores = []
    for columns in beams.sequences[:, 1:].reshape(4, -1, 4).tolist():
        score = 0.0
        for column in range(4):
            logits = slow_logits(four, clip, columns[:column])
            logits[1:, 99:], logits[0, [99, 100, 101]] = -torch.inf, -torch.inf  # the first codebook may end
            score += sum(float(logits.log_softmax(dim=-1)[k, columns[column][k]]) for k in range(column + 1))
        scores.append(score)
    torch.testing.assert_close(beams.sequences_scores, torch.tensor(scores), rtol=1e-4, atol=1e-4)
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


@pytest.mark.reference
def test_guidance_moves_logits_away_from_those_of_silence(four: AudioFormerForConditionalGeneration) -> None:
    clip = clips_for(four)[0][None]
    columns = random_codes(four.config, 1, 3, seed=5)
    heard = four.audioformer(clip)
    with_clip = four(encoder_outputs=heard, decoder_input_ids=columns).logits
    silence = (torch.zeros_like(heard.last_hidden_state),)
    without = four(encoder_outputs=silence, decoder_input_ids=columns).logits
    guided = four(encoder_outputs=heard, decoder_input_ids=columns, guidance_scale=2.5).logits
    torch.testing.assert_close(guided, without + 2.5 * (with_clip - without), rtol=1e-4, atol=1e-4)


@pytest.mark.unit
def test_known_codes_are_kept_and_heard(four: AudioFormerForConditionalGeneration) -> None:
    clip = clips_for(four)[0][None]
    known = torch.full((1, 5, 4), -100)
    known[0, :2], known[0, 4] = random_codes(four.config, 1, 2, seed=3)[0], 7
    found = four.generate_codes(LENGTHS[:1], known, input_ids=clip, num_beams=2)
    assert found[known >= 0].tolist() == known[known >= 0].tolist()
    assert found[0, 2:4].tolist() != four.generate_codes(LENGTHS[:1], input_ids=clip, num_beams=2)[0, 2:4].tolist()
    longer = F.pad(known, (0, 0, 0, 2), value=7)  # what stands behind a clip's length is not looked at
    assert four.generate_codes(LENGTHS[:1], longer, input_ids=clip, num_beams=2).tolist() == found.tolist()


@pytest.mark.unit
def test_clips_end_where_the_first_codebook_does(four: AudioFormerForConditionalGeneration) -> None:
    """Left to itself `generate` follows the pattern until its own end."""
    torch.manual_seed(0)
    with torch.no_grad():
        four.lm_head.weight.view(4, -1, 32)[0, 102] *= 3  # ends come often
    found = four.generate(**padded(clips_for(four) * 4, 102), do_sample=True, max_new_tokens=80)
    with torch.no_grad():
        four.lm_head.weight.view(4, -1, 32)[0, 102] /= 3
    ends = []
    for tokens in found.tolist():
        if 100 in tokens:
            columns = torch.tensor(tokens[1 : tokens.index(100) + 1]).view(1, -1, 4)
            codes = undelay(columns, four.config)
            assert columns.tolist() == delay(codes, torch.tensor([codes.shape[1]]), four.config).tolist()
            assert set(tokens[tokens.index(100) + 1 :]) <= {102}
            ends.append(codes.shape[1])
    assert len(set(ends)) > 1


@pytest.mark.reference
def test_the_loss_counts_codes_and_the_end_of_the_first_codebook(model: AudioFormerForConditionalGeneration) -> None:
    clips = clips_for(model)
    labels = [random_codes(model.config, 1, frames, seed=50 + frames)[0] for frames in (6, 2)]
    batch = padded(clips, model.config.pad_token_id) | {"labels": padded(labels, -100)["input_ids"]}
    losses = []
    for clip, codes in zip(clips, labels, strict=True):
        config, codes = model.config, codes.view(len(codes), -1)
        columns = delay(codes[None], torch.tensor([len(codes)]), config)[0].tolist()
        for column in range(len(codes) + config.num_codebooks):
            logits = slow_logits(model, clip, columns[:column])
            for codebook in range(config.num_codebooks):
                frame = column - codebook
                if 0 <= frame < len(codes) or (codebook == 0 and frame == len(codes)):
                    losses.append(F.cross_entropy(logits[codebook], torch.tensor(columns[column][codebook])))
    torch.testing.assert_close(model(**batch).loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)
    total = model(**batch, num_items_in_batch=10).loss
    torch.testing.assert_close(total, torch.stack(losses).sum() / 10, rtol=1e-4, atol=1e-4)


@pytest.mark.unit
def test_training_sometimes_does_not_hear_the_encoder() -> None:
    model = generator(**VARIANTS["c4_pre"], condition_dropout=0.5, hidden_dropout=0.0, attention_dropout=0.0).train()
    clip, columns = clips_for(model)[0], random_codes(model.config, 1, 3, seed=5)
    torch.manual_seed(0)
    found = model(clip.expand(16, -1, -1), decoder_input_ids=columns.expand(16, -1, -1)).logits
    heard = model.eval()(clip[None], decoder_input_ids=columns).logits
    silence = model(encoder_outputs=(torch.zeros(1, 8, 32),), decoder_input_ids=columns).logits
    kinds = {(torch.allclose(row, heard[0], atol=1e-4), torch.allclose(row, silence[0], atol=1e-4)) for row in found}
    assert kinds == {(True, False), (False, True)}


@pytest.mark.property
@pytest.mark.parametrize("front_end", ["frames_conv", "patches"])
def test_other_front_ends_are_generated_from(front_end: str) -> None:
    codes = {"num_codebooks": 2, "fusion": "sum"}
    model = generator(**FRONT_ENDS[front_end], **codes)
    clips = [random_values(model.config, frames, seed=frames) for frames in (9, 5)]
    found = model.generate_codes(LENGTHS, **padded_values(clips, extra=2), num_beams=2)
    alone = model.generate_codes(LENGTHS[1:], input_values=clips[1][None], num_beams=2)
    assert found.shape == (2, 5, 2)
    assert found[1, :3].tolist() == alone[0].tolist()


@pytest.mark.property
def test_saved_and_loaded_models_generate_the_same(tmp_path: Path) -> None:
    model = generator(**VARIANTS["c4_pre"], tie_word_embeddings=True)
    table = model.audioformer.embeddings.code_embeddings.weight
    assert model.lm_head.weight is table
    assert model.decoder.embeddings.code_embeddings.weight is table
    model.save_pretrained(tmp_path)
    loaded = AudioFormerForConditionalGeneration.from_pretrained(tmp_path)
    clip = clips_for(model)[0][None]
    assert loaded.generation_config.eos_token_id == 100
    assert (
        loaded.generate_codes(LENGTHS[:1], input_ids=clip).tolist()
        == model.generate_codes(LENGTHS[:1], input_ids=clip).tolist()
    )


@pytest.mark.property
def test_a_pretrained_encoder_is_kept(tmp_path: Path) -> None:
    pretrained = tiny_model(AudioFormerForMaskedLM, **VARIANTS["c4_pre"])
    pretrained.config.use_cache = False  # as after the Trainer
    pretrained.save_pretrained(tmp_path)
    model, info = AudioFormerForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert all(name.startswith("decoder.") for name in info["missing_keys"])
    for name, weight in pretrained.audioformer.state_dict().items():
        torch.testing.assert_close(model.audioformer.state_dict()[name], weight)
    settings = model.generation_config
    assert (settings.decoder_start_token_id, settings.eos_token_id, settings.pad_token_id) == (99, 100, 102)
    assert settings.use_cache


@pytest.mark.property
def test_local_attention_is_the_encoders_alone() -> None:
    config = AudioFormerConfig(sliding_window=1, num_hidden_layers=3, decoder_layers=1)
    assert config.layer_types == ["sliding_attention"] * 3
    assert (config.decoder_config().layer_types, config.decoder_config().num_hidden_layers) == (None, 1)
    model = generator(sliding_window=1, attn_implementation="eager")
    assert all(layer.attention.sliding_window is None for layer in model.decoder.layers)
    assert model.generate_codes(LENGTHS[:1], input_ids=clips_for(model)[0][None]).shape == (1, 5, 1)


@pytest.mark.unit
def test_processors_of_ones_own_are_heard(four: AudioFormerForConditionalGeneration) -> None:
    clip = clips_for(four)[0][None]
    found = four.generate_codes(LENGTHS[:1], input_ids=clip)
    unwanted = int(found[0, 0, 0])
    processors = LogitsProcessorList([SuppressTokensLogitsProcessor([unwanted])])
    assert not (four.generate_codes(LENGTHS[:1], input_ids=clip, logits_processor=processors) == unwanted).any()


@pytest.mark.unit
def test_flash_attention_is_refused_by_what_attends_to_an_encoder() -> None:
    """With padding it would take as many queries as there are keys."""
    assert AudioFormerForCausalLM._supports_flash_attn
    for model_class in (AudioFormerForConditionalGeneration, AudioFormerDecoder):
        with pytest.raises(ValueError, match="does not support Flash Attention 2"):
            model_class._from_config(tiny_config(), attn_implementation="flash_attention_2")


@pytest.mark.fault
def test_wrong_shapes_are_refused(four: AudioFormerForConditionalGeneration) -> None:
    clip = clips_for(four)[0][None]
    with pytest.raises(ValueError, match=r"labels has shape \(1, 8\); this model generates codes \(batch, frames, 4\)"):
        four(clip, labels=clip[..., 0])
    with pytest.raises(ValueError, match=r"known \(1, 5, 2\); expected \(batch,\) and \(batch, frames, 4\)"):
        four.generate_codes(LENGTHS[:1], torch.zeros(1, 5, 2, dtype=torch.long), input_ids=clip)
    with pytest.raises(ValueError, match="lengths is for 2 clips, and input_ids has 1; give one length for each"):
        four.generate_codes(LENGTHS, input_ids=clip)
    with pytest.raises(ValueError, match="known has 101; codes are below 99, and -100 stands where"):
        four.generate_codes(LENGTHS[:1], torch.full((1, 5, 4), 101), input_ids=clip)
