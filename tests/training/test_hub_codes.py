"""A code store goes to the Hub as a data set, which loads and trains by its id, and tells nothing of the machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard, HfApi

from hf_audioformer import cli
from hf_audioformer.codes.store import failures_of, read_manifest
from hf_audioformer.data import read_clips
from hf_audioformer.training.hub_codes import codes_to_push, push_codes

from ..hub_double import HubDouble, Repository

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINING = ["--training.num_train_epochs", "1", "--training.disable_tqdm", "true"]
# What a stranger with `datasets` alone does, in a process of its own; the card says it.
LOAD = """
import json, sys
from datasets import load_dataset
whole = load_dataset("tester/tones", split="train")
stream = load_dataset("tester/tones", split="train", streaming=True)
rows = [row for row in whole]
print(json.dumps({"rows": rows, "same": rows == list(stream), "names": whole.features["label"].names}))
"""


@pytest.fixture(scope="module")
def encoded(tone_folder: Path, tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tones as codes, but for one that cannot be read, named as one does beside them; not to be changed."""
    home = tmp_path_factory.mktemp("encoded")
    shutil.copytree(tone_folder, home / "tones")
    (home / "tones" / "low" / "3.wav").write_bytes(b"RIFF")
    source = f"{home.name}/tones"  # like an id of the Hub
    command = ["encode", "--data.source", source, "--codec.checkpoint", tiny_checkpoint]
    command += ["--output_dir", str(home / "codes"), "--shard_clips", "7", "--max_bad_share", "0.1"]
    command += ["--augmentation.copies", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home.parent)
        assert cli.main(command) == 0
    return home / "codes"


def dataset(hub: HubDouble) -> Repository:
    return hub.repositories["datasets/tester/tones"]


@pytest.mark.unit
def test_one_private_commit_with_card_and_shards_and_no_path_of_this_machine(
    encoded: Path, tiny_checkpoint: str, hub_client: HubDouble
) -> None:
    pushed = push_codes(encoded, "tones")
    assert (pushed.repo_id, pushed.private, pushed.is_new) == ("tester/tones", True, True)
    assert dataset(hub_client).titles == ["Upload codes"]
    files = dataset(hub_client).files
    shards = {f"data/train-{number:05d}-of-00004.parquet" for number in range(4)}
    assert set(files) == {"README.md", "manifest.json", "plan.json"} | shards
    for secret in (str(encoded.parent), tiny_checkpoint):
        assert not any(secret.encode() in content for content in files.values())
    assert not push_codes(encoded, "tester/tones").is_new
    assert HfApi().dataset_info("tester/tones").tags is not None


@pytest.mark.unit
def test_public_only_if_asked_and_to_a_branch(encoded: Path, hub_client: HubDouble) -> None:
    assert not push_codes(encoded, "tones", public=True, revision="trial").private
    assert "manifest.json" in dataset(hub_client).branches["trial"].files
    with pytest.raises(ValueError, match="tester/tones is public, and nothing is pushed there unasked"):
        push_codes(encoded, "tones")


@pytest.mark.unit
def test_the_shards_that_travel_hold_the_rows_and_the_manifest_their_checksums(encoded: Path, tmp_path: Path) -> None:
    for name, content in codes_to_push(encoded, "tester/tones").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    there, here = (read_manifest(folder) for folder in (tmp_path, encoded))
    assert [shard["rows"] for shard in there.shards] == [shard["rows"] for shard in here.shards]
    changed = [one["sha256"] != other["sha256"] for one, other in zip(there.shards, here.shards, strict=True)]
    (bad,) = failures_of(encoded, here, 1 if changed[1] else 2)
    assert sum(changed) == 1
    assert bad.path
    (told,) = failures_of(tmp_path, there, changed.index(True))
    assert (told.id, told.path) == ("low/3.wav", "")
    stores = [read_clips(str(folder)) for folder in (tmp_path, encoded)]
    assert stores[0].codes is not None
    assert stores[1].codes is not None
    assert stores[0].codes.rows.to_list() == stores[1].codes.rows.to_list()


@pytest.mark.unit
def test_the_card_says_what_it_is_and_its_example_runs(
    encoded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = bytes(codes_to_push(encoded, "tester/tones")["README.md"]).decode()  # type: ignore[arg-type]
    manifest = read_manifest(encoded)
    assert "`tones`, local files" in text
    card = DatasetCard(text)
    assert card.data.size_categories == "n<1K"
    assert card.data.configs == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    for fact in (
        manifest.settings["codec_sha256"],
        f"{manifest.rows} rows",
        "23 clips",
        "Left out, because they could not be read: 1 of 24 clips",
        "3 classes",
        f"| codes | list of list of {manifest.num_codebooks} uint16 |",
        "--model.checkpoint AN_AUDIOFORMER_WITH_THIS_CODEC",
        "whose licence is not known",
    ):
        assert fact in text
    assert "{" not in text.replace("{'", "")
    (example, *_) = re.findall(r"## Load\n\n```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    exec(compile(example.replace("tester/tones", str(encoded)), "the card's example", "exec"), {})


@pytest.mark.unit
def test_a_card_of_ones_own_is_kept(encoded: Path, tmp_path: Path) -> None:
    store = shutil.copytree(encoded, tmp_path / "codes")
    (store / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Mine\n")
    assert codes_to_push(store, "tester/tones")["README.md"] == store / "README.md"


@pytest.mark.fault
def test_what_is_not_whole_is_not_pushed(encoded: Path, tmp_path: Path, hub_client: HubDouble) -> None:
    store = shutil.copytree(encoded, tmp_path / "codes")
    shard = read_manifest(store).shards[0]["file"]
    (store / shard).unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard} is missing; the manifest names it"):
        push_codes(store, "tones")
    (store / "manifest.json").unlink()
    with pytest.raises(ValueError, match="a code store that is not finished"):
        push_codes(store, "tones")
    with pytest.raises(ValueError, match="is no code store"):
        push_codes(tmp_path, "tones")
    assert hub_client.requests == []


@pytest.mark.slow
@pytest.mark.cli
def test_pushed_by_the_command_it_loads_and_trains_by_its_id(
    encoded: Path,
    tiny_checkpoint: str,
    tmp_path: Path,
    hub_client: HubDouble,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["push", str(encoded), "tones", "--dry_run", "true"]) == 0
    assert "bytes  data/train-00000-of-00004.parquet" in capsys.readouterr().out
    assert hub_client.requests == []
    assert cli.main(["push", str(encoded), "tones", "--with_code", "true"]) == 1
    assert "with_code is for models" in capsys.readouterr().err
    assert cli.main(["push", str(encoded), "tones"]) == 0
    assert "is now in tester/tones (private)" in capsys.readouterr().out

    by_id, here = read_clips("tester/tones"), read_clips(str(encoded))
    assert by_id.codes is not None
    assert here.codes is not None
    assert by_id.codes.rows.to_list() == here.codes.rows.to_list()
    command = ["finetune", "--data.source", "tester/tones", "--model.checkpoint", tiny_checkpoint, *TRAINING]
    assert cli.main([*command, "--output_dir", str(tmp_path / "model")]) == 0
    (result,) = json.loads((tmp_path / "model" / "results.json").read_text())
    assert sum(result["num_clips"].values()) == 23

    found = load_in_another_process(hub_client, tmp_path)
    assert found["same"]
    assert found["names"] == ["high", "low", "middle"]
    wanted = here.codes.rows.to_list()
    assert [row["id"] for row in found["rows"]] == [row["id"] for row in wanted]
    for row, other in zip(found["rows"], wanted, strict=True):
        np.testing.assert_array_equal(row["codes"], other["codes"])


def load_in_another_process(hub: HubDouble, home: Path) -> Any:
    environment = os.environ | hub.environment(str(home / "home")) | {"DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
