"""Reading labelled clips from a folder, a csv, a parquet, the Hub, or a set known by name."""

from __future__ import annotations

import csv
import difflib
import glob
import io
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..codes.store import PLAN_FILE, is_code_store
from .clip_table import ClipTable, decode_audio_column, file_paths, linked_files
from .curves import add_curves
from .known_layouts import ClipList, clip_lists
from .known_sets import KNOWN_SETS, LoadRow
from .labels import index_labels, read_numbers
from .moments import add_spans
from .splits import USUAL_VALUES
from .stored_codes import StoredCodes

if TYPE_CHECKING:
    import datasets

__all__ = ["AUDIO_SUFFIXES", "MissingFilesError", "read_clips", "read_rows", "sound_files"]

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = frozenset(
    {
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"),
        *(".aifc", ".caf", ".mp2", ".rf64", ".snd", ".sph", ".voc", ".w64"),
    }
)
UNREADABLE_SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".wma", ".webm", ".amr", ".3gp", ".ape", ".mka", ".wv"})
SPLIT_FOLDERS = frozenset(name for names in USUAL_VALUES.values() for name in names)


class MissingFilesError(FileNotFoundError):
    """A list of clips exists, and files that it names do not."""


def read_clips(
    source: str | os.PathLike[str],
    *,
    audio_column: str | None = None,
    audio_root: str | os.PathLike[str] | None = None,
    label_column: str | None = None,
    label_separator: str = ";",
    multi_label: bool | None = None,
    label_names: Sequence[str] | None = None,
    hub_config: str | None = None,
    revision: str | None = None,
    needs_labels: bool = True,
    target_columns: Sequence[str] = (),
    events: str | os.PathLike[str] | None = None,
    curves: str | os.PathLike[str] | None = None,
    curve_gap_seconds: float | None = None,
    missing_share: float = 0.0,
) -> ClipTable:
    """Read labelled clips; no audio is decoded yet.

    `source` is one of
    * a known set: "commands", "synthetic" and "spoken_digits" (parts of the package), "esc10", "fsdd", "esc10_mix" (in
      the folder `HF_AUDIOFORMER_DATA`); write "./esc10" for a folder of that name;
    * a folder with ESC-50 or FSD50K as they are published (the columns `fold`, or `split` of train, val and test);
    * a folder with `metadata.csv`, or with one subfolder per class; or with one or the other in each of the folders
      `train`, `test`, ..., which then become the column `split`;
    * a `.csv` or `.tsv` with a column of paths, or a `.parquet` with a column of audio bytes or paths;
    * a code store made by `hf-audioformer encode`, whose clips have codes in place of sound, or the id of one that
      `hf-audioformer push` put on the Hub;
    * the id of a data set on the Hub (`hub_config` and `revision` choose among its versions); its splits are joined
      and named in the column `split`.

    Paths are relative to `audio_root` (default: the folder of the csv or parquet) and must stay inside it. No file is
    named twice; several links to one are warned of. All exist, but for a share of at most `missing_share`, which are
    clips that cannot be decoded.
    `audio_column` and `label_column` default to the usual names. A clip has several labels if `multi_label` says so; by
    default, if the column is named "labels", holds lists, or holds text with `label_separator`.
    `label_names` fixes the classes and their order (those of a checkpoint, say); by default the order of the source's
    `ClassLabel`, otherwise the names found, sorted.
    With `target_columns` clips have the numbers in these columns in place of labels. `events`, a .csv, .tsv or .parquet
    with the columns filename, onset, offset (seconds) and event_label, says when each label is heard; see `add_spans`.
    `curves`, a file of these kinds with the columns filename, time (seconds) and one for each number (`target_columns`,
    or all others), has numbers along time; see `add_curves`.
    Where labels are not needed, clips may have none: a folder with files anywhere below it, or no column of a usual
    name.

    Raises:
        ValueError: columns missing or ambiguous, no clips, bad labels, repeated ids, paths that leave their folder.
        FileNotFoundError: the source does not exist, or too many files that it names do not (`MissingFilesError`).
        ConnectionError: the Hub has no such data set or cannot be reached.
    """
    source = os.fspath(source)
    folder = _code_store_of_hub(source, revision) or source
    load_row: LoadRow = decode_audio_column
    codes = None
    if source in KNOWN_SETS:
        table, load_row = KNOWN_SETS[source]()
    elif is_code_store(folder):
        codes = StoredCodes.open(folder)
        table, load_row = codes.clips(), codes.no_sound
    elif os.path.isdir(source):
        in_folders = needs_labels and not target_columns and events is None and curves is None
        table = _read_folder(Path(source), audio_column, audio_root, in_folders)
    elif Path(source).suffix.lower() in (".csv", ".tsv"):
        table = _read_csv(Path(source), audio_column, audio_root)
    elif Path(source).suffix.lower() == ".parquet":
        table = _read_parquet(Path(source), audio_column, audio_root)
    elif os.path.isfile(source):
        raise ValueError(f"{source}: files of this kind are not read; give a folder, a .csv, .tsv or .parquet")
    else:
        table = _read_hub(source, audio_column, hub_config, revision)
    if len(table) == 0:
        raise ValueError(f"{source}: no clips found")
    _check_unique(table["id"], source, "ids must be unique")
    paths = file_paths(table)
    _check_unique(paths, source, "a file is one clip, or it could be learnt from and tested")
    _warn_of_links(paths, source)
    _check_exist(paths, source, missing_share)
    if events is not None:
        file = os.fspath(events)
        table, label_column, multi_label = add_spans(table, read_rows(Path(file)), file), "labels", True
    if curves is not None:
        file = os.fspath(curves)
        table, names = add_curves(table, read_rows(Path(file)), file, target_columns, curve_gap_seconds)
        return ClipTable(table, names, False, load_row, codes, names, has_curves=True)
    if target_columns:
        table = read_numbers(table, target_columns, source)
        return ClipTable(table, tuple(target_columns), False, load_row, codes, tuple(target_columns))
    if not needs_labels and label_column is None and not {"label", "labels"} & {*table.column_names}:
        return ClipTable(table, (), False, load_row, codes)
    column = _choose_column(table.column_names, label_column, ("label", "labels"), "label_column", source)
    table, names, multi_label = index_labels(table, column, label_separator, multi_label, label_names, source)
    return ClipTable(table, names, multi_label, load_row, codes)


def _read_folder(
    folder: Path, audio_column: str | None, audio_root: str | os.PathLike[str] | None, needs_labels: bool
) -> datasets.Dataset:
    lists = clip_lists(folder)
    if lists:
        return _dataset_of_rows([row for clip_list in lists for row in _known_rows(folder, clip_list)])
    if (folder / "metadata.csv").is_file():
        return _read_csv(folder / "metadata.csv", audio_column, audio_root)
    of_splits = [file for file in sorted(folder.glob("*/metadata.csv")) if file.parent.name.lower() in SPLIT_FOLDERS]
    if of_splits:
        return _dataset_of_rows(_rows_of_splits(of_splits, audio_column, audio_root))
    files = _audio_files(folder)
    if not files:
        raise ValueError(
            f"{folder}: no clips found; expected metadata.csv, or one subfolder per class with files "
            f"{', '.join(sorted(AUDIO_SUFFIXES))}"
        )
    try:
        rows = _labelled_rows(folder, files)
    except ValueError as error:
        if needs_labels:
            raise
        classes = [_folder_and_class(folder, file)[1] for file in files]
        if any(name is not None and name.lower() not in SPLIT_FOLDERS for name in classes):
            logger.warning("%s: the clips are read without labels, which are not needed here (%s)", folder, error)
        rows = _unlabelled_rows(folder, files)
    return _dataset_of_rows(rows)


def _labelled_rows(folder: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    rows = [_folder_row(folder, file) for file in files]
    if all(row["label"].lower() in SPLIT_FOLDERS for row in rows):
        raise ValueError(
            f"{folder}: files lie in {', '.join(sorted({row['label'] for row in rows}))}, which name splits and not "
            "classes; put them into a subfolder per class there, or add a metadata.csv"
        )
    _warn_of_empty(folder, rows)
    with_split = [row for row in rows if "split" in row]
    if 0 < len(with_split) < len(rows):
        raise ValueError(
            f"{folder}: {with_split[0]['id']} lies in a split folder and others do not; put every class folder under "
            f"split folders ({', '.join(sorted(SPLIT_FOLDERS))}) or none"
        )
    return rows


def _unlabelled_rows(folder: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Rows without labels, and with the split if all files lie in folders that name one."""
    rows = [_file_row(folder, file) for file in files]
    splits = [file.relative_to(folder).parts[0] for file in files]
    if not all(split.lower() in SPLIT_FOLDERS for split in splits):
        return rows
    return [row | {"split": split} for row, split in zip(rows, splits, strict=True)]


def _warn_of_empty(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Tells of class folders that hold no sound: they are no classes, which may be a surprise."""
    full = {Path(row["id"]).parent.as_posix() for row in rows}
    splits = {parent for row in rows if (parent := Path(row["id"]).parent.parent.as_posix()) != "."}
    for parent in sorted(splits) or ["."]:
        for found in sorted((folder / parent).iterdir()):
            name = found.relative_to(folder).as_posix()
            if found.is_dir() and not found.name.startswith(".") and name not in full:
                logger.warning("%s: no sound file in %s; it is no class", folder, name)


def _rows_of_splits(
    files: Sequence[Path], audio_column: str | None, audio_root: str | os.PathLike[str] | None
) -> list[dict[str, Any]]:
    """The rows of the metadata.csv of several splits, whose folders name them."""
    rows: list[dict[str, Any]] = []
    for file in files:
        split = file.parent.name
        found = _rows_of_csv(file, audio_column, audio_root)
        if rows and found[0].keys() | {"split"} != rows[0].keys():
            raise ValueError(f"{file}: its columns are not those of {files[0]}; give all splits the same ones")
        rows += [{**row, "id": f"{split}/{row['id']}", "split": split} for row in found]
    return rows


def _known_rows(folder: Path, clip_list: ClipList) -> list[dict[str, Any]]:
    """The rows of a published csv, with `label` or `labels` and perhaps `split`."""
    source = folder / clip_list.csv
    rows = _csv_rows(source)
    if not rows or not {clip_list.name_column, clip_list.label_column} <= rows[0].keys():
        raise ValueError(
            f"{source}: expected rows with the columns {clip_list.name_column!r} and {clip_list.label_column!r}, as "
            f"published; found {', '.join(map(repr, rows[0])) if rows else 'no rows'}"
        )
    for row in rows:
        name, label = row.pop(clip_list.name_column), row.pop(clip_list.label_column)
        file = _contained_path(folder / clip_list.audio, name + clip_list.suffix, source)
        row |= {"id": name, "audio": {"bytes": None, "path": file}}
        row |= (
            {"label": label}
            if clip_list.label_separator is None
            else {"labels": label.split(clip_list.label_separator)}
        )
        row |= {} if clip_list.split is None else {"split": clip_list.split}
    return rows


def _audio_files(folder: Path) -> list[Path]:
    """The audio files below a folder, hidden ones left out, in the order of their names."""
    paths, reached_again = _walk(folder)
    for again, first in reached_again:
        is_loop = Path(os.path.realpath(os.path.dirname(again))).is_relative_to(os.path.realpath(first))
        if not is_loop and any(path.is_relative_to(first) for path in paths):
            raise ValueError(
                f"{again} and {first} are the same folder: a file is one clip, or it could be learnt from and tested. "
                "Remove the link, or name the files in a metadata.csv"
            )
    for path in paths:
        if path.suffix.lower() in UNREADABLE_SUFFIXES:
            raise ValueError(f"{path}: {path.suffix} cannot be read; convert it to wav or flac")
    return paths


def sound_files(folder: Path) -> list[Path]:
    """All files below a folder, linked folders too, that are named as sound, also as sound that cannot be read; hidden
    ones left out. A folder that several links lead to is read once.

    Raises:
        ValueError: A name is not UTF-8.
    """
    return _walk(folder)[0]


def _walk(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """The files of `sound_files`, and both names of each folder that a link led to again."""
    found: list[Path] = []
    reached_again: list[tuple[str, str]] = []
    walked: dict[str, str] = {}
    roots = [os.fspath(folder)]
    while roots:  # links come after all folders that are no links, so that these keep their names
        for parent, folders, names in os.walk(roots.pop(0)):
            first = walked.setdefault(os.path.realpath(parent), parent)
            if first != parent:
                reached_again.append((parent, first))
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            roots += filter(os.path.islink, (os.path.join(parent, name) for name in folders))
            paths = (Path(parent, name) for name in names if not name.startswith("."))
            found += [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES | UNREADABLE_SUFFIXES]
    for path in found:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{os.fsencode(path)!r}: the name is not UTF-8; rename the file") from error
    return sorted(found), reached_again


def _file_row(folder: Path, path: Path) -> dict[str, Any]:
    return {"id": path.relative_to(folder).as_posix(), "audio": {"bytes": None, "path": str(path)}}


def _folder_and_class(folder: Path, path: Path) -> tuple[str | None, str | None]:
    """Of [split/]class/file the split and the class; without a class if the file lies elsewhere."""
    *parents, _ = path.relative_to(folder).parts
    split = parents.pop(0) if len(parents) == 2 and parents[0].lower() in SPLIT_FOLDERS else None
    return split, parents[0] if len(parents) == 1 else None


def _folder_row(folder: Path, path: Path) -> dict[str, Any]:
    split, label = _folder_and_class(folder, path)
    if label is None:
        raise ValueError(
            f"{path}: cannot tell its class; without metadata.csv files must lie in {folder}/<class>/ or "
            f"{folder}/<split>/<class>/, all of them"
        )
    row = _file_row(folder, path) | {"label": label}
    return row if split is None else row | {"split": split}


def _read_csv(path: Path, audio_column: str | None, audio_root: str | os.PathLike[str] | None) -> datasets.Dataset:
    return _dataset_of_rows(_rows_of_csv(path, audio_column, audio_root))


def _rows_of_csv(
    path: Path, audio_column: str | None, audio_root: str | os.PathLike[str] | None
) -> list[dict[str, Any]]:
    """The rows of a csv of clips, with `id` and the `audio` entry."""
    rows = _csv_rows(path)
    if not rows:
        raise ValueError(f"{path}: no clips found, the file has no rows")
    column = _choose_column(list(rows[0]), audio_column, _audio_candidates(rows[0]), "audio_column", path)
    root = path.parent if audio_root is None else Path(audio_root)
    _check_named([row[column] for row in rows], path)
    for row in rows:
        name = row.pop(column)
        row.setdefault("id", name)
        row["audio"] = {"bytes": None, "path": _contained_path(root, name, path)}
    return rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .csv, .tsv or .parquet that names clips.

    Raises:
        FileNotFoundError, ValueError: It does not exist, or cannot be read.
    """
    if path.suffix.lower() != ".parquet":
        return _csv_rows(path)
    import pyarrow.parquet

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    return pyarrow.parquet.read_table(path).to_pylist()


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a table, its cells separated by commas, or in a .tsv by tabs."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    is_tsv = path.suffix.lower() == ".tsv"
    # A cell of a .tsv holds no tab, and may begin with a quotation mark that nothing answers.
    form: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if is_tsv else {}
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), **form)
        lines = [(reader.line_num, [*map(_unquoted, cells)] if is_tsv else cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a csv in UTF-8 ({error})") from error
    header = lines[0][1] if lines else []
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: the header repeats {', '.join(map(repr, repeated))}; column names must be unique")
    for line, cells in lines:
        if len(cells) != len(header):
            raise ValueError(f"{path}, line {line}: {len(cells)} cells, the header has {len(header)}")
    return [dict(zip(header, cells, strict=True)) for _, cells in lines[1:]]


def _unquoted(cell: str) -> str:
    """A cell without the quotation marks that some programs put around it."""
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if is_quoted else cell


def _read_parquet(path: Path, audio_column: str | None, audio_root: str | os.PathLike[str] | None) -> datasets.Dataset:
    import datasets
    import pyarrow

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        table = datasets.Dataset.from_parquet(glob.escape(str(path)))
    except (pyarrow.ArrowException, datasets.exceptions.DatasetGenerationError) as error:
        raise ValueError(f"{path}: not a readable parquet file ({error})") from error
    return _with_audio(table, audio_column, path.parent if audio_root is None else Path(audio_root), path)


def _code_store_of_hub(name: str, revision: str | None) -> str | None:
    """Where the code store that is a data set on the Hub lies once it is downloaded; None for all else.

    Raises:
        ConnectionError: It is one, and could not be downloaded.
    """
    if os.path.exists(name) or not _is_hub_id(name):
        return None
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        hf_hub_download(name, PLAN_FILE, repo_type="dataset", revision=revision)
    except (HfHubHTTPError, OSError):
        return None  # what else it is, or whether the Hub is out of reach, the next to ask it will say
    try:
        return snapshot_download(name, repo_type="dataset", revision=revision)
    except (HfHubHTTPError, OSError) as error:
        raise ConnectionError(f"the code store {name} could not be downloaded whole: {error}. Try again.") from error


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".")


def _read_hub(name: str, audio_column: str | None, config: str | None, revision: str | None) -> datasets.Dataset:
    if not _is_hub_id(name):
        near = difflib.get_close_matches(name, KNOWN_SETS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise FileNotFoundError(
            f"{name!r}: {hint}expected an existing folder, a .csv, .tsv or .parquet, the id of a data set on the Hub "
            f"(owner/name), or one of {', '.join(KNOWN_SETS)}"
        )
    return _load_from_hub(name, audio_column, config, revision)


def _load_from_hub(name: str, audio_column: str | None, config: str | None, revision: str | None) -> datasets.Dataset:
    import datasets

    try:
        splits = datasets.load_dataset(name, config, revision=revision)
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:
        raise ConnectionError(
            f"{name!r} is not a local folder or file, and as a data set on the Hub it could not be loaded: {error}. "
            "Check the name and the network, or give a local path."
        ) from error
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(_hub_mistake(name, error)) from error
    tables = [
        table if "split" in table.column_names else table.add_column("split", [split] * len(table))
        for split, table in splits.items()
    ]
    try:
        joined = datasets.concatenate_datasets(tables)
    except ValueError as error:
        raise ValueError(
            f"{name!r}: its splits {', '.join(map(repr, splits))} have columns of different types ({error}). Choose "
            "another data.hub_config or data.revision, or save one of its splits as a .parquet and give that."
        ) from error
    return _with_audio(joined, audio_column, None, name)


def _hub_mistake(name: str, error: Exception) -> str:
    """What is wrong with a data set on the Hub that `datasets` refuses, and what to do."""
    reason = str(error.__cause__ or error)
    if "scripts are no longer supported" in reason:
        remedy = "Try --data.revision refs/convert/parquet, where the Hub may have it as parquet, or give its files"
    elif "Config name is missing" in reason or "BuilderConfig" in reason:
        reason = "\n".join(reason.splitlines()[:2])  # the rest is Python
        remedy = "Choose one with data.hub_config"
    else:
        remedy = "Choose another data.hub_config or data.revision, or download it and give its files"
    return f"{name!r}: the data set on the Hub cannot be read ({' '.join(reason.split())}). {remedy}."


def _with_audio(
    table: datasets.Dataset, audio_column: str | None, root: Path | None, source: Path | str
) -> datasets.Dataset:
    """Name the audio column `audio`, switch its decoding off, turn names into paths, and add ids.

    Other sounds, images and the like are left out: nothing reads them, and they would be decoded with each row.
    """
    import datasets
    from datasets.features.features import require_decoding

    column = _choose_column(
        table.column_names, audio_column, _audio_candidates(table.column_names), "audio_column", source
    )
    if column != "audio":
        table = _drop_column(table, "audio").rename_column(column, "audio")
    if isinstance(table.features["audio"], datasets.Audio):
        table = table.cast_column("audio", datasets.Audio(decode=False))
    table = table.remove_columns([name for name, feature in table.features.items() if require_decoding(feature)])
    names, has_bytes = _audio_names(table, source)
    if not has_bytes:
        _check_named(names, source)
        entries = [{"bytes": None, "path": _contained_path(root, name, source)} for name in names]
        table = _drop_column(table, "audio").add_column("audio", entries, feature=_audio_struct())
    if "id" in table.column_names:
        ids = [str(clip_id) for clip_id in table["id"]]
    elif all(names) and (not has_bytes or len(set(names)) == len(names)):
        ids = names
    else:
        ids = [f"{row:08d}" for row in range(len(names))]
    return _drop_column(table, "id").add_column("id", ids)


def _audio_names(table: datasets.Dataset, source: Path | str) -> tuple[list[str], bool]:
    """The path or name of each clip ("" for none), and whether the table holds the sound (told without reading it)."""
    import pyarrow
    import pyarrow.compute

    audio = table.data.column("audio")
    if pyarrow.types.is_string(audio.type) or pyarrow.types.is_large_string(audio.type):
        return [name or "" for name in audio.to_pylist()], False
    if not pyarrow.types.is_struct(audio.type) or not {"bytes", "path"} <= {field.name for field in audio.type}:
        raise ValueError(
            f"{source}: the audio column holds {audio.type}; expected paths, or structs of 'bytes' and 'path'"
        )
    names = [name or "" for name in pyarrow.compute.struct_field(audio, "path").to_pylist()]
    missing = pyarrow.compute.struct_field(audio, "bytes").null_count
    if 0 < missing < len(names):
        raise ValueError(f"{source}: {missing} of {len(names)} clips have no audio bytes; expected all or none")
    return names, missing == 0


def _audio_struct() -> Mapping[str, Any]:
    import datasets

    return {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}


def _dataset_of_rows(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """Rows of text, or lists of text, and one `audio` entry each."""
    import datasets

    text = datasets.Value("string")
    columns = {name: datasets.List(text) if isinstance(cell, list) else text for name, cell in rows[0].items()}
    return datasets.Dataset.from_list(rows, features=datasets.Features(columns | {"audio": _audio_struct()}))


def _check_named(names: Sequence[str], source: Path | str) -> None:
    if "" in names:
        raise ValueError(f"{source}: row {names.index('') + 1} names no file; name one, or leave the row out")


def _contained_path(root: Path | None, name: str, source: Path | str) -> str:
    """The file `name` below `root` (None: `name` is a path given by the Hub's own cache)."""
    path = Path(name) if root is None else root / name
    if root is not None and not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
        raise ValueError(f"{source}: the path {name!r} leads out of {root}; paths must stay below audio_root")
    return os.path.normpath(path)


def _check_exist(paths: Sequence[str], source: str, missing_share: float) -> None:
    missing = [path for path in paths if not os.path.isfile(path)]
    if len(missing) > missing_share * len(paths):
        raise MissingFilesError(
            f"{source} names {len(paths)} files, of which {len(missing)} do not exist, first {missing[0]}; paths are "
            "relative to audio_root, by default the folder of the list"
        )


def _audio_candidates(columns: Iterable[str]) -> tuple[str, ...]:
    return ("audio",) if "audio" in columns else ("file_name", "path")


def _choose_column(
    columns: Sequence[str], given: str | None, candidates: Sequence[str], argument: str, source: Path | str
) -> str:
    """The column the user named, or the only one with a usual name."""
    found = ", ".join(map(repr, columns))
    if given is not None:
        if given in columns:
            return given
        near = difflib.get_close_matches(given, columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"{source}: {argument}={given!r} is not a column{hint} The columns are {found}.")
    present = [name for name in candidates if name in columns]
    if len(present) != 1:
        what = f"{' and '.join(map(repr, present))} both look like it" if present else "none has a usual name"
        usual = " or ".join(map(repr, candidates))
        raise ValueError(f"{source}: {argument} is not clear, {what} ({usual}). Choose one of the columns {found}.")
    return present[0]


def _drop_column(table: datasets.Dataset, column: str) -> datasets.Dataset:
    return table.remove_columns([name for name in table.column_names if name == column])


def _warn_of_links(paths: Sequence[str], source: str) -> None:
    """Says so where several clips are links to one file, as stores of data make them of clips that are equal."""
    first: dict[str, str] = {}
    pairs = [(path, first.setdefault(file, path)) for path, file in zip(paths, linked_files(paths), strict=True)]
    again = [(path, other) for path, other in pairs if path != other]
    if again:
        logger.warning(
            "%s: %d clips lead to the file of another one, so that it may be learnt from and tested; %s and %s for one",
            source,
            len(again),
            *again[0],
        )


def _check_unique(names: Iterable[str], source: str, rule: str) -> None:
    first_row: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in first_row:
            raise ValueError(f"{source}: the clip {name!r} appears in rows {first_row[name]} and {row}; {rule}")
        first_row[name] = row
