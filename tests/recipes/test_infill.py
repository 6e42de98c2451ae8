"""`hf-audioformer infill`: the file is the filled clip, and mistakes are named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hf_audioformer import cli, load_audio
from hf_audioformer.audio.log_mel import log_mel_distance
from hf_audioformer.inference.listening import infill
from hf_audioformer.recipes.infill import load_masked_lm

from ..fixtures_recipes import SAMPLING_RATE, tone
from ..inference.tiny_classifiers import spectrogram_transformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.cli
def test_the_filled_clip_is_written(tiny_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, output = tmp_path / "clip.wav", tmp_path / "new" / "filled.wav"
    soundfile.write(clip, tone(["low"], seed=0, seconds=0.5), SAMPLING_RATE)
    asked = ["infill", str(clip), "--start", "0.3", "--end", "0.45", "--model", tiny_checkpoint, "--seed", "5"]
    assert cli.main([*asked, "--steps", "3", "--output", str(output), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    model, extractor = load_masked_lm(tiny_checkpoint, "cpu")
    waveform = torch.from_numpy(load_audio(clip, 24_000)["array"])
    found = infill(model, extractor, waveform, 0.3, 0.45, steps=3, seed=5)
    expected, gap = found.waveform, slice(22 * 320, 34 * 320)
    distance, silence, repeated = (
        log_mel_distance(sound, found.round_trip[gap], 24_000)
        for sound in (expected[gap], torch.zeros(12 * 320), found.round_trip[10 * 320 : 22 * 320])
    )
    assert "filled 0.29 to 0.45 s; log-mel distance to the codec's round trip" in shown
    assert (
        f"of what was there {distance:.2f} (silence {silence:.2f}; what came before, repeated {repeated:.2f})" in shown
    )
    np.testing.assert_allclose(load_audio(output)["array"], expected.clamp(-1, 1), atol=1e-4)

    assert cli.main([*asked, "--output", str(output)]) == 1
    assert "filled.wav exists. Replace it with --overwrite true" in capsys.readouterr().err
    asked[asked.index("0.45")] = "0.7"
    assert cli.main([*asked, "--output", str(tmp_path / "other.wav")]) == 1
    assert "the stretch from 0.3 to 0.7 s must lie within the clip, which has 0.50 s" in capsys.readouterr().err
    assert not (tmp_path / "other.wav").exists()


@pytest.mark.fault
def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only AudioFormer checkpoints can be used here"):
        load_masked_lm(spectrogram_transformer(tmp_path / "ast"), "cpu")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_masked_lm(str(tmp_path / "none"), "cpu")
