"""Fills a gap in a clip: a masked language model guesses the codes of a stretch that it does not hear.

    hf-audioformer infill CLIP --start 1.0 --end 1.4 --output filled.wav [--seed 1]

The surest frames are filled first, and help with the next (MaskGIT). Another seed fills it otherwise; temperature 0
takes the likeliest codes. The whole clip is decoded from codes, so all of it sounds as the codec does; how near the
stretch came to what was there is printed as log-mel distance, beside that of silence and of repeating what came before.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from .. import AudioFormerFeatureExtractor, AudioFormerForMaskedLM, assets, load_audio
from ..audio.log_mel import log_mel_distance
from ..checkpoint_config import read_config
from ..inference.listening import Infilled, infill
from ..inference.loading import choose_device
from ..training.arguments import parse_config
from ..training.console import quiet_transformers
from .inputs import check_free, load_extractor, with_names
from .reconstruct import write_wav

__all__ = ["InfillArguments", "load_masked_lm", "main", "run"]


@dataclass(frozen=True)
class InfillArguments:
    """All settings of the command."""

    clip: str = field(metadata={"help": "a sound file"})
    start: float = field(metadata={"help": "where the gap begins, in seconds"})
    end: float = field(metadata={"help": "where it ends, in seconds"})
    output: str = field(metadata={"help": "wav file for the filled clip"})
    model: str | None = field(
        default=None,
        metadata={
            "help": "folder or Hub id of an AudioFormer pretrained by masked modelling; the bundled one by default"
        },
    )
    steps: int = field(default=12, metadata={"help": "in how many steps it is filled"})
    temperature: float = field(default=1.0, metadata={"help": "of the draw; lower is safer and duller, 0 no chance"})
    seed: int = field(default=0, metadata={"help": "seed of the draw"})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, ...; the accelerator if there is one"})
    overwrite: bool = field(default=False, metadata={"help": "replace the file of output"})


def main(argv: list[str]) -> None:
    """Runs the command; CLIP may be given without its name."""
    run(parse_config(InfillArguments, with_names(argv, "clip"), description=__doc__ or ""))


def run(arguments: InfillArguments) -> Infilled:
    """Writes the filled clip, and prints how near it came.

    Raises:
        FileNotFoundError: The clip does not exist.
        FileExistsError: `output` exists, and `overwrite` is not set.
        ValueError: The gap does not lie within the clip, or the model predicts no masked codes.
    """
    output = Path(arguments.output)
    check_free(output, overwrite=arguments.overwrite)
    model, extractor = load_masked_lm(arguments.model, arguments.device)
    waveform = torch.from_numpy(load_audio(arguments.clip, extractor.sampling_rate)["array"])
    frames = (arguments.end - arguments.start) * extractor.frame_rate
    with tqdm(desc="fill", unit="frame", total=round(frames), dynamic_ncols=True) as bar:
        filled = infill(
            model,
            extractor,
            waveform,
            arguments.start,
            arguments.end,
            steps=arguments.steps,
            temperature=arguments.temperature,
            seed=arguments.seed,
            on_step=bar.update,
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_wav(output, filled.waveform, extractor.sampling_rate)
    print(_summary(filled, extractor, output))
    return filled


def load_masked_lm(
    source: str | None, device: str | None
) -> tuple[AudioFormerForMaskedLM, AudioFormerFeatureExtractor]:
    """A masked language model in float32, ready to predict, with its feature extractor; the bundled one if none is
    named.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such model.
        ValueError: It is no AudioFormer, or lacks the head that predicts masked codes.
    """
    source, where = source or assets.checkpoint_folder(), choose_device(device)
    read_config(source, "model")
    extractor = load_extractor(source, "model")
    extractor.load_codec(where)
    loaded: Any
    with quiet_transformers():
        loaded = AudioFormerForMaskedLM.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    model, info = loaded
    if info["missing_keys"]:
        raise ValueError(
            f"model is {source}, which cannot predict masked codes (missing {sorted(info['missing_keys'])[0]}); give a "
            "checkpoint of hf-audioformer pretrain"
        )
    return model.to(where).eval(), extractor


def _summary(filled: Infilled, extractor: AudioFormerFeatureExtractor, output: Path) -> str:
    rate = extractor.sampling_rate
    start, end = (round(seconds * rate) for seconds in (filled.start_seconds, filled.end_seconds))
    was = filled.round_trip[start:end]
    others = {"": filled.waveform[start:end], "silence": torch.zeros_like(was)}
    if end <= 2 * start:
        others["what came before, repeated"] = filled.round_trip[2 * start - end : start]
    if not was.any():
        return f"filled {filled.start_seconds:.2f} to {filled.end_seconds:.2f} s, where there was silence\n{output}"
    distance, *floors = (f"{name} {log_mel_distance(sound, was, rate):.2f}" for name, sound in others.items())
    return (
        f"filled {filled.start_seconds:.2f} to {filled.end_seconds:.2f} s; log-mel distance to the codec's round trip "
        f"of what was there{distance} ({'; '.join(floors)})\n{output}"
    )
