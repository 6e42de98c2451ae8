"""Audio files to waveforms."""

from .io import Audio, load_audio

__all__ = ["Audio", "load_audio"]
