"""Stock `ASTForAudioClassification` models at any clip length, stride and set of labels: from AST or image checkpoints,
or with random weights.

Transformers refuses an AST at another length than its own, and with `ignore_mismatched_sizes=True`, which is needed for
a new head, makes the position embeddings zero. Here they are moved to the new grid by the official rule, and a
checkpoint that does not load whole is an error.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    AutoConfig,
    DeiTModel,
    ViTModel,
)

from .positions_ast import check_positions, covering_length, patch_grid, resize_positions

__all__ = ["ASTSettings", "ast_from_deit", "ast_from_vit", "load_ast", "new_ast"]

POSITIONS = "embeddings.position_embeddings"
BODY = "audio_spectrogram_transformer."
HEAD = "classifier."
LAYERS = "layers."
POSITIONS_STD = 0.02
LOADERS = {
    "audio-spectrogram-transformer": "load_ast",
    "deit": "ast_from_deit",
    "vit": "ast_from_vit",
}
# What the configurations of ViT and DeiT share with the AST's.
SHARED_SETTINGS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "qkv_bias"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
)


class ASTSettings(TypedDict, total=False):
    """What the model shall be. What is left out, or None, stays as in the checkpoint; from an image, as in `ASTConfig`.

    Keys:
        num_labels: Size of a new head; or
        label_names: names of its classes, in order.
        max_length: Frames of 10 ms that the model reads; or
        seconds: length of the clips, from which the smallest `max_length` follows that leaves no frame out.
        time_stride, frequency_stride: Steps between patches, in frames and in mel bands.
        num_mel_bins: Mel bands that the model reads.
        hidden_dropout_prob, attention_probs_dropout_prob: Dropout in training, in [0, 1).
    """

    num_labels: int | None
    label_names: Sequence[str] | None
    max_length: int | None
    seconds: float | None
    time_stride: int | None
    frequency_stride: int | None
    num_mel_bins: int | None
    hidden_dropout_prob: float | None
    attention_probs_dropout_prob: float | None


def load_ast(
    id_or_path: str, *, keep_labels: bool = False, seed: int = 0, **settings: Unpack[ASTSettings]
) -> ASTForAudioClassification:
    """A stock AST in float32 and evaluation mode, from the folder or Hub id of another, with `settings` changed.

    The body is kept; the positions are moved to the new grid (`resize_positions`). The head is kept unless `num_labels`
    or `label_names` is given: then all of it is new, drawn by `seed`, and `problem_type` is None. With `keep_labels`
    the old head's norm and its rows of the classes known by name are kept.

    Raises:
        ValueError: The checkpoint is no AST, lacks weights, or has positions that are all the same; a setting is out of
            range; `keep_labels` finds no known name.
    """
    renew = settings.get("num_labels") is not None or settings.get("label_names") is not None
    source = _load_whole(ASTForAudioClassification, id_or_path, (HEAD,) if renew and not keep_labels else ())
    config = _changed_config(source.config, **settings)
    weights = source.state_dict()
    check_positions(weights[BODY + POSITIONS], id_or_path)
    weights[BODY + POSITIONS] = resize_positions(
        weights[BODY + POSITIONS], patch_grid(source.config), patch_grid(config)
    )
    if renew:
        head = _new_head(config, seed)
        if keep_labels:
            _keep_rows(head, weights, source.config, config)
        weights |= head
    return _assembled(config, weights)


def ast_from_deit(id_or_path: str, *, seed: int = 0, **settings: Unpack[ASTSettings]) -> ASTForAudioClassification:
    """An AST that starts from a distilled DeiT trained on images, as the paper's; the head is new, drawn by `seed`.

    Patch weights are summed over the colours, positions are moved from the image's grid (height to frequency, width to
    time); the class and the distillation token and all layers are kept. Labels must be given.

    Raises:
        ValueError: As `load_ast`.

    Source: `ASTModel.__init__(imagenet_pretrain=True)` of the official repository.
    """
    source = _load_whole(DeiTModel, id_or_path, add_pooling_layer=False)
    return _ast_from_image(source, source.state_dict(), id_or_path, seed, settings)


def ast_from_vit(id_or_path: str, *, seed: int = 0, **settings: Unpack[ASTSettings]) -> ASTForAudioClassification:
    """As `ast_from_deit`, from a ViT (or a DeiT without distillation, which Transformers has as a ViT).

    A ViT has no distillation token: the AST's starts as a copy of the class token, position included. So both tokens
    stay equal, and their mean, which the head reads, is the class token's output. The official code has no such start.

    Raises:
        ValueError: As `load_ast`.
    """
    source = _load_whole(ViTModel, id_or_path, add_pooling_layer=False)
    weights = source.state_dict()
    weights["embeddings.distillation_token"] = weights["embeddings.cls_token"].clone()
    weights[POSITIONS] = torch.cat([weights[POSITIONS][:, :1], weights[POSITIONS]], dim=1)
    return _ast_from_image(source, weights, id_or_path, seed, settings)


def new_ast(config: ASTConfig, *, seed: int = 0, **settings: Unpack[ASTSettings]) -> ASTForAudioClassification:
    """An AST with random weights drawn by `seed`, of the form of `config` with `settings` changed.

    The tokens and positions are drawn too, from a normal distribution of deviation 0.02 cut off at two deviations, as
    the image models that AST starts from have them; Transformers leaves zeros, with which the patches begin without an
    order.

    Raises:
        ValueError: A setting is out of range.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ASTForAudioClassification(_changed_config(config, **settings))
        embeddings = model.audio_spectrogram_transformer.embeddings
        for weight in (embeddings.cls_token, embeddings.distillation_token, embeddings.position_embeddings):
            nn.init.trunc_normal_(weight, std=POSITIONS_STD, a=-2 * POSITIONS_STD, b=2 * POSITIONS_STD)
    return model.eval()


def _ast_from_image(
    source: Any, weights: dict[str, Tensor], id_or_path: str, seed: int, settings: ASTSettings
) -> ASTForAudioClassification:
    if settings.get("num_labels") is None and settings.get("label_names") is None:
        raise ValueError(f"{id_or_path}: give num_labels or label_names: a model of images has no head for sounds.")
    projection = source.embeddings.patch_embeddings
    height, width = projection.patch_size
    if height != width:
        raise ValueError(f"{id_or_path}: its patches are {height} x {width}: an AST has square ones.")
    shared = {name: getattr(source.config, name) for name in SHARED_SETTINGS}
    config = _changed_config(ASTConfig(patch_size=height, **shared), **settings)
    check_positions(weights[POSITIONS], id_or_path)
    image_height, image_width = projection.image_size
    weights[POSITIONS] = resize_positions(
        weights[POSITIONS], (image_height // height, image_width // width), patch_grid(config)
    )
    patches = "embeddings.patch_embeddings.projection.weight"
    weights[patches] = weights[patches].sum(dim=1, keepdim=True)
    return _assembled(config, {BODY + name: weight for name, weight in weights.items()} | _new_head(config, seed))


def _load_whole(model_class: Any, id_or_path: str, optional: tuple[str, ...] = (), **options: Any) -> Any:
    """The model of a checkpoint, none of whose weights, but those that begin as `optional`, may be missing, and none of
    whose layers left over."""
    wanted, found = model_class.config_class.model_type, AutoConfig.from_pretrained(id_or_path).model_type
    if found != wanted:
        remedy = f"use {LOADERS[found]}" if found in LOADERS else f"allowed are {', '.join(LOADERS)}"
        raise ValueError(f'{id_or_path}: model_type is "{found}", not "{wanted}"; {remedy}.')
    options |= {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = model_class.from_pretrained(id_or_path, **options)
    lost = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    lost = {name for name in lost if not name.startswith(optional)}
    if lost:
        raise ValueError(
            f"{id_or_path}: {len(lost)} weights are missing or have another size than config.json says: "
            f"{', '.join(sorted(lost)[:5])}. Take a whole checkpoint; its length is changed here, not in config.json."
        )
    if left_over := {name for name in report["unexpected_keys"] if LAYERS in name}:
        raise ValueError(
            f"{id_or_path}: {len(left_over)} weights have no place in the {model.config.num_hidden_layers} layers of "
            f"config.json: {', '.join(sorted(left_over)[:5])}. Take the config.json of these weights."
        )
    return model


def _changed_config(
    config: ASTConfig,
    *,
    num_labels: int | None = None,
    label_names: Sequence[str] | None = None,
    max_length: int | None = None,
    seconds: float | None = None,
    time_stride: int | None = None,
    frequency_stride: int | None = None,
    num_mel_bins: int | None = None,
    hidden_dropout_prob: float | None = None,
    attention_probs_dropout_prob: float | None = None,
) -> ASTConfig:
    if max_length is not None and seconds is not None:
        raise ValueError(f"max_length={max_length} and seconds={seconds}: give one of the two.")
    changed = deepcopy(config)
    changed.dtype = torch.float32
    sizes = {"time_stride": time_stride, "frequency_stride": frequency_stride, "num_mel_bins": num_mel_bins}
    dropouts = {
        "hidden_dropout_prob": hidden_dropout_prob,
        "attention_probs_dropout_prob": attention_probs_dropout_prob,
    }
    for name, value in dropouts.items():
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{name}={value}: allowed are numbers from 0 to below 1.")
    for name, value in (sizes | dropouts | {"max_length": max_length}).items():
        if value is not None:
            setattr(changed, name, value)
    if seconds is not None:
        changed.max_length = covering_length(seconds, changed)
    patch_grid(changed)  # raises where a patch does not fit
    if num_labels is not None or label_names is not None:
        names = _checked_names(num_labels, label_names)
        changed.id2label = dict(enumerate(names))
        changed.label2id = {name: row for row, name in enumerate(names)}
        changed.problem_type = None  # the old labels'
    return changed


def _checked_names(num_labels: int | None, label_names: Sequence[str] | None) -> list[str]:
    names = [f"LABEL_{row}" for row in range(num_labels or 0)] if label_names is None else list(label_names)
    if not names or len(set(names)) < len(names) or num_labels not in (None, len(names)):
        raise ValueError(
            f"num_labels={num_labels} with label_names={label_names}: give one of the two, at least one class, and no "
            "name twice."
        )
    return names


def _new_head(config: ASTConfig, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.empty(config.num_labels, config.hidden_size)
    return {
        HEAD + "layernorm.weight": torch.ones(config.hidden_size),
        HEAD + "layernorm.bias": torch.zeros(config.hidden_size),
        HEAD + "dense.weight": weight.normal_(std=config.initializer_range, generator=generator),
        HEAD + "dense.bias": torch.zeros(config.num_labels),
    }


def _keep_rows(head: dict[str, Tensor], old: dict[str, Tensor], old_config: ASTConfig, config: ASTConfig) -> None:
    """Puts the old head's norm, and its rows of the classes that recur by name, into the new `head`."""
    old_rows = {name: row for row, name in old_config.id2label.items()}
    kept = {row: old_rows[name] for row, name in config.id2label.items() if name in old_rows}
    if not kept:
        raise ValueError(
            f"keep_labels=True, but none of {list(config.id2label.values())[:5]} is a class of the checkpoint, whose "
            f"classes begin with {list(old_rows)[:5]}. Use its names, or leave keep_labels out."
        )
    for kind in ("weight", "bias"):
        head[f"{HEAD}layernorm.{kind}"] = old[f"{HEAD}layernorm.{kind}"]
        head[f"{HEAD}dense.{kind}"][list(kept)] = old[f"{HEAD}dense.{kind}"][list(kept.values())]


def _assembled(config: ASTConfig, weights: dict[str, Tensor]) -> ASTForAudioClassification:
    with torch.device("meta"):  # every weight is given, so none is drawn
        model = ASTForAudioClassification(config)
    model.load_state_dict({name: weight.contiguous() for name, weight in weights.items()}, assign=True)
    return model.eval()
