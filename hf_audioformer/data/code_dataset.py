"""Encoded clips as a data set for the Trainer, with augmentation that depends on seed, epoch, clip and occurrence
alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..draws import generator_of
from ..models.audioformer.configuration_audioformer import special_token_id
from .epoch_dataset import EpochDataset

__all__ = ["ChangedVersions", "CodeAugmentation", "CodeDataset", "CodeVersion", "frames_of_crop", "only_codebooks"]


@dataclass(frozen=True)
class CodeVersion:
    """A clip as it was encoded once.

    Args:
        input_ids: int64 (frames,) or (frames, num_codebooks).
        targets: Labels of this version where they are not the clip's own, because its sound was mixed with another's:
            float32 (classes,), probabilities or, for several labels per clip, the share of each.
        companions: Vectors of the version's other codebooks (see `codes.companions`), float32 (num_companions,
            hidden_size); a row of NaN is missing.
        companion_input_ids: Whole, unchanged codes of all codebooks, int64 (frames, num_codebooks), where those vectors
            are computed in each step.
        start: Frames that were cut off before it.
    """

    input_ids: np.ndarray
    targets: np.ndarray | None = None
    companions: np.ndarray | None = None
    companion_input_ids: np.ndarray | None = None
    start: int = 0


class ChangedVersions(Sequence[CodeVersion]):
    """The versions of a clip, each passed with its place through `change` whenever it is asked for, so that those of a
    code store stay on disk."""

    __slots__ = ("_change", "_versions")

    def __init__(self, versions: Sequence[CodeVersion], change: Callable[[int, CodeVersion], CodeVersion]):
        self._versions = versions
        self._change = change

    @property
    def length(self) -> int:
        """Tokens of the unchanged version, where `versions` know it."""
        return self._versions.length  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self._versions)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            places = range(*index.indices(len(self)))
            if places == range(len(places)):  # the first ones keep their places
                return ChangedVersions(self._versions[index], self._change)
            return [self[place] for place in places]
        return self._change(range(len(self))[index], self._versions[index])


def only_codebooks(versions: Sequence[CodeVersion], codebooks: int | slice) -> ChangedVersions:
    """The versions with the codes of some codebooks alone: of one, by its index, (frames,), or of a slice.

    Codes of a single codebook, (frames,), are left as they are.
    """
    return ChangedVersions(versions, partial(_cut_codebooks, codebooks))


def _cut_codebooks(codebooks: int | slice, place: int, version: CodeVersion) -> CodeVersion:
    ids = version.input_ids
    return version if ids.ndim == 1 else replace(version, input_ids=ids[:, codebooks])


def frames_of_crop(crop_seconds: float | None, frame_rate: float) -> int | None:
    """The frames of the setting `data.crop_seconds`, at least one; None for no crop.

    Raises:
        ValueError: The setting is not above 0.
    """
    if crop_seconds is None:
        return None
    if not crop_seconds > 0:
        raise ValueError(f"data.crop_seconds is {crop_seconds}; it must be above 0, or null for no crop")
    return max(1, round(crop_seconds * frame_rate))


@dataclass(frozen=True)
class CodeAugmentation:
    """What happens to the codes of a clip each time it is seen in training.

    One of its encoded versions is taken, a stretch of `crop_frames` is cut from a longer clip, and `mask_rate` of the
    frames become MASK. With the probability `codebook_dropout` all codebooks after a random one become MASK too, as if
    the codec had stopped there (quantizer dropout). BOA and EOA stay where they are, and companions as they are: they
    belong to the whole clip.

    Raises:
        ValueError: a rate or probability out of range, a crop below one frame, `codebook_dropout` of clips of one
            codebook.
    """

    codebook_size: int
    mask_rate: float = 0.0
    crop_frames: int | None = None
    codebook_dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.mask_rate < 1:
            raise ValueError(f"mask_rate must be at least 0 and below 1, got {self.mask_rate}")
        if self.crop_frames is not None and self.crop_frames < 1:
            raise ValueError(f"crop_frames must be at least 1, got {self.crop_frames}")
        if not 0 <= self.codebook_dropout <= 1:
            raise ValueError(f"codebook_dropout must lie in [0, 1], got {self.codebook_dropout}")

    def __call__(self, versions: Sequence[CodeVersion], epoch: int, clip_index: int) -> CodeVersion:
        """One of the `versions` of a clip, with changed ids."""
        random = generator_of(self.seed, epoch, clip_index)
        version = versions[int(random.integers(len(versions)))]
        ids = version.input_ids
        frames = np.flatnonzero((ids.reshape(len(ids), -1) < self.codebook_size).all(axis=1))
        start = 0
        if self.crop_frames is not None and len(frames) > self.crop_frames:
            start = int(random.integers(len(frames) - self.crop_frames + 1))
            dropped = np.concatenate((frames[:start], frames[start + self.crop_frames :]))
            ids = np.delete(ids, dropped, axis=0)
            frames = frames[: self.crop_frames]
        masked = random.choice(frames, size=int(self.mask_rate * len(frames)), replace=False)
        ids = ids.copy()
        ids[masked] = special_token_id(self.codebook_size, "mask")
        if self.codebook_dropout:
            ids[frames, self._codebooks_kept(random, ids) :] = special_token_id(self.codebook_size, "mask")
        return replace(version, input_ids=ids, start=start)

    def _codebooks_kept(self, random: np.random.Generator, ids: np.ndarray) -> int:
        if ids.ndim != 2 or ids.shape[1] < 2:
            raise ValueError(
                f"codebook_dropout is {self.codebook_dropout} and a clip has input_ids of shape {ids.shape}; it needs "
                "several codebooks, (frames, num_codebooks)"
            )
        dropped = random.random() < self.codebook_dropout
        return int(random.integers(1, ids.shape[1])) if dropped else ids.shape[1]


class CodeDataset(EpochDataset):
    """Encoded clips with their labels.

    An item is `{"input_ids": (frames,) or (frames, codebooks) int64, "clip_index": int, "labels": if there are any}`,
    with `companions` and `companion_input_ids` where a version of any clip has them, and `start`, in frames, of a
    stretch that does not begin with its clip.

    Args:
        versions: For each clip its encoded versions, the unchanged one first; without augmentation that one is given.
        targets: Labels of the clips, int64 (clips,) or float32 (clips, classes). If any version has labels of its own,
            class indices are given as rows of 0 and 1, float32 (classes,), so that a batch can hold both.
        augmentation: Applied anew in each epoch, and each time an epoch has a clip (see `ClipDraw`).
        names: Names of the clips, for messages.

    Raises:
        ValueError: Versions have labels and the clips have none, or labels of another number of classes; or companions
            of different form.
    """

    def __init__(
        self,
        versions: Sequence[Sequence[CodeVersion]],
        targets: np.ndarray | None = None,
        augmentation: CodeAugmentation | None = None,
        names: Sequence[str] | None = None,
    ):
        super().__init__()
        self.versions = versions
        self.targets = _joint_targets(versions, targets)
        self.companions_shape = _companions_shape(versions)
        self.augmentation = augmentation
        self.names = names

    @property
    def lengths(self) -> list[int]:
        """Tokens of each clip as it is; versions that know their `length` are not read for it."""
        return [_length(versions) for versions in self.versions]

    def __len__(self) -> int:
        return len(self.versions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        versions = self.versions[index]
        version = versions[0] if self.augmentation is None else self.augmentation(versions, self.epoch, index)
        item: dict[str, Any] = {"input_ids": version.input_ids, "clip_index": index}
        if version.start:
            item["start"] = version.start
        if self.targets is not None:
            item["labels"] = self.targets[index] if version.targets is None else version.targets
        if self.companions_shape is not None:
            missing = np.full(self.companions_shape, np.nan, dtype=np.float32)
            item["companions"] = missing if version.companions is None else version.companions
        if version.companion_input_ids is not None:
            item["companion_input_ids"] = version.companion_input_ids
        return item

    def own_labels_only(self) -> CodeDataset:
        """Every version that has its clip's own labels as an item of its own, unchanged and without companions."""
        kept = [
            (clip, CodeVersion(version.input_ids))
            for clip, versions in enumerate(self.versions)
            for version in versions
            if version.targets is None
        ]
        targets = None if self.targets is None else self.targets[[clip for clip, _ in kept]]
        return CodeDataset([[version] for _, version in kept], targets)


def _length(versions: Sequence[CodeVersion]) -> int:
    return getattr(versions, "length", None) or len(versions[0].input_ids)


def _companions_shape(versions: Sequence[Sequence[CodeVersion]]) -> tuple[int, ...] | None:
    shapes = {version.companions.shape for version in _samples(versions) if version.companions is not None}
    if len(shapes) > 1:
        raise ValueError(
            f"clips have companions of different shapes (num_companions, hidden_size): {sorted(shapes)}; compute all "
            "of them with the same networks"
        )
    return shapes.pop() if shapes else None


def _samples(versions: Sequence[Sequence[CodeVersion]]) -> Iterator[CodeVersion]:
    """Every version that is in memory, and one of those that are read when asked for, which are all of a kind."""
    lazy = next((clip for clip in versions if hasattr(clip, "length")), None)
    if lazy is not None:
        yield lazy[0]
    yield from (version for clip in versions if not hasattr(clip, "length") for version in clip)


def _joint_targets(versions: Sequence[Sequence[CodeVersion]], targets: np.ndarray | None) -> np.ndarray | None:
    """The clips' labels in the form of those that versions have."""
    sizes = {len(version.targets) for version in _samples(versions) if version.targets is not None}
    if not sizes:
        return targets
    found = "none" if targets is None else f"{targets.dtype} {targets.shape}"
    num_classes = sizes.pop()
    if targets is not None and targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer):
        targets = np.eye(max(num_classes, targets.max() + 1), dtype=np.float32)[targets]
    if sizes or targets is None or targets.shape[1:] != (num_classes,):
        raise ValueError(
            f"versions of clips have labels of {sorted({num_classes, *sizes})} classes and the clips' own are {found}; "
            "both must speak of the same classes"
        )
    return targets
