"""What must be installed, checked in one place: `hf-audioformer doctor` and `require_environment`.

torch and torchaudio must match. torchaudio 2.11, the newest release, refuses a torch built for another CUDA minor (as
2.15 is) and cannot load beside a CPU-only torch 2.13; and a torchaudio that cannot load breaks `transformers` with it.
This module imports nothing of the package, so that `python environment.py` tells what is wrong when the rest cannot be
imported.
"""

import argparse
import io
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.specifiers import SpecifierSet

__all__ = ["VERSIONS", "Finding", "check_environment", "main", "require_environment"]

VERSIONS = {"torch": ">=2.11,<2.15", "torchaudio": ">=2.11,<2.12", "transformers": ">=5.5,<6"}
TORCHAUDIO_REMEDY = (
    f"torch and torchaudio must match, from one index: pip install --force-reinstall 'torch{VERSIONS['torch']}' "
    f"'torchaudio{VERSIONS['torchaudio']}'"
)
DEFAULT_CODEC = "facebook/encodec_24khz"
BUNDLED_CODEC = Path(__file__).parent / "assets" / "checkpoint" / "codec"
DECODED_FORMATS = [  # name, container and subtype as soundfile calls them
    ("wav", "WAV", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
]
FREE_DISK_GB = 2  # a run's checkpoints, or the codec's download
HUB_TIMEOUT_SECONDS = 5
LOAD_ERRORS = (ImportError, OSError, RuntimeError)  # what a compiled package raises when it does not fit


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is in order, what was found, and what to do if it is not."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = True


def require_environment() -> None:
    """Raises an ImportError that says what to do where torchaudio cannot load, or a package has another version."""
    doctor = f"Check all else by: {sys.executable} {__file__}"
    try:
        import_module("torchaudio")
    except LOAD_ERRORS as error:
        raise ImportError(f"torchaudio cannot be loaded ({_one_line(error)}). {TORCHAUDIO_REMEDY}\n{doctor}") from error
    for finding in map(_check_version, VERSIONS):
        if not finding.ok:
            raise ImportError(f"{finding.name} is {finding.found}: {finding.remedy}\n{doctor}")


def check_environment() -> list[Finding]:
    """Findings on versions, torchaudio, decoders, codecs, accelerator and disk, the required ones first."""
    return [
        _check_python(),
        *(_check_version(package) for package in VERSIONS),
        _check_torchaudio(),
        *(_check_decoder(*format_) for format_ in DECODED_FORMATS),
        _check_bundled_codec(),
        _check_hub_codec(),
        _check_torchcodec(),
        _check_ffmpeg(),
        _check_accelerator(),
        _check_disk(),
    ]


def main(argv: list[str]) -> None:
    """Prints every finding with its remedy; leaves with exit code 1 if something required is not in order."""
    argparse.ArgumentParser("hf-audioformer doctor", description=check_environment.__doc__).parse_args(argv)
    findings = check_environment()
    for finding in findings:
        print(_line(finding))
    faults = [finding.name for finding in findings if finding.required and not finding.ok]
    print(f"\nNot in order: {', '.join(faults)}" if faults else "\nEverything required is in order.")
    if faults:
        sys.exit(1)


def _line(finding: Finding) -> str:
    state = "ok" if finding.ok else "FAULT" if finding.required else "note"
    line = f"{state:6}{finding.name:24}{finding.found}"
    return line if finding.ok else f"{line}\n{'':30}-> {finding.remedy}"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _attempt(name: str, action: Callable[[], str], remedy: str, required: bool = True) -> Finding:
    """The finding of an action that returns what it found; any error it meets is the fault."""
    try:
        return Finding(name, True, action(), required=required)
    except Exception as error:
        return Finding(name, False, _one_line(error), remedy, required)


def _check_python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _check_version(package: str) -> Finding:
    wanted = VERSIONS[package]
    remedy = f"pip install '{package}{wanted}'" if package == "transformers" else TORCHAUDIO_REMEDY
    try:
        found = version(package)
    except PackageNotFoundError:
        return Finding(package, False, "not installed", remedy)
    fits = SpecifierSet(wanted).contains(found, prereleases=True)
    return Finding(package, fits, found if fits else f"{found}, wanted {wanted}", remedy)


def _check_torchaudio() -> Finding:
    def resample() -> str:
        import torch
        import torchaudio

        torchaudio.functional.resample(torch.zeros(480), 48_000, 24_000)
        return "resampling works"

    return _attempt("torchaudio loads", resample, TORCHAUDIO_REMEDY)


def _check_decoder(name: str, container: str, subtype: str) -> Finding:
    def round_trip() -> str:
        import numpy as np
        import soundfile

        file = io.BytesIO()
        soundfile.write(file, np.zeros(4_800, np.float32), 24_000, format=container, subtype=subtype)
        file.seek(0)
        soundfile.read(file)
        return f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}"

    return _attempt(f"decode {name}", round_trip, "pip install --upgrade soundfile (its wheels carry libsndfile 1.2)")


def _check_bundled_codec() -> Finding:
    def load() -> str:
        from transformers import EncodecModel

        if not BUNDLED_CODEC.is_dir():
            raise FileNotFoundError("the folder assets/checkpoint/codec is missing from the installed package")
        config = EncodecModel.from_pretrained(BUNDLED_CODEC).config
        return f"{config.sampling_rate} Hz, {config.codebook_size} codes"

    return _attempt("bundled codec", load, "install the package again, with its assets")


def _check_hub_codec() -> Finding:
    def look() -> str:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

        if isinstance(try_to_load_from_cache(DEFAULT_CODEC, "model.safetensors"), str):
            return "in the local cache"
        if constants.HF_HUB_OFFLINE:
            raise FileNotFoundError("not in the local cache, and HF_HUB_OFFLINE is set")
        get_hf_file_metadata(hf_hub_url(DEFAULT_CODEC, "config.json"), timeout=HUB_TIMEOUT_SECONDS)
        return "can be downloaded"

    remedy = (
        "needed for checkpoints that name this codec; where the Hub can be reached: "
        f"hf download {DEFAULT_CODEC}, then copy the folder here and give its path as the codec"
    )
    return _attempt(DEFAULT_CODEC, look, remedy, required=False)


def _check_torchcodec() -> Finding:
    def load() -> str:
        import_module("torchcodec")
        return version("torchcodec")

    return _attempt("torchcodec", load, "not needed: the package decodes with soundfile", required=False)


def _check_ffmpeg() -> Finding:
    path = shutil.which("ffmpeg")
    remedy = "needed only to give pipeline() a bare path; give it hf_audioformer.load_audio(path) instead"
    return Finding("ffmpeg", path is not None, path or "not on the PATH", remedy, required=False)


def _check_accelerator() -> Finding:
    import torch

    here = torch.accelerator.is_available()
    devices = f"{torch.accelerator.device_count()} x {torch.accelerator.current_accelerator()}"
    found = devices if here else f"none: training runs on {os.cpu_count()} CPU cores"
    return Finding("accelerator", here, found, "none is needed for the quickstart and small data sets", required=False)


def _check_disk() -> Finding:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    remedy = f"checkpoints need about {FREE_DISK_GB} GB: free some space or work in another folder"
    return Finding(
        "free disk", free_gb >= FREE_DISK_GB, f"{free_gb:.0f} GB in the current folder", remedy, required=False
    )


if __name__ == "__main__":
    main(sys.argv[1:])
