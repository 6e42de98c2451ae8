"""An exported classifier against torch: size, and latency of a clip, of torch, ONNX float32 and ONNX int8, in one run.

    python -m benchmarks.export_speed [--layers 12] [--hidden-size 768] [--seconds 5] [--repeats 9] [--threads 1 2]
                                      [--model FOLDER]

Without `--model` an AudioFormer of the bundled codec's four codebooks with random weights. The codec is left out. The
milliseconds are the medians of interleaved runs: with one thread of processor time, which other work on the machine
changes less, with several of the wall clock. Goals: int8 a quarter of the size, ONNX float32 no slower than torch.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForAudioClassification, PreTrainedModel

from benchmarks.timing import compare
from hf_audioformer import AudioFormerConfig, AudioFormerFeatureExtractor, AudioFormerForAudioClassification, assets
from hf_audioformer.recipes.export import ExportArguments, onnx_outputs, quantize, run
from hf_audioformer.recipes.onnx_predict import INT8_FILE, MODEL_FILE
from hf_audioformer.training.checkpoints import save_final
from hf_audioformer.training.console import quiet_transformers

FRAMES_PER_SECOND = 75
HEAD_SIZE = 64
NUM_CLASSES = 50


def save_random_classifier(folder: Path, layers: int, hidden_size: int) -> None:
    extractor = AudioFormerFeatureExtractor.from_codec(assets.codec_folder(), num_codebooks=4)
    config = AudioFormerConfig(
        codebook_size=extractor.codebook_size,
        num_codebooks=4,
        fusion="sum",
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // HEAD_SIZE,
        intermediate_size=4 * hidden_size,
        num_labels=NUM_CLASSES,
    )
    save_final(AudioFormerForAudioClassification(config), extractor, folder)


def torch_step(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Callable[[], object]:
    @torch.inference_mode()
    def step() -> object:
        return model(**inputs).logits

    return step


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--model", help="folder of an AudioFormer classifier")
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)

    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary, "model"), Path(temporary, "export")
        if not arguments.model:
            save_random_classifier(source, arguments.layers, arguments.hidden_size)
        folder = Path(arguments.model or source)
        run(ExportArguments(str(folder), str(target), codec=False))
        quantize(target / MODEL_FILE, target / INT8_FILE)
        with quiet_transformers():
            model = AutoModelForAudioClassification.from_pretrained(folder, dtype=torch.float32).eval()
        config = model.config
        frames = int(arguments.seconds * FRAMES_PER_SECOND) + 2
        input_ids = torch.randint(config.codebook_size, (1, frames, config.num_codebooks)).squeeze(2)
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones(1, frames, dtype=torch.long)}

        sizes = {
            "torch": (folder / "model.safetensors").stat().st_size,
            "onnx": (target / MODEL_FILE).stat().st_size,
            "int8": (target / INT8_FILE).stat().st_size,
        }
        print(f"\n{config.num_hidden_layers} layers of {config.hidden_size}, a clip of {arguments.seconds:g} s")
        print(f"{'':18} {'torch':>9} {'onnx':>9} {'int8':>9} {'onnx/torch':>11} {'int8/onnx':>10}")
        ratios = f"{sizes['onnx'] / sizes['torch']:10.2f}x {sizes['int8'] / sizes['onnx']:9.2f}x"
        print(
            f"{'megabytes':18} " + " ".join(f"{size / 1e6:9.2f}" for size in sizes.values()) + f" {ratios}", flush=True
        )
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            onnx, int8 = (onnx_outputs(target / name, threads) for name in (MODEL_FILE, INT8_FILE))
            steps: dict[str, Callable[[], object]] = {
                "torch": torch_step(model, inputs),
                "onnx": lambda onnx=onnx: onnx(inputs),
                "int8": lambda int8=int8: int8(inputs),
            }
            clock = time.process_time if threads == 1 else time.perf_counter
            took = compare(steps, arguments.repeats, clock=clock)
            ratios = f"{took['onnx'] / took['torch']:10.2f}x {took['int8'] / took['onnx']:9.2f}x"
            figures = " ".join(f"{1000 * value:9.1f}" for value in took.values())
            print(f"{f'ms, {threads} threads':18} {figures} {ratios}", flush=True)


if __name__ == "__main__":
    main()
