"""Encoding by `AudioCodec` against `transformers.EncodecModel.encode` with the same weights, measured in one run.

    python -m benchmarks.codec_speed [--seconds 10] [--repeats 5] [--threads 2] [--codec NAME_OR_FOLDER]

Encodes four clips at 3 kbps (4 codebooks of the 24 kHz model; for another codec its nearest bandwidth) one by one and
as a batch, and prints the seconds per clip, how many times faster we are than the best of the peer's two ways, and the
fraction of equal codes. Without `--codec` the network is that of facebook/encodec_24khz with random weights and filled
codebooks.
"""

import argparse

import torch
from torch import Tensor
from transformers import AutoModel, EncodecConfig, EncodecModel

from benchmarks.timing import compare
from hf_audioformer.models.audioformer.codec_audioformer import AudioCodec

CLIPS = 4
KBPS = 3.0


def make_clips(samples: int) -> Tensor:
    """Noise whose level and colour change every 20 ms, (CLIPS, samples)."""
    noise = torch.rand(CLIPS, samples + 1) * 2 - 1
    level, smoothness = torch.rand(2, CLIPS, samples // 480 + 1).repeat_interleave(480, dim=2)[..., :samples]
    return level**2 * (noise[:, 1:] + smoothness * noise[:, :-1]) / 2


@torch.no_grad()
def random_encodec() -> EncodecModel:
    """The architecture of facebook/encodec_24khz; random weights of a size that lets the sound through."""
    model = EncodecModel(EncodecConfig())
    for name, parameter in model.encoder.named_parameters():
        if "bias" in name:
            parameter.zero_()
        elif name.endswith("original0"):
            parameter.mul_(1.6)
    residual = model.encoder(make_clips(256 * model.config.hop_length)[:, None]).transpose(1, 2).flatten(0, 1)
    for layer in model.quantizer.layers:
        layer.codebook.embed.copy_(residual + 0.3 * residual.std() * torch.randn_like(residual))
        residual = residual - layer.codebook.decode(layer.codebook.encode(residual))
    return model


@torch.no_grad()
def peer_encode(model: EncodecModel, clips: Tensor) -> Tensor:
    bandwidth = min(model.config.target_bandwidths, key=lambda kbps: abs(kbps - KBPS))
    return model.encode(clips[:, None], bandwidth=bandwidth).audio_codes[0]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--codec", help="a causal EnCodec, by name or folder")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    model = (AutoModel.from_pretrained(arguments.codec) if arguments.codec else random_encodec()).eval()
    codec = AudioCodec(model)
    clips = make_clips(arguments.seconds * codec.sampling_rate // codec.hop_length * codec.hop_length)
    theirs = torch.cat([peer_encode(model, clip) for clip in clips.split(1)])
    num_codebooks = theirs.shape[1]
    batched = f"batch of {CLIPS}"
    seconds = compare(
        {
            "peer, one by one": lambda: [peer_encode(model, clip) for clip in clips.split(1)],
            f"peer, {batched}": lambda: peer_encode(model, clips),
            "ours, one by one": lambda: [codec.encode(clip, num_codebooks) for clip in clips.split(1)],
            f"ours, {batched}": lambda: codec.encode(clips, num_codebooks),
        },
        arguments.repeats,
    )
    best = min(seconds["peer, one by one"], seconds[f"peer, {batched}"])

    print(
        f"encoding {CLIPS} clips of {arguments.seconds} s, {num_codebooks} codebooks, {arguments.threads} threads, "
        f"median of {arguments.repeats}"
    )
    print(f"{'':20} {'s per clip':>12} {'against the best of the peer':>30}")
    for name, value in seconds.items():
        print(f"{name:20} {value / CLIPS:12.3f} {best / value:29.2f}x")
    equal = (codec.encode(clips, num_codebooks) == theirs).double().mean().item()
    print(f"equal codes: {equal:.4%}")


if __name__ == "__main__":
    main()
