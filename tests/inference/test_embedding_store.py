"""Files of embeddings hold what was given to them, whatever ended the writing."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hf_audioformer.inference import ClipEmbedding
from hf_audioformer.inference.embedding_store import ROW_GROUP_CLIPS, embedding_writer, read_embeddings


def embeddings(count: int) -> dict[str, ClipEmbedding]:
    random = np.random.default_rng(0)
    clips = {}
    for index in range(count):
        frames = random.standard_normal((2 + index % 3, 4)).astype(np.float32)
        starts = np.arange(len(frames)) * 0.02
        clips[f"Käuzchen {index}.wav"] = ClipEmbedding(frames.mean(0), frames, starts, 0.02 * len(frames))
    return clips


@pytest.mark.invariant
@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
@pytest.mark.parametrize("frames", [True, False])
def test_vectors_come_back_after_an_interruption(suffix: str, frames: bool, tmp_path: Path) -> None:
    clips, path, settings = (
        embeddings(ROW_GROUP_CLIPS + 3),
        tmp_path / "new" / f"e{suffix}",
        {"layer": -1, "model": "m"},
    )

    def interrupted() -> None:
        with embedding_writer(path, settings, frames=frames) as write:
            for name, embedding in clips.items():
                write(name, embedding)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    stored = read_embeddings(path)
    assert stored.files == list(clips)
    assert stored.settings == settings
    np.testing.assert_array_equal(stored.vectors, np.stack([clip.vector for clip in clips.values()]))


@pytest.mark.unit
@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_frames_that_are_not_asked_for_are_not_kept(suffix: str, tmp_path: Path) -> None:
    kept = []
    with embedding_writer(tmp_path / f"e{suffix}", {}, frames=False) as write:
        for name, embedding in embeddings(2).items():
            kept.append(weakref.ref(embedding.frames))
            write(name, embedding)
        del embedding
        gc.collect()
        assert [frames() for frames in kept] == [None, None]


@pytest.mark.unit
def test_frames_of_each_clip_can_be_told_apart(tmp_path: Path) -> None:
    from pyarrow import parquet

    clips = embeddings(5)
    for suffix in (".safetensors", ".parquet"):
        with embedding_writer(tmp_path / f"e{suffix}", {}, frames=True) as write:
            for name, embedding in clips.items():
                write(name, embedding)
    rows = parquet.read_table(tmp_path / "e.parquet").to_pylist()
    tensors = load_file(tmp_path / "e.safetensors")
    ends = tensors["frame_counts"].cumsum()
    for row, end, count, seconds, clip in zip(
        rows, ends, tensors["frame_counts"], tensors["seconds"], clips.values(), strict=True
    ):
        np.testing.assert_array_equal(np.array(row["frames"], dtype=np.float32), clip.frames)
        np.testing.assert_array_equal(tensors["frames"][end - count : end], clip.frames)
        np.testing.assert_array_equal(row["frame_starts"], clip.frame_starts)
        np.testing.assert_array_equal(tensors["frame_starts"][end - count : end], clip.frame_starts)
        assert row["seconds"] == seconds == clip.seconds


@pytest.mark.fault
def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"embeddings are written to a file named \*.safetensors or \*.parquet"):
        embedding_writer(tmp_path / "e.npz", {}, frames=False).__enter__()
    (tmp_path / "e.parquet").write_bytes(b"no parquet")
    save_file({"weights": np.zeros(3)}, tmp_path / "model.safetensors")
    for name in ("e.parquet", "model.safetensors"):
        with pytest.raises(ValueError, match="not a file of embeddings made by hf-audioformer embed"):
            read_embeddings(tmp_path / name)
    with embedding_writer(tmp_path / "none.parquet", {}, frames=False):
        pass
    with pytest.raises(ValueError, match="the file holds no clip"):
        read_embeddings(tmp_path / "none.parquet")
