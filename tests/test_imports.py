"""Imports go one way through the package, and importing it stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import hf_audioformer

PACKAGE = Path(hf_audioformer.__file__).parent
RANKS = {
    **{"models": 0, "environment": 0, "draws": 0},
    **{"assets": 1, "audio": 1, "checkpoint_config": 1, "codes": 1, "losses": 1, "metrics": 1, "inspection": 1},
    **{"event_metrics": 1, "verification": 1},
    **{"data": 2, "training": 3, "inference": 3, "demo": 3, "recipes": 4, "cli": 5, "__main__": 6},
}
OUTSIDE = {"benchmarks", "conversion", "examples", "tests"}
MODEL_IMPORTS = {"torch", "torchaudio", "transformers", "numpy", "huggingface_hub", "safetensors"}
HEAVY = ("datasets", "sklearn", "matplotlib", "pandas", "gradio", "evaluate")  # torchaudio comes with transformers


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> Iterator[str]:
    """The absolute name of everything `path` imports, at its top or inside its functions, and takes from the root."""
    package = ("hf_audioformer", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hf_audioformer":
            yield f"hf_audioformer.{node.attr}"


def part_of(name: str) -> str:
    """The part of the package that `hf_audioformer.name...` is in, also where the root passes a name on."""
    first = name.partition(".")[2].partition(".")[0] or "models"  # which the root registers by being imported
    if first in RANKS:
        return first
    module = hf_audioformer._LAZY.get(first) or getattr(hf_audioformer, first).__module__.partition(".")[2]
    return module.lstrip(".").partition(".")[0]


def check_imports(part: str, names: Iterable[str]) -> None:
    """Raises unless a module in `part` may import the `names`."""
    assert part in RANKS, f"give {part} its place in the order of imports"
    for name in names:
        top = name.partition(".")[0]
        assert top not in OUTSIDE, f"{part} may not import {name}, which does not come with the package"
        if top == "hf_audioformer":
            assert RANKS[part_of(name)] <= RANKS[part], f"{part} may not import {name}"


@pytest.mark.unit
@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    check_imports(path.relative_to(PACKAGE).with_suffix("").parts[0], imported(path))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("audio", "hf_audioformer.read_clips"),  # the root passes it on from `data`
        ("models", "hf_audioformer.load_audio"),
        ("data", "hf_audioformer.training.trainer.AudioTrainer"),
        ("recipes", "benchmarks.reproduce"),
        ("training", "tests.fixtures_codec"),
    ],
)
def test_imports_that_go_the_other_way_are_found(part: str, name: str) -> None:
    with pytest.raises(AssertionError, match=f"{part} may not import {name}"):
        check_imports(part, [name])


@pytest.mark.unit
@pytest.mark.parametrize("path", sorted((PACKAGE / "models").rglob("*_*.py")), ids=lambda path: path.name)
def test_model_files_stand_alone(path: Path) -> None:
    """A model file may be pushed to the Hub as code: only its sibling files and a few packages may be imported."""
    if path.name == "__init__.py":
        return
    sibling = "hf_audioformer." + ".".join(path.relative_to(PACKAGE).parts[:-1]) + "."
    for name in imported(path):
        top = name.partition(".")[0]
        assert name.startswith(sibling) or top in MODEL_IMPORTS | sys.stdlib_module_names, f"imports {name}"


@pytest.mark.unit
def test_importing_the_package_and_its_command_line_is_light() -> None:
    command = "import sys, hf_audioformer.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True, timeout=100)
    loaded = done.stdout.split()
    assert "hf_audioformer.cli" in loaded
    assert [name for name in loaded if name in HEAVY or name.startswith("hf_audioformer.recipes")] == []
