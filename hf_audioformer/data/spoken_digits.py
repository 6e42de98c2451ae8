"""Digits spoken by a program, the synthesiser espeak-ng, in hundreds of voices: a network learns to hear words
without a single recording.

A voice has an accent: one of English, or that of a language whose own espeak-ng voice reads the English words in its
spelling. How fast, how high and how lively a digit is spoken is drawn, by how long a vocal tract, and the room, the
microphone and the noise in which it is heard.
"""

from __future__ import annotations

import ctypes
import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from ..models.audioformer.waveform_audioformer import resample
from .synthetic_sounds import filtered

__all__ = ["DIGITS", "EDITION", "Synthesiser", "spoken_digits"]

# To be raised with every change of what is spoken: clips of another edition are in nobody's cache.
EDITION = 1

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# `en` is British English; espeak-ng has no variants of the voice `en-gb`.
ENGLISH = ("en", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us", "en-us-nyc")
SPELLINGS = {
    "de": "siro wann tu sri for faif sicks sewen äit nain",
    "el": "ζίροου γουάν του θρι φορ φάιβ σιξ σέβεν έιτ νάιν",
    "es": "siro uan tu zri for faiv six seven eit nain",
    "fr": "ziro ouane tou sri for faïve sikse sévenne eïte naïne",
    "it": "zirou uan tu tri for faiv sics seven eit nain",
    "nl": "ziero wan toe srie foor faaiv siks seven eet nain",
    "pl": "ziro łan tu tri for fajw siks sewen ejt najn",
    "ru": "зиро уан ту сри фор файв сикс севен эйт найн",
}
SHARE_OF_SPELT = 0.4
UNNATURAL: tuple[str, ...] = (
    "Tweaky",
    "UniRobot",
    "AnxiousAndy",
    "anikaRobot",
    "announcer",
    "croak",
    "fast",
    "serious",
)
UNNATURAL += tuple(f"robosoft{number}" for number in ("", *range(2, 9)))

SAMPLING_RATE = 8000  # of a telephone
WORDS_PER_MINUTE = (110, 320)
# How much shorter than espeak-ng's the vocal tract is: formants and pitch are as much higher. Few values, since each is
# a resampler of its own.
VOCAL_TRACTS = (0.88, 0.92, 0.96, 1.0, 1.05, 1.1, 1.15)
# Espeak-ng's own scales of 0 to 99.
PITCH = (5, 95)
PITCH_RANGE = (10, 100)
REVERBERATION_SECONDS = (0.08, 0.5)  # time to fall by 60 dB
DIRECT_TO_REVERBERANT_DB = (0.0, 15.0)
HEARD_TAIL_SECONDS = 0.1
MICROPHONE_HZ = (50, 125, 300, 700, 1600, 4000)
MICROPHONE_STEP_DB = 4.0  # standard deviation from one of these to the next
SNR_DB = (10.0, 45.0)
LONGEST_LEAD_SECONDS, LONGEST_REST_SECONDS = 0.1, 0.05
PEAK = 0.5

# Of espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
RATE, PITCH_PARAMETER, RANGE_PARAMETER = 1, 3, 4
CHARACTERS_ARE_UTF8 = 1


class Synthesiser:
    """Espeak-ng's library, as the package `espeakng-loader` brings it.

    It keeps a state of its own: a word spoken again differs by a few samples. The same words in the same order are the
    same samples in every process. Not for several threads.

    Raises:
        ImportError: `espeakng-loader` is not installed.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ModuleNotFoundError as error:
            raise ImportError(
                "spoken digits are made by espeak-ng: pip install 'hf_audioformer[speech]' (espeakng-loader)"
            ) from error
        self._data = Path(espeakng_loader.get_data_path())
        self._variants = self._data / "voices" / "!v"
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._heard: list[np.ndarray] = []
        self._listen = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(
            self._keep
        )
        self.sampling_rate = self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, bytes(self._data), 0)
        self._library.espeak_SetSynthCallback(self._listen)

    def _keep(self, samples: Any, count: int, events: int | None) -> int:
        if count > 0:
            self._heard.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / 2**15)
        return 0  # go on

    @cached_property
    def variants(self) -> list[str]:
        """Kinds of speakers, of any accent; no robots, and none with breath, which is noise that no process repeats."""
        files = [file for file in self._variants.iterdir() if file.name not in UNNATURAL]
        return sorted(file.name for file in files if "\nbreath" not in file.read_text(encoding="utf-8"))

    def speak(self, text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> np.ndarray:
        """A text as it is spoken, float32 (samples,) at `sampling_rate`, without the silence around it.

        Args:
            voice: As in `en-us+f2`: a language, or an accent of one, and a variant.
            pitch, pitch_range: On espeak-ng's own scales of 0 to 99 and 0 to 100.

        Raises:
            ValueError: There is no such voice, or nothing is heard of the text.
        """
        language, _, variant = voice.partition("+")
        is_known = not variant or (self._variants / variant).is_file()
        # With a variant, espeak-ng takes a language that it does not know for another.
        if not is_known or any(self._library.espeak_SetVoiceByName(name.encode()) for name in (language, voice)):
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((RATE, words_per_minute), (PITCH_PARAMETER, pitch), (RANGE_PARAMETER, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._heard.clear()
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        self._library.espeak_Synth(encoded, size, 0, 0, 0, CHARACTERS_ARE_UTF8, None, None)
        waveform = np.concatenate([np.zeros(0, np.float32), *self._heard])
        loud = np.flatnonzero(np.abs(waveform) > 0.01 * np.abs(waveform).max(initial=1e-4))
        if not len(loud):
            raise ValueError(f"espeak-ng says nothing for {text!r} in the voice {voice!r}")
        return waveform[loud[0] : loud[-1] + 1]


def spoken_digits(count: int) -> Iterator[dict[str, Any]]:
    """Rows of so many clips at 8 kHz, all digits in turn: `id`, `audio` (FLAC), `label` and `voice`.

    Raises:
        ImportError: As `Synthesiser`.
    """
    synthesiser = Synthesiser()
    for number in range(count):
        random = np.random.default_rng(number)
        digit = number % len(DIGITS)
        voice, text = _draw_voice(random, digit, synthesiser.variants)
        manner = (int(random.integers(*limits)) for limits in (WORDS_PER_MINUTE, PITCH, PITCH_RANGE))
        speech = torch.from_numpy(synthesiser.speak(text, voice, *manner))
        rate = 50 * round(synthesiser.sampling_rate * random.choice(VOCAL_TRACTS) / 50)
        heard = _heard(resample(speech, rate, SAMPLING_RATE).double().numpy(), random)
        flac = io.BytesIO()
        soundfile.write(flac, heard, SAMPLING_RATE, format="FLAC")
        name = f"{number:05d}_{DIGITS[digit]}"
        yield {
            "id": name,
            "audio": {"bytes": flac.getvalue(), "path": f"{name}.flac"},
            "label": digit,
            "voice": voice,
        }


def _draw_voice(random: np.random.Generator, digit: int, variants: list[str]) -> tuple[str, str]:
    """A voice, and the digit in its spelling."""
    if random.random() < SHARE_OF_SPELT:
        language = str(random.choice(list(SPELLINGS)))
        text = SPELLINGS[language].split()[digit]
    else:
        language, text = str(random.choice(ENGLISH)), DIGITS[digit]
    return f"{language}+{random.choice(variants)}", text


def _heard(speech: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What is recorded of speech (samples,): in one of two cases in a room, by some microphone, in noise."""
    from scipy.signal import fftconvolve

    if random.random() < 0.5:
        speech = fftconvolve(speech, _room_response(random))[: len(speech) + int(HEARD_TAIL_SECONDS * SAMPLING_RATE)]
    levels_db = np.cumsum(random.normal(0, MICROPHONE_STEP_DB, len(MICROPHONE_HZ)))
    speech = filtered(
        speech, SAMPLING_RATE, lambda hz: 10 ** (np.interp(np.log(hz), np.log(MICROPHONE_HZ), levels_db) / 20)
    )
    lead, rest = random.uniform(0, LONGEST_LEAD_SECONDS), random.uniform(0, LONGEST_REST_SECONDS)
    if random.random() < 0.5:
        lead /= 10
    clip = np.pad(speech, (int(lead * SAMPLING_RATE), int(rest * SAMPLING_RATE)))
    slope = random.uniform(0, 1)  # from white to brown
    noise = filtered(random.standard_normal(len(clip)), SAMPLING_RATE, lambda hz: hz**-slope)
    clip += noise * speech.std() / noise.std() * 10 ** (-random.uniform(*SNR_DB) / 20)
    return PEAK * clip / np.abs(clip).max()


def _room_response(random: np.random.Generator) -> np.ndarray:
    """The direct sound, then noise that dies away."""
    seconds = random.uniform(*REVERBERATION_SECONDS)
    times = np.arange(1, int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tail = random.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    ratio_db = random.uniform(*DIRECT_TO_REVERBERANT_DB)
    return np.concatenate([[1.0], tail / np.sqrt(np.sum(tail**2)) * 10 ** (-ratio_db / 20)])
