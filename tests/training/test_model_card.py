"""The card says what was measured, in a form the Hub reads, and nothing about this machine."""

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hf_audioformer.training.model_card import AST, write_model_card, write_pretraining_card
from hf_audioformer.training.results import SplitResult

RESULT = SplitResult(
    name="fold_1",
    metric="macro mAP",
    score=0.73219,
    chance=0.236,
    metrics={"map": 0.73219, "mauc": 0.9},
    num_clips={"train": 30, "validation": 5, "test": 10},
    seconds=12.3,
)
HISTORY = [
    {"epoch": 1.0, "loss": 2.5, "step": 5},
    {"epoch": 1.0, "eval_score": 0.5, "eval_loss": 2.0, "step": 5},
    {"epoch": 2.0, "loss": 1.5, "step": 10},
    {"epoch": 2.0, "train_runtime": 3.0, "step": 10},
]


def card(folder: Path, **changes: Any) -> ModelCard:
    settings = {
        "result": RESULT,
        "recipe": {"data": {"source": "esc10"}, "training": {"learning_rate": 1e-3}},
        "source": "esc10",
        "label_names": ["dog", "rain"],
        "base_model": None,
        "random_weights": False,
        "history": HISTORY,
    }
    write_model_card(folder, **(settings | changes))
    return ModelCard.load(folder / "README.md")


@pytest.mark.unit
def test_the_metadata_is_what_the_hub_reads(tmp_path: Path) -> None:
    data = card(tmp_path).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "audio-classification")
    assert "hf_audioformer" in data.tags
    assert data.get("base_model") is None
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("macro_mAP", 0.7322)
    assert (result.task_type, result.dataset_name) == ("audio-classification", "esc10")


@pytest.mark.unit
def test_the_text_holds_the_numbers_and_the_history(tmp_path: Path) -> None:
    text = card(tmp_path).text
    for part in (
        "the small checkpoint of the package hf_audioformer to tell apart 2 classes: dog, rain.",
        "| map | 0.7322 |\n| mauc | 0.9000 |",
        "Chance is 0.236 (macro mAP). Clips: 30 train, 5 validation, 10 test. Training took 12 s.",
        "| 1 | 2.5000 | 0.5000 |\n| 2 | 1.5000 | - |\n\n",
        "the epoch was chosen on validation clips",
        "learning_rate: 0.001",
        "* transformers ",
    ):
        assert part in text
    assert re.search(r"\{\w*\}", text) is None


@pytest.mark.unit
def test_the_choice_of_the_epoch_without_validation(tmp_path: Path) -> None:
    result = SplitResult(**(vars(RESULT) | {"num_clips": {"train": 30, "validation": 0, "test": 10}}))
    assert "the epoch was chosen beforehand (the last one)" in card(tmp_path, result=result).text


@pytest.mark.unit
def test_an_ast_needs_no_package_and_no_codec(tmp_path: Path) -> None:
    from_hub = card(tmp_path, kind=AST, base_model="MIT/ast", details=["It hears 5 s.", "It is averaged."])
    assert from_hub.data.base_model == "MIT/ast"
    assert from_hub.data.tags == ["audio-spectrogram-transformer", "audio-classification", "hf_audioformer"]
    assert from_hub.data.get("license") is None
    assert "needs no package but Transformers.\nIt hears 5 s.\nIt is averaged.\n\n" in from_hub.text
    assert "import hf_audioformer" not in from_hub.text
    assert "codec" not in from_hub.text
    assert re.search(r"\{\w*\}", from_hub.text) is None
    new = card(tmp_path, kind=AST, random_weights=True)
    assert "trained from random weights to tell apart" in new.text
    assert "Licence" not in new.text
    assert new.data.get("license") is None


@pytest.mark.unit
def test_scores_after_each_epoch_are_owned_up_to(tmp_path: Path) -> None:
    result = SplitResult(**(vars(RESULT) | {"test_scores": [0.4, 0.81, 0.73]}))
    assert "the best macro mAP on them\nwas 0.8100, which is no estimate" in card(tmp_path, result=result).text
    assert "no estimate" not in card(tmp_path).text


@pytest.mark.unit
def test_hub_ids_are_linked_and_local_paths_are_cut_down(tmp_path: Path) -> None:
    local = tmp_path / "secret" / "clips"
    local.mkdir(parents=True)
    recipe = {"data": {"source": str(local)}, "training": {"deepspeed": str(tmp_path / "secret" / "zero.json")}}
    hub = card(tmp_path, source="me/clips", base_model="me/model", recipe=recipe)
    assert hub.data.base_model == "me/model"
    assert hub.data.datasets == ["me/clips"]
    assert "trained from `me/model`" in hub.text
    assert "source: clips" in hub.text
    assert "deepspeed: zero.json" in hub.text
    here = card(tmp_path, source=str(local), base_model=str(local.parent), random_weights=True)
    assert here.data.get("base_model") is None
    assert "random weights in the form of `secret`" in here.text
    for text in (str(hub), str(here)):
        assert str(tmp_path) not in text


@pytest.mark.unit
def test_a_pretrained_models_card(tmp_path: Path) -> None:
    row = {"accuracy": 0.25, "perplexity": 40.0, "unigram_accuracy": 0.05, "unigram_perplexity": 200.0}
    measures = {"training_clips": 90, "validation_clips": 10, "codebooks": {"C3": row}}
    (tmp_path / "secret" / "clips").mkdir(parents=True)
    sources = [str(tmp_path / "secret" / "clips"), "me/clips"]
    for codec, named in ((None, "small codec of hf_audioformer"), ("facebook/encodec_24khz", "encodec_24khz`")):
        recipe = {"data": {"sources": sources, "hold_out": ["fold=5"]}}
        history = [{"epoch": 1.0, "loss": 4.5}, {"epoch": 1.0, "eval_loss": 4.0}]
        write_pretraining_card(
            tmp_path, measures=measures, recipe=recipe, sources=sources, codec=codec, history=history
        )
        text = (tmp_path / "README.md").read_text()
        assert str(tmp_path) not in text
        assert re.search(r"\{\w*\}", text) is None
        loaded = ModelCard.load(tmp_path / "README.md")
        assert (loaded.data.pipeline_tag, loaded.data.datasets) == ("feature-extraction", ["me/clips"])
        assert loaded.data.get("license") is None
        for part in (
            named,
            "On 10 clips",
            "(90 were)",
            "| C3 ",
            "25.0%",
            "40.0",
            "200.0",
            "| 1 | 4.5000 |",
            "- fold=5",
        ):
            assert part in text
