"""How near what a model generates comes to the clips themselves, measured and written as wav files."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import AudioFormerFeatureExtractor
from ..audio import Audio
from ..audio.distortion import si_sdr_db
from ..audio.log_mel import log_mel_distance
from ..data.generation_dataset import Task, draw_hidden
from ..draws import generator_of
from ..inference.generation import Generated, generate_clips
from ..inference.listening import level_gain, round_trips
from ..models.audioformer.generation_audioformer import AudioFormerGenerativeModel
from ..models.audioformer.waveform_audioformer import resample
from .inputs import unique_names
from .reconstruct import write_wav

__all__ = ["ExampleClip", "format_generation", "measure_generation"]

BATCH_SIZE = 8
HEADER = "| task | sound | log-mel distance | SI-SDR in dB |\n| --- | --- | --- | --- |"


@dataclass(frozen=True)
class ExampleClip:
    """A clip as it is to be, and as it is heard before anything is hidden."""

    name: str
    clean: Audio
    heard: Audio


@dataclass(frozen=True)
class _Task:
    """A clip at the extractor's rate, (samples,) each, and the frames that are not heard."""

    name: str
    clean: Tensor
    heard: Tensor
    hidden: slice


def measure_generation(
    task: Task,
    model: AudioFormerGenerativeModel,
    extractor: AudioFormerFeatureExtractor,
    clips: Sequence[ExampleClip],
    *,
    folder: Path,
    examples: int,
    seed: int = 0,
    **settings: Any,
) -> dict[str, dict[str, float]]:
    """Means over the clips of `log_mel_distance` and `si_sdr_db` to the clean clip, of what is heard, left of it
    by the codec (`heard_codec`), generated, and left of the clean clip by the codec (`codec`). Where something is
    hidden they are taken over that stretch, where silence is heard.

    Args:
        model: In evaluation mode.
        folder: Gets the wav files of the first `examples` clips.
        seed: Of what is hidden, and of samples.
        settings: Of Transformers' `generate`.
    """
    tasks = [_task(task, clip, extractor, generator_of(seed, 0, index)) for index, clip in enumerate(clips)]
    names = iter(unique_names([clip.name for clip in tasks]).values())
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ("log_mel_distance", "si_sdr_db")}
    folder.mkdir(exist_ok=True)
    with torch.random.fork_rng(), tqdm(total=len(tasks), desc=task, unit="clip", dynamic_ncols=True) as bar:
        torch.manual_seed(seed)
        for start in range(0, len(tasks), BATCH_SIZE):
            batch = tasks[start : start + BATCH_SIZE]
            heard, hidden = [clip.heard for clip in batch], [clip.hidden for clip in batch]
            found_clips = generate_clips(model, extractor, heard, hidden, **settings)
            for clip, name, generated in zip(batch, names, found_clips, strict=False):
                sounds = _sounds(clip, generated, extractor)
                if bar.n < examples:
                    for kind, sound in ({"clean": clip.clean} | sounds).items():
                        write_wav(folder / f"{name}.{task}.{kind}.wav", sound, extractor.sampling_rate)
                stretch = _stretch(clip, extractor.hop_length)
                for kind, sound in sounds.items():
                    pair = sound[stretch], clip.clean[stretch]
                    found["log_mel_distance"][kind].append(log_mel_distance(*pair, extractor.sampling_rate))
                    found["si_sdr_db"][kind].append(si_sdr_db(*pair))
                bar.update(1)
    return {measure: {kind: _mean(values) for kind, values in of.items()} for measure, of in found.items()}


def format_generation(tasks: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A table of the measures of each task."""
    rows = [HEADER]
    for task, measures in tasks.items():
        for kind, distance in measures["log_mel_distance"].items():
            ratio = measures["si_sdr_db"][kind]
            shown = "-" if ratio is None or np.isnan(ratio) else f"{ratio:.1f}"
            rows.append(f"| {task} | {kind} | {distance:.2f} | {shown} |")
    return "\n".join(rows)


def _task(task: Task, clip: ExampleClip, extractor: AudioFormerFeatureExtractor, random: np.random.Generator) -> _Task:
    clean, heard = (
        resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], extractor.sampling_rate)
        for audio in (clip.clean, clip.heard)
    )
    frames = -(-len(heard) // extractor.hop_length)
    return _Task(clip.name, clean, heard, draw_hidden(task, frames, random))


def _sounds(clip: _Task, generated: Generated, extractor: AudioFormerFeatureExtractor) -> dict[str, Tensor]:
    """What is compared with the clean clip, (samples,) each, at its level."""
    gain = partial(level_gain, rms_level_dbfs=extractor.rms_level_dbfs)
    count = extractor.num_codebooks
    sounds = {"heard": clip.heard}
    if clip.hidden.stop == clip.hidden.start:
        sounds["heard_codec"] = generated.round_trip
    else:
        sounds["heard"] = clip.heard.clone()
        sounds["heard"][_stretch(clip, extractor.hop_length)] = 0
    # The model gives clean clips the level that it learnt them at, whatever the noise had.
    sounds["generated"] = generated.waveform * (gain(clip.heard) / gain(clip.clean))
    codec = extractor.load_codec()
    return sounds | {"codec": round_trips(codec, clip.clean, [count], extractor.rms_level_dbfs)[count]}


def _stretch(clip: _Task, hop_length: int) -> slice:
    """The samples that are hidden, or all of them."""
    if clip.hidden.stop == clip.hidden.start:
        return slice(0, len(clip.clean))
    return slice(clip.hidden.start * hop_length, min(clip.hidden.stop * hop_length, len(clip.clean)))


def _mean(values: Sequence[float]) -> float:
    """Of those that are defined: silence has no ratio."""
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")
