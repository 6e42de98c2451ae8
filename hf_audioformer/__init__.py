"""Audio transformers on the codes of neural codecs for Hugging Face Transformers.

Importing the package registers AudioFormer with the Auto classes; everything else is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .environment import require_environment

try:
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForAudioClassification,
        AutoModelForAudioFrameClassification,
        AutoModelForAudioXVector,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForPreTraining,
        AutoModelForSeq2SeqLM,
    )

    from .models.audioformer.configuration_audioformer import AudioFormerConfig
    from .models.audioformer.feature_extraction_audioformer import AudioFormerFeatureExtractor
    from .models.audioformer.feature_extraction_signal_audioformer import AudioFormerSignalFeatureExtractor
    from .models.audioformer.generation_audioformer import (
        AudioFormerForCausalLM,
        AudioFormerForConditionalGeneration,
    )
    from .models.audioformer.modeling_audioformer import (
        AudioFormerForAudioClassification,
        AudioFormerForAudioFrameClassification,
        AudioFormerForAudioXVector,
        AudioFormerForMaskedLM,
        AudioFormerForPreTraining,
        AudioFormerModel,
    )
except (ImportError, OSError, RuntimeError):
    require_environment()  # the usual causes, with their remedies
    raise

if TYPE_CHECKING:
    from .audio.ast_features import ASTLogMelFeatureExtractor
    from .audio.io import load_audio
    from .data import read_clips
    from .models.ast.loading_ast import ast_from_deit, ast_from_vit, load_ast, new_ast
    from .models.audioformer.codec_audioformer import AudioCodec

__version__ = "0.1.0"

AutoConfig.register("audioformer", AudioFormerConfig, exist_ok=True)
AutoFeatureExtractor.register(AudioFormerConfig, AudioFormerFeatureExtractor, exist_ok=True)
# A configuration has one extractor; this one is found by its name in preprocessor_config.json, whatever its key.
AutoFeatureExtractor.register(AudioFormerSignalFeatureExtractor, AudioFormerSignalFeatureExtractor, exist_ok=True)
AutoModel.register(AudioFormerConfig, AudioFormerModel, exist_ok=True)
AutoModelForAudioClassification.register(AudioFormerConfig, AudioFormerForAudioClassification, exist_ok=True)
AutoModelForAudioFrameClassification.register(AudioFormerConfig, AudioFormerForAudioFrameClassification, exist_ok=True)
AutoModelForAudioXVector.register(AudioFormerConfig, AudioFormerForAudioXVector, exist_ok=True)
AutoModelForCausalLM.register(AudioFormerConfig, AudioFormerForCausalLM, exist_ok=True)
AutoModelForMaskedLM.register(AudioFormerConfig, AudioFormerForMaskedLM, exist_ok=True)
AutoModelForPreTraining.register(AudioFormerConfig, AudioFormerForPreTraining, exist_ok=True)
AutoModelForSeq2SeqLM.register(AudioFormerConfig, AudioFormerForConditionalGeneration, exist_ok=True)

_LAZY = {
    "ASTLogMelFeatureExtractor": ".audio.ast_features",
    "AudioCodec": ".models.audioformer.codec_audioformer",
    **dict.fromkeys(("ast_from_deit", "ast_from_vit", "load_ast", "new_ast"), ".models.ast.loading_ast"),
    "load_audio": ".audio.io",
    "read_clips": ".data",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


__all__ = [
    "ASTLogMelFeatureExtractor",
    "AudioCodec",
    "AudioFormerConfig",
    "AudioFormerFeatureExtractor",
    "AudioFormerForAudioClassification",
    "AudioFormerForAudioFrameClassification",
    "AudioFormerForAudioXVector",
    "AudioFormerForCausalLM",
    "AudioFormerForConditionalGeneration",
    "AudioFormerForMaskedLM",
    "AudioFormerForPreTraining",
    "AudioFormerModel",
    "AudioFormerSignalFeatureExtractor",
    "ast_from_deit",
    "ast_from_vit",
    "load_ast",
    "load_audio",
    "new_ast",
    "read_clips",
]
