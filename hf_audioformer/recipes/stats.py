"""Mean and standard deviation of the log-mels of clips, for the normalisation of an Audio Spectrogram Transformer.

Every frame of every clip counts once and none of padding does. Writes `preprocessor_config.json`, which both
ASTFeatureExtractor of Transformers and ASTLogMelFeatureExtractor load, and `stats.json`.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Self

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..checkpoint_config import read_config
from ..codes.encoding import check_bad_share
from ..data import ClipTable
from ..training.arguments import parse_config
from ..training.launch import check_launch
from .inputs import ReadingArguments, SubsetArguments, read, subset

__all__ = ["STATS_FILE", "Moments", "StatsArguments", "log_mel_moments", "main", "run", "shared_moments"]

logger = logging.getLogger(__name__)

STATS_FILE = "stats.json"
# Clips that one process measures before it tells the others.
CLIPS_OF_BLOCK = 16


@dataclass(frozen=True)
class StatsClips(ReadingArguments):
    """Which clips, and what is done with bad ones."""

    skip_bad: bool = field(
        default=True, metadata={"help": "leave out clips that cannot be read, up to a fifth of all, and list them"}
    )


@dataclass(frozen=True)
class StatsArguments:
    """All settings of the recipe."""

    data: StatsClips
    output_dir: str = field(metadata={"help": "where preprocessor_config.json and stats.json go"})
    split: SubsetArguments = field(default_factory=SubsetArguments)
    extractor: str | None = field(
        default=None, metadata={"help": "folder or Hub id of an AST whose other settings are kept; default: AST's own"}
    )
    overwrite: bool = field(default=False, metadata={"help": "replace earlier statistics in output_dir"})


@dataclass(frozen=True)
class Moments:
    """How many values there were, their mean, and the sum of their squared deviations from it; numbers, or arrays of
    those of several features."""

    count: int = 0
    mean: Any = 0.0
    squared_deviations: Any = 0.0

    @classmethod
    def of(cls, values: np.ndarray, axis: int | None = None) -> Self:
        """The moments of an array of any shape, of all its values or along an axis, in double precision."""
        exact = values.astype(np.float64)
        mean = exact.mean(axis=axis)
        return cls(exact.size // mean.size, mean, np.square(exact - mean).sum(axis=axis))

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both sets of values together.

        Source: Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances.
        """
        count = self.count + other.count
        if count == 0:
            return self
        distance = other.mean - self.mean
        return Moments(
            count,
            self.mean + distance * other.count / count,
            self.squared_deviations + other.squared_deviations + distance**2 * self.count * other.count / count,
        )

    @property
    def std(self) -> Any:
        """The standard deviation of the values themselves (divided by their number)."""
        return np.sqrt(self.squared_deviations / self.count)


def main(argv: list[str]) -> None:
    """Runs the recipe from a config file and command-line options."""
    run(parse_config(StatsArguments, argv, description=__doc__ or ""))


def run(arguments: StatsArguments) -> dict[str, Any]:
    """Measures the clips; returns and prints what it leaves as `stats.json` in `output_dir`.

    Raises:
        FileExistsError: `output_dir` holds a preprocessor already and `overwrite` is not set.
        ValueError: Too many clips cannot be read, or all their frames are the same.
    """
    check_launch(1)
    folder = Path(arguments.output_dir)
    if (folder / "preprocessor_config.json").exists() and not arguments.overwrite:
        raise FileExistsError(
            f"{folder} holds a preprocessor already. Replace it with --overwrite true, or name another."
        )
    clips = subset(read(arguments.data, needs_labels=False), arguments.split)
    extractor = _extractor(arguments.extractor)
    moments, failures = log_mel_moments(clips, extractor, skip_bad=arguments.data.skip_bad)
    if moments.std == 0:
        raise ValueError(f"{arguments.data.source}: all frames of the clips are the same (silence?); check the files")
    extractor.normalise_by(moments.mean, moments.std)
    report = {
        "mean": moments.mean,
        "std": moments.std,
        "frames": moments.count // extractor.num_mel_bins,
        "clips": len(clips) - len(failures),
        "clips_skipped": failures,
        "settings": asdict(arguments),
    }
    folder.mkdir(parents=True, exist_ok=True)
    extractor.save_pretrained(folder)
    (folder / STATS_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(
        f"mean {moments.mean:.7f}, std {moments.std:.7f} over {report['frames']} frames of {report['clips']} clips\n"
        f"They are in {folder / 'preprocessor_config.json'}"
    )
    return report


def log_mel_moments(
    clips: ClipTable, extractor: ASTLogMelFeatureExtractor, *, skip_bad: bool = False
) -> tuple[Moments, dict[str, str]]:
    """The moments of all log-mels of the clips, one clip in memory at a time; and why others failed, by their id.

    Raises:
        ValueError: A clip cannot be used (the message names it), or with `skip_bad` more than a fifth of them cannot.
    """
    moments = Moments()
    failures: dict[str, str] = {}
    for index, clip_id in enumerate(tqdm(clips.ids, desc="stats", unit="clip", dynamic_ncols=True)):
        try:
            audio = clips.load(index)
            (log_mel,) = extractor.log_mels(audio["array"], audio["sampling_rate"])
        except (ValueError, OSError) as error:
            reason = str(error) if clip_id in str(error) else f"{clip_id}: {error}"
            if not skip_bad:
                raise ValueError(f"{reason} (--data.skip_bad true leaves such clips out)") from error
            failures[clip_id] = reason
            continue
        moments = moments.merged(Moments.of(log_mel.numpy()))
    for reason in failures.values():
        logger.warning("left out: %s", reason)
    check_bad_share(failures, len(clips))
    return moments, failures


def shared_moments(count: int, measure: Callable[[int], Moments]) -> Moments:
    """The moments of so many clips, each measured once with a progress bar; processes that train together take a share
    each, so all of them must call this. The result is the same to the last bit whatever their number."""
    state = PartialState()
    starts = range(0, count, CLIPS_OF_BLOCK)[state.process_index :: state.num_processes]
    blocks: dict[int, Moments] = {}
    shown = {"unit": "clip", "unit_scale": CLIPS_OF_BLOCK * state.num_processes, "disable": not state.is_main_process}
    for start in tqdm(starts, desc="stats", dynamic_ncols=True, delay=2, **shown):
        moments = Moments()
        for index in range(start, min(count, start + CLIPS_OF_BLOCK)):
            moments = moments.merged(measure(index))
        blocks[start] = moments
    for of_process in gather_object([blocks]):
        blocks |= of_process
    return reduce(Moments.merged, (blocks[start] for start in sorted(blocks)), Moments())


def _extractor(source: str | None) -> ASTLogMelFeatureExtractor:
    """That of a checkpoint, or with the settings of AST.

    Raises:
        ValueError: The checkpoint holds another model.
    """
    if source is None:
        return ASTLogMelFeatureExtractor()
    if not (Path(source) / FEATURE_EXTRACTOR_NAME).is_file():  # a folder of `stats` holds nothing else
        read_config(source, "extractor")
    kind = ASTLogMelFeatureExtractor.get_feature_extractor_dict(source)[0].get("feature_extractor_type")
    if kind != "ASTFeatureExtractor":
        raise ValueError(f"extractor is {source}, which holds a {kind}; an AST's is needed, an ASTFeatureExtractor")
    return ASTLogMelFeatureExtractor.from_pretrained(source)
