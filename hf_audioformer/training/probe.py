"""Starting a classifier from a linear probe: logistic regression on the vectors that an untrained encoder gives."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader, Dataset

from .. import AudioFormerForAudioClassification
from .logistic_regression import logistic_regression

__all__ = ["start_from_probe"]

INVERSE_REGULARIZATION = 0.1
MAX_ITERATIONS = 1000
BATCH_SIZE = 16


def start_from_probe(
    model: AudioFormerForAudioClassification,
    dataset: Dataset,
    collator: Callable[[Sequence[Any]], dict[str, torch.Tensor]],
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Sets the model's classifier to logistic regression on its pooled vectors of labelled clips.

    Fine-tuning then bends the encoder to a classifier that fits, not to a random one, which matters where clips are few
    (linear probing, then fine-tuning: arXiv 2202.10054). The vectors are standardized for the regression; pooling by
    statistics keeps the scaling, so that all of them learn at one rate, elsewhere it is folded into the weights.

    Processes that train together share what the first of them fits.

    Args:
        dataset: Items as the collator takes them, with class indices or multi-hot rows as labels.
        autocast: The precision of the encoder's passes, such as an Accelerator's `autocast`.

    Raises:
        ValueError: The model is one for regression.
    """
    if model.config.problem_type == "regression":
        raise ValueError("model.probe_first starts classifiers, and problem_type is regression; leave it out")
    found = [_fit(model, dataset, collator, autocast) if PartialState().is_main_process else None]
    mean, spread, weight, bias = broadcast_object_list(found)[0]
    with torch.no_grad():
        if model.config.pooling == "statistics":
            model.pooling.mean += model.pooling.spread * torch.from_numpy(mean).to(model.pooling.mean)
            model.pooling.spread *= torch.from_numpy(spread).to(model.pooling.spread)
        else:
            weight = weight / spread
            bias = bias - weight @ mean
        model.classifier.weight.copy_(torch.from_numpy(weight))
        model.classifier.bias.copy_(torch.from_numpy(bias))


def _fit(
    model: AudioFormerForAudioClassification,
    dataset: Dataset,
    collator: Callable[[Sequence[Any]], dict[str, torch.Tensor]],
    autocast: Callable[[], AbstractContextManager[None]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean and spread of the vectors (size,), and weights (num_labels, size) and biases of the standardized ones."""
    vectors, labels = _pooled(model, dataset, collator, autocast)
    if model.config.problem_type == "single_label_classification" and labels.ndim == 2:
        labels = labels.argmax(axis=1)
    mean, spread = vectors.mean(axis=0), vectors.std(axis=0) + 1e-6
    weight, bias = logistic_regression(
        (vectors - mean) / spread,
        labels,
        model.num_labels,
        inverse_regularization=INVERSE_REGULARIZATION,
        max_iterations=MAX_ITERATIONS,
    )
    return mean, spread, weight, bias


@torch.no_grad()
def _pooled(
    model: AudioFormerForAudioClassification,
    dataset: Dataset,
    collator: Callable[[Sequence[Any]], dict[str, torch.Tensor]],
    autocast: Callable[[], AbstractContextManager[None]],
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors that the classifier reads, float64 (clips, size), and the labels."""
    was_training = model.training
    model.eval()
    vectors, labels = [], []
    for batch in DataLoader(dataset, batch_size=BATCH_SIZE, collate_fn=collator):
        labels.append(batch.pop("labels").numpy())
        with autocast():
            outputs = model.audioformer(**{name: tensor.to(model.device) for name, tensor in batch.items()})
            pooled = model.pooling(*model.audioformer.moments(outputs))
        vectors.append(pooled.double().cpu().numpy())
    model.train(was_training)
    return np.concatenate(vectors), np.concatenate(labels)
