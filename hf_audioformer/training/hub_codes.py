"""Pushing a finished code store to the Hub as a data set: its card, and all of it in one commit."""

import re
from collections.abc import Iterator
from pathlib import Path

import datasets
from huggingface_hub import DatasetCard, DatasetCardData

from .. import AudioFormerFeatureExtractor, assets
from ..codes.publishing import published_files, published_manifest
from ..codes.store import MANIFEST_FILE, PLAN_FILE, Manifest
from .console import quiet_transformers
from .hub import Push, push_files
from .model_card import BUNDLED_CODEC, is_of_hub, origin_of_checkpoint, origin_of_data

__all__ = ["codes_to_push", "push_codes"]

CARD_FILE, SHARDS = "README.md", "data/train-*.parquet"
TEMPLATE = Path(__file__).parent / "cards" / "codes.md"
# What the template has where the id belongs, which is known in full only once the repository is there.
ID_OF_THIS_DATA_SET = "ID_OF_THIS_DATA_SET"

_TRAVELS = re.compile(
    rf"{re.escape(MANIFEST_FILE)}|{re.escape(PLAN_FILE)}|{re.escape(CARD_FILE)}|data/train-\d+-of-\d+\.parquet"
)
_MEANINGS = {
    "id": "the clip's name in its source",
    "copy": "0: the clip as it is; 1, 2, ...: changed copies",
    "length": "frames",
    "codes": "frame by frame, one code of each codebook",
    "companions": "vectors of the frozen networks of the contrastive loss",
    "label": "class",
    "labels": "classes",
}
# Numbers of rows, as the Hub's `size_categories` divide them.
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}


def codes_to_push(folder: Path, repo_id: str) -> dict[str, Path | bytes]:
    """What of a code store travels, by its path in the repository; paths of this machine do not.

    The card is the store's own README.md, if somebody has written one, or made from the manifest.

    Raises:
        ValueError, FileNotFoundError: As `published_manifest`.
    """
    files = published_files(folder)
    own = folder / CARD_FILE
    files[CARD_FILE] = own if own.is_file() else _card(folder, repo_id).encode()
    return files


def push_codes(
    folder: Path,
    repo_id: str,
    *,
    public: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> Push:
    """Uploads a code store as a data set, in one commit, or none if the repository holds the same already.

    The arguments, and what happens to the repository, are those of `push_files`.

    Raises:
        FileNotFoundError, ValueError: As `published_manifest` and `push_files`.
        ConnectionError: As `push_files`.
    """
    published_manifest(folder)  # raises before anything is made
    return push_files(
        folder,
        repo_id,
        lambda repository: codes_to_push(folder, repository),
        _TRAVELS,
        kind="dataset",
        public=public,
        revision=revision,
        message=message or "Upload codes",
        token=token,
    )


def _card(folder: Path, repo_id: str) -> str:
    manifest = published_manifest(folder)
    settings, clips = manifest.settings, manifest.clips - manifest.skipped
    is_bundled = settings["codec_sha256"] == _checksum_of_bundled_codec()
    codec = _codec(manifest, is_bundled=is_bundled)
    text = TEMPLATE.read_text(encoding="utf-8").format(
        source=manifest.source,
        clips=clips,
        hours=manifest.seconds / 3600,
        codebooks=manifest.num_codebooks,
        codebook_size=settings["codebook_size"],
        frame_rate=settings["sampling_rate"] / settings["hop_length"],
        train=_training_command(manifest, is_bundled=is_bundled),
        rows=manifest.rows,
        shards=len(manifest.shards),
        versions=_versions(manifest),
        skipped=f" Left out, because they could not be read: {manifest.skipped} of {manifest.clips} clips."
        if manifest.skipped
        else "",
        columns="\n".join(_columns(folder, manifest)),
        labels=_labels(manifest),
        codec=codec,
        checksum=settings["codec_sha256"],
        sampling_rate=settings["sampling_rate"],
        hop_length=settings["hop_length"],
        level="as it is" if settings["rms_level_dbfs"] is None else f"{settings['rms_level_dbfs']:g} dBFS (RMS)",
        longest="not cut" if settings["max_length_seconds"] is None else f"cut to {settings['max_length_seconds']:g} s",
        origins=f"* Recordings: {origin_of_data(manifest.source)}.\n* Codec: {codec}.",
    )
    data = DatasetCardData(
        pretty_name=f"{manifest.source}, as codes",
        task_categories=["audio-classification"] if manifest.label_names else None,
        tags=["audio", "neural-codec", "audioformer", "hf_audioformer"],
        size_categories=next((name for limit, name in _SIZES.items() if manifest.rows < limit), "n>10M"),
        source_datasets=[manifest.source] if is_of_hub(manifest.source) else None,
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": SHARDS}]}],
    )
    card = DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}")
    return str(card).replace(ID_OF_THIS_DATA_SET, repo_id)


def _checksum_of_bundled_codec() -> str:
    with quiet_transformers():
        return AudioFormerFeatureExtractor.from_pretrained(assets.checkpoint_folder()).load_codec().fingerprint()


def _codec(manifest: Manifest, *, is_bundled: bool) -> str:
    if is_bundled:
        return BUNDLED_CODEC
    revision = f", revision `{manifest.codec_revision}`" if manifest.codec_revision else ""
    return origin_of_checkpoint(manifest.codec) + revision


def _training_command(manifest: Manifest, *, is_bundled: bool) -> str:
    command = f"hf-audioformer finetune --data.source {ID_OF_THIS_DATA_SET}"
    if not is_bundled:
        command += " --model.checkpoint AN_AUDIOFORMER_WITH_THIS_CODEC"
    longest = manifest.settings["max_length_seconds"]
    command += "" if longest is None else f" --data.max_length_seconds {longest:g}"
    return f"{command} --output_dir my_model"


def _versions(manifest: Manifest) -> str:
    if not manifest.num_copies:
        return "here each clip is there once, as it is."
    changes = ", ".join(f"{name} {value}" for name, value in manifest.augmentation.items() if name != "copies")
    return f"as it is, and in up to {manifest.num_copies} changed copies (seed {manifest.seed}; {changes})."


def _columns(folder: Path, manifest: Manifest) -> Iterator[str]:
    """A row of the table for each column of the first shard."""
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(folder / manifest.shards[0]["file"])
    for name, feature in datasets.Features.from_arrow_schema(schema).items():
        yield f"| {name} | {_type(feature)} | {_MEANINGS.get(name, 'as the source has it')} |"


def _type(feature: object) -> str:
    if isinstance(feature, datasets.List):
        size = "" if feature.length < 0 else f"{feature.length} "
        return f"list of {size}{_type(feature.feature)}"
    return "class index" if isinstance(feature, datasets.ClassLabel) else str(getattr(feature, "dtype", feature))


def _labels(manifest: Manifest) -> str:
    if not manifest.label_names:
        return "The clips have no labels."
    how = "each clip may have several" if manifest.multi_label else "each clip has one"
    return f"{len(manifest.label_names)} classes, of which {how}: {', '.join(manifest.label_names)}."
