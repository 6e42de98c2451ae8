"""What the demo shows is what the model says: labels, scores along time, codes and the round trip, of every kind."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hf_audioformer import AudioFormerFeatureExtractor, load_audio
from hf_audioformer.demo import Listener
from hf_audioformer.inference import AudioClassifier
from hf_audioformer.models.audioformer.waveform_audioformer import resample

from ..fixtures_recipes import SAMPLING_RATE, tone
from ..inference.tiny_classifiers import audioformer, spectrogram_transformer, waveform_transformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """0.8 s of two tones."""
    file = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(file, tone(["low", "high"], seed=0, seconds=0.8), SAMPLING_RATE)
    return str(file)


@pytest.fixture(scope="module")
def model(tiny_extractor: AudioFormerFeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> str:
    return audioformer(tmp_path_factory.mktemp("model"), tiny_extractor)


@pytest.mark.unit
def test_audioformer_gives_labels_tracks_attention_codes_and_sound(
    model: str, clip: str, tiny_extractor: AudioFormerFeatureExtractor
) -> None:
    told: list[float] = []
    found = Listener(model, top=3)(clip, lambda share, doing: told.append(share))
    assert told == sorted(told)
    best = AudioClassifier.from_pretrained(model, device="cpu")(clip).top(3)
    assert list(found.scores) == [guess["label"] for guess in best]
    assert list(found.scores.values()) == pytest.approx([guess["score"] for guess in best], abs=1e-5)

    heard = AudioClassifier.from_pretrained(model, device="cpu", window_seconds=0.4, hop_seconds=0.1)(clip)
    lines = found.along.axes[2].patches
    assert [line.get_label() for line in lines] == list(found.scores)
    for line in lines:
        values, edges, _ = line.get_data()
        np.testing.assert_allclose(values, heard.track()[:, heard.labels.index(line.get_label())], atol=1e-5)
        np.testing.assert_allclose(edges, np.arange(9) / 10, atol=1e-9)
    assert found.along.axes[0].get_xlim() == pytest.approx((0, 0.8))
    assert "0.4 s heard at a time" in found.along.get_suptitle()

    audio = load_audio(clip)
    ids = tiny_extractor(audio["array"], sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_ids"][0]
    assert found.attention is not None
    assert found.codes is not None
    codes = ids[(ids < tiny_extractor.codebook_size).all(1)]
    np.testing.assert_array_equal(found.codes.axes[0].images[0].get_array(), codes.T)
    assert found.round_trip is not None
    rate = found.round_trip["sampling_rate"]
    samples = len(resample(torch.from_numpy(audio["array"]), SAMPLING_RATE, rate))
    np.testing.assert_allclose(found.round_trip["array"], tiny_extractor.decode(ids)[:samples], atol=1e-5)


@pytest.mark.unit
def test_other_models_get_what_applies_to_them(clip: str, tmp_path: Path) -> None:
    for make in (spectrogram_transformer, waveform_transformer):
        found = Listener(make(tmp_path / make.__name__))(clip)
        assert found.scores
        assert found.attention is not None
        assert (found.codes, found.round_trip, found.without_attention) == (None, None, "")


@pytest.mark.unit
def test_long_clips_have_few_windows_and_the_start_of_their_attention(model: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", tone(["low"], seed=0, seconds=15), SAMPLING_RATE)
    found = Listener(model)(tmp_path / "long.wav")
    values, edges, _ = found.along.axes[2].patches[0].get_data()
    assert len(values) <= 28  # 24 windows, and what lies before the first centre and behind the last
    assert edges[-1] == 15
    assert found.attention is not None
    assert found.attention.axes[0].get_xlim() == (0, 10)
    assert found.attention.axes[0].get_title().startswith("long (the first 10 s)")


@pytest.mark.fault
def test_what_cannot_be_heard_is_refused_by_name(model: str, tmp_path: Path) -> None:
    listener = Listener(model, max_seconds=2)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "short.wav", tone(["low"], seed=0, seconds=0.05), SAMPLING_RATE)
    soundfile.write(tmp_path / "long.flac", tone(["low"], seed=0, seconds=2.1), SAMPLING_RATE)
    for name, message in (
        ("bad.wav", r"^bad\.wav: not readable as audio"),
        ("short.wav", r"^short\.wav: 0\.050 s long; at least 0\.1 s"),
        ("long.flac", r"^long\.flac: 2\.1 s long; at most 2 s are taken here"),
    ):
        with pytest.raises(ValueError, match=message):
            listener(tmp_path / name)
    soundfile.write(tmp_path / "silence.wav", np.zeros(SAMPLING_RATE), SAMPLING_RATE)
    silent = listener(tmp_path / "silence.wav")
    assert silent.round_trip is not None
    assert np.isfinite(silent.round_trip["array"]).all()
    with pytest.raises(ValueError, match="top is 0 and max_seconds 30"):
        Listener(model, top=0)
