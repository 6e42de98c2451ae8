"""Converts original EnCodec weights (`.th`) to `transformers.EncodecModel` with its feature extractor.

    python -m conversion.convert_encodec encodec_24khz-d7cc33bc.th TARGET

SOURCE is a file that the `encodec` package (https://github.com/facebookresearch/encodec) downloads from
https://dl.fbaipublicfiles.com/encodec/v0/: encodec_24khz-d7cc33bc.th (causal, mono) or encodec_48khz-7e698e3e.th
(stereo), or the state dict of a network of one of these two kinds. The code is under the MIT licence, the published
weights under CC BY-NC 4.0: no commercial use.

Before anything is written, a second of sound is encoded at every bandwidth and decoded, by the `encodec` package and by
the converted model: all codes must be equal and the audio within 1e-5; the largest difference is printed. This needs
`pip install 'hf_audioformer[conversion]'`. The file is read with `weights_only=True`: one that holds anything but
tensors is refused.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import EncodecConfig, EncodecFeatureExtractor, EncodecModel

from conversion.common import accept, command_line, largest_difference, read_tensors

LARGEST_DIFFERENCE = 1e-5
# The released kinds, told apart by their norm. Ratios, widths and codebooks are read from the weights.
CAUSAL_24_KHZ: dict[str, Any] = {
    "sampling_rate": 24_000,
    "norm_type": "weight_norm",
    "use_causal_conv": True,
    "normalize": False,
    "chunk_length_s": None,
    "overlap": None,
    "target_bandwidths": (1.5, 3.0, 6.0, 12.0, 24.0),
}
STEREO_48_KHZ: dict[str, Any] = {
    "sampling_rate": 48_000,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "target_bandwidths": (3.0, 6.0, 12.0, 24.0),
}
# Parts of names, original and Transformers'.
RENAMED = {
    ".model.": ".layers.",
    ".conv.conv.": ".conv.",
    ".convtr.convtr.": ".conv.",
    ".conv.norm.": ".norm.",
    ".convtr.norm.": ".norm.",
    "quantizer.vq.layers.": "quantizer.layers.",
    "._codebook.": ".codebook.",
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


def encodec_config(weights: dict[str, Tensor]) -> EncodecConfig:
    """The configuration that original weights fit.

    Raises:
        ValueError: Not the weights of an EnCodec of 24 or 48 kHz.
    """
    wanted = ("encoder.model.0.conv.conv.bias", "quantizer.vq.layers.0._codebook.embed")
    if not all(name in weights for name in wanted):
        raise ValueError(f"{' and '.join(wanted)} are wanted, found {sorted(weights)[:5]}: no original EnCodec.")
    first = _kernel(weights, "encoder.model.0.conv.conv")
    upsampling = [name.removesuffix(".bias") for name in weights if name.endswith(".convtr.convtr.bias")]
    ratios = [_kernel(weights, name).shape[-1] // 2 for name in upsampling]
    codebook_size, dimension = weights[wanted[1]].shape
    kind = CAUSAL_24_KHZ if "encoder.model.0.conv.conv.weight_g" in weights else STEREO_48_KHZ
    return EncodecConfig(
        **kind,
        audio_channels=first.shape[1],
        num_filters=first.shape[0],
        hidden_size=dimension,
        codebook_dim=dimension,
        codebook_size=codebook_size,
        upsampling_ratios=ratios,
        num_lstm_layers=len([name for name in weights if name.startswith("encoder.") and ".lstm.bias_ih_l" in name]),
    )


def _kernel(weights: dict[str, Tensor], name: str) -> Tensor:
    return weights[f"{name}.weight_v" if f"{name}.weight_v" in weights else f"{name}.weight"]


def encodec_from_original(weights: dict[str, Tensor], config: EncodecConfig) -> EncodecModel:
    """An `EncodecModel` with original weights.

    Raises:
        ValueError: Weights are missing, unknown, or of another shape.
    """
    model = EncodecModel(config)
    try:
        model.load_state_dict({_renamed(name): weight for name, weight in weights.items()})
    except RuntimeError as error:
        raise ValueError(f"weights of another network: {error}") from error
    return model.eval()


def _renamed(name: str) -> str:
    for original, ours in RENAMED.items():
        name = name.replace(original, ours)
    return name


def original_encodec(weights: dict[str, Tensor], config: EncodecConfig) -> Any:
    """The network of the `encodec` package with its own weights.

    Raises:
        ImportError: The package is not installed.
    """
    try:
        from encodec import EncodecModel as OriginalModel
        from encodec.modules import SEANetDecoder, SEANetEncoder
        from encodec.quantization import ResidualVectorQuantizer
    except ImportError as error:
        raise ImportError(
            "the comparison needs the encodec package: pip install 'hf_audioformer[conversion]'; or convert without it "
            "by --no-verify"
        ) from error
    sizes = {
        "channels": config.audio_channels,
        "dimension": config.hidden_size,
        "n_filters": config.num_filters,
        "ratios": list(config.upsampling_ratios),
        "lstm": config.num_lstm_layers,
        "norm": config.norm_type,
        "causal": config.use_causal_conv,
    }
    quantizer = ResidualVectorQuantizer(config.hidden_size, n_q=config.num_quantizers, bins=config.codebook_size)
    original = OriginalModel(
        SEANetEncoder(**sizes),
        SEANetDecoder(**sizes),
        quantizer,
        list(config.target_bandwidths),
        config.sampling_rate,
        config.audio_channels,
        normalize=config.normalize,
        segment=config.chunk_length_s,
    )
    original.load_state_dict(weights)
    return original.eval()


@torch.no_grad()
def verify(model: EncodecModel, weights: dict[str, Tensor]) -> float:
    """The largest difference of the audio that the model and the `encodec` package make of a second of sound, at any
    bandwidth.

    Raises:
        ValueError: Codes differ, or the audio by more than 1e-5.
        ImportError: The package is not installed.
    """
    original = original_encodec(weights, model.config)
    sound = _sound(model.config)
    differences = []
    for kbps in model.config.target_bandwidths:
        original.set_target_bandwidth(kbps)
        frame = original._encode_frame(sound)
        encoded = model.encode(sound, bandwidth=kbps)
        codes = encoded.audio_codes[0]
        differing = (codes != frame[0]).sum().item() if codes.shape == frame[0].shape else frame[0].numel()
        if differing:
            raise ValueError(f"{differing} of {codes.numel()} codes differ at {kbps} kbps: nothing is written.")
        decoded = model._decode_frame(codes, encoded.audio_scales[0])
        differences.append(largest_difference(decoded, original._decode_frame(frame)))
    return accept(max(differences), LARGEST_DIFFERENCE, "audio differs from the encodec package's")


def _sound(config: EncodecConfig) -> Tensor:
    """A second of noise whose level changes every 20 ms, (1, channels, samples)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, config.audio_channels, config.sampling_rate, generator=generator) * 2 - 1
    level = torch.rand(50, generator=generator).repeat_interleave(config.sampling_rate // 50)
    return noise * level**2


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("source", help="original .th file to convert")
    parser.add_argument("target", help="folder to write")
    arguments = parser.parse_args()

    weights = read_tensors(arguments.source)
    config = encodec_config(weights)
    model = encodec_from_original(weights, config)
    if arguments.verify:
        difference = verify(model, weights)
        print(f"codes are equal at {', '.join(map(str, config.target_bandwidths))} kbps")
        print(f"largest difference of audio: {difference:.1e}")
    model.save_pretrained(arguments.target)
    EncodecFeatureExtractor(
        feature_size=config.audio_channels,
        sampling_rate=config.sampling_rate,
        chunk_length_s=config.chunk_length_s,
        overlap=config.overlap,
    ).save_pretrained(arguments.target)


if __name__ == "__main__":
    main()
