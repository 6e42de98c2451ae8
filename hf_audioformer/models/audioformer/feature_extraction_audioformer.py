"""AudioFormer feature extractor: waveforms in, codes of a neural audio codec out."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import TensorType

from .codec_audioformer import AudioCodec
from .configuration_audioformer import special_token_id
from .waveform_audioformer import Waveform, as_clips, leave_parents_threads, prepared, samples_allowed

DEFAULT_CODEC = "facebook/encodec_24khz"
DEFAULT_CODEC_REVISION = "c1dbe2ae3f1de713481a3b3e7c47f357092ee040"
CODEC_SUBFOLDER = "codec"
CODEC_HUB_OPTIONS = ("token", "cache_dir", "local_files_only")

# Seconds of audio per forward pass of the codec on an accelerator, which bounds its memory.
BATCH_SECONDS = 320.0


class AudioFormerFeatureExtractor(SequenceFeatureExtractor):
    r"""Turns waveforms of any sampling rate and length into the codes that an AudioFormer reads.

    The codec is a setting and a reference: it is loaded when the first clip is encoded, is left out of pickles, and
    travels inside a saved checkpoint (subfolder `codec/`) when it is a local folder or when asked to.

    Args:
        codec (`str`, defaults to `"facebook/encodec_24khz"`): Hub id or folder of a Transformers codec with discrete
            codes.
        codec_revision (`str`, *optional*): Revision of a Hub codec; that of the default codec is pinned.
        codec_subfolder (`str`, defaults to `""`): Folder of the codec inside `codec`.
        sampling_rate (`int`, defaults to 24000): Sampling rate of the codec in Hz.
        hop_length (`int`, defaults to 320): Samples per frame of the codec.
        codebook_size (`int`, defaults to 1024): Codes per codebook of the codec.
        num_codebooks (`int`, defaults to 1): Codebooks to return; that of the model's configuration.
        add_boundary_tokens (`bool`, defaults to `True`): Whether BOA and EOA stand around the codes.
        max_length_seconds (`float`, *optional*): Longest clip; longer ones are cut at the end unless
            `truncation=False`.
        rms_level_dbfs (`float`, *optional*): Level that every clip is brought to before encoding, in dB relative to
            a root mean square of 1; clips are left as they are if not given.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_audioformer import AudioFormerFeatureExtractor, assets

    >>> extractor = AudioFormerFeatureExtractor.from_codec(assets.codec_folder(), num_codebooks=4)
    >>> noise = np.random.default_rng(0).normal(scale=0.1, size=16000)
    >>> extractor(noise, sampling_rate=16000, return_tensors="pt")["input_ids"].shape  # 75 frames, BOA and EOA
    torch.Size([1, 77, 4])

    ```"""

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(
        self,
        codec: str | os.PathLike | None = DEFAULT_CODEC,
        codec_revision: str | None = None,
        codec_subfolder: str = "",
        sampling_rate: int = 24000,
        hop_length: int = 320,
        codebook_size: int = 1024,
        num_codebooks: int = 1,
        add_boundary_tokens: bool = True,
        max_length_seconds: float | None = None,
        rms_level_dbfs: float | None = None,
        return_attention_mask: bool = True,
        padding_side: str = "right",
        **kwargs: Any,
    ):
        for derived in ("feature_size", "padding_value"):
            kwargs.pop(derived, None)
        super().__init__(
            feature_size=num_codebooks,
            sampling_rate=sampling_rate,
            padding_value=special_token_id(codebook_size, "pad"),
            return_attention_mask=return_attention_mask,
            padding_side=padding_side,
            **kwargs,
        )
        for name, value in (("num_codebooks", num_codebooks), ("hop_length", hop_length)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        codec = None if codec is None else str(codec)
        if codec == DEFAULT_CODEC and codec_revision is None:
            codec_revision = DEFAULT_CODEC_REVISION
        self.codec = codec
        self.codec_revision = codec_revision
        self.codec_subfolder = codec_subfolder
        self.hop_length = hop_length
        self.codebook_size = codebook_size
        self.num_codebooks = num_codebooks
        self.add_boundary_tokens = add_boundary_tokens
        self.max_length_seconds = max_length_seconds
        self.rms_level_dbfs = rms_level_dbfs
        self._codec: AudioCodec | None = None
        self._hub_options: dict[str, Any] = {}
        self.limit_samples(max_length_seconds)

    @classmethod
    def from_codec(
        cls, codec: str | os.PathLike, *, codec_revision: str | None = None, codec_subfolder: str = "", **kwargs: Any
    ) -> Self:
        """Makes an extractor for a codec, reading its sampling rate, hop and codebook size from the codec itself."""
        if str(codec) == DEFAULT_CODEC and codec_revision is None:
            codec_revision = DEFAULT_CODEC_REVISION
        loaded = AudioCodec.from_pretrained(str(codec), revision=codec_revision, subfolder=codec_subfolder)
        extractor = cls(
            codec=str(codec),
            codec_revision=codec_revision,
            codec_subfolder=codec_subfolder,
            sampling_rate=loaded.sampling_rate,
            hop_length=loaded.hop_length,
            codebook_size=loaded.codebook_size,
            **kwargs,
        )
        extractor._check_codec(loaded)
        extractor._codec = loaded
        return extractor

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sampling_rate / self.hop_length

    def limit_samples(self, seconds: float | None) -> int | None:
        """The samples at the codec's rate in `seconds`, at least one frame; None for no limit."""
        return samples_allowed(seconds, self.sampling_rate, self.hop_length)

    def special_token_id(self, name: str) -> int:
        """The id of `"boa"`, `"eoa"`, `"mask"` or `"pad"`."""
        return special_token_id(self.codebook_size, name)

    def __call__(
        self,
        audio: Waveform | Sequence[Waveform],
        sampling_rate: int | None = None,
        padding: bool | str | None = None,
        truncation: bool | None = None,
        max_length_seconds: float | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
        channel_axis: int | None = None,
        device: str | torch.device | None = None,
        keep_level: bool = False,
    ) -> BatchFeature:
        """Encodes one clip or a list of clips.

        Args:
            audio: Floats, nominally in [-1, 1]: one mono clip (samples,) as array, tensor or list, or a list of such
                clips. A two-dimensional clip needs `channel_axis` and is mixed to mono.
            sampling_rate: Rate of `audio` in Hz, required; audio of another rate than the codec's is resampled.
            padding: `True` or `"longest"`, `"max_length"` (up to `max_length_seconds`), or `False`. By default clips
                are padded when `return_tensors` is given.
            truncation: Whether clips longer than `max_length_seconds` are cut at the end; the default if that is set.
            max_length_seconds: In place of the extractor's own.
            pad_to_multiple_of: Frames, including BOA and EOA.
            return_attention_mask: Whether `attention_mask` is returned; by default it is.
            return_tensors: `"pt"`, `"np"` or nothing.
            channel_axis: Axis of the channels in each clip, 0 or 1.
            device: Where the codec runs; by default where it is (the CPU at first).
            keep_level: Leave clips at their level, whatever `rms_level_dbfs` is: for windows of a clip that was
                brought to its level as a whole.

        Returns:
            `input_ids`, int64 (batch, frames) for one codebook, (batch, frames, num_codebooks) for several, and
            `attention_mask` (batch, frames), 1 for frames. A clip of n samples at the codec's rate has
            ceil(n / hop_length) frames, and two more with boundary tokens.

        Raises:
            ValueError: A clip is not float, empty, shorter than a frame, not finite, or has channels on an axis that
                was not said; the message names the clip by its place in the list.
        """
        if sampling_rate is None:
            raise ValueError(
                f"sampling_rate is required: say at which rate, in Hz, the audio was sampled (the codec runs at "
                f"{self.sampling_rate} Hz; other rates are resampled)."
            )
        leave_parents_threads()
        limit = self.limit_samples(self.max_length_seconds if max_length_seconds is None else max_length_seconds)
        cut = limit if truncation or truncation is None else None
        if (truncation or padding == "max_length") and limit is None:
            raise ValueError("truncation and padding='max_length' need max_length_seconds, here or in the extractor.")

        clips = [
            self._prepare(clip, index, sampling_rate, channel_axis, keep_level)[:cut]
            for index, clip in enumerate(as_clips(audio))
        ]
        features = BatchFeature({"input_ids": [self.tokens(codes) for codes in self._encode(clips, device)]})
        return self.pad(
            features,
            padding=return_tensors is not None if padding is None else padding,
            max_length=self._num_tokens(limit) if padding == "max_length" else None,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=return_attention_mask,
            return_tensors=return_tensors,
        )

    def tokens(self, codes: np.ndarray) -> np.ndarray:
        """One clip's `input_ids`, int64 (frames,) or (frames, num_codebooks), from codes without special tokens.

        `codes` are integers (frames, codebooks), of which the first `num_codebooks` are read; BOA and EOA are added if
        `add_boundary_tokens`.
        """
        ids = codes[:, 0] if self.num_codebooks == 1 else codes[:, : self.num_codebooks]
        ids = ids.astype(np.int64)
        if not self.add_boundary_tokens:
            return ids
        begin, end = (np.full_like(ids[:1], self.special_token_id(name)) for name in ("boa", "eoa"))
        return np.concatenate((begin, ids, end))

    def decode(self, input_ids: np.ndarray | torch.Tensor | Sequence) -> torch.Tensor:
        """Decodes one clip's tokens, (frames,) or (frames, num_codebooks), to a waveform, float32 (samples,).

        BOA, EOA and padding are dropped.

        Raises:
            ValueError: A MASK token or no code at all is among the tokens, or the shape is another.
        """
        tokens = input_ids.cpu() if isinstance(input_ids, torch.Tensor) else torch.as_tensor(np.asarray(input_ids))
        if tokens.dim() not in (1, 2):
            raise ValueError(
                f"decode takes one clip, (frames,) or (frames, num_codebooks); found shape {tuple(tokens.shape)}. "
                "Decode the clips of a batch one by one."
            )
        codes = tokens.reshape(len(tokens), -1).long()
        if (codes == self.special_token_id("mask")).any():
            raise ValueError("a MASK token has no sound; fill the masked frames before decoding.")
        codes = codes[(codes < self.codebook_size).all(dim=1)]
        if not len(codes):
            raise ValueError(f"there is no code below {self.codebook_size} among the {len(tokens)} tokens.")
        codec = self.load_codec()
        return codec.decode(codes.T.unsqueeze(0).to(codec.device))[0].cpu()

    def load_codec(self, device: str | torch.device | None = None) -> AudioCodec:
        """Returns the codec, loading it at the first call, moved to `device` if one is given.

        Raises:
            ValueError: Its sampling rate, hop or codebooks are not those this extractor was made for.
            OSError: It is neither in its folder nor in the cache nor reachable.
        """
        if self._codec is None:
            if self.codec is None:
                raise ValueError(
                    "this extractor was saved with its codec beside it: load it with from_pretrained on that folder."
                )
            loaded = AudioCodec.from_pretrained(
                self.codec, revision=self.codec_revision, subfolder=self.codec_subfolder, **self._hub_options
            )
            self._check_codec(loaded)
            self._codec = loaded
        return self._codec if device is None else self._codec.to(device)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        push_to_hub: bool = False,
        *,
        include_codec: bool | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Saves `preprocessor_config.json` and, with `include_codec`, the codec in the subfolder `codec/`.

        By default a codec from a local folder or from inside a checkpoint is included, and one with a Hub repository
        of its own is kept as a reference.
        """
        if include_codec is None:
            include_codec = self.codec is not None and (Path(self.codec).is_dir() or bool(self.codec_subfolder))
        saved = copy.copy(self)
        if include_codec:
            self.load_codec().save_pretrained(Path(save_directory) / CODEC_SUBFOLDER)
            saved.codec, saved.codec_revision, saved.codec_subfolder = None, None, CODEC_SUBFOLDER
        files = super(AudioFormerFeatureExtractor, saved).save_pretrained(save_directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return files

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> Self:
        """Loads an extractor; one saved with its codec finds it in the same folder or repository.

        `token`, `cache_dir` and `local_files_only` also hold for the codec, whenever it is loaded.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        extractor = loaded[0] if isinstance(loaded, tuple) else loaded
        extractor._hub_options = {name: kwargs[name] for name in CODEC_HUB_OPTIONS if name in kwargs}
        if extractor.codec is None:
            path = os.fspath(pretrained_model_name_or_path)
            extractor.codec = os.path.abspath(path) if os.path.isdir(path) else path
            extractor.codec_revision = kwargs.get("revision")
            extractor.codec_subfolder = "/".join(filter(None, (kwargs.get("subfolder"), CODEC_SUBFOLDER)))
        return loaded

    def to_dict(self) -> dict[str, Any]:
        """The settings, without the loaded codec."""
        settings = copy.deepcopy(self.__getstate__())
        del settings["_codec"], settings["_hub_options"]
        return settings | {"feature_extractor_type": type(self).__name__}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_codec": None}

    def _check_codec(self, codec: AudioCodec) -> None:
        for name in ("sampling_rate", "hop_length", "codebook_size"):
            if getattr(codec, name) != getattr(self, name):
                raise ValueError(
                    f"the codec {self.codec} has {name} {getattr(codec, name)}, this feature extractor "
                    f"{getattr(self, name)}; make it with AudioFormerFeatureExtractor.from_codec(...)."
                )
        if codec.num_codebooks < self.num_codebooks:
            raise ValueError(
                f"num_codebooks is {self.num_codebooks}; the codec {self.codec} has {codec.num_codebooks}."
            )

    def _num_tokens(self, num_samples: int) -> int:
        return -(-num_samples // self.hop_length) + 2 * self.add_boundary_tokens

    def _prepare(
        self, clip: Waveform, index: int, sampling_rate: int, channel_axis: int | None, keep_level: bool
    ) -> torch.Tensor:
        """One clip as a checked float32 waveform (samples,) at the codec's rate and at the level of all clips, or with
        `keep_level` at its own."""
        return prepared(
            clip,
            index,
            sampling_rate,
            self.sampling_rate,
            channel_axis,
            shortest=self.hop_length,
            rms_level_dbfs=None if keep_level else self.rms_level_dbfs,
        )

    @torch.no_grad()
    def _encode(self, clips: list[torch.Tensor], device: str | torch.device | None) -> list[np.ndarray]:
        """Codes of each clip, int64 (frames, num_codebooks)."""
        codec = self.load_codec(device)
        codes: list[np.ndarray] = []
        for batch in self._batches(clips, codec):
            frames = [-(-len(clip) // self.hop_length) for clip in batch]
            padded = torch.stack([F.pad(clip, (0, max(frames) * self.hop_length - len(clip))) for clip in batch])
            encoded = codec.encode(padded.to(codec.device), self.num_codebooks).cpu().numpy()
            codes += [row[:, :length].T for row, length in zip(encoded, frames, strict=True)]
        return codes

    def _batches(self, clips: list[torch.Tensor], codec: AudioCodec) -> list[list[torch.Tensor]]:
        """Single clips where batching costs (CPU) or changes codes (codecs that look ahead), else padded batches."""
        if codec.device.type == "cpu" or not codec.is_causal:
            return [[clip] for clip in clips]
        longest = max(map(len, clips))
        size = max(1, int(BATCH_SECONDS * self.sampling_rate / longest))
        return [clips[start : start + size] for start in range(0, len(clips), size)]


__all__ = ["AudioFormerFeatureExtractor"]
