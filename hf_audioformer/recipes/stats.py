"""Mean and standard deviation of the log-mels of clips, for the normalisation of an Audio Spectrogram Transformer.

Every frame of every clip counts once and none of padding does. Writes `preprocessor_config.json`, which both
ASTFeatureExtractor of Transformers and ASTLogMelFeatureExtractor load, and `stats.json`.
"""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..checkpoint_config import read_config
from ..codes.encoding import check_bad_share
from ..data import ClipTable
from ..data.running_statistics import RunningStatistics
from ..training.arguments import parse_config
from ..training.launch import check_launch
from .inputs import ReadingArguments, SubsetArguments, read, subset

__all__ = ["STATS_FILE", "StatsArguments", "log_mel_statistics", "main", "run"]

logger = logging.getLogger(__name__)

STATS_FILE = "stats.json"


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
    found, failures = log_mel_statistics(clips, extractor, skip_bad=arguments.data.skip_bad)
    if found.std == 0:
        raise ValueError(f"{arguments.data.source}: all frames of the clips are the same (silence?); check the files")
    extractor.normalise_by(found.mean, found.std)
    report = {
        "mean": found.mean,
        "std": found.std,
        "frames": found.count // extractor.num_mel_bins,
        "clips": len(clips) - len(failures),
        "clips_skipped": failures,
        "settings": asdict(arguments),
    }
    folder.mkdir(parents=True, exist_ok=True)
    extractor.save_pretrained(folder)
    (folder / STATS_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(
        f"mean {found.mean:.7f}, std {found.std:.7f} over {report['frames']} frames of {report['clips']} clips\n"
        f"They are in {folder / 'preprocessor_config.json'}"
    )
    return report


def log_mel_statistics(
    clips: ClipTable, extractor: ASTLogMelFeatureExtractor, *, skip_bad: bool = False
) -> tuple[RunningStatistics, dict[str, str]]:
    """The statistics of all log-mels of the clips, one clip in memory at a time; and why others failed, by their id.

    Raises:
        ValueError: A clip cannot be used (the message names it), or with `skip_bad` more than a fifth of them cannot.
    """
    found = RunningStatistics()
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
        found = found.merged(RunningStatistics.of(log_mel.numpy()))
    for reason in failures.values():
        logger.warning("left out: %s", reason)
    check_bad_share(failures, len(clips))
    return found, failures


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
