"""Codes of audio: encoding data sets."""

from .encoding import EncodedClips, encode_clips

__all__ = ["EncodedClips", "encode_clips"]
