"""Small random checkpoints of four architectures, saved as a user would find them."""

from pathlib import Path

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from hf_audioformer import AudioFormerFeatureExtractor, AudioFormerForMaskedLM, new_ast

from ..fixtures_codec import make_random_encodec
from ..fixtures_recipes import tiny_config

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}


def save_zoo(folder: Path) -> dict[str, str]:
    """Folders by name: `wav2vec2`, `whisper` (clips of 2 s), `ast` (204 frames, stride 10) and
    `audioformer` (two codebooks of 64 codes)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {"wav2vec2": _wav2vec2(), "whisper": _whisper(), "ast": _ast(), "audioformer": _audioformer(folder)}
    for name, parts in models.items():
        for part in parts:
            part.save_pretrained(folder / name)
    return {name: str(folder / name) for name in models}


def _wav2vec2() -> tuple:
    config = Wav2Vec2Config(**SIZES, conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)
    return Wav2Vec2ForSequenceClassification(config), Wav2Vec2FeatureExtractor()


def _whisper() -> tuple:
    sizes = {"layers": 2, "attention_heads": 4, "ffn_dim": 32}
    both = {f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in sizes.items()}
    tokens = {"decoder_start_token_id": 50, "bos_token_id": 51, "eos_token_id": 52, "pad_token_id": 53}
    config = WhisperConfig(
        **both,
        **tokens,
        vocab_size=60,
        d_model=32,
        max_source_positions=100,
        max_target_positions=48,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return WhisperForConditionalGeneration(config), WhisperFeatureExtractor(chunk_length=2)


def _ast() -> tuple:
    model = new_ast(ASTConfig(**SIZES), label_names=["a", "b"], max_length=204)
    return model, ASTFeatureExtractor(max_length=204)


def _audioformer(folder: Path) -> tuple:
    make_random_encodec().save_pretrained(folder / "codec")
    extractor = AudioFormerFeatureExtractor.from_codec(folder / "codec", num_codebooks=2)
    return AudioFormerForMaskedLM(tiny_config(num_hidden_layers=2, num_attention_heads=4)), extractor
