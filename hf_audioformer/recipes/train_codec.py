"""Train a small EnCodec on any clips: encoder, then decoder, then codebooks with both, then the decoder alone.

    python -m hf_audioformer.recipes.train_codec [CONFIG] [--field value ...]

`--help` lists the settings; the preset `train_codec` made the codec that ships with the package. Latents are drawn
towards log-mel frames, so that sounds alike have latents near each other and codes tell sounds apart; no label is used.
The codebooks start from residual k-means of the latents and follow them by moving averages.
"""

import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import EncodecConfig, EncodecModel

from ..audio.log_mel import mel_filterbank
from ..codes.residual_codebooks import EmaResidualQuantizer, fit_residual_codebooks, set_codebooks
from ..codes.small_encodec import decode_latents, encode_latents, random_encodec
from ..training.arguments import dump_config, parse_config
from ..training.launch import check_launch
from .codec_clips import load_waveforms

__all__ = ["ARGUMENTS_FILE", "CodecTrainer", "TrainCodecArguments", "main", "run"]

STATE_FILE = "training_state.pt"
ARGUMENTS_FILE = "train_codec.yaml"
# Band powers are floored this far (dB) under a white noise of the clips' level. The latents' floor is high: with it,
# k-means of log-mel frames tells the classes of ESC-10 apart best. The loss has a lower one, to make quiet parts quiet.
LATENT_FLOOR_DB = -30.0
LOSS_FLOOR_DB = -50.0
LATENT_WINDOW_SAMPLES = 1024
LOSS_WINDOWS = {512: 40, 1024: 64, 2048: 80}  # FFT length in samples: mel bands


@dataclass
class TrainCodecArguments:
    """Settings of `train_codec`."""

    output_dir: str = field(metadata={"help": "folder of the finished codec; training state lies there meanwhile"})
    sources: list[str] = field(metadata={"help": "folders of audio files, or anything `read_clips` reads"})
    hold_out: list[str] = field(
        default_factory=list, metadata={"help": "clips to leave out, each as [SOURCE:]COLUMN=VALUE (esc10:fold=5)"}
    )
    sampling_rate: int = field(default=24_000, metadata={"help": "of the codec, in Hz"})
    upsampling_ratios: list[int] = field(
        default_factory=lambda: [8, 5, 4, 2], metadata={"help": "the decoder's strides; their product is the hop"}
    )
    num_filters: int = field(default=8, metadata={"help": "channels at the full rate, doubled by each stride"})
    hidden_size: int = field(default=64, metadata={"help": "dimensions of a latent, and mel bands it is drawn to"})
    codebook_size: int = field(default=256, metadata={"help": "entries of a codebook"})
    num_codebooks: int = field(default=4, metadata={"help": "codebooks, each coding what the ones before leave"})
    rms_level_dbfs: float = field(default=-23.0, metadata={"help": "level that clips are brought to"})
    level_jitter_db: float = field(default=3.0, metadata={"help": "levels differ from it by at most so much"})
    encoder_steps: int = field(default=1500, metadata={"help": "first steps: the encoder alone, towards log-mels"})
    autoencoder_steps: int = field(default=1000, metadata={"help": "next steps: encoder and decoder, no codebooks"})
    quantized_steps: int = field(default=900, metadata={"help": "next steps: encoder, codebooks and decoder"})
    decoder_steps: int = field(
        default=1500, metadata={"help": "last steps: the decoder alone, the codes being settled"}
    )
    batch_seconds: float = field(default=8.0, metadata={"help": "audio per step"})
    crop_seconds: list[float] = field(
        default_factory=lambda: [0.5, 1.0, 2.0], metadata={"help": "lengths of crops; each step draws one"}
    )
    learning_rate: float = field(default=2e-3, metadata={"help": "peak, after the warm-up; falls as a cosine to 5 %"})
    warmup_steps: int = field(default=100, metadata={"help": "steps in which the learning rate rises"})
    waveform_weight: float = field(
        default=0.3, metadata={"help": "of the difference of waveforms; 0 in the last steps, where it mutes loud parts"}
    )
    mel_weight: float = field(default=1.0, metadata={"help": "of the difference of log-mels at several scales"})
    latent_weight: float = field(default=1.0, metadata={"help": "of the distance of latents from log-mel frames"})
    reconstruction_share: float = field(
        default=0.02, metadata={"help": "of the decoder's gradient that reaches the encoder, where it swamps the rest"}
    )
    commitment_weight: float = field(default=0.25, metadata={"help": "of the distance of latents from their codes"})
    fitting_seconds: float = field(default=300.0, metadata={"help": "audio that k-means is fitted to"})
    checkpoint_steps: int = field(default=200, metadata={"help": "steps between checkpoints"})
    seed: int = field(default=0, metadata={"help": "of the weights, crops and k-means"})

    def __post_init__(self) -> None:
        for name in ("sources", "upsampling_ratios", "crop_seconds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")
        if self.codebook_size < 2 or self.codebook_size & (self.codebook_size - 1):
            raise ValueError(f"codebook_size is {self.codebook_size}; it must be a power of two, such as 256")
        if self.warmup_steps < 1:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; it must be at least 1")
        if max(self.crop_seconds) > self.batch_seconds:
            raise ValueError(f"crop_seconds {max(self.crop_seconds)} exceeds batch_seconds {self.batch_seconds}")
        if self.checkpoint_steps < 1:
            raise ValueError(f"checkpoint_steps is {self.checkpoint_steps}; it must be at least 1")
        frames = round(self.fitting_seconds) * max(1, round(self.sampling_rate / self.hop_samples))
        if frames < self.codebook_size:
            raise ValueError(
                f"fitting_seconds is {self.fitting_seconds}, which has {frames} frames, too few to fit "
                f"{self.codebook_size} entries to (codebook_size); fit to more"
            )

    @property
    def hop_samples(self) -> int:
        return math.prod(self.upsampling_ratios)

    @property
    def bits_per_code(self) -> int:
        return self.codebook_size.bit_length() - 1

    @property
    def level(self) -> float:
        """The root mean square that `rms_level_dbfs` stands for."""
        return 10 ** (self.rms_level_dbfs / 20)


def build_codec(arguments: TrainCodecArguments) -> EncodecModel:
    """The causal `EncodecModel` that `arguments` describe, its weights random and its codebooks empty."""
    kbps_per_codebook = math.ceil(arguments.sampling_rate / arguments.hop_samples) * arguments.bits_per_code / 1000
    config = EncodecConfig(
        sampling_rate=arguments.sampling_rate,
        upsampling_ratios=arguments.upsampling_ratios,
        num_filters=arguments.num_filters,
        hidden_size=arguments.hidden_size,
        codebook_size=arguments.codebook_size,
        target_bandwidths=[count * kbps_per_codebook for count in range(1, arguments.num_codebooks + 1)],
        num_lstm_layers=1,
        use_conv_shortcut=False,
        pad_mode="constant",
    )
    return random_encodec(config, level=arguments.level, seed=arguments.seed)


@lru_cache(maxsize=8)
def _mel_analysis(window_samples: int, num_mel_bins: int, sampling_rate: int) -> tuple[Tensor, Tensor]:
    """The window, and filters that turn its power spectrum into each band's mean power."""
    window = torch.hann_window(window_samples)
    filters = mel_filterbank(num_mel_bins, window_samples, sampling_rate)
    filters = filters / filters.sum(0).clamp(min=1e-3) / window.square().sum()
    return window, filters.float()


def log_mel_bands(
    waveforms: Tensor, sampling_rate: int, num_mel_bins: int, window_samples: int, hop_samples: int, floor: float
) -> Tensor:
    """log10 of (mean power per mel band + floor), (batch, frames, num_mel_bins); frames centred on multiples of hop.

    A white noise has its variance in every band, so `floor` is on the scale of the waveforms' power.
    """
    window, filters = _mel_analysis(window_samples, num_mel_bins, sampling_rate)
    spectrum = torch.stft(
        waveforms, window_samples, hop_samples, window=window, pad_mode="constant", return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    return (power.transpose(1, 2) @ filters + floor).log10()


def latent_targets(waveforms: Tensor, arguments: TrainCodecArguments) -> Tensor:
    """Log-mel frames (batch, frames, hidden_size) in units of 10 dB; their windows end where the frames end."""
    lead = LATENT_WINDOW_SAMPLES // 2 - arguments.hop_samples
    shifted = F.pad(waveforms, (lead, 0)) if lead >= 0 else waveforms[:, -lead:]
    bands = log_mel_bands(
        shifted,
        arguments.sampling_rate,
        arguments.hidden_size,
        LATENT_WINDOW_SAMPLES,
        arguments.hop_samples,
        arguments.level**2 * 10 ** (LATENT_FLOOR_DB / 10),
    )
    return bands[:, : waveforms.shape[1] // arguments.hop_samples]


class CodecTrainer:
    """One training: the model, its optimizer and the clips; every random draw is keyed by (seed, step)."""

    def __init__(self, arguments: TrainCodecArguments, clips: Sequence[Tensor]) -> None:
        self.arguments = arguments
        self.clips = clips
        self.lengths = torch.tensor([float(len(clip)) for clip in clips])
        self.step = 0
        self.model = build_codec(arguments)
        self.quantizer = EmaResidualQuantizer(self.model.quantizer)
        self.optimizer = self._new_optimizer()
        targets = latent_targets(self._crops(0, 128, 1.0), arguments)
        self.target_mean, self.target_scale = targets.mean((0, 1)), targets.std()

    @property
    def total_steps(self) -> int:
        return self.decoder_from + self.arguments.decoder_steps

    @property
    def decoder_from(self) -> int:
        """The step from which only the decoder learns."""
        return self.quantized_from + self.arguments.quantized_steps

    @property
    def quantized_from(self) -> int:
        """The step at which the codebooks are fitted."""
        return self.arguments.encoder_steps + self.arguments.autoencoder_steps

    def train_step(self) -> dict[str, float]:
        """One step of the stage that `step` is in; returns the losses."""
        arguments = self.arguments
        if self.step == self.quantized_from:
            self.fit_codebooks()
        if self.step == self.decoder_from:
            self._settle_codes()
        generator = self._generator(self.step)
        seconds = arguments.crop_seconds[
            int(torch.randint(len(arguments.crop_seconds), (1,), generator=generator).item())
        ]
        waveforms = self._crops(self.step, round(arguments.batch_seconds / seconds), seconds)
        losses = self._losses(waveforms, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = arguments.learning_rate * self._learning_rate_factor()
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss is {loss.item()} at step {self.step + 1}; nothing was saved since the last state. Start "
                "again with a lower learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for part in (self.model.encoder, self.model.decoder):
            torch.nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def _losses(self, waveforms: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        arguments = self.arguments
        latents = encode_latents(self.model, waveforms)
        if self.step >= self.decoder_from:
            return {"mel": arguments.mel_weight * self._mel_loss(self._decode_settled(latents), waveforms)}
        targets = (latent_targets(waveforms, arguments) - self.target_mean) / self.target_scale
        losses = {"latent": arguments.latent_weight * F.mse_loss(latents, targets)}
        if self.step < arguments.encoder_steps:
            return losses
        if self.step >= self.quantized_from:
            latents, commitment = self.quantizer(latents, generator)
            losses["commitment"] = arguments.commitment_weight * commitment
        decoded = decode_latents(self.model, torch.lerp(latents.detach(), latents, arguments.reconstruction_share))
        losses["waveform"] = arguments.waveform_weight * F.l1_loss(decoded, waveforms) / arguments.level
        losses["mel"] = arguments.mel_weight * self._mel_loss(decoded, waveforms)
        return losses

    def _mel_loss(self, decoded: Tensor, waveforms: Tensor) -> Tensor:
        rate, floor = self.arguments.sampling_rate, self.arguments.level**2 * 10 ** (LOSS_FLOOR_DB / 10)
        differences = [
            F.l1_loss(
                log_mel_bands(decoded, rate, bands, window, window // 4, floor),
                log_mel_bands(waveforms, rate, bands, window, window // 4, floor),
            )
            for window, bands in LOSS_WINDOWS.items()
        ]
        return torch.stack(differences).mean()

    def _decode_settled(self, latents: Tensor) -> Tensor:
        quantizer = self.model.quantizer
        return decode_latents(self.model, quantizer.decode(quantizer.encode(latents.transpose(1, 2))).transpose(1, 2))

    def _learning_rate_factor(self) -> float:
        """A warm-up and a cosine for the steps that settle the codes, and again for those of the decoder alone."""
        step, steps = self.step, self.decoder_from
        if step >= self.decoder_from:
            step, steps = step - self.decoder_from, self.arguments.decoder_steps
        warmup = min(1.0, (step + 1) / self.arguments.warmup_steps)
        return warmup * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, lr=self.arguments.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)

    def _settle_codes(self) -> None:
        self.model.encoder.requires_grad_(False)
        self.optimizer = self._new_optimizer()

    @torch.no_grad()
    def fit_codebooks(self) -> None:
        """Fill the codebooks by residual k-means of the latents of random crops."""
        arguments = self.arguments
        generator = self._generator(-1)
        crops = self._crops(-1, round(arguments.fitting_seconds), 1.0)
        latents = torch.cat([encode_latents(self.model, batch).flatten(0, 1) for batch in crops.split(8)])
        codebooks = fit_residual_codebooks(
            latents, arguments.num_codebooks, arguments.codebook_size, generator=generator
        )
        set_codebooks(self.model.quantizer, latents, codebooks)

    def _generator(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.arguments.seed * 1_000_003 + step + 1)

    def _crops(self, step: int, count: int, seconds: float) -> Tensor:
        """Random crops (count, samples) at random levels; long clips are drawn more often, short ones padded."""
        generator = self._generator(step)
        samples = max(1, round(seconds * self.arguments.sampling_rate / self.arguments.hop_samples))
        samples *= self.arguments.hop_samples
        crops = torch.zeros(count, samples)
        for row, index in enumerate(torch.multinomial(self.lengths, count, replacement=True, generator=generator)):
            clip = self.clips[index]
            room = len(clip) - samples
            shift = int(torch.randint(abs(room) + 1, (1,), generator=generator).item())
            if room >= 0:
                crops[row] = clip[shift : shift + samples]
            else:
                crops[row, shift : shift + len(clip)] = clip
        jitter_db = (2 * torch.rand(count, 1, generator=generator) - 1) * self.arguments.level_jitter_db
        return crops * 10 ** (jitter_db / 20)

    def save_state(self, path: Path) -> None:
        """Write all that `load_state` needs, in one move: an interrupted save leaves the former state."""
        state = {
            "step": self.step,
            "arguments": asdict(self.arguments),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def load_state(self, path: Path) -> None:
        """Continue where `save_state` left off.

        Raises:
            ValueError: the state was made with other arguments.
        """
        state = torch.load(path, weights_only=True)
        for name, value in asdict(self.arguments).items():
            if state["arguments"].get(name) != value:
                raise ValueError(
                    f"{path} was made with {name}={state['arguments'].get(name)!r}, now it is {value!r}; "
                    "use the same arguments or another output_dir"
                )
        self.model.load_state_dict(state["model"])
        self.step = state["step"]
        if self.step > self.decoder_from:
            self._settle_codes()
        self.optimizer.load_state_dict(state["optimizer"])


@contextmanager
def _interrupt_flag() -> Iterator[list[int]]:
    """A list that receives SIGINT and SIGTERM instead of the program, so that a step under way is finished."""
    received: list[int] = []
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in former:
        signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def run(arguments: TrainCodecArguments) -> Path:
    """Train a codec, or go on where an interrupted training stopped; returns the folder of the finished codec.

    The folder loads with `EncodecModel.from_pretrained`; `train_codec.yaml` in it holds the arguments.

    Raises:
        ValueError: no clips, a codec is in the folder already, a training stopped there had other arguments, the loss
            is not finite, or several processes were launched.
        KeyboardInterrupt: SIGINT or SIGTERM came; the state is saved and the same call continues.
    """
    check_launch(1)
    folder = Path(arguments.output_dir)
    state_path = folder / STATE_FILE
    if (folder / "config.json").exists() and not state_path.exists():
        raise ValueError(f"output_dir {folder} holds a finished codec; choose another folder or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    trainer = CodecTrainer(
        arguments,
        load_waveforms(arguments.sources, arguments.hold_out, arguments.sampling_rate, arguments.rms_level_dbfs),
    )
    if state_path.exists():
        trainer.load_state(state_path)
    with _interrupt_flag() as interrupts, tqdm(total=trainer.total_steps, initial=trainer.step) as progress:
        while trainer.step < trainer.total_steps:
            losses = trainer.train_step()
            progress.set_postfix({name: f"{loss:.3f}" for name, loss in losses.items()}, refresh=False)
            progress.update()
            if interrupts or trainer.step % arguments.checkpoint_steps == 0:
                trainer.save_state(state_path)
            if interrupts:
                raise KeyboardInterrupt(f"stopped after step {trainer.step}; the same command continues")
    trainer.model.save_pretrained(folder)
    (folder / ARGUMENTS_FILE).write_text(dump_config(arguments), encoding="utf-8")
    state_path.unlink(missing_ok=True)
    return folder


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    arguments = parse_config(TrainCodecArguments, sys.argv[1:] if argv is None else argv, description=__doc__ or "")
    try:
        print(f"The codec is in {run(arguments)}")
    except KeyboardInterrupt as interrupt:
        print(interrupt, file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
