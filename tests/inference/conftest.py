"""Tiny checkpoints of four kinds."""

import pytest

from hf_audioformer import AudioFormerFeatureExtractor

from ..fixtures_recipes import one_thread, tiny_checkpoint, tiny_codec, tiny_extractor
from .tiny_classifiers import KINDS, audioformer, spectrogram_transformer, waveform_transformer, whisper

__all__ = ["one_thread", "tiny_checkpoint", "tiny_codec", "tiny_extractor"]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, tiny_codec: str) -> dict[str, str]:
    """A classifier of each kind; the AudioFormer gives several labels. Not to be changed."""
    extractor = AudioFormerFeatureExtractor.from_codec(tiny_codec, num_codebooks=2, rms_level_dbfs=-23.0)
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    return {
        "audioformer": audioformer(folders["audioformer"], extractor, problem_type="multi_label_classification"),
        "ast": spectrogram_transformer(folders["ast"]),
        "wav2vec2": waveform_transformer(folders["wav2vec2"], problem_type="single_label_classification"),
        "whisper": whisper(folders["whisper"]),
    }
