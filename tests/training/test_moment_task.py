"""What a Trainer gives for padded moments, as tasks take it."""

import numpy as np
import pytest

from hf_audioformer.data.collators import IGNORED_LABEL
from hf_audioformer.data.moments import MomentGrid

from .test_curve_task import task_of


@pytest.mark.unit
def test_boundaries_and_padding_are_taken_off() -> None:
    task = task_of({"a": ([0.0, 0.5, 1.0], [1.0, 2.0, 3.0])}, MomentGrid(0.5, boundaries=1))
    outputs = np.arange(14.0).reshape(2, 7, 1)
    labels = np.full((2, 7, 1), IGNORED_LABEL, dtype=np.float32)
    labels[0, [1, 3]] = 1.0  # the moment between is not known
    scored = task.scored(["a", "a"], outputs, labels, ["f0"])
    assert [of_clip[:, 0].tolist() for of_clip in scored.logits] == [[1, 2, 3], []]
    assert [of_clip.shape for of_clip in scored.labels] == [(3, 1), (0, 1)]
    (first, second) = task.with_targets(_Clips())
    assert first["labels"][:, 0].tolist() == [-100, 1.5, 2.5, -100]
    assert len(second["labels"]) == 5


class _Clips:
    names = ("a", "a")
    lengths = (4, 5)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, object]:
        if index > 1:
            raise IndexError(index)
        return {"input_ids": np.arange(4 + index)}
