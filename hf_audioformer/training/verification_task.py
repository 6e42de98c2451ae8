"""Verification: whether two clips have the same label, also labels that were never heard in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import ClipTable
from ..data.splits import Split
from ..inspection.classification_plots import trials_figure
from ..verification import all_trials, cosines, equal_error_rate, min_detection_cost
from .hub import ID_OF_THIS_CHECKPOINT
from .tasks import ScoredClips, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Verification", "check_pairs"]

Trials = Callable[[Sequence[str]], np.ndarray]


def check_pairs(clips: ClipTable, splits: Sequence[Split]) -> None:
    """Raises a ValueError if the clips of a part that is measured have a label each, so that no pair has the same."""
    labels = clips.targets()
    for split in splits:
        for part, indices in (("validation", split.validation), ("test", split.test)):
            if indices and len(np.unique(labels[indices])) == len(indices):
                raise ValueError(
                    f"split {split.name!r}: each of the {len(indices)} clips of the {part} part has a label of its "
                    "own, and errors need pairs of the same; enlarge its fraction, choose other values, or (for "
                    "validation) set split.validation_fraction 0"
                )


class Verification(Task):
    """Same or different: `logits` are vectors, float32 (clips, size), `labels` class indices (clips,).

    Args:
        trials: Gives the pairs to compare, int64 (trials, 2), for the names of the clips; all pairs by default.
    """

    floor_is = "cosine"
    aim = "give clips of one label vectors that are alike ({num_labels} labels, with those only tested)"
    use = f"""import hf_audioformer
from torch.nn.functional import cosine_similarity
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

extractor = AutoFeatureExtractor.from_pretrained("{ID_OF_THIS_CHECKPOINT}")
model = AutoModelForAudioXVector.from_pretrained("{ID_OF_THIS_CHECKPOINT}")
clips = [hf_audioformer.load_audio(file) for file in ("one.wav", "other.wav")]
inputs = [extractor(clip["array"], sampling_rate=clip["sampling_rate"], return_tensors="pt") for clip in clips]
one, other = (model(**of_clip).embeddings[0] for of_clip in inputs)
cosine_similarity(one, other, dim=0)"""
    pipeline = None
    scores_are = " A threshold for cosines has to be set on clips like those it is for."

    def __init__(self, trials: Trials = lambda ids: all_trials(len(ids))):
        self.trials = trials

    def metric(self, labels: Any) -> str:
        return "EER"

    def score(self, metrics: Mapping[str, float]) -> float:
        return metrics["eer"]

    def selection(self, metrics: Mapping[str, float]) -> float:
        return 1 - metrics["eer"]

    def selection_is(self, metric: str) -> str:
        return "1 - EER"

    def scored(self, ids: Sequence[str], outputs: Any, labels: Any, names: Sequence[str]) -> ScoredClips:
        """Of outputs with the cosines to the classes first, and then the vectors."""
        return ScoredClips(ids, np.asarray(outputs[1]), np.asarray(labels), names)

    def metrics(self, scored: ScoredClips) -> dict[str, float]:
        """`eer`, the equal error rate, and `min_dcf`, the lowest detection cost, over all trials."""
        scores, same, _ = self._trials(scored)
        return {"eer": equal_error_rate(scores, same), "min_dcf": min_detection_cost(scores, same)}

    def chance(self, train_labels: Any, scored: ScoredClips) -> float:
        return 0.5

    def chance_is(self, metric: str) -> str:
        return "vectors that tell nothing"

    def floor(
        self,
        train: np.ndarray,
        train_labels: np.ndarray,
        test: np.ndarray,
        test_labels: np.ndarray,
        num_labels: int,
    ) -> dict[str, float]:
        ids = [str(index) for index in range(len(test))]
        return Verification().metrics(ScoredClips(ids, test, test_labels, [""] * num_labels))

    def table(self, scored: ScoredClips) -> list[dict[str, float | str]]:
        """Of each label that was tested: its clips, and the equal error rate of the trials with one of them."""
        scores, same, trials = self._trials(scored)
        rows: list[dict[str, float | str]] = []
        for index in np.unique(scored.labels).tolist():
            own = (scored.labels[trials] == index).any(axis=1)
            defined = same[own].any() and not same[own].all()
            rate = equal_error_rate(scores[own], same[own]) if defined else float("nan")
            rows.append({"name": scored.names[index], "clips": int((scored.labels == index).sum()), "eer": rate})
        return rows

    def predictions(self, scored: ScoredClips) -> Iterator[dict[str, Any]]:
        """A row per clip: its label, and the clip that is most like it."""
        units = scored.logits / np.maximum(np.linalg.norm(scored.logits, axis=1, keepdims=True), 1e-12)
        for index, clip_id in enumerate(scored.ids):
            alike = units @ units[index]
            alike[index] = -np.inf
            nearest = int(alike.argmax())
            yield {
                "id": clip_id,
                "label": scored.names[scored.labels[index]],
                "nearest": scored.ids[nearest],
                "nearest_label": scored.names[scored.labels[nearest]],
                "cosine": f"{alike[nearest]:.4f}",
            }

    def figures(self, scored: ScoredClips, about: str) -> dict[str, Figure]:
        scores, same, _ = self._trials(scored)
        return {"trials.png": trials_figure(scores, same, f"Cosines of pairs of clips\n{about}")}

    def _trials(self, scored: ScoredClips) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cosines (trials,), whether the labels are the same, and the pairs."""
        trials = self.trials(scored.ids)
        labels = scored.labels[trials]
        return cosines(scored.logits, trials), labels[:, 0] == labels[:, 1], trials
