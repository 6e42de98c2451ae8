"""Random codecs for the tests of models."""

from ..fixtures_codec import random_encodec, random_encodec_folder

__all__ = ["random_encodec", "random_encodec_folder"]
