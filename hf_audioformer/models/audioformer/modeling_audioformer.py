"""AudioFormer: an encoder over codec tokens or continuous features, with heads for masked modelling, classification of
clips and of moments, regression, and vectors to be compared.

Source: arXiv 2308.07221 (method), `transformers.RoFormerModel` (encoder; weights map one to one in post-norm).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, ModelCard, ModelCardData
from torch import nn
from torch.nn import functional as F
from transformers import AutoFeatureExtractor
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.loss.loss_utils import ForMaskedLMLoss
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
    XVectorOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_audioformer import AudioFormerConfig
from .embeddings_audioformer import FRONT_ENDS, AudioFormerConvLayer, AudioFormerLearnedEmbeddings

RotaryAngles = tuple[torch.Tensor, torch.Tensor]

# Frames over which pooling by statistics measures change: 13, 53 and 213 ms at 75 frames per second.
STATISTICS_LAGS = (1, 4, 16)
RMS_OFFSET = 1e-5

# How Transformers makes the mask of a layer of each kind.
MASKS: dict[str, Callable] = {
    "full_attention": create_bidirectional_mask,
    "sliding_attention": create_bidirectional_sliding_window_mask,
}

# Transformers' label of what is not to be predicted.
IGNORED_LABEL = -100


class AudioFormerRotaryEmbedding(nn.Module):
    """Computes the rotary angles of a sequence of any length."""

    inv_freq: torch.Tensor

    def __init__(self, config: AudioFormerConfig, device: torch.device | None = None):
        super().__init__()
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        inv_freq, self.attention_scaling = self.compute_default_rope_parameters(config, device)
        # The names are those by which PreTrainedModel restores the buffers after loading on the meta device.
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(
        config: AudioFormerConfig, device: torch.device | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, float]:
        head_size = config.hidden_size // config.num_attention_heads
        exponents = torch.arange(0, head_size, 2, dtype=torch.float) / head_size
        return (1.0 / config.rope_parameters["rope_theta"] ** exponents).to(device), 1.0

    @torch.no_grad()
    def forward(
        self,
        hidden_states: torch.Tensor,
        positions_per_frame: int = 1,
        first: int = 0,
        attention_mask: torch.Tensor | None = None,
    ) -> RotaryAngles:
        """Returns the cosines and sines of all positions, counted from `first`, each (frames, head_size / 2), in the
        dtype of the states. With a mask (batch, frames) `first` is each clip's own first position, behind any padding,
        and they are (batch, 1, frames, head_size / 2)."""
        places = first + torch.arange(hidden_states.shape[1], device=hidden_states.device)
        if attention_mask is not None:
            padding = attention_mask.to(torch.int).argmax(dim=1)
            places = places - padding.view(-1, 1, 1)
        positions = (places // positions_per_frame).float()
        # Not from the buffers, which are rounded when a model is cast to half precision, as DeepSpeed does.
        inv_freq, _ = self.compute_default_rope_parameters(self.config, hidden_states.device)
        angles = positions.unsqueeze(-1) * inv_freq
        return angles.cos().to(hidden_states.dtype), angles.sin().to(hidden_states.dtype)


def rotate_pairs(states: torch.Tensor, angles: RotaryAngles) -> torch.Tensor:
    """Turns each interleaved pair of channels (0, 1), (2, 3), ... by its frame's angle.

    `states` is (batch, heads, frames, head_size). The result holds all first members of the pairs, then all second
    ones: queries and keys share that order, so their products are RoFormer's, and no copy is spent on interleaving.
    """
    cos, sin = angles
    first, second = states[..., ::2], states[..., 1::2]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def local_sdpa_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    sliding_window: int,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention to the positions less than `sliding_window` away, by scaled_dot_product_attention of blocks.

    Transformers' mask of a sliding window has all pairs of positions, and takes the time and memory of full attention.
    Here a block of `sliding_window` queries meets its own keys and those of the blocks beside it. `attention_mask` is
    that of padding, (batch, positions).
    """
    batch, _, length, _ = query.shape
    blocks = -(-length // sliding_window)
    behind = blocks * sliding_window - length
    around = (0, 0, sliding_window, sliding_window + behind)
    places = torch.arange(-sliding_window, 2 * sliding_window, device=query.device)
    distance = places - torch.arange(sliding_window, device=query.device).unsqueeze(1)
    valid = query.new_ones((1, length), dtype=torch.bool) if attention_mask is None else attention_mask != 0
    valid = F.pad(valid, around[2:]).unfold(1, 3 * sliding_window, sliding_window).unsqueeze(2)
    # A position sees itself, so that padding, too, has something to see.
    seen = (valid & (distance.abs() < sliding_window)) | (distance == 0)
    keys, values = (
        F.pad(states, around).unfold(2, 3 * sliding_window, sliding_window).permute(0, 2, 1, 4, 3).flatten(0, 1)
        for states in (key, value)
    )
    queries = F.pad(query, (0, 0, 0, behind)).unflatten(2, (blocks, -1)).transpose(1, 2).flatten(0, 1)
    mask = seen.expand(batch, -1, -1, -1).flatten(0, 1).unsqueeze(1)
    context = F.scaled_dot_product_attention(queries, keys, values, mask, dropout_p=dropout, scale=scaling)
    context = context.unflatten(0, (batch, blocks)).transpose(2, 3).flatten(1, 2)
    return context[:, :length], None


class AudioFormerAttention(nn.Module):
    """Bidirectional self-attention, with rotary positions or with none of its own, to all positions or to near ones."""

    def __init__(self, config: AudioFormerConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = False  # sdpa would be causal where there is no mask
        is_local = config.layer_types is not None and config.layer_types[layer_idx] == "sliding_attention"
        # As flash attention counts, which gets no mask: with the position itself.
        self.sliding_window = config.sliding_window + 1 if is_local else None
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary_angles: RotaryAngles | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query = self.heads(self.query, hidden_states, rotary_angles)
        key = self.heads(self.key, hidden_states, rotary_angles)
        return self.attend(query, key, self.heads(self.value, hidden_states), attention_mask, **kwargs)

    def heads(
        self, projection: nn.Linear, states: torch.Tensor, rotary_angles: RotaryAngles | None = None
    ) -> torch.Tensor:
        """Projects (batch, positions, hidden_size) to (batch, heads, positions, head_size), turned by the angles."""
        projected = projection(states).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
        return projected if rotary_angles is None else rotate_pairs(projected, rotary_angles)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the queries get from the values, (batch, positions, hidden_size), and the weights if they are kept."""
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        if self.sliding_window is not None and self.config._attn_implementation == "sdpa":
            attention = local_sdpa_attention_forward
        context, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.head_size**-0.5,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        return self.output(context.flatten(2)), weights


class AudioFormerMLP(nn.Module):
    """The two feed-forward projections with their activation."""

    def __init__(self, config: AudioFormerConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down(self.activation(self.up(hidden_states)))


class AudioFormerLayer(GradientCheckpointingLayer):
    """Attention and feed-forward, each with dropout, a residual and a LayerNorm after (`post`) or before (`pre`) it."""

    attention_class: type[AudioFormerAttention] = AudioFormerAttention

    def __init__(self, config: AudioFormerConfig, layer_idx: int):
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.attention = self.attention_class(config, layer_idx)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = AudioFormerMLP(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary_angles: RotaryAngles | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        hidden_states = self.add(
            hidden_states,
            self.attention_norm,
            lambda states: self.attention(states, attention_mask, rotary_angles, **kwargs)[0],
        )
        return self.add(hidden_states, self.mlp_norm, self.mlp)

    def add(
        self, hidden_states: torch.Tensor, norm: nn.Module, sublayer: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """The states with what a sublayer makes of them, and its LayerNorm where this model has it."""
        if self.pre_norm:
            return hidden_states + self.dropout(sublayer(norm(hidden_states)))
        return norm(hidden_states + self.dropout(sublayer(hidden_states)))


class AudioFormerPreTrainedModel(PreTrainedModel):
    """Weight initialisation, loading and the capabilities shared by all AudioFormer models."""

    config: AudioFormerConfig
    config_class = AudioFormerConfig
    base_model_prefix = "audioformer"
    main_input_name = "input_ids"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = [*(front_end.__name__ for front_end in FRONT_ENDS.values()), "AudioFormerLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": AudioFormerLayer, "attentions": AudioFormerAttention}

    def __init__(self, config: AudioFormerConfig, *inputs: Any, **kwargs: Any):
        super().__init__(config, *inputs, **kwargs)
        self.main_input_name = config.main_input_name

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AudioFormerConvLayer):
            init.kaiming_normal_(module.conv.weight)
        if isinstance(module, AudioFormerPooling) and module.kind == "statistics":
            init.zeros_(module.mean)
            init.ones_(module.spread)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Adds or removes tokens at the end of the vocabulary, as in Transformers, of a model of one codebook.

        Raises:
            ValueError: The model reads several codebooks, whose rows share one table.
        """
        if new_num_tokens is not None and self.config.num_codebooks > 1:
            raise ValueError(
                f"this model embeds {self.config.num_codebooks} codebooks of {self.config.vocab_size} tokens in one "
                "table; only with one codebook can tokens be added or removed. Set vocab_size in a new configuration."
            )
        return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)

    def get_position_embeddings(self) -> nn.Embedding:
        """The table of learned positions.

        Raises:
            ValueError: Positions are not learned.
        """
        return self._learned_positions().table

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Gives learned positions another number: the first ones are kept, or all are stretched by interpolation.

        Raises:
            ValueError: Positions are not learned, and reach as far as the clip does; or fewer than one is asked for.
        """
        positions = self._learned_positions()
        if new_num_position_embeddings < 1:
            raise ValueError(
                f"new_num_position_embeddings is {new_num_position_embeddings}; it must be at least 1 moment."
            )
        positions.resize(new_num_position_embeddings)
        self.config.max_source_positions = new_num_position_embeddings

    def _learned_positions(self) -> AudioFormerLearnedEmbeddings:
        if self.config.position_embedding_type != "learned":
            raise ValueError(
                f'position_embedding_type is "{self.config.position_embedding_type}", which has no table and no '
                'longest clip; only "learned" positions can be resized.'
            )
        encoder = cast(AudioFormerModel, self.base_model)
        return cast(AudioFormerLearnedEmbeddings, encoder.embeddings.position_embeddings)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        feature_extractor: Any = None,
        commit_message: str = "Upload model",
        commit_description: str | None = None,
        private: bool = True,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "50GB",
        tags: list[str] | None = None,
    ) -> CommitInfo:
        """Uploads the model in one commit with its feature extractor and codec, as Transformers does the model alone.

        The repository is private unless asked otherwise; one that is there and public is refused unless `private` is
        False. If it has no card it gets one that claims nothing.

        Args:
            feature_extractor: By default the one in the folder or repository that the model was loaded from.

        Raises:
            ValueError: No feature extractor is given or found, or the repository is public.
        """
        if feature_extractor is None and not self.name_or_path:
            raise ValueError("this model was not loaded from anywhere; give push_to_hub its feature_extractor, too.")
        extractor = feature_extractor or AutoFeatureExtractor.from_pretrained(self.name_or_path, token=token)
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise ValueError(f"{repo_id} is public; push there with private=False, or make it private first.")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        with TemporaryDirectory() as name:
            folder = Path(name)
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            extractor.save_pretrained(folder)
            if not api.file_exists(repo_id, "README.md", revision=revision):
                self._plain_card(repo_id, tags or []).save(folder / "README.md")
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return api.create_commit(
                repo_id,
                [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files],
                commit_message=commit_message,
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
            )

    def _plain_card(self, repo_id: str, tags: list[str]) -> ModelCard:
        name = type(self).__name__
        data = ModelCardData(
            library_name="transformers",
            pipeline_tag="audio-classification" if name.endswith("ForAudioClassification") else "feature-extraction",
            tags=["audioformer", *tags],
        )
        text = (
            f"# {repo_id.split('/')[-1]}\n\nAn `{name}`. What it was trained on and how well it does is not recorded."
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}\n")


@dataclass
class AudioFormerModelOutput(BaseModelOutput):
    """Output of [`AudioFormerModel`].

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, positions, hidden_size)`): One vector per position.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): One more than layers, each as `last_hidden_state`.
        attentions (`tuple(torch.FloatTensor)`, *optional*): One per layer, (batch, heads, positions, positions).
        attention_mask (`torch.Tensor` of shape `(batch, positions)`, *optional*): 1 for positions, 0 for padding, if a
            mask was given.
    """

    attention_mask: torch.Tensor | None = None


class AudioFormerModel(AudioFormerPreTrainedModel):
    """The bare encoder: codes or continuous features in, one vector per position out."""

    layer_class: type[AudioFormerLayer] = AudioFormerLayer

    def __init__(self, config: AudioFormerConfig):
        super().__init__(config)
        self.embeddings = FRONT_ENDS[config.front_end](config)
        is_rotary = config.position_embedding_type == "rotary"
        self.rotary_embedding = AudioFormerRotaryEmbedding(config) if is_rotary else None
        self.layers = nn.ModuleList(self.layer_class(config, index) for index in range(config.num_hidden_layers))
        pre_norm = config.norm_position == "pre"
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre_norm else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table of codes, or the projection of continuous features."""
        return getattr(self.embeddings, self.embeddings.input_layer)

    def set_input_embeddings(self, value: nn.Module) -> None:
        setattr(self.embeddings, self.embeddings.input_layer, value)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AudioFormerModelOutput:
        r"""Encodes codes or features; padding, batching and length change no output frame.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, frames)` or `(batch, frames, num_codebooks)`):
                Codes and special tokens, each below `config.vocab_size`.
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*):
                1 for frames, 0 for padding; all frames if not given. Samples of a waveform have one, too.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, positions, hidden_size)`, *optional*):
                Vectors in place of `input_ids`, before the embedding LayerNorm; the mask is then that of positions.
            input_values (`torch.FloatTensor` of shape `(batch, frames, num_features)` or `(batch, samples)`):
                What front ends other than codes read: features of frames, or samples.

        Returns:
            [`AudioFormerModelOutput`]: `last_hidden_state` (batch, positions, hidden_size), with a position for each
            code, or for every `config.input_stride` frames of `input_values` (several side by side for patches);
            `attention_mask` of these; on request `hidden_states` (one more than layers) and `attentions` (batch,
            heads, positions, positions; needs `attn_implementation="eager"`) as tuples.

        Raises:
            ValueError: Not exactly one of `inputs_embeds` and the model's own input is given, or it has another shape.
        """
        inputs = {"input_ids": input_ids, "input_values": input_values, "inputs_embeds": inputs_embeds}
        given = [name for name, tensor in inputs.items() if tensor is not None]
        if len(given) != 1 or given[0] not in (self.main_input_name, "inputs_embeds"):
            raise ValueError(
                f"Give exactly one of {self.main_input_name} and inputs_embeds; found {', '.join(given) or 'neither'}."
            )
        hidden_states, attention_mask = self.embeddings(
            inputs[self.main_input_name], attention_mask=attention_mask, inputs_embeds=inputs_embeds
        )
        masks = self._masks(hidden_states, attention_mask)
        rotary_angles = None
        if self.rotary_embedding is not None:
            rotary_angles = self.rotary_embedding(hidden_states, self.embeddings.positions_per_frame)
        for layer, mask in zip(self.layers, masks, strict=True):
            hidden_states = layer(hidden_states, mask, rotary_angles, **kwargs)
        return AudioFormerModelOutput(last_hidden_state=self.norm(hidden_states), attention_mask=attention_mask)

    def _masks(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> list[Any]:
        """The mask of each layer, as its kind and the attention implementation want it."""
        kinds = self.config.layer_types or ["full_attention"] * len(self.layers)
        made = {
            kind: MASKS[kind](config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask)
            for kind in dict.fromkeys(kinds)
            if (kind, self.config._attn_implementation) != ("sliding_attention", "sdpa")
        }
        return [made.get(kind, attention_mask) for kind in kinds]

    def moments(self, outputs: AudioFormerModelOutput) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One vector per moment, (batch, moments, hidden_size), and their mask: patches of one moment are averaged."""
        states, mask = outputs.last_hidden_state, outputs.attention_mask
        height = self.embeddings.positions_per_frame
        if height == 1:
            return states, mask
        return states.unflatten(1, (-1, height)).mean(dim=2), None if mask is None else mask[:, ::height]


class AudioFormerLMHead(nn.Module):
    """Predicts the tokens of every codebook from one vector per frame."""

    def __init__(self, config: AudioFormerConfig):
        super().__init__()
        self.num_codebooks = config.num_codebooks
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.num_codebooks * config.vocab_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns logits (..., vocab_size), or (..., num_codebooks, vocab_size) for several codebooks."""
        logits = self.decoder(self.norm(self.activation(self.dense(hidden_states))))
        return logits if self.num_codebooks == 1 else logits.unflatten(-1, (self.num_codebooks, -1))


class AudioFormerForMaskedLM(AudioFormerPreTrainedModel):
    """The encoder with a head that predicts masked codes; the decoder shares the code embeddings."""

    _tied_weights_keys = {"lm_head.decoder.weight": "audioformer.embeddings.code_embeddings.weight"}

    def __init__(self, config: AudioFormerConfig):
        if config.front_end != "codes":
            raise ValueError(
                f'front_end is "{config.front_end}"; masked modelling predicts codes, so it needs front_end="codes".'
            )
        super().__init__(config)
        self.audioformer = AudioFormerModel(config)
        self.lm_head = AudioFormerLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.lm_head.decoder = new_embeddings

    def predict_tokens(
        self, hidden_states: torch.Tensor, labels: torch.Tensor | None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits of the frames, and the cross-entropy over the labels that are not -100, if there are labels.

        Source: `transformers.ModernBertForMaskedLM` (sparse prediction).
        """
        if labels is None:
            return self.lm_head(hidden_states), None
        labels = self._labels_read(labels, hidden_states, **kwargs)
        if self.training and self.config.sparse_prediction:
            is_labelled = labels != IGNORED_LABEL
            frames = is_labelled if labels.dim() == 2 else is_labelled.any(dim=-1)
            hidden_states, labels = hidden_states[frames], labels[frames]
        logits = self.lm_head(hidden_states)
        return logits, ForMaskedLMLoss(logits, labels, self.config.vocab_size, **kwargs)

    def _labels_read(self, labels: torch.Tensor, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Checked labels, (batch, frames) or (batch, frames, num_codebooks), of the codebooks that the model reads."""
        several = self.config.num_codebooks > 1
        if labels.dim() == 3 and not several and labels.shape[2] > self.config.codebook_index:
            if labels.shape[2] > 1 and kwargs.get("num_items_in_batch") is not None:
                raise ValueError(
                    f"labels has shape {tuple(labels.shape)} and this model predicts one codebook, but the Trainer "
                    "counts the labels of all; give it input_ids and labels of that codebook, (batch, frames)."
                )
            labels = labels[..., self.config.codebook_index]
        expected = (*hidden_states.shape[:2], *([self.config.num_codebooks] if several else []))
        if labels.shape != expected:
            raise ValueError(
                f"masked modelling takes one label per token, shape {expected}; found {tuple(labels.shape)}. Put "
                f"{IGNORED_LABEL} where nothing is to be predicted."
            )
        return labels

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedLMOutput:
        r"""Predicts every token; inputs as in [`AudioFormerModel`].

        Args:
            labels (`torch.LongTensor` of shape `(batch, frames)` or `(batch, frames, num_codebooks)`, *optional*):
                The tokens to predict at masked positions, -100 elsewhere.

        Returns:
            `MaskedLMOutput`: `loss` (mean cross-entropy over the positions with a label), `logits` (batch, frames,
            vocab_size) or (batch, frames, num_codebooks, vocab_size). In training with labels, unless
            `config.sparse_prediction` is off, `logits` has the frames with a label only, in the order of the flattened
            batch: (labelled_frames, vocab_size) or (labelled_frames, num_codebooks, vocab_size). Their number differs
            from batch to batch, so `torch.compile` breaks the graph between encoder and head there.
        """
        outputs = self.audioformer(input_ids, attention_mask, inputs_embeds, **kwargs)
        logits, loss = self.predict_tokens(outputs.last_hidden_state, labels, **kwargs)
        return MaskedLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


@dataclass
class AudioFormerForPreTrainingOutput(ModelOutput):
    """Output of [`AudioFormerForPreTraining`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): Masked-modelling loss.
        prediction_logits (`torch.FloatTensor`): As the `logits` of [`AudioFormerForMaskedLM`].
        pooler_output (`torch.FloatTensor` of shape `(batch, hidden_size)`): Mean of the clip's output frames.
        hidden_states, attentions (`tuple(torch.FloatTensor)`, *optional*): As in [`AudioFormerModel`].
    """

    loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class AudioFormerForPreTraining(AudioFormerForMaskedLM):
    """Masked modelling that also returns one vector per clip, which contrastive learning compares."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AudioFormerForPreTrainingOutput:
        r"""Inputs and `labels` as in [`AudioFormerForMaskedLM`]; returns [`AudioFormerForPreTrainingOutput`]."""
        outputs = self.audioformer(input_ids, attention_mask, inputs_embeds, **kwargs)
        logits, loss = self.predict_tokens(outputs.last_hidden_state, labels, **kwargs)
        return AudioFormerForPreTrainingOutput(
            loss=loss,
            prediction_logits=logits,
            pooler_output=masked_mean(outputs.last_hidden_state, attention_mask),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def masked_mean(hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Means the frames with mask 1: (batch, frames, hidden_size) and (batch, frames) to (batch, hidden_size)."""
    if attention_mask is None:
        return hidden_states.mean(dim=1)
    padding = (attention_mask == 0).unsqueeze(-1)
    # A sum over minutes of frames overflows in float16.
    total = hidden_states.masked_fill(padding, 0).sum(dim=1, dtype=torch.float32)
    return (total / (~padding).sum(dim=1).clamp(min=1)).to(hidden_states.dtype)


def clip_statistics(hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """What a clip's frames are and how they move, side by side: their mean, their standard deviation, and the root mean
    square of their changes over each of `STATISTICS_LAGS` frames; zero where a clip is shorter than that.

    Takes (batch, frames, hidden_size) and (batch, frames), returns float32 (batch, 5 * hidden_size).
    """
    states = hidden_states.float()
    statistics = [*mean_and_deviation(states, attention_mask)]
    for lag in STATISTICS_LAGS:
        both = attention_mask[:, lag:] * attention_mask[:, :-lag]
        statistics.append(_masked_rms(states[:, lag:] - states[:, :-lag], both))
    return torch.cat(statistics, dim=1)


def mean_and_deviation(
    hidden_states: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of a clip's frames: (batch, frames, hidden_size) to float32 (batch, hidden_size)."""
    states = hidden_states.float()  # squares of small differences are lost in half precision
    mean = masked_mean(states, attention_mask)
    return mean, _masked_rms(states - mean.unsqueeze(1), attention_mask)


def _masked_rms(states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The root mean square over frames; the small offset keeps the gradient of a constant finite."""
    return (masked_mean(states.square(), attention_mask) + RMS_OFFSET).sqrt() - RMS_OFFSET**0.5


class AudioFormerPooling(nn.Module):
    """Turns the frames of a clip into one vector of `size`; padding frames never take part."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, config: AudioFormerConfig):
        super().__init__()
        self.kind = config.pooling
        self.size = config.hidden_size * (2 + len(STATISTICS_LAGS) if config.pooling == "statistics" else 1)
        self.score = nn.Linear(config.hidden_size, 1) if config.pooling == "attention" else None
        if config.pooling == "statistics":  # what the statistics of a data set are brought to mean 0 and spread 1 by
            self.register_buffer("mean", torch.zeros(self.size))
            self.register_buffer("spread", torch.ones(self.size))

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Pools (batch, frames, hidden_size) with a mask (batch, frames) to (batch, size)."""
        if self.kind == "mean":
            return masked_mean(hidden_states, attention_mask)
        if attention_mask is None:
            attention_mask = hidden_states.new_ones(hidden_states.shape[:2])
        if self.kind == "statistics":
            statistics = clip_statistics(hidden_states, attention_mask)
            return ((statistics - self.mean) / self.spread).to(hidden_states.dtype)
        if self.kind == "cls":  # the first frame that is not padding
            first = attention_mask.to(torch.int).argmax(dim=1)
            return hidden_states[torch.arange(len(first), device=first.device), first]
        padding = (attention_mask == 0).unsqueeze(-1)
        if self.kind == "max":
            return hidden_states.masked_fill(padding, torch.finfo(hidden_states.dtype).min).amax(dim=1)
        scores = self.score(hidden_states).float()  # under autocast of another dtype than the states
        weights = scores.masked_fill(padding, torch.finfo(scores.dtype).min).softmax(dim=1)
        return (hidden_states.masked_fill(padding, 0) * weights).sum(dim=1).to(hidden_states.dtype)


@dataclass
class AudioFormerForAudioClassificationOutput(SequenceClassifierOutput):
    """Output of [`AudioFormerForAudioClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): Loss of the classification.
        logits (`torch.FloatTensor` of shape `(batch, num_labels)`): Scores before softmax or sigmoid.
        hidden_states, attentions (`tuple(torch.FloatTensor)`, *optional*): As in [`AudioFormerModel`].
        pooler_output (`torch.FloatTensor` of shape `(batch, hidden_size)`): Mean of the clip's output frames, which
            contrastive learning compares, whatever pooling the classifier has.
    """

    pooler_output: torch.Tensor | None = None


class AudioFormerLabelledModel(AudioFormerPreTrainedModel):
    """The encoder with a head `classifier` whose outputs are the labels of the configuration."""

    # The Trainer must divide the loss of each micro-batch and average over processes itself: it passes a count of
    # items that the multi-label loss of Transformers ignores, which multiplies loss and gradient.
    accepts_loss_kwargs = False
    classifier: nn.Linear

    def __init__(self, config: AudioFormerConfig):
        config.validate_labels()  # labels may have been set since it was made
        super().__init__(config)
        self.num_labels = config.num_labels
        self.audioformer = AudioFormerModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)

    def resize_classifier(self, label_names: Sequence[str]) -> None:
        """Gives the classifier these labels, in this order; rows of labels it knew by name are kept, others are new.

        Class weights, and the statistics of numbers, are dropped, since they belonged to the old labels.

        Raises:
            ValueError: A name occurs twice, or there is none.
        """
        if not label_names or len(set(label_names)) < len(label_names):
            raise ValueError(f"label_names must be different names, at least one; found {list(label_names)}.")
        known = {name: int(index) for index, name in self.config.id2label.items()}
        has_bias = self.classifier.bias is not None
        classifier = nn.Linear(self.classifier.in_features, len(label_names), bias=has_bias)
        self._init_weights(classifier)
        classifier.to(self.classifier.weight)
        with torch.no_grad():
            for row, name in enumerate(label_names):
                if name in known:
                    classifier.weight[row] = self.classifier.weight[known[name]]
                    if has_bias:
                        classifier.bias[row] = self.classifier.bias[known[name]]
        self.classifier = classifier
        self.num_labels = len(label_names)
        self.config.class_weights = self.config.target_mean = self.config.target_scale = None
        self.config.id2label = dict(enumerate(label_names))
        self.config.label2id = {name: index for index, name in enumerate(label_names)}


class AudioFormerForAudioClassification(AudioFormerLabelledModel):
    """The encoder with masked pooling and one linear layer: single label, multi-label or regression."""

    def __init__(self, config: AudioFormerConfig):
        super().__init__(config)
        self.pooling = AudioFormerPooling(config)
        self.classifier = nn.Linear(self.pooling.size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AudioFormerForAudioClassificationOutput:
        r"""Classifies clips; inputs as in [`AudioFormerModel`].

        Args:
            labels (`torch.Tensor`, *optional*): Class ids (batch,) of an integer dtype, or class probabilities
                (batch, num_labels) of a float dtype, for single label; probabilities or multi-hot (batch, num_labels)
                of a float dtype for multi-label; floats (batch,) or (batch, num_labels) for regression.
                `config.problem_type` says which; if it is not set, dtype does, and floats mean multi-label.

        Returns:
            [`AudioFormerForAudioClassificationOutput`]: `loss`, `logits` (batch, num_labels), `pooler_output` (batch,
            hidden_size).

        Raises:
            ValueError: The labels fit neither the problem nor the number of classes.
        """
        outputs = self.audioformer(input_ids, attention_mask, inputs_embeds, input_values, **kwargs)
        states, mask = self.audioformer.moments(outputs)
        pooled = self.pooling(states, mask)
        logits = in_units_of_targets(self.classifier(self.dropout(pooled)), self.config)
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return AudioFormerForAudioClassificationOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            pooler_output=pooled if self.pooling.kind == "mean" else masked_mean(states, mask),
        )


class AudioFormerForAudioFrameClassification(AudioFormerLabelledModel):
    """The encoder with one linear layer over every moment: which sound is when, or a value along time."""

    def __init__(self, config: AudioFormerConfig):
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        r"""Classifies every moment; inputs as in [`AudioFormerModel`].

        Args:
            labels (`torch.Tensor`, *optional*): For each moment class ids (batch, moments) of an integer dtype for
                single label; multi-hot rows or probabilities (batch, moments, num_labels) of a float dtype for
                multi-label; floats (batch, moments, num_labels), or (batch, moments) for one value, for regression.
                -100 where nothing is known, in padding for instance; of several numbers each may be unknown by itself.
                The problem is told as in [`AudioFormerForAudioClassification`]. Codes have a moment each, boundary
                tokens too; other front ends one for every `config.input_stride` frames begun.

        Returns:
            `TokenClassifierOutput`: `loss` (mean over the moments with a label, or over the known numbers, that are not
            padding), `logits` (batch, moments, num_labels).

        Raises:
            ValueError: The labels fit neither the problem nor the moments.
        """
        outputs = self.audioformer(input_ids, attention_mask, inputs_embeds, input_values, **kwargs)
        states, mask = self.audioformer.moments(outputs)
        logits = in_units_of_targets(self.classifier(self.dropout(states)), self.config)
        loss = None if labels is None else frame_loss(logits, labels, mask, self.config)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def frame_loss(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor | None, config: AudioFormerConfig
) -> torch.Tensor:
    """Mean of `classification_loss` over the moments that have a label and, by the mask (batch, moments), are not
    padding, or of regression over the known numbers there; 0 if there is none. Of logits (batch, moments, num_labels);
    their number differs from batch to batch, so `torch.compile` breaks the graph here.

    Raises:
        ValueError: The labels are not one, or one row, for each moment.
    """
    if labels.shape not in (logits.shape, logits.shape[:2]):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}; expected one for each moment, {tuple(logits.shape[:2])}, or a "
            f"row of {config.num_labels}."
        )
    numbers = labels != IGNORED_LABEL
    known = numbers
    if labels.dim() == 3:
        known = numbers.any(dim=2) if config.problem_type == "regression" else numbers.all(dim=2)
    if mask is not None:
        known = known & (mask != 0)
    if not known.any():
        return logits.sum() * 0
    logits, labels, numbers = logits[known], labels[known], numbers[known]
    if numbers.all():
        return classification_loss(logits, labels, config)
    told = torch.where(numbers, labels.to(logits.dtype), logits.detach())  # what is not known costs nothing
    return classification_loss(logits, told, config) * (numbers.numel() / numbers.sum())


class AudioFormerForAudioXVector(AudioFormerLabelledModel):
    """The encoder with one vector per clip whose direction tells who or what is heard, also of classes never trained.

    Trained by softmax over cosines with an additive margin (arXiv 1801.05599). Mean and standard deviation of the
    moments, side by side, are projected to `config.xvector_output_dim`.
    """

    def __init__(self, config: AudioFormerConfig):
        super().__init__(config)
        self.projection = nn.Linear(2 * config.hidden_size, config.xvector_output_dim)
        self.classifier = nn.Linear(config.xvector_output_dim, config.num_labels, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> XVectorOutput:
        r"""Embeds clips; inputs as in [`AudioFormerModel`].

        Args:
            labels (`torch.LongTensor` of shape `(batch,)`, *optional*): Class ids.

        Returns:
            `XVectorOutput`: `loss`, `logits` (batch, num_labels), cosines of the vectors with those of the classes,
            `embeddings` (batch, xvector_output_dim), to be compared by their cosine.
        """
        outputs = self.audioformer(input_ids, attention_mask, inputs_embeds, input_values, **kwargs)
        states, mask = self.audioformer.moments(outputs)
        statistics = torch.cat(mean_and_deviation(states, mask), dim=1).to(states.dtype)
        embeddings = self.projection(self.dropout(statistics))
        with maybe_autocast(embeddings.device.type, enabled=False):  # which would round cosines near 1 to 1 / 256
            cosines = F.linear(F.normalize(embeddings.float()), F.normalize(self.classifier.weight.float()))
        return XVectorOutput(
            loss=None if labels is None else self._margin_loss(cosines, labels),
            logits=cosines,
            embeddings=embeddings,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _margin_loss(self, cosines: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        margins = self.config.xvector_margin * F.one_hot(labels, self.num_labels)
        config = self.config
        return loss_of_problem(
            config.xvector_scale * (cosines - margins),
            labels,
            "single_label_classification",
            config.class_weights,
            config.label_smoothing,
        )


def in_units_of_targets(logits: torch.Tensor, config: AudioFormerConfig) -> torch.Tensor:
    """Standardised numbers (..., num_labels) in the units of the data, float32 whatever the dtype: half precision would
    round 4001 to 4000. All else as it is."""
    if config.target_scale is None:
        return logits
    logits = logits.float()
    return logits * logits.new_tensor(config.target_scale) + logits.new_tensor(config.target_mean)


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, config: AudioFormerConfig) -> torch.Tensor:
    """Mean loss of logits (batch, num_labels) for the problem type, class weights and label smoothing of `config`; of
    numbers in units of their deviation `target_scale`, if it is given."""
    problem_type = config.problem_type or infer_problem_type(labels, config.num_labels)
    weights = config.class_weights
    if config.target_scale is not None:
        weights = [
            weight / std**2
            for weight, std in zip(weights or [1.0] * config.num_labels, config.target_scale, strict=True)
        ]
    return loss_of_problem(logits, labels, problem_type, weights, config.label_smoothing)


def loss_of_problem(
    logits: torch.Tensor,
    labels: torch.Tensor,
    problem_type: str,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean loss of logits (batch, num_labels).

    It is computed in float32; class weights of single-label problems divide by their sum over the batch, as in torch.
    Single labels are class ids or, mixed by mixup, probabilities; probabilities of 0 and 1 give the loss of the ids.

    Raises:
        ValueError: The labels fit neither the problem nor the number of classes.
    """
    logits = logits.float()
    weights = None if class_weights is None else logits.new_tensor(class_weights)
    if problem_type == "single_label_classification":
        if labels.is_floating_point() and labels.shape == logits.shape:
            labels = labels.to(logits.dtype)
            total = F.cross_entropy(logits, labels, weight=weights, label_smoothing=label_smoothing, reduction="sum")
            return total / (len(labels) if weights is None else (labels @ weights).sum())
        if labels.is_floating_point() or labels.shape != logits.shape[:1]:
            raise ValueError(
                f"single-label classification takes integer class ids, shape {tuple(logits.shape[:1])}, or float "
                f"probabilities, shape {tuple(logits.shape)}; found {labels.dtype} {tuple(labels.shape)}. For several "
                'labels per clip set problem_type="multi_label_classification".'
            )
        return F.cross_entropy(logits, labels.long(), weight=weights, label_smoothing=label_smoothing)
    if problem_type == "multi_label_classification":
        if labels.shape != logits.shape:
            raise ValueError(
                f"multi-label classification takes one value per class, shape {tuple(logits.shape)}; found "
                f"{tuple(labels.shape)}. Turn class ids into multi-hot rows."
            )
        targets = labels.to(logits.dtype)
        targets = targets * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, weight=weights)
    if labels.numel() != logits.numel() or labels.shape[:1] != logits.shape[:1]:
        raise ValueError(f"regression takes {tuple(logits.shape)} values; found {tuple(labels.shape)}.")
    errors = (logits - labels.to(logits.dtype).view_as(logits)) ** 2
    return errors.mean() if weights is None else (errors * weights).mean()


def infer_problem_type(labels: torch.Tensor, num_labels: int) -> str:
    """The problem that labels of this dtype state: Transformers' rule, with integer multi-hot rows refused."""
    if num_labels == 1:
        return "regression"
    if labels.is_floating_point():
        return "multi_label_classification"
    if labels.dim() > 1:
        raise ValueError(
            f"labels are integers of shape {tuple(labels.shape)}: either class ids, which have shape (batch,), or "
            'multi-hot rows, for which problem_type="multi_label_classification" must be set.'
        )
    return "single_label_classification"


__all__ = [
    "AudioFormerForAudioClassification",
    "AudioFormerForAudioClassificationOutput",
    "AudioFormerForAudioFrameClassification",
    "AudioFormerForAudioXVector",
    "AudioFormerForMaskedLM",
    "AudioFormerForPreTraining",
    "AudioFormerForPreTrainingOutput",
    "AudioFormerModel",
    "AudioFormerModelOutput",
    "AudioFormerPreTrainedModel",
]
