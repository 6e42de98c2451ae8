"""AudioFormer models and configuration under Transformers' own common tests."""

import unittest
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from transformers.models.auto import modeling_auto

from hf_audioformer import (
    AudioFormerConfig,
    AudioFormerForAudioClassification,
    AudioFormerForAudioFrameClassification,
    AudioFormerForAudioXVector,
    AudioFormerForCausalLM,
    AudioFormerForConditionalGeneration,
    AudioFormerForMaskedLM,
    AudioFormerForPreTraining,
    AudioFormerModel,
)

from .tiny_models import FRONT_ENDS, MODEL_CLASSES, VARIANTS, random_codes, tiny_config

NOT_FETCHED = "Transformers' common tests are not fetched; run make transformers-tests"
configuration_common = pytest.importorskip("transformers_tests.test_configuration_common", reason=NOT_FETCHED)
modeling_common = pytest.importorskip("transformers_tests.test_modeling_common", reason=NOT_FETCHED)

pytestmark = pytest.mark.reference

# The suites decide by these tables, which hold the models inside Transformers, what a class can be asked; a table of
# another modality makes the test of problem types run.
NATIVE_NAMES = {
    "MODEL_MAPPING_NAMES": "AudioFormerModel",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES": ("AudioFormerForMaskedLM", "AudioFormerForPreTraining"),
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "AudioFormerForCausalLM",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": "AudioFormerForConditionalGeneration",
    "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES": "AudioFormerForAudioClassification",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": "AudioFormerForAudioClassification",
}


@pytest.fixture(autouse=True)
def _native() -> Iterator[None]:
    """Has AudioFormer treated as a model inside Transformers."""
    patches = [mock.patch.dict(getattr(modeling_auto, table), audioformer=name) for table, name in NATIVE_NAMES.items()]
    for patch in patches:
        patch.start()
    yield
    for patch in patches:
        patch.stop()


class AudioFormerModelTester:
    """What the common suites ask of a model's tester."""

    batch_size, seq_length = 3, 7
    is_training = True

    def __init__(self, variant: str):
        self.variant = variant
        config = self.get_config()
        self.hidden_size, self.num_hidden_layers = config.hidden_size, config.num_hidden_layers
        self.num_attention_heads = config.num_attention_heads

    def get_config(self) -> AudioFormerConfig:
        return tiny_config(**VARIANTS[self.variant])

    def prepare_config_and_inputs_for_common(self) -> tuple[AudioFormerConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        mask = modeling_common.random_attention_mask((self.batch_size, self.seq_length))
        return config, {"input_ids": random_codes(config, self.batch_size, self.seq_length), "attention_mask": mask}


class AudioFormerModelTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = MODEL_CLASSES
    variant = "c1_post"

    def setUp(self):
        self.model_tester = AudioFormerModelTester(self.variant)

    def test_config(self):
        sizes = {"hidden_size": 64, "num_attention_heads": 4}
        configuration_common.ConfigTester(self, config_class=AudioFormerConfig, **sizes).run_common_tests()


class AudioFormerSeveralCodebooksTest(AudioFormerModelTest):
    """Four summed codebooks, whose table holds the rows of each codebook one after the other."""

    variant = "c4_pre"

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class in (AudioFormerForMaskedLM, AudioFormerForPreTraining):
            inputs["labels"] = inputs["input_ids"]
        return inputs

    def assert_cannot_resize(self):
        for model_class in self.all_model_classes:
            with pytest.raises(ValueError, match="4 codebooks"):
                model_class(self.model_tester.get_config()).resize_token_embeddings(200)

    test_resize_tokens_embeddings = assert_cannot_resize
    test_resize_embeddings_untied = assert_cannot_resize
    test_resize_embeddings_untied_no_reinit_on_post_init = assert_cannot_resize

    def test_inputs_embeds_matches_input_ids(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = AudioFormerModel(config).eval()
        embeds, _ = model.embeddings.embed(inputs["input_ids"])
        expected = model(**inputs).last_hidden_state
        found = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).last_hidden_state
        torch.testing.assert_close(found, expected)

    test_inputs_embeds = test_inputs_embeds_matches_input_ids


class AudioFormerPatchesTester(AudioFormerModelTester):
    """Nine frames, of which overlapping patches make three moments of three positions each."""

    seq_length = 9

    def get_config(self) -> AudioFormerConfig:
        return tiny_config(**FRONT_ENDS["patches"], position_embedding_type="learned")

    def prepare_config_and_inputs_for_common(self) -> tuple[AudioFormerConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        shape = (self.batch_size, self.seq_length)
        mask = modeling_common.random_attention_mask(shape)
        return config, {"input_values": torch.randn(*shape, config.num_features), "attention_mask": mask}


class AudioFormerPatchesTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    """A continuous front end with learned positions, and every head that is not for codes alone."""

    all_model_classes = (
        AudioFormerModel,
        AudioFormerForAudioClassification,
        AudioFormerForAudioFrameClassification,
        AudioFormerForAudioXVector,
    )
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = AudioFormerPatchesTester("patches")

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        shapes = {AudioFormerForAudioFrameClassification: (3, 3), AudioFormerForAudioXVector: (3,)}
        if return_labels and model_class in shapes:
            inputs["labels"] = torch.zeros(shapes[model_class], dtype=torch.long)
        return inputs

    # As for Transformers' own audio models: these ask for input_ids and for a table of tokens.
    test_inputs_embeds = None
    test_inputs_embeds_matches_input_ids = None
    test_model_get_set_embeddings = None


class AudioFormerGenerationTester(AudioFormerModelTester):
    """An encoder and a decoder of the same number of layers, one codebook."""

    is_encoder_decoder = True

    def get_config(self) -> AudioFormerConfig:
        return tiny_config(**VARIANTS[self.variant], decoder_layers=2)

    def prepare_config_and_inputs_for_common(self) -> tuple[AudioFormerConfig, dict[str, torch.Tensor]]:
        config, inputs = super().prepare_config_and_inputs_for_common()
        config.is_encoder_decoder = True
        return config, inputs | {"decoder_input_ids": random_codes(config, self.batch_size, self.seq_length, seed=1)}


class AudioFormerGenerationTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    """The encoder-decoder."""

    all_model_classes = (AudioFormerForConditionalGeneration,)
    # The generation suite is in no release of Transformers; test_generation_common.py stands for it.
    all_generative_model_classes = ()
    is_encoder_decoder = True

    def setUp(self):
        self.model_tester = AudioFormerGenerationTester("c1_post")


class AudioFormerCausalTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    """The decoder alone."""

    all_model_classes = (AudioFormerForCausalLM,)
    all_generative_model_classes = ()  # as above

    def setUp(self):
        self.model_tester = AudioFormerModelTester("c1_post")
