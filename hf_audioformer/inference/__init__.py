"""What a trained checkpoint says of sound: scores, events, vectors, filled gaps, surprise.

Sound is a path, or `{"array": floats (samples,), "sampling_rate": Hz}`, of any length and rate.

* `AudioClassifier`: `classifier(sound).top(3)`, `.events(threshold=0.5)`; any audio classifier of Transformers.
  `.track()` has scores, or numbers, along time.
* `Embedder`: `embedder(sound).vector`, `.frames`; any audio encoder. `nearest_neighbours` compares vectors.
* `StreamingClassifier`, `StreamingEncoder`: `stream.push(chunk)`; an AudioFormer whose codec is causal.
* `generate_clips`: waveforms denoised, continued or with a gap filled, by a model of `train-generation`.
* `round_trips`, `infill`, `surprise_track`: waveforms through a codec, with a gap filled, and what surprises in them;
  `fill_frames` and `surprise` do the same on codes.
"""

from .classifier import AudioClassifier, ClipScores
from .embedder import ClipEmbedding, Embedder, nearest_neighbours
from .events import Event, find_events, score_track
from .front_end import FrontEnd, Sound
from .generation import Generated, generate_clips
from .listening import infill, round_trips, surprise_track
from .masked_codes import fill_frames, surprise
from .streaming import StreamingClassifier, StreamingEncoder, StreamScores

__all__ = [
    "AudioClassifier",
    "ClipEmbedding",
    "ClipScores",
    "Embedder",
    "Event",
    "FrontEnd",
    "Generated",
    "Sound",
    "StreamScores",
    "StreamingClassifier",
    "StreamingEncoder",
    "fill_frames",
    "find_events",
    "generate_clips",
    "infill",
    "nearest_neighbours",
    "round_trips",
    "score_track",
    "surprise",
    "surprise_track",
]
