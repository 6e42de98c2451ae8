"""Opens a web page on which anybody can hear what a classifier hears: AudioFormer, AST, Wav2Vec2, HuBERT, Whisper, ...

    hf-audioformer demo MODEL
    hf-audioformer demo MODEL --examples "[dog.wav, rain.wav]" --port 8000

Upload a file, record, or pick an example; the page shows the best labels, the scores along time under waveform and
spectrogram, where the model attends, and, of an AudioFormer on codes, the codes and the sound that is left of them.
All of it works without a network: the page asks no other host for anything, nothing is shared, and files of visitors
are deleted after an hour. Sound is read as everywhere here (wav, flac, ogg, opus, mp3; no ffmpeg needed). Visitors are
served one after the other.

examples/space makes a Space of it. Gradio comes with the extra `demo`: pip install 'hf_audioformer[demo]'
"""

from dataclasses import asdict, dataclass, field

from ..demo import serve
from ..training.arguments import parse_config
from .inputs import with_names

__all__ = ["DemoArguments", "main"]


@dataclass(frozen=True)
class DemoArguments:
    """All settings of the command."""

    model: str = field(metadata={"help": "folder or Hub id of an audio classifier; may be given without its name"})
    top: int = field(default=5, metadata={"help": "how many labels of each clip"})
    max_seconds: float = field(default=30.0, metadata={"help": "longer clips are refused, with a message"})
    examples: list[str] = field(
        default_factory=list,
        metadata={"help": "sound files to pick from, as [a.wav, b.wav]; bundled spoken commands by default"},
    )
    host: str | None = field(
        default=None, metadata={"help": "address to listen on: this machine alone by default, 0.0.0.0 for everybody"}
    )
    port: int | None = field(default=None, metadata={"help": "the first free one from 7860 on by default"})


def main(argv: list[str]) -> None:
    """Runs the command until Ctrl-C."""
    serve(**asdict(parse_config(DemoArguments, with_names(argv, "model"), description=__doc__ or "")))
