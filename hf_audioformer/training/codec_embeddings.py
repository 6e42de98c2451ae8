"""New networks that know from the start which codes sound alike."""

import math
from typing import cast

import torch

from .. import AudioCodec, AudioFormerForMaskedLM
from ..models.audioformer.modeling_audioformer import AudioFormerLabelledModel

__all__ = ["start_from_codec"]


@torch.no_grad()
def start_from_codec(model: AudioFormerForMaskedLM | AudioFormerLabelledModel, codec: AudioCodec) -> None:
    """Writes the codec's vectors of the codebooks that a model reads into its code embeddings.

    The vectors are turned onto their principal axes, so that the leading ones are kept when the model is narrower than
    the codec, and scaled to the spread of new embeddings: codes that sound alike then start alike, and the sum over
    codebooks is the codec's own approximation of the frame.
    """
    config = model.config
    vectors = codec.codebook_vectors()[config.codebook_index :][: config.num_codebooks].cpu()
    flat = (vectors - vectors.mean(dim=1, keepdim=True)).flatten(0, 1)
    axes = torch.linalg.eigh(flat.T @ flat).eigenvectors.flip(-1)[:, : config.hidden_size]
    turned = (flat @ axes).view(*vectors.shape[:2], -1)
    turned *= config.initializer_range * math.sqrt(config.hidden_size / turned.shape[-1]) / turned[0].std()
    weight = cast(torch.nn.Embedding, model.audioformer.get_input_embeddings()).weight
    table = weight.view(config.num_codebooks, -1, config.hidden_size)
    table[:, : config.codebook_size, : turned.shape[-1]] = turned
    table[:, : config.codebook_size, turned.shape[-1] :] = 0
