"""An exported model says what torch says, and a clip gets the pipeline's labels without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.transforms import Resample
from transformers import ASTFeatureExtractor, AutoModelForAudioClassification, pipeline

from hf_audioformer import AudioFormerFeatureExtractor, AudioFormerForAudioClassification, AudioFormerForMaskedLM
from hf_audioformer.audio.fbank import kaldi_log_mel
from hf_audioformer.cli import main as cli_main
from hf_audioformer.recipes import export
from hf_audioformer.recipes.export import ExportArguments, MeasuredClips, onnx_outputs, run
from hf_audioformer.recipes.onnx_predict import Predictor, log_mels, resample
from hf_audioformer.training.checkpoints import save_final

from ..fixtures_codec import make_random_encodec, varied_sound
from ..fixtures_recipes import PITCHES_HZ, tiny_config
from ..models.ast.tiny_ast import tiny_ast

pytestmark = [pytest.mark.reference, pytest.mark.usefixtures("one_thread")]


def save_classifier(codec: str, folder: Path, **settings: Any) -> str:
    """A classifier of the tones with random weights large enough for its scores to differ from clip to clip."""
    labels = {"id2label": dict(enumerate(PITCHES_HZ)), "label2id": {name: row for row, name in enumerate(PITCHES_HZ)}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AudioFormerForAudioClassification(tiny_config(initializer_range=0.3, **labels, **settings))
    extractor = AudioFormerFeatureExtractor.from_codec(codec, num_codebooks=2, rms_level_dbfs=-23.0)
    save_final(model, extractor, folder)
    return str(folder)


@pytest.fixture(scope="module")
def classifier(tiny_codec: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_classifier(tiny_codec, tmp_path_factory.mktemp("classifier"), pooling="statistics")


@pytest.fixture(scope="module")
def exported(classifier: str, tone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX export of `classifier` with int8; not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    run(ExportArguments(classifier, str(folder), int8=True, data=MeasuredClips(source=str(tone_folder))))
    return folder


def test_report_tells_differences_sizes_and_the_cost_of_int8(exported: Path, tone_folder: Path) -> None:
    report = json.loads((exported / "export.json").read_text())
    assert report["largest_difference"] <= 1e-4
    assert report["equal_codes"] >= 0.999
    assert report["bytes"] == {name: (exported / name).stat().st_size for name in report["bytes"]}
    assert set(report["bytes"]) == {"model.onnx", "codec_encoder.onnx", "model_int8.onnx"}
    assert report["bytes"]["model_int8.onnx"] < report["bytes"]["model.onnx"]
    for kind, predict in (("onnx", Predictor(exported)), ("int8", Predictor(exported, int8=True))):
        assert report["scores"][kind] == pytest.approx(hits(predict, tone_folder))
    assert report["scores"]["torch"] == report["scores"]["onnx"]


def hits(predict: Predictor, folder: Path) -> float:
    """The share of the clips whose likeliest label is the name of their folder."""
    clips = sorted(folder.glob("*/*.wav"))
    guesses = [predict(*soundfile.read(clip, dtype="float32"))[0]["label"] for clip in clips]
    return float(np.mean([guess == clip.parent.name for guess, clip in zip(guesses, clips, strict=True)]))


def test_each_kind_is_scored_by_its_own_file(
    classifier: str, exported: Path, tone_folder: Path, tmp_path: Path
) -> None:
    """These weights call every clip the same, and so does int8; here its file is one that calls all of them `low`."""
    import onnx

    for label, number in (("low", 6), ("middle", 2)):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for clip in sorted((tone_folder / label).iterdir())[:number]:
            shutil.copy(clip, tmp_path / "clips" / label)
    folder = Path(shutil.copytree(exported, tmp_path / "export"))
    network = onnx.load(folder / "model_int8.onnx")
    (logits,) = [node for node in network.graph.node if "logits" in node.output]
    logits.output[0] = "logits_before"
    low = np.array([[1e6 if name == "low" else 0 for name in PITCHES_HZ]], dtype=np.float32)
    network.graph.initializer.append(onnx.numpy_helper.from_array(low, "towards_low"))
    network.graph.node.append(onnx.helper.make_node("Add", ["logits_before", "towards_low"], ["logits"]))
    onnx.save(network, folder / "model_int8.onnx")
    arguments = ExportArguments(classifier, str(folder), int8=True, data=MeasuredClips(source=str(tmp_path / "clips")))
    scores = export._scores(arguments, *export._load(classifier), folder)
    for kind, predict in (("onnx", Predictor(folder)), ("int8", Predictor(folder, int8=True))):
        assert scores[kind] == pytest.approx(hits(predict, tmp_path / "clips"))
    assert scores == {"torch": scores["onnx"], "onnx": scores["onnx"], "int8": 0.75}
    assert scores["onnx"] != scores["int8"]


@pytest.mark.parametrize(("batch", "frames"), [(1, 18), (1, 500), (4, 61)])
@torch.no_grad()
def test_any_batch_and_length_gives_torchs_logits(classifier: str, exported: Path, batch: int, frames: int) -> None:
    input_ids = torch.randint(64, (batch, frames, 2))
    attention_mask = torch.ones(batch, frames, dtype=torch.long)
    attention_mask[batch - 1, frames - 7 :] = 0
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    model = AutoModelForAudioClassification.from_pretrained(classifier).eval()
    found = onnx_outputs(exported / "model.onnx")(inputs)
    np.testing.assert_allclose(found, model(**inputs).logits, atol=1e-4, rtol=0)
    int8 = onnx_outputs(exported / "model_int8.onnx")(inputs)
    assert not np.array_equal(int8, found)
    assert np.corrcoef(int8.ravel(), found.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(("sampling_rate", "channels"), [(24_000, 1), (16_000, 1), (44_100, 2)])
def test_labels_and_scores_are_the_pipelines(
    classifier: str, exported: Path, sampling_rate: int, channels: int
) -> None:
    classify = pipeline("audio-classification", model=classifier)
    predict = Predictor(exported)
    for seed in range(3):
        waveform = torch.stack([varied_sound(20_000 + 777 * seed, seed + 10 * row) for row in range(channels)], dim=1)
        expected = classify({"raw": waveform.mean(1).numpy(), "sampling_rate": sampling_rate}, top_k=3)
        found = predict(waveform.numpy(), sampling_rate)
        assert [guess["label"] for guess in found] == [guess["label"] for guess in expected]
        scores = [[guess["score"] for guess in guesses] for guesses in (found, expected)]
        np.testing.assert_allclose(*scores, atol=1e-4, rtol=0)


@pytest.mark.cli
def test_predict_needs_neither_torch_nor_this_package(exported: Path, tone_folder: Path) -> None:
    clip = tone_folder / "low" / "0.wav"
    script = f"""
import runpy, sys
for name in ("torch", "torchaudio", "transformers", "hf_audioformer"):
    sys.modules[name] = None  # an import of it fails
sys.argv = ["predict.py", {str(clip)!r}, "--top", "2"]
runpy.run_path({str(exported / "predict.py")!r}, run_name="__main__")
"""
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd="/").stdout
    expected = Predictor(exported)(*soundfile.read(clip, dtype="float32"))[:2]
    assert printed == "".join(f"{guess['score']:8.4f}  {guess['label']}\n" for guess in expected)


@pytest.mark.parametrize("rates", [(16_000, 24_000), (44_100, 24_000), (48_000, 24_000), (8_000, 24_000)])
def test_resampling_is_torchaudios(rates: tuple[int, int]) -> None:
    waveform = varied_sound(9_001)
    np.testing.assert_allclose(resample(waveform.numpy(), *rates), Resample(*rates)(waveform), atol=1e-5)


def test_clips_that_predict_cannot_take_are_refused(exported: Path, exported_ast: Path, tmp_path: Path) -> None:
    predict = Predictor(exported)
    with pytest.raises(ValueError, match="has 3000 samples at 24000 Hz; at least 5120 are needed"):
        predict(np.zeros(3_000, dtype=np.float32), 24_000)
    with pytest.raises(ValueError, match="NaN or infinite"):
        predict(np.full(30_000, np.nan), 24_000)
    with pytest.raises(ValueError, match=r"44101 and 24000 Hz have too small a common divisor \(1\) to resample"):
        predict(np.zeros(50_000, dtype=np.float32), 44_101)
    with pytest.raises(ValueError, match="has 399 samples at 16000 Hz; at least 400 are needed"):
        Predictor(exported_ast / "exported")(np.zeros(399, dtype=np.float32), 16_000)
    with pytest.raises(FileNotFoundError, match=r"predict\.json: no such file"):
        Predictor(tmp_path)


def test_masked_language_model_becomes_a_torch_program(tiny_checkpoint: str, tmp_path: Path) -> None:
    report = run(ExportArguments(tiny_checkpoint, str(tmp_path), format="torch_export"))
    assert report["largest_difference"] <= 1e-4
    program = torch.export.load(tmp_path / "model.pt2").module()
    input_ids = torch.randint(64, (3, 31, 2))
    model = AudioFormerForMaskedLM.from_pretrained(tiny_checkpoint).eval()
    found = program(input_ids=input_ids, attention_mask=torch.ones(3, 31, dtype=torch.long)).logits
    torch.testing.assert_close(found, model(input_ids).logits, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def exported_ast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small AST in `ast` and its ONNX export in `exported`; not to be changed."""
    folder = tmp_path_factory.mktemp("exported_ast")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny_ast(num_labels=3)
    config = model.config
    model.save_pretrained(folder / "ast")
    ASTFeatureExtractor(
        max_length=config.max_length, num_mel_bins=config.num_mel_bins, mean=-5.5, std=3.25
    ).save_pretrained(folder / "ast")
    report = run(ExportArguments(str(folder / "ast"), str(folder / "exported")))
    assert report["largest_difference"] <= 1e-4
    return folder


@torch.no_grad()
def test_ast_becomes_an_onnx_model(exported_ast: Path) -> None:
    model = AutoModelForAudioClassification.from_pretrained(exported_ast / "ast").eval()
    features = torch.randn(3, model.config.max_length, model.config.num_mel_bins)
    found = onnx_outputs(exported_ast / "exported" / "model.onnx")({"input_values": features})
    np.testing.assert_allclose(found, model(features).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("sampling_rate", "channels", "seconds"), [(16_000, 1, 0.07), (16_000, 1, 7.0), (44_100, 2, 0.3), (8_000, 1, 0.5)]
)
def test_predict_of_an_ast_gives_the_pipelines_scores(
    exported_ast: Path, sampling_rate: int, channels: int, seconds: float
) -> None:
    """Shorter than the model hears, padded; longer, cut; and of another rate."""
    classify = pipeline("audio-classification", model=str(exported_ast / "ast"))
    predict = Predictor(exported_ast / "exported")
    samples = int(seconds * sampling_rate)
    waveform = torch.stack([varied_sound(samples, 10 * row) for row in range(channels)], dim=1)
    expected = classify({"raw": waveform.mean(1).numpy(), "sampling_rate": sampling_rate}, top_k=3)
    found = predict(waveform.numpy(), sampling_rate)
    assert [guess["label"] for guess in found] == [guess["label"] for guess in expected]
    scores = [[guess["score"] for guess in guesses] for guesses in (found, expected)]
    np.testing.assert_allclose(*scores, atol=1e-4, rtol=0)
    assert expected[0]["score"] - expected[-1]["score"] > 0.05


@pytest.mark.parametrize("sampling_rate", [16_000, 22_050])
def test_log_mels_of_predict_are_those_of_the_package(sampling_rate: int) -> None:
    waveform = varied_sound(sampling_rate)
    waveform[2000:9000] = 0
    expected = kaldi_log_mel(waveform, sampling_rate, 128)
    found = log_mels(waveform.numpy(), sampling_rate, 128, 1000)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=0)
    np.testing.assert_array_equal(log_mels(waveform.numpy(), sampling_rate, 128, 7), found[:7])


@torch.no_grad()
def test_an_export_that_differs_from_torch_is_refused(classifier: str, exported: Path) -> None:
    model, extractor = export._load(classifier)
    with pytest.raises(ValueError, match=r"logits differ from torch's by 2\.0e-04, more than 1e-04; do not use it"):
        export._largest_difference(model, lambda inputs: model(**inputs).logits.numpy() + 2e-4, extractor)
    other = AudioFormerFeatureExtractor.from_codec(extractor.codec, codec_subfolder="codec").load_codec()
    other._adapter.causal_encoder.quantizer.codebooks.neg_()
    with pytest.raises(ValueError, match="of the exported encoder's codes are the codec's; do not use it"):
        export._share_of_equal_codes(other, 2, exported / "codec_encoder.onnx")


def test_overwriting_leaves_nothing_of_an_earlier_export(
    classifier: str, exported: Path, tone_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path / "out")
    (tmp_path / "out" / "model.pt2").touch()
    assert (tmp_path / "out" / "model_int8.onnx").exists()
    run(ExportArguments(classifier, str(tmp_path / "out"), codec=False, overwrite=True))
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert not left & {"model_int8.onnx", "model.pt2", "codec_encoder.onnx"}


def test_what_cannot_be_exported_is_refused(classifier: str, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name labelled clips with --data\.source"):
        run(ExportArguments(classifier, str(tmp_path), int8=True))
    with pytest.raises(ValueError, match="int8 is for format onnx"):
        run(ExportArguments(classifier, str(tmp_path), format="torch_export", int8=True))
    with pytest.raises(FileExistsError, match="holds an earlier export"):
        run(ExportArguments(classifier, str(exported)))
    (tmp_path / "config.json").write_text('{"model_type": "roformer"}')
    with pytest.raises(ValueError, match='"roformer"; allowed are audioformer, audio-spectrogram-transformer'):
        run(ExportArguments(str(tmp_path), str(tmp_path / "out")))
    signal = '{"model_type": "audioformer", "front_end": "frames", "architectures": ["AudioFormerForMaskedLM"]}'
    (tmp_path / "config.json").write_text(signal)
    with pytest.raises(ValueError, match='of front_end "frames"; those of front_end "codes" are exported, and ASTs'):
        run(ExportArguments(str(tmp_path), str(tmp_path / "out")))
    make_random_encodec(use_causal_conv=False).save_pretrained(tmp_path / "codec")
    looking_ahead = save_classifier(str(tmp_path / "codec"), tmp_path / "looking_ahead")
    with pytest.raises(ValueError, match=r"encoder of .* cannot be exported.*--codec false"):
        run(ExportArguments(looking_ahead, str(tmp_path / "out")))


@pytest.mark.cli
def test_command_takes_the_model_first(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli_main(["export", "--help"])
    assert "hf-audioformer export MODEL --output_dir FOLDER" in capsys.readouterr().out
    (tmp_path / "config.json").write_text('{"model_type": "audioformer", "architectures": ["AudioFormerModel"]}')
    assert cli_main(["export", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 1
    assert "with AudioFormerModel; classifiers and masked language models are exported" in capsys.readouterr().err
