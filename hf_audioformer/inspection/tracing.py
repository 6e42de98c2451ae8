"""Any audio transformer of Transformers, loaded so that its attention can be seen, and all it makes of one clip."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

import hf_audioformer

from .. import AudioFormerSignalFeatureExtractor
from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..audio.io import Audio
from ..checkpoint_config import read_config
from ..models.audioformer.waveform_audioformer import resample
from .tokens import TokenLayout, layout_of

__all__ = ["CrossAttention", "InspectedModel", "Trace", "load_model", "trace_clip"]

MAX_ATTENTION_BYTES = 8e9
MAX_NEW_TOKENS = 40
SPECTRAL_FORMS = {
    "log_mel": "log-mel spectrogram (frames, bands)",
    "spectrogram": "log-power spectrogram (frames, frequencies)",
    "mfcc": "MFCC (frames, coefficients)",
}
ALLOWED = (
    "Inspect takes transformers with self-attention over all tokens, such as AudioFormer, AST, Wav2Vec2 and Whisper; "
    "leave it out."
)


@dataclass(frozen=True)
class InspectedModel:
    """A model in evaluation mode with eager attention, its feature extractor and, if it writes text, its tokenizer.

    `missing` names the weights that the checkpoint does not hold: they are random.
    """

    source: str
    model: PreTrainedModel
    extractor: Any
    tokenizer: Any
    missing: tuple[str, ...]

    @property
    def writes(self) -> bool:
        """Whether a decoder writes tokens while it looks at the encoder's output."""
        return bool(self.model.config.is_encoder_decoder) and self.model.can_generate()

    @property
    def encoder(self) -> torch.nn.Module:
        """What hears the clip: the model itself, or the encoder of one that writes."""
        return self.model.get_encoder() if self.writes else self.model


@dataclass(frozen=True)
class CrossAttention:
    """Where the decoder looked when it wrote each token.

    Args:
        written: The tokens in order, as text where the checkpoint has a tokenizer; the first of all is given, not
            written, and has no row.
        weights: (layers, heads, written, encoder tokens); rows sum to 1.
    """

    written: tuple[str, ...]
    weights: np.ndarray


@dataclass(frozen=True)
class Trace:
    """What one model made of one clip, as arrays.

    Args:
        clip_seconds: Length of the clip.
        input_name, input_shape: The model's input.
        input_form: What that is, in words.
        layout: Where the encoder's tokens stand.
        hidden_states: (tokens, size) before the first layer and after each.
        attentions: (heads, tokens, tokens) of each layer; rows sum to 1.
        input_ids: Of an AudioFormer, (frames,) or (frames, codebooks) as it reads them, with special tokens.
        codes: The same without special tokens, always (frames, codebooks).
    """

    clip_seconds: float
    input_name: str
    input_shape: tuple[int, ...]
    input_form: str
    layout: TokenLayout
    hidden_states: tuple[np.ndarray, ...]
    attentions: tuple[np.ndarray, ...]
    cross: CrossAttention | None = None
    input_ids: np.ndarray | None = None
    codes: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """Steps that hold the clip; the others, of a model that pads, are left out of figures over time."""
        return self.layout.steps_before(self.clip_seconds)

    @property
    def heard_seconds(self) -> float:
        """How much of the clip the model hears: less than all where it takes so much and no more."""
        reach = max(self.layout.first_seconds, self.layout.step_seconds / 2)
        return min(self.clip_seconds, float(self.layout.seconds[-1]) + reach)


def load_model(source: str | os.PathLike[str]) -> InspectedModel:
    """The model of a folder or Hub id in the class it was saved as, on the CPU in float32.

    An encoder-decoder saved without its head is given it, since only with it can tokens be written.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: As `read_config`.
        ValueError: The checkpoint has no feature extractor for audio.
    """
    name = os.fspath(source)
    config = read_config(name, "models")
    try:
        extractor = AutoFeatureExtractor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name}: it holds a model of type {config.model_type} and no feature extractor for audio ({error}). Save "
            "one beside it with save_pretrained."
        ) from error
    if isinstance(extractor, ASTFeatureExtractor):
        extractor = ASTLogMelFeatureExtractor.from_pretrained(name, max_length=config.max_length)
    model, info = _model_class(config).from_pretrained(
        name, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    loaded = InspectedModel(name, model.eval(), extractor, None, tuple(sorted(info["missing_keys"])))
    if not loaded.writes:
        return loaded
    return InspectedModel(name, model, extractor, _tokenizer(name), loaded.missing)


def _model_class(config: PreTrainedConfig) -> Any:
    (name, *_) = config.architectures or ["AutoModel"]
    if config.is_encoder_decoder and name.endswith("Model"):
        return AutoModelForSpeechSeq2Seq
    found = getattr(transformers, name, None) or getattr(hf_audioformer, name, None)
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else AutoModel


def _tokenizer(source: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, TypeError, ImportError):  # a checkpoint need not have one; tokens are then numbers
        return None


@torch.inference_mode()
def trace_clip(loaded: InspectedModel, audio: Audio) -> Trace:
    """All that a model makes of one clip.

    Raises:
        ValueError: The model returns no attention weights, or more of them than memory is likely to hold.
    """
    seconds = len(audio["array"]) / audio["sampling_rate"]
    rate = loaded.extractor.sampling_rate
    waveform = resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], rate)
    inputs = dict(loaded.extractor(waveform.numpy(), sampling_rate=rate, return_tensors="pt"))
    with _size_checked(loaded, seconds):
        states = _hidden_states(loaded, inputs)
    tokens = states[-1].shape[0]
    _check_size(loaded, tokens, seconds)
    attentions = _attentions(loaded, inputs, tokens)
    name = loaded.model.main_input_name if loaded.model.main_input_name in inputs else next(iter(inputs))
    ids = inputs["input_ids"][0].numpy() if "input_ids" in inputs else None
    layout = layout_of(loaded.model.config, loaded.extractor, inputs, tokens, seconds)
    return Trace(
        clip_seconds=seconds,
        input_name=name,
        input_shape=tuple(inputs[name].shape),
        input_form=_input_form(loaded.model.config, loaded.extractor, inputs[name]),
        layout=layout,
        hidden_states=states,
        attentions=attentions,
        cross=_cross_attention(loaded, inputs) if loaded.writes else None,
        input_ids=ids,
        codes=None if ids is None else _codes(ids, loaded.model.config.codebook_size),
    )


def _hidden_states(loaded: InspectedModel, inputs: Mapping[str, Tensor]) -> tuple[np.ndarray, ...]:
    try:
        states = loaded.encoder(**inputs, output_hidden_states=True).hidden_states
    except TypeError:  # a model of another kind does not know the argument
        states = None
    if not states or any(layer.ndim != 3 for layer in states):
        raise ValueError(f"{_who(loaded)} returns no hidden states (batch, tokens, size). {ALLOWED}")
    return tuple(layer[0].numpy() for layer in states)


def _attentions(loaded: InspectedModel, inputs: Mapping[str, Tensor], tokens: int) -> tuple[np.ndarray, ...]:
    found = getattr(loaded.encoder(**inputs, output_attentions=True), "attentions", None)
    if not found or any(layer is None or layer.shape[-2:] != (tokens, tokens) for layer in found):
        raise ValueError(f"{_who(loaded)} returns no attention weights of its {tokens} tokens. {ALLOWED}")
    return tuple(layer[0].numpy() for layer in found)


@contextmanager
def _size_checked(loaded: InspectedModel, seconds: float) -> Iterator[None]:
    """Has `_check_size` refuse too many tokens where they reach the first layer, before it makes its attention."""

    def check(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = arguments[0] if arguments else named.get("hidden_states")
        if isinstance(states, Tensor) and states.ndim == 3:
            _check_size(loaded, states.shape[1], seconds)

    layers = [module for module in loaded.encoder.modules() if "Attention" in type(module).__name__]
    hooks = [layer.register_forward_pre_hook(check, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_size(loaded: InspectedModel, tokens: int, seconds: float) -> None:
    config = loaded.model.config
    heads = getattr(config, "num_hidden_layers", 1) * getattr(config, "num_attention_heads", 1)
    if 4 * heads * tokens**2 > MAX_ATTENTION_BYTES:
        raise ValueError(
            f"{_who(loaded)} makes {tokens} tokens of {seconds:.1f} s; their attention in {heads} heads takes "
            f"{4e-9 * heads * tokens**2:.0f} GB, more than the {MAX_ATTENTION_BYTES / 1e9:.0f} GB allowed. Inspect a "
            "shorter clip (--max_seconds)."
        )


def _who(loaded: InspectedModel) -> str:
    return f"{loaded.source} ({type(loaded.model).__name__})"


def _cross_attention(loaded: InspectedModel, inputs: Mapping[str, Tensor]) -> CrossAttention:
    """Written greedily, then read once more as a whole: the weights are those of the writing."""
    model: Any = loaded.model
    tokens = model.generate(
        **inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS, return_dict_in_generate=True
    ).sequences
    read = model(**inputs, decoder_input_ids=tokens[:, :-1], output_attentions=True)
    written = tokens[0, 1:].tolist()
    names = [_text(loaded.tokenizer, token) for token in written]
    return CrossAttention(tuple(names), np.stack([layer[0].numpy() for layer in read.cross_attentions]))


def _text(tokenizer: Any, token: int) -> str:
    """A token as text; as its number where there is none, as in the empty tokenizer of a folder without its files."""
    return (tokenizer is not None and tokenizer.decode([token])) or str(token)


def _input_form(config: Any, extractor: Any, values: Tensor) -> str:
    if not values.is_floating_point():
        return "codes (frames, codebooks)" if values.ndim == 3 else "codes (frames)"
    if values.ndim == 2:
        return "waveform (samples)"
    if isinstance(extractor, AudioFormerSignalFeatureExtractor):
        patches = "" if config.front_end != "patches" else " in patches of {} x {}".format(*config.patch_size)
        return SPECTRAL_FORMS[extractor.kind] + patches
    if config.model_type == "audio-spectrogram-transformer":
        patch = config.patch_size
        return f"{SPECTRAL_FORMS['log_mel']} in patches of {patch} x {patch}"
    return "log-mel spectrogram (bands, frames)" if config.model_type == "whisper" else "features (frames, size)"


def _codes(input_ids: np.ndarray, codebook_size: int) -> np.ndarray:
    codes = input_ids.reshape(len(input_ids), -1)
    return codes[(codes < codebook_size).all(axis=1)]
