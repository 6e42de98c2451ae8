"""Generates sound from what a model of train-generation hears: clips without noise, longer ones, or with a gap filled.

    hf-audioformer generate MODEL FILES|FOLDERS ... --task denoise --output_dir DIR
    hf-audioformer generate MODEL FILES|FOLDERS ... --task continue --seconds 1 --output_dir DIR
    hf-audioformer generate MODEL FILES|FOLDERS ... --task inpaint --start 1.0 --end 1.4 --output_dir DIR

Of each clip NAME it writes NAME.wav at the codec's rate, and generated.csv says what was done. Everything is decoded
from codes, so all of it sounds as the codec does. A model can do what it was trained to do, its card says what.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from .. import AudioFormerFeatureExtractor, AudioFormerForCausalLM, AudioFormerForConditionalGeneration, load_audio
from ..checkpoint_config import read_config
from ..data.generation_dataset import Task
from ..inference.generation import generate_clips
from ..inference.loading import choose_device
from ..models.audioformer.generation_audioformer import AudioFormerGenerativeModel
from ..training.arguments import parse_config
from ..training.console import quiet_transformers
from .inputs import claim_folder, clip_bar, files_of, load_extractor, report_left_out, unique_names, with_names
from .reconstruct import write_wav

__all__ = ["GenerateArguments", "load_generator", "main", "run"]

TABLE_FILE = "generated.csv"


@dataclass(frozen=True)
class GenerateArguments:
    """All settings of the command."""

    model: str = field(metadata={"help": "folder or Hub id of a model of train-generation"})
    sources: list[str] = field(metadata={"help": "sound files, and folders of them"})
    task: Task = field(metadata={"help": "denoise, continue or inpaint"})
    output_dir: str = field(metadata={"help": "where the wav files and the table go"})
    seconds: float = field(default=1.0, metadata={"help": "what continue adds"})
    start: float | None = field(default=None, metadata={"help": "where the gap of inpaint begins, in seconds"})
    end: float | None = field(default=None, metadata={"help": "where it ends, in seconds"})
    do_sample: bool = field(default=False, metadata={"help": "draw codes instead of taking the likeliest ones"})
    temperature: float = field(default=1.0, metadata={"help": "of the draw; lower is safer and duller"})
    num_beams: int = field(default=1, metadata={"help": "so many guesses are followed side by side, if not drawn"})
    guidance_scale: float | None = field(default=None, metadata={"help": "above 1: more of what is heard"})
    seed: int = field(default=0, metadata={"help": "seed of the draw"})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, ...; the accelerator if there is one"})
    overwrite: bool = field(default=False, metadata={"help": "replace earlier results in output_dir"})

    def __post_init__(self) -> None:
        if {self.start is not None, self.end is not None} != {self.task == "inpaint"}:
            raise ValueError(f"task is {self.task}, start {self.start} and end {self.end}; inpaint alone needs both")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds is {self.seconds}; it must be above 0")
        if self.num_beams < 1:
            raise ValueError(f"num_beams is {self.num_beams}; it must be at least 1")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")
        if self.temperature != 1 and not self.do_sample:
            raise ValueError(f"temperature is {self.temperature}, and nothing is drawn; set do_sample, too")
        if self.do_sample and self.num_beams > 1:
            raise ValueError(f"num_beams is {self.num_beams} and do_sample set; choose one of them")

    @property
    def generation(self) -> dict[str, Any]:
        """What Transformers' `generate` takes."""
        settings = {"do_sample": self.do_sample, "num_beams": self.num_beams, "guidance_scale": self.guidance_scale}
        return settings | ({"temperature": self.temperature} if self.do_sample else {})


def main(argv: list[str]) -> None:
    """Runs the command; model and files may be given without their names."""
    run(parse_config(GenerateArguments, with_names(argv, "model", rest="sources"), description=__doc__ or ""))


def run(arguments: GenerateArguments) -> list[Path]:
    """Writes the files, and returns their paths.

    Raises:
        FileNotFoundError: A source or the model does not exist.
        FileExistsError: `output_dir` holds earlier results, and `overwrite` is not set.
        ValueError: The model does not generate, or not what is asked for, or, at the end, some clips were left out.
    """
    files, folder = files_of(arguments.sources), Path(arguments.output_dir)
    model, extractor = load_generator(arguments.model, arguments.device)
    if not model.config.is_encoder_decoder and (arguments.task != "continue" or arguments.guidance_scale is not None):
        raise ValueError(
            f"model is {arguments.model}, which has no encoder, task {arguments.task} and guidance_scale "
            f"{arguments.guidance_scale}; it goes on from what it is given (continue), with nothing to be guided by"
        )
    names = unique_names(files)
    claim_folder(folder, TABLE_FILE, overwrite=arguments.overwrite)
    _check_targets(names, folder, overwrite=arguments.overwrite)
    written: list[Path] = []
    with (folder / TABLE_FILE).open("w", encoding="utf-8", newline="", buffering=1) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "task", "generated", "start", "end"])
        with clip_bar("generate", len(files)) as bar:
            for name, stem in names.items():
                target = folder / f"{stem}.wav"
                try:
                    start, end = _generate(name, target, model, extractor, arguments)
                except (ValueError, OSError) as error:
                    report_left_out(name, error)
                    continue
                table.writerow([name, arguments.task, target.name, f"{start:.3f}", f"{end:.3f}"])
                tqdm.write(f"{name}: {arguments.task}, {start:.2f} to {end:.2f} s generated, in {target}")
                written.append(target)
                bar.update(1)
    if len(written) < len(files):
        raise ValueError(
            f"{len(files) - len(written)} of {len(files)} clips could not be generated from; they are named above"
        )
    return written


def _check_targets(names: Mapping[str, str], folder: Path, *, overwrite: bool) -> None:
    """Raises a FileExistsError if what is generated would replace one of the sources, or, without `overwrite`, any
    file."""
    sources = {Path(name).resolve() for name in names}
    for name, stem in names.items():
        target = folder / f"{stem}.wav"
        if target.resolve() in sources or (target.exists() and not overwrite):
            raise FileExistsError(f"{target} is there already, and {name} would replace it; name another --output_dir")


def load_generator(source: str, device: str | None) -> tuple[AudioFormerGenerativeModel, AudioFormerFeatureExtractor]:
    """A model that generates, in float32, with its feature extractor.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such model.
        ValueError: It is no AudioFormer, or does not generate.
    """
    architectures = read_config(source, "model").architectures or []
    extractor = load_extractor(source, "model")
    auto_classes: dict[str, Any] = {
        AudioFormerForConditionalGeneration.__name__: AutoModelForSeq2SeqLM,
        AudioFormerForCausalLM.__name__: AutoModelForCausalLM,
    }
    if not architectures or architectures[0] not in auto_classes:
        raise ValueError(
            f"model is {source}, a {', '.join(architectures) or 'model of unknown kind'}, which does not generate; "
            "give a model of hf-audioformer train-generation"
        )
    where = choose_device(device)
    extractor.load_codec(where)
    with quiet_transformers():
        model = auto_classes[architectures[0]].from_pretrained(source, dtype=torch.float32)
    return model.to(where).eval(), extractor


def _generate(
    name: str,
    target: Path,
    model: AudioFormerGenerativeModel,
    extractor: AudioFormerFeatureExtractor,
    arguments: GenerateArguments,
) -> tuple[float, float]:
    """Writes what is generated from a clip; from where to where that is, in seconds."""
    waveform = torch.from_numpy(load_audio(name, extractor.sampling_rate)["array"])
    if not waveform.any():
        raise ValueError(f"{name}: all samples are 0; there is nothing to generate from")
    hidden = _hidden(arguments, name, len(waveform), extractor)
    torch.manual_seed(arguments.seed)
    (generated,) = generate_clips(model, extractor, [waveform], [hidden], **arguments.generation)
    write_wav(target, generated.waveform, extractor.sampling_rate)
    if hidden.stop == hidden.start:
        return 0.0, len(waveform) / extractor.sampling_rate
    return hidden.start / extractor.frame_rate, hidden.stop / extractor.frame_rate


def _hidden(arguments: GenerateArguments, name: str, samples: int, extractor: AudioFormerFeatureExtractor) -> slice:
    """The frames that the task hides, all that it touches."""
    frames, seconds = -(-samples // extractor.hop_length), samples / extractor.sampling_rate
    if arguments.task == "continue":
        return slice(frames, frames + math.ceil(round(arguments.seconds * extractor.frame_rate, 6)))
    if arguments.start is None or arguments.end is None:
        return slice(0, 0)
    if not 0 <= arguments.start < arguments.end <= seconds:
        raise ValueError(
            f"{name}: the gap from {arguments.start} to {arguments.end} s must lie within the clip, which has "
            f"{seconds:.2f} s"
        )
    return slice(
        math.floor(round(arguments.start * extractor.frame_rate, 6)),
        min(math.ceil(round(arguments.end * extractor.frame_rate, 6)), frames),
    )
