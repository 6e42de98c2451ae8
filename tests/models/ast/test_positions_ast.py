"""Position embeddings on another grid are those of the official code, which is written out here."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hf_audioformer.audio.fbank import num_frames
from hf_audioformer.models.ast.positions_ast import (
    check_positions,
    covering_length,
    longest_step,
    patch_grid,
    resize_positions,
)

from .tiny_ast import tiny_ast_config

OFFICIAL = {"patch_size": 16, "num_mel_bins": 128}


def positions_of(grid: tuple[int, int], hidden_size: int = 6) -> Tensor:
    return torch.randn(1, grid[0] * grid[1] + 2, hidden_size)


def official_from_image(pos_embed: Tensor, hw: int, f_dim: int, t_dim: int) -> Tensor:
    """`ASTModel.__init__(imagenet_pretrain=True)`: cut or interpolate time, then frequency."""
    size = pos_embed.shape[2]
    new = pos_embed[:, 2:, :].reshape(1, hw * hw, size).transpose(1, 2).reshape(1, size, hw, hw)
    if t_dim <= hw:
        new = new[:, :, :, int(hw / 2) - int(t_dim / 2) : int(hw / 2) - int(t_dim / 2) + t_dim]
    else:
        new = interpolate(new, size=(hw, t_dim), mode="bilinear")
    if f_dim <= hw:
        new = new[:, :, int(hw / 2) - int(f_dim / 2) : int(hw / 2) - int(f_dim / 2) + f_dim, :]
    else:
        new = interpolate(new, size=(f_dim, t_dim), mode="bilinear")
    return torch.cat([pos_embed[:, :2, :], new.reshape(1, size, f_dim * t_dim).transpose(1, 2)], dim=1)


def official_from_audioset(pos_embed: Tensor, t_dim: int) -> Tensor:
    """`ASTModel.__init__(audioset_pretrain=True)`: the grid is 12 x 101, only time changes."""
    size = pos_embed.shape[2]
    new = pos_embed[:, 2:, :].reshape(1, 1212, size).transpose(1, 2).reshape(1, size, 12, 101)
    if t_dim < 101:
        new = new[:, :, :, 50 - int(t_dim / 2) : 50 - int(t_dim / 2) + t_dim]
    else:
        new = interpolate(new, size=(12, t_dim), mode="bilinear")
    return torch.cat([pos_embed[:, :2, :], new.reshape(1, size, 12 * t_dim).transpose(1, 2)], dim=1)


@pytest.mark.reference
@pytest.mark.parametrize("t_dim", [1, 12, 23, 24, 25, 101])
@pytest.mark.parametrize("f_dim", [1, 7, 12, 24, 31])
@pytest.mark.parametrize("hw", [14, 24])
def test_from_an_image_as_the_official_code(hw: int, f_dim: int, t_dim: int) -> None:
    positions = positions_of((hw, hw))
    found = resize_positions(positions, (hw, hw), (f_dim, t_dim))
    torch.testing.assert_close(found, official_from_image(positions, hw, f_dim, t_dim))


@pytest.mark.reference
@pytest.mark.parametrize("t_dim", [1, 2, 11, 12, 50, 99, 100, 101, 102, 150, 300])
def test_from_audioset_as_the_official_code(t_dim: int) -> None:
    positions = positions_of((12, 101))
    found = resize_positions(positions, (12, 101), (12, t_dim))
    torch.testing.assert_close(found, official_from_audioset(positions, t_dim))


@pytest.mark.invariant
def test_same_grid_changes_nothing() -> None:
    positions = positions_of((12, 101))
    assert torch.equal(resize_positions(positions, (12, 101), (12, 101)), positions)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("stride", "max_length", "grid"),
    [(10, 1024, (12, 101)), (10, 512, (12, 50)), (10, 128, (12, 12)), (16, 1024, (8, 64)), (12, 1024, (10, 85))],
)
def test_grids_are_the_published_ones(stride: int, max_length: int, grid: tuple[int, int]) -> None:
    config = tiny_ast_config(time_stride=stride, frequency_stride=stride, max_length=max_length, **OFFICIAL)
    assert patch_grid(config) == grid


@pytest.mark.unit
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 7}, r"max_length=7 with time_stride=5: allowed are max_length >= 8"),
        ({"num_mel_bins": 4}, r"num_mel_bins=4 with frequency_stride=5"),
        ({"time_stride": 0}, r"time_stride=0"),
        ({"patch_size": [8, 8]}, r"patch_size=\[8, 8\]: an AST has square patches"),
    ],
)
def test_impossible_grids_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patch_grid(tiny_ast_config(**settings))


@pytest.mark.property
@pytest.mark.parametrize("stride", [1, 7, 10, 16, 20])
@pytest.mark.parametrize("seconds", [0.025, 0.18, 0.5, 1.0, 5.0, 10.0, 30.24])
def test_covering_length_is_the_smallest_that_leaves_no_frame_out(seconds: float, stride: int) -> None:
    from torchaudio.compliance.kaldi import fbank

    frames = len(fbank(torch.randn(1, round(seconds * 16000)), num_mel_bins=4, high_freq=4000))
    config = tiny_ast_config(time_stride=stride, **OFFICIAL)
    length = covering_length(seconds, config)
    last_patch = (length - 16) // stride * stride
    assert length >= frames
    assert last_patch + 16 == length, "no frame behind the last patch"
    assert length == 16 or length - stride < frames, "one patch less would leave frames out"


@pytest.mark.unit
def test_frames_are_counted_at_the_rate_of_the_extractor() -> None:
    """At 22050 Hz Kaldi's hop is 220 samples, and ten seconds have 1000 frames, not 998."""
    config = tiny_ast_config(time_stride=1, **OFFICIAL)
    assert covering_length(10.0, config) == 998
    assert covering_length(10.0, config, 22_050) == num_frames(220_500, 22_050) == 1000


@pytest.mark.unit
@pytest.mark.parametrize(("stride", "step"), [(10, 1010), (16, 1024), (20, 1016)])
def test_windows_may_lie_as_far_apart_as_patches_reach(stride: int, step: int) -> None:
    assert longest_step(tiny_ast_config(max_length=1024, time_stride=stride, **OFFICIAL)) == step


@pytest.mark.unit
def test_covering_length_refuses_what_is_no_clip() -> None:
    with pytest.raises(ValueError, match=r"seconds=0.01: a clip is at least 0.025 s"):
        covering_length(0.01, tiny_ast_config())
    with pytest.raises(ValueError, match="time_stride=0: allowed are numbers >= 1"):
        covering_length(1.0, tiny_ast_config(time_stride=0))


@pytest.mark.unit
@pytest.mark.parametrize("lost", [torch.zeros(6), torch.ones(6), torch.full((6,), float("nan"))])
def test_lost_positions_are_refused(lost: Tensor) -> None:
    positions = positions_of((3, 4))
    check_positions(positions, "whole")
    positions[:, 2:] = lost
    with pytest.raises(ValueError, match="folder: its position embeddings are not finite or the same for every patch"):
        check_positions(positions, "folder")
