"""Pushing a finished folder to the Hub: what of it travels, whether it works alone, and all of it in one commit."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetInfo, HfApi, ModelCard, ModelInfo
from huggingface_hub.errors import HTTPError, RevisionNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForAudioXVector,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
)

from ..checkpoint_config import check_model_folder
from ..models import audioformer
from ..models.audioformer.configuration_audioformer import AudioFormerConfig
from ..models.audioformer.feature_extraction_audioformer import CODEC_SUBFOLDER, AudioFormerFeatureExtractor
from ..models.audioformer.feature_extraction_signal_audioformer import AudioFormerSignalFeatureExtractor
from .console import quiet_transformers

__all__ = [
    "ID_OF_THIS_CHECKPOINT",
    "Push",
    "check_folder",
    "check_hub_settings",
    "files_to_push",
    "push_files",
    "push_folder",
    "refuse_public",
]

# What a card writes in its examples where the id belongs, which nobody knows before the push.
ID_OF_THIS_CHECKPOINT = "PATH_OR_ID_OF_THIS_CHECKPOINT"

CODE_FILES = tuple(
    f"{part}_audioformer.py"
    for part in (
        "configuration",
        "embeddings",
        "modeling",
        "generation",
        "feature_extraction",
        "feature_extraction_signal",
        "codec",
        "fbank",
        "waveform",
    )
)
_MODELING = "modeling_audioformer.AudioFormer"
AUTO_MAP = {
    "AutoConfig": "configuration_audioformer.AudioFormerConfig",
    "AutoModel": f"{_MODELING}Model",
    "AutoModelForAudioClassification": f"{_MODELING}ForAudioClassification",
    "AutoModelForAudioFrameClassification": f"{_MODELING}ForAudioFrameClassification",
    "AutoModelForAudioXVector": f"{_MODELING}ForAudioXVector",
    "AutoModelForCausalLM": "generation_audioformer.AudioFormerForCausalLM",
    "AutoModelForMaskedLM": f"{_MODELING}ForMaskedLM",
    "AutoModelForPreTraining": f"{_MODELING}ForPreTraining",
    "AutoModelForSeq2SeqLM": "generation_audioformer.AudioFormerForConditionalGeneration",
}
EXTRACTOR_MODULES = {
    extractor.__name__: extractor.__module__.rpartition(".")[2]
    for extractor in (AudioFormerFeatureExtractor, AudioFormerSignalFeatureExtractor)
}

# Optimizer states, training_args.bin, checkpoints, steps and recipes (which name local folders) stay here.
_TRAVELS = re.compile(
    rf"(({CODEC_SUBFOLDER}/)?(config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json)"
    r"|(preprocessor|generation)_config\.json|README\.md|learning_curve\.png|(result|results|measures)\.json|per_class\.csv"
    rf"|\.eval_results/[\w.-]+\.yaml|{'|'.join(map(re.escape, CODE_FILES))})"
)
_AUTO_CLASSES = {
    "ForAudioClassification": AutoModelForAudioClassification,
    "ForAudioFrameClassification": AutoModelForAudioFrameClassification,
    "ForAudioXVector": AutoModelForAudioXVector,
    "ForCausalLM": AutoModelForCausalLM,
    "ForConditionalGeneration": AutoModelForSeq2SeqLM,
    "ForMaskedLM": AutoModelForMaskedLM,
    "ForPreTraining": AutoModelForPreTraining,
}
_COMMIT = re.compile("[0-9a-f]{40}")

CODE_SECTION = """
## Without the package

The model's own code lies beside the weights, so that Transformers loads it without hf_audioformer (torchaudio must be
installed). That runs code from this repository: read it, and pin the `revision` you have read.

```python
from transformers import pipeline

classifier = pipeline(model="{repo}", trust_remote_code=True)
```
"""


@dataclass(frozen=True)
class Push:
    """What a push did: the repository, its newest commit, and whether that is a new one."""

    repo_id: str
    commit: str
    url: str
    private: bool
    is_new: bool


def check_hub_settings(training: Mapping[str, Any], models: int = 1) -> None:
    """Checks what the section `training` of a recipe says of the Hub, before anything is trained.

    Raises:
        ValueError: It holds a token, which recipe and card would tell everybody, or wants several `models` in one
            repository.
    """
    if "hub_token" in training:
        raise ValueError(
            "training.hub_token would be written into the recipe and the card; leave it out and log in with "
            "`hf auth login`, or set HF_TOKEN"
        )
    if training.get("push_to_hub") and models > 1:
        raise ValueError(
            f"training.push_to_hub is set, and {models} models are trained, which do not fit into one repository. "
            "Leave it out, and push one of them with `hf-audioformer push FOLDER REPO`."
        )


def check_folder(folder: Path) -> None:
    """Loads model, feature extractor and codec of a folder as those will who get them from the Hub.

    Raises:
        FileNotFoundError: Configuration, feature extractor, codec or card are missing.
        ValueError: Something does not load, is incomplete, or only works on this machine.
    """
    _check_present(folder)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
            _, loading = _auto_class(config).from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
            if isinstance(extractor, AudioFormerFeatureExtractor):
                _check_codec(folder, extractor)
    except (OSError, KeyError, RuntimeError, SafetensorError, ValueError) as error:
        raise ValueError(f"{folder} does not load and is not pushed: {error}") from error
    incomplete = sorted({*loading["missing_keys"], *map(str, loading["mismatched_keys"])})
    if incomplete:
        raise ValueError(
            f"the weights in {folder} lack {', '.join(incomplete[:5])}, and are not pushed; save the model again"
        )
    if not ModelCard.load(folder / "README.md").data.to_dict():
        raise ValueError(
            f"{folder / 'README.md'} has no metadata; begin it with library_name, pipeline_tag and license between two "
            "lines of ---"
        )


def files_to_push(folder: Path, repo_id: str, *, with_code: bool = False) -> dict[str, Path | bytes]:
    """What of `folder` travels, by its path in the repository: files as they are, or the bytes they become.

    A card's examples get the id of the repository. With `with_code` the model's own files travel too, and the
    configurations name them.

    Raises:
        ValueError: Code is wanted for a model or a feature extractor that is not this package's.
    """
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _TRAVELS.fullmatch(path.relative_to(folder).as_posix()) and path.suffix != ".py"
    }
    card = (folder / "README.md").read_text(encoding="utf-8").replace(ID_OF_THIS_CHECKPOINT, repo_id)
    if with_code:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        if model_type != AudioFormerConfig.model_type:
            raise ValueError(f"with_code is for AudioFormer; Transformers itself has the code of {model_type}")
        code = Path(audioformer.__path__[0])
        files |= {name: code / name for name in CODE_FILES}
        card += CODE_SECTION.format(repo=repo_id)
    files["README.md"] = card.encode()
    for name in ("config.json", "preprocessor_config.json"):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        settings.pop("auto_map", None)  # that of a model loaded from elsewhere would name foreign code
        settings |= {"auto_map": _auto_map(settings)} if with_code else {}
        files[name] = (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()
    return files


def refuse_public(repository: ModelInfo | DatasetInfo, remedy: str) -> None:
    """Raises a ValueError if everybody may see the repository: that is decided by who pushes, not by what is there."""
    if not repository.private:
        raise ValueError(
            f"{repository.id} is public, and nothing is pushed there unasked: {remedy}, or make it private first "
            "(on the page of its settings)."
        )


def _auto_map(settings: Mapping[str, Any]) -> dict[str, str]:
    """What a configuration, or that of a feature extractor, says of the code beside it."""
    kind = settings.get("feature_extractor_type")
    if kind is None:
        return AUTO_MAP
    if kind not in EXTRACTOR_MODULES:
        raise ValueError(
            f"with_code is for an AudioFormer with a feature extractor of its own ({', '.join(EXTRACTOR_MODULES)}); "
            f"preprocessor_config.json names {kind}. Save the extractor it was trained with beside it, or push "
            "without with_code."
        )
    return {"AutoFeatureExtractor": f"{EXTRACTOR_MODULES[kind]}.{kind}"}


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    public: bool = False,
    revision: str | None = None,
    message: str | None = None,
    with_code: bool = False,
    token: str | None = None,
) -> Push:
    """Uploads the folder of a model in one commit, or none if the repository holds the same already.

    Args:
        folder: A folder that `check_folder` accepts.
        with_code: Whether the model's own files travel, so that it loads without this package.

    The other arguments, and what happens to the repository, are those of `push_files`.

    Raises:
        FileNotFoundError, ValueError: As `check_folder` and `push_files`.
        ConnectionError: As `push_files`.
    """
    check_folder(folder)
    files_to_push(folder, repo_id, with_code=with_code)  # raises before anything is made
    return push_files(
        folder,
        repo_id,
        lambda repository: files_to_push(folder, repository, with_code=with_code),
        _TRAVELS,
        public=public,
        revision=revision,
        message=message or "Upload model",
        token=token,
    )


def push_files(
    folder: Path,
    repo_id: str,
    files_of: Callable[[str], Mapping[str, Path | bytes]],
    ours: re.Pattern[str],
    *,
    kind: Literal["model", "dataset"] = "model",
    public: bool = False,
    revision: str | None = None,
    message: str,
    token: str | None = None,
) -> Push:
    """Uploads files in one commit, or none if the repository holds the same already.

    The repository is made if it is not there. Of files that earlier pushes left, those that are no longer among the
    files are deleted by the same commit; what others put there stays. If the push is interrupted, the branch is as it
    was.

    Args:
        folder: What is pushed, for messages.
        repo_id: "name" or "owner/name".
        files_of: The files by their paths in the repository, from its full id.
        ours: Which paths there are those of such a push.
        kind: Of the repository.
        public: Whether everybody may see it; private otherwise.
        revision: The branch to push to, made if it is not there; `main` if not given.
        message: Title of the commit.
        token: Access token; the stored one if not given.

    Raises:
        ValueError: The repository is public and `public` is not set, or the Hub refuses the card.
        ConnectionError: The Hub refused, failed or could not be reached.
    """
    api = HfApi(token=token)
    try:
        return _push(api, repo_id, files_of, ours, kind, public, revision, message)
    except (OSError, HTTPError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise ConnectionError(
            f"{folder} was not pushed to {repo_id}, whose branch is as it was: {error} "
            f"({type(cause).__name__}: {cause}). Try again with `hf-audioformer push {folder} {repo_id}`; "
            "`hf auth whoami` says who is logged in."
        ) from error
    except ValueError as error:
        raise ValueError(f"{folder} was not pushed to {repo_id}: {error}") from error


def _push(
    api: HfApi,
    repo_id: str,
    files_of: Callable[[str], Mapping[str, Path | bytes]],
    ours: re.Pattern[str],
    kind: str,
    public: bool,
    revision: str | None,
    message: str,
) -> Push:
    repo_id = api.create_repo(repo_id, repo_type=kind, private=not public, exist_ok=True).repo_id
    head: Any = api.repo_info(repo_id, repo_type=kind)
    if not public:
        refuse_public(head, "set public (--public true)")
    branch_is_new = False
    if revision is not None:
        try:
            head = api.repo_info(repo_id, repo_type=kind, revision=revision)
        except RevisionNotFoundError:
            branch_is_new = True
    files = files_of(repo_id)
    additions = [CommitOperationAdd(path, content) for path, content in files.items()]
    there = [sibling.rfilename for sibling in head.siblings or []]
    stale = [CommitOperationDelete(path) for path in there if ours.fullmatch(path) and path not in files]
    if branch_is_new:
        api.preupload_lfs_files(repo_id, additions, repo_type=kind)  # what may take long comes before the branch
        api.create_branch(repo_id, repo_type=kind, branch=str(revision), revision=head.sha)
    commit = api.create_commit(
        repo_id,
        [*stale, *additions],
        repo_type=kind,
        commit_message=message,
        revision=revision,
        parent_commit=head.sha,
    )
    return Push(repo_id, commit.oid, commit.commit_url, bool(head.private), is_new=commit.oid != head.sha)


def _check_present(folder: Path) -> None:
    check_model_folder(folder, "folder")
    for name, remedy in (
        ("preprocessor_config.json", "save the feature extractor there with save_pretrained"),
        ("README.md", "write a card, which says what the model is and was trained on; the recipes do it"),
    ):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}; {remedy}")


def _auto_class(config: PreTrainedConfig) -> Any:
    (architecture, *_) = config.architectures or [""]
    return next((auto for suffix, auto in _AUTO_CLASSES.items() if architecture.endswith(suffix)), AutoModel)


def _check_codec(folder: Path, extractor: AudioFormerFeatureExtractor) -> None:
    """The codec lies in the folder and loads, or is named by a commit of the Hub."""
    settings: Mapping[str, Any] = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    if settings.get("codec") is None:
        extractor.load_codec()
    elif Path(settings["codec"]).exists() or Path(settings["codec"]).is_absolute():
        raise ValueError(
            f"its feature extractor names the codec by a folder of this machine, {settings['codec']}; save it with "
            "save_pretrained(folder, include_codec=True)"
        )
    elif not _COMMIT.fullmatch(settings.get("codec_revision") or ""):
        raise ValueError(
            f"its feature extractor names the codec {settings['codec']} at revision "
            f"{settings.get('codec_revision')!r}, which may change; pin codec_revision to a commit (40 hexadecimal "
            "digits), or save it with save_pretrained(folder, include_codec=True)"
        )
