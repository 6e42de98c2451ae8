"""Masked pretraining of an AudioFormer on the codes of any clips; labels are not looked at."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from transformers import EvalPrediction, set_seed

from .. import (
    AudioFormerConfig,
    AudioFormerFeatureExtractor,
    AudioFormerForMaskedLM,
    AudioFormerForPreTraining,
    AudioFormerModel,
    assets,
)
from ..checkpoint_config import read_config
from ..codes.encoding import MAX_BAD_SHARE
from ..data import ClipTable, read_clips
from ..data.clip_codes import codes_of_clips
from ..data.clip_companions import Versions
from ..data.code_dataset import CodeAugmentation, CodeDataset, CodeVersion, frames_of_crop, only_codebooks
from ..data.collators import CompanionCollator, MaskedCodeCollator
from ..data.hold_out import held_out_clips, parse_hold_out
from ..training.arguments import parse_config
from ..training.checkpoints import newest_complete_checkpoint, save_final
from ..training.codec_embeddings import start_from_codec
from ..training.console import quiet_transformers
from ..training.contrastive import (
    ContrastiveArguments,
    add_companions,
    contrastive_objective,
    read_companions,
    with_codebooks_of,
)
from ..training.json_file import write_json
from ..training.masked_measures import (
    Measures,
    format_measures,
    masked_counts,
    masked_measures,
    mean_measures,
    unigram_baseline,
)
from ..training.model_card import write_pretraining_card
from ..training.output import resumable
from ..training.trainer import AudioTrainer
from .training_run import MEASURES_FILE, begin, claim_output, finish, finished_measures, trainer_arguments_of

__all__ = ["PretrainArguments", "main", "run"]


TRAINING_DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 12,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "max_grad_norm": 1.0,
    "logging_strategy": "epoch",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "report_to": "none",
}


@dataclass(frozen=True)
class SourceArguments:
    """Which clips to learn from."""

    sources: list[str] = field(metadata={"help": "folders, csv or parquet files, Hub ids, or known sets"})
    hold_out: list[str] = field(
        default_factory=list,
        metadata={"help": "clips never heard, each as [SOURCE:]COLUMN=VALUE (esc10:fold=5, speaker=theo)"},
    )
    validation_fraction: float = field(default=0.05, metadata={"help": "share of the clips to measure on"})
    crop_seconds: float | None = field(default=5.0, metadata={"help": "learn from random stretches of this length"})
    skip_bad: bool = field(default=True, metadata={"help": "leave out clips that cannot be read, and list them"})


@dataclass(frozen=True)
class NetworkArguments:
    """The size of the new network and its codec."""

    codec: str | None = field(default=None, metadata={"help": "folder or Hub id of a codec; the small bundled one"})
    rms_level_dbfs: float | None = field(
        default=None,
        metadata={
            "help": "level every clip is brought to before encoding; by default that of the bundled checkpoint for its "
            "codec, and unchanged for another codec"
        },
    )
    num_codebooks: int = field(default=4, metadata={"help": "codebooks read; 1 is one of them alone"})
    fusion: Literal["sum", "each"] = field(
        default="sum",
        metadata={
            "help": "one network for the summed embeddings of all codebooks, or, as in the paper, a network for each, "
            "trained one after another into output_dir/codebook_1, codebook_2, ..."
        },
    )
    codebook_index: int = field(
        default=0, metadata={"help": "the codebook read if num_codebooks is 1; 0 to 3 are the paper's C1 to C4"}
    )
    hidden_size: int = field(default=160, metadata={"help": "width of the encoder"})
    num_hidden_layers: int = field(default=4, metadata={"help": "layers"})
    num_attention_heads: int = field(default=4, metadata={"help": "attention heads"})
    intermediate_size: int = field(default=640, metadata={"help": "width of the feed-forward layers"})
    norm_position: Literal["post", "pre"] = field(default="pre", metadata={"help": "where the LayerNorms stand"})
    hidden_dropout: float = field(default=0.1, metadata={"help": "dropout, in [0, 1)"})
    codec_embeddings: bool = field(
        default=True, metadata={"help": "start the code embeddings from the codec's own vectors"}
    )

    def __post_init__(self) -> None:
        if self.num_codebooks < 1 or self.codebook_index < 0 or (self.codebook_index and self.num_codebooks > 1):
            raise ValueError(
                f"model.num_codebooks is {self.num_codebooks} and model.codebook_index {self.codebook_index}; at least "
                "one codebook is read, and with num_codebooks 1 it may be another than the first, 0."
            )

    @property
    def codebooks(self) -> range:
        """The codebooks that are read, counted from 0."""
        return range(self.codebook_index, self.codebook_index + self.num_codebooks)


@dataclass(frozen=True)
class MaskArguments:
    """What is hidden. The paper: 25 %, single tokens."""

    rate: float = field(default=0.25, metadata={"help": "share of the frames hidden, in (0, 1)"})
    span_frames: int = field(default=1, metadata={"help": "frames hidden together"})
    mask_share: float = field(default=1.0, metadata={"help": "share of the hidden codes that become MASK"})
    random_share: float = field(default=0.0, metadata={"help": "share of the hidden codes that become random codes"})


@dataclass(frozen=True)
class PretrainArguments:
    """All settings of the recipe."""

    data: SourceArguments
    output_dir: str = field(metadata={"help": "where checkpoints and the final model go"})
    model: NetworkArguments = field(default_factory=NetworkArguments)
    mask: MaskArguments = field(default_factory=MaskArguments)
    mpc: ContrastiveArguments = field(default_factory=ContrastiveArguments)
    training: dict[str, Any] = field(
        default_factory=lambda: dict(TRAINING_DEFAULTS), metadata={"keywords_of": "transformers.TrainingArguments"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the weights, the order and the masks"})
    resume: bool = field(default=False, metadata={"help": "go on from the newest complete checkpoint"})
    overwrite: bool = field(default=False, metadata={"help": "delete what is in output_dir"})
    world_size: int | None = field(default=None, metadata={"help": "processes that must train together; checked"})


def main(argv: list[str]) -> None:
    """Runs the recipe from a config file and command-line options."""
    arguments = parse_config(PretrainArguments, argv, description=__doc__ or "")
    with resumable(arguments.output_dir):
        run(arguments)


def run(arguments: PretrainArguments) -> dict[str, Any]:
    """Trains, saves model, feature extractor and codec in `output_dir`, and returns and prints the measures.

    They are, on the validation clips and beside what code frequencies alone give: `accuracy` and `perplexity` of the
    masked codes, `unigram_accuracy` and `unigram_perplexity`, means over the codebooks; the same for each codebook,
    `codebooks[C1]`, ...; and the number of clips.

    Raises:
        FileExistsError: `output_dir` holds something and neither `resume` nor `overwrite` is set, or is not ours.
        ValueError: Data, settings or the launch do not fit; the message says what to change.
    """
    models = len(arguments.model.codebooks) if arguments.model.fusion == "each" else 1
    arguments, use_cpu = begin(arguments, TRAINING_DEFAULTS, models=models)
    measures = finished_measures(arguments)
    if measures is None:
        # What the Trainer refuses is said before anything is encoded or claimed.
        trainer_arguments_of(arguments, TRAINING_DEFAULTS, use_cpu)
        companions = _read_companions(arguments)
        clips = _encode(arguments, companions, None if use_cpu else PartialState().device)
        claim_output(arguments)
        if arguments.model.fusion == "each":
            measures = train_each(arguments, clips, use_cpu)
        else:
            measures = train_network(arguments, clips, use_cpu, companions)
    if PartialState().is_main_process:
        print(format_measures(measures["codebooks"]))
        print(f"The model is in {arguments.output_dir}")
    return measures


@dataclass(frozen=True)
class PretrainingClips:
    """Each clip as the only version of itself, to learn from and to measure; those of a code store are read late."""

    training: Sequence[Sequence[CodeVersion]]
    validation: Sequence[Sequence[CodeVersion]]

    def codebooks_read(self, model: NetworkArguments) -> "PretrainingClips":
        """The codes of the codebooks that a network reads; of one alone without their axis."""
        read = model.codebooks[0] if len(model.codebooks) == 1 else slice(len(model.codebooks))
        return PretrainingClips(
            [only_codebooks(versions, read) for versions in self.training],
            [only_codebooks(versions, read) for versions in self.validation],
        )


def train_each(arguments: PretrainArguments, clips: PretrainingClips, use_cpu: bool) -> dict[str, Any]:
    """Trains a network per codebook, each in its own folder, and returns the measures of all."""
    codebooks: dict[str, Measures] = {}
    for index in arguments.model.codebooks:
        alone = replace(
            arguments,
            output_dir=str(Path(arguments.output_dir) / f"codebook_{index + 1}"),
            model=replace(arguments.model, num_codebooks=1, codebook_index=index, fusion="sum"),
        )
        measures = finished_measures(alone)
        if measures is None:
            claim_output(alone)
            measures = train_network(alone, clips, use_cpu)
        codebooks |= measures["codebooks"]
    measures = _all_measures(codebooks, clips)
    if PartialState().is_main_process:
        _write_measures(arguments, measures)
    return measures


def train_network(
    arguments: PretrainArguments,
    clips: PretrainingClips,
    use_cpu: bool,
    companions: Sequence[AudioFormerModel] = (),
) -> dict[str, Any]:
    """Trains one network in `output_dir`, from its newest checkpoint if `resume` is set, and returns its measures."""
    folder = Path(arguments.output_dir)
    extractor = load_extractor(arguments.model)
    read = clips.codebooks_read(arguments.model)
    set_seed(arguments.seed)
    model = build_model(arguments.model, extractor, AudioFormerForPreTraining if companions else AudioFormerForMaskedLM)
    trainer = build_trainer(model, extractor, read, arguments, use_cpu, companions)
    trainer.train(resume_from_checkpoint=newest_complete_checkpoint(folder) if arguments.resume else None)
    counts = np.asarray(trainer.predict(CodeDataset(read.validation)).predictions)
    measures = _all_measures(measure_codebooks(counts, read, arguments.model, extractor.codebook_size), clips)
    weights = trainer.gather_weights()
    if trainer.is_world_process_zero():
        save_final(model, extractor, folder, weights)
        write_pretraining_card(
            folder,
            measures=measures,
            recipe=asdict(arguments),
            sources=arguments.data.sources,
            codec=arguments.model.codec,
            history=trainer.state.log_history,
        )
        _write_measures(arguments, measures)
        finish(trainer, folder)
    trainer.accelerator.wait_for_everyone()
    return measures


def measure_codebooks(
    counts: np.ndarray, clips: PretrainingClips, arguments: NetworkArguments, codebook_size: int
) -> dict[str, Measures]:
    """The measures of each codebook that is read, from `masked_counts` of the validation clips."""
    training, validation = ((versions[0].input_ids for versions in part) for part in (clips.training, clips.validation))
    columns = (*masked_measures(counts), *unigram_baseline(training, validation, codebook_size))
    return {
        f"C{index + 1}": Measures(
            accuracy=float(accuracy),
            perplexity=float(perplexity),
            unigram_accuracy=float(unigram_accuracy),
            unigram_perplexity=float(unigram_perplexity),
        )
        for index, accuracy, perplexity, unigram_accuracy, unigram_perplexity in zip(
            arguments.codebooks, *columns, strict=True
        )
    }


def load_extractor(arguments: NetworkArguments) -> AudioFormerFeatureExtractor:
    """A feature extractor for the codec, which gives all codebooks up to the last that is read."""
    if arguments.codec is not None:
        read_config(arguments.codec, "model.codec")
    with quiet_transformers():
        return AudioFormerFeatureExtractor.from_codec(
            arguments.codec or assets.codec_folder(),
            num_codebooks=arguments.codebooks[-1] + 1,
            rms_level_dbfs=_level_dbfs(arguments),
        )


def _level_dbfs(arguments: NetworkArguments) -> float | None:
    """As `encode` does without settings, so that pretraining takes the codes of such a store."""
    if arguments.rms_level_dbfs is None and arguments.codec is None:
        return AudioFormerFeatureExtractor.from_pretrained(assets.checkpoint_folder()).rms_level_dbfs
    return arguments.rms_level_dbfs


def build_trainer(
    model: AudioFormerForMaskedLM,
    extractor: AudioFormerFeatureExtractor,
    clips: PretrainingClips,
    arguments: PretrainArguments,
    use_cpu: bool,
    companions: Sequence[AudioFormerModel],
) -> AudioTrainer:
    """The Trainer: masks drawn anew in each epoch of training, and always the same ones for validation."""
    collator = MaskedCodeCollator(
        codebook_size=extractor.codebook_size,
        rate=arguments.mask.rate,
        span_frames=arguments.mask.span_frames,
        mask_share=arguments.mask.mask_share,
        random_share=arguments.mask.random_share,
        seed=arguments.seed,
    )
    return AudioTrainer(
        model=model,
        args=trainer_arguments_of(arguments, TRAINING_DEFAULTS, use_cpu),
        train_dataset=CodeDataset(clips.training, augmentation=_crop(arguments, extractor)),
        eval_dataset=CodeDataset(clips.validation),
        data_collator=CompanionCollator(collator) if companions else collator,
        eval_collator=replace(collator),
        objective=contrastive_objective(arguments.mpc, companions, "mlm_loss"),
        compute_metrics=_masked_accuracy,
        preprocess_logits_for_metrics=masked_counts,
        processing_class=extractor,
    )


def build_model(
    arguments: NetworkArguments,
    extractor: AudioFormerFeatureExtractor,
    model_class: type[AudioFormerForMaskedLM] = AudioFormerForMaskedLM,
) -> AudioFormerForMaskedLM:
    """A new network for the extractor's codes."""
    config = AudioFormerConfig(
        codebook_size=extractor.codebook_size,
        num_codebooks=arguments.num_codebooks,
        fusion="sum" if arguments.num_codebooks > 1 else "first",
        codebook_index=arguments.codebook_index,
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.num_hidden_layers,
        num_attention_heads=arguments.num_attention_heads,
        intermediate_size=arguments.intermediate_size,
        norm_position=arguments.norm_position,
        hidden_dropout=arguments.hidden_dropout,
        attention_dropout=0.0,  # any other value keeps scaled_dot_product_attention from its fast kernels
    )
    model = model_class(config)
    if arguments.codec_embeddings:
        start_from_codec(model, extractor.load_codec())
    return model


def _read_companions(arguments: PretrainArguments) -> list[AudioFormerModel]:
    if arguments.mpc.companions and arguments.model.fusion == "each":
        raise ValueError(
            "mpc.companions accompany one network, and model.fusion each trains several; train the network that they "
            "accompany by itself (--model.num_codebooks 1 --model.fusion sum)"
        )
    return read_companions(arguments.mpc, load_extractor(arguments.model), arguments.model.hidden_size)


def _encode(
    arguments: PretrainArguments, companions: Sequence[AudioFormerModel], device: torch.device | None
) -> PretrainingClips:
    """The codes of all sources' clips, divided at random but always in the same way."""
    extractor = with_codebooks_of(companions, load_extractor(arguments.model))
    _crop(arguments, extractor)  # raises before anything is encoded
    clips: list[Sequence[CodeVersion]] = []
    for table in _read_sources(arguments.data):
        versions = codes_of_clips(
            table, extractor, skip_bad=arguments.data.skip_bad, device=device, companions=companions
        )
        # In the order of the table, which several processes mix.
        alone: Versions = {index: versions[index][:1] for index in sorted(versions)}
        if companions:
            alone = add_companions(alone, list(alone), companions, arguments.mpc, device)
        clips += alone.values()
    return _divide(clips, arguments.data.validation_fraction, arguments.seed)


def _read_sources(arguments: SourceArguments) -> list[ClipTable]:
    """The clips of each source, without those held out."""
    hold_out = parse_hold_out(arguments.hold_out, arguments.sources)
    missing_share = MAX_BAD_SHARE if arguments.skip_bad else 0.0
    tables = [read_clips(source, needs_labels=False, missing_share=missing_share) for source in arguments.sources]
    return [
        clips.select([index for index in range(len(clips)) if index not in held]) if held else clips
        for clips, held in zip(tables, held_out_clips(arguments.sources, tables, hold_out), strict=True)
    ]


def _divide(clips: list[Sequence[CodeVersion]], fraction: float, seed: int) -> PretrainingClips:
    if len(clips) < 2:
        raise ValueError(f"data.sources give {len(clips)} clips to learn from; at least two are needed.")
    order = np.random.default_rng(seed).permutation(len(clips))
    num_validation = max(1, round(fraction * len(clips)))
    return PretrainingClips([clips[i] for i in order[num_validation:]], [clips[i] for i in order[:num_validation]])


def _crop(arguments: PretrainArguments, extractor: AudioFormerFeatureExtractor) -> CodeAugmentation:
    frames = frames_of_crop(arguments.data.crop_seconds, extractor.frame_rate)
    return CodeAugmentation(codebook_size=extractor.codebook_size, crop_frames=frames, seed=arguments.seed)


def _masked_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    accuracy, _ = masked_measures(np.asarray(prediction.predictions))
    return {"accuracy": float(accuracy.mean())}


def _all_measures(codebooks: dict[str, Measures], clips: PretrainingClips) -> dict[str, Any]:
    return {
        **mean_measures(codebooks),
        "training_clips": len(clips.training),
        "validation_clips": len(clips.validation),
        "codebooks": codebooks,
    }


def _write_measures(arguments: PretrainArguments, measures: dict[str, Any]) -> None:
    """Writes them in one atomic step, since they say that the model is finished."""
    write_json(Path(arguments.output_dir) / MEASURES_FILE, measures)
