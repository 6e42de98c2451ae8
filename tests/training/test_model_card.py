"""The card says what was measured, in a form the Hub reads, and nothing about this machine."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from hf_audioformer.assets import ast_folder
from hf_audioformer.codes.store import StorePlan, write_manifest, write_plan
from hf_audioformer.metrics import confidence_intervals, per_class_table
from hf_audioformer.training import model_card
from hf_audioformer.training.model_card import (
    AST,
    Measured,
    tell_of_all_splits,
    write_generation_card,
    write_model_card,
    write_pretraining_card,
)
from hf_audioformer.training.results import SplitResult
from hf_audioformer.training.tasks import CLASSIFICATION, ScoredClips

from ..conftest import PROJECT_ROOT
from ..hub_double import HubDouble

RESULT = SplitResult(
    name="fold_1",
    metric="macro mAP",
    score=0.73219,
    chance=0.236,
    floor=0.5125,
    floor_features="statistics of log-mels",
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
LABELS = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 1], [1, 0], [0, 1], [1, 1], [1, 0], [0, 1]])
LOGITS = (LABELS + np.random.default_rng(0).normal(size=LABELS.shape)).astype(np.float32)
SCORED = ScoredClips([str(index) for index in range(10)], LOGITS, LABELS, ["dog", "rain"])
MEASURED = Measured(RESULT, SCORED, HISTORY)


def card(folder: Path, **changes: Any) -> ModelCard:
    settings = {
        "measured": MEASURED,
        "recipe": {"data": {"source": "esc10"}, "training": {"learning_rate": 1e-3}},
        "source": "esc10",
        "label_names": ["dog", "rain"],
        "base_model": None,
        "random_weights": False,
    }
    write_model_card(folder, **(settings | changes))
    return ModelCard.load(folder / "README.md")


def unfilled(text: str) -> re.Match[str] | None:
    """A name in braces before the citation, which holds some."""
    return re.search(r"\{\w*\}", text.partition("## Citation")[0])


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
        "* Data: [ESC-10](https://github.com/karolpiczak/ESC-50) (K. J. Piczak",
        "CC BY-SA 4.0: the weights started from, and the codec in `codec/`, are the small ones",
        "| macro mAP on these clips | value |\n| --- | --- |\n| this model | 0.7322 |\n"
        "| floor: logistic regression on statistics of log-mels, trained on the source's training clips | 0.5125 |\n"
        "| chance: a random ranking | 0.2360 |\n",
        "Test clips (split `fold_1`) were used once",
        "had heard some clips of such sets before, without labels: folds 1, 2 and 4 of ESC-10",
        "reports 53.9 mAP on AudioSet for its method. That figure was not reproduced",
        "2 of 2 classes have fewer than 10 test clips",
        "Clips: 30 train, 5 validation, 10 test. Training took 12 s.",
        "| 1 | 2.5000 | 0.5000 |\n| 2 | 1.5000 | - |\n\n",
        "the epoch was chosen on validation clips",
        "learning_rate: 0.001",
        "* transformers ",
    ):
        assert part in text
    assert unfilled(text) is None


@pytest.mark.unit
def test_the_bundled_network_is_not_said_to_have_heard_synthetic_sounds(tmp_path: Path) -> None:
    text = card(tmp_path, source="synthetic").text
    assert "the small checkpoint of the package" in text
    assert "had heard" not in text
    assert "heard no recording" not in text
    assert "Its labels are of sounds made by a program" in text


@pytest.mark.unit
def test_every_metric_has_its_interval_and_every_class_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = card(tmp_path).text
    intervals = confidence_intervals(LOGITS, LABELS, resamples=200)
    for name, value in RESULT.metrics.items():
        assert f"| {name} | {value:.4f} | {intervals[name][0]:.4f} to {intervals[name][1]:.4f} |\n" in text
    rows = per_class_table(LOGITS, LABELS, ["dog", "rain"])
    assert "| class | clips | average precision | auc |\n| --- | --- | --- | --- |\n" in text
    for row in rows:
        assert f"| {row['name']} | {row['clips']} | {row['average_precision']:.4f} | {row['auc']:.4f} |\n" in text

    monkeypatch.setattr(CLASSIFICATION, "most_scores", 5)
    monkeypatch.setattr(model_card, "CLASSES_SHOWN", 1)
    text = card(tmp_path).text
    assert "| map | 0.7322 | - |\n| mauc | 0.9000 | - |\n\nNo intervals were computed" in text
    worst = min(rows, key=lambda row: row["average_precision"])["name"]
    assert re.findall(r"^\| (dog|rain) \|", text, re.MULTILINE) == [worst]
    assert "The 1 classes of lowest average precision, out of 2." in text
    rates = [{"name": "ann", "clips": 3, "eer": 0.1}, {"name": "bob", "clips": 3, "eer": 0.4}]
    assert "| bob | 3 | 0.4000 |\n\nThe 1 classes of highest eer, out of 2." in model_card._class_table(rates)


@pytest.mark.unit
def test_a_floor_that_was_not_computed_is_told_as_such(tmp_path: Path) -> None:
    text = card(tmp_path, measured=replace(MEASURED, result=replace(RESULT, metric="accuracy", floor=None))).text
    assert (
        "| floor: not computed (`floor_clips` in the recipe below) | - |\n"
        "| chance: always the most frequent class of the training clips | 0.2360 |\n\n" in text
    )


@pytest.mark.unit
def test_one_label_per_clip_has_its_own_columns_and_limit(tmp_path: Path) -> None:
    told = "A clip of none of the classes is given one of them all the same."
    assert told not in card(tmp_path).text
    text = card(tmp_path, measured=replace(MEASURED, scored=replace(SCORED, labels=LABELS[:, 1]))).text
    assert told in text
    assert "| class | clips | average precision | auc | precision | recall | f1 |\n" in text


@pytest.mark.unit
def test_the_learning_curve_is_drawn_of_two_epochs_or_more(tmp_path: Path) -> None:
    short = card(tmp_path, measured=replace(MEASURED, history=HISTORY[:2]))
    assert "learning_curve" not in short.text
    assert not (tmp_path / "learning_curve.png").exists()
    assert "![Learning curve](learning_curve.png)\n\n| epoch |" in card(tmp_path).text
    assert matplotlib.image.imread(tmp_path / "learning_curve.png").std() > 0


@pytest.mark.unit
def test_cards_pass_the_checks_of_the_hub(tmp_path: Path, hub_client: HubDouble) -> None:
    for changes in ({}, {"source": "me/clips", "base_model": "me/model"}, {"kind": AST, "random_weights": True}):
        card(tmp_path, **changes).validate()
    assert hub_client.requests == ["POST /api/validate-yaml"] * 3
    (tmp_path / "README.md").write_text(str(card(tmp_path)).replace("license: cc-by-sa-4.0", "license: mine"))
    with pytest.raises(ValueError, match="license"):
        ModelCard.load(tmp_path / "README.md").validate()


@pytest.mark.unit
def test_the_cards_of_what_ships_pass_them_too(hub_client: HubDouble) -> None:
    cards = sorted(path for path in (PROJECT_ROOT / "model_cards").glob("*.md") if path.name != "README.md")
    assert len(cards) == 4
    for path in cards:
        shipped = ModelCard.load(path)
        assert shipped.data.license
        shipped.validate()


@pytest.mark.unit
def test_results_on_a_set_of_the_hub_are_told_in_the_newer_form_too(tmp_path: Path) -> None:
    card(tmp_path)
    assert not (tmp_path / ".eval_results").exists()
    card(tmp_path, source="me/clips")
    (entry,) = parse_eval_result_entries(yaml.safe_load((tmp_path / ".eval_results" / "me_clips.yaml").read_text()))
    assert (entry.dataset_id, entry.value) == ("me/clips", 0.7322)
    assert entry.notes == "macro mAP on the test clips of fold_1 (30 train, 5 validation, 10 test)"


@pytest.mark.unit
def test_all_splits_are_told_of_once(tmp_path: Path) -> None:
    before = card(tmp_path).text
    results = [RESULT, replace(RESULT, name="fold_2", score=0.6)]
    told = (
        "(macro mAP: fold_1 0.7322, fold_2 0.6000): mean 0.6661, standard deviation 0.0935; mean of the floors 0.5125."
    )
    for _ in range(2):
        tell_of_all_splits(tmp_path, results)
        text = ModelCard.load(tmp_path / "README.md").text
        assert text.count(told) == 1
    tell_of_all_splits(tmp_path, [*results, RESULT])
    assert told not in ModelCard.load(tmp_path / "README.md").text
    assert len(before.splitlines()) == len(text.splitlines()) - 1


@pytest.mark.unit
@pytest.mark.parametrize(("validation", "training"), [(0, {}), (5, {"load_best_model_at_end": False})])
def test_an_epoch_that_no_clip_chose(validation: int, training: dict, tmp_path: Path) -> None:
    result = replace(RESULT, num_clips={"train": 30, "validation": validation, "test": 10})
    found = card(tmp_path, measured=replace(MEASURED, result=result), recipe={"training": training})
    assert "the epoch was chosen beforehand (the last one)" in found.text


@pytest.mark.unit
def test_an_ast_needs_no_package_and_no_codec(tmp_path: Path) -> None:
    from_hub = card(tmp_path, kind=AST, base_model="MIT/ast", details=["It hears 5 s.", "It is averaged."])
    from_package = card(tmp_path, kind=AST, base_model=ast_folder("ast_synthetic"))
    assert "started from: the small AST `ast_synthetic` of the package hf_audioformer (Apache-2.0)" in from_package.text
    assert from_hub.data.base_model == "MIT/ast"
    assert from_hub.data.tags == ["audio-spectrogram-transformer", "audio-classification", "hf_audioformer"]
    assert from_hub.data.get("license") is None
    assert "needs no package but Transformers.\nIt hears 5 s.\nIt is averaged.\n\n" in from_hub.text
    assert "import hf_audioformer" not in from_hub.text
    assert "codec/" not in from_hub.text
    assert "mAP on AudioSet" not in from_hub.text
    assert "[MIT/ast](https://huggingface.co/MIT/ast), whose card states its licence" in from_hub.text
    assert unfilled(from_hub.text) is None
    new = card(tmp_path, kind=AST, random_weights=True)
    assert "trained from random weights to tell apart" in new.text
    assert "No licence was given to the weights" in new.text
    assert "started from" not in new.text
    assert new.data.get("license") is None


@pytest.mark.unit
def test_scores_after_each_epoch_are_owned_up_to(tmp_path: Path) -> None:
    result = SplitResult(**(vars(RESULT) | {"test_scores": [0.4, 0.81, 0.73]}))
    assert (
        "the best macro mAP on them\nwas 0.8100, which is no estimate"
        in card(tmp_path, measured=replace(MEASURED, result=result)).text
    )
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
    assert "[me/clips](https://huggingface.co/datasets/me/clips), whose card states its licence" in hub.text
    assert "deepspeed: zero.json" in hub.text
    here = card(tmp_path, source=str(local), base_model=str(local.parent), random_weights=True)
    assert here.data.get("base_model") is None
    assert "random weights in the form of `secret`" in here.text
    for text in (str(hub), str(here)):
        assert str(tmp_path) not in text
        assert "had heard" not in text


@pytest.mark.unit
def test_origins_are_told_through_code_stores_and_local_checkpoints(tmp_path: Path) -> None:
    store, network = tmp_path / "codes", tmp_path / "network"
    plan = StorePlan(
        **{"source": "esc10", "clips": 0, "clips_sha256": "", "label_names": [], "multi_label": False, "seed": 0},
        **{"codec": "codec", "codec_revision": None, "settings": {"codebook_size": 8}, "num_codebooks": 1},
        **{"augmentation": {"copies": 0}, "companions": {}, "companion_size": 0, "shard_clips": 1},
    )
    write_plan(store, plan)
    write_manifest(store, plan, "cpu", [])
    network.mkdir()
    measures = {"training_clips": 8, "validation_clips": 2, "codebooks": {}}
    write_pretraining_card(network, measures=measures, recipe={}, sources=[str(store)], codec=None, history=HISTORY)
    text = card(tmp_path, source=str(store), base_model=str(network), codec=str(network)).text
    told = text.partition("## Data, codec and licence")[2].partition("## Results")[0]
    assert told.count("[ESC-10](https://github.com/karolpiczak/ESC-50)") == 2
    assert "`network`, a local folder, whose own card says:\n  * Data: [ESC-10]" in told
    assert "  * Codec: the small codec of hf_audioformer" in told
    assert "* Codec, in `codec/`: that of these weights." in told
    assert "from the code store `codes`" in text
    assert "The small codec had heard some clips" in text
    assert ".." not in told
    assert str(tmp_path) not in text


@pytest.mark.unit
def test_a_pretrained_models_card(tmp_path: Path) -> None:
    row = {"accuracy": 0.25, "perplexity": 40.0, "unigram_accuracy": 0.05, "unigram_perplexity": 200.0}
    measures = {"training_clips": 90, "validation_clips": 10, "codebooks": {"C3": row}}
    (tmp_path / "secret" / "clips").mkdir(parents=True)
    sources = [str(tmp_path / "secret" / "clips"), "me/clips"]
    for codec, named in (
        (None, "small codec of hf_audioformer"),
        (
            "facebook/encodec_24khz",
            "[facebook/encodec_24khz](https://huggingface.co/facebook/encodec_24khz), whose card",
        ),
    ):
        recipe = {"data": {"sources": sources, "hold_out": ["fold=5"]}}
        history = [{"epoch": 1.0, "loss": 4.5}, {"epoch": 1.0, "eval_loss": 4.0}]
        write_pretraining_card(
            tmp_path, measures=measures, recipe=recipe, sources=sources, codec=codec, history=history
        )
        text = (tmp_path / "README.md").read_text()
        assert str(tmp_path) not in text
        assert unfilled(text) is None
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


@pytest.mark.unit
def test_the_card_of_a_generator_names_what_it_started_from(tmp_path: Path) -> None:
    for base_model, licence, named in (
        (None, "cc-by-sa-4.0", "Codec and starting weights had heard some clips of such sets before"),
        ("me/network", None, "* Weights started from: [me/network](https://huggingface.co/me/network)"),
    ):
        write_generation_card(
            tmp_path,
            table="| denoise | generated | 1.50 | 3.0 |",
            clips=(90, 10),
            recipe={"tasks": ["denoise", "inpaint"]},
            source="fsdd",
            base_model=base_model,
            causal=False,
            history=[{"epoch": 1.0, "loss": 4.5}, {"epoch": 1.0, "eval_loss": 4.0}],
        )
        text = (tmp_path / "README.md").read_text()
        assert unfilled(text) is None
        loaded = ModelCard.load(tmp_path / "README.md")
        assert (loaded.data.pipeline_tag, loaded.data.get("license")) == ("audio-to-audio", licence)
        for part in (
            named,
            "On 10 clips",
            "(90 it did)",
            "| denoise | generated | 1.50",
            "| 1 | 4.5000 |",
            "--task denoise",
        ):
            assert part in text
