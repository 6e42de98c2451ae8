"""The floor beside every result: logistic regression on statistics of log-mels.

    hf-audioformer baseline commands|esc10|fsdd

prints its accuracy on the unheard voices of the spoken commands, on each fold of ESC-10, or on each speaker of FSDD,
after training on the rest. Fine-tuning gives the floor of its own clips in its results and cards.
"""

import argparse

import numpy as np

from ..data.readers import read_clips
from ..data.splits import SplitArguments, make_splits
from ..training.floor import Floor

__all__ = ["main"]

PROTOCOLS = {
    "commands": SplitArguments(kind="column", column="split", validation_fraction=0),
    "esc10": SplitArguments(kind="folds", column="fold", validation_fraction=0),
    "fsdd": SplitArguments(kind="folds", column="speaker", validation_fraction=0),
}


def main(argv: list[str] | None = None) -> None:
    """Prints the log-mel accuracy on each test part of a known set, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=PROTOCOLS)
    name = parser.parse_args(argv).data

    clips = read_clips(name)
    floor = Floor(clips)
    accuracies = []
    for split in make_splits(clips, PROTOCOLS[name]):
        accuracies.append(floor.metrics(split.train, split.test, show_progress=True)["accuracy"])
        print(f"{split.name}: {accuracies[-1]:.1%}")
    print(f"mean: {np.mean(accuracies):.1%}")


if __name__ == "__main__":
    main()
