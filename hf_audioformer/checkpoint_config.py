"""What a model's folder or Hub id holds, asked before anything is loaded: one answer to all who name a wrong one."""

import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from transformers import AutoConfig

from .assets import ASTS, BUNDLED, ast_folder
from .models.audioformer.feature_extraction_audioformer import CODEC_SUBFOLDER

__all__ = ["check_model_folder", "read_config"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def read_config(source: str | os.PathLike[str], argument: str, revision: str | None = None) -> Any:
    """The configuration of the model in a folder or, at a revision, on the Hub; errors call it by the name of the
    user's `argument`.

    Raises:
        FileNotFoundError: There is no such folder, and no such model on the Hub, or it cannot be reached.
        NotADirectoryError: A file is named.
        ValueError: The folder, or what the Hub has, is not that of a model.
    """
    source = os.fspath(source)
    if source.startswith(BUNDLED):
        raise FileNotFoundError(
            f"{argument} is {source}, a name that only model.checkpoint of finetune-ast knows; the folders of what "
            f"comes with the package are {' and '.join(map(ast_folder, ASTS))}"
        )
    is_on_hub = not os.path.exists(source) and _HUB_ID.fullmatch(source)
    if not is_on_hub:
        check_model_folder(Path(source), argument)
    try:
        if is_on_hub:
            _check_hub_answers(source, revision)
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except OSError as error:
        if os.path.isdir(source):
            raise ValueError(f"{argument} is {source}, whose config.json cannot be read: {error}") from error
        raise FileNotFoundError(
            f"{argument} is {source}: there is no such folder here, and as an id of the Hub it cannot be had: {error}\n"
            f"Give a folder that holds a model ({_nearest_there_is(Path(source))}), or the id of one on the Hub "
            "(owner/name)."
        ) from error
    except ValueError as error:
        raise ValueError(f"{argument} is {source}, which holds no model that Transformers knows: {error}") from error


def _check_hub_answers(repo_id: str, revision: str | None) -> None:
    """Raises a ConnectionError if a model is not in the cache and the Hub cannot be reached; Transformers would find
    out in half a minute, and say so again and again."""
    if try_to_load_from_cache(repo_id, "config.json", revision=revision) is not None:
        return
    try:
        get_hf_file_metadata(hf_hub_url(repo_id, "config.json", revision=revision))
    except (HfHubHTTPError, OfflineModeIsEnabled):
        return  # Transformers knows what such an answer means, and tries again where that helps
    except HTTPError as error:
        raise ConnectionError(f"the Hub cannot be reached ({error}).") from error


def check_model_folder(folder: Path, argument: str) -> None:
    """Whether a folder is that of a model; if it holds folders of models instead, they are named.

    Raises:
        FileNotFoundError: It does not exist, or has no config.json.
        NotADirectoryError: It is a file.
    """
    if not folder.exists():
        raise FileNotFoundError(
            f"{argument} is {folder}: there is no such folder. Give one that holds a model (with a config.json); "
            f"{_nearest_there_is(folder)}"
        )
    if not folder.is_dir():
        raise NotADirectoryError(f"{argument} is {folder}, a file; give the folder of a model (with a config.json)")
    if not (folder / "config.json").is_file():
        inside = sorted(
            path.parent.name for path in folder.glob("*/config.json") if path.parent.name != CODEC_SUBFOLDER
        )
        hint = f"it holds {', '.join(inside)}: give one of them" if inside else "so it is not the folder of a model"
        raise FileNotFoundError(f"{argument} is {folder}, which has no config.json; {hint}")


def _nearest_there_is(folder: Path) -> str:
    parent = next(parent for parent in folder.absolute().parents if parent.is_dir())
    inside = sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"{parent} has {', '.join(inside[:10]) if inside else 'no folders'}"
