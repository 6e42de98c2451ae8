"""Random codecs whose codes mean something: the encoder's output varies and the codebooks are filled.

A freshly initialised `EncodecModel` has all-zero codebooks and an output that hardly depends on the sound.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

TINY_ENCODEC = {
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_size": 64,
    "num_lstm_layers": 1,
    "target_bandwidths": (0.45, 0.9, 1.8, 3.6),  # kbps: 1, 2, 4 and 8 codebooks of 6 bits at 75 frames per second
}


def varied_sound(samples: int, seed: int = 0) -> Tensor:
    """Noise whose level and colour change every 20 ms, float32 (samples,) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(samples + 1, generator=generator) * 2 - 1
    steps = samples // 480 + 1
    level, smoothness = torch.rand(2, steps, generator=generator).repeat_interleave(480, dim=1)[:, :samples]
    return level**2 * (noise[1:] + smoothness * noise[:-1]) / 2


@torch.no_grad()
def make_random_encodec(**config: object) -> EncodecModel:
    """An `EncodecModel` with random weights, by default tiny; its codebooks are residuals of some sound."""
    model = EncodecModel(EncodecConfig(**(TINY_ENCODEC | config))).eval()
    channels = model.config.audio_channels
    sound = varied_sound(model.config.codebook_size * model.config.hop_length, seed=1)
    probe = sound.expand(1, channels, -1)

    # Random biases would drown the sound, and random layers weaken it to the level of rounding errors.
    for name, parameter in model.encoder.named_parameters():
        if "bias" in name:
            parameter.zero_()
        elif name.endswith("original0"):  # the scale of a weight-normed convolution
            parameter.mul_(1.6)
    residual = model.encoder(probe)[0].t()
    for layer in model.quantizer.layers:
        layer.codebook.embed.copy_(residual + 0.3 * residual.std() * torch.randn_like(residual))
        residual = residual - layer.codebook.decode(layer.codebook.encode(residual))
    return model


@pytest.fixture(scope="session")
def random_encodec() -> EncodecModel:
    """A tiny causal EnCodec at 24 kHz, hop 320, 8 codebooks of 64 codes; not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_random_encodec()


@pytest.fixture(scope="session")
def random_encodec_folder(random_encodec: EncodecModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `random_encodec`, as `save_pretrained` writes it; not to be changed."""
    folder = tmp_path_factory.mktemp("random_encodec")
    random_encodec.save_pretrained(folder)
    return folder
