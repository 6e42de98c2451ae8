"""Encoding a set of clips: every clip once, split over the processes that train together."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from ..models.audioformer.feature_extraction_audioformer import AudioFormerFeatureExtractor

__all__ = ["MAX_BAD_SHARE", "EncodedClips", "check_bad_share", "encode_clips", "encode_each"]

logger = logging.getLogger(__name__)

# With more bad clips than this share something else is wrong: the column, the codec, the disk.
MAX_BAD_SHARE = 0.2

ACCELERATOR_BATCH_SIZE = 32

Load = Callable[[int], Mapping[str, Any]]


@dataclass(frozen=True)
class EncodedClips:
    """Codes of clips by their index, `input_ids` int64 (frames,) or (frames, num_codebooks), and why others failed."""

    input_ids: dict[int, np.ndarray]
    failures: dict[int, str]


def encode_clips(
    load: Load,
    ids: Sequence[str],
    extractor: AudioFormerFeatureExtractor,
    *,
    skip_bad: bool = False,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    description: str = "encode",
) -> EncodedClips:
    """Encodes the clips `load(0)`, `load(1)`, ... named `ids`, with a progress bar.

    Under `torchrun` or `accelerate launch` each process encodes its share and all receive the whole.

    Args:
        load: Gives the clip at an index as `{"array": float32 (samples,), "sampling_rate": int}`.
        skip_bad: Whether clips that cannot be read or encoded are left out and reported instead of raised.
        device: Where the codec runs.
        batch_size: Clips encoded together; by default one on a CPU, where batches cost time, and 32 elsewhere.
        description: What the progress bar is called.

    Raises:
        ValueError: A clip cannot be used (the message names it), or with `skip_bad` more than a fifth of them cannot.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object
    from tqdm.auto import tqdm

    state = PartialState()
    own = range(state.process_index, len(ids), state.num_processes)
    shown = tqdm(own, desc=description, unit="clip", disable=not state.is_main_process)
    found = []
    for index, result in encode_each(load, shown, extractor, device=device, batch_size=batch_size):
        if isinstance(result, Exception) and not skip_bad:
            reason = _named(ids[index], str(result))
            raise ValueError(f"{reason} (--data.skip_bad true leaves such clips out)") from result
        found.append((index, result if isinstance(result, np.ndarray) else str(result)))
    if state.num_processes > 1:
        found = gather_object(found)
    codes = {index: result for index, result in found if isinstance(result, np.ndarray)}
    failures = {index: result for index, result in found if isinstance(result, str)}
    if state.is_main_process:
        _report(failures, ids)
    check_bad_share({ids[index]: reason for index, reason in sorted(failures.items())}, len(ids))
    return EncodedClips(codes, failures)


def encode_each(
    load: Load,
    indices: Iterable[int],
    extractor: AudioFormerFeatureExtractor,
    *,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
) -> Iterator[tuple[int, np.ndarray | Exception]]:
    """Each index with the clip's tokens, or with the error that tells why it has none; arguments as `encode_clips`."""
    if batch_size is None:
        batch_size = 1 if extractor.load_codec(device).device.type == "cpu" else ACCELERATOR_BATCH_SIZE
    remaining = iter(indices)
    while batch := list(islice(remaining, batch_size)):
        try:
            yield from zip(batch, _encode_batch(load, batch, extractor, device), strict=True)
        except (ValueError, OSError) as error:
            if len(batch) > 1:
                yield from encode_each(load, batch, extractor, device=device, batch_size=1)
            else:
                yield batch[0], error


def check_bad_share(reasons: Mapping[str, str], num_clips: int, limit: float = MAX_BAD_SHARE) -> None:
    """Raises a ValueError if more than a share of `limit` of the clips cannot be used; `reasons` says why, by id."""
    if len(reasons) > limit * num_clips:
        clip_id, reason = next(iter(reasons.items()))
        raise ValueError(
            f"{len(reasons)} of {num_clips} clips cannot be used, more than {limit:.0%}; the first: "
            f"{_named(clip_id, reason)}"
        )


def _encode_batch(
    load: Load, indices: Sequence[int], extractor: AudioFormerFeatureExtractor, device: str | torch.device | None
) -> list[np.ndarray]:
    """The codes of some clips, those of one sampling rate together."""
    audio = [load(index) for index in indices]
    codes: dict[int, np.ndarray] = {}
    for rate in {clip["sampling_rate"] for clip in audio}:
        members = [position for position, clip in enumerate(audio) if clip["sampling_rate"] == rate]
        features = extractor([audio[position]["array"] for position in members], sampling_rate=rate, device=device)
        codes |= zip(members, features["input_ids"], strict=True)
    return [codes[position] for position in range(len(audio))]


def _report(failures: Mapping[int, str], ids: Sequence[str]) -> None:
    if failures:
        logger.warning("left out %d of %d clips:", len(failures), len(ids))
    for index, reason in sorted(failures.items()):
        logger.warning("  %s", _named(ids[index], reason))


def _named(clip_id: str, reason: str) -> str:
    """The reason with the clip's name before it, unless it says the name already."""
    return reason if clip_id in reason else f"{clip_id}: {reason}"
