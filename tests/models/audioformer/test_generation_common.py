"""What Transformers' own generation suite asks of a model, of both generators of codes.

`GenerationTesterMixin` is in no release of Transformers, neither wheel nor source distribution; these tests are ours,
behaviour by behaviour. Not among them: compiled forward passes (`_can_compile_fullgraph` is False), `logits_to_keep`
(`codebook` stands for it), and caches quantized or on another device, which need other packages or a GPU.
"""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache, StaticCache
from transformers.generation import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
)
from transformers.generation.streamers import BaseStreamer

from hf_audioformer import AudioFormerForCausalLM, AudioFormerForConditionalGeneration

from .tiny_models import GENERATORS, VARIANTS, padded, random_codes, tiny_generator

CLASSES = (AudioFormerForConditionalGeneration, AudioFormerForCausalLM)
CLIPS = (5, 3)  # frames
LAYERS, HEADS, HEAD_SIZE, HIDDEN_SIZE, VOCAB_SIZE = 2, 4, 8, 32, 103
EVERYTHING = {
    "return_dict_in_generate": True,
    **dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states"), True),
}
# No clip ends early, so that lengths are known; None would stop an assistant of early releases of Transformers 5.
ENDLESS = {"eos_token_id": -1}


@pytest.fixture(
    scope="module", params=itertools.product(CLASSES, VARIANTS), ids=lambda kind: f"{kind[0].__name__}-{kind[1]}"
)
def model(request: pytest.FixtureRequest) -> Any:
    model_class, variant = request.param
    return tiny_generator(model_class, **VARIANTS[variant], attn_implementation="eager")


@pytest.fixture(scope="module", params=CLASSES)
def one(request: pytest.FixtureRequest) -> Any:
    """A model of one codebook, of which each token is a column."""
    return tiny_generator(request.param, **VARIANTS["c1_post"], attn_implementation="eager")


@pytest.fixture(scope="module", params=CLASSES)
def four(request: pytest.FixtureRequest) -> Any:
    return tiny_generator(request.param, **VARIANTS["c4_pre"])


def inputs_of(model: Any, clips: int = 2) -> dict[str, Tensor]:
    """What the encoder hears, or what the clips go on from, of different lengths."""
    codes = [random_codes(model.config, 1, frames, seed=frames)[0] for frames in CLIPS[:clips]]
    return padded(codes, model.config.pad_token_id)


def first_tokens(model: Any, clips: int = 2) -> int:
    """The tokens before the first that is generated."""
    return 1 if model.config.is_encoder_decoder else 1 + min(CLIPS[:clips]) * model.config.num_codebooks


def new_tokens(model: Any) -> int:
    """Those of two columns and a token more."""
    return 2 * model.config.num_codebooks + 1


def self_attention(cache: Cache) -> Cache:
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


def check_tensors(model: Any, outputs: Any, rows: int, encoded_rows: int, cached: bool, clips: int = 2) -> None:
    """Scores, logits, hidden states and attentions of each generated token have the shapes they should have."""
    num_codebooks, before = model.config.num_codebooks, first_tokens(model, clips)
    tokens = outputs.sequences.shape[1] - before
    prefix = "decoder_" if model.config.is_encoder_decoder else ""
    names = ("scores", "logits", f"{prefix}hidden_states", f"{prefix}attentions")
    scores, logits, hidden_states, attentions = (outputs[name] for name in names)
    assert [len(outputs[name]) for name in names] == [tokens] * 4
    for index in range(tokens):
        assert scores[index].shape == logits[index].shape == (rows, VOCAB_SIZE)
        so_far = before - 1 + index  # tokens after the start
        columns = 1 + so_far // num_codebooks
        if cached and index and so_far % num_codebooks:
            assert hidden_states[index] is None, "drawn from the pass of the column's first token"
            continue
        queries = 1 if cached and index else columns
        assert [states.shape for states in hidden_states[index]] == [(rows, queries, HIDDEN_SIZE)] * (LAYERS + 1)
        assert [weights.shape for weights in attentions[index]] == [(rows, HEADS, queries, columns)] * LAYERS
        if model.config.is_encoder_decoder:
            shapes = [weights.shape for weights in outputs.cross_attentions[index]]
            assert shapes == [(rows, HEADS, queries, max(CLIPS))] * LAYERS
    if model.config.is_encoder_decoder:
        shapes = [states.shape for states in outputs.encoder_hidden_states]
        assert shapes == [(encoded_rows, max(CLIPS), HIDDEN_SIZE)] * (LAYERS + 1)
        shapes = [weights.shape for weights in outputs.encoder_attentions]
        assert shapes == [(encoded_rows, HEADS, max(CLIPS), max(CLIPS))] * LAYERS


@pytest.mark.reference
@pytest.mark.parametrize("way", [{}, {"do_sample": True, "num_return_sequences": 3}, {"num_beams": 2}])
def test_tokens_are_as_many_as_asked_for(model: Any, way: dict[str, Any]) -> None:
    rows = 2 * way.get("num_return_sequences", 1)
    found = model.generate(**inputs_of(model), max_new_tokens=new_tokens(model), **way, **ENDLESS)
    assert found.shape == (rows, first_tokens(model) + new_tokens(model))
    assert (found[:, 0] == model.config.boa_token_id).all()


@pytest.mark.reference
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("way", [{}, {"do_sample": True, "num_return_sequences": 2}])
def test_everything_can_be_returned(model: Any, way: dict[str, Any], cached: bool) -> None:
    settings = {"max_new_tokens": new_tokens(model), "use_cache": cached} | EVERYTHING | ENDLESS
    torch.manual_seed(0)
    found = model.generate(**inputs_of(model), **way, **settings)
    is_encoder_decoder = model.config.is_encoder_decoder
    assert isinstance(found, GenerateEncoderDecoderOutput if is_encoder_decoder else GenerateDecoderOnlyOutput)
    assert (found.past_key_values is not None) == cached
    check_tensors(model, found, 2 * way.get("num_return_sequences", 1), 2, cached)


@pytest.mark.reference
@pytest.mark.parametrize("cached", [False, True])
def test_everything_can_be_returned_of_beams(model: Any, cached: bool) -> None:
    settings = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": new_tokens(model), "use_cache": cached}
    found = model.generate(**inputs_of(model), **settings, **EVERYTHING, **ENDLESS)
    is_encoder_decoder = model.config.is_encoder_decoder
    assert isinstance(found, GenerateBeamEncoderDecoderOutput if is_encoder_decoder else GenerateBeamDecoderOnlyOutput)
    assert found.sequences.shape == (4, first_tokens(model) + new_tokens(model))
    assert found.sequences_scores.shape == (4,)
    assert found.beam_indices.shape[0] == 4
    check_tensors(model, found, 6, 2, cached)


@pytest.mark.reference
def test_the_score_of_a_beam_is_that_of_its_tokens(model: Any) -> None:
    settings = {"num_beams": 3, "max_new_tokens": new_tokens(model), "length_penalty": 0.0, "output_scores": True}
    found = model.generate(**inputs_of(model), **settings, return_dict_in_generate=True, **ENDLESS)
    tokens = model.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
    torch.testing.assert_close(tokens.sum(dim=1), found.sequences_scores, rtol=1e-4, atol=1e-4)


@pytest.mark.fault
def test_beams_cannot_be_sampled(model: Any) -> None:
    with pytest.raises(ValueError, match="num_beams is 2 and do_sample set; beams cannot be sampled where"):
        model.generate(**inputs_of(model), num_beams=2, do_sample=True, max_new_tokens=4)


@pytest.mark.reference
def test_without_inputs_there_is_a_start_token(model: Any) -> None:
    settings = {"max_new_tokens": new_tokens(model)} | ENDLESS
    if model.config.is_encoder_decoder and model.config.num_codebooks > 1:  # which the encoder cannot hear
        with pytest.raises(ValueError, match=r"input_ids has shape \(1, 1\); this model reads \(batch, frames, 4\)"):
            model.generate(**settings)
    else:
        assert model.generate(**settings).shape == (1, 1 + new_tokens(model))


@pytest.mark.reference
def test_assisted_tokens_are_the_likeliest(one: Any) -> None:
    settings = {"max_new_tokens": 6} | EVERYTHING | ENDLESS
    inputs = inputs_of(one, clips=1)
    greedy = one.generate(**inputs, **settings)
    other = tiny_generator(type(one), **VARIANTS["c1_post"], norm_position="pre", attn_implementation="eager")
    ways: list[dict[str, Any]] = [{"assistant_model": other}, {"assistant_model": one}, {"prompt_lookup_num_tokens": 2}]
    for way in ways:
        if "assistant_model" in way:
            way["assistant_model"].generation_config.update(
                num_assistant_tokens=2, num_assistant_tokens_schedule="constant"
            )
        found = one.generate(**inputs, **way, **settings)
        assert found.sequences.tolist() == greedy.sequences.tolist()
        assert [scores.shape for scores in found.scores] == [(1, VOCAB_SIZE)] * 6
        name = "decoder_hidden_states" if one.config.is_encoder_decoder else "hidden_states"
        assert len(found[name]) == len(greedy[name])
    torch.manual_seed(0)
    sampled = one.generate(**inputs, do_sample=True, assistant_model=other, max_new_tokens=6, **ENDLESS)
    assert sampled.shape == greedy.sequences.shape


@pytest.mark.fault
def test_several_codebooks_or_guidance_cannot_be_assisted(four: Any) -> None:
    refused = "assisted generation is asked for with 4 codebooks .* it needs one codebook and no guidance"
    for way in ({"assistant_model": four}, {"prompt_lookup_num_tokens": 2}):
        with pytest.raises(ValueError, match=refused):
            four.generate(**inputs_of(four, clips=1), max_new_tokens=4, **way)
    guided = tiny_generator(AudioFormerForConditionalGeneration)
    with pytest.raises(ValueError, match=r"1 codebooks and guidance_scale 2\.0; it needs one codebook and no guidance"):
        guided.generate(**inputs_of(guided), max_new_tokens=4, prompt_lookup_num_tokens=2, guidance_scale=2.0)


@pytest.mark.invariant
@pytest.mark.parametrize("kind", GENERATORS)
def test_padding_before_columns_changes_no_logits(kind: str) -> None:
    """Of the decoder alone; what the encoder-decoder hears is padded in test_generation_audioformer.py."""
    model = tiny_generator(AudioFormerForCausalLM, **GENERATORS[kind])
    columns = [random_codes(model.config, 1, frames, seed=frames)[0] for frames in CLIPS]
    left = padded(columns, model.config.pad_token_id, "left", extra=3)
    found = model(**left).logits
    cached = model(left["input_ids"][:, :6], left["attention_mask"][:, :6], use_cache=True)
    rest = model(left["input_ids"][:, 6:], left["attention_mask"], past_key_values=cached.past_key_values).logits
    for row, clip in enumerate(columns):
        alone = model(clip[None]).logits[0]
        torch.testing.assert_close(found[row, -len(clip) :], alone, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rest[row], alone[-2:], rtol=1e-4, atol=1e-4)


@pytest.mark.reference
def test_caches_are_those_of_transformers(model: Any) -> None:
    columns, inputs = random_codes(model.config, 2, 6), inputs_of(model)
    is_encoder_decoder = model.config.is_encoder_decoder
    given = inputs | {"decoder_input_ids": columns} if is_encoder_decoder else {"input_ids": columns}
    cache = model(**given, use_cache=True).past_key_values
    assert type(cache) is (EncoderDecoderCache if is_encoder_decoder else DynamicCache)
    assert cache.get_seq_length() == 6
    shapes = [(layer.keys.shape, layer.values.shape) for layer in self_attention(cache).layers]
    assert shapes == [((2, HEADS, 6, HEAD_SIZE),) * 2] * LAYERS
    if is_encoder_decoder:
        shapes = [(layer.keys.shape, layer.values.shape) for layer in cache.cross_attention_cache.layers]
        assert shapes == [((2, HEADS, max(CLIPS), HEAD_SIZE),) * 2] * LAYERS
    assert model(**given, use_cache=False).past_key_values is None


@pytest.mark.invariant
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_what_is_cached_is_gone_on_from(model: Any, tokens: int) -> None:
    total = new_tokens(model) + 5
    settings = {"return_dict_in_generate": True} | ENDLESS
    inputs = inputs_of(model)
    if not model.config.is_encoder_decoder:  # tokens, behind which there are no codes that are known
        inputs = {"input_ids": model.generate(**inputs, max_new_tokens=24, **ENDLESS)}
    whole = model.generate(**inputs, max_new_tokens=total, **settings)
    begun = model.generate(**inputs, max_new_tokens=total - tokens, **settings)
    sequences, cache = begun.sequences, begun.past_key_values
    again = inputs | {"decoder_input_ids": sequences} if model.config.is_encoder_decoder else {"input_ids": sequences}
    found = model.generate(**again, past_key_values=cache, max_new_tokens=tokens, **settings)
    assert found.sequences.tolist() == whole.sequences.tolist()
    layers = (self_attention(outputs.past_key_values).layers for outputs in (found, whole))
    for layer, expected in zip(*layers, strict=True):
        torch.testing.assert_close(layer.keys, expected.keys, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layer.values, expected.values, rtol=1e-4, atol=1e-4)


@pytest.mark.fault
def test_a_cache_of_more_than_the_tokens_is_refused(model: Any) -> None:
    inputs, settings = inputs_of(model), {"return_dict_in_generate": True} | ENDLESS
    begun = model.generate(**inputs, max_new_tokens=new_tokens(model), **settings)
    tokens = begun.sequences[:, :1]
    again = inputs | {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {"input_ids": tokens}
    with pytest.raises(ValueError, match=r"past_key_values holds \d columns, and the tokens so far are 1; give all"):
        model.generate(**again, past_key_values=begun.past_key_values, max_new_tokens=4)


@pytest.mark.invariant
@pytest.mark.parametrize("way", [{}, {"num_beams": 2}])
def test_a_static_cache_changes_nothing(one: Any, way: dict[str, Any]) -> None:
    inputs, settings = inputs_of(one), {"max_new_tokens": 6, "return_dict_in_generate": True} | way | ENDLESS
    found = one.generate(**inputs, **settings, cache_implementation="static")
    assert found.sequences.tolist() == one.generate(**inputs, **settings).sequences.tolist()
    cache = self_attention(found.past_key_values)
    assert isinstance(cache, StaticCache)
    rows = 2 * way.get("num_beams", 1)
    assert cache.layers[0].keys.shape == (rows, HEADS, first_tokens(one) + 6 - 1, HEAD_SIZE)


@pytest.mark.fault
def test_several_codebooks_have_no_static_cache(four: Any) -> None:
    with pytest.raises(ValueError, match=r"a static cache\); with several codebooks or guidance it must be dynamic"):
        four.generate(**inputs_of(four), max_new_tokens=4, cache_implementation="static")


@pytest.mark.fault
def test_prompts_are_not_read_in_chunks(model: Any) -> None:
    with pytest.raises(ValueError, match="prefill_chunk_size is 2; what clips begin with is read in one pass"):
        model.generate(**inputs_of(model), max_new_tokens=4, prefill_chunk_size=2)


@pytest.mark.reference
def test_embedded_inputs(model: Any) -> None:
    inputs, settings = inputs_of(model), {"max_new_tokens": new_tokens(model)} | ENDLESS
    if not model.config.is_encoder_decoder:  # tokens are counted from the start token
        with pytest.raises(ValueError, match=r"inputs_embeds.* AudioFormerForCausalLM doesn't have its forwarding"):
            model.generate(inputs_embeds=torch.zeros(2, 3, HIDDEN_SIZE), **settings)
        return
    embeds, mask = model.audioformer.embeddings.embed(inputs["input_ids"], inputs["attention_mask"])
    found = model.generate(inputs_embeds=embeds, attention_mask=mask, **settings)
    assert found.tolist() == model.generate(**inputs, **settings).tolist()


@pytest.mark.invariant
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("model_class", CLASSES)
def test_eager_and_sdpa_attention_give_the_same_tokens(model_class: type, variant: str) -> None:
    found = []
    for attention in ("eager", "sdpa"):
        model = tiny_generator(model_class, **VARIANTS[variant], attn_implementation=attention)
        found.append(model.generate(**inputs_of(model), max_new_tokens=12, num_beams=2, **ENDLESS).tolist())
    assert found[0] == found[1]


@pytest.mark.invariant
def test_columns_can_be_read_bit_by_bit(model: Any) -> None:
    """Some columns at once, then one, as one pass without a cache."""
    columns = random_codes(model.config, 2, 6)
    name = "decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"
    heard = inputs_of(model) if model.config.is_encoder_decoder else {}
    expected = model(**heard, **{name: columns}).logits
    cache, found = None, []
    for part in columns.split([3, 1, 2], dim=1):
        outputs = model(**heard, **{name: part}, past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        found.append(outputs.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=1e-4, atol=1e-4)


class _Streamer(BaseStreamer):
    """Keeps what it gets."""

    def __init__(self):
        self.tokens, self.is_done = [], False

    def put(self, value: Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.is_done = True


@pytest.mark.reference
def test_tokens_are_streamed(model: Any) -> None:
    streamer = _Streamer()
    found = model.generate(**inputs_of(model, clips=1), max_new_tokens=new_tokens(model), streamer=streamer, **ENDLESS)
    assert streamer.tokens == found[0].tolist()
    assert streamer.is_done
