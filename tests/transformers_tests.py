"""Fetches the common tests of the installed Transformers, which its wheel lacks, into `.cache/transformers_tests`.

Run as a script (`make transformers-tests`). The source distribution holds the suites but not three of the helper
modules that they import; those are written here as small as the suites need them. Export and generation suites are
therefore not part of what is run; tests/models/audioformer/test_generation_common.py stands for the latter.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

TARGET = Path(__file__).resolve().parent.parent / ".cache" / "transformers_tests"
MISSING_HELPERS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": (
        "config_common_kwargs = {'return_dict': False, 'output_hidden_states': True, 'output_attentions': True,\n"
        "    'dtype': 'float16', 'chunk_size_feed_forward': 5, 'architectures': ['BertModel'],\n"
        "    'problem_type': 'regression', 'id2label': {0: 'label'}, 'label2id': {'label': '0'}}\n"
    ),
}


def fetch() -> None:
    """Downloads and unpacks the suites, unless those of the installed version are there."""
    stamp = TARGET / "VERSION"
    if stamp.is_file() and stamp.read_text() == transformers.__version__:
        return
    requirement = f"transformers=={transformers.__version__}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
        subprocess.run([*command, "--dest", folder, requirement], check=True)
        with tarfile.open(next(Path(folder).glob("transformers-*.tar.gz"))) as archive:
            for member in archive:
                root, _, name = member.name.partition("/tests/")
                if member.isfile() and root.startswith("transformers-") and name.endswith(".py"):
                    _write(name, archive.extractfile(member).read().decode())
    for name, text in MISSING_HELPERS.items():
        _write(name, text)
    stamp.write_text(transformers.__version__)


def _write(name: str, text: str) -> None:
    path = (TARGET / name).resolve()
    if not path.is_relative_to(TARGET):
        raise ValueError(f"{name} lies outside the archive's tests folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for folder in (path.parent, TARGET):
        (folder / "__init__.py").touch()


if __name__ == "__main__":
    fetch()
