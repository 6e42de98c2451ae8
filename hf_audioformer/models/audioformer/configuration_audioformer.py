"""AudioFormer configuration."""

import math
from copy import deepcopy
from typing import Any, Literal, get_args

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

FrontEnd = Literal["codes", "frames", "patches", "waveform"]
IntList = list[int] | tuple[int, ...]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]

# Channels, kernels and strides that make a position of 320 samples, 20 ms at 16 kHz.
WAVEFORM_STEM = ((32, 64, 128, 256), (10, 8, 8, 4), (5, 4, 4, 4))

LAYER_TYPES = ("full_attention", "sliding_attention")

# The special tokens stand after the codes, in this order; their ids are `codebook_size + position`.
SPECIAL_TOKENS = ("boa", "eoa", "mask", "pad")
NUMBERS_OF_LABELS = ("class_weights", "target_mean", "target_scale")


def special_token_id(codebook_size: int, name: str) -> int:
    """The id of the special token `"boa"`, `"eoa"`, `"mask"` or `"pad"` beside `codebook_size` codes."""
    return codebook_size + SPECIAL_TOKENS.index(name)


@strict
class AudioFormerConfig(PreTrainedConfig):
    r"""Configuration of an AudioFormer: an encoder over the codes of a neural audio codec, or over continuous features.

    The defaults give the base size, 86.5 M parameters (the paper, arXiv 2308.07221, states no size; RoFormer-base
    is the natural one). The vocabulary of each codebook is its codes, then the special tokens BOA (begin of audio), EOA
    (end of audio), MASK and PAD.

    Args:
        front_end (`"codes"`, `"frames"`, `"patches"` or `"waveform"`, defaults to `"codes"`): What the model reads:
            `input_ids` of a codec, or `input_values`: frames of features (log-mel, spectrogram, MFCC), each a position;
            patches of such a spectrogram; or samples, through a stem of convolutions.
        num_features (`int`, *optional*): Values per frame of `input_values`; 128, or 1 for a waveform.
        conv_dim, conv_kernel, conv_stride (`list[int]`, *optional*): Channels, kernel and stride of the convolutions
            over time before the projection of frames, none by default, or of a waveform, by default a stem that makes
            a position of 320 samples.
        patch_size (`list[int]`, defaults to `[16, 16]`): Frames and features of a patch.
        patch_stride (`list[int]`, *optional*): Frames and features from one patch to the next; `patch_size` if not
            given, smaller where patches are to overlap.
        codebook_size (`int`, defaults to 1024): Codes per codebook of the codec.
        num_codebooks (`int`, defaults to 1): Codebooks the model embeds. More than one needs `fusion="sum"`.
        fusion (`"first"` or `"sum"`, defaults to `"first"`): `"first"` reads one codebook alone (the paper's C1) and
            ignores the others; `"sum"` adds the embeddings of all codebooks of a frame.
        codebook_index (`int`, defaults to 0): The codebook that `fusion="first"` reads, counted from 0: 1 to 3 are the
            paper's C2 to C4.
        vocab_size (`int`, *optional*): Tokens per codebook; derived as `codebook_size + 4`.
        position_embedding_type (`"rotary"`, `"sinusoidal"` or `"learned"`, defaults to `"rotary"`): How the model
            knows where a position is: by turning queries and keys, or by a vector added to its own. All patches of a
            moment are at one place in time.
        max_source_positions (`int`, *optional*): Moments that learned positions have; 1024 for those by default.
        layer_types (`list[str]`, *optional*): `"full_attention"` or `"sliding_attention"` for each layer; by default
            all layers are full, or with a `sliding_window` all sliding.
        sliding_window (`int`, *optional*): Positions on either side that a layer with sliding attention sees; all
            layers of `AudioFormerForCausalLM` see everything before.
        hidden_size (`int`, defaults to 768): Width of the encoder.
        num_hidden_layers (`int`, defaults to 12): Number of encoder layers.
        num_attention_heads (`int`, defaults to 12): Heads; must divide `hidden_size` into an even head size.
        intermediate_size (`int`, defaults to 3072): Width of the feed-forward layers.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the feed-forward layers and the MLM head.
        hidden_dropout (`float`, defaults to 0.1): Dropout after the embeddings and after each sublayer.
        attention_dropout (`float`, defaults to 0.1): Dropout of the attention weights.
        norm_position (`"post"` or `"pre"`, defaults to `"post"`): LayerNorm after each residual sum, as RoFormer does,
            or before each sublayer with one more at the end.
        layer_norm_eps (`float`, defaults to 1e-12): Epsilon of the LayerNorms.
        initializer_range (`float`, defaults to 0.02): Standard deviation of new weights.
        rope_parameters (`dict`, *optional*): `{"rope_type": "default", "rope_theta": 10000.0}`. Angles are computed for
            the length at hand, so there is no longest clip; unused by other kinds of positions.
        pooling (`"mean"`, `"max"`, `"cls"`, `"attention"` or `"statistics"`, defaults to `"mean"`): How the classifier
            turns frames into one vector; padding never takes part. `"statistics"` puts the mean, the standard deviation
            and the size of changes over 1, 4 and 16 frames side by side.
        classifier_dropout (`float`, *optional*): Dropout before the classifier; `hidden_dropout` if not given.
        label_smoothing (`float`, defaults to 0.0): Share of each target spread over the classes, in [0, 1).
        class_weights (`list[float]`, *optional*): Weight of each class in the loss, one per label.
        target_mean, target_scale (`list[float]`, *optional*): For regression, mean and standard deviation of each
            number that is predicted; the classifier learns standardised ones, and `logits` are in the data's units.
        xvector_output_dim (`int`, defaults to 192): Size of the vectors of `AudioFormerForAudioXVector`.
        xvector_margin (`float`, defaults to 0.2): How far its loss pushes a clip's cosine with its own class above that
            with others.
        xvector_scale (`float`, defaults to 30.0): What cosines are multiplied by before its softmax.
        decoder_layers (`int`, defaults to 4): Layers of the decoder of `AudioFormerForConditionalGeneration`; their
            other settings are those of the encoder, but all attend to everything before.
        condition_dropout (`float`, defaults to 0.1): How often that model does not hear a clip's own encoder in
            training; above 0 for generation with guidance.
        pad_token_id, mask_token_id, boa_token_id, eoa_token_id (`int`, *optional*): Derived from `codebook_size`.
        tie_word_embeddings (`bool`, defaults to `True`): Whether the MLM decoder shares the code embeddings.
        sparse_prediction (`bool`, defaults to `True`): Whether masked modelling in training computes logits at labelled
            positions only; in evaluation, and without labels, all positions have logits.

    Raises:
        `StrictDataclassFieldValidationError`, `StrictDataclassClassValidationError`: A value has the wrong type or is
            not among those allowed; the message names the field, what was found and what is allowed.

    Example:

    ```python
    >>> from hf_audioformer import AudioFormerConfig, AudioFormerModel

    >>> model = AudioFormerModel(AudioFormerConfig(hidden_size=192, num_hidden_layers=4, num_attention_heads=4))
    ```"""

    model_type = "audioformer"
    keys_to_ignore_at_inference = ["pooler_output"]  # the Trainer would gather it as a second prediction

    front_end: FrontEnd = "codes"
    num_features: int | None = None
    conv_dim: IntList | None = None
    conv_kernel: IntList | None = None
    conv_stride: IntList | None = None
    patch_size: IntList = (16, 16)
    patch_stride: IntList | None = None
    codebook_size: int = 1024
    num_codebooks: int = 1
    fusion: Literal["first", "sum"] = "first"
    codebook_index: int = 0
    vocab_size: int | None = None
    position_embedding_type: Literal["rotary", "sinusoidal", "learned"] = "rotary"
    max_source_positions: int | None = None
    layer_types: list[str] | tuple[str, ...] | None = None
    sliding_window: int | None = None
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    norm_position: Literal["post", "pre"] = "post"
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    rope_parameters: dict | None = None
    pooling: Literal["mean", "max", "cls", "attention", "statistics"] = "mean"
    classifier_dropout: float | int | None = None
    label_smoothing: float | int = 0.0
    class_weights: list[float] | tuple[float, ...] | None = None
    target_mean: list[float] | tuple[float, ...] | None = None
    target_scale: list[float] | tuple[float, ...] | None = None
    xvector_output_dim: int = 192
    xvector_margin: float | int = 0.2
    xvector_scale: float | int = 30.0
    decoder_layers: int = 4
    condition_dropout: float | int = 0.1
    pad_token_id: int | None = None
    mask_token_id: int | None = None
    boa_token_id: int | None = None
    eoa_token_id: int | None = None
    tie_word_embeddings: bool = True
    sparse_prediction: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        rope_type = (self.rope_parameters or {}).get("rope_type", "default")
        if rope_type != "default":  # the scaled kinds need a longest length, and AudioFormer has none
            raise ValueError(f'rope_parameters["rope_type"] is "{rope_type}"; only "default" is allowed.')
        self._derive_front_end()
        if self.position_embedding_type == "learned" and self.max_source_positions is None:
            self.max_source_positions = 1024
        if self.layer_types is None and self.sliding_window is not None:
            self.layer_types = ["sliding_attention"] * self.num_hidden_layers
        for name in SPECIAL_TOKENS:
            if getattr(self, f"{name}_token_id") is None:
                setattr(self, f"{name}_token_id", special_token_id(self.codebook_size, name))
        if self.vocab_size is None:
            self.vocab_size = self.codebook_size + len(SPECIAL_TOKENS)
        if self.classifier_dropout is None:
            self.classifier_dropout = self.hidden_dropout
        self._drop_numbers_of_other_labels(kwargs.get("num_labels"))
        super().__post_init__(**kwargs)

    @property
    def main_input_name(self) -> str:
        """`"input_ids"` or `"input_values"`."""
        return "input_ids" if self.front_end == "codes" else "input_values"

    @property
    def input_stride(self) -> int:
        """Input frames, or samples of a waveform, from one moment to the next."""
        return self.patch_stride[0] if self.front_end == "patches" else math.prod(self.conv_stride)

    def decoder_config(self) -> "AudioFormerConfig":
        """That of the decoder which generates codes: the same sizes, `decoder_layers`, and full attention."""
        config = deepcopy(self)
        config.front_end, config.num_hidden_layers = "codes", self.decoder_layers
        config.layer_types = config.sliding_window = None
        return config

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """As in Transformers, whose `generate` makes the cache by that of the decoder."""
        return self.decoder_config() if self.is_encoder_decoder and decoder and not encoder else self

    def _derive_front_end(self) -> None:
        if self.num_features is None:
            self.num_features = 1 if self.front_end == "waveform" else 128
        if self.patch_stride is None:
            self.patch_stride = self.patch_size
        if (self.conv_dim, self.conv_kernel, self.conv_stride) == (None, None, None):
            convolutions = WAVEFORM_STEM if self.front_end == "waveform" else ((), (), ())
            self.conv_dim, self.conv_kernel, self.conv_stride = convolutions
        for name in ("conv_dim", "conv_kernel", "conv_stride", "patch_size", "patch_stride", "layer_types"):
            if isinstance(value := getattr(self, name), tuple):  # JSON knows lists alone
                setattr(self, name, list(value))

    def validate_front_end(self) -> None:
        """Refuses convolutions of different number, patches that do not fit, and features that a waveform lacks."""
        if self.num_features < 1 or (self.front_end == "waveform" and self.num_features != 1):
            raise ValueError(
                f'num_features is {self.num_features} with front_end="{self.front_end}"; it must be at least 1, and 1 '
                "for a waveform."
            )
        given = [sizes for sizes in (self.conv_dim, self.conv_kernel, self.conv_stride) if sizes is not None]
        if len(given) < 3 or len(set(map(len, given))) > 1 or min(sum(map(list, given), [1])) < 1:
            raise ValueError(
                f"conv_dim, conv_kernel and conv_stride are {self.conv_dim}, {self.conv_kernel} and "
                f"{self.conv_stride}; give all three, with one number of at least 1 for each convolution."
            )
        if self.conv_dim and self.front_end not in ("frames", "waveform"):
            raise ValueError(
                f'conv_dim is {self.conv_dim} with front_end="{self.front_end}"; only "frames" and "waveform" have '
                "convolutions."
            )
        sizes = (*self.patch_size, *self.patch_stride)
        if (
            len(sizes) != 4
            or min(sizes) < 1
            or (self.front_end == "patches" and self.patch_size[1] > self.num_features)
        ):
            raise ValueError(
                f"patch_size is {self.patch_size} and patch_stride {self.patch_stride}; both are frames and features, "
                f"at least 1, and a patch has at most {self.num_features} features (num_features)."
            )

    def validate_positions(self) -> None:
        """Refuses learned positions without number, and windows that do not fit the kinds of layers."""
        if self.max_source_positions is not None and self.max_source_positions < 1:
            raise ValueError(f"max_source_positions is {self.max_source_positions}; it must be at least 1.")
        unknown = [kind for kind in self.layer_types or () if kind not in LAYER_TYPES]
        if unknown:
            raise ValueError(f"layer_types has {unknown[0]!r}; allowed: {', '.join(LAYER_TYPES)}.")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(f"sliding_window is {self.sliding_window}; it must be at least 1 position.")
        if self.sliding_window is None and "sliding_attention" in (self.layer_types or ()):
            raise ValueError(
                "layer_types has sliding_attention; set sliding_window, the positions seen on either side."
            )

    def validate_sizes(self) -> None:
        """Refuses counts below one, rates outside [0, 1) and widths that heads and positions cannot share."""
        counts = ("codebook_size", "num_codebooks", "hidden_size", "num_attention_heads", "intermediate_size")
        for name in (*counts, "xvector_output_dim", "decoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        rates = ("hidden_dropout", "attention_dropout", "classifier_dropout", "condition_dropout", "label_smoothing")
        for name in rates:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1.")
        if self.position_embedding_type == "rotary" and self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size is {self.hidden_size} with {self.num_attention_heads} attention heads; it must be a "
                f"multiple of {2 * self.num_attention_heads}, because rotary positions turn pairs of a head's channels."
            )
        if self.hidden_size % 2 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size is {self.hidden_size} with {self.num_attention_heads} attention heads; it must be even "
                "and a multiple of the heads."
            )

    def validate_codebooks(self) -> None:
        """Refuses codebooks that the fusion does not read, and special tokens outside the vocabulary."""
        if self.num_codebooks > 1 and self.fusion != "sum":
            raise ValueError(
                f'num_codebooks is {self.num_codebooks} with fusion="{self.fusion}", which reads one codebook; '
                'set fusion="sum" or num_codebooks=1.'
            )
        if self.codebook_index < 0 or (self.codebook_index > 0 and self.fusion == "sum"):
            raise ValueError(
                f'codebook_index is {self.codebook_index} with fusion="{self.fusion}"; it must be at least 0, and 0 '
                'with fusion="sum", which reads the first num_codebooks codebooks.'
            )
        ids = [getattr(self, f"{name}_token_id") for name in SPECIAL_TOKENS]
        if len(set(ids)) < len(ids) or not set(ids) <= set(range(self.codebook_size, self.vocab_size)):
            raise ValueError(
                f"the special tokens {dict(zip(SPECIAL_TOKENS, ids, strict=True))} must have different ids, at least "
                f"{self.codebook_size} (codebook_size) and below {self.vocab_size} (vocab_size); by default "
                "they are derived."
            )

    def _drop_numbers_of_other_labels(self, num_labels: int | None) -> None:
        """Drops stored numbers per label where `num_labels` asks for other labels than those they were stored with."""
        stored = len(self.id2label or ())
        for name in NUMBERS_OF_LABELS:
            if num_labels not in (None, stored) and len(getattr(self, name) or ()) == stored:
                logger.warning(f"{name} is for {stored} labels and is dropped, since there are to be {num_labels}.")
                setattr(self, name, None)

    def validate_labels(self) -> None:
        """Refuses an unknown `problem_type` (Transformers lets a typo pass) and weights that do not fit the labels."""
        if self.problem_type is not None and self.problem_type not in get_args(ProblemType):
            raise ValueError(f'problem_type is "{self.problem_type}"; allowed: {", ".join(get_args(ProblemType))}.')
        for name in NUMBERS_OF_LABELS:
            values = getattr(self, name)
            if values is not None and len(values) != self.num_labels:
                raise ValueError(
                    f"{name} has {len(values)} values for {self.num_labels} labels. To load a checkpoint for other "
                    f"labels give num_labels={self.num_labels} too, which drops it."
                )
        if (self.target_mean is None) != (self.target_scale is None) or min(self.target_scale or [1.0]) <= 0:
            raise ValueError(
                f"target_mean is {self.target_mean} and target_scale {self.target_scale}; give both, scales above 0."
            )


__all__ = ["AudioFormerConfig"]
