"""A small `EncodecModel` to train: initial weights that learn, and its encoder and decoder without the quantizer."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecLSTM

__all__ = ["decode_latents", "encode_latents", "random_encodec"]


def random_encodec(config: EncodecConfig, *, level: float, seed: int) -> EncodecModel:
    """An `EncodecModel` with random weights and empty codebooks, for waveforms of root mean square `level`.

    EnCodec always has an LSTM. Trained on crops it drifts on whole clips, so its weights are zero here and stay so:
    its output is exactly 0 and the block, which adds its input, is the identity.
    """
    torch.manual_seed(seed)
    model = EncodecModel(config)
    for module in model.modules():
        if isinstance(module, EncodecLSTM):
            for parameter in module.parameters():
                nn.init.zeros_(parameter).requires_grad_(False)
        elif isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            _keep_variance(module)
    _scale_weight(model.encoder.layers[0], 1 / level)
    _scale_weight(model.decoder.layers[-1], level)
    return model


@torch.no_grad()
def _keep_variance(conv: nn.Conv1d | nn.ConvTranspose1d) -> None:
    """Draw weights that keep the variance of the input; PyTorch's own let the signal fade from layer to layer.

    Transformers' initialisation does not reach weights under weight norm.
    """
    taps = conv.kernel_size[0] / (conv.stride[0] if isinstance(conv, nn.ConvTranspose1d) else 1)
    conv.weight = torch.randn_like(conv.weight) / math.sqrt(conv.in_channels * taps)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


@torch.no_grad()
def _scale_weight(layer: nn.Module, factor: float) -> None:
    conv = cast(nn.Conv1d, layer.conv)
    conv.weight = conv.weight * factor  # an assignment, which reaches the weight behind weight norm


def encode_latents(model: EncodecModel, waveforms: Tensor) -> Tensor:
    """Latents (batch, frames, dim) of `waveforms` (batch, samples); for models of `random_encodec`."""
    return _run_layers(model.encoder.layers, waveforms[:, None]).transpose(1, 2)


def decode_latents(model: EncodecModel, latents: Tensor) -> Tensor:
    """Waveforms (batch, samples) of `latents` (batch, frames, dim); for models of `random_encodec`."""
    return _run_layers(model.decoder.layers, latents.transpose(1, 2))[:, 0]


def _run_layers(layers: nn.ModuleList, hidden: Tensor) -> Tensor:
    for layer in layers:
        if not isinstance(layer, EncodecLSTM):  # the identity
            hidden = layer(hidden)
    return hidden
