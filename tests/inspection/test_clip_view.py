"""Four architectures, small and random, through real code: what is traced and what is shown of it."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ASTConfig, ASTModel, AutoModel, EncodecFeatureExtractor, WhisperForConditionalGeneration

from hf_audioformer.inspection import tracing
from hf_audioformer.inspection.clip_view import ModelFacts, model_facts, view_of
from hf_audioformer.inspection.tracing import InspectedModel, Trace, load_model, trace_clip
from hf_audioformer.models.ast.positions_ast import patch_grid

from ..fixtures_codec import make_random_encodec, varied_sound
from .tiny_zoo import save_zoo

pytestmark = pytest.mark.unit

SECONDS = 1.0
AUDIO = {"array": varied_sound(24_000).numpy(), "sampling_rate": 24_000}
NAMES = ("wav2vec2", "whisper", "ast", "audioformer")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return save_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def models(zoo: dict[str, str]) -> dict[str, InspectedModel]:
    return {name: load_model(folder) for name, folder in zoo.items()}


@pytest.fixture(scope="module")
def traces(models: dict[str, InspectedModel]) -> dict[str, Trace]:
    return {name: trace_clip(model, AUDIO) for name, model in models.items()}


@pytest.mark.parametrize("name", NAMES)
def test_attention_rows_sum_to_one(name: str, traces: dict[str, Trace]) -> None:
    trace = traces[name]
    assert len(trace.attentions) == 2
    assert len(trace.hidden_states) == 3
    for weights in trace.attentions:
        assert weights.shape == (4, trace.layout.num_tokens, trace.layout.num_tokens)
        assert weights.sum(-1) == pytest.approx(np.ones(weights.shape[:2]), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_axis_ends_with_the_clip(name: str, traces: dict[str, Trace]) -> None:
    trace = traces[name]
    view = view_of(trace, model=name, clip="clip", codebook_size=64)
    start, end = view.edges_seconds
    # The last step of a convolution or a patch needs all that it hears, so it ends up to that before the clip.
    assert abs(start) <= trace.layout.step_seconds
    assert end == pytest.approx(SECONDS, abs=trace.layout.step_seconds)
    assert view.layers.shape == (2, view.steps, view.steps)
    assert view.hidden_states.shape == (3, view.steps, 32)
    assert view.focus.shape == view.rollout.shape == (trace.layout.rows, view.steps)
    assert view.on_clip == pytest.approx(view.layers.sum(-1).mean(-1))
    assert (view.on_clip <= 1 + 1e-5).all()
    assert ((view.distances > 0) & (view.distances < 2)).all()


def facts(models: dict[str, InspectedModel], traces: dict[str, Trace], name: str) -> ModelFacts:
    return model_facts(models[name], traces[name], name)


def test_side_by_side(zoo: dict[str, str], models: dict[str, InspectedModel], traces: dict[str, Trace]) -> None:
    rows = {name: facts(models, traces, name) for name in NAMES}
    assert [row.model_class for row in rows.values()] == [
        *("Wav2Vec2ForSequenceClassification", "WhisperForConditionalGeneration"),
        *("ASTForAudioClassification", "AudioFormerForMaskedLM"),
    ]
    assert [row.step_ms for row in rows.values()] == pytest.approx([20, 20, 100, 1000 / 75])
    assert rows["wav2vec2"].input_shape == (1, 16_000)
    assert rows["wav2vec2"].output_shape == (1, 49, 32)
    assert rows["whisper"].input_shape == (1, 80, 200)
    assert rows["whisper"].output_shape == (1, 100, 32)
    assert rows["whisper"].decoder_layers == 2
    assert rows["ast"].input_shape == (1, 204, 128)
    frequency, time = patch_grid(ASTConfig(max_length=204))
    assert rows["ast"].output_shape == (1, 2 + frequency * time, 32)
    assert rows["audioformer"].input_shape == (1, 77, 2)
    assert rows["audioformer"].special_tokens == ("BOA", "EOA")
    assert all((row.layers, row.heads, row.random_weights) == (2, 4, 0) for row in rows.values())
    assert all(row.heard_seconds == pytest.approx(SECONDS, abs=0.02) for row in rows.values())
    for name, row in rows.items():
        weights = {id(weight): weight.numel() for weight in models[name].model.parameters()}
        assert row.parameters == sum(weights.values())


def test_padding_is_left_out_of_time_and_counted(traces: dict[str, Trace]) -> None:
    view = view_of(traces["whisper"], model="whisper", clip="clip")
    assert view.steps == 50
    weights = np.stack(traces["whisper"].attentions)
    assert view.on_clip == pytest.approx(weights[:, :, :50, :50].sum(-1).mean((1, 2)))
    assert view.heads == pytest.approx(weights[-1][:, :50, :50])


@pytest.mark.parametrize("name", NAMES)
def test_an_even_spread_is_one(name: str, traces: dict[str, Trace]) -> None:
    tokens = traces[name].layout.num_tokens
    even = Trace(**{**traces[name].__dict__, "attentions": (np.full((4, tokens, tokens), 1 / tokens),)})
    view = view_of(even, model=name, clip="clip")
    for relative in (view.layers / view.even_share, view.heads / view.even_share, view.focus, view.rollout):
        assert relative == pytest.approx(np.ones_like(relative), rel=0.05)  # rollout: the residual path of each step
    assert view.distances == pytest.approx(np.ones((1, 4)))


def test_cross_attention_is_that_of_the_writing(models: dict[str, InspectedModel], traces: dict[str, Trace]) -> None:
    """The weights of each step of `generate`, beside those of reading what was written."""
    cross = traces["whisper"].cross
    model: WhisperForConditionalGeneration = models["whisper"].model
    waveform = tracing.resample(torch.from_numpy(AUDIO["array"]), 24_000, 16_000).numpy()
    inputs = models["whisper"].extractor(waveform, sampling_rate=16_000, return_tensors="pt")
    settings = {"do_sample": False, "max_new_tokens": tracing.MAX_NEW_TOKENS, "return_dict_in_generate": True}
    written = model.generate(**inputs, **settings, output_attentions=True)
    assert cross.written == tuple(str(token) for token in written.sequences[0, 1:].tolist())
    assert cross.weights.shape == (2, 4, len(cross.written), 100)
    assert cross.weights.sum(-1) == pytest.approx(np.ones((2, 4, len(cross.written))), abs=1e-5)
    steps = [torch.stack([layer[0, :, -1] for layer in step]) for step in written.cross_attentions]
    assert cross.weights[:, :, -len(steps) :] == pytest.approx(torch.stack(steps, dim=2).numpy(), abs=1e-4)
    view = view_of(traces["whisper"], model="whisper", clip="clip")
    assert view.cross.shares == pytest.approx(cross.weights.mean((0, 1))[:, :50])


def test_codes_are_those_of_the_extractor(models: dict[str, InspectedModel], traces: dict[str, Trace]) -> None:
    ids = models["audioformer"].extractor(AUDIO["array"], sampling_rate=24_000)["input_ids"][0]
    assert traces["audioformer"].codes.tolist() == ids[1:-1].tolist()
    usage = view_of(traces["audioformer"], model="a", clip="c", codebook_size=64).usage
    assert usage.counts.sum(1).tolist() == [75, 75]
    assert traces["ast"].codes is None


def test_hidden_states_of_an_ast_are_means_over_frequency(traces: dict[str, Trace]) -> None:
    trace = traces["ast"]
    view = view_of(trace, model="ast", clip="clip")
    step, last = 4, trace.hidden_states[-1]
    patches = [last[2 + row * trace.layout.steps + step] for row in range(trace.layout.rows)]
    assert view.hidden_states[-1, step] == pytest.approx(np.mean(patches, axis=0), rel=1e-4, abs=1e-5)


def test_what_lies_beyond_a_models_length_is_not_heard(models: dict[str, InspectedModel]) -> None:
    long = {"array": varied_sound(72_000).numpy(), "sampling_rate": 24_000}
    heard = {name: trace_clip(models[name], long).heard_seconds for name in NAMES}
    assert heard["whisper"] == pytest.approx(1.99)
    assert heard["ast"] == pytest.approx(204 * 0.01 + 0.015, abs=0.1)
    assert heard["wav2vec2"] == pytest.approx(3.0, abs=0.02)
    assert heard["audioformer"] == pytest.approx(3.0)


def test_a_layer_is_chosen(traces: dict[str, Trace]) -> None:
    first = view_of(traces["wav2vec2"], model="w", clip="c", layer=0)
    assert first.layer == 0
    assert first.heads == pytest.approx(traces["wav2vec2"].attentions[0])
    assert view_of(traces["wav2vec2"], model="w", clip="c").layer == 1
    with pytest.raises(ValueError, match="allowed are 0 to 1"):
        view_of(traces["wav2vec2"], model="w", clip="c", layer=2)


def test_a_bare_whisper_is_given_its_head(zoo: dict[str, str], tmp_path: Path) -> None:
    whole = load_model(zoo["whisper"])
    AutoModel.from_pretrained(zoo["whisper"]).save_pretrained(tmp_path)
    whole.extractor.save_pretrained(tmp_path)
    assert load_model(tmp_path).writes
    assert load_model(tmp_path).missing == ()


def test_too_much_attention_is_refused_before_it_is_made(
    models: dict[str, InspectedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one layer has made its own; and the model is as it was."""
    monkeypatch.setattr(tracing, "MAX_ATTENTION_BYTES", 1000)
    made: list[object] = []
    model = models["wav2vec2"]
    hook = model.model.wav2vec2.encoder.layers[0].attention.register_forward_hook(lambda *made_of: made.append(made_of))
    try:
        with pytest.raises(ValueError, match=r"49 tokens of 1.0 s.*--max_seconds"):
            trace_clip(model, AUDIO)
        assert not made
        monkeypatch.undo()
        trace_clip(model, AUDIO)
        assert made
    finally:
        hook.remove()


def test_a_model_without_attention_is_named(zoo: dict[str, str], models: dict[str, InspectedModel]) -> None:
    model = models["wav2vec2"]
    model.model.set_attn_implementation("sdpa")
    try:
        with pytest.raises(
            ValueError, match=r"\(Wav2Vec2ForSequenceClassification\) returns no attention weights of its 49 tokens"
        ):
            trace_clip(model, AUDIO)
    finally:
        model.model.set_attn_implementation("eager")


def test_a_model_of_another_kind_is_named(tmp_path: Path) -> None:
    make_random_encodec().save_pretrained(tmp_path)
    EncodecFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\(EncodecModel\) returns no hidden states .* such as AudioFormer"):
        trace_clip(load_model(tmp_path), AUDIO)


def test_a_checkpoint_without_extractor_is_named(zoo: dict[str, str], tmp_path: Path) -> None:
    AutoModel.from_pretrained(zoo["wav2vec2"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no feature extractor for audio"):
        load_model(tmp_path)


def test_a_class_that_is_no_model_is_not_taken(zoo: dict[str, str], tmp_path: Path) -> None:
    """A configuration is a file that anybody may have written."""
    shutil.copytree(zoo["ast"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["pipeline"]}))
    assert type(load_model(tmp_path).model) is ASTModel


def test_a_clip_of_one_step_is_refused(models: dict[str, InspectedModel]) -> None:
    audio = {"array": AUDIO["array"][:500], "sampling_rate": 16_000}
    with pytest.raises(ValueError, match="at least two"):
        view_of(trace_clip(models["wav2vec2"], audio), model="w", clip="short.wav")


def test_distances_grow_when_attention_spreads(traces: dict[str, Trace]) -> None:
    trace = traces["audioformer"]
    tokens = trace.layout.num_tokens
    sharpness = [np.exp(-np.abs(np.arange(tokens)[:, None] - np.arange(tokens)) / width) for width in (1, 5, 50)]
    made = tuple((near / near.sum(-1, keepdims=True))[None].repeat(4, axis=0) for near in sharpness)
    view = view_of(Trace(**{**trace.__dict__, "attentions": made}), model="a", clip="c")
    assert all(near < far for near, far in pairwise(view.distances.mean(1)))
