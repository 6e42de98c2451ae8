"""A finished folder goes to the Hub whole, in one commit, or not at all; over HTTP to a double of the Hub."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor

from hf_audioformer import (
    AudioFormerFeatureExtractor,
    AudioFormerForAudioClassification,
    AudioFormerSignalFeatureExtractor,
)
from hf_audioformer.training.checkpoints import save_final
from hf_audioformer.training.hub import CODE_FILES, check_folder, files_to_push, push_folder

from ..fixtures_recipes import tiny_config
from ..hub_double import HubDouble
from .tiny_ast import make_model

CARD = """---
library_name: transformers
pipeline_tag: audio-classification
license: cc0-1.0
---
# Tones

`pipeline(model="PATH_OR_ID_OF_THIS_CHECKPOINT")`
"""
TRAVELS = {
    *("README.md", "config.json", "preprocessor_config.json", "model.safetensors", "result.json"),
    *("codec/config.json", "codec/model.safetensors"),
}


@pytest.fixture
def folder(tiny_extractor: AudioFormerFeatureExtractor, tmp_path: Path) -> Path:
    """What a recipe leaves, and beside it what must not travel."""
    folder = tmp_path / "tones"
    save_classifier(tiny_extractor, folder)
    (folder / "checkpoint-5").mkdir()
    for name in ("training_args.bin", "checkpoint-5/optimizer.pt", "recipe.yaml", "checkpoint-5/model.safetensors"):
        (folder / name).write_bytes(b"secret")
    return folder


def save_classifier(extractor: AudioFormerFeatureExtractor, folder: Path, seed: int = 0) -> None:
    torch.manual_seed(seed)
    model = AudioFormerForAudioClassification(tiny_config(num_labels=2))
    save_final(model, extractor, folder)
    (folder / "README.md").write_text(CARD)
    (folder / "result.json").write_text("[]")


@pytest.mark.unit
def test_one_commit_with_all_that_belongs_to_a_model_and_nothing_else(folder: Path, hub_client: HubDouble) -> None:
    pushed = push_folder(folder, "tones", message="Tones")
    assert (pushed.repo_id, pushed.private, pushed.is_new) == ("tester/tones", True, True)
    repository = hub_client.model("tester/tones")
    assert repository.private
    assert repository.titles == ["Tones"]
    assert set(repository.files) == TRAVELS
    for name in TRAVELS - {"README.md"}:
        assert repository.files[name] == (folder / name).read_bytes()
    assert 'pipeline(model="tester/tones")' in repository.files["README.md"].decode()
    assert repository.branches["main"].oid == pushed.commit
    assert HfApi().model_info("tester/tones").pipeline_tag == "audio-classification"


@pytest.mark.unit
@pytest.mark.parametrize("with_code", [False, True])
def test_the_same_again_is_no_commit_and_another_replaces_it(
    folder: Path, hub_client: HubDouble, tiny_extractor: AudioFormerFeatureExtractor, with_code: bool
) -> None:
    push_folder(folder, "tester/tones", with_code=with_code)
    again = push_folder(folder, "tester/tones", with_code=with_code)
    repository = hub_client.model("tester/tones")
    assert not again.is_new
    assert repository.titles == ["Upload model"]
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="tester/tones")
    shutil.rmtree(folder)
    save_classifier(tiny_extractor, folder, seed=1)
    (folder / "result.json").unlink()
    assert push_folder(folder, "tester/tones").is_new
    assert set(repository.files) == TRAVELS - {"result.json"} | {"notes.txt"}
    assert repository.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()


@pytest.mark.unit
def test_a_public_repository_only_if_asked(folder: Path, hub_client: HubDouble) -> None:
    assert not push_folder(folder, "tester/open", public=True).private
    (folder / "result.json").write_text("[1]")
    with pytest.raises(
        ValueError, match=r"tester/open is public, and nothing is pushed there unasked: set public \(--public true\)"
    ):
        push_folder(folder, "tester/open")
    assert len(hub_client.model("tester/open").titles) == 1


@pytest.mark.unit
def test_a_branch_is_made_and_main_left_alone(folder: Path, hub_client: HubDouble) -> None:
    push_folder(folder, "tester/tones")
    repository = hub_client.model("tester/tones")
    before = repository.branches["main"]
    (folder / "result.json").write_text("[2]")
    assert push_folder(folder, "tester/tones", revision="trial").is_new
    assert repository.branches["main"] is before
    assert repository.branches["trial"].files["result.json"].content == b"[2]"
    assert not push_folder(folder, "tester/tones", revision="trial").is_new
    assert push_folder(folder, "tester/tones", revision="main").is_new


@pytest.mark.fault
@pytest.mark.parametrize("revision", [None, "trial"])
@pytest.mark.parametrize(
    ("request_", "after_bytes"),
    [("PUT /large-files", 1000), ("POST .*/preupload", None), ("POST .*/objects/batch", None), ("POST .*/commit", 500)],
)
def test_a_push_that_is_cut_off_or_refused_changes_nothing(
    folder: Path, hub_client: HubDouble, request_: str, after_bytes: int | None, revision: str | None
) -> None:
    push_folder(folder, "tester/tones")
    repository = hub_client.model("tester/tones")
    before = dict(repository.branches)
    save_weights_of_another(folder)
    if after_bytes is None:
        fault = hub_client.fail(request_, status=503, times=100)
    else:
        fault = hub_client.cut(request_, after_bytes=after_bytes, times=100)
    with pytest.raises(ConnectionError, match=r"was not pushed to tester/tones, whose branch is as it was"):
        push_folder(folder, "tester/tones", revision=revision)
    assert fault.reached.is_set()
    made = {} if "commit" not in request_ or revision is None else {"trial": before["main"]}
    assert repository.branches == before | made
    fault.times = 0
    assert push_folder(folder, "tester/tones", revision=revision).is_new


@pytest.mark.fault
def test_a_server_that_limits_is_tried_again(folder: Path, hub_client: HubDouble) -> None:
    fault = hub_client.fail("PUT /large-files", status=429, times=2)
    cut = hub_client.cut("PUT /large-files", after_bytes=10)
    assert push_folder(folder, "tester/tones").is_new
    assert fault.reached.is_set()
    assert cut.reached.is_set()
    assert len(hub_client.model("tester/tones").titles) == 1


@pytest.mark.fault
def test_what_the_hub_refuses_is_said(folder: Path, hub_client: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "README.md").write_text(CARD.replace("cc0-1.0", "mine"))
    with pytest.raises(ValueError, match=r"(?s)was not pushed to tester/tones: .*license.*'mine'"):
        push_folder(folder, "tester/tones")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ConnectionError, match=r"(?s)whose branch is as it was: .*401"):
        push_folder(folder, "tester/tones")


@pytest.mark.unit
def test_code_travels_with_the_map_of_all_classes(folder: Path, hub_client: HubDouble) -> None:
    files = files_to_push(folder, "tester/tones", with_code=True)
    assert set(files) == TRAVELS | set(CODE_FILES)
    beside = {path.name for path in Path(files["modeling_audioformer.py"]).parent.glob("*.py")}
    assert beside - {"__init__.py"} == set(CODE_FILES)
    config = json.loads(bytes(files["config.json"]))
    for name in config["auto_map"].values():
        module, _, class_name = name.partition(".")
        assert f"class {class_name}(" in Path(files[f"{module}.py"]).read_text()
    assert "AutoFeatureExtractor" in json.loads(bytes(files["preprocessor_config.json"]))["auto_map"]
    AudioFormerSignalFeatureExtractor().save_pretrained(folder)
    signal = json.loads(bytes(files_to_push(folder, "tester/tones", with_code=True)["preprocessor_config.json"]))
    module, _, class_name = signal["auto_map"]["AutoFeatureExtractor"].partition(".")
    assert f"class {class_name}(" in Path(files[f"{module}.py"]).read_text()
    assert "trust_remote_code=True" in bytes(files["README.md"]).decode()
    assert ModelCard(bytes(files["README.md"]).decode()).data.license == "cc0-1.0"

    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    with pytest.raises(ValueError, match=r"AudioFormerFeatureExtractor, .* names Wav2Vec2FeatureExtractor. Save the"):
        files_to_push(folder, "tester/tones", with_code=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "audio-spectrogram-transformer", "auto_map": {}}))
    with pytest.raises(ValueError, match="Transformers itself has the code of audio-spectrogram-transformer"):
        files_to_push(folder, "tester/tones", with_code=True)
    assert "auto_map" not in json.loads(bytes(files_to_push(folder, "tester/tones")["config.json"]))


@pytest.mark.unit
def test_an_ast_travels_without_codec_and_code(tmp_path: Path, hub_client: HubDouble) -> None:
    folder = tmp_path / "ast"
    save_final(make_model(), ASTFeatureExtractor(num_mel_bins=8, max_length=16), folder)
    (folder / "README.md").write_text(CARD)
    with pytest.raises(ValueError, match="Transformers itself has the code of audio-spectrogram-transformer"):
        push_folder(folder, "tester/ast", with_code=True)
    assert hub_client.requests == []
    assert push_folder(folder, "tester/ast").is_new
    files = hub_client.model("tester/ast").files
    assert set(files) == {"README.md", "config.json", "preprocessor_config.json", "model.safetensors"}
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        assert files[name] == (folder / name).read_bytes()


@pytest.mark.fault
def test_a_folder_that_would_not_work_elsewhere_is_refused(folder: Path, hub_client: HubDouble) -> None:
    check_folder(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    for codec, revision, message in (
        (str(folder / "codec"), None, "by a folder of this machine"),
        ("facebook/encodec_24khz", "main", "at revision 'main', which may change"),
    ):
        changed = settings | {"codec": codec, "codec_revision": revision, "codec_subfolder": ""}
        (folder / "preprocessor_config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            push_folder(folder, "tester/tones")
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    shutil.move(folder / "codec", folder / "elsewhere")
    with pytest.raises(ValueError, match="does not load and is not pushed"):
        push_folder(folder, "tester/tones")
    shutil.move(folder / "elsewhere", folder / "codec")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ValueError, match="does not load and is not pushed"):
        push_folder(folder, "tester/tones")
    (folder / "model.safetensors").write_bytes((folder / "codec" / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="lack audioformer"):
        push_folder(folder, "tester/tones")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "README.md").write_text("# no metadata")
    with pytest.raises(ValueError, match="has no metadata"):
        push_folder(folder, "tester/tones")
    for name in ("README.md", "preprocessor_config.json", "config.json"):
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"has no {name}"):
            push_folder(folder, "tester/tones")
    (folder / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="it holds tones: give one of them"):
        push_folder(folder.parent, "tester/tones")
    assert hub_client.requests == []


def save_weights_of_another(folder: Path) -> None:
    torch.manual_seed(7)
    model = AudioFormerForAudioClassification(tiny_config(num_labels=2))
    model.save_pretrained(folder)
