"""Code embeddings that begin as the codec's own vectors."""

import pytest
import torch

from hf_audioformer import AudioFormerFeatureExtractor, AudioFormerForMaskedLM
from hf_audioformer.training.codec_embeddings import start_from_codec

from ..fixtures_recipes import tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.unit
@pytest.mark.parametrize(("hidden_size", "kept"), [(32, 1.0), (8, 0.6)])
def test_codes_that_sound_alike_start_alike(
    hidden_size: int, kept: float, tiny_extractor: AudioFormerFeatureExtractor
) -> None:
    """All distances where the network is as wide as the codec's 16 channels; most of them where it is narrower."""
    codec = tiny_extractor.load_codec()
    vectors = codec.codebook_vectors()[:2]
    model = AudioFormerForMaskedLM(tiny_config(hidden_size=hidden_size))
    start_from_codec(model, codec)
    weight = model.audioformer.embeddings.code_embeddings.weight.detach()
    table = weight.view(2, 68, hidden_size)[:, :64]
    for book in range(2):
        expected, found = torch.pdist(vectors[book]), torch.pdist(table[book])
        agreement = torch.corrcoef(torch.stack((expected, found)))[0, 1]
        assert agreement >= kept - 1e-4
        if hidden_size >= vectors.shape[-1]:
            scale = found.mean() / expected.mean()
            torch.testing.assert_close(found, scale * expected, rtol=1e-3, atol=1e-5)
    sums = vectors[0][:5, None] + vectors[1][None, :5]
    summed = table[0][:5, None] + table[1][None, :5]
    if hidden_size >= vectors.shape[-1]:
        ratio = torch.pdist(summed.flatten(0, 1)) / torch.pdist(sums.flatten(0, 1))
        assert ratio.max() == pytest.approx(float(ratio.min()), rel=1e-3)
