"""The metrics of `hf_audioformer.metrics` as a module of `evaluate`; `hf_audioformer.assets.metric_folder()` names it.

`evaluate` copies this file and reads its imports line by line: one on each.
"""

import datasets
import evaluate
import numpy as np

from hf_audioformer.metrics import classification_metrics

DESCRIPTION = "Accuracy and F1 for single labels; mAP, ROC-AUC, d', lwlrap and F1 for several labels per clip."
INPUTS = f"""
Args:
    predictions: Logits, (clips, classes).
    references: Class indices (clips,), or for several labels per clip zeros and ones (clips, classes).

Returns what `hf_audioformer.metrics.classification_metrics` does:
{classification_metrics.__doc__}
Example:
    >>> from hf_audioformer import assets
    >>> metric = evaluate.load(assets.metric_folder())
    >>> metric.compute(predictions=[[2.0, 1.0], [0.5, 3.0]], references=[0, 0])["accuracy"]
    0.5
"""
LOGITS = datasets.Sequence(datasets.Value("float32"))
LABELS = (datasets.Value("int64"), datasets.Sequence(datasets.Value("int64")))


class AudioClassification(evaluate.Metric):
    """One module for single and multi-label clips; the form of the references tells which."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=[datasets.Features({"predictions": LOGITS, "references": labels}) for labels in LABELS],
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return classification_metrics(np.asarray(predictions, dtype=np.float32), np.asarray(references))
