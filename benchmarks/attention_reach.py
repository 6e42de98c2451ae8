"""Which layers attend far: the mean distance of the attention of each layer, over many clips.

    python -m benchmarks.attention_reach [MODEL ...] [--source esc10] [--clips 40]

MODEL is a folder or Hub id; the bundled checkpoint by default. Prints for each layer the distance between a step and
what it attends to, divided by that of attention that weighs all steps alike: mean over heads and clips, standard
deviation over clips, and the nearest and the farthest head. 1 is no preference, below it a layer is local. Clips are
drawn evenly from the source and cut to 10 s.
"""

import argparse

import numpy as np
from tqdm.auto import tqdm

from hf_audioformer import assets
from hf_audioformer.data import read_clips
from hf_audioformer.inspection.clip_view import view_of
from hf_audioformer.inspection.tracing import load_model, trace_clip

LONGEST_SECONDS = 10


def relative_distances(model_name: str, source: str, num_clips: int) -> np.ndarray:
    """(clips, layers, heads); 1 is an even spread."""
    model, clips = load_model(model_name), read_clips(source)
    found = []
    for index in tqdm(np.linspace(0, len(clips) - 1, num_clips).astype(int), unit="clip", disable=None):
        audio = clips.load(int(index))
        audio["array"] = audio["array"][: LONGEST_SECONDS * audio["sampling_rate"]]
        view = view_of(trace_clip(model, audio), model=model_name, clip=clips.ids[index])
        found.append(view.distances)
    return np.stack(found)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=[str(assets.checkpoint_folder())])
    parser.add_argument("--source", default="esc10")
    parser.add_argument("--clips", type=int, default=40)
    arguments = parser.parse_args(argv)
    for name in arguments.models:
        distances = relative_distances(name, arguments.source, arguments.clips)
        print(f"{name}: {len(distances)} clips of {arguments.source}")
        print(f"{'layer':>5} {'distance':>9} {'sd':>6} {'nearest head':>13} {'farthest head':>14}")
        for layer, of_layer in enumerate(distances.transpose(1, 0, 2), start=1):
            heads, clips = of_layer.mean(axis=0), of_layer.mean(axis=1)
            print(f"{layer:5} {heads.mean():9.2f} {clips.std():6.2f} {heads.min():13.2f} {heads.max():14.2f}")


if __name__ == "__main__":
    main()
