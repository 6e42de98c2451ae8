"""Make the bundled clips of spoken commands with espeak-ng: ten words, ninety voices, with noise and room.

    python examples/make_spoken_commands.py --output hf_audioformer/assets/commands

writes `commands.parquet` (columns id, audio, label, voice, split) and `example_left.wav`, spoken by a test voice.
A voice is an accent and a speaker variant of espeak-ng. No variant occurs in two splits, so a test voice is never
heard in training. Each clip is drawn from its own generator, keyed by the seed and the clip's id.
"""

import argparse
import io
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from datasets import ClassLabel, Dataset, Features, Value
from torchaudio.functional import resample

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
# `en` is British English; espeak-ng silently ignores the speaker variant of `en-gb`.
ACCENTS = ("en-us", "en", "en-029", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
ACCENTS_PER_VARIANT = 2
VARIANTS = {
    "train": (
        *("m1", "m2", "m4", "m6", "m7", "f1", "f3", "Alex", "Andrea", "Andy", "anika", "antonio", "aunty", "adam"),
        *("boris", "Denis", "ed", "Gene", "Hugo", "john", "Lee", "linda", "Mario", "max", "norbert", "pablo"),
        *("robert", "shelby", "steph", "zac"),
    ),
    "validation": ("m5", "f4", "Alicia", "Michael", "paul"),
    "test": ("m3", "m8", "f2", "f5", "Annie", "belinda", "grandma", "david", "quincy", "travis"),
}

SAMPLING_RATE = 16000
WORDS_PER_MINUTE = (110, 220)
PITCH = (25, 80)  # espeak-ng's own scale of 0 to 99
REVERBERATION_SECONDS = (0.08, 0.5)  # time to fall by 60 dB
DIRECT_TO_REVERBERANT_DB = (0.0, 15.0)
SNR_DB = (5.0, 30.0)
NOISE_EXPONENT = (0.0, 2.0)  # power falls as 1 / frequency ** exponent: 0 is white, 1 pink, 2 brown
CLIP_SECONDS = (0.6, 1.0)
LEVEL_DB = (-38.0, -20.0)  # RMS of the clip, re full scale
PEAK_LIMIT = 0.95
OPUS_COMPRESSION = 0.93  # of libsndfile's range: about 24 kbit/s

FEATURES = Features(
    {
        "id": Value("string"),
        "audio": {"bytes": Value("binary"), "path": Value("string")},
        "label": ClassLabel(names=list(WORDS)),
        "voice": Value("string"),
        "split": Value("string"),
    }
)


def voices(split: str) -> list[str]:
    """The voices of a split, `accent+variant`: each variant speaks with two accents, all accents in turn."""
    return [
        f"{ACCENTS[(ACCENTS_PER_VARIANT * index + turn) % len(ACCENTS)]}+{variant}"
        for index, variant in enumerate(VARIANTS[split])
        for turn in range(ACCENTS_PER_VARIANT)
    ]


def synthesise(word: str, voice: str, words_per_minute: int, pitch: int) -> np.ndarray:
    """`word` as espeak-ng speaks it, silence trimmed: float32 (samples,) at 16 kHz."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError(
            "espeak-ng is not on the PATH; install it with `apt-get install espeak-ng` or `brew install espeak-ng`"
        )
    settings = ["-v", voice, "-s", str(words_per_minute), "-p", str(pitch)]
    spoken = subprocess.run([program, *settings, "--stdout", word], check=True, capture_output=True).stdout
    waveform, rate = soundfile.read(io.BytesIO(spoken), dtype="float32")
    waveform = resample(torch.from_numpy(waveform), rate, SAMPLING_RATE).numpy()
    loud = np.flatnonzero(np.abs(waveform) > 0.01 * np.abs(waveform).max())
    return waveform[loud[0] : loud[-1] + 1]


def room_response(rng: np.random.Generator) -> np.ndarray:
    """A random impulse response: the direct sound, then noise that decays exponentially."""
    seconds = rng.uniform(*REVERBERATION_SECONDS)
    time = np.arange(1, int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    ratio_db = rng.uniform(*DIRECT_TO_REVERBERANT_DB)
    return np.concatenate([[1.0], tail / np.sqrt(np.sum(tail**2)) * 10 ** (-ratio_db / 20)])


def coloured_noise(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit RMS and a random colour."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    spectrum[0] = 0
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (rng.uniform(*NOISE_EXPONENT) / 2)
    noise = np.fft.irfft(spectrum, num_samples)
    return noise / rms(noise)


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(waveform**2)))


def record(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`speech` as a microphone might hear it: in a room, somewhere in a longer clip, in noise, at some level."""
    reverberant = np.convolve(speech, room_response(rng))
    num_samples = max(int(rng.uniform(*CLIP_SECONDS) * SAMPLING_RATE), len(speech))
    start = rng.integers(num_samples - len(speech) + 1)
    clip = np.zeros(num_samples)
    heard = reverberant[: num_samples - start]
    clip[start : start + len(heard)] = heard
    clip += coloured_noise(num_samples, rng) * rms(speech) * 10 ** (-rng.uniform(*SNR_DB) / 20)
    clip *= 10 ** (rng.uniform(*LEVEL_DB) / 20) / rms(clip)
    return (clip * min(1.0, PEAK_LIMIT / np.abs(clip).max())).astype(np.float32)


def make_waveform(word: str, voice: str, seed: int) -> np.ndarray:
    """One clip: float32 (samples,) at 16 kHz, the same for the same arguments."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{voice} {word}".encode())])
    speech = synthesise(word, voice, int(rng.integers(*WORDS_PER_MINUTE)), int(rng.integers(*PITCH)))
    return record(speech, rng)


def make_clips(split: str, seed: int) -> Iterator[dict[str, Any]]:
    """Every word by every voice of `split`, as rows of the parquet file."""
    for voice in voices(split):
        for word in WORDS:
            encoded = io.BytesIO()
            soundfile.write(
                encoded,
                make_waveform(word, voice, seed),
                SAMPLING_RATE,
                format="OGG",
                subtype="OPUS",
                compression_level=OPUS_COMPRESSION,
            )
            name = f"{voice}_{word}"
            audio = {"bytes": encoded.getvalue(), "path": f"{name}.ogg"}
            yield {"id": name, "audio": audio, "label": WORDS.index(word), "voice": voice, "split": split}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("hf_audioformer/assets/commands"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    arguments.output.mkdir(parents=True, exist_ok=True)
    clips = [clip for split in VARIANTS for clip in make_clips(split, arguments.seed)]
    parquet = arguments.output / "commands.parquet"
    Dataset.from_list(clips, features=FEATURES).to_parquet(parquet)
    # Another seed than the parquet's, so that the example is no clip of the test split.
    example = make_waveform("left", voices("test")[0], arguments.seed + 1)
    soundfile.write(arguments.output / "example_left.wav", example, SAMPLING_RATE)
    print(f"{parquet}: {len(clips)} clips, {parquet.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
