"""Three minutes on two CPU cores, no network: fine-tunes the bundled AudioFormer on the bundled spoken commands.

Evaluates on voices it has not heard, beside chance and beside a simple baseline, classifies one wav through the
Transformers pipeline, and leaves a checkpoint folder that works alone.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import assets, load_audio
from ..training.arguments import parse_config
from ..training.console import quiet_transformers
from ..training.launch import check_launch
from . import finetune

__all__ = ["QuickstartArguments", "main"]


@dataclass(frozen=True)
class QuickstartArguments:
    """All settings of the quickstart; the rest is those of the preset `quickstart` of `hf-audioformer finetune`."""

    output_dir: str = field(default="quickstart", metadata={"help": "where the checkpoint goes; replaced if there"})


def main(argv: list[str]) -> None:
    """Runs the quickstart."""
    arguments = parse_config(QuickstartArguments, argv, description=__doc__ or "")
    check_launch(1)
    recipe = parse_config(finetune.FinetuneArguments, ["quickstart"], description="")
    print("Fine-tuning the bundled AudioFormer on the bundled spoken commands (10 words, synthetic voices) ...")
    (result,) = finetune.run(replace(recipe, output_dir=arguments.output_dir, overwrite=True))
    print(f"\nAccuracy on {result.num_clips['test']} clips of voices it has not heard:")
    for name, value in (("AudioFormer", result.score), ("log-mel baseline", result.floor), ("chance", result.chance)):
        print(f"  {name:17} {value:6.1%}")
    _classify_one(arguments.output_dir)
    print(_how_to_load(Path(arguments.output_dir)))


def _classify_one(folder: str) -> None:
    """Prints the three best labels of the example wav, read with the package's loader (no ffmpeg needed)."""
    from transformers import pipeline

    wav = assets.example_wav()
    with quiet_transformers():
        guesses = pipeline("audio-classification", model=folder, device="cpu")(dict(load_audio(wav)), top_k=3)
    print(f"\npipeline('audio-classification') on {Path(wav).name}:")
    for guess in guesses:
        print(f"  {guess['label']:6} {guess['score']:.3f}")


def _how_to_load(folder: Path) -> str:
    return f"""
The checkpoint in {folder}/ holds the model, its feature extractor, the codec and a card. Label sound files with it:

    hf-audioformer predict {folder} clip.wav

or load it anywhere:

    import hf_audioformer
    from transformers import pipeline
    classifier = pipeline("audio-classification", model="{folder}")
    classifier(hf_audioformer.load_audio("clip.wav"))

Your own clips, one folder per class:

    hf-audioformer finetune --data.source FOLDER --output_dir my-model"""
