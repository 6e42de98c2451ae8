"""AudioFormer that generates codes: of a clip from another one that the encoder hears, or alone from how it begins.

One pass of the decoder gives the codes of all codebooks, which are delayed: in the column of codebook 1's frame t
stands frame t - 1 of codebook 2, and so on (arXiv 2306.05284, section 2.1). Transformers' `generate` sees a column as
tokens one after the other, of which only the first needs a pass. MusicGen and Dia have codebooks as rows of the batch
instead, where beams, which may differ in some codebooks, are impossible, and `generate` has to be written anew.

A clip of n frames and K codebooks has n + K columns: where a codebook has not begun stands BOA, where it has ended PAD,
and the last token of all, which ends the clip, is EOA.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.generation import GenerationMode
from transformers.loss.loss_utils import ForMaskedLMLoss
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithPast,
    Seq2SeqLMOutput,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_audioformer import AudioFormerConfig
from .embeddings_audioformer import AudioFormerLearnedEmbeddings, at_the_beginning
from .modeling_audioformer import (
    IGNORED_LABEL,
    AudioFormerAttention,
    AudioFormerLayer,
    AudioFormerModel,
    AudioFormerModelOutput,
    AudioFormerPreTrainedModel,
    RotaryAngles,
)


def delay(codes: torch.Tensor, lengths: torch.Tensor, config: AudioFormerConfig) -> torch.Tensor:
    """Codes (batch, frames, num_codebooks), of which `lengths` (batch,) are valid, as columns (batch, frames +
    num_codebooks, num_codebooks)."""
    frame = _frame_of(codes.shape[1] + config.num_codebooks, config.num_codebooks, codes.device)
    places = frame.clamp(0, codes.shape[1]), torch.arange(codes.shape[2], device=codes.device)
    columns = F.pad(codes, (0, 0, 0, 1))[:, *places]
    ended = frame >= lengths.view(-1, 1, 1)
    columns = columns.masked_fill(ended, config.pad_token_id).masked_fill(frame < 0, config.boa_token_id)
    columns[..., -1].masked_fill_((frame == lengths.view(-1, 1, 1))[..., -1], config.eoa_token_id)
    return columns


def undelay(columns: torch.Tensor, config: AudioFormerConfig) -> torch.Tensor:
    """The codes (batch, frames, num_codebooks) in columns (batch, columns, num_codebooks), up to the longest clip's
    last frame that has all its codes; PAD after those of shorter clips."""
    last = columns.shape[1] - config.num_codebooks + 1
    codes = torch.stack([columns[:, index : last + index, index] for index in range(config.num_codebooks)], dim=2)
    valid = (codes < config.codebook_size).all(dim=2).cumprod(dim=1)
    return codes.masked_fill(valid.unsqueeze(2) == 0, config.pad_token_id)[:, : int(valid.sum(dim=1).max())]


def _frame_of(columns: int, num_codebooks: int, device: torch.device) -> torch.Tensor:
    """The frame whose code stands in each place, (columns, num_codebooks); below 0 where a codebook has not begun."""
    return torch.arange(columns, device=device).unsqueeze(1) - torch.arange(num_codebooks, device=device)


class DelayPatternLogitsProcessor(LogitsProcessor):
    """Allows in each place what the pattern has there: BOA, a code, or after codebook 1 has ended PAD and EOA.

    The first codebook ends where it chooses to. Scores become log-probabilities among what is allowed, so that beams
    do not pay for what they cannot choose.
    """

    def __init__(self, config: AudioFormerConfig):
        self.config = config

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (batch, vocab_size) of what follows the start token and the tokens so far, (batch, 1 + tokens)."""
        config = self.config
        column, codebook = divmod(input_ids.shape[1] - 1, config.num_codebooks)
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        if column < codebook:
            allowed[:, config.boa_token_id] = True
            return scores.masked_fill(~allowed, -torch.inf).log_softmax(dim=-1)
        firsts = input_ids[:, 1 :: config.num_codebooks]
        known = firsts[:, : column - codebook + (codebook > 0)]
        ended = (known >= config.codebook_size).any(dim=1)
        is_last = codebook == config.num_codebooks - 1
        allowed[:, : config.codebook_size] = ~ended.unsqueeze(1)
        allowed[:, config.eoa_token_id if is_last else config.pad_token_id] = ended | (codebook == 0)
        return scores.masked_fill(~allowed, -torch.inf).log_softmax(dim=-1)


class KnownCodesLogitsProcessor(LogitsProcessor):
    """Has clips of given lengths generated, with the codes that are known in their places.

    Args:
        lengths: Frames of each clip, (batch,), or None where clips end as they choose to; several rows of `generate`
            may be of one clip.
        known: Codes (batch, frames, num_codebooks), IGNORED_LABEL where they are to be generated.
    """

    def __init__(self, config: AudioFormerConfig, lengths: torch.Tensor | None, known: torch.Tensor | None = None):
        self.config, self.lengths, self.known = config, lengths, known

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """As in [`DelayPatternLogitsProcessor`]."""
        column, codebook = divmod(input_ids.shape[1] - 1, self.config.num_codebooks)
        frame = column - codebook
        if frame < 0:
            return scores
        within = None if self.lengths is None else frame < self.lengths
        tokens = torch.arange(scores.shape[1], device=scores.device)
        if codebook == 0 and within is not None:
            is_code = tokens < self.config.codebook_size
            scores = scores.masked_fill(is_code != self._by_row(within, scores), -torch.inf)
        if self.known is not None and frame < self.known.shape[1]:
            wanted = self.known[:, frame, codebook]
            if within is not None:
                wanted = wanted.masked_fill(~within, IGNORED_LABEL)
            wanted = self._by_row(wanted, scores)
            scores = scores.masked_fill((tokens != wanted) & (wanted >= 0), -torch.inf)
        return scores

    @staticmethod
    def _by_row(values: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Values of clips (batch,) as those of the rows of scores, (rows, 1)."""
        return values.repeat_interleave(len(scores) // len(values)).unsqueeze(1)


class AudioFormerCausalAttention(AudioFormerAttention):
    """Self-attention to what came before, which may lie in a cache."""

    def __init__(self, config: AudioFormerConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.is_causal = True

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary_angles: RotaryAngles | None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query = self.heads(self.query, hidden_states, rotary_angles)
        key = self.heads(self.key, hidden_states, rotary_angles)
        value = self.heads(self.value, hidden_states)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        return self.attend(query, key, value, attention_mask, **kwargs)


class AudioFormerCrossAttention(AudioFormerAttention):
    """Attention to the moments that the encoder heard, whose keys and values may lie in a cache."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary_angles: RotaryAngles | None,
        encoder_states: torch.Tensor | None = None,
        encoder_angles: RotaryAngles | None = None,
        cache: EncoderDecoderCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query = self.heads(self.query, hidden_states, rotary_angles)
        if cache is not None and cache.is_updated.get(self.layer_idx):
            layer: Any = cache.cross_attention_cache.layers[self.layer_idx]
            return self.attend(query, layer.keys, layer.values, attention_mask, **kwargs)
        key = self.heads(self.key, encoder_states, encoder_angles)
        value = self.heads(self.value, encoder_states)
        if cache is not None:
            key, value = cache.cross_attention_cache.update(key, value, self.layer_idx)
            cache.is_updated[self.layer_idx] = True
        return self.attend(query, key, value, attention_mask, **kwargs)


class AudioFormerCausalLayer(AudioFormerLayer):
    """A layer of the encoder with causal attention."""

    attention_class = AudioFormerCausalAttention


class AudioFormerDecoderLayer(AudioFormerCausalLayer):
    """A causal layer with attention to the encoder before its feed-forward."""

    def __init__(self, config: AudioFormerConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.cross_attention = AudioFormerCrossAttention(config, layer_idx)
        self.cross_attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary_angles: RotaryAngles | None,
        encoder_states: torch.Tensor,
        encoder_mask: torch.Tensor | None,
        encoder_angles: RotaryAngles | None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        before = None if past_key_values is None else past_key_values.self_attention_cache
        hidden_states = self.add(
            hidden_states,
            self.attention_norm,
            lambda states: self.attention(states, attention_mask, rotary_angles, before, **kwargs)[0],
        )
        hidden_states = self.add(
            hidden_states,
            self.cross_attention_norm,
            lambda states: self.cross_attention(
                states, encoder_mask, rotary_angles, encoder_states, encoder_angles, past_key_values, **kwargs
            )[0],
        )
        return self.add(hidden_states, self.mlp_norm, self.mlp)


class AudioFormerCausalModel(AudioFormerModel):
    """The encoder of codes with causal attention: columns of codes in, one vector per column out."""

    layer_class = AudioFormerCausalLayer

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        r"""Reads columns.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, columns)` or `(batch, columns, num_codebooks)`):
                Columns that are not in the cache yet.
            attention_mask (`torch.Tensor` of shape `(batch, columns)`, *optional*): 0 for padding, 1 for columns, with
                those in the cache.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, columns, hidden_size)`, *optional*):
                Vectors in place of `input_ids`, before the embedding LayerNorm.
            past_key_values (`Cache`, *optional*): Of earlier columns; extended in place.

        Raises:
            ValueError: Not exactly one of `input_ids` and `inputs_embeds` is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(
                f"Give exactly one of input_ids and inputs_embeds; found {'neither' if input_ids is None else 'both'}."
            )
        states = self._read(input_ids, past_key_values, (), attention_mask, inputs_embeds, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=states, past_key_values=past_key_values)

    def _read(
        self,
        columns: torch.Tensor | None,
        past_key_values: Cache | None,
        heard: tuple,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """One vector per column, (batch, columns, hidden_size); `heard` is what else the layers take."""
        first = 0 if past_key_values is None else past_key_values.get_seq_length()
        states, _ = self.embeddings(columns, attention_mask, inputs_embeds, first_moment=first)
        mask = create_causal_mask(
            config=self.config, inputs_embeds=states, attention_mask=attention_mask, past_key_values=past_key_values
        )
        angles = None if self.rotary_embedding is None else self.rotary_embedding(states, first=first)
        for layer in self.layers:
            states = layer(states, mask, angles, *heard, past_key_values=past_key_values, **kwargs)
        return self.norm(states)


class AudioFormerDecoder(AudioFormerCausalModel):
    """Columns of codes and what the encoder heard in, one vector per column out."""

    layer_class = AudioFormerDecoderLayer
    _supports_flash_attn = False  # with padding it takes as many columns as the encoder has positions
    _can_record_outputs = {
        "hidden_states": AudioFormerDecoderLayer,
        "attentions": AudioFormerCausalAttention,
        "cross_attentions": AudioFormerCrossAttention,
    }

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        positions_per_frame: int = 1,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        r"""Reads columns.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, columns)` or `(batch, columns, num_codebooks)`):
                Columns that are not in the cache yet.
            encoder_hidden_states (`torch.FloatTensor` of shape `(batch, positions, hidden_size)`): What was heard.
            encoder_attention_mask (`torch.Tensor` of shape `(batch, positions)`, *optional*): 0 for its padding.
            past_key_values (`EncoderDecoderCache`, *optional*): Of earlier columns; extended in place.
            positions_per_frame (`int`, defaults to 1): The encoder's positions of one moment.
        """
        encoder_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=encoder_hidden_states.new_empty((*input_ids.shape[:2], 0)),  # only the shape is looked at
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        encoder_angles = None
        if self.rotary_embedding is not None:
            encoder_angles = self.rotary_embedding(
                encoder_hidden_states, positions_per_frame, attention_mask=encoder_attention_mask
            )
        heard = (encoder_hidden_states, encoder_mask, encoder_angles)
        states = self._read(input_ids, past_key_values, heard, **kwargs)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states, past_key_values=past_key_values)


class AudioFormerNewest(Cache):
    """A cache with the newest output beside it, from which all codes of a column are drawn.

    Attributes:
        newest: float (batch, 1, hidden_size).
    """

    newest: torch.Tensor | None = None
    is_croppable = False  # columns are not tokens

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """As in Transformers."""
        super().reorder_cache(beam_idx)
        if self.newest is not None:
            self.newest = self.newest.index_select(0, beam_idx.to(self.newest.device))


class AudioFormerCausalCache(AudioFormerNewest, DynamicCache):
    """What a model without an encoder need not compute again; in all else it is the `cache` that it is made from."""

    def __init__(self, cache: Cache):
        super().__init__()
        vars(self).update(vars(cache))


class AudioFormerCache(AudioFormerNewest, EncoderDecoderCache):
    """What the decoder need not compute again, reordered together when beams are.

    Attributes:
        unconditional: Keys and values of the decoder without the encoder, for guidance.
    """

    def __init__(self, cache: EncoderDecoderCache):
        super().__init__(cache.self_attention_cache, cache.cross_attention_cache)
        self.unconditional = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """As in Transformers."""
        super().reorder_cache(beam_idx)
        self.unconditional.reorder_cache(beam_idx)


class AudioFormerGenerativeModel(AudioFormerPreTrainedModel, GenerationMixin):
    """What generates codes through Transformers' `generate`: a causal model with the head `lm_head`, which predicts
    every codebook of the next column by the table that embeds them."""

    cache_class: type[Any]  # of AudioFormerNewest, made from a cache without it
    _can_compile_fullgraph = False  # the cache is of columns, some of which need no pass

    def _add_head(self) -> None:
        """The end of every `__init__`."""
        self.lm_head = nn.Linear(
            self.config.hidden_size, self.config.num_codebooks * self.config.vocab_size, bias=False
        )
        self._complete_generation_config()
        self.post_init()

    def adjust_generation_fn(self, *args: Any, **kwargs: Any) -> None:
        """As in Transformers, which makes settings of generation out of the configuration of a mere encoder, too."""
        cast(Any, super()).adjust_generation_fn(*args, **kwargs)
        self._complete_generation_config()

    def _complete_generation_config(self) -> None:
        settings, config = self.generation_config, self.config
        if settings.decoder_start_token_id is None:
            settings.bos_token_id = settings.decoder_start_token_id = config.boa_token_id
            settings.eos_token_id, settings.pad_token_id = config.eoa_token_id, config.pad_token_id
            settings.use_cache = True  # the Trainer writes False into the configurations of what it trains

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.lm_head = new_embeddings

    def _cache_for(
        self, past_key_values: Cache | None, make: Callable[[], Cache] | None, keeps_newest: bool
    ) -> Cache | None:
        """The cache that is given, or else what `make` gives; with the newest output beside it if that is asked for."""
        if past_key_values is None and make is not None:
            past_key_values = make()
        if past_key_values is None or not keeps_newest or isinstance(past_key_values, AudioFormerNewest):
            return past_key_values
        if past_key_values.is_compileable:
            raise ValueError(
                f"past_key_values is a {type(past_key_values).__name__} of fixed size (a static cache); with several "
                "codebooks or guidance it must be dynamic: leave cache_implementation out."
            )
        return self.cache_class(past_key_values)

    def _newest_or(self, cache: Cache | None, columns: torch.Tensor | None, read: Callable[[], Any]) -> Any:
        """What `read` gives, or the newest output that there was if all columns are in the cache."""
        if columns is not None and columns.shape[1] == 0:
            newest = cast(AudioFormerNewest, cache).newest
            return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=newest)
        outputs = read()
        if isinstance(cache, AudioFormerNewest):
            cache.newest = outputs.last_hidden_state[:, -1:]
        return outputs

    def _logits(self, states: torch.Tensor, codebook: int | None) -> torch.Tensor:
        num_codebooks = self.config.num_codebooks
        if codebook is not None:
            return F.linear(states[:, -1:], self.lm_head.weight.unflatten(0, (num_codebooks, -1))[codebook])
        logits = self.lm_head(states)
        return logits if num_codebooks == 1 else logits.unflatten(-1, (num_codebooks, -1))

    def _start(self, batch: int) -> torch.Tensor:
        """The column of BOA before all others."""
        shape = (batch, 1) if self.config.num_codebooks == 1 else (batch, 1, self.config.num_codebooks)
        return torch.full(shape, self.config.boa_token_id, device=self.device)

    def _columns_and_targets(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the decoder reads, and what it is to predict from it: the codes, and where the first codebook ends."""
        codes, num_codebooks = self._with_codebooks(labels, "labels"), self.config.num_codebooks
        lengths = (codes != IGNORED_LABEL).all(dim=2).sum(dim=1)
        columns = delay(codes, lengths, self.config)
        frame = _frame_of(columns.shape[1], num_codebooks, columns.device)
        is_end = (frame == lengths.view(-1, 1, 1)) & (frame == frame[:, :1])
        is_target = (frame >= 0) & (frame < lengths.view(-1, 1, 1)) | is_end
        targets = columns.masked_fill(~is_target, IGNORED_LABEL)
        if labels.dim() == 2:
            columns, targets = columns.squeeze(2), targets.squeeze(2)
        return torch.cat((self._start(len(labels)), columns[:, :-1]), dim=1), targets

    def _with_codebooks(self, codes: torch.Tensor, name: str) -> torch.Tensor:
        """Codes (batch, frames, num_codebooks), also of one codebook."""
        num_codebooks = self.config.num_codebooks
        if codes.dim() == 2 and num_codebooks == 1:
            return codes.unsqueeze(2)
        if codes.dim() != 3 or codes.shape[2] != num_codebooks:
            expected = "(batch, frames)" if num_codebooks == 1 else f"(batch, frames, {num_codebooks})"
            raise ValueError(f"{name} has shape {tuple(codes.shape)}; this model generates codes {expected}.")
        return codes

    def generate_codes(self, lengths: torch.Tensor, known: torch.Tensor | None = None, **settings: Any) -> torch.Tensor:
        """Generates the codes of clips of given lengths, (batch, frames, num_codebooks), with PAD behind shorter ones.

        `AudioFormerFeatureExtractor.decode` makes sound of those of a clip. What all clips begin with is read in one
        pass.

        Args:
            lengths: Frames of each clip, int64 (batch,).
            known: Codes (batch, frames, num_codebooks) that the clips are to have, -100 where they are generated;
                what stands behind a clip's length is not looked at.
            settings: The inputs of the encoder if there is one, and what `generate` takes (`do_sample`, `num_beams`,
                `top_k`, ...). With several `num_return_sequences` each clip has as many rows.

        Raises:
            ValueError: `lengths` or `known` do not fit each other or the inputs, `known` has special tokens, or a
                setting is for what they say already.
        """
        inputs_name = "decoder_input_ids" if self.config.is_encoder_decoder else "input_ids"
        if inputs_name in settings:
            raise ValueError(f"{inputs_name} is made from known; give the codes that clips begin with there.")
        for name in ("max_new_tokens", "max_length", "return_dict_in_generate"):
            if settings.get(name):
                raise ValueError(f"{name} is {settings[name]}; codes of the lengths are returned. Leave it out.")
        self._check_lengths(lengths, known, settings.get(self.main_input_name))
        num_codebooks = self.config.num_codebooks
        lengths, known = lengths.to(self.device), None if known is None else known.to(self.device)
        own = KnownCodesLogitsProcessor(self.config, lengths, known)
        processors = LogitsProcessorList([own, *(settings.get("logits_processor") or ())])
        begun = self._begun(len(lengths), known, lengths)
        max_new_tokens = (int(lengths.max()) + num_codebooks) * num_codebooks - begun.shape[1] + 1
        settings |= {inputs_name: begun, "logits_processor": processors, "max_new_tokens": max_new_tokens}
        model: Any = self
        tokens = model.generate(**settings)[:, 1:]
        tokens = F.pad(tokens, (0, -tokens.shape[1] % num_codebooks), value=self.config.pad_token_id)
        return undelay(tokens.unflatten(1, (-1, num_codebooks)), self.config)

    def _begun(self, clips: int, known: torch.Tensor | None, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """The start token, and those of the columns that are known in all clips, (batch, 1 + tokens)."""
        start = torch.full((clips, 1), self.config.boa_token_id, device=self.device)
        if known is None:
            return start
        is_known = (known >= 0).all(dim=2)
        if lengths is not None:
            is_known &= torch.arange(known.shape[1], device=known.device) < lengths.unsqueeze(1)
        begun = known[:, : int(is_known.cumprod(dim=1).sum(dim=1).min())]
        columns = delay(begun, lengths=torch.full((clips,), begun.shape[1], device=known.device), config=self.config)
        return torch.cat((start, columns[:, : begun.shape[1]].flatten(1)), dim=1)

    def _check_lengths(self, lengths: torch.Tensor, known: torch.Tensor | None, inputs: torch.Tensor | None) -> None:
        """Refuses what `generate_codes` cannot follow."""
        num_codebooks, size = self.config.num_codebooks, self.config.codebook_size
        if lengths.dim() != 1 or (known is not None and known.shape[::2] != (len(lengths), num_codebooks)):
            found = "none" if known is None else tuple(known.shape)
            raise ValueError(
                f"lengths has shape {tuple(lengths.shape)} and known {found}; expected (batch,) and (batch, frames, "
                f"{num_codebooks})."
            )
        if inputs is not None and len(inputs) != len(lengths):
            raise ValueError(
                f"lengths is for {len(lengths)} clips, and {self.main_input_name} has {len(inputs)}; give one length "
                "for each."
            )
        if known is None:
            return
        frame = torch.arange(known.shape[1], device=known.device).unsqueeze(1)
        largest = int(known.masked_fill(frame >= lengths.to(known.device).view(-1, 1, 1), IGNORED_LABEL).max())
        if largest >= size:
            raise ValueError(
                f"known has {largest}; codes are below {size}, and {IGNORED_LABEL} stands where they are generated."
            )

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What `forward` takes, from the start token and the tokens so far, (batch, 1 + tokens)."""
        num_codebooks, tokens, parent = self.config.num_codebooks, input_ids.shape[1] - 1, cast(Any, super())
        if not self.config.is_encoder_decoder:
            kwargs["attention_mask"] = None  # of tokens; clips are aligned at their first one
        in_cache = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        if num_codebooks > 1:
            codes = input_ids[:, 1 : 1 + tokens // num_codebooks * num_codebooks].unflatten(1, (-1, num_codebooks))
            input_ids = torch.cat((self._start(len(codes)), codes), dim=1)
            kwargs["codebook"] = tokens % num_codebooks
        if in_cache > input_ids.shape[1] - (kwargs.get("codebook", 0) == 0):
            raise ValueError(
                f"past_key_values holds {in_cache} columns, and the tokens so far are {input_ids.shape[1]}; give all "
                "tokens from the start token on, as generate returned them."
            )
        return parent.prepare_inputs_for_generation(
            input_ids[:, in_cache:], next_sequence_length=None, past_key_values=past_key_values, **kwargs
        )

    @staticmethod
    def create_masks_for_generate(**kwargs: Any) -> None:
        """None, also for a static cache: the causal model makes its own mask."""

    def _validate_generation_mode(self, generation_mode: Any, generation_config: Any, *args: Any) -> None:
        """As in Transformers; refuses what cannot be done with columns of codes."""
        cast(Any, super())._validate_generation_mode(generation_mode, generation_config, *args)
        if generation_mode == GenerationMode.BEAM_SAMPLE:
            raise ValueError(
                f"num_beams is {generation_config.num_beams} and do_sample set; beams cannot be sampled where the "
                "pattern of codebooks leaves one token. Choose one of them."
            )
        if getattr(generation_config, "prefill_chunk_size", None) is not None:
            raise ValueError(
                f"prefill_chunk_size is {generation_config.prefill_chunk_size}; what clips begin with is read in one "
                "pass. Leave it out."
            )
        for name in ("min_length", "min_new_tokens"):
            if self.config.num_codebooks > 1 and getattr(generation_config, name, None):
                raise ValueError(
                    f"{name} is {getattr(generation_config, name)}; with several codebooks it is the first that ends a "
                    "clip. Say how long clips are to be by generate_codes(lengths)."
                )
        is_guided = _is_guided(generation_config.guidance_scale)
        if generation_mode == GenerationMode.ASSISTED_GENERATION and (self.config.num_codebooks > 1 or is_guided):
            raise ValueError(
                f"assisted generation is asked for with {self.config.num_codebooks} codebooks and guidance_scale "
                f"{generation_config.guidance_scale}; it needs one codebook and no guidance. Leave assistant_model and "
                "prompt_lookup_num_tokens out."
            )

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        """Those of Transformers after the delay pattern."""
        processors = cast(Any, super())._get_logits_processor(*args, **kwargs)
        return LogitsProcessorList([DelayPatternLogitsProcessor(self.config), *processors])


class AudioFormerForConditionalGeneration(AudioFormerGenerativeModel):
    """The encoder, and a decoder that generates the codes of a clip from what the encoder heard in another.

    The decoder embeds codes and predicts them by one table, which is the encoder's where that reads codes.
    """

    cache_class = AudioFormerCache
    _tied_weights_keys = {"lm_head.weight": "decoder.embeddings.code_embeddings.weight"}
    _no_split_modules = [*AudioFormerPreTrainedModel._no_split_modules, "AudioFormerDecoderLayer"]
    _supports_flash_attn = False

    def __init__(self, config: AudioFormerConfig):
        config = deepcopy(config)
        config.is_encoder_decoder = True
        super().__init__(config)
        self.audioformer = AudioFormerModel(config)
        self.decoder = AudioFormerDecoder(config.decoder_config())
        if config.front_end == "codes":
            table = "audioformer.embeddings.code_embeddings.weight"
            self._tied_weights_keys = dict.fromkeys(
                ("lm_head.weight", "decoder.embeddings.code_embeddings.weight"), table
            )
        self._add_head()

    def get_encoder(self, modality: str | None = None) -> AudioFormerModel:
        """The encoder; there is one, whatever its front end."""
        return self.audioformer

    def get_decoder(self) -> AudioFormerDecoder:
        """The decoder."""
        return self.decoder

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """As in [`AudioFormerPreTrainedModel`], of encoder and decoder, whose columns are `num_codebooks` more than the
        frames."""
        super().resize_position_embeddings(new_num_position_embeddings)
        cast(AudioFormerLearnedEmbeddings, self.decoder.embeddings.position_embeddings).resize(
            new_num_position_embeddings
        )
        self.decoder.config.max_source_positions = new_num_position_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        input_values: torch.Tensor | None = None,
        encoder_outputs: AudioFormerModelOutput | tuple | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        guidance_scale: float | None = None,
        codebook: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqLMOutput:
        r"""Predicts the codes of every column from those before and from what the encoder heard; inputs of the encoder
        as in [`AudioFormerModel`].

        Args:
            decoder_input_ids (`torch.LongTensor` of shape `(batch, columns)` or `(batch, columns, num_codebooks)`):
                A column of BOA, then those of [`delay`]; with `past_key_values` the ones that are not in there yet.
                Made from the labels if they alone are given; a column of BOA if neither is.
            labels (`torch.LongTensor` of shape `(batch, frames)` or `(batch, frames, num_codebooks)`, *optional*):
                The codes to generate, -100 in the padding behind them; the end of a clip is learned, too. Beside
                `decoder_input_ids`, as elsewhere in Transformers, what follows each of these columns instead.
            encoder_outputs (`AudioFormerModelOutput`, *optional*): Of `get_encoder()`, in place of its inputs.
            past_key_values (`EncoderDecoderCache`, *optional*): Of earlier columns.
            use_cache (`bool`, *optional*): Whether to make such a cache; with labels there is none.
            guidance_scale (`float`, *optional*): Above 1, how far codes are moved away from those that are likely
                without hearing anything (classifier-free guidance, arXiv 2207.12598).
            codebook (`int`, *optional*): `generate` asks for the logits of one codebook in the last column,
                (batch, 1, vocab_size).

        Returns:
            `Seq2SeqLMOutput`: `loss` (mean cross-entropy over all codebooks), `logits` (batch, columns, vocab_size) or
            (batch, columns, num_codebooks, vocab_size).

        Raises:
            ValueError: Labels have another shape, or the encoder's inputs are not those of its front end.
        """
        if encoder_outputs is None:
            encoder_outputs = self.audioformer(input_ids, attention_mask, inputs_embeds, input_values, **kwargs)
        encoded = _as_encoded(encoder_outputs, attention_mask)
        columns: torch.Tensor | None = decoder_input_ids
        targets: torch.Tensor | None = labels
        if columns is None and labels is not None:
            columns, targets = self._columns_and_targets(labels)
        elif columns is None:
            columns = self._start(len(encoded.last_hidden_state))
        cache: Any = self._cache_for(
            past_key_values,
            self._new_cache if use_cache and labels is None else None,
            keeps_newest=codebook is not None or _is_guided(guidance_scale),
        )
        outputs = self._newest_or(
            cache, columns, lambda: self._decode(columns, encoded, cache, guidance_scale, **kwargs)
        )
        logits = self._logits(outputs.last_hidden_state, codebook)
        loss = None if targets is None else ForMaskedLMLoss(logits, targets, self.config.vocab_size, **kwargs)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=cache,
            decoder_hidden_states=outputs.hidden_states,
            decoder_attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    def _new_cache(self) -> EncoderDecoderCache:
        return EncoderDecoderCache(DynamicCache(config=self.decoder.config), DynamicCache(config=self.decoder.config))

    def _decode(
        self,
        columns: torch.Tensor,
        encoded: AudioFormerModelOutput,
        cache: EncoderDecoderCache | None,
        guidance_scale: float | None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """The decoder's output for the columns that are not in the cache."""
        heard, height = encoded.last_hidden_state, self.audioformer.embeddings.positions_per_frame
        if self.training and self.config.condition_dropout:
            is_heard = torch.rand(len(heard), device=heard.device) >= self.config.condition_dropout
            heard = heard * is_heard.view(-1, 1, 1)
        outputs = self.decoder(columns, heard, encoded.attention_mask, cache, height, **kwargs)
        if _is_guided(guidance_scale):
            unheard, own = torch.zeros_like(heard), getattr(cache, "unconditional", None)
            without = self.decoder(columns, unheard, encoded.attention_mask, own, height, **kwargs).last_hidden_state
            # The head is linear, so that moving these moves the logits by as much.
            outputs.last_hidden_state = without + guidance_scale * (outputs.last_hidden_state - without)
        return outputs

    def _get_logits_processor(self, generation_config: Any, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        """Without Transformers' guidance, which is for models without an encoder."""
        guidance_scale, generation_config.guidance_scale = generation_config.guidance_scale, None
        processors = super()._get_logits_processor(generation_config, *args, **kwargs)
        kwargs["model_kwargs"]["guidance_scale"] = generation_config.guidance_scale = guidance_scale
        return processors


class AudioFormerForCausalLM(AudioFormerGenerativeModel):
    """The encoder of codes with causal attention, which goes on from the codes that a clip begins with.

    Weights have the names of the encoder's, so that `from_pretrained` of one starts from what it learned. All layers
    attend to everything before, also where those of the encoder are local.
    """

    cache_class = AudioFormerCausalCache
    _tied_weights_keys = {"lm_head.weight": "audioformer.embeddings.code_embeddings.weight"}
    _no_split_modules = [*AudioFormerPreTrainedModel._no_split_modules, "AudioFormerCausalLayer"]

    def __init__(self, config: AudioFormerConfig):
        if config.front_end != "codes":
            raise ValueError(
                f'front_end is "{config.front_end}"; a causal language model reads the codes that it predicts, so it '
                'needs front_end="codes".'
            )
        config = deepcopy(config)
        config.is_encoder_decoder = False
        config.layer_types = config.sliding_window = None
        super().__init__(config)
        # By its name Transformers' Trainer would count labels as if they were shifted along their last axis.
        self.loss_type = "ForMaskedLM"
        self.audioformer = AudioFormerCausalModel(config)
        self._add_head()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        codebook: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        r"""Predicts the codes of every column from those before.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, columns)` or `(batch, columns, num_codebooks)`):
                A column of BOA, then those of [`delay`]; with `past_key_values` the ones that are not in there yet.
                Made from the labels if they alone are given.
            attention_mask (`torch.Tensor` of shape `(batch, columns)`, *optional*): 0 for padding among `input_ids`,
                on either side; not looked at where the labels alone are given.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, columns, hidden_size)`, *optional*):
                Vectors in place of `input_ids`, before the embedding LayerNorm.
            labels (`torch.LongTensor` of shape `(batch, frames)` or `(batch, frames, num_codebooks)`, *optional*):
                The codes of clips, -100 in the padding behind them; the end of a clip is learned, too. Beside
                `input_ids`, as elsewhere in Transformers, the same columns, each of which is predicted from those
                before it; -100 where nothing is to be learned.
            past_key_values (`Cache`, *optional*): Of earlier columns.
            use_cache (`bool`, *optional*): Whether to make such a cache; with labels there is none.
            codebook (`int`, *optional*): `generate` asks for the logits of one codebook in the last column,
                (batch, 1, vocab_size).
            shift_labels (`torch.LongTensor`, *optional*): In place of the labels what follows each of the `input_ids`,
                which Transformers' Trainer gives where a clip is spread over processes. (No argument of its own, lest
                the Trainer should want it beside all labels.)

        Returns:
            `CausalLMOutputWithPast`: `loss` (mean cross-entropy over all codebooks), `logits` (batch, columns,
            vocab_size) or (batch, columns, num_codebooks, vocab_size).

        Raises:
            ValueError: Labels have another shape, or not one of `input_ids`, `inputs_embeds` and labels is given.
        """
        columns: torch.Tensor | None = input_ids
        shift_labels = cast(dict[str, Any], kwargs).pop("shift_labels", None)
        targets: torch.Tensor | None = shift_labels
        if labels is not None and input_ids is None and inputs_embeds is None:
            attention_mask, (columns, targets) = None, self._columns_and_targets(labels)
        elif labels is not None and shift_labels is None:
            targets = torch.cat((labels[:, 1:], torch.full_like(labels[:, :1], IGNORED_LABEL)), dim=1)
        cache = self._cache_for(
            past_key_values,
            self._new_cache if use_cache and labels is None else None,
            keeps_newest=codebook is not None,
        )
        outputs = self._newest_or(
            cache,
            columns,
            lambda: self.audioformer(columns, attention_mask, inputs_embeds, past_key_values=cache, **kwargs),
        )
        logits = self._logits(outputs.last_hidden_state, codebook)
        return CausalLMOutputWithPast(
            loss=None if targets is None else ForMaskedLMLoss(logits, targets, self.config.vocab_size, **kwargs),
            logits=logits,
            past_key_values=cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.config)

    def _prepare_model_inputs(
        self, inputs: torch.Tensor | None, bos_token_id: torch.Tensor | None, model_kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, str | None, dict[str, Any]]:
        """As in Transformers, from tokens as `generate` returns them, or from the codes (batch, frames) or (batch,
        frames, num_codebooks) that clips begin with.

        Clips are aligned at their first frame, so that those which begin with more codes than others have them forced
        upon them, and none needs a mask. Tokens tell no more than they hold: those that stop within `num_codebooks`
        columns of what a clip began with lack some of its later codebooks, which are then generated.
        """
        tokens, name, model_kwargs = cast(Any, super())._prepare_model_inputs(inputs, bos_token_id, model_kwargs)
        mask = model_kwargs.get("attention_mask")
        is_whole = mask is None or bool((mask != 0).all())
        has_begun = tokens.dim() == 2 and is_whole and bool((tokens[:, 0] == self.config.boa_token_id).all())
        if has_begun and self.config.num_codebooks == 1:  # what an extractor gives looks the same, but has ended
            has_begun = bool((tokens[:, 1:] < self.config.codebook_size).all(dim=1).any())
        if not has_begun:
            known = self._known(tokens, mask)
            tokens, model_kwargs["known"] = self._begun(len(known), known), known
        return tokens, name, model_kwargs | {"attention_mask": torch.ones_like(tokens)}

    def _known(self, codes: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The codes that clips begin with, (batch, frames, num_codebooks), IGNORED_LABEL where there is padding."""
        codes, size = self._with_codebooks(codes, "input_ids"), self.config.codebook_size
        mask = (codes != self.config.pad_token_id).all(dim=2) if mask is None else mask != 0
        codes, mask = at_the_beginning(codes, mask)
        if bool((codes[:, 0] == self.config.boa_token_id).all()):
            codes, mask = codes[:, 1:], mask[:, 1:]
        known = codes.masked_fill(~mask.unsqueeze(2), IGNORED_LABEL)
        if bool((known >= size).any()):
            raise ValueError(f"input_ids has {int(known.max())}; what clips begin with are codes below {size}.")
        return known.to(self.device)

    def _validate_generation_mode(self, generation_mode: Any, generation_config: Any, *args: Any) -> None:
        """As in the parent; there is nothing to be guided by."""
        super()._validate_generation_mode(generation_mode, generation_config, *args)
        if _is_guided(generation_config.guidance_scale):
            raise ValueError(
                f"guidance_scale is {generation_config.guidance_scale}; a model that hears no other clip has nothing "
                "to be guided by. Leave it out."
            )

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        """Those of the parent, and the codes that clips begin with."""
        processors = super()._get_logits_processor(*args, **kwargs)
        if (known := kwargs["model_kwargs"].pop("known", None)) is not None:
            # Before those that leave the likeliest tokens alone.
            processors.insert(1, KnownCodesLogitsProcessor(self.config, None, known))
        return processors


def _as_encoded(outputs: Any, attention_mask: torch.Tensor | None) -> AudioFormerModelOutput:
    """What the encoder heard, also from a tuple, for which the mask of its positions is given beside it."""
    if isinstance(outputs, AudioFormerModelOutput):
        return outputs
    return AudioFormerModelOutput(last_hidden_state=outputs[0], attention_mask=attention_mask)


def _is_guided(guidance_scale: float | None) -> bool:
    return guidance_scale not in (None, 1)


__all__ = [
    "AudioFormerCausalModel",
    "AudioFormerDecoder",
    "AudioFormerForCausalLM",
    "AudioFormerForConditionalGeneration",
    "DelayPatternLogitsProcessor",
    "KnownCodesLogitsProcessor",
    "delay",
    "undelay",
]
