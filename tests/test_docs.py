"""What the documents tell can be done: their commands parse, their links lead somewhere, their Python compiles."""

import ast
import importlib
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser as torchrun_parser

from hf_audioformer.cli import COMMANDS
from hf_audioformer.recipes import accelerate_config, baseline
from hf_audioformer.recipes.finetune_ast import FinetuneASTArguments
from hf_audioformer.training.arguments import dump_config, parse_config
from hf_audioformer.training.output import RECIPE_FILE

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "conversion" / "README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "model_cards").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SUBSTITUTION = re.compile(r"\$\(([^)]*)\)")
PREFIX = re.compile(r"[A-Z_]+=\S*")
UNFINISHED = "..."
SECTIONS = ["data", "split", "features", "augmentation", "model", "adaptation", "optimization", "averaging", "training"]
NO_SETTINGS = {"model.resize_position_embeddings"}  # a method
TRAINING_COMMANDS = ["finetune", "finetune-ast", "pretrain", "train-generation", "train-codec", "evaluate"]
LAUNCHERS: dict[str, Callable[[], Any]] = {"torchrun": torchrun_parser, "accelerate": launch_command_parser}

pytestmark = pytest.mark.unit


def no_arguments(argv: list[str]) -> None:
    assert not argv, f"takes no arguments, found {argv}"


def one_known_set(argv: list[str]) -> None:
    assert len(argv) == 1
    assert argv[0] in baseline.PROTOCOLS


# The commands that have no settings of their own, and what may follow them.
WITHOUT_SETTINGS: dict[str, Callable[[list[str]], None]] = {
    "doctor": no_arguments,
    "baseline": one_known_set,
    "accelerate-config": accelerate_config.main,
}


class Parsed(Exception):
    """Thrown once the arguments of a recipe are read, in place of running it."""


def blocks(document: Path, *languages: str) -> Iterator[str]:
    """The code between fences, without its indentation."""
    for _, language, code in FENCE.findall(document.read_text(encoding="utf-8")):
        if language in languages:
            yield textwrap.dedent(code)


def without_blocks(document: Path) -> str:
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def words(line: str) -> list[str]:
    """The words of a command line without its comment and what it sets in the environment."""
    found = shlex.split(SUBSTITUTION.sub("SUBSTITUTED", line), comments=True)
    while found and PREFIX.fullmatch(found[0]):
        found = found[1:]
    return found


def is_ours(line: str) -> bool:
    found = words(line)
    return found[:1] == ["hf-audioformer"] or ("-m", "hf_audioformer") in pairwise(found)


def command_lines(document: Path) -> Iterator[str]:
    """Whole commands from the blocks, and what is in their `$(...)`."""
    for code in blocks(document, "bash", "sh", "shell", ""):
        for line in re.sub(r"\\\n\s*", " ", code).splitlines():
            yield from filter(is_ours, [line, *SUBSTITUTION.findall(line)])


def mentioned_commands(document: Path) -> Iterator[str]:
    """Commands within sentences, which may leave out what is required; `generate --task x` is one of them too."""
    for code in INLINE.findall(without_blocks(document)):
        line = " ".join(code.split())
        name, _, rest = line.partition(" ")
        if name in COMMANDS and rest:
            yield f"hf-audioformer {line}"
        elif (name == "hf-audioformer" and rest) or "-m hf_audioformer " in line:
            yield line


def all_of(find: Callable[[Path], Iterator[str]]) -> list[Any]:
    return [
        pytest.param(item, id=f"{document.relative_to(ROOT)}: {item.strip().splitlines()[0]}"[:120])
        for document in DOCUMENTS
        for item in find(document)
    ]


def without_launcher(found: list[str]) -> list[str]:
    """The command's name and arguments; what stands before them is read by the launcher's own parser."""
    if found[0] == "hf-audioformer":
        return found[1:]
    at = found.index("hf_audioformer") + 1
    launcher, *options = found[:at]
    if launcher in LAUNCHERS:
        options = options[1:] if launcher == "accelerate" else options  # its word `launch`
        LAUNCHERS[launcher]().parse_args([word for word in options if word != UNFINISHED])
    return found[at:]


def read_arguments(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the recipe read its arguments as when it is run, and go no further."""
    name, *argv = [word for word in without_launcher(words(line)) if word != UNFINISHED] or ["--help"]
    if name.startswith("-"):
        assert name in ("--help", "--version")
        return
    assert name in COMMANDS, f"unknown command {name!r}"
    if name in WITHOUT_SETTINGS:
        WITHOUT_SETTINGS[name](argv)
        return
    module = importlib.import_module(COMMANDS[name].module)
    parse_config = module.parse_config

    def stop_after_parsing(*arguments: Any, **keywords: Any) -> None:
        parse_config(*arguments, **keywords)
        raise Parsed

    monkeypatch.setattr(module, "parse_config", stop_after_parsing)
    try:
        module.main(argv)
    except Parsed:
        return
    except SystemExit:
        if "--help" not in argv:
            raise


@pytest.fixture
def folder_of_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the YAML files that the documents show, those that begin with `# NAME.yaml`, and the
    settings that a run has left."""
    for document in DOCUMENTS:
        for code in blocks(document, "yaml"):
            if name := re.match(r"# (\w+\.yaml)\b", code):
                (tmp_path / name[1]).write_text(code, encoding="utf-8")
    left = parse_config(FinetuneASTArguments, ["ast_modern", "--output_dir", "my_run"], description="")
    (tmp_path / "my_run").mkdir()
    (tmp_path / "my_run" / RECIPE_FILE).write_text(dump_config(left), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", all_of(command_lines))
@pytest.mark.usefixtures("folder_of_reader")
def test_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read_arguments(line, monkeypatch)


@pytest.mark.parametrize("line", all_of(mentioned_commands))
@pytest.mark.usefixtures("folder_of_reader")
def test_commands_in_sentences_exist(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        read_arguments(line, monkeypatch)
    except ValueError as error:
        if not re.search("is required: set it in the config file|needs a value", str(error)):
            raise


def named_settings() -> list[str]:
    """What sentences and tables call a setting, such as `data.source`, by its section."""
    names = "|".join(SECTIONS)
    inline = (code for document in DOCUMENTS for code in INLINE.findall(without_blocks(document)))
    found = {match[0] for code in inline if (match := re.match(rf"({names})\.[a-z_]+(?=$| )", code))}
    return sorted(found - NO_SETTINGS)


@pytest.mark.parametrize("name", named_settings())
def test_settings_in_sentences_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each belongs to one command at least; that its value is missing or of the wrong type does not matter."""
    refused = []
    for command in TRAINING_COMMANDS:
        try:
            read_arguments(f"hf-audioformer {command} --{name} 1", monkeypatch)
        except ValueError as error:
            refused += [command] if "unknown key" in str(error) else []
    assert refused != TRAINING_COMMANDS


@pytest.mark.usefixtures("folder_of_reader")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hf-audioformer finetune --data.source a --output_dir b --data.sauce c", "unknown key 'data.sauce'"),
        ("HF_X=1 hf-audioformer finetune-ast ast_ancient --output_dir b  # a comment", "'ast_ancient' does not exist"),
        ("torchrun --nproc_per_node 2 -m hf_audioformer finetune-ast ast_esc10 --model.patch_size 16", "its own sizes"),
        ("hf-audioformer predict my_model clip.wav --timestamps often", "timestamps must be float"),
    ],
)
def test_wrong_commands_are_found(line: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_arguments(line, monkeypatch)


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", without_blocks(document), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
    return {slug if (count := slugs[:at].count(slug)) == 0 else f"{slug}-{count}" for at, slug in enumerate(slugs)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(without_blocks(document)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading; there are {sorted(anchors(target))}"


def check_names(tree: ast.Module) -> None:
    """Raises unless all that is taken from the package is there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "hf_audioformer":
                    importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "hf_audioformer":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hf_audioformer":
            assert hasattr(importlib.import_module("hf_audioformer"), node.attr), f"hf_audioformer.{node.attr}"


@pytest.mark.parametrize("code", all_of(lambda document: blocks(document, "python")))
def test_python_compiles_and_finds_what_it_imports(code: str) -> None:
    tree = ast.parse(code)
    check_names(tree)
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    if any(name.startswith("AutoModel") for name in imported):
        assert "hf_audioformer" in modules, "the Auto classes know AudioFormer once hf_audioformer is imported"


def test_missing_names_are_found() -> None:
    for code in ("from hf_audioformer import load_sound", "import hf_audioformer.models.vision"):
        with pytest.raises(ImportError):
            check_names(ast.parse(code))
    with pytest.raises(AssertionError):
        check_names(ast.parse("import hf_audioformer\nhf_audioformer.load_sound('clip.wav')"))
