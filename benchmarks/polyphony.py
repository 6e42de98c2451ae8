"""Numbers along time to learn from: how many of the ten classes are heard in the mixtures of ESC-10.

    python -m benchmarks.polyphony polyphony.csv
    hf-audioformer finetune esc10_mix_events --data.curves polyphony.csv --output_dir polyphony

Writes a row for every tenth of a second of every mixture (HF_AUDIOFORMER_DATA), from the known onsets and offsets.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from hf_audioformer import read_clips
from hf_audioformer.data.known_sets import MIXTURE_SECONDS
from hf_audioformer.data.moments import Spans, spans_of_clips

STEP_SECONDS = 0.1


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the .csv to write")
    file: Path = parser.parse_args(argv).file
    clips = read_clips("esc10_mix")
    seconds = np.arange(0, MIXTURE_SECONDS, STEP_SECONDS)
    with file.open("w", encoding="utf-8", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["filename", "time", "classes_heard"])
        for name, spans in zip(clips.ids, spans_of_clips(clips), strict=True):
            heard = Spans(spans, len(clips.label_names)).at(seconds).sum(axis=1)
            rows.writerows([name, f"{time:.1f}", int(number)] for time, number in zip(seconds, heard, strict=True))
    print(f"{len(clips)} clips in {file}")


if __name__ == "__main__":
    main()
