"""Encoding a data set into a code store: what is in it, restarts, bad clips, and training from it."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import EncodecModel

from hf_audioformer import AudioFormerForMaskedLM, cli, read_clips
from hf_audioformer.audio.augment import AudioAugmentation
from hf_audioformer.codes.companions import companion_vectors, load_companions
from hf_audioformer.codes.store import read_manifest
from hf_audioformer.data.clip_codes import codes_of_clips
from hf_audioformer.data.splits import SplitArguments
from hf_audioformer.recipes import encode, finetune, pretrain
from hf_audioformer.recipes.encode import CodecArguments, EncodeArguments
from hf_audioformer.recipes.inputs import ReadingArguments
from hf_audioformer.training.arguments import dump_config

from ..fixtures_recipes import tiny_config
from ..warm_processes import exit_codes, start

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "disable_tqdm": True}


@pytest.fixture
def arguments(tone_folder: Path, tiny_checkpoint: str, tmp_path: Path) -> EncodeArguments:
    """Eight shards of three tones, each with a changed copy."""
    return EncodeArguments(
        data=ReadingArguments(source=str(tone_folder)),
        output_dir=str(tmp_path / "codes"),
        codec=CodecArguments(checkpoint=tiny_checkpoint),
        augmentation=AudioAugmentation(copies=1),
        shard_clips=3,
    )


@pytest.fixture
def config(arguments: EncodeArguments, tmp_path: Path) -> str:
    (tmp_path / "config.yaml").write_text(dump_config(arguments))
    return str(tmp_path / "config.yaml")


def files_of(folder: str | Path, pattern: str = "*") -> dict[str, bytes]:
    """All files of a store but the engine's own."""
    paths = [path for path in Path(folder).rglob(pattern) if path.is_file()]
    names = {path: path.relative_to(folder) for path in paths}
    return {
        str(name): path.read_bytes() for path, name in names.items() if name.parts[0] not in ("engine", "recipe.yaml")
    }


@pytest.mark.cli
def test_a_folder_of_clips_becomes_a_code_store(
    arguments: EncodeArguments, config: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["encode", config]) == 0
    printed = capfd.readouterr()
    plan, outcome = printed.out.splitlines()
    assert plan.startswith("24 clips, about 0.00 h: 8 of 8 shards to write, up to 0.0 MB of codes; ")
    assert outcome.startswith("48 rows of codes of 24 clips (0.00 h), 0.0 MB in 8 shards, are in ")
    assert "clip/s" in printed.err
    assert "audio hours/s" in printed.err
    assert all("encode" in line for line in printed.err.splitlines() if line.strip())

    manifest = read_manifest(arguments.output_dir)
    assert (manifest.rows, manifest.clips, manifest.skipped, manifest.num_codebooks) == (48, 24, 0, 8)
    assert manifest.label_names == ["high", "low", "middle"]
    assert manifest.seconds == pytest.approx(24 * 0.32, rel=0.03)
    assert Path(arguments.output_dir, "report.csv").read_text() == "id,path,copy,reason\n"
    before = files_of(arguments.output_dir)
    assert cli.main(["encode", config]) == 0
    assert "are complete" in capfd.readouterr().out
    assert files_of(arguments.output_dir) == before


@pytest.mark.unit
def test_shards_follow_from_the_number_of_clips(arguments: EncodeArguments) -> None:
    manifest = encode.run(replace(arguments, shard_clips=None, augmentation=AudioAugmentation()))
    assert manifest is not None
    assert [shard["rows"] for shard in manifest.shards] == [2] * 12
    assert [encode._shard_clips(None, clips) for clips in (1, 16, 17, 318, 2_000_000)] == [1, 1, 2, 20, 1000]


@pytest.mark.unit
def test_a_codec_in_place_of_a_checkpoint(arguments: EncodeArguments, tiny_codec: str) -> None:
    codec = CodecArguments(name=tiny_codec, num_codebooks=3, rms_level_dbfs=-20.0, max_length_seconds=0.3)
    manifest = encode.run(replace(arguments, codec=codec))
    assert manifest is not None
    assert (manifest.codec, manifest.num_codebooks) == (tiny_codec, 3)
    assert (manifest.settings["rms_level_dbfs"], manifest.settings["max_length_seconds"]) == (-20.0, 0.3)
    assert max(read_clips(arguments.output_dir).codes.rows["length"]) == 23  # of 75 frames a second


@pytest.mark.invariant
@pytest.mark.parametrize("copies", [0, 2])
@pytest.mark.parametrize("extra", [{}, {"train_sampling_strategy": "group_by_length"}], ids=["shuffled", "grouped"])
def test_fine_tuning_from_a_store_equals_fine_tuning_from_sound(
    copies: int, extra: dict[str, Any], arguments: EncodeArguments, tiny_checkpoint: str, tmp_path: Path
) -> None:
    augmentation = AudioAugmentation(copies=copies)
    encode.run(replace(arguments, augmentation=augmentation))
    results = {}
    for name, source in {"sound": arguments.data.source, "store": arguments.output_dir}.items():
        recipe = finetune.FinetuneArguments(
            data=finetune.DataArguments(source=source, mask_rate=0.2, crop_seconds=0.2),
            output_dir=str(tmp_path / name),
            split=SplitArguments(validation_fraction=0.2),
            augmentation=augmentation,
            model=finetune.ModelArguments(checkpoint=tiny_checkpoint, hidden_dropout=0.1),
            training=FAST | extra,
        )
        (results[name],) = finetune.run(recipe)
    own = {"seconds": 0, "floor": None, "floor_features": None}  # the floor of sound is one of log-mels
    assert replace(results["sound"], **own) == replace(results["store"], **own)
    assert_same_weights(tmp_path / "sound", tmp_path / "store")


@pytest.mark.invariant
def test_pretraining_from_a_store_equals_pretraining_from_sound(
    arguments: EncodeArguments, tiny_codec: str, tmp_path: Path
) -> None:
    encode.run(arguments)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    measures = {}
    for name, source in {"sound": arguments.data.source, "store": arguments.output_dir}.items():
        recipe = pretrain.PretrainArguments(
            data=pretrain.SourceArguments(sources=[source], validation_fraction=0.25, crop_seconds=0.2),
            output_dir=str(tmp_path / name),
            model=pretrain.NetworkArguments(codec=tiny_codec, num_codebooks=2, **sizes),
            training=FAST,
        )
        measures[name] = pretrain.run(recipe)
    assert measures["sound"] == measures["store"]
    assert_same_weights(tmp_path / "sound", tmp_path / "store")


def assert_same_weights(one: Path, other: Path) -> None:
    expected, found = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


@pytest.mark.unit
def test_companions_are_stored_beside_the_codes_and_given_for_these_networks(
    arguments: EncodeArguments, tiny_extractor: Any, tmp_path: Path
) -> None:
    folders = [str(tmp_path / f"c{index}") for index in (2, 3)]
    for index, folder in enumerate(folders, start=1):
        settings = {"num_codebooks": 1, "fusion": "first", "codebook_index": index}
        AudioFormerForMaskedLM(tiny_config(**settings)).save_pretrained(folder)
    recipe = replace(arguments, companions=folders)
    encode.run(recipe)
    store = read_clips(arguments.output_dir).codes
    assert (list(store.manifest.companions), store.manifest.companion_size) == (folders, 32)
    row = store.rows[7]
    ids = np.pad(np.asarray(row["codes"], dtype=np.int64), ((1, 1), (0, 0)))
    ids[0], ids[-1] = 64, 65  # BOA, EOA
    expected = companion_vectors(load_companions(folders, codebook_size=64, hidden_size=32), [ids])[0]
    np.testing.assert_allclose(row["companions"], expected, atol=1e-6)

    clips, networks = read_clips(arguments.output_dir), load_companions(folders, codebook_size=64, hidden_size=32)
    for asked in (networks, networks[:1], []):
        version = codes_of_clips(clips, tiny_extractor, companions=asked)[3][0]
        if asked == networks:
            np.testing.assert_array_equal(version.companions, np.asarray(store.rows[6]["companions"], dtype=np.float32))
        else:
            assert version.companions is None
    with pytest.raises(ValueError, match=r"companions read 3 codebooks and codec.num_codebooks is 2; store as many"):
        encode.run(replace(recipe, codec=replace(arguments.codec, num_codebooks=2), overwrite=True))


def dies() -> int:
    """A command that is killed at the n-th call of a function of the module os: FUNCTION N COMMAND ..."""
    name, calls, *command = sys.argv[1:]
    original, left = getattr(os, name), int(calls)

    def die(*args: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    setattr(os, name, die)
    return cli.main(command)


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.fault
@pytest.mark.slow
def test_killed_runs_leave_whole_shards_and_go_on(arguments: EncodeArguments, config: str, tmp_path: Path) -> None:
    """Plan and shards are written, synced, renamed, and the folder synced: killed before and after a shard appears,
    and before the manifest does."""
    unbroken = tmp_path / "unbroken"
    encode.run(replace(arguments, output_dir=str(unbroken)))
    expected = files_of(unbroken)
    for name, calls, whole, left_over in (("fsync", 4, 1, 1), ("fsync", 5, 3, 0), ("replace", 8, 8, 1)):
        assert exit_codes([start(dies, name, calls, "encode", config)]) == [-signal.SIGKILL]
        shards = files_of(arguments.output_dir, "train-*.parquet")
        assert len(shards) == whole
        assert shards.items() <= expected.items()
        assert "manifest.json" not in files_of(arguments.output_dir)
        assert len(files_of(arguments.output_dir, ".*.tmp")) == left_over
    before = os.stat(Path(arguments.output_dir, "data", "train-00000-of-00008.parquet")).st_mtime_ns
    encode.run(arguments)
    assert files_of(arguments.output_dir) == expected
    assert os.stat(Path(arguments.output_dir, "data", "train-00000-of-00008.parquet")).st_mtime_ns == before


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_tasks_go_on_and_leave_what_one_process_leaves(arguments: EncodeArguments, tmp_path: Path) -> None:
    """With more copies, so that the kill comes in the middle."""
    arguments = replace(arguments, augmentation=AudioAugmentation(copies=5))
    (tmp_path / "config.yaml").write_text(dump_config(arguments))
    command = [sys.executable, "-m", "hf_audioformer", "encode", str(tmp_path / "config.yaml")]
    command += ["--executor", "local", "--tasks", "4", "--workers", "2"]
    data = Path(arguments.output_dir, "data")
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as run:
        while run.poll() is None and len(list(data.glob("*.parquet"))) < 2:
            time.sleep(0.001)
        os.killpg(run.pid, signal.SIGKILL)
    assert 2 <= len(list(data.glob("*.parquet"))) < 8
    encode.run(replace(arguments, executor="local", tasks=4, workers=1))
    encode.run(replace(arguments, output_dir=str(tmp_path / "alone")))
    assert files_of(arguments.output_dir) == files_of(tmp_path / "alone")


@pytest.fixture
def with_bad_clips(tone_folder: Path, tmp_path: Path) -> Path:
    """The tones with an empty, a corrupt and a NaN file among them."""
    folder = tmp_path / "bad_tones"
    shutil.copytree(tone_folder, folder)
    (folder / "low" / "1.wav").write_bytes(b"")
    whole = (folder / "middle" / "1.wav").read_bytes()
    (folder / "middle" / "1.wav").write_bytes(whole[: len(whole) // 2])
    import soundfile

    samples = np.full(8_000, 0.1, dtype=np.float32)
    samples[77] = np.nan
    soundfile.write(folder / "high" / "1.wav", samples, 16_000, subtype="FLOAT")
    return folder


@pytest.mark.fault
def test_bad_clips_are_left_out_and_listed(
    arguments: EncodeArguments, with_bad_clips: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = encode.run(replace(arguments, data=ReadingArguments(source=str(with_bad_clips))))
    assert manifest is not None
    assert (manifest.skipped, manifest.rows) == (3, 2 * 21)
    assert "3 clips were left out" in capfd.readouterr().out
    with Path(arguments.output_dir, "report.csv").open() as file:
        report = {row["id"]: row for row in csv.DictReader(file)}
    assert list(report) == ["high/1.wav", "low/1.wav", "middle/1.wav"]
    assert "NaN" in report["high/1.wav"]["reason"]
    assert "not readable as audio" in report["low/1.wav"]["reason"]
    assert "truncated" in report["middle/1.wav"]["reason"]
    assert report["low/1.wav"]["path"] == str(with_bad_clips / "low" / "1.wav")
    assert len(read_clips(arguments.output_dir)) == 21


@pytest.mark.fault
def test_too_many_bad_clips_stop_it_and_a_higher_limit_goes_on(
    arguments: EncodeArguments, with_bad_clips: Path
) -> None:
    arguments = replace(arguments, data=ReadingArguments(source=str(with_bad_clips)), max_bad_share=0.1)
    with pytest.raises(ValueError, match=r"3 of 24 clips cannot be used, more than 10%; .* or raise --max_bad_share"):
        encode.run(arguments)
    kept = files_of(arguments.output_dir, "*.parquet")
    assert 0 < len(kept) < 8
    manifest = encode.run(replace(arguments, max_bad_share=0.2))
    assert manifest is not None
    assert manifest.skipped == 3
    assert kept.items() <= files_of(arguments.output_dir).items()


@pytest.mark.fault
def test_other_settings_and_another_codec_do_not_go_on(
    arguments: EncodeArguments, tiny_checkpoint: str, tone_folder: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    folder = tmp_path / "tones"
    shutil.copytree(tone_folder, folder)
    codec = CodecArguments(checkpoint=str(checkpoint))
    arguments = replace(arguments, codec=codec, data=ReadingArguments(source=str(folder)))
    encode.run(arguments)
    before = files_of(arguments.output_dir)
    with pytest.raises(ValueError, match=r"seed was 0 and is 1 now. Set it back, or start anew with --overwrite true"):
        encode.run(replace(arguments, seed=1))
    with pytest.raises(ValueError, match=r"codec.num_codebooks was None and is 2 now"):
        encode.run(replace(arguments, codec=replace(codec, num_codebooks=2)))
    (folder / "low" / "1.wav").rename(folder / "low" / "9.wav")
    with pytest.raises(ValueError, match=r"clips_sha256 was '[0-9a-f]+' and is '[0-9a-f]+' now"):
        encode.run(arguments)
    (folder / "low" / "9.wav").rename(folder / "low" / "1.wav")
    model = EncodecModel.from_pretrained(checkpoint / "codec")
    model.quantizer.layers[0].codebook.embed[0, 0] += 1
    model.save_pretrained(checkpoint / "codec")
    with pytest.raises(ValueError, match=r"settings.codec_sha256 was '[0-9a-f]+' and is '[0-9a-f]+' now"):
        encode.run(arguments)
    assert files_of(arguments.output_dir) == before
    encode.run(replace(arguments, overwrite=True))
    assert files_of(arguments.output_dir) != before


# Holds the lock of the folder that it is given.
LOCKED = """
import fcntl, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
file = open(folder.parent / f".{folder.name}.lock", "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(100)
"""


@pytest.mark.fault
def test_two_processes_do_not_share_a_folder(
    arguments: EncodeArguments, config: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", LOCKED, arguments.output_dir], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        assert cli.main(["encode", config]) == 1
        other.kill()
    assert f"another process is encoding into {arguments.output_dir}. Wait for it or stop it" in capfd.readouterr().err
    assert not Path(arguments.output_dir).exists()


@pytest.mark.fault
def test_a_disk_that_is_too_small_is_refused_before_the_start(
    arguments: EncodeArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "ROW_BYTES", 10**15)
    with pytest.raises(
        OSError, match=r"need about 48,000,000,000.0 MB and [\d,.]+ MB are free at .* Make room, store few"
    ):
        encode.run(arguments)
    assert not Path(arguments.output_dir).exists()


@pytest.mark.fault
def test_the_disk_that_is_asked_is_that_of_output_dir(
    arguments: EncodeArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be where a disk of its own is mounted."""
    asked: list[Path] = []

    def usage(path: Path) -> Any:
        asked.append(path)
        return SimpleNamespace(free=0)

    monkeypatch.setattr(encode.shutil, "disk_usage", usage)
    folder = Path(arguments.output_dir)
    for expected in (folder.parent, folder):
        with pytest.raises(OSError, match=f"are free at {expected}. Make room"):
            encode.run(arguments)
        folder.mkdir(exist_ok=True)
    assert asked == [folder.parent, folder]


@pytest.mark.fault
def test_a_shard_that_is_lost_from_a_finished_store_is_made_again(
    arguments: EncodeArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode.run(arguments)
    expected = files_of(arguments.output_dir)
    shard = Path(arguments.output_dir, "data", "train-00002-of-00008.parquet")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="run the command that encoded the store, which makes what is missing"):
        read_clips(arguments.output_dir)
    with monkeypatch.context() as patch:
        patch.setattr(encode.EncodeJob, "encode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            encode.run(arguments)
    with pytest.raises(ValueError, match="is a code store that is not finished"):
        read_clips(arguments.output_dir)
    encode.run(arguments)
    assert files_of(arguments.output_dir) == expected


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.cli
@pytest.mark.parametrize("overwrite", [False, True])
def test_ctrl_c_says_how_to_go_on(
    overwrite: bool,
    arguments: EncodeArguments,
    config: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    original, calls = encode.EncodeJob.write, []

    def interrupted(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(encode.EncodeJob, "write", interrupted)
        assert cli.main(["encode", config, "--overwrite", str(overwrite).lower()]) == 130
    *_, last = capfd.readouterr().err.splitlines()
    same = "the same command without --overwrite" if overwrite else "the same command"
    message = f"interrupted; {same} goes on, the shards in {arguments.output_dir} are kept"
    assert last == f"hf-audioformer: {message}"
    assert len(files_of(arguments.output_dir, "*.parquet")) == 2
    assert cli.main(["encode", config]) == 0
    assert "6 of 8 shards to write" in capfd.readouterr().out


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": 2}, "tasks and workers need an executor"),
        ({"tasks": 0, "executor": "local"}, "tasks is 0 and workers None; both must be at least 1"),
        ({"dry_run": True}, "dry_run shows what --executor slurm would submit"),
        ({"executor": "slurm"}, "needs --cluster.partition"),
        ({"codec": CodecArguments(checkpoint="a", name="b")}, "codec.checkpoint and codec.name are both given"),
        ({"codec": CodecArguments(revision="main")}, "give its Hub id as codec.name"),
        ({"codec": CodecArguments(num_codebooks=9)}, "codec.num_codebooks is 9; the codec has 4"),
        ({"shard_clips": 0}, "shard_clips is 0"),
        (
            {"augmentation": AudioAugmentation(copies=1, mixup=0.5, mixup_within="fold")},
            "a store does not know which those will be: leave",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    settings: dict[str, Any], message: str, arguments: EncodeArguments
) -> None:
    with pytest.raises(ValueError, match=message):
        encode.run(replace(arguments, **settings))


@pytest.mark.fault
def test_a_store_is_not_encoded_again(arguments: EncodeArguments, tmp_path: Path) -> None:
    encode.run(arguments)
    again = replace(arguments, data=ReadingArguments(source=arguments.output_dir), output_dir=str(tmp_path / "again"))
    with pytest.raises(ValueError, match="a code store; give what it was encoded from"):
        encode.run(again)
