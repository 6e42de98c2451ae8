"""The page: a sound in, and what a `Listener` makes of it. It asks no other host for anything."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from ..audio.io import Audio
from ..data import read_clips
from .listener import HeardFile, Listener

if TYPE_CHECKING:
    import gradio as gr
    from matplotlib.figure import Figure

__all__ = ["bundled_examples", "demo_page", "serve"]

BUNDLED = ("yes", "no", "left", "stop")
MOST_WAITING = 16
MAX_FILE_SIZE = "20mb"
KEPT_SECONDS = 3600  # files of visitors are deleted after this time
LOOK_EVERY_SECONDS = 600

ATTENTION = (
    "The redder, the more attention, from what an even spread over the clip would give; the blue line, where there is "
    "one, is the same number. Rollout follows attention through all layers and the residual paths."
)
CODES = (
    "What the model reads: one code for each frame and codebook of the codec, one colour for each code. The sound "
    "below is decoded from these codes: what the model does not get, you do not hear."
)
MESSAGE = (
    '<div role="alert" style="padding: 0.8em 1em; border-left: 4px solid #c0392b; background: #fdecea; color: #611a15">'
    "{}</div>"
)


def serve(
    model: str,
    *,
    top: int = 5,
    max_seconds: float = 30.0,
    examples: Sequence[str] = (),
    host: str | None = None,
    port: int | None = None,
) -> None:
    """Serves the page until it is interrupted, and prints where.

    Args:
        model: Folder or Hub id of an audio classifier.
        top, max_seconds: As for `Listener`.
        examples: Sound files to pick from; some of the bundled spoken commands by default.
        host: Address to listen on; by default that of Gradio's `GRADIO_SERVER_NAME`, or else this machine alone.
        port: By default that of `GRADIO_SERVER_PORT`, or else the first free one from 7860 on.

    Raises:
        ImportError: Gradio is not installed.
        ValueError, FileNotFoundError, OSError: As `Listener`; an example does not exist; the port is not free.
    """
    missing = [file for file in examples if not Path(file).is_file()]
    if missing:
        raise FileNotFoundError(f"examples: there is no file {missing[0]}")
    gradio = _gradio()
    listener = Listener(model, top=top, max_seconds=max_seconds)
    with tempfile.TemporaryDirectory() as folder:
        page = demo_page(listener, examples or bundled_examples(Path(folder)))
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        max_file_size=MAX_FILE_SIZE,
        theme=gradio.themes.Default(),
    )
    print(f"Open {url} in a browser; Ctrl-C ends it.", flush=True)
    page.block_thread()


def demo_page(listener: Listener, examples: Sequence[str]) -> gr.Blocks:
    """The page of a listener, not yet served.

    Raises:
        ImportError: Gradio is not installed.
    """
    gradio = _gradio()

    def heard(file: str | None, progress: Any = gradio.Progress()) -> dict[Any, Any]:  # noqa: B008 (Gradio's way)
        nothing = {label: None, message: gradio.HTML(visible=False), results: gradio.Column(visible=False)}
        if file is None:
            return nothing
        try:
            found = listener(file, lambda share, doing: progress(share, desc=doing))
        except (ValueError, OSError) as error:
            return nothing | {message: gradio.HTML(MESSAGE.format(html.escape(str(error))), visible=True)}
        shown = dict(zip(pictures, _shown(found), strict=True))
        return nothing | {label: found.scores, results: gradio.Column(visible=True)} | shown

    with gradio.Blocks(
        title=f"{listener.name} · hf_audioformer",
        analytics_enabled=False,
        delete_cache=(LOOK_EVERY_SECONDS, KEPT_SECONDS),
    ) as page:
        gradio.Markdown(f"# What does {listener.name} hear?")
        with gradio.Row():
            with gradio.Column():
                sound = _sound(gradio, listener, examples)
                message = gradio.HTML(visible=False)
            label = gradio.Label(label="Labels", num_top_classes=listener.top)
        with gradio.Column(visible=False) as results:
            pictures = _pictures(gradio, has_codes=listener.has_codec)
        sound.change(heard, sound, [label, message, results, *pictures], api_name="hear", concurrency_limit=1)
    return page.queue(max_size=MOST_WAITING)


def bundled_examples(folder: Path) -> list[str]:
    """Writes a few of the bundled spoken commands, by a voice of the test split, as wav; returns the files."""
    clips = read_clips("commands")
    files = []
    for word in BUNDLED:
        label = clips.label_names.index(word)
        rows = zip(clips.column("split"), clips.targets().tolist(), strict=True)
        audio = clips.load(next(row for row, found in enumerate(rows) if found == ("test", label)))
        files.append(str(folder / f"{word}.wav"))
        soundfile.write(files[-1], audio["array"], audio["sampling_rate"])
    return files


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the demo needs Gradio: pip install 'hf_audioformer[demo]'") from error
    return gradio


def _sound(gradio: Any, listener: Listener, examples: Sequence[str]) -> Any:
    """Where a sound comes in."""
    sound = gradio.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        buttons=["download"],
        label=f"A sound of up to {listener.max_seconds:g} s and {MAX_FILE_SIZE.upper()}: upload or record it",
    )
    names = [Path(file).stem for file in examples]
    gradio.Examples([[file] for file in examples], sound, label="or pick one", example_labels=names)
    return sound


def _pictures(gradio: Any, *, has_codes: bool) -> list[Any]:
    """The components of what is found, in the order of `_shown`."""
    settings = {"interactive": False, "show_label": False, "format": "png", "buttons": ["download", "fullscreen"]}
    along = gradio.Image(alt_text="Waveform, spectrogram and scores along time", **settings)
    attention = gradio.Image(alt_text="Attention on the spectrogram", **settings)
    note = gradio.Markdown()
    codes = gradio.Image(alt_text="Codes over time", visible=has_codes, **settings)
    gradio.Markdown(CODES, visible=has_codes)
    round_trip = gradio.Audio(label="After the codec", interactive=False, visible=has_codes, buttons=["download"])
    return [along, attention, note, codes, round_trip]


def _shown(found: HeardFile) -> list[Any]:
    note = ATTENTION if found.attention is not None else f"No attention is shown: {found.without_attention}"
    return [_pixels(found.along), _pixels(found.attention), note, _pixels(found.codes), _pcm(found.round_trip)]


def _pixels(figure: Figure | None) -> np.ndarray | None:
    """A figure as uint8 (height, width, 3)."""
    if figure is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _pcm(audio: Audio | None) -> tuple[int, np.ndarray] | None:
    """Sampling rate and int16 (samples,); Gradio would bring floats to full scale."""
    if audio is None:
        return None
    return audio["sampling_rate"], np.round(np.clip(audio["array"], -1, 1) * 32767).astype(np.int16)
