"""Exports a model to run without this package, and for ONNX without torch, once its outputs equal torch's.

    hf-audioformer export MODEL --output_dir FOLDER [--format onnx|torch_export]
    hf-audioformer export MODEL --output_dir FOLDER --int8 true --data.source CLIPS

Takes AudioFormer classifiers and masked language models, and Audio Spectrogram Transformers. With a classifier in ONNX
goes predict.py, which labels sound files by numpy, soundfile and onnxruntime alone, and of an AudioFormer the codec's
encoder. `pip install 'hf_audioformer[onnx]'` brings what ONNX needs.
"""

import io
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from .. import AudioFormerFeatureExtractor, AudioFormerForAudioClassification, AudioFormerForMaskedLM
from ..audio.ast_features import ASTLogMelFeatureExtractor
from ..audio.fbank import samples_of_frames
from ..checkpoint_config import read_config
from ..inference.loading import load_classifier
from ..models.audioformer.codec_audioformer import AudioCodec
from ..models.audioformer.modeling_audioformer import STATISTICS_LAGS
from ..training.arguments import parse_config
from ..training.console import quiet_transformers
from . import onnx_predict
from .evaluate import EvaluateArguments, EvaluationClips, classify, targets_of_model
from .evaluation_report import ScoredClips, measure
from .inputs import SubsetArguments, read, subset, with_names
from .onnx_codec import can_export_codec, export_codec, save_lean, shortest_samples
from .onnx_predict import CODEC_FILE, INT8_FILE, MODEL_FILE, SETTINGS_FILE

__all__ = ["ExportArguments", "main", "run"]

TORCH_FILE, REPORT_FILE, PREDICT_FILE = "model.pt2", "export.json", "predict.py"
LARGEST_DIFFERENCE = 1e-4
SMALLEST_SHARE_OF_EQUAL_CODES = 0.999  # rounding may flip a near tie
MODEL_TYPES = ("audioformer", "audio-spectrogram-transformer")

Outputs = Callable[[dict[str, Tensor]], np.ndarray]


@dataclass(frozen=True)
class MeasuredClips(EvaluationClips):
    """The labelled clips on which the cost of int8 is measured."""

    source: str = field(default="", metadata={"help": "labelled clips, as for evaluate; int8 needs them"})


@dataclass(frozen=True)
class ExportArguments:
    """All settings of the command."""

    model: str = field(metadata={"help": "folder or Hub id of an AudioFormer (classifier, masked LM) or an AST"})
    output_dir: str = field(metadata={"help": "where the export goes"})
    format: Literal["onnx", "torch_export"] = field(default="onnx", metadata={"help": "ONNX, or torch.export's .pt2"})
    int8: bool = field(
        default=False, metadata={"help": "a second ONNX classifier with 8-bit weights; its cost is measured on data"}
    )
    codec: bool = field(
        default=True,
        metadata={"help": "AudioFormer in ONNX: export the codec's encoder too, without which there is no predict.py"},
    )
    data: MeasuredClips = field(default_factory=MeasuredClips)
    split: SubsetArguments = field(default_factory=SubsetArguments)
    batch_size: int = field(default=16, metadata={"help": "clips classified together; changes nothing but speed"})
    overwrite: bool = field(default=False, metadata={"help": "replace an earlier export in output_dir"})


def main(argv: list[str]) -> None:
    """Runs the command; MODEL may be given without its name."""
    run(parse_config(ExportArguments, with_names(argv, "model"), description=__doc__ or ""))


def run(arguments: ExportArguments) -> dict[str, Any]:
    """Writes the export; returns and prints what it leaves as `export.json`: sizes in bytes, differences, and with
    int8 the score of each kind on the clips.

    Raises:
        FileExistsError: `output_dir` holds an earlier export and `overwrite` is not set.
        ValueError: The model cannot be exported, or the export's outputs are not torch's.
        ImportError: A package for ONNX is missing.
    """
    folder = Path(arguments.output_dir)
    _check(arguments, folder)
    model, extractor = _load(arguments.model)
    is_classifier = not isinstance(model, AudioFormerForMaskedLM)
    codec = _codec(extractor, arguments) if is_classifier else None
    folder.mkdir(parents=True, exist_ok=True)
    for name in (REPORT_FILE, SETTINGS_FILE, PREDICT_FILE, MODEL_FILE, INT8_FILE, CODEC_FILE, TORCH_FILE):
        (folder / name).unlink(missing_ok=True)
    file = folder / (MODEL_FILE if arguments.format == "onnx" else TORCH_FILE)
    with _quiet_exporters():
        _export_model(model, file, extractor)
        outputs = onnx_outputs(file) if arguments.format == "onnx" else _torch_export_outputs(file)
    report: dict[str, Any] = {
        "model": arguments.model,
        "format": arguments.format,
        "largest_difference": _largest_difference(model, outputs, extractor),
        "bytes": {file.name: file.stat().st_size},
    }
    if codec is not None:
        with _quiet_exporters():
            export_codec(codec, extractor.num_codebooks, folder / CODEC_FILE)
        report["equal_codes"] = _share_of_equal_codes(codec, extractor.num_codebooks, folder / CODEC_FILE)
        report["bytes"][CODEC_FILE] = (folder / CODEC_FILE).stat().st_size
        _write_predict(model, _code_settings(model, extractor, codec), folder)
    elif isinstance(extractor, ASTLogMelFeatureExtractor) and arguments.format == "onnx":
        _write_predict(model, _log_mel_settings(extractor), folder)
    if arguments.int8:
        quantize(file, folder / INT8_FILE)
        report["bytes"][INT8_FILE] = (folder / INT8_FILE).stat().st_size
        report["scores"] = _scores(arguments, model, extractor, folder)
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(_summary(report, folder))
    return report


def _check(arguments: ExportArguments, folder: Path) -> None:
    if arguments.int8 and arguments.format != "onnx":
        raise ValueError("int8 is for format onnx; torch_export stays float32. Leave one of the two out.")
    if arguments.int8 and not arguments.data.source:
        raise ValueError("int8 costs accuracy, which is measured: name labelled clips with --data.source")
    if (folder / REPORT_FILE).exists() and not arguments.overwrite:
        raise FileExistsError(f"{folder} holds an earlier export. Replace it with --overwrite true, or name another.")
    try:
        import transformers.exporters  # noqa: F401
    except ImportError as error:
        raise ImportError("export needs a newer Transformers, with transformers.exporters (5.23 has them)") from error
    if arguments.format == "onnx":
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"format onnx needs {error.name}: pip install 'hf_audioformer[onnx]'; or take --format torch_export"
            ) from error


def _load(source: str) -> tuple[PreTrainedModel, Any]:
    """The model in float32, and the feature extractor, which a masked language model need not have.

    Raises:
        FileNotFoundError, NotADirectoryError: As `read_config`.
        ValueError: The checkpoint is of a kind that is not exported.
    """
    config = read_config(source, "model")
    head = next(iter(config.architectures or []), "no named head")
    if config.model_type not in MODEL_TYPES:
        raise ValueError(
            f'model is {source}, of model_type "{config.model_type}"; allowed are {", ".join(MODEL_TYPES)}'
        )
    if config.model_type == "audioformer" and config.front_end != "codes":
        raise ValueError(
            f'model is {source}, an AudioFormer of front_end "{config.front_end}"; those of front_end "codes" are '
            "exported, and ASTs. Train one of these, or use this one through the pipeline or hf-audioformer predict"
        )
    if head in ("AudioFormerForMaskedLM", "AudioFormerForPreTraining"):
        with quiet_transformers():
            return AudioFormerForMaskedLM.from_pretrained(source, dtype=torch.float32).eval(), None
    if not head.endswith("ForAudioClassification"):
        raise ValueError(f"model is {source}, with {head}; classifiers and masked language models are exported")
    model, extractor = load_classifier(source, torch.device("cpu"))
    if config.model_type == "audioformer" and not isinstance(extractor, AudioFormerFeatureExtractor):
        raise ValueError(f"model is {source}, an AudioFormer with a {type(extractor).__name__}; its own is wanted")
    return model, extractor


def _codec(extractor: Any, arguments: ExportArguments) -> AudioCodec | None:
    """The codec whose encoder is exported, if one is.

    Raises:
        ValueError: It is of another kind than a causal EnCodec.
    """
    if not isinstance(extractor, AudioFormerFeatureExtractor) or not arguments.codec or arguments.format != "onnx":
        return None
    codec = extractor.load_codec()
    if not can_export_codec(codec):
        raise ValueError(
            f"the encoder of {codec!r} cannot be exported, only that of a causal EnCodec such as "
            "facebook/encodec_24khz. Export the model alone with --codec false, and feed it codes."
        )
    return codec


def _random_inputs(model: PreTrainedModel, extractor: Any, batch: int, frames: int) -> dict[str, Tensor]:
    """What the model reads, by name: codes whose last clip is padded by a third; or features of AST's one length."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    if config.model_type != "audioformer":
        shape = (batch, config.max_length, config.num_mel_bins)
        return {"input_values": torch.randn(shape, generator=generator) / 2}
    num_codebooks = config.codebook_index + 1 if config.fusion == "first" else config.num_codebooks
    num_codebooks = num_codebooks if extractor is None else extractor.num_codebooks
    codes_shape = (batch, frames) if num_codebooks == 1 else (batch, frames, num_codebooks)
    attention_mask = torch.ones(batch, frames, dtype=torch.long)
    if batch > 1:
        attention_mask[-1, frames - frames // 3 :] = 0
    input_ids = torch.randint(config.codebook_size, codes_shape, generator=generator)
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def shortest_frames(model: PreTrainedModel) -> int:
    """Tokens of the shortest clip that an exported AudioFormer takes: pooling by statistics compares distant ones."""
    config: Any = model.config
    of_statistics = isinstance(model, AudioFormerForAudioClassification) and config.pooling == "statistics"
    return max(STATISTICS_LAGS) + 2 if of_statistics else 2


def _export_model(model: PreTrainedModel, file: Path, extractor: Any) -> None:
    from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter

    inputs: Any = _random_inputs(model, extractor, 2, 40)
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("frames", min=shortest_frames(model))
    axes = {0: batch} if "input_values" in inputs else {0: batch, 1: frames}
    dynamic_shapes = dict.fromkeys(inputs, axes)
    if file.name == TORCH_FILE:
        exported = DynamoExporter().export(model, inputs, config=DynamoConfig(dynamic_shapes=dynamic_shapes))
        torch.export.save(exported.program, file)
        return
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    save_lean(OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic_shapes=dynamic_shapes)).program, file)


def onnx_outputs(file: Path, threads: int = 0) -> Outputs:
    """The logits, float32, of an ONNX model by onnxruntime; `threads` are all cores by default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    return lambda inputs: session.run(["logits"], {name: inputs[name].numpy() for name in names})[0]


def _torch_export_outputs(file: Path) -> Outputs:
    program = torch.export.load(file).module()
    return lambda inputs: program(**inputs).logits.detach().numpy()


@torch.no_grad()
def _largest_difference(model: PreTrainedModel, outputs: Outputs, extractor: Any) -> float:
    """Of the export's logits from torch's, padding left out.

    Raises:
        ValueError: It is above 1e-4.
    """
    differences = []
    for batch, frames in ((1, 77), (3, 400), (2, shortest_frames(model))):
        inputs = _random_inputs(model, extractor, batch, frames)
        expected, found = model(**inputs).logits.numpy(), outputs(inputs)
        if isinstance(model, AudioFormerForMaskedLM):
            is_frame = inputs["attention_mask"].bool().numpy()
            expected, found = expected[is_frame], found[is_frame]
        differences.append(float(np.abs(expected - found).max()))
    if not max(differences) <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"the export's logits differ from torch's by {max(differences):.1e}, more than {LARGEST_DIFFERENCE:.0e}; "
            "do not use it."
        )
    return max(differences)


def _share_of_equal_codes(codec: AudioCodec, num_codebooks: int, file: Path) -> float:
    """Of the exported encoder and the codec, on noise of changing level.

    Raises:
        ValueError: It is below 0.999.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    equal = []
    for batch, seconds in ((1, 2.0), (3, 0.5)):
        frames = max(int(seconds * codec.frame_rate), shortest_samples(codec) // codec.hop_length)
        level = torch.rand(batch, frames, generator=generator).repeat_interleave(codec.hop_length, dim=1)
        noise = torch.rand(batch, frames * codec.hop_length, generator=generator) * 2 - 1
        found = session.run(["codes"], {"waveforms": (level**2 * noise).numpy()})[0]
        equal.append(found == codec.encode(level**2 * noise, num_codebooks).numpy())
    share = float(np.mean(np.concatenate([part.ravel() for part in equal])))
    if share < SMALLEST_SHARE_OF_EQUAL_CODES:
        raise ValueError(f"only {share:.2%} of the exported encoder's codes are the codec's; do not use it.")
    return share


def _code_settings(model: PreTrainedModel, extractor: AudioFormerFeatureExtractor, codec: AudioCodec) -> dict[str, Any]:
    """How predict.py makes codes of a waveform."""
    limit = extractor.max_length_seconds
    shortest = max(0, shortest_frames(model) - 2 * extractor.add_boundary_tokens) * extractor.hop_length
    boundaries = [extractor.special_token_id(name) for name in ("boa", "eoa")]
    return {
        "front_end": "codes",
        "sampling_rate": extractor.sampling_rate,
        "hop_length": extractor.hop_length,
        "min_samples": max(shortest, shortest_samples(codec)),
        "max_samples": None if limit is None else int(limit * extractor.sampling_rate),
        "rms_level_dbfs": extractor.rms_level_dbfs,
        "boundary_tokens": boundaries if extractor.add_boundary_tokens else None,
    }


def _log_mel_settings(extractor: ASTLogMelFeatureExtractor) -> dict[str, Any]:
    """How predict.py makes log-mels of a waveform."""
    names = ("sampling_rate", "num_mel_bins", "max_length", "do_normalize", "mean", "std")
    return {
        "front_end": "log_mels",
        "min_samples": samples_of_frames(0, 1, extractor.sampling_rate).stop,
        **{name: getattr(extractor, name) for name in names},
    }


def _write_predict(model: PreTrainedModel, front_end: dict[str, Any], folder: Path) -> None:
    config: Any = model.config
    settings = {
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "multi_label": config.problem_type == "multi_label_classification",
        **front_end,
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=1), encoding="utf-8")
    shutil.copyfile(onnx_predict.__file__, folder / PREDICT_FILE)


def quantize(file: Path, target: Path) -> None:
    """Writes an ONNX model's copy with weights of 8 bits; activations are quantised as it runs."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(file)
    del model.graph.value_info[:]  # the quantiser transposes weights, whose old shapes would then contradict it
    with _quiet_exporters():
        quantize_dynamic(model, target, weight_type=QuantType.QInt8, per_channel=True)


class _SideBySide:
    """Several networks for `classify`: called with tensors, it has all their `logits`, (batch, networks, classes)."""

    device = torch.device("cpu")

    def __init__(self, networks: Sequence[Outputs]) -> None:
        self._networks = networks

    def __call__(self, **inputs: Tensor) -> Any:
        self.logits = torch.from_numpy(np.stack([outputs(inputs) for outputs in self._networks], axis=1))
        return self


def _scores(arguments: ExportArguments, model: PreTrainedModel, extractor: Any, folder: Path) -> dict[str, float]:
    """Accuracy, or mAP for several labels, of torch, ONNX and int8 on the clips."""
    evaluation = EvaluateArguments(
        arguments.model, arguments.data, arguments.output_dir, arguments.split, arguments.batch_size
    )
    clips = subset(read(arguments.data), arguments.split)
    config: Any = model.config
    names = [config.id2label[index] for index in range(config.num_labels)]
    targets = targets_of_model(clips, names, config.problem_type)
    kinds: dict[str, Outputs] = {
        "torch": lambda inputs: model(**inputs).logits.numpy(),
        "onnx": onnx_outputs(folder / MODEL_FILE),
        "int8": onnx_outputs(folder / INT8_FILE),
    }
    network: Any = _SideBySide(list(kinds.values()))
    logits = classify(clips, network, extractor, evaluation)
    found = sorted(logits)
    ids = [clips.ids[index] for index in found]
    together = np.stack([logits[index] for index in found])  # (clips, kinds, classes)
    return {
        kind: float(measure(ScoredClips(ids, together[:, row], targets[found], names), resamples=0, seed=0)["score"])
        for row, kind in enumerate(kinds)
    }


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """Silences what torch.onnx, Transformers' exporters and onnxruntime's quantiser say of their own working."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "root")]
    levels = [logger.level for logger in loggers]
    with quiet_transformers(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _summary(report: dict[str, Any], folder: Path) -> str:
    lines = [f"largest difference from torch: {report['largest_difference']:.1e}"]
    if "equal_codes" in report:
        lines.append(f"codes of the exported encoder that equal the codec's: {report['equal_codes']:.2%}")
    lines += [f"{name:20} {size / 1e6:8.2f} MB" for name, size in report["bytes"].items()]
    if "scores" in report:
        scores = report["scores"]
        lines.append("score: " + ", ".join(f"{kind} {score:.3f}" for kind, score in scores.items()))
        lines.append(f"int8 costs {100 * (scores['torch'] - scores['int8']):.1f} points")
    lines.append(f"The export is in {folder}")
    if PREDICT_FILE in {path.name for path in folder.iterdir()}:
        lines.append(f"Without torch: python {folder / PREDICT_FILE} clip.wav")
    return "\n".join(lines)
