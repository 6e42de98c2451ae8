"""What the command pushes, real clients load: by its id, at a revision, and where this package is not installed."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import pipeline

from hf_audioformer import AudioFormerFeatureExtractor, AudioFormerForAudioClassification, cli
from hf_audioformer.training.checkpoints import save_final

from ..fixtures_recipes import SAMPLING_RATE, tiny_config, tone
from ..hub_double import LFS_FROM_BYTES, HubDouble

PUSHED = ["--training.push_to_hub", "true", "--training.num_train_epochs", "2", "--training.disable_tqdm", "true"]
SMALL_NETWORK = [
    *("--model.hidden_size", "32", "--model.num_hidden_layers", "1", "--model.num_attention_heads", "2"),
    *("--model.intermediate_size", "64", "--model.num_codebooks", "2"),
]
MODEL = {
    *("README.md", "config.json", "model.safetensors", "preprocessor_config.json"),
    *("codec/config.json", "codec/model.safetensors"),
}
HF = str(Path(sys.executable).with_name("hf"))
CARD = "---\nlibrary_name: transformers\npipeline_tag: audio-classification\nlicense: cc0-1.0\n---\n# Tones\n"

PACKAGE = "hf_audioformer"

# In vain does this look for the package, as a module and as a distribution.
WITHOUT_PACKAGE = f"""
import importlib.metadata, importlib.util, sys

if importlib.util.find_spec("{PACKAGE}") is not None:
    raise SystemExit("the package is there")
try:
    raise SystemExit(f"the package is installed: {{importlib.metadata.version('{PACKAGE}')}}")
except importlib.metadata.PackageNotFoundError:
    pass
"""
CLASSIFY = """
import json, sys
import numpy as np
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

clip = np.load(sys.argv[1])

def logits(repo, **where):
    extractor = AutoFeatureExtractor.from_pretrained(repo, **where)
    model = AutoModelForAudioClassification.from_pretrained(repo, **where).eval()
    features = extractor(clip, sampling_rate=16000, return_tensors="pt")
    return model(**features).logits[0].tolist()

def guesses(repo, **where):
    return pipeline(model=repo, **where)({"raw": clip, "sampling_rate": 16000})
"""
LOAD = f"""
import hf_audioformer
{CLASSIFY}
main = logits("tester/tones")
print(json.dumps({{
    "main": main,
    "v1": logits("tester/tones", revision="v1"),
    "commit": logits("tester/tones", revision=sys.argv[2]),
    "guesses": guesses("tester/tones"),
}}))
"""
LOAD_WITHOUT_PACKAGE = f"""
{WITHOUT_PACKAGE}
{CLASSIFY}
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
where = {{"trust_remote_code": True, "revision": sys.argv[2]}}
print(json.dumps({{
    "main": logits("tester/tones", **where),
    "guesses": guesses("tester/tones", **where),
    "bare": type(AutoModel.from_pretrained("tester/tones", **where)).__name__,
    "masked": type(AutoModelForMaskedLM.from_pretrained("tester/tones", **where)).__name__,
    "generated": len(AutoModelForCausalLM.from_pretrained("tester/tones", **where).generate(max_new_tokens=4)[0]),
    "modules": sorted(name for name in sys.modules if name.startswith("hf_audioformer")),
    "prefix": sys.prefix,
}}))
"""
DATASETS = """
import json
from datasets import Dataset, load_dataset

Dataset.from_dict({"label": ["low", "high"], "pitch": [200, 3000]}).push_to_hub("tester/pitches", private=True)
print(json.dumps(load_dataset("tester/pitches", split="train").to_list()))
"""


def save_classifier(extractor: AudioFormerFeatureExtractor, folder: Path, *, seed: int, **sizes: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = tiny_config(
            id2label={0: "low", 1: "high"}, label2id={"low": 0, "high": 1}, initializer_range=0.2, **sizes
        )
        save_final(AudioFormerForAudioClassification(config), extractor, folder)
    (folder / "README.md").write_text(CARD)
    (folder / "result.json").write_text("[]")
    return folder


def run_client(hub: HubDouble, home: Path, *command: str) -> str:
    """The output of a command in a process of its own, which comes to the double."""
    home.mkdir(exist_ok=True)
    environment = os.environ | hub.environment(str(home)) | {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_script(hub: HubDouble, home: Path, script: str, *arguments: str, python: str = sys.executable) -> Any:
    """What the script prints last; of the environment `python` it sees what is installed there (-I: no PYTHONPATH)."""
    return json.loads(run_client(hub, home, python, "-I", "-c", script, *arguments).splitlines()[-1])


@pytest.fixture(scope="session")
def python_without_package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment of its own, which has all that is installed here but this package; that is
    linked, not installed again, and `.pth` files, through which an editable install would be found, are left out."""
    folder = tmp_path_factory.mktemp("without_package")
    venv.create(folder, symlinks=True)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    for kind in ("purelib", "platlib"):
        for installed in Path(sysconfig.get_path(kind)).iterdir():
            link = Path(paths[kind], installed.name)
            if PACKAGE not in installed.name and installed.suffix != ".pth" and not link.exists():
                link.symlink_to(installed)
    return str(folder / "bin" / "python")


def clip_file(folder: Path) -> str:
    np.save(folder / "clip.npy", tone(["low"], seed=3))
    return str(folder / "clip.npy")


def local_guesses(folder: Path, clip: str) -> list[dict[str, Any]]:
    return pipeline("audio-classification", model=str(folder))({"raw": np.load(clip), "sampling_rate": SAMPLING_RATE})


def assert_same(guesses: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [guess["label"] for guess in guesses] == [guess["label"] for guess in expected]
    scores, wanted = ([guess["score"] for guess in some] for some in (guesses, expected))
    np.testing.assert_allclose(scores, wanted, atol=1e-5)


def run_example(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs what a card says on how the model is used, beside a clip.wav."""
    soundfile.write(folder / "clip.wav", tone(["low"], seed=4), SAMPLING_RATE)
    (example, *_) = re.findall(r"## Use\n\n```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(folder)
    exec(compile(example, "the card's example", "exec"), {})


@pytest.mark.cli
def test_help_and_a_dry_run_without_network(
    tiny_extractor: AudioFormerFeatureExtractor, tmp_path: Path, hub: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["push", "--help"])
    assert "--with_code: bool, default False" in capsys.readouterr().out
    folder = save_classifier(tiny_extractor, tmp_path / "tones", seed=0)
    (folder / "training_args.bin").write_bytes(b"secret")
    assert cli.main(["push", str(folder), "tester/tones", "--dry_run", "true"]) == 0
    shown = capsys.readouterr().out
    size = (folder / "codec" / "model.safetensors").stat().st_size
    assert f"{size:,} bytes  codec/model.safetensors" in shown
    assert "left here: training_args.bin" in shown
    assert hub.requests == []
    assert cli.main(["push", str(tmp_path / "nothing"), "tester/tones"]) == 1
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.cli
@pytest.mark.usefixtures("one_thread")
def test_recipes_push_their_model_at_the_end(
    tone_folder: Path,
    tiny_checkpoint: str,
    tiny_codec: str,
    tmp_path: Path,
    hub_client: HubDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classifier = ["finetune", "--data.source", str(tone_folder), "--model.checkpoint", tiny_checkpoint]
    classifier += ["--output_dir", str(tmp_path / "classifier"), *PUSHED]
    assert cli.main([*classifier, "--training.hub_model_id", "tester/tones"]) == 0
    network = ["pretrain", "--data.sources", f"[{tone_folder}]", "--model.codec", tiny_codec, *SMALL_NETWORK]
    network += ["--output_dir", str(tmp_path / "network"), *PUSHED]
    assert cli.main([*network, "--training.hub_model_id", "tester/network"]) == 0
    for name, folder, results in (
        ("tester/tones", "classifier", "result.json"),
        ("tester/network", "network", "measures.json"),
    ):
        repository = hub_client.model(name)
        assert repository.private
        assert repository.titles == ["Upload model"]
        assert set(repository.files) >= MODEL | {results, "learning_curve.png"}
        assert not {"recipe.yaml", "training_args.bin"} & {*repository.files}
        texts = [content for path, content in repository.files.items() if not path.endswith(".safetensors")]
        assert not any(str(tmp_path).encode() in text or str(tone_folder).encode() in text for text in texts)
        card = repository.files["README.md"].decode()
        assert f'"{name}"' in card
        run_example(card.replace(f'"{name}"', repr(str(tmp_path / folder))), tmp_path, monkeypatch)


@pytest.mark.cli
def test_a_recipe_of_several_models_or_with_a_token_pushes_nothing(
    tone_csv: Path, tiny_checkpoint: str, tmp_path: Path, hub_client: HubDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = ["finetune", "--data.source", str(tone_csv), "--model.checkpoint", tiny_checkpoint]
    folds += ["--split.kind", "folds", "--split.column", "fold", "--output_dir", str(tmp_path / "folds"), *PUSHED]
    assert cli.main(folds) == 1
    assert "2 models are trained, which do not fit into one repository" in capsys.readouterr().err
    assert cli.main([*folds, "--training.hub_token", "hf_secret"]) == 1
    assert "training.hub_token would be written into the recipe" in capsys.readouterr().err
    each = ["pretrain", "--data.sources", f"[{tone_csv}]", "--model.fusion", "each", "--model.num_codebooks", "2"]
    assert cli.main([*each, "--output_dir", str(tmp_path / "each"), *PUSHED]) == 1
    assert "2 models are trained" in capsys.readouterr().err
    assert hub_client.requests == []
    assert not (tmp_path / "folds").exists()
    assert not (tmp_path / "each").exists()


@pytest.mark.slow
@pytest.mark.cli
def test_pushed_twice_and_loaded_by_id_tag_and_commit(
    tiny_extractor: AudioFormerFeatureExtractor,
    tmp_path: Path,
    hub_client: HubDouble,
    capsys: pytest.CaptureFixture[str],
) -> None:
    large = {"hidden_size": 512, "intermediate_size": 2560}
    first = save_classifier(tiny_extractor, tmp_path / "first", seed=0, **large)
    second = save_classifier(tiny_extractor, tmp_path / "second", seed=1)
    assert (first / "model.safetensors").stat().st_size > LFS_FROM_BYTES
    assert cli.main(["push", str(first), "tones", "--message", "First"]) == 0
    assert "is now in tester/tones (private)" in capsys.readouterr().out
    assert cli.main(["push", str(first), "tones"]) == 0
    assert "was in tester/tones already, nothing changed" in capsys.readouterr().out
    repository = hub_client.model("tester/tones")
    pinned = repository.branches["main"].oid
    run_client(hub_client, tmp_path / "home", HF, "repos", "tag", "create", "tester/tones", "v1")
    assert repository.tags["v1"].oid == pinned
    assert cli.main(["push", str(second), "tones"]) == 0
    assert repository.titles == ["First", "Upload model"]

    clip = clip_file(tmp_path)
    loaded = run_script(hub_client, tmp_path / "home", LOAD, clip, pinned)
    assert loaded["v1"] == loaded["commit"] != loaded["main"]
    assert_same(loaded["guesses"], local_guesses(second, clip))
    old = torch.tensor(loaded["v1"]).softmax(-1).sort(descending=True).values.tolist()
    np.testing.assert_allclose(old, [guess["score"] for guess in local_guesses(first, clip)], atol=1e-5)


@pytest.mark.slow
@pytest.mark.cli
def test_with_its_code_it_loads_where_the_package_is_not_installed(
    tiny_extractor: AudioFormerFeatureExtractor, tmp_path: Path, hub_client: HubDouble, python_without_package: str
) -> None:
    folder = save_classifier(tiny_extractor, tmp_path / "tones", seed=0)
    assert cli.main(["push", str(folder), "tones", "--with_code", "true"]) == 0
    clip = clip_file(tmp_path)
    commit = hub_client.model("tester/tones").branches["main"].oid
    home = tmp_path / "home"
    loaded = run_script(hub_client, home, LOAD_WITHOUT_PACKAGE, clip, commit, python=python_without_package)
    assert loaded["prefix"] == str(Path(python_without_package).parent.parent)
    assert_same(loaded["guesses"], local_guesses(folder, clip))
    assert (loaded["bare"], loaded["masked"]) == ("AudioFormerModel", "AudioFormerForMaskedLM")
    assert loaded["generated"] in range(2, 6)  # the start token and up to 4 more
    assert loaded["modules"] == []


@pytest.mark.slow
@pytest.mark.reference
def test_the_double_serves_datasets_and_the_hf_command(tmp_path: Path, hub: HubDouble) -> None:
    home = tmp_path / "home"
    rows = run_script(hub, home, DATASETS)
    assert rows == [{"label": "low", "pitch": 200}, {"label": "high", "pitch": 3000}]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"0" * LFS_FROM_BYTES)
    (tmp_path / "weights" / "README.md").write_text(CARD)
    run_client(hub, home, HF, "upload", "tester/large", str(tmp_path / "weights"), "--private")
    assert hub.model("tester/large").private
    run_client(hub, home, HF, "download", "tester/large", "--local-dir", str(tmp_path / "copy"))
    for name in ("model.safetensors", "README.md"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "weights" / name).read_bytes()
