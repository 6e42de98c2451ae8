"""Vectors are what the stock models give, frame by frame, and lie where the sound is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from hf_audioformer import AudioFormerModel, AudioFormerSignalFeatureExtractor
from hf_audioformer.inference import Embedder, nearest_neighbours
from hf_audioformer.models.audioformer.modeling_audioformer import clip_statistics
from hf_audioformer.training.checkpoints import save_final

from ..fixtures_recipes import tiny_config
from .tiny_classifiers import KINDS, SIZES, sound

pytestmark = pytest.mark.usefixtures("one_thread")

RATE = {"audioformer": 24_000, "ast": 16_000, "wav2vec2": 16_000, "whisper": 16_000}
# Seconds from frame to frame: a hop of the codec, eight frames of 10 ms, strides of 5 and 4 samples, Whisper's 20 ms.
STEP = {"audioformer": 320 / 24_000, "ast": 0.08, "wav2vec2": 20 / 16_000, "whisper": 0.02}


@torch.no_grad()
def frames_of(kind: str, source: str, waveform: np.ndarray, layer: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The frames of one window, at its own level, and its special token, by the stock classes alone."""
    model = AutoModel.from_pretrained(source).eval()
    extractor = AutoFeatureExtractor.from_pretrained(source)
    extractor.rms_level_dbfs = None
    features = extractor(waveform, sampling_rate=RATE[kind], return_tensors="pt")
    model = model.get_encoder() if kind == "whisper" else model
    output = model(**features, output_hidden_states=True)
    states = (output.last_hidden_state if layer == -1 else output.hidden_states[layer])[0].numpy()
    if kind == "audioformer":
        return states[1:-1], states[0]
    if kind == "ast":  # 4 patches over frequency, 8 over time, the former first
        columns = np.stack([states[[2 + band * 8 + column for band in range(4)]].mean(0) for column in range(8)])
        return columns[: -(-(1 + (len(waveform) - 400) // 160) // 8)], states[:2].mean(0)
    return states[: -(-len(waveform) // 320)] if kind == "whisper" else states, None


def levelled(kind: str, waveform: np.ndarray) -> np.ndarray:
    """A clip at the level that the model hears: an AudioFormer's has -23 dB as a whole."""
    rms = np.sqrt(np.mean(waveform.astype(np.float64) ** 2))
    return waveform * np.float32(10 ** (-23 / 20) / rms) if kind == "audioformer" else waveform


@pytest.mark.reference
@pytest.mark.parametrize("layer", [-1, 0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_clips_that_fit_are_the_models_own(kind: str, layer: int, checkpoints: dict[str, str]) -> None:
    clips = [sound(0.42, RATE[kind]), sound(0.31, RATE[kind], seed=1)]
    embedder = Embedder.from_pretrained(checkpoints[kind], layer=layer, device="cpu", batch_size=2)
    for clip, (_, found) in zip(clips, embedder.each(clips), strict=True):
        assert not isinstance(found, Exception)
        expected, _ = frames_of(kind, checkpoints[kind], levelled(kind, clip["array"]), layer)
        np.testing.assert_allclose(found.frames, expected, atol=2e-4)
        np.testing.assert_allclose(found.vector, expected.mean(0), atol=2e-4)
        np.testing.assert_allclose(found.frame_starts, np.arange(len(expected)) * STEP[kind])
        assert found.frame_starts[-1] < found.seconds == pytest.approx(len(clip["array"]) / RATE[kind])


@pytest.mark.reference
@pytest.mark.parametrize("kind", KINDS)
def test_long_clips_are_their_windows_one_after_the_other(kind: str, checkpoints: dict[str, str]) -> None:
    """Of 1.1 s in windows of 0.4 s: the last one, from 0.7 s, gives what lies beyond 0.8 s."""
    clip, step, rate = sound(1.1, RATE[kind]), STEP[kind], RATE[kind]
    found = Embedder.from_pretrained(checkpoints[kind], device="cpu", window_seconds=0.4)(clip)
    np.testing.assert_allclose(np.diff(found.frame_starts)[:4], step)
    assert 0.4 * step < np.diff(found.frame_starts).min() <= np.diff(found.frame_starts).max() < 0.03 + 2 * step
    waveform = levelled(kind, clip["array"])
    first, _ = frames_of(kind, checkpoints[kind], waveform[: round(0.4 * rate)], -1)
    np.testing.assert_allclose(found.frames[: len(first)], first, atol=2e-4)
    last_start = {"ast": 70 * 160}.get(kind, round(1.1 * rate) - round(0.4 * rate))
    last, _ = frames_of(kind, checkpoints[kind], waveform[last_start:], -1)
    kept = found.frame_starts > 0.8 + step
    np.testing.assert_allclose(found.frames[kept], last[-kept.sum() :], atol=2e-4)
    assert found.seconds - found.frame_starts[-1] < 2 * step + 0.025
    np.testing.assert_allclose(found.vector, found.frames.mean(0), atol=1e-5)


@pytest.mark.reference
def test_steps_that_an_adapter_joins_lie_over_the_whole_clip(tmp_path: Path) -> None:
    adapter = {"add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 32}
    config = Wav2Vec2Config(**SIZES, conv_dim=(8, 8), conv_kernel=(10, 8), conv_stride=(5, 4), **adapter)
    Wav2Vec2Model(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    found = Embedder.from_pretrained(str(tmp_path), device="cpu")(sound(0.5))
    assert len(found.frames) == 100  # 398 steps, halved twice
    np.testing.assert_allclose(found.frame_starts, np.arange(100) * 0.005)


@pytest.mark.reference
def test_poolings(checkpoints: dict[str, str]) -> None:
    clip = sound(0.5, 24_000)
    frames, special = frames_of("audioformer", checkpoints["audioformer"], levelled("audioformer", clip["array"]), -1)
    states = torch.from_numpy(frames)[None]
    expected: dict[Any, np.ndarray | None] = {
        "mean": frames.mean(0),
        "statistics": clip_statistics(states, torch.ones(1, len(frames)))[0].numpy(),
        "cls": special,
    }
    for pooling, vector in expected.items():
        found = Embedder.from_pretrained(checkpoints["audioformer"], pooling=pooling, device="cpu")(clip)
        np.testing.assert_allclose(found.vector, vector, atol=2e-4)
    clip = sound(0.5)
    _, special = frames_of("ast", checkpoints["ast"], clip["array"], -1)
    found = Embedder.from_pretrained(checkpoints["ast"], pooling="cls", device="cpu")(clip)
    np.testing.assert_allclose(found.vector, special, atol=2e-4)


@pytest.mark.unit
def test_neighbours_are_those_of_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    query, vectors = random.standard_normal(5), random.standard_normal((9, 5))
    cosines = [float(row @ query) / np.sqrt(float(row @ row) * float(query @ query)) for row in vectors]
    found = nearest_neighbours(query, vectors, 4)
    assert [row for row, _ in found] == sorted(range(9), key=lambda row: -cosines[row])[:4]
    assert [cosine for _, cosine in found] == pytest.approx(sorted(cosines, reverse=True)[:4])
    assert nearest_neighbours(query, np.stack([query * 3, query * 0]), 2) == [(0, pytest.approx(1)), (1, 0)]
    with pytest.raises(ValueError, match=r"query has shape \(5,\) and vectors \(9, 4\); sizes must be equal"):
        nearest_neighbours(query, vectors[:, :4], 1)


@pytest.mark.fault
def test_what_a_model_lacks_is_named(checkpoints: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="layer is 2; this model has 0"):
        Embedder.from_pretrained(checkpoints["ast"], layer=2)
    with pytest.raises(ValueError, match=r"pooling is 'max'; it must be one of mean, statistics, cls"):
        Embedder.from_pretrained(checkpoints["ast"], pooling="max")
    for kind in ("wav2vec2", "whisper"):
        with pytest.raises(ValueError, match="pooling cls needs a special token"):
            Embedder.from_pretrained(checkpoints[kind], pooling="cls")


@pytest.mark.reference
@torch.no_grad()
def test_patches_of_a_moment_are_one_frame(tmp_path: Path) -> None:
    grid = {"num_features": 16, "patch_size": [8, 8], "patch_stride": [6, 4]}
    model = AudioFormerModel(tiny_config(front_end="patches", initializer_range=0.3, **grid)).eval()
    extractor = AudioFormerSignalFeatureExtractor(num_mel_bins=16)
    save_final(model, extractor, tmp_path)
    clip = sound(0.42)
    found = Embedder.from_pretrained(str(tmp_path), device="cpu")(clip)
    states = model(**extractor(clip["array"], 16_000, return_tensors="pt")).last_hidden_state[0]
    expected = np.stack([states[3 * moment : 3 * moment + 3].mean(0).numpy() for moment in range(7)])  # of 40 frames
    np.testing.assert_allclose(found.frames, expected, atol=1e-5)
    np.testing.assert_allclose(found.frame_starts, np.arange(7) * 0.06)
