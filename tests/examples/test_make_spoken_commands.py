import importlib.util
import io
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from hf_audioformer.data.readers import read_clips

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "make_spoken_commands.py"
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_spoken_commands", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def few(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with one variant per split and three words: six clips each."""
    monkeypatch.setattr(script, "VARIANTS", {"train": ("f3",), "test": ("m3",)})
    monkeypatch.setattr(script, "WORDS", ("yes", "no", "up"))
    return script


@needs_espeak
@pytest.mark.unit
def test_the_same_seed_makes_the_same_clips(few: ModuleType) -> None:
    # The Ogg container holds a random serial number, so the bytes differ where the sound does not.
    def decoded(seed: int) -> list[np.ndarray]:
        clips = few.make_clips("train", seed)
        return [soundfile.read(io.BytesIO(clip["audio"]["bytes"]), dtype="float32")[0] for clip in clips]

    first, second, other = decoded(seed=7), decoded(seed=7), decoded(seed=8)
    assert len(first) == len(second) == 6
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@needs_espeak
@pytest.mark.cli
def test_it_writes_clips_that_the_package_reads(
    few: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_spoken_commands.py", "--output", str(tmp_path)])
    few.main()
    clips = read_clips(tmp_path / "commands.parquet")
    assert clips.column("split") == ["train"] * 6 + ["test"] * 6
    assert [clips.label_names[label] for label in clips.targets()] == ["yes", "no", "up"] * 4
    assert 0.6 <= len(clips.load(0)["array"]) / 16000 <= 1.0
    assert soundfile.info(tmp_path / "example_left.wav").samplerate == 16000


@needs_espeak
@pytest.mark.unit
def test_every_voice_sounds_different(script: ModuleType) -> None:
    """espeak-ng falls back to another voice without a word when it does not know an accent or a variant."""
    every_voice = [voice for split in script.VARIANTS for voice in script.voices(split)]
    sounds = {script.synthesise("left", voice, 150, 50).tobytes() for voice in every_voice}
    assert len(sounds) == len(every_voice) == 90


@pytest.mark.unit
def test_splits_share_no_variant(script: ModuleType) -> None:
    variants = [variant for split in script.VARIANTS.values() for variant in split]
    assert len(variants) == len(set(variants))


@pytest.mark.unit
def test_all_accents_are_trained_on(script: ModuleType) -> None:
    assert {voice.split("+")[0] for voice in script.voices("train")} == set(script.ACCENTS)


@pytest.mark.unit
def test_a_recording_keeps_to_its_limits(script: ModuleType) -> None:
    for seed in range(20):
        clip = script.record(np.sin(np.arange(6000) / 8), np.random.default_rng(seed))
        assert clip.dtype == np.float32
        assert 0.6 <= len(clip) / 16000 <= 1.0
        assert np.abs(clip).max() <= 0.95 + 1e-6


@pytest.mark.unit
def test_without_espeak_it_says_how_to_install_it(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="apt-get install espeak-ng"):
        script.synthesise("yes", "en-us+m1", 150, 50)
