"""Pushes a folder that a recipe made to the Hub, in one commit and private unless asked otherwise.

    hf-audioformer push FOLDER REPO [--public true] [--with_code true] [--revision BRANCH] [--dry_run true]

Model, feature extractor, codec, card and results travel; checkpoints, optimizer states, training arguments and recipes
stay. Pushing the same again makes no commit, and an interrupted push leaves the branch as it was. `hf auth login` comes
first.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..training.arguments import parse_config
from ..training.hub import check_folder, files_to_push, push_folder
from .inputs import with_names

__all__ = ["PushArguments", "main"]


@dataclass(frozen=True)
class PushArguments:
    """All settings of the command."""

    folder: str = field(metadata={"help": "a folder with a model, its feature extractor and its card"})
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
    if arguments.dry_run:
        check_folder(folder)
        _list(folder, arguments)
        return
    pushed = push_folder(
        folder,
        arguments.repo,
        public=arguments.public,
        revision=arguments.revision,
        message=arguments.message,
        with_code=arguments.with_code,
    )
    visibility = "private" if pushed.private else "public"
    what = f"is now in {pushed.repo_id}" if pushed.is_new else f"was in {pushed.repo_id} already, nothing changed"
    print(f"{folder} {what} ({visibility}): {pushed.url}")


def _list(folder: Path, arguments: PushArguments) -> None:
    files = files_to_push(folder, arguments.repo, with_code=arguments.with_code)
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    print(f"{folder} would travel to {arguments.repo} ({'public' if arguments.public else 'private'}):")
    for name, size in sizes.items():
        print(f"  {size:>14,} bytes  {name}")
    print(f"  {sum(sizes.values()):>14,} bytes  in {len(sizes)} files")
    left = sorted(path.name for path in folder.iterdir() if path.name not in {name.split("/")[0] for name in files})
    if left:
        print(f"left here: {', '.join(left)}")
