"""Clips of one window get the pipeline's scores, longer ones those of a plain loop over windows, whatever the model."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTFeatureExtractor, AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from hf_audioformer.inference import AudioClassifier

from .tiny_classifiers import KINDS, sound, spectrogram_transformer

pytestmark = pytest.mark.usefixtures("one_thread")

RATE = {"audioformer": 24_000, "ast": 16_000, "wav2vec2": 16_000, "whisper": 16_000}


@pytest.mark.reference
@pytest.mark.parametrize("kind", KINDS)
def test_short_clips_get_the_scores_of_the_pipeline(kind: str, checkpoints: dict[str, str]) -> None:
    """Of another rate, in a batch with others, and of a length that is no whole number of frames."""
    clips = [sound(0.4), sound(0.5, 44_100, seed=1), sound(0.61, 8_000, seed=2), sound(0.4, seed=3)]
    classifier = AudioClassifier.from_pretrained(checkpoints[kind], device="cpu", batch_size=3)
    answers = pipeline("audio-classification", model=checkpoints[kind], device="cpu", top_k=4)
    found = [result for _, result in classifier.each(clips)]
    for clip, result in zip(clips, found, strict=True):
        expected = answers(dict(clip))
        assert [guess["label"] for guess in result.top(4)] == [guess["label"] for guess in expected]
        scores = [guess["score"] for guess in expected]
        assert [guess["score"] for guess in result.top(4)] == pytest.approx(scores, abs=1e-5)
        assert result.seconds == pytest.approx(len(clip["array"]) / clip["sampling_rate"], abs=1e-3)
        assert len(result.window_scores) == 1
    assert not np.allclose(found[0].scores, found[3].scores, atol=1e-3)


def logits_of(source: str) -> Callable[[np.ndarray], np.ndarray]:
    """The logits of one waveform at its own level, by the stock classes alone."""
    model = AutoModelForAudioClassification.from_pretrained(source).eval()
    extractor = AutoFeatureExtractor.from_pretrained(source)
    extractor.rms_level_dbfs = None

    @torch.no_grad()
    def classify(waveform: np.ndarray) -> np.ndarray:
        features = extractor(waveform, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        return model(**features).logits[0].double().numpy()

    return classify


@pytest.mark.reference
@pytest.mark.parametrize("kind", KINDS)
def test_long_clips_get_the_mean_of_a_plain_loop_over_windows(kind: str, checkpoints: dict[str, str]) -> None:
    """Windows of 0.5 s every 0.2 s, and the last one with the clip's end; in batches over clips and windows. The clip
    grows louder, and an AudioFormer's is brought to -23 dB as a whole."""
    rate, source = RATE[kind], checkpoints[kind]
    clips = [sound(seconds, rate, seed) for seed, seconds in enumerate((1.27, 0.3, 0.9))]
    for clip in clips:
        clip["array"] = clip["array"] * np.geomspace(0.02, 1, len(clip["array"]), dtype=np.float32)
    classify = logits_of(source)
    settings = {"window_seconds": 0.5, "hop_seconds": 0.2, "device": "cpu"}
    classifier = AudioClassifier.from_pretrained(source, batch_size=4, **settings)
    for clip, (_, result) in zip(clips, classifier.each(clips), strict=True):
        samples, window, step = len(clip["array"]), rate // 2, rate // 5
        last = max(0, samples - window)
        if kind == "ast":  # frames of 25 ms every 10 ms; those that do not fit are dropped
            window = 47 * 160 + 400
            last = max(0, (samples - 400) // 160 - 47) * 160
        starts = [*range(0, last, step), last]
        waveform = clip["array"]
        if kind == "audioformer":
            waveform = waveform * np.float32(10 ** (-23 / 20) / np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))
        windows = np.stack([classify(waveform[start : start + window]) for start in starts])
        logits = np.vstack([windows.mean(0), windows])
        if kind == "audioformer":
            expected = 1 / (1 + np.exp(-logits))
        else:
            expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(result.scores, expected[0], atol=1e-5)
        np.testing.assert_allclose(result.window_scores, expected[1:], atol=1e-5)
        np.testing.assert_allclose(result.window_seconds[:, 0], np.array(starts) / rate)
        assert result.window_seconds[-1, 1] == pytest.approx(min(last + window, samples) / rate)
    alone = AudioClassifier.from_pretrained(source, batch_size=1, **settings)(clips[0])
    ((_, batched), *_) = classifier.each(clips)
    np.testing.assert_allclose(alone.window_scores, batched.window_scores, atol=1e-5)


@pytest.mark.invariant
def test_an_ast_hears_the_windows_of_an_evaluation_also_with_the_stock_extractor(checkpoints: dict[str, str]) -> None:
    model = AutoModelForAudioClassification.from_pretrained(checkpoints["ast"]).eval()
    clip = sound(2.0)
    ours = AudioClassifier.from_pretrained(checkpoints["ast"], device="cpu")
    stock = AudioClassifier(model, AutoFeatureExtractor.from_pretrained(checkpoints["ast"]))
    starts = [160 * frame for frame in (*range(0, 134, 32), 134)]  # 198 frames in windows of 64, as in WindowedDataset
    for classifier in (ours, stock):
        assert [window.start for window in classifier.front_end.windows(len(clip["array"]))] == starts
        assert classifier.front_end.hop_samples == 32 * 160
    np.testing.assert_array_equal(stock(clip).scores, ours(clip).scores)
    half = AudioClassifier(model.to(torch.bfloat16), ASTFeatureExtractor.from_pretrained(checkpoints["ast"]))
    np.testing.assert_allclose(half(clip).scores, ours(clip).scores, atol=0.1)


@pytest.mark.unit
def test_frames_behind_the_last_patch_are_heard_in_the_next_window(tmp_path: Path) -> None:
    """71 frames hold 8 patches of 8, the last of which ends with frame 64."""
    checkpoint = spectrogram_transformer(tmp_path / "ast", max_length=71)
    front_end = AudioClassifier.from_pretrained(checkpoint, device="cpu", overlap=0.0).front_end
    assert [window.start // 160 for window in front_end.windows(3 * 16_000)] == [0, 64, 128, 192, 227]


@pytest.mark.unit
def test_events_are_where_the_windows_score(checkpoints: dict[str, str]) -> None:
    classifier = AudioClassifier.from_pretrained(checkpoints["ast"], device="cpu", window_seconds=0.4, hop_seconds=0.1)
    heard = classifier(sound(2.0))
    track = heard.track()
    assert track.shape == (20, 4)
    nearest = np.abs(heard.window_seconds.mean(1)[None] - (np.arange(20)[:, None] + 0.5) / 10).argmin(1)
    np.testing.assert_array_equal(track, heard.window_scores[nearest])
    threshold = float(np.median(track.max(1)))
    events = heard.events(threshold)
    assert {event.label for event in events} <= set(heard.labels)
    seconds = sum(event.end_seconds - event.start_seconds for event in events)
    assert seconds == pytest.approx(0.1 * (track >= threshold).sum())


@pytest.mark.fault
def test_bad_clips_come_with_their_error_and_in_order(checkpoints: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "good.wav", sound(1.0)["array"], 16_000)
    broken = sound(0.5)["array"].copy()
    broken[7] = np.nan
    clips: list[Any] = [
        *(tmp_path / "bad.wav", tmp_path / "good.wav", tmp_path / "missing.wav", sound(0.0001)),
        *({"array": broken, "sampling_rate": 16_000}, {"array": np.zeros((2, 9)), "sampling_rate": 16_000}),
        sound(0.5),
    ]
    for kind in KINDS:
        shares: list[float] = []
        classifier = AudioClassifier.from_pretrained(checkpoints[kind], device="cpu", batch_size=2)
        found = list(classifier.each(clips, heard=shares.append))
        assert [name for name, _ in found] == [*map(str, clips[:3]), "clip 3", "clip 4", "clip 5", "clip 6"]
        kinds = [type(result) for _, result in found]
        assert [issubclass(kind, Exception) for kind in kinds] == [
            True,
            False,
            True,
            kind != "whisper",
            True,
            True,
            False,
        ]
        assert "not readable as audio" in str(found[0][1])
        assert isinstance(found[2][1], FileNotFoundError)
        assert "clip 4 has 1 samples that are NaN" in str(found[4][1])
        assert "clip 5 has shape (2, 9); it must be mono" in str(found[5][1])
        assert sum(shares) == pytest.approx(len(clips))
        with pytest.raises(ValueError, match="not readable as audio"):
            classifier(clips[0])


@pytest.mark.unit
def test_a_checkpoint_may_lack_what_is_for_training_alone(checkpoints: dict[str, str], tmp_path: Path) -> None:
    """As facebook/wav2vec2-base-960h does; without its classifier it is refused."""
    shutil.copytree(checkpoints["wav2vec2"], tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["wav2vec2.masked_spec_embed"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = AudioClassifier.from_pretrained(str(tmp_path), device="cpu")(sound(0.3)).scores
    expected = AudioClassifier.from_pretrained(checkpoints["wav2vec2"], device="cpu")(sound(0.3)).scores
    np.testing.assert_allclose(found, expected, atol=1e-6)
    del weights["classifier.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"holds no trained classifier \(missing classifier.weight\)"):
        AudioClassifier.from_pretrained(str(tmp_path), device="cpu")


@pytest.mark.fault
def test_settings_out_of_range_are_refused(checkpoints: dict[str, str]) -> None:
    def classifier(kind: str = "ast", **settings: Any) -> None:
        AudioClassifier.from_pretrained(checkpoints[kind], device="cpu", **settings)

    with pytest.raises(
        ValueError, match=r"window is 9 s; for this model it must be at least 0.025 and at most 0.655 s"
    ):
        classifier(window_seconds=9)
    with pytest.raises(ValueError, match=r"hop is 0.7 s; it must be above 0 and no longer than a window, 0.5 s"):
        classifier(window_seconds=0.5, hop_seconds=0.7)
    with pytest.raises(ValueError, match=r"hop is 0 s; it must be above 0"):
        classifier(hop_seconds=0)
    with pytest.raises(ValueError, match="ignore_padding is for an AST"):
        classifier("wav2vec2", ignore_padding=True)
