"""MP3 files that do not tell their length, as many that were recorded, streamed or cut.

libsndfile guesses it from the size of the file and the first frames, and reads no further: a picture in the tag makes
it too long, a bit rate that varies too short, to a fifth in one trial. Of a stream it guesses nothing.
"""

import math
import os
import threading

import numpy as np

__all__ = ["decode_stream", "sound_without_length"]

# What the first frame holds where a file tells its length; and the longest first frame, in bytes.
_LENGTH_MARKS = (b"Xing", b"Info", b"VBRI")
_LONGEST_FRAME = 2881
_BLOCK_SAMPLES = 1 << 16


def sound_without_length(mp3: bytes) -> bytes | None:
    """What follows the tags of an MP3 file that does not tell its length; None of one that does."""
    start = 0
    while mp3.startswith(b"ID3", start) and len(mp3) >= start + 10:
        flags, high, middle, low, lowest = mp3[start + 5 : start + 10]
        footer = 10 if flags & 0x10 else 0
        start += 10 + (high << 21) + (middle << 14) + (low << 7) + lowest + footer
    first = mp3[start : start + _LONGEST_FRAME]
    return None if not first or any(mark in first for mark in _LENGTH_MARKS) else mp3[start:]


def decode_stream(mp3: bytes, max_seconds: float | None = None) -> tuple[np.ndarray, int]:
    """The sound of an MP3 file without tags, float32 (samples, channels), and its sampling rate in Hz; to its end, or
    to where it is longer than `max_seconds`.

    Raises:
        soundfile.SoundFileError: It cannot be read.
    """
    import soundfile

    reading, writing = os.pipe()
    feeder = threading.Thread(target=_feed, args=(writing, mp3))
    feeder.start()
    try:
        with soundfile.SoundFile(reading, closefd=False) as sound:
            wanted = math.inf if max_seconds is None else max_seconds * sound.samplerate
            blocks = [sound.read(0, dtype="float32", always_2d=True)]
            while wanted >= 0 and len(block := sound.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                blocks.append(block)
                wanted -= len(block)
            return np.concatenate(blocks), sound.samplerate
    finally:
        os.close(reading)  # a feeder that is not done ends by it
        feeder.join()


def _feed(writing: int, mp3: bytes) -> None:
    try:
        with os.fdopen(writing, "wb") as file:
            file.write(mp3)
    except BrokenPipeError:
        pass
