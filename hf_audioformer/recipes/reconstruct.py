"""Lets you hear what a codec keeps of a sound: the clip after the codec, at each number of codebooks.

    hf-audioformer reconstruct FILES|FOLDERS ... --output_dir DIR
    hf-audioformer reconstruct FILES|FOLDERS ... --output_dir DIR --model facebook/encodec_24khz --codebooks "[2, 32]"

Of each clip NAME it writes NAME.original.wav, mixed to mono at the codec's rate, and NAME.N_codebooks.wav; and
distances.csv with what is on the screen: kilobits per second, and the log-mel distance to the original, the mean
difference of natural log-mels (64 bands, 80 dB below the clip's peak do not count; 0 is equal).
"""

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import assets, load_audio
from ..audio.log_mel import log_mel_distance
from ..checkpoint_config import read_config
from ..inference.listening import kbps, level_gain, round_trips
from ..inference.loading import choose_device
from ..models.audioformer.codec_audioformer import SUPPORTED_CODECS, AudioCodec
from ..training.arguments import parse_config
from ..training.console import quiet_transformers
from .inputs import (
    claim_folder,
    clip_bar,
    files_of,
    interruption_says,
    load_extractor,
    report_left_out,
    stopped_after,
    unique_names,
    with_names,
)

__all__ = ["ReconstructArguments", "main", "run", "write_wav"]

TABLE_FILE = "distances.csv"


@dataclass(frozen=True)
class ReconstructArguments:
    """All settings of the command."""

    sources: list[str] = field(metadata={"help": "sound files, and folders of them"})
    output_dir: str = field(metadata={"help": "where the wav files and the table go"})
    model: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of a codec, or of an AudioFormer with one; the bundled one by default"},
    )
    codebooks: list[int] | None = field(
        default=None, metadata={"help": "numbers of codebooks, as [1, 4]; by default 1, 2, 4, ... and all"}
    )
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, ...; the accelerator if there is one"})
    overwrite: bool = field(default=False, metadata={"help": "replace earlier results in output_dir"})


def main(argv: list[str]) -> None:
    """Runs the command; the files may be given without their name."""
    run(parse_config(ReconstructArguments, with_names(argv, rest="sources"), description=__doc__ or ""))


def run(arguments: ReconstructArguments) -> dict[int, float]:
    """Writes the files; prints and returns the mean log-mel distance by the number of codebooks.

    Raises:
        FileNotFoundError: A source does not exist.
        FileExistsError: `output_dir` holds earlier results, and `overwrite` is not set.
        ValueError: The model has no codec, the codec has not so many codebooks, or, at the end, some clips were left
            out.
    """
    files, folder = files_of(arguments.sources), Path(arguments.output_dir)
    codec, level = _load(arguments)
    counts = arguments.codebooks or _powers_of_two(codec.num_codebooks)
    claim_folder(folder, TABLE_FILE, overwrite=arguments.overwrite)
    distances: dict[int, list[float]] = defaultdict(list)
    print("codebooks      kbps  log-mel distance")
    with (folder / TABLE_FILE).open("w", encoding="utf-8", newline="", buffering=1) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "codebooks", "kbps", "log_mel_distance"])
        told = interruption_says(lambda: stopped_after(int(bar.n), len(files), [str(folder)]))
        with clip_bar("reconstruct", len(files)) as bar, told:
            for name, stem in unique_names(files).items():
                try:
                    found = _reconstruct(name, folder / stem, codec, counts, level)
                except (ValueError, OSError) as error:
                    report_left_out(name, error)
                    bar.update(1)
                    continue
                table.writerows([name, count, kbps(codec, count), distance] for count, distance in found.items())
                tqdm.write("\n".join([name, *_lines(codec, found)]))
                for count, distance in found.items():
                    distances[count].append(distance)
                bar.update(1)
    means = {count: float(np.mean(values)) for count, values in distances.items()}
    left_out = len(files) - len(next(iter(distances.values()), []))
    if len(files) - left_out > 1:
        print("\n".join([f"mean of {len(files) - left_out} clips", *_lines(codec, means)]))
    print(f"Sound and table are in {folder}")
    if left_out:
        raise ValueError(f"{left_out} of {len(files)} clips could not be reconstructed; they are named above")
    return means


def write_wav(path: Path, waveform: Tensor, sampling_rate: int) -> None:
    """Writes a waveform (samples,) as 16-bit wav; what passes full scale is clipped."""
    soundfile.write(path, waveform.clamp(-1, 1).numpy(), sampling_rate, subtype="PCM_16")


def _reconstruct(
    file: str, target: Path, codec: AudioCodec, counts: list[int], level: float | None
) -> dict[int, float]:
    """Writes the original and its round trips beside each other; their log-mel distances."""
    waveform = torch.from_numpy(load_audio(file, codec.sampling_rate)["array"])
    if not waveform.any():
        raise ValueError(f"{file}: all samples are 0; there is nothing to reconstruct")
    write_wav(Path(f"{target}.original.wav"), waveform, codec.sampling_rate)
    distances = {}
    for count, decoded in round_trips(codec, waveform, counts, level).items():
        write_wav(Path(f"{target}.{count}_codebooks.wav"), decoded, codec.sampling_rate)
        gain = level_gain(waveform, level)
        distances[count] = log_mel_distance(decoded * gain, waveform * gain, codec.sampling_rate)
    return distances


def _load(arguments: ReconstructArguments) -> tuple[AudioCodec, float | None]:
    """The codec on its device, and the level in dBFS at which clips are given to it."""
    model, device = arguments.model or assets.checkpoint_folder(), choose_device(arguments.device)
    if read_config(model, "model").model_type in SUPPORTED_CODECS:
        with quiet_transformers():
            return AudioCodec.from_pretrained(model).to(device), None
    extractor = load_extractor(model, "model")
    return extractor.load_codec(device), extractor.rms_level_dbfs


def _powers_of_two(most: int) -> list[int]:
    return sorted({most} | {2**power for power in range(most.bit_length()) if 2**power <= most})


def _lines(codec: AudioCodec, distances: dict[int, float]) -> list[str]:
    return [f"{count:9}{kbps(codec, count):10.2f}{distance:18.3f}" for count, distance in distances.items()]
