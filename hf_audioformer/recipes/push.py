"""Pushes a folder that a recipe made to the Hub, in one commit and private unless asked otherwise.

    hf-audioformer push FOLDER REPO [--public true] [--with_code true] [--revision BRANCH] [--dry_run true]

Model, feature extractor, codec, card and results travel; checkpoints, optimizer states, training arguments and recipes
stay. A folder of codes, from `hf-audioformer encode`, becomes a data set with a card of its own, which `--data.source
REPO` takes. Pushing the same again makes no commit, and an interrupted push leaves the branch as it was.
`hf auth login` comes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..codes.store import is_code_store
from ..training.arguments import parse_config
from ..training.hub import check_folder, files_to_push, push_folder
from ..training.hub_codes import codes_to_push, push_codes
from .inputs import with_names

__all__ = ["PushArguments", "main"]


@dataclass(frozen=True)
class PushArguments:
    """All settings of the command."""

    folder: str = field(metadata={"help": "a model with its feature extractor and card, or codes made by encode"})
    repo: str = field(metadata={"help": "name of the repository on the Hub, with or without its owner; made if absent"})
    public: bool = field(default=False, metadata={"help": "make a new repository public, or push to a public one"})
    revision: str | None = field(default=None, metadata={"help": "branch to push to, made if absent; main by default"})
    message: str | None = field(default=None, metadata={"help": "title of the commit"})
    with_code: bool = field(
        default=False,
        metadata={"help": "the model's code travels too: it loads with trust_remote_code where this package is absent"},
    )
    dry_run: bool = field(default=False, metadata={"help": "check the folder and list what would travel; no network"})


def main(argv: list[str]) -> None:
    """Runs the command; FOLDER and REPO may be given without their names.

    Raises:
        FileNotFoundError, ValueError: The folder is not fit to be pushed; the message says what to change.
        ConnectionError: The Hub refused, failed or could not be reached.
    """
    arguments = parse_config(PushArguments, with_names(argv, "folder", "repo"), description=__doc__ or "")
    folder = Path(arguments.folder)
    is_codes = is_code_store(folder)
    if is_codes and arguments.with_code:
        raise ValueError(f"with_code is for models; {folder} holds codes")
    if arguments.dry_run:
        _list(folder, _files(folder, arguments), arguments)
        return
    where: dict[str, Any] = {
        "public": arguments.public,
        "revision": arguments.revision,
        "message": arguments.message,
    }
    if is_codes:
        pushed = push_codes(folder, arguments.repo, **where)
    else:
        pushed = push_folder(folder, arguments.repo, with_code=arguments.with_code, **where)
    visibility = "private" if pushed.private else "public"
    what = f"is now in {pushed.repo_id}" if pushed.is_new else f"was in {pushed.repo_id} already, nothing changed"
    print(f"{folder} {what} ({visibility}): {pushed.url}")


def _files(folder: Path, arguments: PushArguments) -> dict[str, Path | bytes]:
    if is_code_store(folder):
        return codes_to_push(folder, arguments.repo)
    check_folder(folder)
    return files_to_push(folder, arguments.repo, with_code=arguments.with_code)


def _list(folder: Path, files: Mapping[str, Path | bytes], arguments: PushArguments) -> None:
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    print(f"{folder} would travel to {arguments.repo} ({'public' if arguments.public else 'private'}):")
    for name, size in sizes.items():
        print(f"  {size:>14,} bytes  {name}")
    print(f"  {sum(sizes.values()):>14,} bytes  in {len(sizes)} files")
    left = sorted(path.name for path in folder.iterdir() if path.name not in {name.split("/")[0] for name in files})
    if left:
        print(f"left here: {', '.join(left)}")
