"""The causal language model of codes: what clips go on with, alone, batched, padded, with and without cache."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from hf_audioformer import AudioFormerForCausalLM, AudioFormerForMaskedLM
from hf_audioformer.models.audioformer.generation_audioformer import delay, undelay

from .tiny_models import (
    FRONT_ENDS,
    GENERATORS,
    VARIANTS,
    padded,
    random_codes,
    tiny_config,
    tiny_generator,
    tiny_model,
)

LENGTHS = torch.tensor([7, 5])
BEGUN = (4, 2)  # frames that the clips begin with
WAYS: dict[str, dict[str, Any]] = {"greedy": {}, "beams": {"num_beams": 3}}


def causal(**settings: Any) -> AudioFormerForCausalLM:
    return tiny_generator(AudioFormerForCausalLM, **settings)


@pytest.fixture(scope="module", params=GENERATORS)
def model(request: pytest.FixtureRequest) -> AudioFormerForCausalLM:
    return causal(**GENERATORS[request.param])


@pytest.fixture(scope="module")
def four() -> AudioFormerForCausalLM:
    return causal(**VARIANTS["c4_pre"])


def beginnings(model: AudioFormerForCausalLM) -> list[Tensor]:
    return [random_codes(model.config, 1, frames, seed=frames)[0] for frames in BEGUN]


def known_codes(model: AudioFormerForCausalLM) -> Tensor:
    codes = padded(beginnings(model), -100)["input_ids"]
    return codes.view(*codes.shape[:2], -1)


@torch.no_grad()
def slow_logits(model: AudioFormerForCausalLM, columns: list[list[int]]) -> Tensor:
    """Logits (num_codebooks, vocab_size) after the columns so far, by a pass over all of them."""
    config = model.config
    started = torch.tensor([[config.boa_token_id] * config.num_codebooks, *columns])[None]
    logits = model(started[..., 0] if config.num_codebooks == 1 else started).logits
    return logits[0, -1].view(config.num_codebooks, -1)


def slow_greedy(model: AudioFormerForCausalLM, begun: Tensor, frames: int) -> Tensor:
    """The likeliest codes (frames, num_codebooks) after those begun with, column by column, codebook by codebook."""
    config, columns = model.config, []
    begun = begun.view(len(begun), config.num_codebooks)
    for column in range(frames + config.num_codebooks - 1):
        scores = slow_logits(model, columns)[:, : config.codebook_size]
        found = []
        for codebook in range(config.num_codebooks):
            frame = column - codebook
            if not 0 <= frame < frames:
                found.append(config.boa_token_id if frame < 0 else config.pad_token_id)
            else:
                found.append(int(begun[frame, codebook] if frame < len(begun) else scores[codebook].argmax()))
        columns.append(found)
    return torch.tensor([[columns[frame + k][k] for k in range(config.num_codebooks)] for frame in range(frames)])


@pytest.mark.reference
def test_greedy_codes_are_those_of_a_slow_loop(model: AudioFormerForCausalLM) -> None:
    found = model.generate_codes(LENGTHS, known_codes(model))
    for codes, begun, length in zip(found, beginnings(model), LENGTHS, strict=True):
        assert codes[:length].tolist() == slow_greedy(model, begun, int(length)).tolist()
    assert len(set(found[0, BEGUN[0] :].flatten().tolist())) > 1, "codes that are all equal would hide mistakes"
    alone = model.generate_codes(LENGTHS[:1])
    assert alone[0].tolist() == slow_greedy(model, torch.empty(0, model.config.num_codebooks), 7).tolist()


@pytest.mark.invariant
@pytest.mark.parametrize("way", WAYS)
def test_cache_and_other_clips_change_nothing(model: AudioFormerForCausalLM, way: str) -> None:
    known = known_codes(model)
    found = model.generate_codes(LENGTHS, known, **WAYS[way])
    assert found.tolist() == model.generate_codes(LENGTHS, known, **WAYS[way], use_cache=False).tolist()
    for row, (length, begun) in enumerate(zip(LENGTHS, BEGUN, strict=True)):
        alone = model.generate_codes(length[None], known[row : row + 1, :begun], **WAYS[way])
        assert found[row, :length].tolist() == alone[0].tolist()
        assert (found[row, length:] == model.config.pad_token_id).all()
    if way != "greedy":
        assert found.tolist() != model.generate_codes(LENGTHS, known).tolist()


@pytest.mark.invariant
@pytest.mark.parametrize("way", WAYS)
def test_generate_goes_on_from_codes_padded_on_either_side(model: AudioFormerForCausalLM, way: str) -> None:
    num_codebooks, clips = model.config.num_codebooks, beginnings(model)
    columns = 8
    settings = WAYS[way] | {"eos_token_id": None}
    batches = [padded(clips, model.config.pad_token_id, side, extra=1) for side in ("right", "left")]
    right, left = (
        model.generate(**batch, max_new_tokens=(columns - min(BEGUN)) * num_codebooks, **settings) for batch in batches
    )
    assert left.tolist() == right.tolist()
    without_mask = model.generate(batches[1]["input_ids"], max_length=right.shape[1], **settings)
    assert without_mask.tolist() == right.tolist()
    for tokens, clip in zip(right, clips, strict=True):
        alone = model.generate(clip[None], max_length=right.shape[1], **settings)
        assert tokens.tolist() == alone[0].tolist()
        codes = undelay(tokens[1:].view(1, -1, num_codebooks), model.config)[0]
        assert codes[: len(clip)].tolist() == clip.view(len(clip), -1).tolist()
        assert len(codes) > len(clip)


@pytest.mark.unit
def test_generate_goes_on_from_its_own_tokens(model: AudioFormerForCausalLM) -> None:
    whole = model.generate(max_new_tokens=12, eos_token_id=None)
    assert whole.shape == (1, 13)
    assert whole[0, 0] == model.config.boa_token_id
    assert model.generate(whole[:, :6], max_new_tokens=7, eos_token_id=None).tolist() == whole.tolist()


@pytest.mark.fault
def test_clips_that_have_all_ended_are_refused() -> None:
    model = causal(num_codebooks=1)
    ended = F.pad(random_codes(model.config, 2, 4), (1, 0), value=model.config.boa_token_id)
    ended = F.pad(ended, (0, 1), value=model.config.eoa_token_id)  # as the extractor gives them
    with pytest.raises(ValueError, match=f"input_ids has {model.config.eoa_token_id}; what clips begin with are codes"):
        model.generate(ended, max_new_tokens=4)


@pytest.mark.invariant
def test_clips_that_have_ended_change_no_others(model: AudioFormerForCausalLM) -> None:
    num_codebooks = model.config.num_codebooks
    codes = random_codes(model.config, 2, 9).view(2, 9, num_codebooks)
    columns = delay(codes, torch.tensor([9, 1]), model.config)[:, :8]
    tokens = F.pad(columns.flatten(1), (1, 0), value=model.config.boa_token_id)
    assert (tokens[1, -1] == model.config.pad_token_id).all()
    found = model.generate(tokens, max_new_tokens=3 * num_codebooks)
    alone = model.generate(tokens[:1], max_new_tokens=3 * num_codebooks)
    assert found[0, : alone.shape[1]].tolist() == alone[0].tolist()


@pytest.mark.invariant
def test_samples_are_the_same_without_cache_and_differ_by_seed(four: AudioFormerForCausalLM) -> None:
    def drawn(seed: int, **settings: Any) -> list:
        torch.manual_seed(seed)
        return four.generate_codes(LENGTHS, known_codes(four), do_sample=True, **settings).tolist()

    assert drawn(1) == drawn(1, use_cache=False) != drawn(2)
    three = torch.tensor(drawn(1, num_return_sequences=3))
    assert three.shape == (6, 7, 4)
    for row, codes in enumerate(three):
        assert codes[: BEGUN[row // 3]].tolist() == beginnings(four)[row // 3].tolist()
    assert (three[0] != three[1]).any()


@pytest.mark.property
def test_columns_see_what_is_before_them_alone(model: AudioFormerForCausalLM) -> None:
    columns = random_codes(model.config, 1, 6)
    changed = columns.clone()
    changed[:, 3:] = random_codes(model.config, 1, 3, seed=9)
    first, second = model(columns).logits, model(changed).logits
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3:], second[:, 3:], atol=1e-3)


@pytest.mark.reference
def test_the_loss_counts_codes_and_the_end_of_the_first_codebook(model: AudioFormerForCausalLM) -> None:
    clips, config = [random_codes(model.config, 1, frames, seed=50 + frames)[0] for frames in (6, 2)], model.config
    losses = []
    for codes in clips:
        columns = delay(codes.view(1, len(codes), -1), torch.tensor([len(codes)]), config)[0].tolist()
        for column in range(len(codes) + config.num_codebooks):
            logits = slow_logits(model, columns[:column])
            for codebook in range(config.num_codebooks):
                frame = column - codebook
                if 0 <= frame < len(codes) or (codebook == 0 and frame == len(codes)):
                    losses.append(F.cross_entropy(logits[codebook], torch.tensor(columns[column][codebook])))
    labels = padded(clips, -100)["input_ids"]
    torch.testing.assert_close(model(labels=labels).loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)
    total = model(labels=labels, num_items_in_batch=10).loss
    torch.testing.assert_close(total, torch.stack(losses).sum() / 10, rtol=1e-4, atol=1e-4)


@pytest.mark.reference
def test_labels_beside_columns_are_the_same_columns(model: AudioFormerForCausalLM) -> None:
    columns = random_codes(model.config, 2, 6)
    labels = columns.clone()
    labels[1, 4:] = -100
    outputs = model(columns, labels=labels)
    expected = F.cross_entropy(outputs.logits[:, :-1].flatten(0, -2), labels[:, 1:].flatten())
    torch.testing.assert_close(outputs.loss, expected)
    torch.testing.assert_close(model(columns, shift_labels=labels).loss, F.cross_entropy(
        outputs.logits.flatten(0, -2), labels.flatten()
    ))  # fmt: skip
    assert outputs.past_key_values is None


@pytest.mark.unit
def test_the_trainer_needs_labels_alone(tmp_path: Path) -> None:
    model = causal(**VARIANTS["c4_pre"], tie_word_embeddings=True)
    clip = random_codes(model.config, 1, 6)[0]
    settings = TrainingArguments(
        tmp_path, max_steps=40, per_device_train_batch_size=4, learning_rate=0.02, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, settings, train_dataset=[{"labels": clip}] * 8, eval_dataset=[{"labels": clip}] * 2)
    count = trainer._get_num_items_in_batch([{"labels": torch.stack([clip] * 4)}], "cpu")
    assert int(count) == 4 * clip.numel()  # so that its loss is a mean over all codes, but for the ends of the clips
    trainer.train()
    with_end = (clip.numel() + 1) / clip.numel()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(with_end * model(labels=clip[None]).loss.item(), rel=1e-3)
    assert model.generate_codes(torch.tensor([6]), clip[None, :2])[0].tolist() == clip.tolist()


@pytest.mark.property
def test_saved_and_loaded_models_generate_the_same(tmp_path: Path) -> None:
    model = causal(**VARIANTS["c4_pre"], tie_word_embeddings=True)
    assert model.lm_head.weight is model.audioformer.embeddings.code_embeddings.weight
    model.save_pretrained(tmp_path)
    loaded = AudioFormerForCausalLM.from_pretrained(tmp_path)
    assert (loaded.generation_config.bos_token_id, loaded.generation_config.eos_token_id) == (99, 100)
    known = known_codes(model)
    assert loaded.generate_codes(LENGTHS, known).tolist() == model.generate_codes(LENGTHS, known).tolist()


@pytest.mark.property
def test_a_pretrained_encoder_is_kept(tmp_path: Path) -> None:
    pretrained = tiny_model(AudioFormerForMaskedLM, **VARIANTS["c4_pre"], sliding_window=2)
    pretrained.save_pretrained(tmp_path)
    model, info = AudioFormerForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    for name, weight in pretrained.audioformer.state_dict().items():
        torch.testing.assert_close(model.audioformer.state_dict()[name], weight)
    assert (model.config.sliding_window, model.config.layer_types, model.config.is_encoder_decoder) == (
        None,
        None,
        False,
    )


@pytest.mark.property
def test_learned_positions_are_resized() -> None:
    model = causal(**GENERATORS["c3_learned"], max_source_positions=7)
    with pytest.raises(ValueError, match=r"learned positions of 7 .* call model.resize_position_embeddings"):
        model.generate_codes(LENGTHS)
    columns = torch.zeros(1, 7, 3, dtype=torch.long)
    cache = model(columns, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="a clip has 8 moments, and this model learned positions of 7"):
        model(columns[:, :1], torch.ones(1, 8), past_key_values=cache)
    model.resize_position_embeddings(10)
    assert model.generate_codes(LENGTHS).shape == (2, 7, 3)


@pytest.mark.fault
def test_what_does_not_fit_is_refused(four: AudioFormerForCausalLM) -> None:
    codes = beginnings(four)[0][None]
    with pytest.raises(ValueError, match='front_end is "patches"; a causal language model reads the codes'):
        AudioFormerForCausalLM(tiny_config(**FRONT_ENDS["patches"]))
    with pytest.raises(ValueError, match="Give exactly one of input_ids and inputs_embeds; found neither"):
        four()
    with pytest.raises(ValueError, match="Give exactly one of input_ids and inputs_embeds; found both"):
        four(codes, inputs_embeds=torch.zeros(1, 4, 32))
    with pytest.raises(ValueError, match=r"labels has shape \(1, 4\); this model generates codes \(batch, frames, 4\)"):
        four(labels=codes[..., 0])
    with pytest.raises(ValueError, match=r"input_ids has shape \(1, 4\); this model generates codes"):
        four.generate(codes[..., 0], max_new_tokens=4)
    with pytest.raises(ValueError, match="input_ids has 100; what clips begin with are codes below 99"):
        four.generate(torch.full_like(codes, 100), max_new_tokens=4)
    with pytest.raises(ValueError, match="input_ids is made from known; give the codes that clips begin with there"):
        four.generate_codes(LENGTHS[:1], input_ids=codes)
    with pytest.raises(ValueError, match=r"guidance_scale is 2.0; a model that hears no other clip"):
        four.generate(codes, max_new_tokens=4, guidance_scale=2.0)
    with pytest.raises(ValueError, match="min_new_tokens is 3; with several codebooks it is the first"):
        four.generate(codes, max_new_tokens=4, min_new_tokens=3)
    with pytest.raises(ValueError, match="max_new_tokens is 3; codes of the lengths are returned"):
        four.generate_codes(LENGTHS[:1], max_new_tokens=3)
