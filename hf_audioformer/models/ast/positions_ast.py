"""The grid of an AST's patches, and position embeddings moved from one grid to another by the official rule.

A grid is (patches over frequency, patches over time); positions are flattened frequency-major behind two tokens.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import ASTConfig

__all__ = ["check_positions", "covering_frames", "covering_length", "longest_step", "patch_grid", "resize_positions"]

# The front end's window and shift, which are whole samples there, rounded down.
WINDOW_SECONDS = 0.025
SHIFT_SECONDS = 0.010


def patch_grid(config: ASTConfig) -> tuple[int, int]:
    """Patches over frequency and over time of an AST.

    Raises:
        ValueError: A stride is below 1, or the spectrogram is smaller than a patch.
    """
    patch = _patch_side(config)
    grid = []
    for side, stride in (("num_mel_bins", "frequency_stride"), ("max_length", "time_stride")):
        size, step = getattr(config, side), getattr(config, stride)
        if step < 1 or size < patch:
            raise ValueError(f"{side}={size} with {stride}={step}: allowed are {side} >= {patch} and {stride} >= 1.")
        grid.append((size - patch) // step + 1)
    return grid[0], grid[1]


def longest_step(config: ASTConfig) -> int:
    """The most frames from one window of a clip to the next that leave out none between them: the last few of
    `max_length` may lie in no patch. Where patches overlap, those of the next window go on with the same stride."""
    steps = patch_grid(config)[1]
    return min(steps * config.time_stride, (steps - 1) * config.time_stride + _patch_side(config))


def covering_length(seconds: float, config: ASTConfig, sampling_rate: int = 16_000) -> int:
    """The smallest number of frames whose patches cover every frame of a clip of `seconds` at a rate in Hz.

    Raises:
        ValueError: The clip is shorter than one window of 25 ms, or the stride is below 1.
    """
    window, shift = int(WINDOW_SECONDS * sampling_rate), int(SHIFT_SECONDS * sampling_rate)
    samples = round(seconds * sampling_rate)
    if samples < window:
        raise ValueError(f"seconds={seconds}: a clip is at least {WINDOW_SECONDS} s long.")
    return covering_frames(1 + (samples - window) // shift, config)


def covering_frames(frames: int, config: ASTConfig) -> int:
    """The smallest number of frames whose patches cover so many.

    Raises:
        ValueError: The stride is below 1.
    """
    patch, time_stride = _patch_side(config), config.time_stride
    if time_stride < 1:
        raise ValueError(f"time_stride={time_stride}: allowed are numbers >= 1.")
    return patch + max(0, math.ceil((frames - patch) / time_stride)) * time_stride


def _patch_side(config: ASTConfig) -> int:
    if not isinstance(config.patch_size, int):
        raise ValueError(f"patch_size={config.patch_size}: an AST has square patches, given as one number.")
    return config.patch_size


def resize_positions(positions: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Positions (1, 2 + patches of `source`, hidden_size) on the grid `target`; those of the two tokens are kept.

    Each axis is cut to its middle where it shrinks and interpolated (bilinear) where it grows. An index on the grid
    keeps its embedding when the stride changes, as in the official code, though it then lies elsewhere in time.

    Source: `ASTModel.__init__` of the official repository: 24 -> t starts at `12 - t // 2`, 101 -> t at `50 - t // 2`.
    """
    grid = positions[:, 2:].transpose(1, 2).unflatten(2, source)
    frequency, time = target
    grid = _cut_middle(grid, min(frequency, source[0]), min(time, source[1]))
    if grid.shape[2:] != target:
        grid = interpolate(grid, size=target, mode="bilinear", align_corners=False)
    return torch.cat([positions[:, :2], grid.flatten(2).transpose(1, 2)], dim=1)


def _cut_middle(grid: Tensor, frequency: int, time: int) -> Tensor:
    top, left = grid.shape[2] // 2 - frequency // 2, grid.shape[3] // 2 - time // 2
    return grid[:, :, top : top + frequency, left : left + time]


def check_positions(positions: Tensor, source: str) -> None:
    """Refuses positions (1, tokens, hidden_size) that do not tell one patch from another.

    Raises:
        ValueError: All patches have one position (as zeros, which is what Transformers leaves where it could not load
            them), or a number is not finite.
    """
    patches = positions[0, 2:]
    if not torch.isfinite(positions).all() or (len(patches) > 1 and torch.equal(patches.amin(0), patches.amax(0))):
        raise ValueError(
            f"{source}: its position embeddings are not finite or the same for every patch, from "
            f"{patches.min():.3g} to {patches.max():.3g}. They were lost, probably in loading at another length with "
            "ignore_mismatched_sizes=True. Take the checkpoint from before and give `max_length` here."
        )
