"""Digits spoken by espeak-ng."""

import hashlib
import io
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from hf_audioformer.data import known_sets, read_clips
from hf_audioformer.data.spoken_digits import (
    DIGITS,
    ENGLISH,
    PEAK,
    SAMPLING_RATE,
    SPELLINGS,
    Synthesiser,
    spoken_digits,
)

from ..warm_processes import exit_codes, start

MANNER = {"words_per_minute": 160, "pitch": 50, "pitch_range": 50}


def print_digests() -> int:
    for row in spoken_digits(100):
        print(row["voice"], hashlib.sha256(row["audio"]["bytes"]).hexdigest())
    return 0


@pytest.fixture(scope="module")
def synthesiser() -> Synthesiser:
    return Synthesiser()


@pytest.mark.unit
@pytest.mark.parametrize("language", [*ENGLISH, *SPELLINGS])
def test_every_accent_speaks_every_digit(language: str, synthesiser: Synthesiser) -> None:
    words = SPELLINGS[language].split() if language in SPELLINGS else DIGITS
    spoken = [synthesiser.speak(word, f"{language}+m3", **MANNER) for word in words]
    assert len(spoken) == 10
    for waveform in spoken:
        assert waveform.dtype == np.float32
        assert 0.1 < len(waveform) / synthesiser.sampling_rate < 1.2
        assert 0.05 < np.abs(waveform).max() <= 1
        assert min(abs(waveform[0]), abs(waveform[-1])) > 0.01 * np.abs(waveform).max()  # no silence around it


@pytest.mark.unit
def test_voice_and_manner_are_heard(synthesiser: Synthesiser) -> None:
    plain = synthesiser.speak("seven", "en-us+m3", **MANNER)
    slow = synthesiser.speak("seven", "en-us+m3", **MANNER | {"words_per_minute": 110})
    assert len(slow) > 1.2 * len(plain)
    assert pitch_hz(synthesiser.speak("nine", "en-us+f4", **MANNER), synthesiser.sampling_rate) > 1.2 * pitch_hz(
        synthesiser.speak("nine", "en-us+m3", **MANNER), synthesiser.sampling_rate
    )


def pitch_hz(waveform: np.ndarray, sampling_rate: int) -> float:
    """By the highest peak of the autocorrelation from 60 to 400 Hz."""
    correlation = np.correlate(waveform, waveform, mode="full")[len(waveform) :]
    shortest = sampling_rate // 400
    return sampling_rate / (shortest + correlation[shortest : sampling_rate // 60].argmax() + 1)


@pytest.mark.unit
def test_variants_are_those_of_human_beings(synthesiser: Synthesiser) -> None:
    assert len(synthesiser.variants) > 70
    assert {"m3", "f4"} <= set(synthesiser.variants)
    assert not {"robosoft", "whisper", "f2"} & set(synthesiser.variants)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "voice", "message"),
    [
        ("one", "en-us+nobody", r"no voice 'en-us\+nobody'"),
        ("one", "nowhere+m3", r"no voice 'nowhere\+m3'"),
        (" ", "en-us+m3", "says nothing for ' '"),
    ],
)
def test_what_cannot_be_spoken_is_refused(text: str, voice: str, message: str, synthesiser: Synthesiser) -> None:
    with pytest.raises(ValueError, match=message):
        synthesiser.speak(text, voice, **MANNER)


@pytest.mark.unit
def test_without_the_synthesiser_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r"hf_audioformer\[speech\]"):
        next(spoken_digits(1))


@pytest.mark.unit
def test_clips_are_of_all_digits_in_turn_and_of_many_voices() -> None:
    rows = list(spoken_digits(60))
    assert [row["label"] for row in rows] == [number % 10 for number in range(60)]
    assert len({row["id"] for row in rows}) == 60
    assert len({row["voice"] for row in rows}) > 50
    languages = {row["voice"].partition("+")[0] for row in rows}
    assert languages & set(SPELLINGS)
    assert languages & set(ENGLISH)
    for row in rows:
        waveform, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        assert rate == SAMPLING_RATE
        assert 0.1 < len(waveform) / rate < 2
        assert np.abs(waveform).max() == pytest.approx(PEAK, abs=1e-3)


@pytest.mark.invariant
def test_every_process_makes_the_same_clips(tmp_path: Path) -> None:
    files = [tmp_path / "first", tmp_path / "second"]
    assert exit_codes([start(print_digests, output=file) for file in files]) == [0, 0]
    first, second = (file.read_text() for file in files)
    assert len(first.splitlines()) == 100
    assert first == second


@pytest.mark.invariant
def test_the_known_set_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(known_sets, "NUM_SPOKEN_DIGITS", 20)
    clips = read_clips("spoken_digits")
    assert len(clips) == 20
    assert clips.label_names == DIGITS
    assert "+" in clips.table["voice"][3]
    again = read_clips("spoken_digits")  # spoken again it would differ by some samples
    assert np.array_equal(clips.load(3)["array"], again.load(3)["array"])
    assert clips.load(3)["sampling_rate"] == SAMPLING_RATE
