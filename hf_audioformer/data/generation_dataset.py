"""Tasks made from clips for a model that generates: what it hears of a clip, and the whole clip that it is to give.

`denoise` hears the clip in noise, `continue` its beginning, `inpaint` all but a stretch. What is not heard is MASK, so
that in all tasks the clip that is generated is as long as the one that is heard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..draws import generator_of
from ..models.audioformer.configuration_audioformer import special_token_id
from .code_dataset import CodeVersion
from .epoch_dataset import EpochDataset

__all__ = ["TASKS", "GenerationDataset", "Task", "draw_hidden", "hide"]

Task = Literal["denoise", "continue", "inpaint"]
TASKS: tuple[Task, ...] = get_args(Task)

# How much of a clip is hidden: its end, or a stretch.
CONTINUED = (0.25, 0.75)
INPAINTED = (0.1, 0.5)


def draw_hidden(task: Task, frames: int, random: np.random.Generator) -> slice:
    """The frames of a clip that are not heard: none, its end, or a stretch of it."""
    if task == "denoise":
        return slice(0, 0)
    length = max(1, round(random.uniform(*(CONTINUED if task == "continue" else INPAINTED)) * frames))
    start = frames - length if task == "continue" else int(random.integers(frames - length + 1))
    return slice(start, start + length)


def hide(codes: np.ndarray, hidden: slice, codebook_size: int) -> np.ndarray:
    """A copy of codes (frames, num_codebooks) with MASK in the hidden frames."""
    heard = codes.copy()
    heard[hidden] = special_token_id(codebook_size, "mask")
    return heard


@dataclass(eq=False)
class GenerationDataset(EpochDataset):
    """Clips as tasks, drawn anew in each epoch.

    An item is `{"input_ids": (tokens,) or (tokens, num_codebooks), "labels": (frames,) or (frames, num_codebooks),
    "clip_index": int}`, all int64: the tokens that are heard, with BOA and EOA where the extractor adds them, and the
    codes to generate. A model without an encoder hears nothing: its items have no `input_ids`.

    Args:
        versions: For each clip its codes, the clean ones first, then those in noise.
        tasks: One of them is drawn for each item.
        tokens: Makes `input_ids` of codes (frames, num_codebooks), as `AudioFormerFeatureExtractor.tokens`; None for a
            model without an encoder.
        crop_frames: Longer clips are cut to a random stretch of so many frames.
    """

    versions: Sequence[Sequence[CodeVersion]]
    tasks: Sequence[Task]
    tokens: Callable[[np.ndarray], np.ndarray] | None
    codebook_size: int
    crop_frames: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def lengths(self) -> list[int]:
        """Tokens of each clip as it is, by which the Trainer groups clips of like length."""
        return [len(versions[0].input_ids) for versions in self.versions]

    def __len__(self) -> int:
        return len(self.versions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = generator_of(self.seed, self.epoch, index)
        versions = self.versions[index]
        task = self.tasks[int(random.integers(len(self.tasks)))]
        heard = versions[1 + int(random.integers(len(versions) - 1))] if task == "denoise" else versions[0]
        clean, codes = (_codes(version, self.codebook_size) for version in (versions[0], heard))
        if self.crop_frames is not None and len(clean) > self.crop_frames:
            start = int(random.integers(len(clean) - self.crop_frames + 1))
            clean, codes = (of[start : start + self.crop_frames] for of in (clean, codes))
        labels = clean[:, 0] if clean.shape[1] == 1 else clean
        item = {"labels": labels.astype(np.int64), "clip_index": index}
        if self.tokens is None:
            return item
        codes = hide(codes, draw_hidden(task, len(codes), random), self.codebook_size)
        return item | {"input_ids": self.tokens(codes)}


def _codes(version: CodeVersion, codebook_size: int) -> np.ndarray:
    """The codes (frames, num_codebooks) without special tokens."""
    ids = version.input_ids.reshape(len(version.input_ids), -1)
    return ids[(ids < codebook_size).all(axis=1)]
