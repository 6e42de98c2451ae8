"""A stock AST classifier that gives the same logits, and learns the same, for less."""

from typing import Any

from torch import Tensor, nn
from transformers import ASTForAudioClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.audio_spectrogram_transformer import modeling_audio_spectrogram_transformer as stock

from .tokens_ast import NUM_SPECIAL_TOKENS

__all__ = ["make_lean"]


def make_lean(model: ASTForAudioClassification) -> None:
    """Has a classifier leave out what its logits do not depend on, and embed patches by a product of matrices.

    Of the last layer's outputs the classifier reads those of the two special tokens, and no others are computed from
    then on: `last_hidden_state` is (batch, 2, hidden_size). Logits and gradients are the stock model's, up to rounding.
    Two classes are replaced within the model; weights, checkpoints and configuration know nothing of it.
    """
    network = model.audio_spectrogram_transformer
    network.layers[-1].__class__ = ASTLayer
    network.embeddings.patch_embeddings.projection.__class__ = _PatchProjection


class ASTLayer(stock.ASTLayer):
    """A last layer that computes the special tokens alone. Named as the stock one, by which FSDP finds the layers."""

    def forward(self, hidden_states: Tensor, attention_mask: Any = None, **kwargs: Any) -> Tensor:
        """(batch, tokens, hidden_size) to (batch, 2, hidden_size)."""
        if attention_mask is not None and not (isinstance(attention_mask, Tensor) and attention_mask.ndim == 4):
            # Flash and flex attention have masks of their own, which are not cut by queries.
            return super().forward(hidden_states, attention_mask, **kwargs)[:, :NUM_SPECIAL_TOKENS]
        residual = hidden_states[:, :NUM_SPECIAL_TOKENS]
        attended = self._attend(self.layernorm_before(hidden_states), attention_mask, **kwargs)
        residual = residual + self.dropout(attended)
        return residual + self.dropout(self.mlp(self.layernorm_after(residual)))

    def _attend(self, tokens: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> Tensor:
        """As `ASTAttention` for the first tokens, which see all."""
        attention = self.attention
        queries = tokens[:, :NUM_SPECIAL_TOKENS]
        query, key, value = (
            projection(read).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for projection, read in (
                (attention.q_proj, queries),
                (attention.k_proj, tokens),
                (attention.v_proj, tokens),
            )
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            attention.config._attn_implementation, stock.eager_attention_forward
        )
        attended, _ = attend(
            attention,
            query,
            key,
            value,
            None if attention_mask is None else attention_mask[:, :, :NUM_SPECIAL_TOKENS],
            dropout=attention.attention_dropout if self.training else 0.0,
            scaling=attention.scaling,
            **kwargs,
        )
        return attention.o_proj(attended.flatten(2))


class _PatchProjection(nn.Conv2d):
    """The backward pass of PyTorch's own convolution took two fifths of a step of a small AST on a CPU in bfloat16."""

    def forward(self, spectrograms: Tensor) -> Tensor:
        """(batch, 1, bands, frames) to (batch, hidden_size, patches over frequency, patches over time)."""
        (height, width), (rise, advance) = self.kernel_size, self.stride
        patches = spectrograms[:, 0].unfold(1, height, rise).unfold(2, width, advance)
        return nn.functional.linear(patches.flatten(3), self.weight.flatten(1), self.bias).movedim(-1, 1)
