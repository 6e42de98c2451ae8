"""Tokens stand where the models' own convolutions, patches and frames put them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import ASTConfig, Wav2Vec2Config, WhisperConfig

from hf_audioformer import AudioFormerConfig, AudioFormerModel, AudioFormerSignalFeatureExtractor
from hf_audioformer.inspection.panels import mel_position
from hf_audioformer.inspection.tokens import TokenLayout, layout_of

pytestmark = pytest.mark.unit


def test_a_step_of_wav2vec2_lies_in_the_middle_of_the_samples_it_hears() -> None:
    """The samples that the convolutions of the real kernels and strides read, by the gradient of each output."""
    config = Wav2Vec2Config()
    signal = torch.zeros(1, 1, 4000, requires_grad=True)
    output = signal
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        output = torch.nn.functional.conv1d(output, torch.ones(1, 1, kernel), stride=stride)
    layout = layout_of(config, SimpleNamespace(sampling_rate=16_000), {}, output.shape[-1], 0.25)
    assert layout.steps == 12
    for step in (0, 7):
        (gradient,) = torch.autograd.grad(output[0, 0, step], signal, retain_graph=True)
        heard = gradient[0, 0].nonzero().flatten().numpy()
        assert layout.seconds[step] == pytest.approx((heard[0] + heard[-1] + 1) / 2 / 16_000)


def test_patches_of_an_ast_lie_in_the_middle_of_their_frames() -> None:
    config = ASTConfig(max_length=64, num_mel_bins=48, time_stride=10, frequency_stride=12)
    layout = layout_of(config, SimpleNamespace(sampling_rate=16_000), {}, 2 + 3 * 5, 0.64)
    assert (layout.rows, layout.steps, layout.leading) == (3, 5, ("class", "distillation"))
    assert layout.seconds == pytest.approx(
        [(10 * step * 0.010 + ((10 * step + 15) * 0.010 + 0.025)) / 2 for step in range(5)]
    )


def test_an_ast_is_folded_as_it_was_cut() -> None:
    """A spectrogram whose cells name their frame and band, cut by the convolution of the patches."""
    config = ASTConfig(max_length=64, num_mel_bins=48, time_stride=10, frequency_stride=12)
    layout = layout_of(config, SimpleNamespace(sampling_rate=16_000), {}, 17, 0.64)
    frames, bands = np.mgrid[:64, :48]
    cells = torch.from_numpy(1000.0 * frames + bands)[None, None].float()
    kernel = torch.zeros(1, 1, 16, 16)
    kernel[..., 0, 0] = 1  # the first cell of each patch
    # Transformers transposes the spectrogram to (bands, frames) and flattens what the convolution returns.
    patches = torch.nn.functional.conv2d(cells.transpose(2, 3), kernel, stride=(12, 10)).flatten()
    grid = layout.fold(np.concatenate([[-1, -2], patches.numpy()]))
    assert grid.tolist() == [[1000.0 * 10 * step + 12 * row for step in range(5)] for row in range(3)]


def test_whisper_steps_are_every_other_frame() -> None:
    layout = layout_of(WhisperConfig(), SimpleNamespace(sampling_rate=16_000, hop_length=160), {}, 1500, 5.0)
    assert layout.seconds[[0, 1, 1499]] == pytest.approx([0, 0.02, 29.98])
    assert layout.steps_before(5.0) == 250


@pytest.mark.parametrize("boundaries", [True, False])
def test_frames_of_an_audioformer_and_its_boundary_tokens(boundaries: bool) -> None:
    config = AudioFormerConfig(codebook_size=64)
    codes = torch.zeros(1, 75 + 2 * boundaries, dtype=torch.long)
    if boundaries:
        codes[0, 0], codes[0, -1] = config.boa_token_id, config.eoa_token_id
    layout = layout_of(config, SimpleNamespace(frame_rate=75.0), {"input_ids": codes}, codes.shape[1], 1.0)
    assert (layout.leading, layout.trailing) == ((("BOA",), ("EOA",)) if boundaries else ((), ()))
    assert layout.steps == 75
    assert layout.seconds[[0, -1]] == pytest.approx([0.5 / 75, 1 - 0.5 / 75])


@pytest.mark.parametrize("kind", ["frames", "patches", "waveform"])
@torch.no_grad()
def test_steps_of_an_audioformer_on_signals_stand_where_they_hear(kind: str) -> None:
    """A moment of the input that is changed changes the embeddings of the steps that hear it; of patches the last row
    of three knows the highest bands alone."""
    convolutions = {"conv_dim": (4,), "conv_kernel": (2,), "conv_stride": (2,)}
    settings = {
        "frames": {"num_features": 16, **convolutions},
        "patches": {"num_features": 16, "patch_size": (8, 8), "patch_stride": (6, 4)},
        "waveform": {"conv_dim": (4, 4), "conv_kernel": (5, 4), "conv_stride": (5, 4)},
    }[kind]
    model = AudioFormerModel(AudioFormerConfig(front_end=kind, hidden_size=16, num_attention_heads=2, **settings))
    rate = 16_000.0 if kind == "waveform" else 100.0
    values = torch.randn((1, 40) if kind == "waveform" else (1, 40, 16), generator=torch.Generator().manual_seed(0))
    changed = values.clone()
    if kind == "waveform":
        changed[0, 20:40] += 1
    else:
        changed[0, 24:30, 12:] += 1
    before, after = (model.embeddings.embed(inputs)[0][0].numpy() for inputs in (values, changed))
    extractor = SimpleNamespace(frame_rate=rate, sampling_rate=16_000, kind="log_mel")
    layout = layout_of(model.config, extractor, {}, len(before), 0.4)
    moved = np.abs(layout.fold(after - before, axis=0)).max(-1) > 1e-6
    if kind == "patches":
        assert moved.tolist() == [[False] * 7] * 2 + [[False] * 3 + [True] * 2 + [False] * 2]
        assert layout.seconds[3:5] == pytest.approx([0.18 + 0.095 / 2, 0.24 + 0.095 / 2])
        shares = [mel_position(hz) for hz in layout.row_edges_hz]
        assert shares == pytest.approx([0.125, 0.375, 0.625, 0.875])
    elif kind == "frames":
        assert moved[0].nonzero()[0].tolist() == [12, 13, 14]
        assert layout.seconds[12] == pytest.approx(0.24 + (0.01 + 0.025) / 2)
    else:
        assert moved[0].tolist() == [False, True]
        assert layout.seconds[1] == pytest.approx(30 / 16_000)


@pytest.mark.parametrize("kind", ["log_mel", "spectrogram"])
@torch.no_grad()
def test_rows_of_patches_have_the_tones_of_their_frequencies(kind: str) -> None:
    """A tone is loudest in the row whose edges are around it: of mel bands, and of linear frequencies."""
    extractor = AudioFormerSignalFeatureExtractor(kind=kind, sampling_rate=8_000, num_mel_bins=64)
    size, height = extractor.feature_size, extractor.feature_size // 8
    config = AudioFormerConfig(
        front_end="patches",
        num_features=size,
        patch_size=(8, height),
        patch_stride=(8, height),
        hidden_size=16,
        num_attention_heads=2,
    )
    time = np.arange(2_000) / 8_000
    for row in (0, 2, 7):
        layout = layout_of(config, extractor, {}, 8 * 3, 0.25)
        assert (layout.rows, layout.rows_over) == (8, "frequency")
        low, high = layout.row_edges_hz[row : row + 2]
        tone = np.sin(2 * np.pi * (0.4 * low + 0.6 * high) * time).astype(np.float32)
        features = extractor(tone, sampling_rate=8_000)["input_values"][0]
        power = np.exp(features).mean(0)[: 8 * height].reshape(8, height).sum(1)
        assert power.argmax() == row


def test_rows_of_coefficients_have_no_frequency() -> None:
    extractor = AudioFormerSignalFeatureExtractor(kind="mfcc", num_coefficients=16)
    config = AudioFormerConfig(
        front_end="patches",
        num_features=16,
        patch_size=(8, 4),
        patch_stride=(8, 4),
        hidden_size=16,
        num_attention_heads=2,
    )
    layout = layout_of(config, extractor, {}, 4 * 3, 0.25)
    assert (layout.rows, layout.rows_over, layout.row_edges_hz) == (4, "coefficients", None)


def test_steps_that_are_joined_after_the_convolutions_lie_evenly() -> None:
    layout = layout_of(Wav2Vec2Config(), SimpleNamespace(sampling_rate=16_000), {}, 6, 0.25)
    assert layout.step_seconds == pytest.approx(0.25 / 6)


def test_tokens_of_an_unknown_model_lie_evenly_over_the_clip() -> None:
    layout = layout_of(SimpleNamespace(model_type="other"), None, {}, 10, 5.0)
    assert layout.seconds == pytest.approx(np.arange(0.25, 5, 0.5))


def test_a_fold_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="must have the 7 tokens"):
        TokenLayout(6, 0.1, 0.0, leading=("x",)).fold(np.zeros((2, 6)))
