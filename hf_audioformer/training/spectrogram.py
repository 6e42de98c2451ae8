"""What an AST is trained for: a loss that takes the soft targets of mixup."""

from typing import Any

import torch

from ..losses import classification_loss
from .trainer import Objective

__all__ = ["spectrogram_objective"]


def spectrogram_objective(problem_type: str, label_smoothing: float = 0.0) -> Objective:
    """An objective of `AudioTrainer` for `ASTForAudioClassification`: the mean loss of a batch's clips.

    Batches come from `SpectrogramCollator`; where they have `kept_tokens`, the model was prepared by `keep_tokens`.

    Args:
        problem_type: `"single_label_classification"` (cross-entropy, with class ids or probabilities) or
            `"multi_label_classification"` (binary cross-entropy, with shares).
        label_smoothing: See [`hf_audioformer.losses.classification_loss`].
    """

    def objective(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, Any, dict[str, torch.Tensor]]:
        inputs = dict(batch)
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        return classification_loss(outputs.logits, labels, problem_type, label_smoothing), outputs, {}

    return objective
