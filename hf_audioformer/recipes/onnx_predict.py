"""Labels of a sound file by an exported AudioFormer or Audio Spectrogram Transformer: needs numpy, soundfile and
onnxruntime, neither torch nor this package. `hf-audioformer export` writes this file as `predict.py` beside the
networks.

    python predict.py clip.wav [--int8] [--top 5]

As in the `audio-classification` pipeline a clip is mixed to mono and resampled; for an AudioFormer brought to the
codec's level and encoded; for an Audio Spectrogram Transformer cut to the length that the model hears, if it is longer,
and made a log-mel spectrogram; and classified. Any format and sampling rate that soundfile reads will do.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

MODEL_FILE, INT8_FILE, CODEC_FILE, SETTINGS_FILE = "model.onnx", "model_int8.onnx", "codec_encoder.onnx", "predict.json"
LEVEL_FLOOR_DBFS = -80.0  # the quietest level that is lifted
# torchaudio's resampling filter: zero crossings on each side, and where it begins to fall, relative to Nyquist.
FILTER_WIDTH, ROLLOFF = 6, 0.99
LARGEST_FILTER = 100_000_000  # weights; all rates in use need far fewer
# Kaldi's log-mels, as the feature extractor of the Audio Spectrogram Transformer has them.
WINDOW_SECONDS, HOP_SECONDS, PREEMPHASIS, LOWEST_HZ = 0.025, 0.010, 0.97, 20.0


class Predictor:
    """The networks and settings of an export folder."""

    def __init__(self, folder: str | Path, *, int8: bool = False, threads: int = 0) -> None:
        """Loads the networks; `threads` of onnxruntime are all cores by default.

        Raises:
            FileNotFoundError: A file of the export is missing.
        """
        import onnxruntime

        folder = Path(folder)
        self.settings = json.loads(_existing(folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads

        def network(name: str) -> Any:
            file = str(_existing(folder / name))
            return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

        self.model = network(INT8_FILE if int8 else MODEL_FILE)
        self.codec: Any = network(CODEC_FILE) if self.settings["front_end"] == "codes" else None

    def __call__(self, waveform: np.ndarray, sampling_rate: int) -> list[dict[str, Any]]:
        """`label` and `score` of every class, the best first, of floats (samples,) or (samples, channels).

        Raises:
            ValueError: The clip is shorter than the model needs, or not finite.
        """
        waveform = self._prepared(waveform, sampling_rate)
        feeds = self._features(waveform) if self.codec is None else self._codes(waveform)
        logits = self.model.run(["logits"], feeds)[0][0].astype(np.float64)
        if self.settings["multi_label"]:
            scores = 1 / (1 + np.exp(-logits))
        else:
            scores = np.exp(logits - logits.max())
            scores /= scores.sum()
        order = np.argsort(-scores, kind="stable")
        return [{"label": self.settings["labels"][index], "score": float(scores[index])} for index in order]

    def _prepared(self, waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
        """The waveform as mono, float32 (samples,), at the model's rate."""
        rate = self.settings["sampling_rate"]
        waveform = np.asarray(waveform, dtype=np.float32)
        if waveform.ndim == 2:
            waveform = waveform.mean(axis=1, dtype=np.float32)
        if not np.isfinite(waveform).all():
            raise ValueError("the clip has samples that are NaN or infinite.")
        waveform = resample(waveform, sampling_rate, rate)
        if len(waveform) < self.settings["min_samples"]:
            raise ValueError(
                f"the clip has {len(waveform)} samples at {rate} Hz; at least {self.settings['min_samples']} are "
                "needed. Pad it with silence."
            )
        return waveform

    def _codes(self, waveform: np.ndarray) -> dict[str, np.ndarray]:
        """What an AudioFormer reads: codes, int64 (1, frames, num_codebooks) or (1, frames), between its boundary
        tokens if it has any."""
        settings = self.settings
        if settings["rms_level_dbfs"] is not None:
            rms = max(float(np.sqrt(np.mean(np.square(waveform)))), 10 ** (LEVEL_FLOOR_DBFS / 20))
            waveform = waveform * np.float32(10 ** (settings["rms_level_dbfs"] / 20) / rms)
        waveform = waveform[: settings["max_samples"]]
        padded = np.pad(waveform, (0, -len(waveform) % settings["hop_length"]))
        ids = self.codec.run(["codes"], {"waveforms": padded[None]})[0][0].T
        ids = ids[:, 0] if ids.shape[1] == 1 else ids
        if settings["boundary_tokens"] is not None:
            begin, end = (np.full_like(ids[:1], token) for token in settings["boundary_tokens"])
            ids = np.concatenate((begin, ids, end))
        return {"input_ids": ids[None], "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}

    def _features(self, waveform: np.ndarray) -> dict[str, np.ndarray]:
        """What an Audio Spectrogram Transformer reads: the first log-mels, normalised, float32 (1, max_length, bins).

        Padding is 0 before normalisation.
        """
        settings = self.settings
        features = np.zeros((1, settings["max_length"], settings["num_mel_bins"]), dtype=np.float32)
        found = log_mels(waveform, settings["sampling_rate"], settings["num_mel_bins"], settings["max_length"])
        features[0, : len(found)] = found
        if settings["do_normalize"]:
            features = (features - np.float32(settings["mean"])) / np.float32(2 * settings["std"])
        return {"input_values": features}


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; export the model (for int8 with --int8 true).")
    return file


def log_mels(waveform: np.ndarray, sampling_rate: int, num_mel_bins: int, max_frames: int) -> np.ndarray:
    """Kaldi's log-mels of the first frames of a waveform, float32 (samples,): float32 (frames, num_mel_bins).

    Frames of 25 ms every 10 ms, of which each loses its mean and is preemphasised; those that do not fit are dropped.
    """
    window, hop = int(sampling_rate * WINDOW_SECONDS), int(sampling_rate * HOP_SECONDS)
    fft_samples = 2 ** math.ceil(math.log2(window))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, window)[::hop][:max_frames]
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames[:, 1:] -= PREEMPHASIS * frames[:, :-1]  # the first sample is not changed: the window is 0 there
    spectrum = np.fft.rfft(frames * np.hanning(window), fft_samples)
    mel_power = (spectrum.real**2 + spectrum.imag**2) @ _mel_filters(num_mel_bins, fft_samples, sampling_rate)
    return np.log(np.maximum(mel_power, np.finfo(np.float32).eps)).astype(np.float32)


def _mel_filters(num_mel_bins: int, fft_samples: int, sampling_rate: int) -> np.ndarray:
    """Triangles of height 1, evenly spaced in mel: (fft_samples // 2 + 1, num_mel_bins).

    In single precision, as Kaldi has them; exact ones give other features.
    """
    lowest, highest = (1127 * math.log(1 + hz / 700) for hz in (LOWEST_HZ, sampling_rate / 2))
    width = (highest - lowest) / (num_mel_bins + 1)
    corners = [
        np.float32(lowest) + np.arange(i, num_mel_bins + i, dtype=np.float32) * np.float32(width) for i in range(3)
    ]
    left, centre, right = corners
    frequencies_hz = np.float32(sampling_rate / fft_samples) * np.arange(fft_samples // 2, dtype=np.float32)
    mel = np.float32(1127) * np.log(1 + frequencies_hz[:, None] / np.float32(700))
    filters = np.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
    return np.pad(np.maximum(filters, 0), ((0, 1), (0, 0)))  # half the sampling rate is left out


def resample(waveform: np.ndarray, orig_rate: int, new_rate: int) -> np.ndarray:
    """A waveform, float32 (samples,), at another rate in Hz, by the windowed sinc filter of torchaudio.

    Raises:
        ValueError: The rates have so small a common divisor that the filter would not fit into memory.
    """
    if orig_rate == new_rate:
        return waveform
    common = math.gcd(orig_rate, new_rate)
    orig, new = orig_rate // common, new_rate // common
    if orig * new > LARGEST_FILTER:
        raise ValueError(
            f"{orig_rate} and {new_rate} Hz have too small a common divisor ({common}) to resample; is {orig_rate} Hz "
            "meant? Otherwise resample to a rate such as 16000 or 44100 first."
        )
    cutoff = min(orig, new) * ROLLOFF
    width = math.ceil(FILTER_WIDTH * orig / cutoff)
    times = np.arange(-width, width + orig) / orig + np.arange(0, -new, -1)[:, None] / new
    times = np.clip(times * cutoff, -FILTER_WIDTH, FILTER_WIDTH)
    filters = (np.sinc(times) * np.cos(times * np.pi / FILTER_WIDTH / 2) ** 2 * cutoff / orig).astype(np.float32)
    padded = np.pad(waveform, (width, width + orig))
    windows = np.lib.stride_tricks.sliding_window_view(padded, filters.shape[1])[::orig]
    return (windows @ filters.T).reshape(-1)[: math.ceil(new * len(waveform) / orig)]


def main() -> None:
    import soundfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", help="a sound file")
    parser.add_argument("--int8", action="store_true", help="by the quantised model")
    parser.add_argument("--top", type=int, default=5, help="how many classes to print")
    arguments = parser.parse_args()
    predict = Predictor(Path(__file__).parent, int8=arguments.int8)
    waveform, sampling_rate = soundfile.read(arguments.clip, dtype="float32", always_2d=True)
    for guess in predict(waveform, sampling_rate)[: arguments.top]:
        print(f"{guess['score']:8.4f}  {guess['label']}")


if __name__ == "__main__":
    main()
