"""Vectors of clips and frames by an audio encoder (AudioFormer, AST, Wav2Vec2, HuBERT, Whisper, ...), and what sounds
alike.

    hf-audioformer embed MODEL FILES|FOLDERS ... --output FILE.safetensors|FILE.parquet
    hf-audioformer embed MODEL FILES|FOLDERS ... --neighbours CLIP      the clips most like CLIP, by cosine
    hf-audioformer embed MODEL FILE.parquet --neighbours CLIP           the same, among what was embedded before

Clips longer than the model reads at once are heard in windows one after the other. A parquet file has a row per clip:
file, seconds, embedding; with --frames true also frame_starts, in seconds, and frames. A safetensors file has the
tensors embeddings (clips, size) and seconds, with --frames true those of all clips one after the other, frames,
frame_starts and frame_counts; the names of the files are in its metadata.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..inference.embedder import Embedder, Pooling, nearest_neighbours
from ..inference.embedding_store import SUFFIXES, StoredEmbeddings, embedding_writer, read_embeddings
from ..training.arguments import parse_config
from .inputs import check_free, clip_bar, files_of, interruption_says, report_left_out, stopped_after, with_names

__all__ = ["EmbedArguments", "main", "run"]


@dataclass(frozen=True)
class EmbedArguments:
    """All settings of the command."""

    model: str = field(metadata={"help": "folder or Hub id of an audio encoder, with or without a head"})
    sources: list[str] = field(
        metadata={"help": "sound files, and folders of them; or one file of embeddings, for neighbours"}
    )
    output: str | None = field(
        default=None, metadata={"help": "file for the vectors, named *.safetensors or *.parquet"}
    )
    neighbours: str | None = field(default=None, metadata={"help": "a clip; the clips most like it are listed"})
    top: int = field(default=5, metadata={"help": "how many neighbours"})
    layer: int = field(default=-1, metadata={"help": "whose output: 0 what enters the first layer, -1 the encoder's"})
    pooling: Pooling = field(
        default="mean",
        metadata={"help": "how frames become a clip's vector; statistics adds spread and change, cls needs a token"},
    )
    frames: bool = field(default=False, metadata={"help": "also write the vectors of the frames, with their times"})
    window: float | None = field(
        default=None, metadata={"help": "seconds heard at a time; by default as long as the model reads, or 30"}
    )
    batch_size: int = field(default=8, metadata={"help": "windows embedded together; changes nothing but speed"})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, ...; the accelerator if there is one"})
    overwrite: bool = field(default=False, metadata={"help": "replace the file of output"})

    def __post_init__(self) -> None:
        if self.top < 1 or self.batch_size < 1:
            raise ValueError(f"top and batch_size must be at least 1, found {self.top} and {self.batch_size}")
        if self.output is None and self.neighbours is None:
            raise ValueError("nothing to do: name a file with --output, or a clip with --neighbours")


def main(argv: list[str]) -> None:
    """Runs the command; MODEL and the files may be given without their names."""
    run(parse_config(EmbedArguments, with_names(argv, "model", rest="sources"), description=__doc__ or ""))


def run(arguments: EmbedArguments) -> None:
    """Writes the vectors of the clips, and prints the neighbours of one.

    Raises:
        FileNotFoundError: A source does not exist.
        FileExistsError: `output` exists, and `overwrite` is not set.
        ValueError: An argument is out of range, stored vectors were made otherwise, or, at the end, some clips were
            left out.
    """
    stored = _stored(arguments)
    files = [] if stored else files_of(arguments.sources)
    if arguments.output is not None:
        check_free(arguments.output, overwrite=arguments.overwrite)
    embedder = Embedder.from_pretrained(
        arguments.model,
        device=arguments.device,
        layer=arguments.layer,
        pooling=arguments.pooling,
        batch_size=arguments.batch_size,
        window_seconds=arguments.window,
    )
    query = None if arguments.neighbours is None else embedder(arguments.neighbours).vector
    failures = 0
    if stored is None:
        stored, failures = _embed(embedder, files, arguments)
    if query is not None:
        _print_neighbours(query, stored, arguments)
    if failures:
        raise ValueError(f"{failures} of {len(files)} clips could not be embedded; they are named above")


def _stored(arguments: EmbedArguments) -> StoredEmbeddings | None:
    """The file of embeddings among the sources, if there is one."""
    found = [source for source in arguments.sources if source.endswith(SUFFIXES)]
    if not found:
        return None
    if len(arguments.sources) > 1 or arguments.output is not None:
        raise ValueError(f"{found[0]} is a file of embeddings: name it alone, with --neighbours and without --output")
    stored = read_embeddings(Path(found[0]))
    for name, asked in _settings(arguments).items():
        if stored.settings.get(name) != asked:
            raise ValueError(
                f"{found[0]} was made with {name} {stored.settings.get(name)}, and {asked} is asked for; only vectors "
                "made alike can be compared"
            )
    return stored


def _settings(arguments: EmbedArguments) -> dict[str, str | int | float | None]:
    """What vectors depend on."""
    model = str(Path(arguments.model).resolve()) if Path(arguments.model).exists() else arguments.model
    return {"model": model, "layer": arguments.layer, "pooling": arguments.pooling, "window": arguments.window}


def _embed(embedder: Embedder, files: list[str], arguments: EmbedArguments) -> tuple[StoredEmbeddings, int]:
    """The vectors of the files, written to `output` if that is set, and how many files were left out."""
    names: list[str] = []
    vectors: list[np.ndarray] = []
    settings = _settings(arguments)
    with ExitStack() as stack:
        targets = [] if arguments.output is None else [arguments.output]
        stack.enter_context(interruption_says(lambda: stopped_after(len(names), len(files), targets)))
        write = None
        if arguments.output is not None:
            writer = embedding_writer(Path(arguments.output), settings, frames=arguments.frames)
            write = stack.enter_context(writer)
        bar = stack.enter_context(clip_bar("embed", len(files)))
        for name, result in embedder.each(files, heard=bar.update):
            if isinstance(result, Exception):
                report_left_out(name, result)
                continue
            names.append(name)
            vectors.append(result.vector)
            if write is not None:
                write(name, result)
    if arguments.output is not None:
        size = f", {len(vectors[0])} numbers each" if vectors else ""
        print(f"vectors of {len(names)} clips{size}, are in {arguments.output}")
    return StoredEmbeddings(names, np.array(vectors), settings), len(files) - len(names)


def _print_neighbours(query: np.ndarray, stored: StoredEmbeddings, arguments: EmbedArguments) -> None:
    clip = Path(str(arguments.neighbours)).resolve()
    others = [row for row, name in enumerate(stored.files) if Path(name).resolve() != clip]
    if not others:
        raise ValueError(f"there is no clip beside {arguments.neighbours} to compare it with")
    print(f"most like {arguments.neighbours} of {len(others)} clips, by cosine")
    for row, cosine in nearest_neighbours(query, stored.vectors[others], arguments.top):
        print(f"{cosine:8.4f}  {stored.files[others[row]]}")
