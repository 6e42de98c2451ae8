"""The scripts run to their end, and what they leave works in plain Transformers as they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from safetensors import safe_open
from transformers import pipeline

from hf_audioformer.data import SplitArguments, make_splits, read_clips

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.usefixtures("one_thread")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accuracy_of_pipeline(folder: Path, data: Path) -> float:
    """That of the saved folder on the clips that the script tested."""
    clips = read_clips(str(data))
    (split,) = make_splits(clips, SplitArguments())
    classifier = pipeline("audio-classification", model=str(folder))
    guesses = [classifier(dict(clips.load(index)), top_k=1)[0]["label"] for index in split.test]
    truth = [clips.label_names[target] for target in clips.targets(split.test)]
    return sum(guess == label for guess, label in zip(guesses, truth, strict=True)) / len(truth)


@pytest.mark.cli
@pytest.mark.parametrize("name", ["finetune_with_trainer", "train_with_accelerate", "lora_with_peft"])
def test_a_script_trains_and_leaves_a_folder_that_the_pipeline_takes(
    name: str, tone_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "lora_with_peft":
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
    measured = script(name).main(data=str(tone_folder), output=str(tmp_path), epochs=5)
    accuracy = measured if isinstance(measured, float) else measured["eval_accuracy"]
    assert accuracy >= 0.6
    assert f"6 test clips: accuracy {accuracy:.1%}, by chance 33.3%" in capsys.readouterr().out
    assert accuracy_of_pipeline(tmp_path, tone_folder) == pytest.approx(accuracy)


@pytest.mark.unit
def test_the_adapter_holds_thin_matrices_and_the_classifier_alone(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    script("lora_with_peft").peft_model(("low", "high")).save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert all(".lora_" in name or ".classifier." in name for name in file.keys())  # noqa: SIM118
        assert sum("classifier" in name for name in file.keys()) == 2  # noqa: SIM118
