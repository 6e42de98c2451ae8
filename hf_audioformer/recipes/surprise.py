"""Where a clip surprises a masked language model: a score for what does not belong there.

    hf-audioformer surprise FILES|FOLDERS ... --output_dir DIR

The surprise of a frame is the negative log-probability, in nats, of its codes when the model does not hear it. Of each
clip NAME it writes NAME.csv, with the seconds at which each frame begins, the surprise (mean over codebooks) and that
of each codebook, and NAME.png, which shows it under the spectrogram. The screen lists the half seconds that surprise
most.
"""

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from .. import AudioFormerFeatureExtractor, AudioFormerForMaskedLM, load_audio
from ..audio import Audio
from ..inference.front_end import DEFAULT_WINDOW_SECONDS
from ..inference.listening import surprise_track
from ..inference.masked_codes import GAP_FRAMES, SPAN_FRAMES
from ..inspection.surprise_plot import surprise_figure
from ..models.audioformer.waveform_audioformer import resample
from ..training.arguments import parse_config
from .infill import load_masked_lm
from .inputs import (
    claim_folder,
    clip_bar,
    files_of,
    interruption_says,
    report_left_out,
    stopped_after,
    unique_names,
    with_names,
)

__all__ = ["SurpriseArguments", "main", "run"]

SUMMARY_FILE = "surprise.csv"
STRETCH_SECONDS = 0.5


@dataclass(frozen=True)
class SurpriseArguments:
    """All settings of the command."""

    sources: list[str] = field(metadata={"help": "sound files, and folders of them"})
    output_dir: str = field(metadata={"help": "where the tables and figures go"})
    model: str | None = field(
        default=None,
        metadata={
            "help": "folder or Hub id of an AudioFormer pretrained by masked modelling; the bundled one by default"
        },
    )
    span: int = field(
        default=SPAN_FRAMES, metadata={"help": "frames hidden together; one alone is easily guessed from the next"}
    )
    gap: int = field(
        default=GAP_FRAMES, metadata={"help": "frames between hidden spans; longer hides less at once, and is slower"}
    )
    window: float = field(
        default=DEFAULT_WINDOW_SECONDS, metadata={"help": "longer clips are heard in windows of so many seconds"}
    )
    top: int = field(default=3, metadata={"help": "how many half seconds of each clip to list"})
    batch_size: int = field(default=4, metadata={"help": "passes computed together; changes nothing but speed"})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, ...; the accelerator if there is one"})
    overwrite: bool = field(default=False, metadata={"help": "replace earlier results in output_dir"})

    def __post_init__(self) -> None:
        if self.top < 1 or self.batch_size < 1:
            raise ValueError(f"top and batch_size must be at least 1, found {self.top} and {self.batch_size}")


def main(argv: list[str]) -> None:
    """Runs the command; the files may be given without their name."""
    run(parse_config(SurpriseArguments, with_names(argv, rest="sources"), description=__doc__ or ""))


def run(arguments: SurpriseArguments) -> None:
    """Writes a table and a figure of each clip, and `surprise.csv` with the mean of each.

    Raises:
        FileNotFoundError: A source does not exist.
        FileExistsError: `output_dir` holds earlier results, and `overwrite` is not set.
        ValueError: The model predicts no masked codes, a setting is out of range, or, at the end, some clips were left
            out.
    """
    files, folder = files_of(arguments.sources), Path(arguments.output_dir)
    model, extractor = load_masked_lm(arguments.model, arguments.device)
    claim_folder(folder, SUMMARY_FILE, overwrite=arguments.overwrite)
    failures = 0
    with (folder / SUMMARY_FILE).open("w", encoding="utf-8", newline="", buffering=1) as file:
        summary = csv.writer(file, lineterminator="\n")
        summary.writerow(["file", "seconds", "surprise"])
        told = interruption_says(lambda: stopped_after(int(bar.n), len(files), [str(folder)]))
        with clip_bar("surprise", len(files)) as bar, told:
            names = unique_names(files, taken=Path(SUMMARY_FILE).stem)
            for done, (name, stem) in enumerate(names.items(), start=1):
                try:
                    audio = load_audio(name)
                    starts, nats = _heard(audio, model, extractor, arguments, bar)
                    title = f"{Path(name).name}: what surprises the model"
                    figure = surprise_figure(audio, nats, extractor.frame_rate, extractor.codebook_size, title)
                except (ValueError, OSError) as error:
                    failures += 1
                    report_left_out(name, error)
                    bar.update(done - bar.n)
                    continue
                _write(folder / stem, starts, nats)
                figure.savefig(folder / f"{stem}.png")
                seconds = len(audio["array"]) / audio["sampling_rate"]
                summary.writerow([name, seconds, float(nats.mean())])
                tqdm.write(
                    "\n".join([f"{name}  mean {nats.mean():.2f} nats", *_lines(starts, nats, seconds, arguments.top)])
                )
    print(f"Tables and figures are in {folder}")
    if failures:
        raise ValueError(f"{failures} of {len(files)} clips could not be used; they are named above")


def _heard(
    audio: Audio,
    model: AudioFormerForMaskedLM,
    extractor: AudioFormerFeatureExtractor,
    arguments: SurpriseArguments,
    bar: tqdm,
) -> tuple[np.ndarray, np.ndarray]:
    waveform = resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], extractor.sampling_rate)
    return surprise_track(
        model,
        extractor,
        waveform,
        window_seconds=arguments.window,
        heard=bar.update,
        span_frames=arguments.span,
        gap_frames=arguments.gap,
        batch_size=arguments.batch_size,
    )


def _write(target: Path, starts: np.ndarray, nats: np.ndarray) -> None:
    with Path(f"{target}.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["start_seconds", "surprise", *(f"codebook_{index}" for index in range(nats.shape[1]))])
        rows.writerows(
            [round(start, 6), float(of_frame.mean()), *of_frame.tolist()]
            for start, of_frame in zip(starts.tolist(), nats, strict=True)
        )


def _lines(starts: np.ndarray, nats: np.ndarray, seconds: float, count: int) -> list[str]:
    """The half seconds of highest mean surprise, the highest first; less than a tenth of one at the end of the clip
    belongs to the one before."""
    stretches = (starts / STRETCH_SECONDS).astype(int).clip(max=max(0, math.ceil(seconds / STRETCH_SECONDS - 0.1) - 1))
    means = np.bincount(stretches, nats.mean(axis=1)) / np.bincount(stretches)
    best = np.argsort(-means, kind="stable")[:count]
    return [
        f"{place * STRETCH_SECONDS:10.2f} to {_end(place, len(means), seconds):.2f} s  {means[place]:.2f} nats"
        for place in best.tolist()
    ]


def _end(place: int, count: int, seconds: float) -> float:
    return seconds if place == count - 1 else (place + 1) * STRETCH_SECONDS
