"""Resuming takes the newest checkpoint that was written to its end, and names what it skips."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoFeatureExtractor

from hf_audioformer import AudioFormerFeatureExtractor, AudioFormerForMaskedLM
from hf_audioformer.training.checkpoints import (
    MARKER,
    check_finite,
    mark_complete,
    newest_complete_checkpoint,
    remove_checkpoints,
    save_final,
)

from ..fixtures_recipes import tiny_config


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder with the complete checkpoints 5, 10 and 100."""
    for step in (5, 10, 100):
        checkpoint = tmp_path / f"checkpoint-{step}"
        (checkpoint / "part").mkdir(parents=True)
        for name in ("model.safetensors", "optimizer.pt", "part/shard.bin"):
            (checkpoint / name).write_bytes(bytes(step))
        mark_complete(checkpoint)
    return tmp_path


def newest(output: Path) -> str | None:
    found = newest_complete_checkpoint(output)
    return None if found is None else Path(found).name


@pytest.mark.unit
def test_takes_the_largest_number_not_the_last_name(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    (output / "checkpoint-final").mkdir()
    assert newest(output) == "checkpoint-100"
    assert caplog.messages == []


@pytest.mark.unit
def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "missing") is None


@pytest.mark.fault
def test_a_save_that_was_killed_is_skipped_and_named(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    (output / "checkpoint-100" / MARKER).rename(output / "checkpoint-100" / f"{MARKER}.tmp")
    assert newest(output) == "checkpoint-10"
    assert "checkpoint-100: it has no complete.json, so it was not written to its end" in caplog.messages[0]


@pytest.mark.fault
def test_truncated_and_missing_files_are_skipped_and_named(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    (output / "checkpoint-100" / "part" / "shard.bin").write_bytes(b"")
    (output / "checkpoint-10" / "optimizer.pt").unlink()
    assert newest(output) == "checkpoint-5"
    assert "checkpoint-100: part/shard.bin has 0 bytes of 100" in caplog.messages[0]
    assert "checkpoint-10: optimizer.pt has no bytes of 10" in caplog.messages[1]


@pytest.mark.fault
def test_weights_without_optimizer_state_are_nothing_to_resume_from(
    output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (output / "checkpoint-100" / "optimizer.pt").unlink()
    mark_complete(output / "checkpoint-100")
    assert newest(output) == "checkpoint-10"
    assert "it holds no optimizer state (save_only_model)" in caplog.messages[0]


@pytest.mark.unit
def test_the_final_folder_works_alone(
    tiny_extractor: AudioFormerFeatureExtractor, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = AudioFormerForMaskedLM(tiny_config())
    save_final(model, tiny_extractor, output)
    remove_checkpoints(output)
    assert capfd.readouterr() == ("", "")
    moved = output.parent / "moved"
    shutil.move(output, moved)
    assert sorted(path.name for path in moved.iterdir()) == [
        "codec",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    loaded = AudioFormerForMaskedLM.from_pretrained(moved)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    sound = torch.rand(4_000) - 0.5
    expected = tiny_extractor(sound, sampling_rate=24_000)["input_ids"][0]
    assert (AutoFeatureExtractor.from_pretrained(moved)(sound, sampling_rate=24_000)["input_ids"][0] == expected).all()


@pytest.mark.fault
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(
    value: float, tiny_extractor: AudioFormerFeatureExtractor, tmp_path: Path
) -> None:
    model = AudioFormerForMaskedLM(tiny_config())
    check_finite(model.state_dict())
    with torch.no_grad():
        model.audioformer.embeddings.code_embeddings.weight[3, 3] = value
    with pytest.raises(ValueError, match=r"audioformer.embeddings.code_embeddings.weight are no longer finite"):
        save_final(model, tiny_extractor, tmp_path)
    assert list(tmp_path.iterdir()) == []
