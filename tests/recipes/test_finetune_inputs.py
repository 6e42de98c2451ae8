"""Fine-tuning from continuous front ends: from the settings to a folder that works alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from hf_audioformer import AudioFormerSignalFeatureExtractor, load_audio, read_clips
from hf_audioformer.audio.augment import AudioAugmentation
from hf_audioformer.data.splits import SplitArguments, make_splits
from hf_audioformer.recipes import finetune
from hf_audioformer.recipes.finetune import DataArguments, FinetuneArguments, ModelArguments
from hf_audioformer.training.steps import StepArguments

pytestmark = pytest.mark.usefixtures("one_thread")

LOG_MEL = {"front_end": "log_mel", "num_mel_bins": 16, "random_weights": True}


@pytest.fixture
def arguments(tone_folder: Path, tiny_checkpoint: str, tmp_path: Path) -> FinetuneArguments:
    """Two epochs on the tones, from patches of log-mels; a fifth of them is tested."""
    return FinetuneArguments(
        data=DataArguments(source=str(tone_folder), mask_rate=0.1, crop_seconds=0.2),
        output_dir=str(tmp_path / "run"),
        split=SplitArguments(validation_fraction=0.2),
        augmentation=AudioAugmentation(copies=1),
        model=ModelArguments(checkpoint=tiny_checkpoint, patch_size=[8, 8], patch_stride=[6, 4], **LOG_MEL),
        training={"num_train_epochs": 2, "per_device_train_batch_size": 4, "disable_tqdm": True},
    )


@pytest.mark.unit
def test_log_mel_patches_become_a_checkpoint_that_works_alone(
    arguments: FinetuneArguments, tone_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (result,) = finetune.run(arguments)
    folder = Path(arguments.output_dir)
    assert sum(result.num_clips.values()) == 24
    assert not (folder / "codec").exists()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert (type(extractor), extractor.kind, len(extractor.mean)) == (AudioFormerSignalFeatureExtractor, "log_mel", 16)
    model = AutoModelForAudioClassification.from_pretrained(folder)
    assert (model.config.front_end, model.config.patch_stride, model.config.hidden_size) == ("patches", [6, 4], 32)
    guesses = pipeline("audio-classification", model=str(folder), device="cpu")(
        dict(load_audio(tone_folder / "low" / "0.wav"))
    )
    assert {guess["label"] for guess in guesses} == {"high", "low", "middle"}
    card = (folder / "README.md").read_text()
    assert "It reads log-mel features (16 per frame) of audio at 16000 Hz." in card
    assert "codec" not in card.partition("## Recipe")[0].replace("## Data, codec and licence", "")
    assert "statistics of " in capfd.readouterr().out

    training, _, test = (
        getattr(make_splits(read_clips(str(tone_folder)), arguments.split)[0], part)
        for part in ("train", "validation", "test")
    )
    clips = read_clips(str(tone_folder))
    frames = np.concatenate([_log_mel(clips.load(index)["array"]) for index in training])
    np.testing.assert_allclose(extractor.mean, frames.mean(0), rtol=1e-5)
    np.testing.assert_allclose(extractor.std, np.where(frames.std(0) < 1e-6, 1, frames.std(0)), rtol=1e-4)
    right = 0
    for index in test:
        features = extractor(clips.load(index)["array"], sampling_rate=16_000, return_tensors="pt")
        right += int(model(**features).logits.argmax()) == clips.targets([index])[0]
    assert right / len(test) == pytest.approx(result.score)


def _log_mel(waveform: np.ndarray) -> np.ndarray:
    from hf_audioformer.audio.fbank import kaldi_log_mel

    return kaldi_log_mel(torch.from_numpy(waveform), 16_000, 16).double().numpy()


@pytest.mark.unit
def test_steps_and_a_probe_and_going_on_from_the_folder(arguments: FinetuneArguments, tmp_path: Path) -> None:
    """A waveform in two steps, begun with logistic regression; the folder is then a checkpoint to start from."""
    model = replace(
        arguments.model,
        front_end="waveform",
        patch_size=None,
        patch_stride=None,
        probe_first=True,
        norm_position="pre",
    )
    quick = arguments.training | {"num_train_epochs": 1}
    first = replace(
        arguments,
        model=model,
        training=quick,
        data=replace(arguments.data, mask_rate=0.0),
        steps=[StepArguments(), StepArguments(learning_rate=1e-4)],
    )
    finetune.run(first)
    again = replace(
        first,
        model=ModelArguments(checkpoint=first.output_dir, sliding_window=2),
        output_dir=str(tmp_path / "again"),
        steps=[],
    )
    finetune.run(again)
    one, two = (Path(run.output_dir) / "preprocessor_config.json" for run in (first, again))
    assert json.loads(one.read_text())["kind"] == "waveform"
    assert json.loads(one.read_text()) == json.loads(two.read_text())
    config = json.loads((Path(again.output_dir) / "config.json").read_text())
    assert (config["front_end"], config["layer_types"]) == ("waveform", ["sliding_attention"])
    assert config["norm_position"] == "pre"
    other = ModelArguments(checkpoint=first.output_dir, front_end="waveform", conv_dim=[8])
    with pytest.raises(ValueError, match=r"model.conv_dim is \[8\], and model.checkpoint .* a front end of its own"):
        finetune.run(replace(again, model=other, output_dir=str(tmp_path / "other")))
    assert "It reads samples of audio at 16000 Hz." in (Path(again.output_dir) / "README.md").read_text()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("model", {"random_weights": False}, "model.front_end is log_mel, and model.checkpoint .* reads codes"),
        ("data", {"codebook_dropout": 0.1}, "data.codebook_dropout is 0.1, which is for codes"),
        ("mpc", {"companions": ["x"]}, r"mpc.companions is \['x'\], which is for codes"),
        ("data", {"mask_rate": 1.0}, "mask_rate is 1.0; it must be at least 0 and below 1"),
        ("data", {"crop_seconds": 0.01}, "max_length_seconds is 0.01; it must be at least one frame"),
        ("data", {"max_length_seconds": 0.01}, "max_length_seconds is 0.01; it must be at least one frame"),
        ("model", {"patch_size": [8, 17]}, r"the settings of model do not fit: patch_size is \[8, 17\] .* 16 features"),
        ("model", {"hidden_dropout": 1.0}, "the settings of model do not fit: hidden_dropout is 1.0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    arguments: FinetuneArguments, section: str, change: dict, message: str
) -> None:
    """Before `output_dir` is claimed, so that the command, put right, runs."""
    wrong = replace(arguments, **{section: replace(getattr(arguments, section), **change)})
    with pytest.raises(ValueError, match=message):
        finetune.run(wrong)
    assert not Path(arguments.output_dir).exists()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_mel_bins": 64}, "model.num_mel_bins is 64 and model.front_end None; say which front end that is for"),
        ({"patch_size": [4, 4], "front_end": "codes"}, r"model.patch_size is \[4, 4\] and model.front_end codes"),
        ({"patch_stride": [4, 4], "front_end": "mfcc"}, r"patch_stride is \[4, 4\] without model.patch_size"),
        ({"patch_size": [4, 4], "front_end": "waveform"}, "a waveform has no patches"),
    ],
)
def test_settings_that_nothing_would_read_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelArguments(random_weights=True, **settings)


@pytest.mark.unit
@pytest.mark.parametrize("setting", [{"norm_position": "pre"}, {"position_embedding_type": "learned"}])
def test_trained_weights_keep_their_norms_and_positions(setting: dict) -> None:
    with pytest.raises(ValueError, match="which trained weights do not fit"):
        ModelArguments(**setting)
