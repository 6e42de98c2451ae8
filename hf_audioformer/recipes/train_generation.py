"""Trains a model that generates clips: without noise (denoise), from their beginning (continue), or with a stretch that
it does not hear (inpaint). Clean clips are all it needs.

    hf-audioformer train-generation denoise_fsdd
    hf-audioformer train-generation --data.source my_clips --output_dir my_denoiser
    hf-audioformer generate my_denoiser noisy.wav --task denoise --output_dir cleaned

The model has an encoder, which hears, and a decoder; with `--model.causal true --tasks '["continue"]'` a decoder alone,
which goes on from what a clip begins with. Labels are not looked at. What comes out on clips that it never learnt from
is measured, beside what it heard and beside the codec's own round trip of the clean clip, which is the best that codes
can give, and written as wav files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import set_seed

from .. import (
    AudioFormerConfig,
    AudioFormerFeatureExtractor,
    AudioFormerForCausalLM,
    AudioFormerForConditionalGeneration,
    assets,
)
from ..audio import Audio
from ..audio.augment import AudioAugmentation
from ..data import ClipTable
from ..data.clip_codes import codes_of_clips, version_loader
from ..data.code_dataset import CodeVersion, frames_of_crop
from ..data.collators import GenerationCollator
from ..data.generation_dataset import TASKS, GenerationDataset, Task
from ..data.hold_out import held_out_clips, parse_hold_out
from ..models.audioformer.generation_audioformer import AudioFormerGenerativeModel
from ..training.arguments import parse_config
from ..training.checkpoints import newest_complete_checkpoint, save_final
from ..training.classifier import with_settings
from ..training.console import quiet_transformers
from ..training.json_file import write_json
from ..training.model_card import write_generation_card
from ..training.output import resumable
from ..training.trainer import AudioTrainer
from .generation_measures import ExampleClip, format_generation, measure_generation
from .inputs import ReadingArguments, load_extractor, read
from .training_run import MEASURES_FILE, begin, claim_output, finish, finished_measures, trainer_arguments_of

__all__ = ["TrainGenerationArguments", "main", "run"]


TRAINING_DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 12,
    "learning_rate": 5e-4,
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
    "prediction_loss_only": True,
    "report_to": "none",
}


@dataclass(frozen=True)
class GenerationData(ReadingArguments):
    """Which clips, and which of them are never learnt from."""

    hold_out: list[str] = field(
        default_factory=list, metadata={"help": "clips to measure on alone, each as COLUMN=VALUE (speaker=theo)"}
    )
    validation_fraction: float = field(
        default=0.1, metadata={"help": "share of the clips to measure on, if hold_out names none"}
    )
    crop_seconds: float | None = field(default=5.0, metadata={"help": "learn from random stretches of this length"})
    skip_bad: bool = field(default=True, metadata={"help": "leave out clips that cannot be read, and list them"})


@dataclass(frozen=True)
class NoiseArguments:
    """What the task denoise hears."""

    copies: int = field(default=3, metadata={"help": "noises for each clip, encoded once; each epoch draws one"})
    snr_db: tuple[float, float] = field(
        default=(0.0, 15.0), metadata={"help": "range of signal-to-noise ratios of the noise, in dB"}
    )


@dataclass(frozen=True)
class GeneratorArguments:
    """The network."""

    checkpoint: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id of a pretrained AudioFormer of codes, the encoder; the bundled one"},
    )
    causal: bool = field(
        default=False,
        metadata={"help": "no encoder: the checkpoint's layers go on from what a clip begins with (continue alone)"},
    )
    decoder_layers: int = field(default=4, metadata={"help": "layers of the decoder behind an encoder"})
    hidden_dropout: float = field(default=0.1, metadata={"help": "dropout, in [0, 1)"})
    condition_dropout: float = field(
        default=0.1, metadata={"help": "share of clips that a decoder learns without its encoder; for guidance"}
    )

    @property
    def model_class(self) -> type[AudioFormerGenerativeModel]:
        """What is trained."""
        return AudioFormerForCausalLM if self.causal else AudioFormerForConditionalGeneration


@dataclass(frozen=True)
class MeasureArguments:
    """How the clips that were not learnt from are generated and measured."""

    clips: int = field(default=50, metadata={"help": "so many of them at most, drawn at random"})
    examples: int = field(default=4, metadata={"help": "so many of them are written as wav files"})
    do_sample: bool = field(default=False, metadata={"help": "draw codes instead of taking the likeliest ones"})
    guidance_scale: float | None = field(default=None, metadata={"help": "above 1: more of what is heard"})


@dataclass(frozen=True)
class TrainGenerationArguments:
    """All settings of the recipe."""

    data: GenerationData
    output_dir: str = field(metadata={"help": "where checkpoints, the final model and the examples go"})
    tasks: list[Task] = field(
        default_factory=lambda: ["denoise"], metadata={"help": "any of denoise, continue, inpaint; drawn clip by clip"}
    )
    noise: NoiseArguments = field(default_factory=NoiseArguments)
    model: GeneratorArguments = field(default_factory=GeneratorArguments)
    measure: MeasureArguments = field(default_factory=MeasureArguments)
    training: dict[str, Any] = field(
        default_factory=lambda: dict(TRAINING_DEFAULTS), metadata={"keywords_of": "transformers.TrainingArguments"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the weights, the order, the noise and what is hidden"})
    resume: bool = field(default=False, metadata={"help": "go on from the newest complete checkpoint"})
    overwrite: bool = field(default=False, metadata={"help": "delete what is in output_dir"})
    world_size: int | None = field(default=None, metadata={"help": "processes that must train together; checked"})

    def __post_init__(self) -> None:
        if not self.tasks or not set(self.tasks) <= set(TASKS):
            raise ValueError(f"tasks is {self.tasks}; give one or more of {', '.join(TASKS)}")
        if self.model.causal and self.tasks != ["continue"]:
            raise ValueError(
                f'model.causal is set and tasks {self.tasks}; without an encoder it can be ["continue"] alone'
            )
        if self.model.causal and self.measure.guidance_scale is not None:
            raise ValueError(
                f"model.causal is set and measure.guidance_scale {self.measure.guidance_scale}; without an encoder "
                "there is nothing to be guided by"
            )
        for name, count in (("noise.copies", self.noise.copies), ("measure.clips", self.measure.clips)):
            if count < 1:
                raise ValueError(f"{name} is {count}; it must be at least 1")


def main(argv: list[str]) -> None:
    """Runs the recipe from a config file and command-line options."""
    arguments = parse_config(TrainGenerationArguments, argv, description=__doc__ or "")
    with resumable(arguments.output_dir):
        run(arguments)


def run(arguments: TrainGenerationArguments) -> dict[str, Any]:
    """Trains, saves model, feature extractor and codec in `output_dir`, and returns and prints the measures.

    They are, for each task, those of `measure_generation`; and `training_clips` and `validation_clips`.

    Raises:
        FileExistsError: `output_dir` holds something and neither `resume` nor `overwrite` is set, or is not ours.
        ValueError: Data, settings or the launch do not fit; the message says what to change.
    """
    arguments, use_cpu = begin(arguments, TRAINING_DEFAULTS)
    measures = finished_measures(arguments)
    if measures is None:
        # What the Trainer refuses is said before anything is encoded or claimed.
        trainer_arguments_of(arguments, TRAINING_DEFAULTS, use_cpu)
        extractor = load_extractor(_checkpoint(arguments), "model.checkpoint")
        # And so is what these two refuse.
        config = _config(arguments, extractor)
        frames_of_crop(arguments.data.crop_seconds, extractor.frame_rate)
        clips = _encode(_divide(arguments, extractor), arguments, None if use_cpu else PartialState().device)
        claim_output(arguments)
        measures = train(arguments, clips, config, use_cpu)
    if PartialState().is_main_process:
        print(format_generation(measures["tasks"]))
        print(f"The model is in {arguments.output_dir}, what it generates in {Path(arguments.output_dir) / 'examples'}")
    return measures


@dataclass(frozen=True)
class GenerationClips:
    """The clips to learn from and to measure on, and the codes of each, the clean ones first, then those in noise."""

    extractor: AudioFormerFeatureExtractor
    training: ClipTable
    validation: ClipTable
    training_codes: Mapping[int, Sequence[CodeVersion]] = field(default_factory=dict)
    validation_codes: Mapping[int, Sequence[CodeVersion]] = field(default_factory=dict)


def train(
    arguments: TrainGenerationArguments, clips: GenerationClips, config: AudioFormerConfig, use_cpu: bool
) -> dict[str, Any]:
    """Trains in `output_dir`, from the newest checkpoint if `resume` is set, and returns the measures."""
    folder, extractor = Path(arguments.output_dir), clips.extractor
    set_seed(arguments.seed)
    model = _model(arguments, config)
    trainer = _trainer(model, clips, arguments, use_cpu)
    trainer.train(resume_from_checkpoint=newest_complete_checkpoint(folder) if arguments.resume else None)
    weights = trainer.gather_weights()
    measures: dict[str, Any] = {}
    if trainer.is_world_process_zero():
        save_final(model, extractor, folder, weights)
        with quiet_transformers():  # the trained one may hold shards alone
            saved: Any = arguments.model.model_class.from_pretrained(folder, dtype=torch.float32)
        saved.to(trainer.args.device).eval()
        measures = {
            "training_clips": len(clips.training_codes),
            "validation_clips": len(clips.validation_codes),
            "tasks": {task: _measure(task, saved, clips, arguments) for task in arguments.tasks},
        }
        write_generation_card(
            folder,
            table=format_generation(measures["tasks"]),
            clips=(measures["training_clips"], measures["validation_clips"]),
            recipe=asdict(arguments),
            source=arguments.data.source,
            base_model=arguments.model.checkpoint,
            causal=arguments.model.causal,
            history=trainer.state.log_history,
        )
        write_json(folder / MEASURES_FILE, measures)
        finish(trainer, folder)
    trainer.accelerator.wait_for_everyone()
    return measures


def _divide(arguments: TrainGenerationArguments, extractor: AudioFormerFeatureExtractor) -> GenerationClips:
    data = arguments.data
    clips = read(data, needs_labels=False)
    if clips.codes is not None:
        raise ValueError(
            f"data.source is {data.source}, a code store; what is generated is compared with sound, so give the clips"
        )
    random = np.random.default_rng(arguments.seed)
    held = held_out_clips([data.source], [clips], parse_hold_out(data.hold_out, [data.source]))[0]
    if not data.hold_out:
        held = set(random.permutation(len(clips))[: max(1, round(data.validation_fraction * len(clips)))].tolist())
    if len(held) == len(clips):
        raise ValueError(f"data.source has {len(clips)} clips, all of which are held out; none is left to learn from")
    measured = sorted(random.permutation(sorted(held))[: arguments.measure.clips].tolist())
    training = [index for index in range(len(clips)) if index not in held]
    return GenerationClips(extractor, clips.select(training), clips.select(measured))


def _encode(
    clips: GenerationClips, arguments: TrainGenerationArguments, device: torch.device | None
) -> GenerationClips:
    """The codes of the clips, in noise too if a task needs it; those to measure on in one noise each."""
    codes = [
        codes_of_clips(
            table,
            clips.extractor,
            changed=range(len(table)),
            augmentation=_noise(arguments, copies) if "denoise" in arguments.tasks else None,
            seed=seed,
            skip_bad=arguments.data.skip_bad,
            device=device,
        )
        for table, copies, seed in (
            (clips.training, arguments.noise.copies, arguments.seed),
            (clips.validation, 1, _validation_seed(arguments)),
        )
    ]
    return replace(clips, training_codes=codes[0], validation_codes=codes[1])


def _noise(arguments: TrainGenerationArguments, copies: int) -> AudioAugmentation:
    """Nothing but noise, so that each frame has its own clean one."""
    return AudioAugmentation(
        copies=copies, speed=(1.0, 1.0), gain_db=(0.0, 0.0), noise_snr_db=arguments.noise.snr_db, shift=0.0
    )


def _validation_seed(arguments: TrainGenerationArguments) -> int:
    """Of the noise that is measured in: not that of the clip at the same place among those to learn from."""
    return arguments.seed + 1


def _trainer(
    model: AudioFormerGenerativeModel, clips: GenerationClips, arguments: TrainGenerationArguments, use_cpu: bool
) -> AudioTrainer:
    extractor = clips.extractor
    heard = GenerationDataset(
        _in_order(clips.training_codes),
        tasks=arguments.tasks,
        tokens=None if arguments.model.causal else extractor.tokens,
        codebook_size=extractor.codebook_size,
        crop_frames=frames_of_crop(arguments.data.crop_seconds, extractor.frame_rate),
        seed=arguments.seed,
    )
    return AudioTrainer(
        model=model,
        args=trainer_arguments_of(arguments, TRAINING_DEFAULTS, use_cpu),
        train_dataset=heard,
        eval_dataset=replace(heard, versions=_in_order(clips.validation_codes), crop_frames=None),
        data_collator=GenerationCollator(extractor.special_token_id("pad")),
        processing_class=extractor,
    )


def _in_order(codes: Mapping[int, Sequence[CodeVersion]]) -> list[Sequence[CodeVersion]]:
    """The versions of the clips in the order of their table, which several processes mix."""
    return [codes[index] for index in sorted(codes)]


def _config(arguments: TrainGenerationArguments, extractor: AudioFormerFeatureExtractor) -> AudioFormerConfig:
    """The checkpoint's configuration with the settings of the model.

    Raises:
        ValueError: A setting is out of range, or the checkpoint does not read the first codebooks, which make sound.
    """
    model, stored = arguments.model, AudioFormerConfig.from_pretrained(_checkpoint(arguments))
    if stored.num_codebooks != extractor.num_codebooks:
        raise ValueError(
            f"model.checkpoint reads codebook {stored.codebook_index + 1} alone of {extractor.num_codebooks}, which "
            'makes no sound; give one of the first codebook, or of several with fusion="sum"'
        )
    settings = ("decoder_layers", "hidden_dropout", "condition_dropout")
    return with_settings(stored, {name: getattr(model, name) for name in settings})


def _model(arguments: TrainGenerationArguments, config: AudioFormerConfig) -> AudioFormerGenerativeModel:
    """The encoder of the checkpoint, with a new decoder that knows its codes; or its layers as the decoder."""
    with quiet_transformers():
        return arguments.model.model_class.from_pretrained(_checkpoint(arguments), config=config, dtype=torch.float32)


def _checkpoint(arguments: TrainGenerationArguments) -> str:
    return arguments.model.checkpoint or assets.checkpoint_folder()


def _measure(
    task: Task, model: AudioFormerGenerativeModel, clips: GenerationClips, arguments: TrainGenerationArguments
) -> dict[str, Any]:
    readable = sorted(clips.validation_codes)
    heard: Callable[[int], Audio] = clips.validation.load
    if task == "denoise":
        heard = version_loader(clips.validation, _noise(arguments, 1), _validation_seed(arguments), 1)
    chosen = [
        ExampleClip(clips.validation.ids[index], clips.validation.load(index), heard(index)) for index in readable
    ]
    how = {"do_sample": arguments.measure.do_sample, "guidance_scale": arguments.measure.guidance_scale}
    return measure_generation(
        task,
        model,
        clips.extractor,
        chosen,
        folder=Path(arguments.output_dir) / "examples",
        examples=arguments.measure.examples,
        seed=arguments.seed,
        **how,
    )
