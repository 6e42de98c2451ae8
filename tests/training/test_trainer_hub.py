"""`Trainer(push_to_hub=True)` and `model.push_to_hub`: all of a model in one private commit, none of the training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from hf_audioformer import (
    AudioFormerFeatureExtractor,
    AudioFormerForAudioClassification,
    AudioFormerForMaskedLM,
    AudioFormerModel,
)
from hf_audioformer.training.hub import check_hub_settings
from hf_audioformer.training.trainer import AudioTrainer

from ..fixtures_recipes import tiny_config
from ..hub_double import HubDouble

MODEL = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
CODEC = {"codec/config.json", "codec/model.safetensors"}

pytestmark = pytest.mark.usefixtures("one_thread")


def make_trainer(extractor: AudioFormerFeatureExtractor | None, folder: Path, **settings: Any) -> AudioTrainer:
    torch.manual_seed(0)
    codes = torch.randint(64, (8, 20, 2))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        save_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        push_to_hub=True,
        hub_model_id="tester/tones",
        **settings,
    )
    return AudioTrainer(
        model=AudioFormerForAudioClassification(tiny_config(num_labels=2)),
        args=arguments,
        train_dataset=[{"input_ids": clip, "labels": index % 2} for index, clip in enumerate(codes)],
        processing_class=extractor,
    )


@pytest.mark.unit
def test_the_trainer_pushes_once_at_the_end(
    tiny_extractor: AudioFormerFeatureExtractor, tmp_path: Path, hub_client: HubDouble
) -> None:
    trainer = make_trainer(tiny_extractor, tmp_path / "run")
    trainer.train()
    repository = hub_client.model("tester/tones")
    assert repository.private
    assert repository.titles == []
    trainer.push_to_hub()
    assert repository.titles == ["End of training"]
    assert set(repository.files) == MODEL | CODEC
    assert b"\npipeline_tag: audio-classification\n" in repository.files["README.md"]
    assert repository.files["model.safetensors"] == (tmp_path / "run" / "model.safetensors").read_bytes()
    trainer.push_to_hub()
    assert repository.titles == ["End of training"]


@pytest.mark.unit
def test_public_to_a_branch_by_the_arguments(
    tiny_extractor: AudioFormerFeatureExtractor, tmp_path: Path, hub_client: HubDouble
) -> None:
    make_trainer(tiny_extractor, tmp_path / "run", hub_private_repo=False, hub_revision="trial").push_to_hub("Trial")
    repository = hub_client.model("tester/tones")
    assert not repository.private
    assert repository.branches["trial"].title == "Trial"
    with pytest.raises(ValueError, match=r"tester/tones is public, and nothing is .*: set hub_private_repo to false"):
        make_trainer(tiny_extractor, tmp_path / "unasked")
    with pytest.raises(ValueError, match="push_to_hub needs the feature extractor"):
        make_trainer(None, tmp_path / "bare", hub_private_repo=False).push_to_hub()


@pytest.mark.unit
def test_a_model_takes_its_feature_extractor_and_codec_along(
    tiny_checkpoint: str, tiny_extractor: AudioFormerFeatureExtractor, hub_client: HubDouble
) -> None:
    AudioFormerForMaskedLM.from_pretrained(tiny_checkpoint).push_to_hub("tones")
    repository = hub_client.model("tester/tones")
    assert repository.private
    assert repository.titles == ["Upload model"]
    assert set(repository.files) == MODEL | CODEC
    assert repository.files["codec/model.safetensors"] == Path(tiny_checkpoint, "codec/model.safetensors").read_bytes()
    assert b"is not recorded" in repository.files["README.md"]

    model = AudioFormerForAudioClassification(tiny_config(num_labels=2))
    with pytest.raises(ValueError, match="give push_to_hub its feature_extractor"):
        model.push_to_hub("open")
    model.push_to_hub("open", feature_extractor=tiny_extractor, private=False, revision="trial", tags=["tones"])
    repository = hub_client.model("tester/open")
    assert not repository.private
    assert set(repository.branches["trial"].files) >= MODEL | CODEC
    card = repository.branches["trial"].files["README.md"].content
    assert b"pipeline_tag: audio-classification" in card
    assert b"- tones" in card
    again = {"commit_message": "Again", "revision": "trial"}
    with pytest.raises(ValueError, match="tester/open is public; push there with private=False"):
        AudioFormerModel.from_pretrained(tiny_checkpoint).push_to_hub("open", **again)
    assert repository.branches["trial"].title == "Upload model"
    AudioFormerModel.from_pretrained(tiny_checkpoint).push_to_hub("open", private=False, **again)
    assert repository.branches["trial"].title == "Again"
    assert repository.branches["trial"].files["README.md"].content == card


@pytest.mark.unit
def test_tokens_and_several_models_are_refused() -> None:
    check_hub_settings({"push_to_hub": True})
    check_hub_settings({}, models=5)
    with pytest.raises(ValueError, match=r"training\.hub_token would be written into the recipe"):
        check_hub_settings({"hub_token": "hf_secret"})
    with pytest.raises(ValueError, match="5 models are trained, which do not fit into one repository"):
        check_hub_settings({"push_to_hub": True}, models=5)
