"""Random classifiers of four kinds, saved as a user would find them; their scores differ from clip to clip."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

from hf_audioformer import AudioFormerFeatureExtractor, AudioFormerForAudioClassification
from hf_audioformer.training.checkpoints import save_final

from ..fixtures_codec import varied_sound
from ..fixtures_recipes import tiny_config

KINDS = ("audioformer", "ast", "wav2vec2", "whisper")
NAMES = ("low", "middle", "high", "silence")
LABELS: Any = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
SIZES: Any = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
AST_FRAMES = 64  # 0.655 s
WHISPER_SECONDS = 2


def sound(seconds: float, rate: int = 16_000, seed: int = 0) -> dict[str, Any]:
    """Some noise as pipelines take it."""
    return {"array": varied_sound(round(seconds * rate), seed).numpy(), "sampling_rate": rate}


@torch.no_grad()
def randomize(model: PreTrainedModel) -> PreTrainedModel:
    """The model with weights so large that scores differ from clip to clip by more than rounding."""
    for weight in model.parameters():
        weight.normal_(std=0.6)
    return model


def audioformer(folder: Path, extractor: AudioFormerFeatureExtractor, **settings: Any) -> str:
    torch.manual_seed(0)
    model = AudioFormerForAudioClassification(tiny_config(initializer_range=0.3, **(LABELS | settings)))
    save_final(model, extractor, folder)
    return str(folder)


def spectrogram_transformer(folder: Path, **settings: Any) -> str:
    patches: Any = {"patch_size": 8, "time_stride": 8, "frequency_stride": 8, "num_mel_bins": 32}
    torch.manual_seed(0)
    config = ASTConfig(**({"max_length": AST_FRAMES} | SIZES | patches | LABELS | settings))
    randomize(ASTForAudioClassification(config)).save_pretrained(folder)
    ASTFeatureExtractor(max_length=AST_FRAMES, num_mel_bins=32).save_pretrained(folder)
    return str(folder)


def waveform_transformer(folder: Path, **settings: Any) -> str:
    convolutions = {"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16}
    torch.manual_seed(0)
    config = Wav2Vec2Config(**SIZES, **convolutions, **positions, **(LABELS | settings))
    randomize(Wav2Vec2ForSequenceClassification(config)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


def whisper(folder: Path, **settings: Any) -> str:
    sizes = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 8}
    lengths = {"num_mel_bins": 16, "max_source_positions": 50 * WHISPER_SECONDS, "classifier_proj_size": 16}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    torch.manual_seed(0)
    config = WhisperConfig(**sizes, **lengths, **tokens, **(LABELS | settings))
    randomize(WhisperForAudioClassification(config)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=WHISPER_SECONDS).save_pretrained(folder)
    return str(folder)
