"""What a network that is fine-tuned reads: codes, encoded once, or features, made when they are asked for."""

from collections.abc import Container, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from accelerate import PartialState
from transformers import AutoFeatureExtractor

from .. import AudioFormerConfig, AudioFormerFeatureExtractor, AudioFormerModel, AudioFormerSignalFeatureExtractor
from ..audio.augment import AudioAugmentation
from ..checkpoint_config import read_config
from ..data import ClipTable
from ..data.clip_codes import codes_of_clips
from ..data.clip_companions import first_codebooks
from ..data.code_dataset import CodeAugmentation, CodeDataset, CodeVersion, frames_of_crop
from ..data.collators import CodeCollator, CompanionCollator, SignalCollator
from ..data.running_statistics import RunningStatistics, shared_statistics
from ..data.signal_dataset import SignalDataset, check_draw
from ..data.splits import Split
from ..data.waveform_cache import WaveformCache
from ..training.classifier import ModelArguments, new_front_end
from ..training.console import quiet_transformers
from ..training.contrastive import ContrastiveArguments, add_companions, read_companions, with_codebooks_of
from ..training.model_card import AUDIOFORMER, AUDIOFORMER_OF_SIGNALS
from .inputs import OtherTargets, TrainingClips, load_extractor
from .split_training import PARTS

__all__ = ["CodeInputs", "DataArguments", "Inputs", "SignalInputs", "inputs_of_splits", "load_front_end"]

# A feature that changes less is left as it is but for its mean.
SMALLEST_STD = 1e-6

FrontEnd = AudioFormerFeatureExtractor | AudioFormerSignalFeatureExtractor


@dataclass(frozen=True)
class DataArguments(TrainingClips, OtherTargets):
    """Which clips, and what happens to them before training."""

    max_length_seconds: float | None = field(default=None, metadata={"help": "cut longer clips at the end"})
    crop_seconds: float | None = field(default=None, metadata={"help": "train on random stretches of this length"})
    mask_rate: float = field(default=0.0, metadata={"help": "share of the frames masked while training, in [0, 1)"})
    codebook_dropout: float = field(
        default=0.0,
        metadata={"help": "probability that all codebooks after a random one are masked, for models of several"},
    )


def load_front_end(source: str, model: ModelArguments, data: DataArguments) -> FrontEnd:
    """The feature extractor of the checkpoint `source`, or a new one for random weights with another front end.

    Raises:
        FileNotFoundError, NotADirectoryError: As `read_config`.
        ValueError: The checkpoint is no AudioFormer, or its weights would be asked to read something else.
    """
    read_config(source, "model.checkpoint")
    with quiet_transformers():
        loaded = AutoFeatureExtractor.from_pretrained(source)
    if isinstance(loaded, AudioFormerSignalFeatureExtractor):
        if model.front_end not in (None, loaded.kind):
            raise ValueError(
                f"model.front_end is {model.front_end}, and model.checkpoint {source} reads {loaded.kind}; leave it out"
            )
        if chosen := model.chosen_of_front_end():
            raise ValueError(f"{chosen}, and model.checkpoint {source} has a front end of its own; leave it out")
        extractor: FrontEnd = loaded
    elif model.front_end in (None, "codes") or not isinstance(loaded, AudioFormerFeatureExtractor):
        extractor = load_extractor(source, "model.checkpoint")
    elif not model.random_weights:
        raise ValueError(
            f"model.front_end is {model.front_end}, and model.checkpoint {source} reads codes, which its weights are "
            "for; set model.random_weights true, which takes its sizes alone"
        )
    else:
        extractor = new_front_end(model, loaded.rms_level_dbfs)
    if data.max_length_seconds is not None:
        extractor.max_length_seconds = data.max_length_seconds
    return extractor


class CodeInputs:
    """Codes of clips, encoded now or read from a store.

    Args:
        trained: The clips that get changed versions.
        hidden_size: Width of the network, which that of its companions must be.
        device: Where the codec runs.

    Attributes:
        companions: The networks of the contrastive loss.
        collator, eval_collator: Make the batches of training and of evaluation.
        kind, codec, details: What the card says of the inputs.
    """

    kind = AUDIOFORMER

    def __init__(
        self,
        clips: ClipTable,
        trained: Sequence[int],
        extractor: AudioFormerFeatureExtractor,
        *,
        data: DataArguments,
        augmentation: AudioAugmentation,
        mpc: ContrastiveArguments,
        hidden_size: int,
        seed: int,
        device: torch.device | None,
    ):
        _code_augmentation(extractor, data, seed)  # raises before anything is encoded
        self.clips = clips
        self.extractor = extractor
        self.codec = extractor.codec
        self.companions: list[AudioFormerModel] = read_companions(mpc, extractor, hidden_size)
        versions = codes_of_clips(
            clips,
            with_codebooks_of(self.companions, extractor),
            changed=trained,
            augmentation=augmentation,
            seed=seed,
            skip_bad=data.skip_bad,
            device=device,
            companions=self.companions,
        )
        if self.companions:
            versions = add_companions(versions, trained, self.companions, mpc, device)
            versions = first_codebooks(versions, extractor.num_codebooks)
        self.versions: Mapping[int, Sequence[CodeVersion]] = versions
        self.eval_collator = CodeCollator(extractor.special_token_id("pad"))
        self.collator = CompanionCollator(self.eval_collator) if self.companions else self.eval_collator

    def of_split(self, split: Split) -> Self:
        """These inputs: nothing of codes is measured on training clips."""
        return self

    @property
    def usable(self) -> Container[int]:
        """The clips that could be read."""
        return self.versions

    @property
    def details(self) -> Sequence[str]:
        """Sentences for the card."""
        extractor = self.extractor
        level = "" if extractor.rms_level_dbfs is None else f", brought to a level of {extractor.rms_level_dbfs:g} dBFS"
        longest = extractor.max_length_seconds
        return [
            f"It hears audio at {extractor.sampling_rate} Hz (other rates are resampled){level}: "
            f"{extractor.num_codebooks} of {extractor.codebook_size} codes for each of {extractor.frame_rate:g} frames "
            f"a second. {'Clips may have any length.' if longest is None else f'Clips are cut to {longest:g} s.'}"
        ]

    def dataset(self, indices: Sequence[int], part: str) -> CodeDataset:
        """The clips of a part, for training in all versions, otherwise in the first."""
        versions = [self.versions[index] if part == "train" else self.versions[index][:1] for index in indices]
        names = [self.clips.ids[index] for index in indices]
        return CodeDataset(versions, self.clips.targets(indices), names=names)

    def augment(self, dataset: CodeDataset, data: DataArguments, seed: int) -> None:
        """Has a training set changed each time it is read."""
        dataset.augmentation = _code_augmentation(self.extractor, data, seed)


class SignalInputs:
    """Features of clips, made of waveforms that are held in memory; normalised by the statistics of training clips
    unless the extractor has statistics already.

    Args:
        used: The clips of all parts of all splits.

    Raises:
        ValueError: A setting is for codes alone, or a clip cannot be read.
    """

    kind = AUDIOFORMER_OF_SIGNALS
    codec = None
    companions: Sequence[AudioFormerModel] = ()

    def __init__(
        self,
        clips: ClipTable,
        used: Sequence[int],
        extractor: AudioFormerSignalFeatureExtractor,
        *,
        data: DataArguments,
        augmentation: AudioAugmentation,
        mpc: ContrastiveArguments,
        seed: int,
    ):
        for name, value in (("data.codebook_dropout", data.codebook_dropout), ("mpc.companions", mpc.companions)):
            if value:
                raise ValueError(f"{name} is {value}, which is for codes; the front end reads {extractor.kind}")
        extractor.limit_samples(extractor.max_length_seconds)
        check_draw(extractor, data.crop_seconds, data.mask_rate)  # raises before anything is decoded
        self.clips = clips
        self.extractor = extractor
        self.augmentation = augmentation
        self.seed = seed
        self.waveforms = WaveformCache(clips, used, extractor.sampling_rate, skip_bad=data.skip_bad)
        self.collator = self.eval_collator = SignalCollator()

    @property
    def usable(self) -> Container[int]:
        """The clips that could be read."""
        return self.waveforms

    @property
    def details(self) -> Sequence[str]:
        """Sentences for the card."""
        kind, size = self.extractor.kind.replace("_", "-"), self.extractor.feature_size
        what = f"{kind} features ({size} per frame)" if self.extractor.is_spectral else "samples"
        return [f"It reads {what} of audio at {self.extractor.sampling_rate} Hz."]

    def of_split(self, split: Split) -> Self:
        """These inputs, normalised by the statistics of the split's training clips, unless they are given."""
        if self.extractor.mean is not None:
            return self
        own = copy(self)
        own.extractor = copy(self.extractor)
        own.extractor.set_statistics(*self._statistics(split.train))
        return own

    def dataset(self, indices: Sequence[int], part: str) -> SignalDataset:
        """As `CodeInputs.dataset`."""
        return SignalDataset(
            self.clips,
            indices,
            self.extractor,
            waveforms=self.waveforms,
            targets=self.clips.targets(indices),
            augmentation=self.augmentation if part == "train" else None,
            seed=self.seed,
        )

    def augment(self, dataset: SignalDataset, data: DataArguments, seed: int) -> None:
        """As `CodeInputs.augment`."""
        dataset.draw(crop_seconds=data.crop_seconds, mask_rate=data.mask_rate, seed=seed)

    def _statistics(self, indices: Sequence[int]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each feature over all frames of the clips."""
        clips = self.dataset(indices, "statistics")

        def of_clip(place: int) -> RunningStatistics:
            values = clips[place]["input_values"].numpy()
            return RunningStatistics.of(values.reshape(len(values), -1), axis=0)

        found = shared_statistics(len(clips), of_clip)
        if PartialState().is_main_process:
            what = "frames" if self.extractor.is_spectral else "samples"
            print(f"statistics of {found.count} {what} of its training clips")
        is_constant = found.std < SMALLEST_STD  # the lowest mel bands can be narrower than a frequency
        if is_constant.all():
            raise ValueError("all frames of the training clips are the same (silence?)")
        return list(found.mean), list(np.where(is_constant, 1.0, found.std))


Inputs = CodeInputs | SignalInputs


def inputs_of_splits(
    clips: ClipTable,
    splits: Sequence[Split],
    extractor: FrontEnd,
    *,
    source: str,
    data: DataArguments,
    augmentation: AudioAugmentation,
    mpc: ContrastiveArguments,
    seed: int,
    device: torch.device | None,
) -> Inputs:
    """The inputs that the extractor is for.

    Raises:
        ValueError: As the two kinds.
    """
    if isinstance(extractor, AudioFormerSignalFeatureExtractor):
        used = sorted({index for split in splits for part in PARTS for index in getattr(split, part)})
        return SignalInputs(clips, used, extractor, data=data, augmentation=augmentation, mpc=mpc, seed=seed)
    config = AudioFormerConfig.from_pretrained(source)
    if data.codebook_dropout and config.num_codebooks == 1:
        raise ValueError(
            f"data.codebook_dropout is {data.codebook_dropout}, and model.checkpoint reads one codebook; leave it at "
            "0, or take a checkpoint of several."
        )
    return CodeInputs(
        clips,
        sorted({index for split in splits for index in split.train}),
        extractor,
        data=data,
        augmentation=augmentation,
        mpc=mpc,
        hidden_size=config.hidden_size,
        seed=seed,
        device=device,
    )


def _code_augmentation(extractor: AudioFormerFeatureExtractor, data: DataArguments, seed: int) -> CodeAugmentation:
    return CodeAugmentation(
        codebook_size=extractor.codebook_size,
        mask_rate=data.mask_rate,
        crop_frames=frames_of_crop(data.crop_seconds, extractor.frame_rate),
        codebook_dropout=data.codebook_dropout,
        seed=seed,
    )
