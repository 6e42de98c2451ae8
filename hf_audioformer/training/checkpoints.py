"""Checkpoints that are known to be whole while training, and the folder that is left at the end.

A marker is written last; resuming takes the newest checkpoint whose marker is true.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor

from ..models.audioformer.feature_extraction_audioformer import AudioFormerFeatureExtractor
from .console import quiet_transformers

if TYPE_CHECKING:
    from transformers import FeatureExtractionMixin, PreTrainedModel

__all__ = [
    "check_finite",
    "mark_complete",
    "newest_complete_checkpoint",
    "remove_checkpoints",
    "save_final",
    "weights_held_here",
]

MARKER = "complete.json"

logger = logging.getLogger(__name__)


def mark_complete(checkpoint: str | os.PathLike[str]) -> None:
    """Writes the sizes of all files of a finished checkpoint into its marker, in one atomic step."""
    folder = Path(checkpoint)
    temporary = folder / f"{MARKER}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(_file_sizes(folder), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / MARKER)


def newest_complete_checkpoint(output_dir: str | os.PathLike[str]) -> str | None:
    """The `checkpoint-N` with the largest N whose files are all there in full size; names those it skips.

    None if there is no such checkpoint.
    """
    numbered = [(int(m[1]), path) for path in Path(output_dir).glob("checkpoint-*") if (m := _NUMBER.search(path.name))]
    for _, checkpoint in sorted(numbered, reverse=True):
        fault = _fault(checkpoint)
        if fault is None:
            return str(checkpoint)
        logger.warning("skipped the incomplete checkpoint %s: %s", checkpoint, fault)
    return None


def check_finite(weights: Mapping[str, torch.Tensor]) -> None:
    """Raises a ValueError if a weight is NaN or infinite, so that such weights are never saved."""
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ValueError(
                f"the weights {name} are no longer finite and are not saved. Train again from the last checkpoint with "
                "a lower learning_rate, or in float32 (bf16 and fp16 off)."
            )


def weights_held_here(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that this process holds: all of them, or its shards under DeepSpeed ZeRO-3 and FSDP."""
    held: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters():
        shard = getattr(weight, "ds_tensor", weight).detach()  # ZeRO-3 leaves an empty parameter in the model
        held[name] = shard.to_local() if isinstance(shard, DTensor) else shard
    return held


def save_final(
    model: "PreTrainedModel",
    extractor: "FeatureExtractionMixin",
    folder: Path,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Leaves a folder that works alone, with model, feature extractor and, of an AudioFormer, codec.

    `weights` are those of a model whose own are shards; see `AudioTrainer.gather_weights`.
    """
    weights = model.state_dict() if weights is None else weights
    check_finite(weights)
    # Gathered weights that are tied no longer share their memory, by which Transformers would leave out the second.
    once = {name: weight for name, weight in weights.items() if name not in model.all_tied_weights_keys}
    codec = {"include_codec": True} if isinstance(extractor, AudioFormerFeatureExtractor) else {}
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=once)
        _tell_dtype(model, weights, folder)
        extractor.save_pretrained(folder, **codec)


def _tell_dtype(model: "PreTrainedModel", weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Writes the dtype of the saved weights into a configuration that was saved with the model's."""
    dtype = next(weight.dtype for weight in weights.values() if weight.is_floating_point())
    if dtype != model.dtype:
        config = copy(model.config)
        config.dtype = dtype
        config.save_pretrained(folder)


def remove_checkpoints(folder: Path) -> None:
    """Deletes the training checkpoints in a folder; the last act of a recipe, since resuming needs them."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


_NUMBER = re.compile(r"^checkpoint-(\d+)$")


def _file_sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(MARKER))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _fault(checkpoint: Path) -> str | None:
    marker = checkpoint / MARKER
    if not marker.is_file():
        return f"it has no {MARKER}, so it was not written to its end"
    found = _file_sizes(checkpoint)
    for name, size in json.loads(marker.read_text(encoding="utf-8")).items():
        if found.get(name) != size:
            return f"{name} has {found.get(name, 'no')} bytes of {size}"
    if not any("optim" in name for name in found):
        return "it holds no optimizer state (save_only_model)"
    return None
