"""The doctor tells a sound environment from a broken one, and the stated versions are the required ones."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hf_audioformer import environment

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def doctor(**changes: str) -> tuple[int, str]:
    """Exit code and output of the doctor in a process of its own; run as a file, so it needs nothing of the package."""
    command = [sys.executable, environment.__file__]
    done = subprocess.run(
        command, env={**os.environ, **changes}, capture_output=True, text=True, timeout=100, check=False
    )
    return done.returncode, done.stdout


@pytest.fixture
def broken_torchaudio(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a torchaudio that is installed but, as with a wrong CUDA, cannot load."""
    (tmp_path / "torchaudio.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    return tmp_path


@pytest.mark.unit
def test_this_environment_is_in_order() -> None:
    findings = environment.check_environment()
    assert [finding for finding in findings if finding.required and not finding.ok] == []
    assert all(finding.found and (finding.ok or finding.remedy) for finding in findings)
    assert len({finding.name for finding in findings}) == len(findings)


@pytest.mark.unit
def test_stated_versions_are_those_of_pyproject() -> None:
    dependencies = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for package, versions in environment.VERSIONS.items():
        assert f"{package}{versions}" in dependencies


@pytest.mark.fault
def test_doctor_survives_a_torchaudio_that_cannot_load(broken_torchaudio: Path) -> None:
    """Run as a file, since the package itself cannot be imported then."""
    offline = {"HF_HUB_CACHE": str(broken_torchaudio), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, environment.__file__],
        env={**os.environ, **offline, "PYTHONPATH": str(broken_torchaudio)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "FAULT torchaudio loads        OSError: libcudart.so.12" in done.stdout
    assert "-> torch and torchaudio must match" in done.stdout
    assert "Not in order: torchaudio loads" in done.stdout
    assert "facebook/encodec_24khz  FileNotFoundError: not in the local cache, and HF_HUB_OFFLINE is set" in done.stdout


@pytest.mark.fault
def test_a_torchaudio_that_cannot_load_is_told_with_its_remedy(
    broken_torchaudio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.require_environment()
    monkeypatch.delitem(sys.modules, "torchaudio")
    monkeypatch.syspath_prepend(broken_torchaudio)
    with pytest.raises(ImportError, match=r"cannot be loaded \(OSError: libcudart.*torch and torchaudio must match"):
        environment.require_environment()


@pytest.mark.fault
def test_versions_out_of_range_and_packages_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(environment.VERSIONS, "numpy", "<1")
    monkeypatch.setitem(environment.VERSIONS, "no-such-package", ">=1")
    findings = {finding.name: finding for finding in environment.check_environment()}
    assert not findings["numpy"].ok
    assert findings["numpy"].found.endswith(", wanted <1")
    assert findings["no-such-package"].found == "not installed"


@pytest.mark.fault
def test_importing_the_package_beside_another_transformers_tells_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").touch()
    (tmp_path / "transformers-4.57.0.dist-info").mkdir()
    (tmp_path / "transformers-4.57.0.dist-info" / "METADATA").write_text("Name: transformers\nVersion: 4.57.0\n")
    path = os.pathsep.join([str(tmp_path), str(PROJECT_ROOT)])
    command = [sys.executable, "-m", "hf_audioformer", "doctor"]
    environment_ = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment_, capture_output=True, text=True, timeout=100, check=False)
    wanted = environment.VERSIONS["transformers"]
    assert f"transformers is 4.57.0, wanted {wanted}: pip install 'transformers{wanted}'" in done.stderr
    assert f"Check all else by: {sys.executable} {environment.__file__}" in done.stderr
