"""Encoding a data set once: shards of codes with a manifest, which training takes in place of sound.

The same command goes on where an earlier one was stopped or killed; shards that are whole are kept.
"""

import copy
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from .. import AudioFormerFeatureExtractor, AudioFormerModel, assets
from ..audio.augment import AudioAugmentation
from ..checkpoint_config import read_config
from ..codes.companions import companion_vectors, load_companions, num_codebooks_read
from ..codes.encoding import MAX_BAD_SHARE, check_bad_share, encode_each
from ..codes.store import (
    OWN_COLUMNS,
    CodeRow,
    Failure,
    Manifest,
    StorePlan,
    code_settings,
    failures_of,
    is_finished,
    locked,
    missing_shards,
    read_manifest,
    read_plan,
    remove_leftovers,
    write_manifest,
    write_plan,
    write_report,
    write_shard,
)
from ..data import ClipTable
from ..data.clip_codes import version_loader
from ..data.known_sets import KNOWN_SETS
from ..models.audioformer.codec_audioformer import fingerprint
from ..training.arguments import dump_config, parse_config
from ..training.console import quiet_transformers
from ..training.output import check_output, check_same, prepare_output
from .inputs import ReadingArguments, load_extractor, read

__all__ = [
    "ClusterArguments",
    "CodecArguments",
    "EncodeArguments",
    "EncodeJob",
    "finish",
    "how_to_go_on",
    "main",
    "run",
]

logger = logging.getLogger(__name__)

# The default size of shards: small sets get this many, so that a restart has little to do again and tasks share the
# work; large sets get shards of this many clips.
USUAL_SHARDS = 16
MOST_SHARD_CLIPS = 1000
# Clips whose length is looked at to estimate the disk that is needed, and what a row takes beside its codes.
SAMPLED_CLIPS = 16
ROW_BYTES = 200


@dataclass(frozen=True)
class CodecArguments:
    """Whose codes are stored."""

    checkpoint: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of an AudioFormer, whose codec and level are taken; the bundled one"},
    )
    name: str | None = field(default=None, metadata={"help": "folder or Hub id of a codec, in place of a checkpoint"})
    revision: str | None = field(default=None, metadata={"help": "revision of that codec on the Hub"})
    num_codebooks: int | None = field(
        default=None, metadata={"help": "codebooks stored, by default all; a model of n codebooks reads the first n"}
    )
    rms_level_dbfs: float | None = field(
        default=None, metadata={"help": "level every clip is brought to before encoding; by default the checkpoint's"}
    )
    max_length_seconds: float | None = field(default=None, metadata={"help": "cut longer clips at the end"})


@dataclass(frozen=True)
class ClusterArguments:
    """What a task gets on a cluster (slurm, ray)."""

    cpus_per_task: int = field(default=1, metadata={"help": "processors of a task, and threads of its codec"})
    mem_per_cpu_gb: int = field(default=4, metadata={"help": "memory per processor in GB"})
    gpus_per_task: int = field(default=0, metadata={"help": "GPUs of a task"})
    partition: str | None = field(default=None, metadata={"help": "slurm: the partition, required"})
    time: str = field(default="24:00:00", metadata={"help": "slurm: time limit of a job"})
    setup: str | None = field(
        default=None, metadata={"help": "slurm: shell commands before a job; by default this Python is put on its PATH"}
    )
    sbatch: dict[str, str] = field(default_factory=dict, metadata={"help": "slurm: further options of sbatch, by name"})


@dataclass(frozen=True)
class EncodeArguments:
    """All settings of the recipe."""

    data: ReadingArguments
    output_dir: str = field(metadata={"help": "the folder of the code store"})
    codec: CodecArguments = field(default_factory=CodecArguments)
    augmentation: AudioAugmentation = field(default_factory=AudioAugmentation)
    seed: int = field(default=0, metadata={"help": "seed of the changed copies"})
    companions: list[str] = field(
        default_factory=list,
        metadata={"help": "folders of networks of one codebook each, whose vectors of each clip are stored too"},
    )
    shard_clips: int | None = field(
        default=None, metadata={"help": "clips per shard; by default a sixteenth of all, at most 1000"}
    )
    max_bad_share: float = field(default=MAX_BAD_SHARE, metadata={"help": "stop if more of the clips cannot be used"})
    device: str | None = field(default=None, metadata={"help": "where the codec runs; an accelerator if there is one"})
    batch_size: int | None = field(default=None, metadata={"help": "clips encoded together; 1 on a CPU, 32 elsewhere"})
    executor: Literal["local", "slurm", "ray"] | None = field(
        default=None, metadata={"help": "many workers through datatrove (the extra `encode`); by default one process"}
    )
    tasks: int = field(default=1, metadata={"help": "with an executor: tasks the shards are divided among"})
    workers: int | None = field(default=None, metadata={"help": "with an executor: tasks at a time; by default all"})
    cluster: ClusterArguments = field(default_factory=ClusterArguments)
    dry_run: bool = field(default=False, metadata={"help": "slurm: show what would be submitted, and submit nothing"})
    overwrite: bool = field(default=False, metadata={"help": "delete what is in output_dir"})


# Settings that change nothing in the shards: a restart may have others.
_FREE: dict[str, Any] = {
    **{"max_bad_share": MAX_BAD_SHARE, "device": None, "batch_size": None, "overwrite": False},
    **{"executor": None, "tasks": 1, "workers": None, "cluster": ClusterArguments(), "dry_run": False},
}


def main(argv: list[str]) -> None:
    """Runs the recipe from a config file and command-line options."""
    arguments = parse_config(EncodeArguments, argv, description=__doc__ or "")
    try:
        run(arguments)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {how_to_go_on(arguments)} goes on, the shards in {arguments.output_dir} are kept"
        ) from None


def how_to_go_on(arguments: EncodeArguments) -> str:
    """Which command goes on where this one stopped."""
    return "the same command without --overwrite" if arguments.overwrite else "the same command"


def run(arguments: EncodeArguments) -> Manifest | None:
    """Encodes what is missing in `output_dir` and returns the manifest; None where jobs were submitted that go on.

    Raises:
        BlockingIOError: Another process is encoding into `output_dir`.
        FileExistsError: `output_dir` holds something that is not a code store.
        OSError: The disk is too small, or full.
        ValueError: The store was begun with other settings or another codec, too many clips cannot be used, or the
            settings do not fit; the message says what to change.
    """
    _check_executor(arguments)
    if arguments.augmentation.mixup > 0:
        raise ValueError(
            "augmentation.mixup mixes training clips with each other, and a store does not know which those will be: "
            "leave it at 0 here, or train from sound."
        )
    folder = Path(arguments.output_dir)
    recipe = dump_config(replace(arguments, **_FREE))
    with locked(folder):
        check_output(arguments.output_dir, recipe, resume=not arguments.overwrite, overwrite=arguments.overwrite)
        job = EncodeJob.open(arguments)
        earlier = None if arguments.overwrite else read_plan(folder)
        if earlier is not None:
            check_same(asdict(earlier), asdict(job.plan), folder)
        todo = list(range(job.plan.num_shards)) if earlier is None else missing_shards(folder, job.plan)
        if earlier is not None and not todo and is_finished(folder):
            print(f"The codes in {folder} are complete.")
            return read_manifest(folder)
        _check_disk(job, todo)
        if earlier is None or not arguments.dry_run:
            prepare_output(arguments.output_dir, recipe, resume=not arguments.overwrite, overwrite=arguments.overwrite)
            write_plan(folder, job.plan)
            remove_leftovers(folder)
        if arguments.executor is None:
            _encode_here(job, todo)
        elif not _launch(arguments, job.plan):
            return None
        return finish(job)


class EncodeJob:
    """The clips and the codec of a run, and the plan of its store.

    Args:
        rank: Of the task; several tasks on a machine with several accelerators take turns at them.
    """

    def __init__(
        self, arguments: EncodeArguments, clips: ClipTable, extractor: AudioFormerFeatureExtractor, rank: int = 0
    ):
        self.arguments = arguments
        self.clips = clips
        self.extractor = extractor
        self.device = _device(arguments.device, rank)
        self.companions = _load_companions(arguments.companions, extractor)
        columns = _kept_columns(clips)
        self.columns = clips.table.select_columns(columns)
        self.plan = StorePlan(
            source=_located(arguments.data.source),
            clips=len(clips),
            clips_sha256=_checksum(self.columns[name][:] for name in columns),
            label_names=list(clips.label_names),
            multi_label=clips.multi_label,
            codec=_located(str(extractor.codec)),
            codec_revision=extractor.codec_revision,
            settings=code_settings(extractor),
            num_codebooks=extractor.num_codebooks,
            augmentation=json.loads(json.dumps(asdict(arguments.augmentation))),  # ranges as lists, as in the file
            seed=arguments.seed,
            companions=dict(zip(arguments.companions, map(fingerprint, self.companions), strict=True)),
            companion_size=self.companions[0].config.hidden_size if self.companions else 0,
            shard_clips=_shard_clips(arguments.shard_clips, len(clips)),
        )

    @classmethod
    def open(cls, arguments: EncodeArguments, rank: int = 0) -> "EncodeJob":
        """Reads the clips and loads the codec.

        Raises:
            ValueError: The source is itself a code store, or the codec lacks the codebooks.
        """
        extractor = _load_extractor(arguments.codec)
        clips = read(arguments.data, needs_labels=False, missing_share=arguments.max_bad_share)
        if clips.codes is not None:
            raise ValueError(f"data.source is {arguments.data.source}, a code store; give what it was encoded from.")
        return cls(arguments, clips, extractor, rank)

    def encode(self, shard: int, on_clip: Callable[[float], None]) -> tuple[list[CodeRow], list[Failure]]:
        """The rows of a shard, and what could not be encoded; `on_clip` is told the seconds of each version done."""
        rows: list[CodeRow] = []
        failures: list[Failure] = []
        readable: Iterable[int] = self.plan.clips_of(shard)
        for number in range(self.plan.num_copies + 1):
            load = version_loader(self.clips, self.arguments.augmentation, self.plan.seed, number)
            for index, result in encode_each(
                load, readable, self.extractor, device=self.device, batch_size=self.arguments.batch_size
            ):
                if isinstance(result, Exception):
                    failures.append(Failure(self.clips.ids[index], self._path(index), number, str(result)))
                else:
                    rows.append(CodeRow(index, number, result.reshape(len(result), -1)))
                on_clip(0.0 if isinstance(result, Exception) else len(result) / self.extractor.frame_rate)
            readable = [row.clip for row in rows if row.copy == 0]
        return sorted(self._with_companions(rows), key=lambda row: (row.clip, row.copy)), failures

    def _with_companions(self, rows: list[CodeRow]) -> list[CodeRow]:
        """The rows with the vectors of their whole clips, BOA and EOA included."""
        if not self.companions:
            return rows
        framed = copy.copy(self.extractor)
        framed.add_boundary_tokens = True
        ids = [framed.tokens(row.codes).reshape(len(row.codes) + 2, -1) for row in rows]
        vectors = companion_vectors(self.companions, ids, self.device)
        return [row._replace(companions=vector) for row, vector in zip(rows, vectors, strict=True)]

    def write(self, shard: int, rows: list[CodeRow], failures: list[Failure]) -> None:
        """Writes a shard into the store."""
        columns = self.columns.select(self.plan.clips_of(shard))
        write_shard(self.arguments.output_dir, self.plan, shard, columns, rows, failures)

    def _path(self, index: int) -> str:
        """The file of a clip, as far as it has one."""
        if "audio" not in self.clips.table.column_names:
            return ""
        return self.clips.table[index]["audio"]["path"] or ""


def finish(job: EncodeJob) -> Manifest:
    """Ends a store whose shards are all there: checks the share of bad clips, writes report and manifest.

    Raises:
        ValueError: Too many clips could not be encoded, or a shard is damaged.
    """
    folder, plan = job.arguments.output_dir, job.plan
    failures = [failure for shard in range(plan.num_shards) for failure in failures_of(folder, plan, shard)]
    write_report(folder, failures)
    _check_bad_share(job, failures)
    manifest = write_manifest(folder, plan, job.device, failures)
    size = sum(Path(folder, shard["file"]).stat().st_size for shard in manifest.shards)
    if failures:
        print(f"{manifest.skipped} clips were left out, {len(failures)} versions in all: {Path(folder, 'report.csv')}")
    print(
        f"{manifest.rows} rows of codes of {plan.clips - manifest.skipped} clips ({manifest.seconds / 3600:.2f} h), "
        f"{_megabytes(size)} in {plan.num_shards} shards, are in {folder}"
    )
    return manifest


def _encode_here(job: EncodeJob, todo: list[int]) -> None:
    """Encodes shards one after the other in this process."""
    plan, folder = job.plan, job.arguments.output_dir
    done = set(range(plan.num_shards)) - set(todo)
    failures = [failure for shard in sorted(done) for failure in failures_of(folder, plan, shard)]
    versions = plan.num_copies + 1
    finished = sum(len(plan.clips_of(shard)) for shard in done)
    with _bar(total=plan.clips * versions, initial=finished * versions) as on_clip:
        for shard in todo:
            rows, bad = job.encode(shard, on_clip)
            job.write(shard, rows, bad)
            failures += bad
            _check_bad_share(job, failures)


def _check_bad_share(job: EncodeJob, failures: list[Failure]) -> None:
    try:
        check_bad_share({bad.id: bad.reason for bad in failures}, job.plan.clips, job.arguments.max_bad_share)
    except ValueError as error:
        raise ValueError(
            f"{error} Repair them and use --overwrite true, or raise --max_bad_share, without --overwrite, to go on."
        ) from error


def _check_executor(arguments: EncodeArguments) -> None:
    """Refuses settings of executors that have no meaning where they stand."""
    if arguments.tasks < 1 or (arguments.workers is not None and arguments.workers < 1):
        raise ValueError(f"tasks is {arguments.tasks} and workers {arguments.workers}; both must be at least 1.")
    if arguments.executor is None and (arguments.tasks > 1 or arguments.workers is not None):
        raise ValueError("tasks and workers need an executor: --executor local, slurm or ray.")
    if arguments.dry_run and arguments.executor != "slurm":
        raise ValueError("dry_run shows what --executor slurm would submit; nothing else has it.")
    if arguments.dry_run and arguments.overwrite:
        raise ValueError(
            "dry_run changes nothing in a store, and overwrite would empty it: leave one of the two out, or name "
            "another --output_dir."
        )
    if arguments.executor == "slurm" and arguments.cluster.partition is None:
        raise ValueError("--executor slurm needs --cluster.partition; `sinfo` lists the partitions.")


def _launch(arguments: EncodeArguments, plan: StorePlan) -> bool:
    """Runs the tasks on an engine; whether all shards are there now.

    Raises:
        ImportError: datatrove is not installed.
    """
    try:
        from .encode_engine import launch
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "datatrove":
            raise  # something else that datatrove or we lack
        raise ImportError(
            f"--executor {arguments.executor} needs datatrove: pip install 'hf_audioformer[encode]'"
        ) from error
    return launch(arguments, plan)


def _load_extractor(arguments: CodecArguments) -> AudioFormerFeatureExtractor:
    """The feature extractor that gives codes as they are stored: of all codebooks asked for, without BOA and EOA."""
    if arguments.name is None:
        if arguments.revision is not None:
            raise ValueError("codec.revision belongs to a codec: give its Hub id as codec.name.")
        checkpoint = arguments.checkpoint or assets.checkpoint_folder()
        extractor = load_extractor(checkpoint, "codec.checkpoint")
    elif arguments.checkpoint is not None:
        raise ValueError("codec.checkpoint and codec.name are both given; the codec comes from one of them.")
    else:
        read_config(arguments.name, "codec.name", arguments.revision)
        with quiet_transformers():
            extractor = AudioFormerFeatureExtractor.from_codec(arguments.name, codec_revision=arguments.revision)
    available = extractor.load_codec().num_codebooks
    extractor.num_codebooks = available if arguments.num_codebooks is None else arguments.num_codebooks
    if not 1 <= extractor.num_codebooks <= available:
        raise ValueError(f"codec.num_codebooks is {extractor.num_codebooks}; the codec has {available}.")
    extractor.add_boundary_tokens = False
    if arguments.rms_level_dbfs is not None:
        extractor.rms_level_dbfs = arguments.rms_level_dbfs
    if arguments.max_length_seconds is not None:
        extractor.max_length_seconds = arguments.max_length_seconds
    return extractor


def _load_companions(folders: list[str], extractor: AudioFormerFeatureExtractor) -> list[AudioFormerModel]:
    """The companion networks.

    Raises:
        ValueError: One does not read the codec's codes, or a codebook that is not stored.
    """
    if not folders:
        return []
    with quiet_transformers():
        hidden_size = getattr(read_config(folders[0], "a companion"), "hidden_size", 0)
        networks = load_companions(folders, codebook_size=extractor.codebook_size, hidden_size=hidden_size)
    if num_codebooks_read(networks) > extractor.num_codebooks:
        raise ValueError(
            f"the companions read {num_codebooks_read(networks)} codebooks and codec.num_codebooks is "
            f"{extractor.num_codebooks}; store as many."
        )
    return networks


def _located(name: str) -> str:
    """A folder or file of this machine by its whole path, which is never taken for an id of the Hub; ids and known sets
    as they are."""
    return str(Path(name).absolute()) if name not in KNOWN_SETS and Path(name).exists() else name


def _kept_columns(clips: ClipTable) -> list[str]:
    """The columns of the source that a store keeps: all but sound and other bytes."""
    fields = clips.table.features.arrow_schema
    own = [name for name in fields.names if name in OWN_COLUMNS]
    if own:
        logger.warning("left out the columns %s: a code store has its own of that name", ", ".join(own))
    return [item.name for item in fields if item.name not in own and "binary" not in str(item.type)]


def _checksum(values: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(list(values), default=str).encode()).hexdigest()


def _shard_clips(asked: int | None, num_clips: int) -> int:
    return min(MOST_SHARD_CLIPS, -(-num_clips // USUAL_SHARDS)) if asked is None else asked


def _device(asked: str | None, rank: int) -> str:
    """The device asked for or else found; one without a number is counted through by rank."""
    found = asked or (str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu")
    if found == "cpu" or ":" in found:
        return found
    return f"{found}:{rank % max(1, torch.accelerator.device_count())}"


def _check_disk(job: EncodeJob, todo: list[int]) -> None:
    """Says what the shards will take, and refuses a disk that has less.

    Raises:
        OSError: There is not enough room.
    """
    plan = job.plan
    seconds = _mean_seconds(job)
    num_rows = sum(len(plan.clips_of(shard)) for shard in todo) * (plan.num_copies + 1)
    row_bytes = 2 * plan.num_codebooks * seconds * job.extractor.frame_rate + ROW_BYTES
    need = round(num_rows * (row_bytes + 4 * len(plan.companions) * plan.companion_size))
    folder = Path(job.arguments.output_dir).absolute()
    parent = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(parent).free
    print(
        f"{plan.clips} clips, about {plan.clips * seconds / 3600:.2f} h: {len(todo)} of {plan.num_shards} shards to "
        f"write, up to {_megabytes(need)} of codes; {_megabytes(free)} are free"
    )
    if need > free:
        raise OSError(
            f"the codes need about {_megabytes(need)} and {_megabytes(free)} are free at {parent}. Make room, store "
            "fewer codebooks or copies, or name another --output_dir."
        )


def _mean_seconds(job: EncodeJob) -> float:
    """The mean length of some clips spread over the source, as they are encoded; those that cannot be read left out."""
    lengths = []
    for index in np.unique(np.linspace(0, len(job.clips) - 1, SAMPLED_CLIPS, dtype=int)).tolist():
        try:
            audio = job.clips.load(index)
        except (ValueError, OSError):
            continue  # it will be reported when it is encoded
        limit = job.extractor.max_length_seconds or float("inf")
        lengths.append(min(limit, len(audio["array"]) / audio["sampling_rate"]))
    return float(np.mean(lengths)) if lengths else 0.0


@contextmanager
def _bar(total: int, initial: int) -> Iterator[Callable[[float], None]]:
    """A bar that is told the seconds of each clip, and shows clips and hours of audio per second and the time left."""
    started, seconds = time.perf_counter(), 0.0
    with tqdm(desc="encode", total=total, initial=initial, unit="clip", dynamic_ncols=True) as bar:

        def on_clip(clip_seconds: float) -> None:
            nonlocal seconds
            seconds += clip_seconds
            speed = seconds / 3600 / (time.perf_counter() - started)
            bar.set_postfix_str(f"{speed:.3g} audio hours/s", refresh=False)
            bar.update()

        yield on_clip


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
