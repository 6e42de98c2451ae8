"""What a trained checkpoint says of sound: scores, events, embeddings, filled gaps, surprise."""

from .classifier import AudioClassifier, ClipScores
from .embedder import ClipEmbedding, Embedder, nearest_neighbours
from .events import Event, find_events, score_track
from .front_end import FrontEnd, Sound
from .masked_codes import fill_frames, surprise
from .streaming import StreamingClassifier, StreamingEncoder, StreamScores

__all__ = [
    "AudioClassifier",
    "ClipEmbedding",
    "ClipScores",
    "Embedder",
    "Event",
    "FrontEnd",
    "Sound",
    "StreamScores",
    "StreamingClassifier",
    "StreamingEncoder",
    "fill_frames",
    "find_events",
    "nearest_neighbours",
    "score_track",
    "surprise",
]
