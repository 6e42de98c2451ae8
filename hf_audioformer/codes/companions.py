"""Companion networks: C2, C3, ... of the paper, whose vectors of a clip are compared with that of C1."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import AutoModel

from ..checkpoint_config import read_config
from ..models.audioformer.modeling_audioformer import AudioFormerModel, masked_mean

__all__ = ["companion_vectors", "load_companions", "num_codebooks_read", "pool_companions"]


def load_companions(folders: Sequence[str], *, codebook_size: int, hidden_size: int) -> list[AudioFormerModel]:
    """The encoders in `folders` (or Hub ids), frozen and in evaluation mode, each reading one codebook.

    Args:
        folders: Checkpoints of one codebook each, such as `pretrain --model.codebook_index 1` leaves.
        codebook_size: Codes per codebook of the codec whose codes they will read.
        hidden_size: Width of the network they accompany.

    Raises:
        FileNotFoundError, NotADirectoryError: As `read_config`.
        ValueError: A checkpoint is no AudioFormer of one codebook, two read the same one, or sizes differ.
    """
    for folder in folders:
        read_config(folder, "a companion")
    networks = [AutoModel.from_pretrained(folder) for folder in folders]
    reader_of: dict[int, str] = {}
    for folder, network in zip(folders, networks, strict=True):
        if not isinstance(network, AudioFormerModel) or network.config.num_codebooks != 1:
            raise ValueError(
                f"the companion {folder} is a {type(network).__name__} of "
                f"{getattr(network.config, 'num_codebooks', 'no')} codebooks; companions are AudioFormers that read one"
            )
        for name, wanted in (("codebook_size", codebook_size), ("hidden_size", hidden_size)):
            found = getattr(network.config, name)
            if found != wanted:
                raise ValueError(f"the companion {folder} has {name} {found}; the network it accompanies has {wanted}")
        other = reader_of.setdefault(_codebook(network), folder)
        if other != folder:
            raise ValueError(f"the companions {other} and {folder} read the same codebook, {_codebook(network)}")
        network.eval().requires_grad_(False)
    return networks


def num_codebooks_read(networks: Sequence[AudioFormerModel]) -> int:
    """How many codebooks must be encoded for the networks."""
    return 1 + max(map(_codebook, networks))


@torch.no_grad()
def pool_companions(networks: Sequence[AudioFormerModel], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The vectors (batch, num_companions, hidden_size) of codes int64 (batch, frames, num_codebooks).

    `attention_mask` (batch, frames) is 1 for frames, BOA and EOA included, over which each network's output is meant.
    """
    vectors = [
        masked_mean(network(input_ids[..., _codebook(network)], attention_mask).last_hidden_state, attention_mask)
        for network in networks
    ]
    return torch.stack(vectors, dim=1)


def companion_vectors(
    networks: Sequence[AudioFormerModel],
    input_ids: Sequence[np.ndarray],
    device: str | torch.device | None = None,
    batch_size: int = 16,
    *,
    description: str | None = None,
) -> np.ndarray:
    """The vectors of clips, float32 (clips, num_companions, hidden_size).

    Args:
        networks: From `load_companions`.
        input_ids: Of each clip integers (frames, num_codebooks), or (frames,) for one, whole and unchanged, with
            boundary tokens if the networks were trained with them.
        device: Where the networks run; by default where they are.
        batch_size: Clips, of nearly one length, that are computed together.
        description: Of the progress bar; none is shown if not given.

    Raises:
        ValueError: There are no networks, or a clip lacks a codebook that one of them reads.
    """
    if not networks:
        raise ValueError("there are no companion networks; load_companions gives them")
    needed = num_codebooks_read(networks)
    clips = [ids.reshape(len(ids), -1) for ids in input_ids]
    for index, clip in enumerate(clips):
        if clip.shape[1] < needed:
            raise ValueError(
                f"clip {index} has codes of shape {clip.shape} (frames, num_codebooks); the companions read {needed} "
                "codebooks. Encode that many."
            )
    if device is not None:
        nn.ModuleList(networks).to(device)
    vectors = np.empty((len(clips), len(networks), networks[0].config.hidden_size), dtype=np.float32)
    order = np.argsort([len(clip) for clip in clips], kind="stable")
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc=description, unit="batch", disable=description is None):
        chosen = order[start : start + batch_size]
        codes = [torch.from_numpy(clips[index].astype(np.int64)) for index in chosen]
        masks = [torch.ones(len(code), dtype=torch.int64) for code in codes]
        batch = [pad_sequence(tensors, batch_first=True).to(networks[0].device) for tensors in (codes, masks)]
        vectors[chosen] = pool_companions(networks, *batch).float().cpu().numpy()
    return vectors


def _codebook(network: AudioFormerModel) -> int:
    return network.config.codebook_index
