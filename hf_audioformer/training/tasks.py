"""What a head is trained for: how what it says of clips is measured, shown, and compared with doing without it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import ClipTable
from ..inspection.classification_plots import (
    average_precision_figure,
    confusion_figure,
    numbers_figure,
    precision_recall_figure,
)
from ..metrics import (
    class_probabilities,
    classes_left_out,
    classification_metrics,
    confidence_intervals,
    known_mean,
    per_class_table,
    per_target_table,
    regression_metrics,
)
from .hub import ID_OF_THIS_CHECKPOINT
from .logistic_regression import logistic_regression
from .results import chance_level

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CLASSIFICATION", "Classification", "Regression", "ScoredClips", "Task"]

MAX_ITERATIONS = 2000
# Scores (clips x classes) beyond which a bootstrap would take minutes.
MOST_SCORES = 200_000


@dataclass(frozen=True)
class ScoredClips:
    """Clips by name, what a model gave for them, and their labels, as a task has them; and the names of the outputs.

    For classes of clips these are logits, float32 (clips, classes), and class indices (clips,), or for several per clip
    multi-hot rows (clips, classes).
    """

    ids: Sequence[str]
    logits: Any
    labels: Any
    names: Sequence[str]

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2


class Task(ABC):
    """What a model does with clips.

    Attributes:
        floor_is: What it is compared with, trained on simple features of the same clips; none if empty.
        aim: What it is trained to do, for the card, with the number of outputs as `{num_labels}`.
        output, outputs: What one of them, and several, are called.
        scores_are: A sentence for the card on what its outputs are, after a space.
        use: Code for the card, where it is not that of every classifier.
        pipeline: The pipeline of Transformers that runs it.
        most_scores: So many numbers in `logits` have intervals computed in the card.
    """

    floor_is = ""
    aim = ""
    output, outputs = "class", "classes"
    scores_are = ""
    use = ""
    pipeline: str | None = "audio-classification"
    most_scores: float = MOST_SCORES

    def limit(self, scored: ScoredClips) -> str:
        """A sentence on what it does wrong by its nature, for the card."""
        return ""

    @abstractmethod
    def metric(self, labels: Any) -> str:
        """The name of the main metric, for clips with such labels."""

    @abstractmethod
    def score(self, metrics: Mapping[str, float]) -> float:
        """The main one of the metrics."""

    def selection(self, metrics: Mapping[str, float]) -> float:
        """What chooses the best epoch: the higher the better."""
        return self.score(metrics)

    def selection_is(self, metric: str) -> str:
        """What `selection` is, where `metric` is the main metric."""
        return metric

    @abstractmethod
    def metrics(self, scored: ScoredClips) -> dict[str, float]:
        """All metrics of the clips."""

    def scored(self, ids: Sequence[str], outputs: Any, labels: Any, names: Sequence[str]) -> ScoredClips:
        """What a Trainer predicted for the clips `ids`, as this task takes it."""
        return ScoredClips(ids, np.asarray(outputs), np.asarray(labels), names)

    def intervals(self, scored: ScoredClips, *, resamples: int, seed: int = 0) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of the metrics by name; none where they are not computed."""
        return {}

    def train_labels(self, clips: ClipTable, indices: Sequence[int]) -> Any:
        """What `chance` knows of training clips."""
        return clips.targets(indices)

    @abstractmethod
    def chance(self, train_labels: Any, scored: ScoredClips) -> float:
        """What the main metric of the clips is without an ear."""

    @abstractmethod
    def chance_is(self, metric: str) -> str:
        """What that level is, in words."""

    def floor(
        self,
        train: np.ndarray,
        train_labels: np.ndarray,
        test: np.ndarray,
        test_labels: np.ndarray,
        num_labels: int,
    ) -> dict[str, float]:
        """Metrics of what `floor_is` says, fitted to vectors of clips, (clips, size)."""
        raise NotImplementedError

    @abstractmethod
    def table(self, scored: ScoredClips) -> list[dict[str, float | str]]:
        """A row per output, with `name` and `clips`."""

    @abstractmethod
    def predictions(self, scored: ScoredClips) -> Iterator[dict[str, Any]]:
        """Rows that tell what was said of each clip, beginning with its `id`."""

    @abstractmethod
    def figures(self, scored: ScoredClips, about: str) -> dict[str, Figure]:
        """Figures by the names of their files, with `about` under their titles."""

    def left_out(self, scored: ScoredClips) -> list[str]:
        """Names of outputs that no clip can tell about."""
        return []


class Classification(Task):
    """One or several classes of each clip."""

    floor_is = "logistic regression"
    aim = "tell apart {num_labels} classes"
    scores_are = " Scores are not calibrated probabilities."

    def limit(self, scored: ScoredClips) -> str:
        return "" if scored.multi_label else "A clip of none of the classes is given one of them all the same."

    def metric(self, labels: np.ndarray) -> str:
        return "macro mAP" if labels.ndim == 2 else "accuracy"

    def score(self, metrics: Mapping[str, float]) -> float:
        return metrics["map"] if "map" in metrics else metrics["accuracy"]

    def metrics(self, scored: ScoredClips) -> dict[str, float]:
        return classification_metrics(scored.logits, scored.labels)

    def intervals(self, scored: ScoredClips, *, resamples: int, seed: int = 0) -> dict[str, tuple[float, float]]:
        return confidence_intervals(scored.logits, scored.labels, resamples=resamples, seed=seed)

    def chance(self, train_labels: np.ndarray, scored: ScoredClips) -> float:
        return chance_level(train_labels, scored.labels)

    def chance_is(self, metric: str) -> str:
        return "a random ranking" if metric == "macro mAP" else "always the most frequent class of the training clips"

    def floor(
        self,
        train: np.ndarray,
        train_labels: np.ndarray,
        test: np.ndarray,
        test_labels: np.ndarray,
        num_labels: int,
    ) -> dict[str, float]:
        weight, bias = logistic_regression(
            train, train_labels, num_labels, inverse_regularization=1.0, max_iterations=MAX_ITERATIONS
        )
        return classification_metrics(test @ weight.T + bias, test_labels)

    def table(self, scored: ScoredClips) -> list[dict[str, float | str]]:
        return per_class_table(scored.logits, scored.labels, scored.names)

    def predictions(self, scored: ScoredClips) -> Iterator[dict[str, Any]]:
        """A row per clip: its labels, those predicted (of several all above one half), and the best one by itself."""
        probabilities = class_probabilities(scored.logits, multi_label=scored.multi_label)
        for clip_id, scores, label in zip(scored.ids, probabilities, scored.labels, strict=True):
            best = int(scores.argmax())
            true = np.flatnonzero(label).tolist() if scored.multi_label else [int(label)]
            predicted = np.flatnonzero(scores > 0.5).tolist() if scored.multi_label else [best]
            yield {
                "id": clip_id,
                "labels": ";".join(scored.names[index] for index in true),
                "predicted": ";".join(scored.names[index] for index in predicted),
                "best": scored.names[best],
                "best_probability": f"{scores[best]:.4f}",
            }

    def figures(self, scored: ScoredClips, about: str) -> dict[str, Figure]:
        logits, labels, names = scored.logits, scored.labels, scored.names
        if scored.multi_label:
            scores, positive = logits, labels == 1
            title = f"Average precision of each class\n{about}"
            figures = {"average_precision.png": average_precision_figure(scores, positive, names, title)}
        else:
            scores = class_probabilities(logits, multi_label=False)
            positive = labels[:, None] == np.arange(len(names))
            figures = {"confusion.png": confusion_figure(logits, labels, names, f"Confusion\n{about}")}
        title = f"Precision and recall\n{about}"
        return figures | {"precision_recall.png": precision_recall_figure(scores, positive, names, title)}

    def left_out(self, scored: ScoredClips) -> list[str]:
        return classes_left_out(scored.labels, scored.names)


CLASSIFICATION = Classification()


class Regression(Task):
    """Numbers of each clip: both what is given and what is true are float (clips, numbers)."""

    floor_is = "ridge regression"
    aim = "predict {num_labels} numbers of each clip"
    output, outputs = "number", "numbers"
    scores_are = " Numbers beyond the range of the training clips are guesses."
    use = f"""from hf_audioformer.inference import AudioClassifier

heard = AudioClassifier.from_pretrained("{ID_OF_THIS_CHECKPOINT}")("clip.wav")
dict(zip(heard.labels, heard.scores))  # in the units of the data"""

    def metric(self, labels: np.ndarray) -> str:
        return "R2"

    def score(self, metrics: Mapping[str, float]) -> float:
        return metrics["r2"]

    def scored(self, ids: Sequence[str], outputs: Any, labels: Any, names: Sequence[str]) -> ScoredClips:
        shape = (len(ids), len(names))
        return ScoredClips(ids, np.asarray(outputs).reshape(shape), np.asarray(labels).reshape(shape), names)

    def numbers(self, scored: ScoredClips) -> tuple[np.ndarray, np.ndarray]:
        """What was given and what is true, floats (cases, numbers) both; of what is true NaN is not known."""
        return scored.logits, scored.labels

    def metrics(self, scored: ScoredClips) -> dict[str, float]:
        return regression_metrics(*self.numbers(scored))

    def intervals(self, scored: ScoredClips, *, resamples: int, seed: int = 0) -> dict[str, tuple[float, float]]:
        return confidence_intervals(
            scored.logits, scored.labels, resamples=resamples, seed=seed, metrics_of=regression_metrics
        )

    def chance(self, train_labels: Any, scored: ScoredClips) -> float:
        _, targets = self.numbers(scored)
        mean = np.nan_to_num(known_mean(train_labels))  # what no case knows is in no metric
        return regression_metrics(np.broadcast_to(mean, targets.shape), targets)["r2"]

    def chance_is(self, metric: str) -> str:
        return "always the mean of the training clips"

    def floor(
        self,
        train: np.ndarray,
        train_labels: np.ndarray,
        test: np.ndarray,
        test_labels: np.ndarray,
        num_labels: int,
    ) -> dict[str, float]:
        from sklearn.linear_model import Ridge

        predictions = Ridge(alpha=1.0).fit(train, train_labels).predict(test)
        return regression_metrics(predictions.reshape(test_labels.shape), test_labels)

    def table(self, scored: ScoredClips) -> list[dict[str, float | str]]:
        return per_target_table(*self.numbers(scored), scored.names)

    def predictions(self, scored: ScoredClips) -> Iterator[dict[str, Any]]:
        """A row per clip: each number, and what was predicted of it."""
        for clip_id, predicted, true in zip(scored.ids, scored.logits, scored.labels, strict=True):
            yield {"id": clip_id} | self.row(scored.names, true, predicted)

    def row(self, names: Sequence[str], true: np.ndarray, predicted: np.ndarray) -> dict[str, str]:
        """The numbers by name and what was predicted of them, as text; nothing for what is not known."""
        cells: dict[str, str] = {}
        for name, value, guess in zip(names, true.tolist(), predicted.tolist(), strict=True):
            cells |= {name: "" if math.isnan(value) else f"{value:.6g}", f"{name}_predicted": f"{guess:.6g}"}
        return cells

    def figures(self, scored: ScoredClips, about: str) -> dict[str, Figure]:
        title = f"True and predicted numbers\n{about}"
        return {"predictions.png": numbers_figure(scored.logits, scored.labels, scored.names, title)}
