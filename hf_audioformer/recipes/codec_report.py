"""Measuring a codec made by `train-codec`: perplexity of each codebook, log-mel distance of decoded clips beside that
of a random encoder with fitted codebooks, and what a bag-of-codes classifier makes of ESC-10."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import assets
from ..audio.io import Audio
from ..audio.log_mel import log_mel_distance
from ..data.readers import read_clips
from ..inference.listening import encode_clip
from ..models.audioformer.codec_audioformer import AudioCodec
from ..models.audioformer.waveform_audioformer import resample
from ..training.arguments import parse_config
from ..training.floor import code_histogram, floor_metrics
from .codec_clips import load_waveforms, set_level
from .train_codec import ARGUMENTS_FILE, CodecTrainer, TrainCodecArguments

__all__ = [
    "CodecReportArguments",
    "bag_of_codes_folds",
    "codebook_perplexities",
    "main",
    "random_reference",
]

ESC10_SECONDS = 5.0


@dataclass(frozen=True)
class CodecReportArguments:
    """All settings of the report."""

    codec: str = field(
        default_factory=assets.codec_folder, metadata={"help": "folder of a codec made by hf-audioformer train-codec"}
    )
    sources: list[str] | None = field(
        default=None,
        metadata={"help": "clips to measure on, as for train-codec; by default those its training held out"},
    )
    esc10: bool = field(default=False, metadata={"help": "also classify the folds of ESC-10 from the codes"})


def codebook_perplexities(codes: Sequence[Tensor], codebook_size: int) -> list[float]:
    """exp(entropy) of the codes of each codebook over all clips: from 1 to `codebook_size`."""
    perplexities = []
    for row in torch.cat(list(codes), dim=1):
        shares = torch.bincount(row, minlength=codebook_size) / len(row)
        perplexities.append(torch.special.entr(shares).sum().exp().item())
    return perplexities


def random_reference(arguments: TrainCodecArguments, clips: Sequence[Tensor]) -> AudioCodec:
    """A codec of random weights (another seed), its codebooks fitted to its latents of `clips`."""
    trainer = CodecTrainer(replace(arguments, seed=arguments.seed + 1), clips)
    trainer.fit_codebooks()
    return AudioCodec(trainer.model)


def bag_of_codes_folds(codec: AudioCodec, rms_level_dbfs: float) -> dict[int, float]:
    """Accuracy (0 to 1) on each fold of ESC-10 of logistic regression on the codes' histograms of the other three."""
    clips = read_clips("esc10")
    labels, folds = clips.targets(), np.asarray(clips.column("fold"))
    codes = [encode_clip(codec, _five_seconds(clips.load(i), codec, rms_level_dbfs)) for i in range(len(clips))]
    histograms = np.stack([code_histogram(of_clip, codec.codebook_size) for of_clip in codes])
    accuracies = {}
    for fold in sorted(set(folds.tolist())):
        train, test = folds != fold, folds == fold
        accuracies[fold] = floor_metrics(
            histograms[train],
            labels[train],
            histograms[test],
            labels[test],
            num_labels=len(clips.label_names),
            standardise=False,
        )["accuracy"]
    return accuracies


def _five_seconds(audio: Audio, codec: AudioCodec, rms_level_dbfs: float) -> Tensor:
    rate = codec.sampling_rate
    waveform = resample(torch.from_numpy(audio["array"]), audio["sampling_rate"], rate)[: int(ESC10_SECONDS * rate)]
    return F.pad(set_level(waveform, rms_level_dbfs), (0, int(ESC10_SECONDS * rate) - len(waveform)))


def _mean_distance(codec: AudioCodec, clips: Sequence[Tensor], codes: Sequence[Tensor], level: float | None) -> float:
    """Mean `log_mel_distance` over clips; with `level` (dBFS) the decoded clips are brought to it first."""
    distances = []
    for clip, clip_codes in zip(clips, codes, strict=True):
        decoded = codec.decode(clip_codes[None])[0]
        decoded = decoded if level is None else set_level(decoded, level)
        distances.append(log_mel_distance(decoded, clip, codec.sampling_rate))
    return float(np.mean(distances))


def _print_distances(
    codec: AudioCodec, arguments: TrainCodecArguments, clips: Sequence[Tensor], *, are_unseen: bool
) -> None:
    size, level = arguments.codebook_size, arguments.rms_level_dbfs
    seconds = sum(map(len, clips)) / arguments.sampling_rate
    print(f"{len(clips)} clips{' never heard in training' if are_unseen else ''}, {seconds:.0f} s")
    codes = [encode_clip(codec, clip) for clip in clips]
    for index, perplexity in enumerate(codebook_perplexities(codes, size)):
        print(f"codebook {index}: perplexity {perplexity:.0f} of {size}, {perplexity / size:.0%}")
    trained = _mean_distance(codec, clips, codes, None)
    heard = load_waveforms(arguments.sources, arguments.hold_out, arguments.sampling_rate, level)
    reference = random_reference(arguments, heard)
    random = _mean_distance(reference, clips, [encode_clip(reference, clip) for clip in clips], level)
    print(
        f"log-mel distance {trained:.3f}; random encoder, fitted codebooks {random:.3f} ({trained / random - 1:+.0%})"
    )


def main(argv: list[str]) -> None:
    """Measures as a config file and command-line options say."""
    options = parse_config(CodecReportArguments, argv, description=__doc__ or "")
    settings = Path(options.codec) / ARGUMENTS_FILE
    if not settings.is_file():
        raise FileNotFoundError(
            f"codec is {options.codec}, which has no {ARGUMENTS_FILE}; name a folder that train-codec wrote"
        )
    arguments = parse_config(TrainCodecArguments, [str(settings)], description="")
    codec = AudioCodec.from_pretrained(options.codec)
    rate, level = arguments.sampling_rate, arguments.rms_level_dbfs
    if options.sources is None:
        clips = load_waveforms(arguments.sources, arguments.hold_out, rate, level, only_held_out=True)
    else:
        clips = load_waveforms(options.sources, [], rate, level)
    _print_distances(codec, arguments, clips, are_unseen=options.sources is None)
    if options.esc10:
        accuracies = bag_of_codes_folds(codec, level)
        each = ", ".join(f"fold {fold} {accuracy:.1%}" for fold, accuracy in accuracies.items())
        print(f"bag of codes on ESC-10: mean {np.mean(list(accuracies.values())):.1%} ({each})")
        print(f"heard in training, without labels: {arguments.sources}, but not {arguments.hold_out}")
