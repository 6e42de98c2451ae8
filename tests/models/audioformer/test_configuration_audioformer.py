"""The configuration: what is derived, what is refused, and that it survives JSON."""

from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError

from hf_audioformer import AudioFormerConfig

from .tiny_models import FRONT_ENDS, VARIANTS, tiny_config


def test_default_is_the_base_size():
    config = AudioFormerConfig()
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (12, 768, 12)
    assert (config.num_codebooks, config.fusion, config.pooling, config.norm_position) == (1, "first", "mean", "post")


@pytest.mark.parametrize("codebook_size", [1, 99, 2048])
def test_special_tokens_follow_the_codes(codebook_size):
    config = AudioFormerConfig(codebook_size=codebook_size)
    ids = (config.boa_token_id, config.eoa_token_id, config.mask_token_id, config.pad_token_id)
    assert ids == tuple(range(codebook_size, codebook_size + 4))
    assert config.vocab_size == codebook_size + 4


def test_stated_tokens_are_kept():
    config = AudioFormerConfig(codebook_size=10, vocab_size=20, pad_token_id=19, mask_token_id=15)
    assert (config.vocab_size, config.pad_token_id, config.mask_token_id, config.boa_token_id) == (20, 19, 15, 10)


def test_derived_settings():
    config = tiny_config(hidden_dropout=0.3)
    assert config.classifier_dropout == 0.3
    assert tiny_config(hidden_dropout=0.3, classifier_dropout=0).classifier_dropout == 0
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}


def test_derived_front_ends():
    waveform = tiny_config(front_end="waveform")
    assert (waveform.num_features, waveform.input_stride, waveform.main_input_name) == (1, 320, "input_values")
    patches = tiny_config(front_end="patches", patch_size=(8, 16))
    assert (patches.num_features, patches.patch_stride, patches.input_stride) == (128, [8, 16], 8)
    assert (tiny_config().input_stride, tiny_config().main_input_name) == (1, "input_ids")
    assert tiny_config(sliding_window=9).layer_types == ["sliding_attention"] * 2
    assert tiny_config(position_embedding_type="learned").max_source_positions == 1024


@pytest.mark.parametrize("variant", [*VARIANTS, *FRONT_ENDS])
def test_survives_json(variant, tmp_path: Path):
    settings = VARIANTS.get(variant) or FRONT_ENDS.get(variant, {})
    config = tiny_config(**settings, class_weights=[0.5, 1.0, 2.0], id2label={0: "dog", 1: "sea", 2: "rain"})
    config.save_pretrained(tmp_path)
    loaded = AudioFormerConfig.from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.id2label == {0: "dog", 1: "sea", 2: "rain"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebook_size": 0}, "codebook_size is 0; it must be at least 1"),
        ({"num_codebooks": 0}, "num_codebooks is 0; it must be at least 1"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; it must be at least 1"),
        ({"intermediate_size": -1}, "intermediate_size is -1; it must be at least 1"),
        ({"hidden_dropout": 1.0}, r"hidden_dropout is 1.0; it must be at least 0 and below 1"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"classifier_dropout": 1.5}, "classifier_dropout is 1.5"),
        ({"label_smoothing": 1}, "label_smoothing is 1; it must be at least 0 and below 1"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size is 30 with 4 attention heads; .* multiple of 8"),
        ({"hidden_size": 12, "num_attention_heads": 4}, "multiple of 8, because rotary positions turn pairs"),
        ({"num_codebooks": 4}, 'num_codebooks is 4 with fusion="first", which reads one codebook; set fusion="sum"'),
        ({"codebook_index": -1}, "codebook_index is -1 .* must be at least 0"),
        ({"num_codebooks": 4, "fusion": "sum", "codebook_index": 1}, 'index is 1 with fusion="sum"; .* and 0 with'),
        ({"fusion": "concat"}, "fusion"),
        ({"norm_position": "middle"}, "norm_position"),
        ({"pooling": "median"}, "pooling"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"pad_token_id": 5}, "special tokens .*'pad': 5.* at least 99 .* below 103"),
        ({"pad_token_id": 99}, "different ids"),
        ({"vocab_size": 100}, "below 100"),
        ({"problem_type": "multilabel"}, 'problem_type is "multilabel"; allowed: regression, single_label'),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 values for 3 labels"),
        ({"target_mean": [1.0] * 2, "target_scale": [1.0] * 3}, "target_mean has 2 values for 3 labels"),
        ({"target_mean": [1.0] * 3}, r"target_mean is \[1.0, 1.0, 1.0\] and target_scale None; give both"),
        ({"target_mean": [1.0] * 3, "target_scale": [1.0, 0.0, 1.0]}, "give both, scales above 0"),
        ({"front_end": "cqt"}, "front_end"),
        ({"front_end": "frames", "num_features": 0}, 'num_features is 0 with front_end="frames"; .* at least 1'),
        ({"front_end": "waveform", "num_features": 2}, "num_features is 2 .* and 1 for a waveform"),
        (
            {"front_end": "frames", "conv_dim": [8]},
            r"conv_dim, conv_kernel and conv_stride are .*, None and None; give",
        ),
        (
            {"front_end": "frames", "conv_dim": [8], "conv_kernel": [3], "conv_stride": [0]},
            r"are \[8\], \[3\] and \[0\]; give all three",
        ),
        ({"conv_dim": [8], "conv_kernel": [3], "conv_stride": [1]}, 'front_end="codes"; only "frames" and "waveform"'),
        ({"front_end": "patches", "patch_size": [16]}, r"patch_size is \[16\]"),
        ({"front_end": "patches", "num_features": 8}, r"patch_size is \[16, 16\] .* at most 8 features"),
        ({"position_embedding_type": "learned", "max_source_positions": 0}, "max_source_positions is 0"),
        ({"layer_types": ["sliding_attention"] * 2}, "set sliding_window"),
        ({"layer_types": ["linear_attention"] * 2}, "'linear_attention'; allowed: full_attention, sliding_attention"),
        ({"layer_types": ["full_attention"]}, "num_hidden_layers"),
        ({"sliding_window": 0}, "sliding_window is 0; it must be at least 1"),
        ({"position_embedding_type": "learned", "hidden_size": 33}, "must be even and a multiple of the heads"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0}}, 'is "yarn"; only "default" is allowed'),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        tiny_config(**settings)
