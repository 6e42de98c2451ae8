"""Shared fixtures: where the real audio lies, and a fixed seed for every test."""

import gc
import os
from pathlib import Path

import pytest
import torch

PROJECT_ROOT = Path(__file__).resolve().parent.parent
KINDS = {"unit", "property", "reference", "invariant", "fault", "browser", "cli"}
# The markers that Transformers' common suites put on their tests.
TRANSFORMERS_MARKERS = (
    *("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test"),
    *("generate", "torch_compile_test", "torch_export_test"),
)


def pytest_configure(config: pytest.Config) -> None:
    for name in TRANSFORMERS_MARKERS:
        config.addinivalue_line("markers", f"{name}: a common test of Transformers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that of two processes none is left alone with a long one at the end; a test that
    does not say what kind it is of is a `unit`."""
    for item in items:
        if KINDS.isdisjoint(mark.name for mark in item.iter_markers()):
            item.add_marker(pytest.mark.unit)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is imported stays: the collections of garbage that each training asks for need not walk through it again."""
    gc.freeze()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real audio, `HF_AUDIOFORMER_DATA` (default `../shared/data`); skips where it is absent."""
    folder = Path(os.environ.get("HF_AUDIOFORMER_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    if not (folder / "esc10.parquet").is_file():
        pytest.skip(f"real audio is not at {folder}; set HF_AUDIOFORMER_DATA to the folder with esc10.parquet")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
