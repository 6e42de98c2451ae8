"""Tasks made from clips: what is heard, what is to be generated, and batches of both."""

import numpy as np
import pytest
import torch

from hf_audioformer import AudioFormerFeatureExtractor
from hf_audioformer.data.code_dataset import CodeVersion
from hf_audioformer.data.collators import GenerationCollator
from hf_audioformer.data.generation_dataset import GenerationDataset, Task, draw_hidden

SIZE, MASK = 1024, 1026


def versions(frames: int, count: int = 3) -> list[CodeVersion]:
    """A clip's versions: in version v the codes of frame t are 10 t + 100 v and one more."""
    codes = 10 * np.arange(frames)[:, None] + np.arange(2)
    extractor = AudioFormerFeatureExtractor(num_codebooks=2)
    return [CodeVersion(extractor.tokens(codes + 100 * number)) for number in range(count)]


def dataset(task: Task, *clips: list[CodeVersion], crop_frames: int | None = None) -> GenerationDataset:
    tokens = AudioFormerFeatureExtractor(num_codebooks=2).tokens
    return GenerationDataset(clips, [task], tokens, SIZE, crop_frames=crop_frames)


def drawn(data: GenerationDataset, epochs: int = 30) -> list[tuple[np.ndarray, np.ndarray]]:
    """What is heard, without BOA and EOA, and what is to be generated, in several epochs."""
    items = []
    for epoch in range(epochs):
        data.set_epoch(epoch)
        item = data[0]
        assert (item["input_ids"][0] == 1024).all()
        assert (item["input_ids"][-1] == 1025).all()
        items.append((item["input_ids"][1:-1], item["labels"]))
    return items


@pytest.mark.unit
def test_denoising_hears_every_noise_and_gives_the_clean_clip() -> None:
    found = drawn(dataset("denoise", versions(5)))
    assert all((clean == versions(5)[0].input_ids[1:-1]).all() for _, clean in found)
    assert {int((heard - clean)[0, 0]) for heard, clean in found} == {100, 200}
    assert all(len(np.unique(heard - clean)) == 1 for heard, clean in found)


@pytest.mark.unit
@pytest.mark.parametrize("task", ["continue", "inpaint"])
def test_what_is_hidden_is_one_stretch(task: Task) -> None:
    lengths, starts = set(), set()
    for heard, clean in drawn(dataset(task, versions(20))):
        hidden = np.flatnonzero((heard == MASK).all(axis=1))
        assert (np.diff(hidden) == 1).all()
        others = np.delete(np.arange(20), hidden)
        assert (heard[others] == clean[others]).all()
        assert (hidden[-1] == 19) or task == "inpaint"
        lengths.add(len(hidden))
        starts.add(int(hidden[0]))
    assert len(starts) > 5
    assert (min(lengths) >= 5 and max(lengths) <= 15) if task == "continue" else (max(lengths) <= 10)


@pytest.mark.unit
def test_a_crop_cuts_both_alike() -> None:
    found = drawn(dataset("denoise", versions(9), crop_frames=4))
    assert all(heard.shape == clean.shape == (4, 2) for heard, clean in found)
    assert all(len(np.unique(heard - clean)) == 1 for heard, clean in found)
    assert {int(clean[0, 0]) for _, clean in found} == {0, 10, 20, 30, 40, 50}


@pytest.mark.invariant
def test_a_draw_depends_on_epoch_and_clip_alone() -> None:
    first, again = (dataset("inpaint", versions(20), versions(20)) for _ in range(2))
    assert (first[1]["input_ids"] == again[1]["input_ids"]).all()
    assert not np.array_equal(first[0]["input_ids"], first[1]["input_ids"])
    again.set_epoch(1)
    assert not np.array_equal(first[1]["input_ids"], again[1]["input_ids"])


@pytest.mark.unit
def test_one_frame_can_be_hidden() -> None:
    random = np.random.default_rng(0)
    assert draw_hidden("continue", 1, random) == draw_hidden("inpaint", 1, random) == slice(0, 1)
    assert draw_hidden("denoise", 1, random) == slice(0, 0)


@pytest.mark.unit
def test_a_model_without_an_encoder_hears_nothing() -> None:
    data = GenerationDataset([versions(20), versions(12)], ["continue"], None, SIZE, crop_frames=15)
    batch = GenerationCollator(pad_token_id=1027)([data[0], data[1]])
    assert list(batch) == ["labels"]
    assert batch["labels"].shape[:2] == (2, 15)
    assert (batch["labels"][1, 12:] == -100).all()


@pytest.mark.unit
def test_batches_pad_what_is_heard_and_what_is_generated() -> None:
    data = dataset("denoise", versions(3), versions(2))
    batch = GenerationCollator(pad_token_id=1027)([data[0], data[1]])
    assert batch["input_ids"].shape == (2, 5, 2)
    assert batch["labels"].tolist() == [[[0, 1], [10, 11], [20, 21]], [[0, 1], [10, 11], [-100, -100]]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 1, 0]]
    assert (batch["input_ids"][1, -1] == 1027).all()
    assert batch["labels"].dtype == torch.int64
