"""Average precision and area under the ROC curve of every class: ours against a loop over scikit-learn, in one run.

    python -m benchmarks.metrics_speed [--clips 20000] [--classes 527] [--repeats 3]

The size of AudioSet's evaluation set, with its 2.7 labels a clip; an eighth of the scores tie with others. Prints the
seconds of both, of all our metrics together, the ratios and the largest difference. Neither side uses a second thread.
"""

import argparse

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.timing import compare
from hf_audioformer.metrics import classification_metrics, per_class_table

LABELS_PER_CLIP = 2.7


def make_scores(clips: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, float32 (clips, classes), that know something of the labels, int64 alike; every class has a positive."""
    random = np.random.default_rng(0)
    labels = (random.random((clips, classes)) < LABELS_PER_CLIP / classes).astype(np.int64)
    labels[random.integers(clips, size=classes), np.arange(classes)] = 1
    logits = (random.standard_normal((clips, classes)) + 2 * labels).astype(np.float32)
    tied = random.random(clips) < 1 / 8
    logits[tied] = logits[tied].round(1)
    return logits, labels


def scikit_learn_loop(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(classes, 2): average precision and area under the ROC curve."""
    pairs = list(zip(labels.T, logits.T, strict=True))
    return np.array([(average_precision_score(*pair), roc_auc_score(*pair)) for pair in pairs])


def ours(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = per_class_table(logits, labels, [str(index) for index in range(labels.shape[1])])
    return np.array([(row["average_precision"], row["auc"]) for row in rows])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=527)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    logits, labels = make_scores(arguments.clips, arguments.classes)
    seconds = compare(
        {
            "scikit-learn, average precision": lambda: [
                average_precision_score(*pair) for pair in zip(labels.T, logits.T, strict=True)
            ],
            "scikit-learn, both": lambda: scikit_learn_loop(logits, labels),
            "ours, both": lambda: ours(logits, labels),
            "ours, all metrics": lambda: classification_metrics(logits, labels),
        },
        arguments.repeats,
    )
    print(
        f"average precision and area under the ROC curve, {arguments.classes} classes x {arguments.clips} clips, "
        f"median of {arguments.repeats}"
    )
    print(f"{'':34} {'seconds':>8} {'ratio to ours, both':>20}")
    for name, value in seconds.items():
        print(f"{name:34} {value:8.2f} {value / seconds['ours, both']:19.1f}x")
    difference = np.abs(ours(logits, labels) - scikit_learn_loop(logits, labels)).max()
    print(f"largest difference: {difference:.1e}")


if __name__ == "__main__":
    main()
