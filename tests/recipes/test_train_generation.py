"""`hf-audioformer train-generation`: two steps, what is measured, the folder it leaves, and mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from hf_audioformer import AudioFormerFeatureExtractor, AudioFormerForMaskedLM, cli, load_audio
from hf_audioformer.audio.distortion import si_sdr_db
from hf_audioformer.audio.log_mel import log_mel_distance
from hf_audioformer.training.checkpoints import save_final
from hf_audioformer.training.hub import check_folder

from ..fixtures_recipes import tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.cli
def test_two_steps(tiny_checkpoint: str, tone_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "generator"
    command = [
        *("train-generation", "--data.source", str(tone_folder), "--output_dir", str(folder)),
        *("--tasks", '["denoise", "inpaint"]', "--noise.copies", "1", "--model.checkpoint", tiny_checkpoint),
        *("--model.decoder_layers", "1", "--training.max_steps", "2", "--training.per_device_train_batch_size", "4"),
        *("--training.use_cpu", "true", "--measure.clips", "1", "--measure.examples", "1"),
    ]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    measures = json.loads((folder / "measures.json").read_text())
    assert (measures["training_clips"], measures["validation_clips"]) == (22, 1)
    check_folder(folder)

    examples = {path.name.split(".", 1)[1]: load_audio(path)["array"] for path in (folder / "examples").iterdir()}
    sounds = {name: torch.from_numpy(array) for name, array in examples.items()}
    for kind in ("heard", "heard_codec", "generated", "codec"):
        pair = sounds[f"denoise.{kind}.wav"], sounds["denoise.clean.wav"]
        assert measures["tasks"]["denoise"]["si_sdr_db"][kind] == pytest.approx(si_sdr_db(*pair), abs=0.2)
        distance = measures["tasks"]["denoise"]["log_mel_distance"][kind]
        assert distance == pytest.approx(log_mel_distance(*pair, 24_000), abs=0.2)
        assert f"| denoise | {kind} | {distance:.2f} | " in shown
        assert f"| denoise | {kind} | {distance:.2f} | " in (folder / "README.md").read_text()
    assert 0 < measures["tasks"]["denoise"]["si_sdr_db"]["heard"] < 16
    assert measures["tasks"]["inpaint"]["si_sdr_db"]["heard"] is None
    silent = sounds["inpaint.heard.wav"] == 0
    assert 0.05 < silent.float().mean() < 0.6
    assert not torch.equal(sounds["inpaint.generated.wav"][silent], sounds["inpaint.codec.wav"][silent])

    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    before = AudioFormerForMaskedLM.from_pretrained(tiny_checkpoint).audioformer.layers[0].mlp.up.weight
    after = model.audioformer.layers[0].mlp.up.weight
    assert 0 < (after - before).abs().max() < 0.01
    assert model.generation_config.use_cache

    assert cli.main([*command, "--resume", "true"]) == 0
    assert "| denoise | codec |" in capsys.readouterr().out


@pytest.mark.cli
def test_two_steps_without_an_encoder(
    tiny_checkpoint: str, tone_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "generator"
    command = [
        *("train-generation", "--data.source", str(tone_folder), "--output_dir", str(folder)),
        *("--model.causal", "true", "--tasks", '["continue"]', "--model.checkpoint", tiny_checkpoint),
        *("--training.max_steps", "2", "--training.per_device_train_batch_size", "4", "--training.use_cpu", "true"),
        *("--measure.clips", "1", "--measure.examples", "1"),
    ]
    assert cli.main(command) == 0
    assert "| continue | generated |" in capsys.readouterr().out
    check_folder(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = AudioFormerForMaskedLM.from_pretrained(tiny_checkpoint).audioformer.layers[0].mlp.up.weight
    assert 0 < (model.audioformer.layers[0].mlp.up.weight - before).abs().max() < 0.01

    (clip,) = (folder / "examples").glob("*.continue.clean.wav")
    heard = load_audio(clip)["array"]
    card = (folder / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace("PATH_OR_ID_OF_THIS_CHECKPOINT", str(folder)).replace("clip.wav", str(clip)), names)
    hop_length = AudioFormerFeatureExtractor.from_pretrained(folder).hop_length
    assert len(names["waveform"]) == (-(-len(heard) // hop_length) + 75) * hop_length

    generate = ["generate", str(folder), str(clip), "--output_dir", str(tmp_path / "longer"), "--device", "cpu"]
    assert cli.main([*generate, "--task", "continue", "--seconds", "0.2"]) == 0
    assert len(load_audio(tmp_path / "longer" / clip.name)["array"]) > len(heard) + 0.2 * 24_000 - 1
    assert cli.main([*generate, "--task", "denoise", "--overwrite", "true"]) == 1
    assert "which has no encoder, task denoise" in capsys.readouterr().err


@pytest.mark.fault
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["--tasks", "[]"], "tasks is []; give one or more of denoise, continue, inpaint"),
        (
            ["--model.causal", "true"],
            "model.causal is set and tasks ['denoise']; without an encoder it can be [\"continue\"]",
        ),
        (
            ["--model.causal", "true", "--tasks", '["continue"]', "--measure.guidance_scale", "2"],
            "measure.guidance_scale 2.0; without an encoder there is nothing to be guided by",
        ),
        (["--noise.copies", "0"], "noise.copies is 0; it must be at least 1"),
        (["--measure.clips", "0"], "measure.clips is 0; it must be at least 1"),
        (["--data.crop_seconds", "-5"], "data.crop_seconds is -5.0; it must be above 0, or null"),
        (["--model.decoder_layers", "0"], "the settings of model do not fit: decoder_layers is 0"),
        (["--data.validation_fraction", "1.0"], "24 clips, all of which are held out"),
        (["--training.save_total_limit", "1"], "training.save_total_limit is 1; it must be at least 2"),
    ],
)
def test_mistakes_are_named(
    setting: list[str],
    message: str,
    tiny_checkpoint: str,
    tone_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["train-generation", "--data.source", str(tone_folder), "--output_dir", str(tmp_path / "generator")]
    assert cli.main([*command, "--model.checkpoint", tiny_checkpoint, "--training.use_cpu", "true", *setting]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "generator").exists()


@pytest.mark.fault
def test_a_checkpoint_of_a_later_codebook_is_refused(
    tiny_extractor: AudioFormerFeatureExtractor,
    tone_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny_config(num_codebooks=1, fusion="first", codebook_index=1)
    save_final(AudioFormerForMaskedLM(config), tiny_extractor, tmp_path / "second")
    command = ["train-generation", "--data.source", str(tone_folder), "--output_dir", str(tmp_path / "generator")]
    assert cli.main([*command, "--model.checkpoint", str(tmp_path / "second"), "--training.use_cpu", "true"]) == 1
    assert "model.checkpoint reads codebook 2 alone of 2, which makes no sound" in capsys.readouterr().err
    assert not (tmp_path / "generator").exists()
