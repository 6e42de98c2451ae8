"""Vectors of clips and of their frames, from any layer of any audio encoder of Transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from .. import AudioFormerFeatureExtractor, AudioFormerModel, AudioFormerSignalFeatureExtractor
from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..audio.fbank import num_frames, samples_of_frames
from ..models.ast.positions_ast import patch_grid
from ..models.ast.tokens_ast import NUM_SPECIAL_TOKENS
from ..models.audioformer.modeling_audioformer import clip_statistics
from ..training.console import quiet_transformers
from .each_clip import HeardClip, each_clip
from .front_end import FrontEnd, Sound
from .loading import TRAINING_ONLY, choose_device, load_any_extractor

__all__ = ["POOLINGS", "ClipEmbedding", "Embedder", "Pooling", "nearest_neighbours"]

Pooling = Literal["mean", "statistics", "cls"]
POOLINGS: tuple[Pooling, ...] = ("mean", "statistics", "cls")


@dataclass(frozen=True)
class ClipEmbedding:
    """The vectors of a clip.

    Attributes:
        vector: Of the clip, float32 (size,).
        frames: Of its frames, float32 (frames, hidden_size).
        frame_starts: Where each frame begins, in seconds, float64 (frames,).
        seconds: Length of the clip.
    """

    vector: np.ndarray
    frames: np.ndarray
    frame_starts: np.ndarray
    seconds: float


class _Window(NamedTuple):
    """Of a window: frames (frames, hidden_size), seconds from frame to frame, and the vector of its special tokens."""

    frames: Tensor
    step_seconds: float
    special: Tensor | None


class Embedder:
    """Turns clips of any length into vectors by an encoder: AudioFormer, AST, Wav2Vec2, HuBERT, Whisper's, ...

    A frame is a code of an AudioFormer, a column of an AST's patches (their mean over frequency), or a step of another
    encoder; padding and special tokens are none. Clips longer than a window are heard in windows one after the other.

    Args:
        model: The encoder, in evaluation mode, without a head.
        extractor: Its feature extractor.
        layer: Whose output: 0 is the input of the first layer, 1 the first layer's, -1 the encoder's own.
        pooling: How frames become the vector of a clip: their `mean`; `statistics`, the mean, the standard deviation
            and the size of changes (`clip_statistics`, five times as long); or `cls`, the token before the codes of an
            AudioFormer, the mean of an AST's two special tokens.
        batch_size: Windows embedded together; changes nothing but speed.
        window_seconds: As for `FrontEnd`.

    Raises:
        ValueError: The model has no such layer, or no special token for `cls`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        extractor: Any,
        *,
        layer: int = -1,
        pooling: Pooling = "mean",
        batch_size: int = 8,
        window_seconds: float | None = None,
    ):
        self._model = model.get_encoder() if model.config.is_encoder_decoder else model
        self.front_end = FrontEnd(model, extractor, window_seconds=window_seconds, overlap=0.0)
        self.layer = layer
        self.pooling = pooling
        self.batch_size = batch_size
        layers: int = getattr(model.config, "num_hidden_layers", None) or model.config.encoder_layers
        if not -1 <= layer <= layers:
            raise ValueError(f"layer is {layer}; this model has 0 (its input) to {layers}, and -1 for its output")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}; it must be one of {', '.join(POOLINGS)}")
        has_special = isinstance(self.front_end.extractor, ASTLogMelFeatureExtractor) or getattr(
            extractor, "add_boundary_tokens", False
        )
        if pooling == "cls" and not has_special:
            raise ValueError(f"pooling cls needs a special token, and {type(model).__name__} has none; take mean")

    @classmethod
    def from_pretrained(cls, source: str, *, device: str | None = None, **settings: Any) -> Embedder:
        """The encoder of a folder or Hub id, in float32; on the accelerator if there is one.

        Raises:
            ValueError: Weights of the encoder are missing.
        """
        where = choose_device(device)
        with quiet_transformers():
            extractor = load_any_extractor(source, where)
            model, info = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
        missing = sorted(
            name for name in info["missing_keys"] if not (name.endswith(TRAINING_ONLY) or name.startswith("decoder."))
        )
        if missing:
            raise ValueError(f"model is {source}, which lacks weights of {type(model).__name__}, first {missing[0]}")
        return cls(model.to(where).eval(), extractor, **settings)

    def __call__(self, sound: Sound) -> ClipEmbedding:
        """Embeds one clip.

        Raises:
            FileNotFoundError, ValueError: It cannot be read, or is too short for the model.
        """
        ((_, result),) = self.each([sound])
        if isinstance(result, Exception):
            raise result
        return result

    def each(
        self, sounds: Iterable[Sound], *, heard: Callable[[float], object] = lambda share: None
    ) -> Iterator[tuple[str, ClipEmbedding | Exception]]:
        """Each clip's name with its vectors, or with the error that tells why it has none; in order, as they come.

        `heard` is told how many clips more, in parts of one, are done with, those with an error too.
        """
        for clip in each_clip(sounds, self.front_end, self._windows, batch_size=self.batch_size, heard=heard):
            yield clip.name, clip.error or self._embedding(clip)

    @torch.inference_mode()
    def _windows(self, windows: list[Tensor]) -> list[_Window]:
        found: dict[int, _Window] = {}
        for places, batch in self.front_end.batches(windows):
            states = self._states(batch).cpu()
            for row, place in enumerate(places):
                inputs = {name: tensor[row] for name, tensor in batch.items()}
                found[place] = self._window(states[row], len(windows[place]), inputs)
        return [found[place] for place in range(len(windows))]

    def _states(self, batch: dict[str, Tensor]) -> Tensor:
        """(batch, tokens, hidden_size)"""
        if self.layer == -1:
            return self._model(**batch).last_hidden_state
        return self._model(**batch, output_hidden_states=True).hidden_states[self.layer]

    def _window(self, states: Tensor, samples: int, inputs: dict[str, Tensor]) -> _Window:
        """The frames among the tokens (tokens, hidden_size) of a window of so many samples, made of `inputs`."""
        config: Any = self._model.config
        extractor = self.front_end.extractor
        rate = self.front_end.sampling_rate
        if isinstance(extractor, AudioFormerFeatureExtractor):
            tokens = states[: int(inputs["attention_mask"].sum())]
            frames = tokens[1:-1] if extractor.add_boundary_tokens else tokens
            return _Window(frames, extractor.hop_length / rate, tokens[0])
        if isinstance(extractor, ASTLogMelFeatureExtractor):
            over_frequency, _ = patch_grid(config)
            columns = states[NUM_SPECIAL_TOKENS:].unflatten(0, (over_frequency, -1)).mean(0)
            heard = math.ceil(num_frames(samples, rate) / config.time_stride)
            step = samples_of_frames(config.time_stride, 1, rate).start
            return _Window(columns[:heard], step / rate, states[:NUM_SPECIAL_TOKENS].mean(0))
        if isinstance(extractor, AudioFormerSignalFeatureExtractor):
            height = cast(AudioFormerModel, self._model).embeddings.positions_per_frame
            columns = states.unflatten(0, (-1, height)).mean(1)
            return _Window(columns, config.input_stride / extractor.frame_rate, None)
        heard_samples = getattr(extractor, "n_samples", samples)  # Whisper pads every clip
        step = heard_samples / len(states)
        hears_samples = all(tensor.dim() == 1 for tensor in inputs.values())
        if hears_samples and getattr(config, "conv_stride", None):
            convolved = samples
            for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
                convolved = (convolved - kernel) // stride + 1
            if len(states) == convolved:  # not so where an adapter joins steps
                step = math.prod(config.conv_stride)
        return _Window(states[: math.ceil(samples / step)], step / rate, None)

    def _embedding(self, clip: HeardClip[_Window]) -> ClipEmbedding:
        rate = self.front_end.sampling_rate
        frames: list[Tensor] = []
        starts: list[np.ndarray] = []
        end = 0.0
        for (start, _), window in zip(clip.window_seconds(rate), clip.outputs, strict=True):
            times = start + np.arange(len(window.frames)) * window.step_seconds
            new = times > end - window.step_seconds / 2  # the last window begins within the one before
            frames.append(window.frames[torch.from_numpy(new)])
            starts.append(times[new])
            end = times[-1] + window.step_seconds
        return ClipEmbedding(
            vector=self._pooled(torch.cat(frames), clip.outputs).numpy(),
            frames=torch.cat(frames).numpy(),
            frame_starts=np.concatenate(starts),
            seconds=len(clip.waveform) / rate,
        )

    def _pooled(self, frames: Tensor, windows: list[_Window]) -> Tensor:
        if self.pooling == "mean":
            return frames.mean(0)
        if self.pooling == "statistics":
            return clip_statistics(frames[None], torch.ones(1, len(frames), dtype=torch.long))[0]
        return torch.stack([window.special for window in windows if window.special is not None]).mean(0)


def nearest_neighbours(query: np.ndarray, vectors: np.ndarray, count: int) -> list[tuple[int, float]]:
    """The rows of `vectors`, (clips, size), that are nearest to `query`, (size,), with their cosine; nearest first.

    Raises:
        ValueError: The sizes differ.
    """
    if vectors.ndim != 2 or query.shape != vectors.shape[1:]:
        raise ValueError(f"query has shape {query.shape} and vectors {vectors.shape}; sizes must be equal")
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    cosines = vectors @ query / np.maximum(lengths, np.finfo(np.float32).tiny)
    return [(int(row), float(cosines[row])) for row in np.argsort(-cosines, kind="stable")[:count]]
