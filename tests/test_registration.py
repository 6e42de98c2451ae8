"""Importing the package makes Transformers' Auto classes know AudioFormer."""

import importlib
from pathlib import Path

import pytest
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForAudioXVector,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSeq2SeqLM,
)

import hf_audioformer
from hf_audioformer import AudioFormerConfig, AudioFormerFeatureExtractor

AUTO_CLASSES = {
    AutoModel: "AudioFormerModel",
    AutoModelForAudioClassification: "AudioFormerForAudioClassification",
    AutoModelForAudioFrameClassification: "AudioFormerForAudioFrameClassification",
    AutoModelForAudioXVector: "AudioFormerForAudioXVector",
    AutoModelForCausalLM: "AudioFormerForCausalLM",
    AutoModelForMaskedLM: "AudioFormerForMaskedLM",
    AutoModelForPreTraining: "AudioFormerForPreTraining",
    AutoModelForSeq2SeqLM: "AudioFormerForConditionalGeneration",
}


@pytest.fixture
def config() -> AudioFormerConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return AudioFormerConfig(codebook_size=16, **sizes)


@pytest.mark.parametrize(("auto_class", "name"), AUTO_CLASSES.items())
def test_auto_classes_make_and_load_models(auto_class, name, config, tmp_path: Path):
    model = auto_class.from_config(config)
    assert type(model).__name__ == name
    model.save_pretrained(tmp_path)
    assert type(auto_class.from_pretrained(tmp_path)) is type(model)


def test_auto_config_knows_the_model_type(config, tmp_path: Path):
    config.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), AudioFormerConfig)
    assert isinstance(AutoConfig.for_model("audioformer"), AudioFormerConfig)


def test_auto_feature_extractor_knows_the_extractor(config, tmp_path: Path):
    AudioFormerFeatureExtractor().save_pretrained(tmp_path)
    assert isinstance(AutoFeatureExtractor.from_pretrained(tmp_path), AudioFormerFeatureExtractor)


def test_registering_twice_is_harmless(config):
    importlib.reload(hf_audioformer)
    assert type(AutoModel.from_config(config)).__name__ == "AudioFormerModel"


@pytest.mark.parametrize("name", hf_audioformer.__all__)
def test_public_names_exist(name):
    assert getattr(hf_audioformer, name).__name__ == name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'AudioTransformer'"):
        hf_audioformer.AudioTransformer  # noqa: B018
