"""Imports go one way through the package, and importing it stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
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
MODEL_IMPORTS = {"torch", "torchaudio", "transformers", "numpy", "huggingface_hub", "safetensors"}
HEAVY = ("datasets", "sklearn", "matplotlib", "pandas", "gradio", "evaluate")  # torchaudio comes with transformers


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> Iterator[str]:
    """The absolute name of everything `path` imports, at its top or inside its functions."""
    package = ("hf_audioformer", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.unit
@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert part in RANKS, f"give {part} its place in the order of imports"
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "hf_audioformer":
            other = rest.partition(".")[0]
            assert RANKS.get(other, 0) <= RANKS[part], f"{part} may not import {name}"


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
