"""Frozen neural codecs behind one interface: waveforms to codes, codes to waveforms, and exact streaming.

Any codec of Transformers named in `SUPPORTED_CODECS` will do. The causal EnCodec (facebook/encodec_24khz and codecs
trained like it) runs through an encoder of our own over the same weights: weight norm folded once, plain-integer
padding, a fast ELU, and on a CPU two seconds of sound at a time, so that activations stay in the cache.
"""

import hashlib
import json
import math
from collections.abc import Callable
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, EncodecConfig, PreTrainedModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecLSTM, EncodecResnetBlock

# What each causal layer must remember of the samples it has seen, by layer; empty at the start of a clip.
Memory = dict[nn.Module, Any]

# Sound encoded at a time on a CPU: the activations of the first layers then stay in the cache.
_CPU_BLOCK_SAMPLES = 48_000
# On an accelerator a block only bounds the memory that a long clip takes (a minute at 24 kHz).
_ACCELERATOR_BLOCK_SAMPLES = 1_440_000

# What a configuration says about where and by what a model was saved, not about what it does.
_NOT_IN_FINGERPRINT = ("_name_or_path", "architectures", "dtype", "transformers_version")


class AudioCodec:
    """A frozen neural codec: `encode` turns mono waveforms into codes, `decode` turns codes into waveforms.

    `AudioCodec(model)` wraps a Transformers codec that is in memory and freezes it in place; weights changed later do
    not count. A codec cannot be pickled: keep its name or folder, and load it where it is used.

    Attributes:
        sampling_rate: samples per second of the waveforms, in Hz.
        hop_length: samples per frame.
        frame_rate: frames per second.
        codebook_size: number of codes in each codebook.
        num_codebooks: codebooks available; `encode` gives as many of the first ones as asked.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        model_type = model.config.model_type
        if model_type not in _ADAPTERS:
            raise ValueError(_unsupported(model_type))
        self._adapter = _ADAPTERS[model_type](model.eval().requires_grad_(False))
        self.sampling_rate: int = self._adapter.sampling_rate
        self.hop_length: int = self._adapter.hop_length
        self.frame_rate = self.sampling_rate / self.hop_length
        self.codebook_size: int = model.config.codebook_size
        self.num_codebooks: int = len(self._adapter.codebooks())
        self._check_codebooks()

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str], *, revision: str | None = None, subfolder: str = "", **hub_kwargs: Any
    ) -> "AudioCodec":
        """Load a codec from the Hub or a folder, in float32; never runs code that comes with it.

        Args:
            name_or_path: a model id of the Hub or a folder made by `save_pretrained`.
            revision: a commit, tag or branch of the Hub repository.
            subfolder: the folder inside the repository or folder where the codec lies.
            hub_kwargs: further options of `PreTrainedModel.from_pretrained` (`cache_dir`, `token`,
                `local_files_only`, ...).

        Raises:
            ValueError: for a model that is not one of `SUPPORTED_CODECS`, for codebooks that are all zero, and for
                `trust_remote_code`.
        """
        if "trust_remote_code" in hub_kwargs:
            raise ValueError(f"a codec never runs remote code: drop trust_remote_code when loading {name_or_path}.")
        where = {"revision": revision or "main", "subfolder": subfolder, "trust_remote_code": False, **hub_kwargs}
        config = AutoConfig.from_pretrained(name_or_path, **where)
        if config.model_type not in _ADAPTERS:
            raise ValueError(_unsupported(config.model_type, name_or_path))
        model = AutoModel.from_pretrained(
            name_or_path, config=config, dtype=torch.float32, use_safetensors=True, **where
        )
        return cls(model)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write the codec to `folder`, so that `from_pretrained(folder)` gives the same codes."""
        self._adapter.model.save_pretrained(folder)

    @property
    def device(self) -> torch.device:
        """Where the codec computes, and where codes and waveforms come back."""
        return self._adapter.model.device

    @property
    def is_causal(self) -> bool:
        """Whether no code depends on later samples: padding then changes nothing, and `stream` works."""
        return self._adapter.causal_encoder is not None

    @property
    def prefix_frames(self) -> int | None:
        """Frames from which on the codes of a clip's beginning are the beginning of its codes; None if never."""
        return self._adapter.causal_encoder.first_frames if self.is_causal else None

    def to(self, device: torch.device | str) -> "AudioCodec":
        """Move the codec to `device`, in place; returns it."""
        self._adapter.to(device)
        return self

    @torch.no_grad()
    def encode(self, waveforms: Tensor, num_codebooks: int) -> Tensor:
        """Codes of the first `num_codebooks` codebooks, int64 (batch, num_codebooks, frames).

        On a CPU the rows are encoded one by one: this is faster than a batch there, and the codes of a clip are the
        same in any batch.

        Args:
            waveforms: float (batch, samples) in [-1, 1] at `sampling_rate`; samples a multiple of `hop_length`.
            num_codebooks: from 1 to `self.num_codebooks`.

        Raises:
            ValueError: for waveforms of another shape, dtype or length, and for a `num_codebooks` out of range.
        """
        self._check_num_codebooks(num_codebooks)
        self._check_waveforms(waveforms)
        waveforms = waveforms.to(self.device, torch.float32)
        rows = waveforms.split(1) if self.device.type == "cpu" else (waveforms,)
        return torch.cat([self._adapter.encode(row, num_codebooks) for row in rows])

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Waveforms of `codes`, float32 (batch, samples) at `sampling_rate`.

        There are frames x hop_length samples (a DAC with odd ratios gives a few less), of one channel. Codes of a
        codec that normalises the level (encodec_48khz) do not carry the level.

        Args:
            codes: int64 (batch, num_codebooks, frames), values in [0, codebook_size).

        Raises:
            ValueError: for codes of another shape, dtype or range.
        """
        self._check_codes(codes)
        return self._adapter.decode(codes.to(self.device))

    def stream(self, num_codebooks: int) -> "CodecStream":
        """An encoder for sound that arrives in chunks; its codes are those of the whole clip.

        Raises:
            ValueError: for a codec that is not a causal EnCodec, and for a `num_codebooks` out of range.
        """
        self._check_num_codebooks(num_codebooks)
        encoder = self._adapter.causal_encoder
        if encoder is None:
            raise ValueError(f"streaming needs a causal EnCodec such as facebook/encodec_24khz; this is {self!r}.")
        return CodecStream(encoder, num_codebooks)

    def codebook_vectors(self) -> Tensor:
        """The vectors of all codebooks, float32 (num_codebooks, codebook_size, dim), each in its codebook's space."""
        return torch.stack(self._adapter.codebooks())

    def fingerprint(self) -> str:
        """The SHA-256, in hexadecimal, of configuration and weights: codecs that share it give the same codes."""
        return fingerprint(self._adapter.model)

    def __repr__(self) -> str:
        model_type = self._adapter.model.config.model_type
        return (
            f"AudioCodec({model_type}, sampling_rate={self.sampling_rate}, frame_rate={self.frame_rate:g}, "
            f"num_codebooks={self.num_codebooks}, codebook_size={self.codebook_size}, device={self.device})"
        )

    def _check_codebooks(self) -> None:
        empty = [index for index, vectors in enumerate(self._adapter.codebooks()) if not vectors.any()]
        if empty:
            raise ValueError(
                f"codebooks {empty} of the {self._adapter.model.config.model_type} codec are all zero, so every code "
                "would be 0: the model is randomly initialised or its weights are incomplete. Load trained weights."
            )

    def _check_num_codebooks(self, num_codebooks: int) -> None:
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks must be from 1 to {self.num_codebooks} for {self!r}; got {num_codebooks}.")

    def _check_waveforms(self, waveforms: Tensor) -> None:
        if waveforms.dim() != 2 or not waveforms.is_floating_point():
            raise ValueError(
                f"waveforms must be a float tensor (batch, samples); got {waveforms.dtype} {tuple(waveforms.shape)}."
            )
        batch, samples = waveforms.shape
        if batch == 0 or samples == 0 or samples % self.hop_length:
            raise ValueError(
                "waveforms must hold at least one row and a whole number of frames: samples a positive multiple of "
                f"{self.hop_length}; got {tuple(waveforms.shape)}. Pad with zeros on the right."
            )

    def _check_codes(self, codes: Tensor) -> None:
        if codes.dim() != 3 or codes.dtype != torch.int64 or 0 in codes.shape:
            raise ValueError(
                "codes must be int64 (batch, num_codebooks, frames) and not empty; "
                f"got {codes.dtype} {tuple(codes.shape)}."
            )
        self._check_num_codebooks(codes.shape[1])
        lowest, highest = (int(value) for value in torch.aminmax(codes))
        if lowest < 0 or highest >= self.codebook_size:
            raise ValueError(
                f"codes must lie in [0, {self.codebook_size}); found values from {lowest} to {highest}. Remove special "
                "tokens and padding first."
            )


def fingerprint(model: PreTrainedModel) -> str:
    """The SHA-256, in hexadecimal, of a model's configuration and weights, wherever and by whatever it was saved."""
    config = {name: value for name, value in model.config.to_diff_dict().items() if name not in _NOT_IN_FINGERPRINT}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class CodecStream:
    """Encodes a waveform that arrives in chunks of any size; made by `AudioCodec.stream`.

    The codes pushed out, one after the other, are those of `AudioCodec.encode` on the whole waveform, padded with
    zeros to whole frames (fraction of equal codes at least 0.999: float32 rounding may flip a near tie).
    Where the start of the clip is reflected, the first frames wait for it (7 frames for encodec_24khz, 93 ms).
    """

    def __init__(self, encoder: "_CausalEncoder", num_codebooks: int) -> None:
        self._encoder = encoder
        self._num_codebooks = num_codebooks
        self._memory: Memory = {}
        self._waiting = self._no_samples()

    def push(self, chunk: Tensor) -> Tensor:
        """Take float samples (samples,); returns the codes known by now, int64 (num_codebooks, new_frames).

        Raises:
            ValueError: for a chunk that is not a float tensor of one dimension.
        """
        if chunk.dim() != 1 or not chunk.is_floating_point():
            raise ValueError(f"chunk must be a float tensor (samples,); got {chunk.dtype} {tuple(chunk.shape)}.")
        self._waiting = torch.cat([self._waiting, chunk.to(self._waiting)])
        ready = self._waiting.shape[0] // self._encoder.hop_length
        if not self._memory and ready < self._encoder.first_frames:
            ready = 0
        return self._encode(ready)

    def flush(self) -> Tensor:
        """End the clip: its last codes, int64 (num_codebooks, new_frames); the next push starts another clip."""
        hop_length = self._encoder.hop_length
        self._waiting = F.pad(self._waiting, (0, -self._waiting.shape[0] % hop_length))
        codes = self._encode(self._waiting.shape[0] // hop_length)
        self._memory, self._waiting = {}, self._no_samples()
        return codes

    def _no_samples(self) -> Tensor:
        return self._encoder.quantizer.codebooks.new_empty(0)

    @torch.no_grad()
    def _encode(self, frames: int) -> Tensor:
        if frames == 0:
            return torch.empty(self._num_codebooks, 0, dtype=torch.int64, device=self._waiting.device)
        samples = frames * self._encoder.hop_length
        ready, self._waiting = self._waiting[:samples], self._waiting[samples:].clone()
        return self._encoder(ready[None], self._num_codebooks, self._memory)[0]


# One adapter per family: its model, and its codes as (batch, num_codebooks, frames).


class _Adapter(nn.Module):
    model: Any
    causal_encoder: "_CausalEncoder | None"

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.causal_encoder = None

    @property
    def sampling_rate(self) -> int:
        return self.model.config.sampling_rate

    @property
    def hop_length(self) -> int:
        return self.model.config.hop_length

    def encode(self, waveforms: Tensor, num_codebooks: int) -> Tensor:
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        return self.model.decode(audio_codes=codes).audio_values.flatten(1)

    def codebooks(self) -> list[Tensor]:
        raise NotImplementedError


class _EncodecAdapter(_Adapter):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        config: Any = model.config
        if config.chunk_length_s is not None:
            config.overlap = 0.0  # overlapping chunks (encodec_48khz) would give some sound two frames
        if _is_causal(config):
            self.causal_encoder = _CausalEncoder(model)

    def encode(self, waveforms: Tensor, num_codebooks: int) -> Tensor:
        if self.causal_encoder is not None:
            return self.causal_encoder(waveforms, num_codebooks, {})
        channels = waveforms[:, None].expand(-1, self.model.config.audio_channels, -1)
        output = self.model.encode(channels, bandwidth=_bandwidth(self.model, num_codebooks))
        codes = output.audio_codes.permute(1, 2, 0, 3).flatten(2)  # chunks one after the other
        return codes[:, :num_codebooks, : waveforms.shape[-1] // self.hop_length]

    def decode(self, codes: Tensor) -> Tensor:
        config = self.model.config
        chunk_frames = config.chunk_length // config.hop_length if config.chunk_length else codes.shape[-1]
        chunks = [self.model.decode(chunk[None], [None]).audio_values for chunk in codes.split(chunk_frames, dim=-1)]
        return torch.cat(chunks, dim=-1).mean(dim=1)

    def codebooks(self) -> list[Tensor]:
        return [layer.codebook.embed for layer in self.model.quantizer.layers]


class _DacAdapter(_Adapter):
    def encode(self, waveforms: Tensor, num_codebooks: int) -> Tensor:
        return self.model.encode(waveforms[:, None], n_quantizers=num_codebooks).audio_codes

    def codebooks(self) -> list[Tensor]:
        return [quantizer.codebook.weight for quantizer in self.model.quantizer.quantizers]


class _MimiAdapter(_Adapter):
    @property
    def hop_length(self) -> int:
        return self.model.config.frame_size

    def encode(self, waveforms: Tensor, num_codebooks: int) -> Tensor:
        asked = max(num_codebooks, self.model.config.num_semantic_quantizers)
        return self.model.encode(waveforms[:, None], num_quantizers=asked).audio_codes[:, :num_codebooks]

    def codebooks(self) -> list[Tensor]:
        quantizer = self.model.quantizer
        layers = [
            *quantizer.semantic_residual_vector_quantizer.layers,
            *quantizer.acoustic_residual_vector_quantizer.layers,
        ]
        return [layer.codebook.embed for layer in layers]


class _XcodecAdapter(_Adapter):
    @property
    def sampling_rate(self) -> int:
        return self.model.config.sample_rate

    def encode(self, waveforms: Tensor, num_codebooks: int) -> Tensor:
        output = self.model.encode(waveforms[:, None], bandwidth=_bandwidth(self.model, num_codebooks))
        return output.audio_codes[:, :num_codebooks]

    def codebooks(self) -> list[Tensor]:
        return [quantizer.codebook.embed for quantizer in self.model.quantizer.quantizers]


_ADAPTERS: dict[str, Callable[[PreTrainedModel], _Adapter]] = {
    "encodec": _EncodecAdapter,
    "dac": _DacAdapter,
    "mimi": _MimiAdapter,
    "xcodec": _XcodecAdapter,
}
SUPPORTED_CODECS = tuple(_ADAPTERS)


def _unsupported(model_type: str, name_or_path: str | PathLike[str] = "the model") -> str:
    return (
        f"{name_or_path} is of type {model_type!r}, which is not a codec known here; "
        f"allowed types: {', '.join(SUPPORTED_CODECS)}."
    )


def _bandwidth(model: Any, num_codebooks: int) -> float:
    """The smallest bandwidth in kbps of the model that gives at least `num_codebooks` codebooks."""
    bandwidths = sorted(model.config.target_bandwidths)
    return next(
        bandwidth
        for bandwidth in bandwidths
        if model.quantizer.get_num_quantizers_for_bandwidth(bandwidth) >= num_codebooks
    )


# The causal EnCodec encoder. Source: transformers, models/encodec/modeling_encodec.py.


def _is_causal(config: EncodecConfig) -> bool:
    """Whether codes depend on the past only, so that `_CausalEncoder` can compute them."""
    return (
        config.use_causal_conv
        and config.norm_type == "weight_norm"
        and config.audio_channels == 1
        and not config.normalize
        and config.chunk_length_s is None
        and config.pad_mode in ("reflect", "constant")
    )


class _CausalEncoder(nn.Module):
    """Encoder and quantiser of a causal `EncodecModel`, able to go on where the last samples ended."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        layers = list(model.encoder.layers)
        recurrent = next(index for index, layer in enumerate(layers) if isinstance(layer, EncodecLSTM))
        self.convolutions = _CausalSequence(layers[:recurrent])
        self.recurrent = _CausalSequence(layers[recurrent:])
        self.quantizer = _ResidualQuantizer(torch.stack([layer.codebook.embed for layer in model.quantizer.layers]))
        self.hop_length: int = model.config.hop_length
        self.first_frames = self._frames_before_start()

    def forward(self, waveforms: Tensor, num_codebooks: int, memory: Memory) -> Tensor:
        """Codes (batch, num_codebooks, frames) of whole frames of sound (batch, samples) that follow `memory`."""
        wanted_samples = _CPU_BLOCK_SAMPLES if waveforms.device.type == "cpu" else _ACCELERATOR_BLOCK_SAMPLES
        block_frames = max(wanted_samples // self.hop_length, self.first_frames)
        blocks = waveforms[:, None].split(block_frames * self.hop_length, dim=-1)
        hidden = torch.cat([self.convolutions(block, memory) for block in blocks], dim=-1)
        return self.quantizer(self.recurrent(hidden, memory).transpose(1, 2), num_codebooks)

    def _frames_before_start(self) -> int:
        """Frames needed at once at the start of a clip: reflection mirrors samples that are yet to come."""
        needed_samples, samples_per_step = 1, 1
        for conv in (module for module in self.modules() if isinstance(module, _CausalConv1d)):
            if conv.pad_mode == "reflect":
                needed_samples = max(needed_samples, (conv.context + 1) * samples_per_step)
            samples_per_step *= conv.stride
        return math.ceil(needed_samples / self.hop_length)


class _CausalConv1d(nn.Module):
    """`EncodecConv1d` with folded weights, which remembers the end of its input in place of padding the start."""

    def __init__(self, source: EncodecConv1d) -> None:
        super().__init__()
        conv: Any = source.conv
        self.weight = nn.Buffer(conv.weight.detach().clone())
        self.bias = nn.Buffer(conv.bias.detach().clone())
        self.stride: int = conv.stride[0]
        self.dilation: int = conv.dilation[0]
        self.context: int = (conv.kernel_size[0] - 1) * self.dilation + 1 - self.stride
        self.pad_mode: str = source.pad_mode

    def forward(self, hidden: Tensor, memory: Memory) -> Tensor:
        if self.context:
            past = memory.get(self)
            if past is None:
                past = self._before_start(hidden)
            hidden = torch.cat([past, hidden], dim=-1)
            memory[self] = hidden[..., -self.context :].clone()
        return F.conv1d(hidden, self.weight, self.bias, self.stride, dilation=self.dilation)

    def _before_start(self, hidden: Tensor) -> Tensor:
        if self.pad_mode == "constant":
            return hidden.new_zeros(*hidden.shape[:-1], self.context)
        # Like EnCodec, an input too short to be mirrored is continued with zeros.
        mirrored = hidden[..., 1 : self.context + 1]
        return F.pad(mirrored, (0, self.context - mirrored.shape[-1])).flip(-1)


class _CausalResidual(nn.Module):
    """`EncodecResnetBlock`: a convolutional branch added to a shortcut."""

    def __init__(self, source: EncodecResnetBlock) -> None:
        super().__init__()
        self.branch = _CausalSequence(source.block)
        self.shortcut = _causal(source.shortcut)

    def forward(self, hidden: Tensor, memory: Memory) -> Tensor:
        return self.branch(hidden, memory).add_(self.shortcut(hidden, memory))


class _CausalLstm(nn.Module):
    """`EncodecLSTM`, which goes on from the state it reached."""

    def __init__(self, source: EncodecLSTM) -> None:
        super().__init__()
        self.lstm = source.lstm

    def forward(self, hidden: Tensor, memory: Memory) -> Tensor:
        steps = hidden.permute(2, 0, 1)
        output, memory[self] = self.lstm(steps, memory.get(self))
        return (output + steps).permute(1, 2, 0)


class _Elu(nn.Module):
    def forward(self, hidden: Tensor, memory: Memory) -> Tensor:
        if hidden.device.type != "cpu":
            return F.elu(hidden)
        # torch computes ELU by expm1, on a CPU ten times slower than exp; they differ by 6e-8 at most.
        negative = torch.exp(hidden).sub_(1.0).clamp_max_(0.0)
        return torch.maximum(hidden, negative, out=negative)


class _CausalSequence(nn.Module):
    def __init__(self, sources: list[nn.Module] | nn.ModuleList) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_causal(source) for source in sources])

    def forward(self, hidden: Tensor, memory: Memory) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden, memory)
        return hidden


def _causal(source: nn.Module) -> nn.Module:
    """The layer with a memory that computes what `source`, a layer of `EncodecEncoder`, computes."""
    kinds: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
        EncodecConv1d: _CausalConv1d,
        EncodecResnetBlock: _CausalResidual,
        EncodecLSTM: _CausalLstm,
        nn.ELU: lambda _: _Elu(),
        nn.Identity: lambda _: _CausalSequence([]),
    }
    return kinds[type(source)](source)


class _ResidualQuantizer(nn.Module):
    """Nearest vectors, codebook after codebook: |x - e|^2 is smallest where x.e - |e|^2 / 2 is largest."""

    def __init__(self, codebooks: Tensor) -> None:
        super().__init__()
        self.codebooks = nn.Buffer(codebooks)
        self.offsets = nn.Buffer(codebooks.square().sum(dim=-1) / -2)

    def forward(self, frames: Tensor, num_codebooks: int) -> Tensor:
        residual = frames.flatten(0, 1)
        codes = []
        for vectors, offset in zip(self.codebooks[:num_codebooks], self.offsets, strict=False):
            nearest = torch.addmm(offset, residual, vectors.t()).argmax(dim=-1)
            residual = residual - F.embedding(nearest, vectors)
            codes.append(nearest.view(frames.shape[:2]))
        return torch.stack(codes, dim=1)


__all__ = ["SUPPORTED_CODECS", "AudioCodec", "CodecStream", "fingerprint"]
