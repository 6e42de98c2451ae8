"""Front ends of AudioFormer: codes, frames of features, patches of a spectrogram or samples in, vectors out.

All have one interface: inputs and their mask in, one vector per position and the mask of positions out. A position
stands for `stride` input frames, and there are `positions_per_frame` of them for one moment. Padding never reaches a
vector that is not padding itself, wherever it lies and however long it is.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from .configuration_audioformer import AudioFormerConfig

# Of the LayerNorms of convolutions, which digital silence reaches: a smaller one would let its gradient explode.
CONV_NORM_EPS = 1e-5

Masked = tuple[torch.Tensor, torch.Tensor | None]


class AudioFormerEmbeddings(nn.Module):
    """What all front ends share: LayerNorm, positions where they are added, dropout.

    Attributes:
        stride: Input frames (samples of a waveform) from one position to the next.
        positions_per_frame: Positions that stand for the same moment, one after the other.
    """

    positions_per_frame = 1
    input_layer = "projection"  # the name of what turns inputs into vectors

    def __init__(self, config: AudioFormerConfig):
        super().__init__()
        self.config = config
        self.stride = config.input_stride
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        kind = POSITION_EMBEDDINGS.get(config.position_embedding_type)
        self.position_embeddings = None if kind is None else kind(config)

    def embed(self, inputs: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Masked:
        """Embeds inputs with their mask (batch, input frames) as (batch, positions, hidden_size) with theirs."""
        raise NotImplementedError

    def forward(
        self,
        inputs: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None = None,
        first_moment: int = 0,
    ) -> Masked:
        """As `embed`, or from `inputs_embeds` with the mask of positions; normalised, with positions added, which count
        from `first_moment`."""
        if inputs_embeds is None:
            inputs_embeds, attention_mask = self.embed(inputs, attention_mask)
        states = self.norm(inputs_embeds)
        if self.position_embeddings is not None:
            moments = self._moments(states, attention_mask, first_moment)
            states = states + self.position_embeddings(moments).to(states.dtype)
        return self.dropout(states), attention_mask

    def _moments(self, states: torch.Tensor, attention_mask: torch.Tensor | None, first: int) -> torch.Tensor:
        """The moment of each position, that of a clip's first one being `first`: int64 (1 or batch, positions)."""
        if attention_mask is None or attention_mask.dim() != 2:
            places = torch.arange(states.shape[1], device=states.device).unsqueeze(0)
            width = first + states.shape[1] // self.positions_per_frame
        else:  # a mask goes back to the clip's beginning, also where that is in a cache
            places = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -states.shape[1] :]
            first, width = 0, attention_mask.shape[1] // self.positions_per_frame
        moments, longest = first + places // self.positions_per_frame, self.config.max_source_positions
        if self.config.position_embedding_type == "learned" and width > longest:
            found = int(moments.max()) + 1  # padding counts for none
            if found > longest:
                raise ValueError(
                    f"a clip has {found} moments, and this model learned positions of {longest} "
                    "(max_source_positions). Cut it, or call model.resize_position_embeddings."
                )
        return moments


class AudioFormerCodeEmbeddings(AudioFormerEmbeddings):
    """Turns codes into vectors: one table holds the rows of every codebook; a frame is the sum of its codebooks."""

    input_layer = "code_embeddings"

    def __init__(self, config: AudioFormerConfig):
        super().__init__(config)
        self.vocab_size = config.vocab_size
        self.num_codebooks = config.num_codebooks
        self.fusion = config.fusion
        self.codebook_index = config.codebook_index
        self.code_embeddings = nn.Embedding(config.num_codebooks * config.vocab_size, config.hidden_size)

    def embed(self, inputs: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Masked:
        """Embeds codes (batch, frames) or (batch, frames, num_codebooks)."""
        self._check_shape(inputs.shape)
        if inputs.dim() == 2:
            return self.code_embeddings(inputs), attention_mask
        if self.fusion == "first":
            return self.code_embeddings(inputs[..., self.codebook_index]), attention_mask
        rows = torch.arange(self.num_codebooks, device=inputs.device) * self.vocab_size
        return self.code_embeddings(inputs + rows).sum(dim=2), attention_mask

    def _check_shape(self, shape: torch.Size) -> None:
        """Refuses input_ids without the codebooks that are read."""
        if self.num_codebooks == 1 and len(shape) == 2:
            return
        if self.fusion == "first":
            fits = len(shape) == 3 and shape[2] > self.codebook_index
            expected = f"(batch, frames) or (batch, frames, num_codebooks) of {self.codebook_index + 1} or more"
        else:
            fits = len(shape) == 3 and shape[2] == self.num_codebooks
            expected = f"(batch, frames, {self.num_codebooks})"
        if not fits:
            raise ValueError(
                f"input_ids has shape {tuple(shape)}; this model reads {expected}. Set num_codebooks of the feature "
                "extractor to that."
            )


class AudioFormerConvLayer(nn.Module):
    """A convolution over time, LayerNorm of each frame, and the activation.

    n frames become ceil(n / stride). Zeros stand before and after a clip, also where a batch has padding.
    """

    def __init__(self, config: AudioFormerConfig, in_channels: int, layer_idx: int):
        super().__init__()
        channels, self.kernel_size = config.conv_dim[layer_idx], config.conv_kernel[layer_idx]
        self.stride = config.conv_stride[layer_idx]
        self.conv = nn.Conv1d(in_channels, channels, self.kernel_size, stride=self.stride)
        self.norm = nn.LayerNorm(channels, eps=CONV_NORM_EPS)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, frames: torch.Tensor, attention_mask: torch.Tensor | None) -> Masked:
        """(batch, frames, in_channels) to (batch, ceil(frames / stride), channels)."""
        frames = without_padding(frames, attention_mask)
        outputs = -(-frames.shape[1] // self.stride)
        before = max(0, self.kernel_size - self.stride) // 2
        after = max(0, (outputs - 1) * self.stride + self.kernel_size - frames.shape[1] - before)
        frames = self.conv(F.pad(frames.transpose(1, 2), (before, after))).transpose(1, 2)
        return self.activation(self.norm(frames)), subsampled(attention_mask, self.stride)


class AudioFormerFrameEmbeddings(AudioFormerEmbeddings):
    """Turns frames of features, or samples, into vectors: convolutions over time if there are any, and a projection."""

    def __init__(self, config: AudioFormerConfig):
        super().__init__(config)
        self.num_features = config.num_features
        self.reads_samples = config.front_end == "waveform"
        channels = [config.num_features, *config.conv_dim]
        self.conv_layers = nn.ModuleList(
            AudioFormerConvLayer(config, in_channels, index) for index, in_channels in enumerate(channels[:-1])
        )
        self.projection = nn.Linear(channels[-1], config.hidden_size)

    def embed(self, inputs: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Masked:
        """Embeds frames (batch, frames, num_features), or for a waveform samples (batch, samples)."""
        if self.reads_samples:
            check_input_values(inputs.shape, "(batch, samples)", inputs.dim() == 2)
            inputs = inputs.unsqueeze(-1)
        else:
            check_features(inputs.shape, self.num_features)
        frames = inputs.to(self.projection.weight.dtype)
        if len(self.conv_layers):
            frames, attention_mask = at_the_beginning(frames, attention_mask)
        for layer in self.conv_layers:
            frames, attention_mask = layer(frames, attention_mask)
        return self.projection(without_padding(frames, attention_mask)), attention_mask


class AudioFormerPatchProjection(nn.Conv2d):
    """The convolution that makes vectors of patches, as a product of matrices.

    PyTorch's own (seen with 2.14, oneDNN on a CPU with AMX) leaves outputs unwritten in bfloat16 for some patches as
    high as the spectrogram, [2, 64] say (see https://github.com/pytorch/pytorch/issues/163347).
    """

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(batch, frames, features) to (batch, moments, heights, channels)."""
        patches = frames
        for dim, (size, stride) in enumerate(zip(self.kernel_size, self.stride, strict=True), start=1):
            patches = patches.unfold(dim, size, stride)
        return F.linear(patches.flatten(3), self.weight.flatten(1), self.bias)


class AudioFormerPatchEmbeddings(AudioFormerEmbeddings):
    """Turns patches of a spectrogram into vectors: those of one moment one after the other, from low to high.

    n frames have ceil(n / stride) moments; what the last patches read beyond the clip is zero.
    """

    def __init__(self, config: AudioFormerConfig):
        super().__init__(config)
        self.num_features = config.num_features
        self.patch_frames, patch_features = config.patch_size
        frame_stride, feature_stride = config.patch_stride
        self.positions_per_frame = (config.num_features - patch_features) // feature_stride + 1
        self.projection = AudioFormerPatchProjection(
            1, config.hidden_size, (self.patch_frames, patch_features), stride=(frame_stride, feature_stride)
        )
        self.height_embeddings = nn.Embedding(self.positions_per_frame, config.hidden_size)

    def embed(self, inputs: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Masked:
        """Embeds spectrograms (batch, frames, num_features)."""
        check_features(inputs.shape, self.num_features)
        frames, attention_mask = at_the_beginning(inputs.to(self.projection.weight.dtype), attention_mask)
        frames = without_padding(frames, attention_mask)
        moments = -(-frames.shape[1] // self.stride)
        after = max(0, (moments - 1) * self.stride + self.patch_frames - frames.shape[1])
        patches = self.projection(F.pad(frames, (0, 0, 0, after)))
        vectors = (patches + self.height_embeddings.weight).flatten(1, 2)
        attention_mask = subsampled(attention_mask, self.stride)
        if attention_mask is not None:
            attention_mask = attention_mask.repeat_interleave(self.positions_per_frame, dim=1)
        return vectors, attention_mask


class AudioFormerSinusoidalEmbeddings(nn.Module):
    """Sines and cosines of a moment, at wavelengths from 2 pi to 20,000 pi frames; for clips of any length.

    Source: arXiv 1706.03762, section 3.5.
    """

    def __init__(self, config: AudioFormerConfig):
        super().__init__()
        self.hidden_size = config.hidden_size

    def forward(self, moments: torch.Tensor) -> torch.Tensor:
        """int64 (batch, positions) to float32 (batch, positions, hidden_size)."""
        exponents = torch.arange(0, self.hidden_size, 2, device=moments.device, dtype=torch.float) / self.hidden_size
        angles = moments.unsqueeze(-1) * 10_000.0**-exponents
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class AudioFormerLearnedEmbeddings(nn.Module):
    """A learned vector for each of the first `max_source_positions` moments."""

    def __init__(self, config: AudioFormerConfig):
        super().__init__()
        self.table = nn.Embedding(config.max_source_positions, config.hidden_size)

    def forward(self, moments: torch.Tensor) -> torch.Tensor:
        """int64 (batch, positions) to (batch, positions, hidden_size)."""
        return self.table(moments)

    @torch.no_grad()
    def resize(self, moments: int) -> None:
        """Keeps the first moments, or stretches those there are over a longer clip by linear interpolation.

        Source: `get_shape` and the surgery of positions in src/models/ast_models.py of github.com/YuanGongND/ast.
        """
        old = self.table.weight
        if moments <= len(old):
            rows = old[:moments]
        else:
            rows = F.interpolate(old.float().T.unsqueeze(0), size=moments, mode="linear")[0].T.to(old.dtype)
        self.table = nn.Embedding.from_pretrained(rows.clone(), freeze=not old.requires_grad)


# Rotary positions are not added to the vectors, but turn queries and keys.
POSITION_EMBEDDINGS: dict[str, type[nn.Module]] = {
    "sinusoidal": AudioFormerSinusoidalEmbeddings,
    "learned": AudioFormerLearnedEmbeddings,
}
FRONT_ENDS: dict[str, type[AudioFormerEmbeddings]] = {
    "codes": AudioFormerCodeEmbeddings,
    "frames": AudioFormerFrameEmbeddings,
    "patches": AudioFormerPatchEmbeddings,
    "waveform": AudioFormerFrameEmbeddings,
}


def at_the_beginning(frames: torch.Tensor, attention_mask: torch.Tensor | None) -> Masked:
    """Moves the padding before a clip behind it, so that strides count from the clip's own first frame."""
    if attention_mask is None:
        return frames, None
    first = attention_mask.to(torch.int).argmax(dim=1, keepdim=True)
    order = (torch.arange(frames.shape[1], device=frames.device) + first) % frames.shape[1]
    return frames.gather(1, order.unsqueeze(-1).expand_as(frames)), attention_mask.gather(1, order)


def without_padding(frames: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Frames (batch, frames, channels) with zeros where the mask is 0."""
    return frames if attention_mask is None else frames.masked_fill((attention_mask == 0).unsqueeze(-1), 0)


def subsampled(attention_mask: torch.Tensor | None, stride: int) -> torch.Tensor | None:
    """The mask of every `stride` frames together, (batch, ceil(frames / stride)): 1 where any of them is."""
    if attention_mask is None or stride == 1:
        return attention_mask
    missing = -attention_mask.shape[1] % stride
    return F.pad(attention_mask, (0, missing)).unflatten(1, (-1, stride)).amax(dim=2)


def check_features(shape: torch.Size, num_features: int) -> None:
    """Refuses input_values that are not frames of `num_features` values."""
    fits = len(shape) == 3 and shape[2] == num_features
    check_input_values(shape, f"(batch, frames, {num_features})", fits)


def check_input_values(shape: torch.Size, expected: str, fits: bool) -> None:
    """Raises a ValueError that says which input_values are read."""
    if not fits:
        raise ValueError(
            f"input_values has shape {tuple(shape)}; this model reads {expected}. Make them by the feature extractor "
            "of its checkpoint."
        )


__all__ = [
    "FRONT_ENDS",
    "AudioFormerCodeEmbeddings",
    "AudioFormerEmbeddings",
    "AudioFormerFrameEmbeddings",
    "AudioFormerLearnedEmbeddings",
    "AudioFormerPatchEmbeddings",
]
