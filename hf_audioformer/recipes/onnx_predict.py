"""Labels of a sound file by an exported AudioFormer: needs numpy, soundfile and onnxruntime, neither torch nor this
package. `hf-audioformer export` writes this file as `predict.py` beside the networks.

    python predict.py clip.wav [--int8] [--top 5]

As in the `audio-classification` pipeline a clip is mixed to mono, resampled to the codec's rate, brought to its level,
encoded, and classified. Any format and sampling rate that soundfile reads will do.
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


class Predictor:
    """The networks and settings of an export folder."""

    def __init__(self, folder: str | Path, *, int8: bool = False, threads: int = 0) -> None:
        """Loads the networks; `threads` of onnxruntime are all cores by default.

        Raises:
            FileNotFoundError: A file of the export is missing.
        """
        import onnxruntime

        folder = Path(folder)
        names = (SETTINGS_FILE, CODEC_FILE, INT8_FILE if int8 else MODEL_FILE)
        for name in names:
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name}: no such file; export the model (for int8 with --int8 true).")
        self.settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.codec, self.model = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in names[1:]
        )

    def __call__(self, waveform: np.ndarray, sampling_rate: int) -> list[dict[str, Any]]:
        """`label` and `score` of every class, the best first, of floats (samples,) or (samples, channels).

        Raises:
            ValueError: The clip is shorter than the codec needs, or not finite.
        """
        input_ids = self.tokens(self.codes(waveform, sampling_rate))[None]
        feeds = {"input_ids": input_ids, "attention_mask": np.ones(input_ids.shape[:2], dtype=np.int64)}
        logits = self.model.run(["logits"], feeds)[0][0].astype(np.float64)
        if self.settings["multi_label"]:
            scores = 1 / (1 + np.exp(-logits))
        else:
            scores = np.exp(logits - logits.max())
            scores /= scores.sum()
        order = np.argsort(-scores, kind="stable")
        return [{"label": self.settings["labels"][index], "score": float(scores[index])} for index in order]

    def codes(self, waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Codes, int64 (frames, num_codebooks), of floats (samples,) or (samples, channels)."""
        rate, hop_length = self.settings["sampling_rate"], self.settings["hop_length"]
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
        if self.settings["rms_level_dbfs"] is not None:
            rms = max(float(np.sqrt(np.mean(np.square(waveform)))), 10 ** (LEVEL_FLOOR_DBFS / 20))
            waveform = waveform * np.float32(10 ** (self.settings["rms_level_dbfs"] / 20) / rms)
        waveform = waveform[: self.settings["max_samples"]]
        padded = np.pad(waveform, (0, -len(waveform) % hop_length))
        return self.codec.run(["codes"], {"waveforms": padded[None]})[0][0].T

    def tokens(self, codes: np.ndarray) -> np.ndarray:
        """What the model reads of codes: (frames, num_codebooks) or (frames,), between its boundary tokens if any."""
        ids = codes[:, 0] if codes.shape[1] == 1 else codes
        if self.settings["boundary_tokens"] is None:
            return ids
        begin, end = (np.full_like(ids[:1], token) for token in self.settings["boundary_tokens"])
        return np.concatenate((begin, ids, end))


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
