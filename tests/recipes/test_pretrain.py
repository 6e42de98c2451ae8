"""Masked pretraining: what is measured, what the network starts from, and what it never sees."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModelForMaskedLM, TrainerCallback

from hf_audioformer import AudioFormerFeatureExtractor, cli, read_clips
from hf_audioformer.data.clip_table import ClipTable
from hf_audioformer.recipes import encode, pretrain
from hf_audioformer.recipes.encode import CodecArguments, EncodeArguments
from hf_audioformer.recipes.inputs import ReadingArguments
from hf_audioformer.recipes.pretrain import (
    MaskArguments,
    NetworkArguments,
    PretrainArguments,
    SourceArguments,
)
from hf_audioformer.training.arguments import dump_config, parse_config
from hf_audioformer.training.contrastive import ContrastiveArguments

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "disable_tqdm": True}


@pytest.fixture
def arguments(tone_folder: Path, tiny_codec: str, tmp_path: Path) -> PretrainArguments:
    """Two epochs of two steps on the tones, a quarter of them for validation."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return PretrainArguments(
        data=SourceArguments(sources=[str(tone_folder)], validation_fraction=0.25, crop_seconds=0.2),
        output_dir=str(tmp_path / "run"),
        model=NetworkArguments(codec=tiny_codec, num_codebooks=2, **sizes),
        training=FAST,
    )


@pytest.mark.cli
def test_two_steps_leave_a_checkpoint_and_the_measures(
    arguments: PretrainArguments, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(replace(arguments, training=FAST | {"num_train_epochs": 1})))
    assert cli.main(["pretrain", str(tmp_path / "config.yaml")]) == 0
    printed = capfd.readouterr()
    assert all("encode" in line for line in printed.err.splitlines() if line.strip())
    epoch, head, _, first, second, mean, where = printed.out.splitlines()
    assert epoch.startswith("epoch 1/1  loss ")
    assert head == "| codebook | masked accuracy | unigram | masked perplexity | unigram |"
    assert [row.split()[1] for row in (first, second, mean)] == ["C1", "C2", "mean"]
    assert where == f"The model is in {arguments.output_dir}"

    files = {path.name for path in Path(arguments.output_dir).iterdir()}
    checkpoint = {"codec", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert files == checkpoint | {"recipe.yaml", "measures.json", "README.md"}
    assert head in (Path(arguments.output_dir) / "README.md").read_text()
    assert str(tmp_path) not in (Path(arguments.output_dir) / "README.md").read_text()
    extractor = AutoFeatureExtractor.from_pretrained(arguments.output_dir)
    features = extractor(np.zeros(24_000), sampling_rate=24_000, return_tensors="pt")
    model = AutoModelForMaskedLM.from_pretrained(arguments.output_dir)
    assert model(**features).logits.shape == (1, 77, 2, 68)


@pytest.mark.unit
def test_sound_without_labels_is_encoded_and_pretrained_on(
    arguments: PretrainArguments, tone_folder: Path, tiny_checkpoint: str, tmp_path: Path
) -> None:
    flat = str(tone_folder / "low")
    store = str(tmp_path / "codes")
    codec = CodecArguments(checkpoint=tiny_checkpoint)
    encode.run(EncodeArguments(data=ReadingArguments(source=flat), output_dir=store, codec=codec))
    weights = []
    for source in (flat, store):
        output = str(tmp_path / f"from_{Path(source).name}")
        data = replace(arguments.data, sources=[source])
        pretrain.run(replace(arguments, data=data, output_dir=output))
        weights.append(Path(output, "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    with pytest.raises(ValueError, match="label_column is not clear, none has a usual name"):
        read_clips(store)


@pytest.mark.unit
def test_measures_lie_where_a_random_network_starts(arguments: PretrainArguments) -> None:
    measures = pretrain.run(replace(arguments, training=FAST | {"learning_rate": 1e-12}))
    assert (measures["training_clips"], measures["validation_clips"]) == (18, 6)
    assert measures["perplexity"] == pytest.approx(68, rel=0.1)  # 64 codes and 4 special tokens
    assert 0 <= measures["accuracy"] < 0.1
    assert measures["unigram_perplexity"] < 64
    longer = replace(arguments, training=FAST | {"learning_rate": 1e-12, "num_train_epochs": 3}, overwrite=True)
    again = pretrain.run(longer)
    for codebook in ("C1", "C2"):
        assert again["codebooks"][codebook] == pytest.approx(measures["codebooks"][codebook])  # the same masks


@pytest.mark.invariant
def test_contrastive_pretraining_with_companions(
    arguments: PretrainArguments, tiny_companions: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of C1 with C2 and C3: by vectors stored or computed in each step, with a plain masked model as the outcome."""
    alone = replace(arguments, model=replace(arguments.model, num_codebooks=1))
    shown = {}
    for kind in ("stored", "each_step", "off"):
        companions = [] if kind == "off" else tiny_companions
        mpc = ContrastiveArguments(
            companions=companions, alpha=0.5, companion_vectors="each_step" if kind == "each_step" else "stored"
        )
        pretrain.run(replace(alone, mpc=mpc, output_dir=str(tmp_path / kind)))
        shown[kind] = [line for line in capfd.readouterr().out.splitlines() if line.startswith("epoch")]
    assert shown["stored"] == shown["each_step"]
    assert "  mlm_loss " in shown["stored"][0]
    assert "  mpc_loss " in shown["stored"][0]
    assert "_loss" not in shown["off"][0].partition("validation")[0]
    assert_same_weights(tmp_path / "stored", tmp_path / "each_step", 1e-6)
    plain, contrastive = (load_file(tmp_path / kind / "model.safetensors") for kind in ("off", "stored"))
    assert plain.keys() == contrastive.keys()
    assert any(not torch.equal(plain[name], contrastive[name]) for name in plain)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "stored").config.num_codebooks == 1
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "stored").num_codebooks == 1


@pytest.mark.unit
def test_clips_beside_a_store_with_companion_vectors_get_vectors_too(
    arguments: PretrainArguments, tone_csv: Path, tiny_companions: list[str], tmp_path: Path
) -> None:
    store = EncodeArguments(
        data=ReadingArguments(source=arguments.data.sources[0]),
        output_dir=str(tmp_path / "codes"),
        codec=CodecArguments(name=arguments.model.codec),
        companions=tiny_companions,
    )
    encode.run(store)
    both = replace(
        arguments,
        data=replace(arguments.data, sources=[store.output_dir, str(tone_csv)]),
        model=replace(arguments.model, num_codebooks=1),
        mpc=ContrastiveArguments(companions=tiny_companions),
    )
    clips = pretrain._encode(both, pretrain._read_companions(both), None)
    assert len(clips.training) == 36
    assert all(versions[0].companions is not None for versions in clips.training)


@pytest.mark.fault
def test_companions_of_several_networks_at_once_are_refused(
    arguments: PretrainArguments, tiny_companions: list[str]
) -> None:
    each = replace(arguments.model, fusion="each")
    with pytest.raises(ValueError, match=r"mpc.companions accompany one network, and model.fusion each trains several"):
        pretrain.run(replace(arguments, model=each, mpc=ContrastiveArguments(companions=tiny_companions)))


@pytest.mark.invariant
def test_a_resumed_run_equals_an_unbroken_one(
    arguments: PretrainArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupt(TrainerCallback):
        def on_save(self, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    original = pretrain.build_trainer

    def build_interrupted(*args: Any) -> Any:
        trainer = original(*args)
        trainer.add_callback(Interrupt())
        return trainer

    expected = pretrain.run(replace(arguments, output_dir=str(tmp_path / "unbroken")))
    monkeypatch.setattr(pretrain, "build_trainer", build_interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(arguments)
    monkeypatch.setattr(pretrain, "build_trainer", original)
    resumed = replace(arguments, resume=True)
    assert pretrain.run(resumed) == expected
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert pretrain.run(resumed) == expected
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.invariant
def test_the_number_of_workers_changes_nothing(arguments: PretrainArguments, tmp_path: Path) -> None:
    for workers in (0, 2):
        training = FAST | {"num_train_epochs": 2, "dataloader_num_workers": workers}
        pretrain.run(replace(arguments, output_dir=str(tmp_path / str(workers)), training=training))
    assert_same_weights(tmp_path / "0", tmp_path / "2")


@pytest.mark.invariant
def test_bf16_and_gradient_checkpointing_train(arguments: PretrainArguments, tmp_path: Path) -> None:
    """In bf16 the measures are finite and near; recomputed activations give the very same weights."""
    runs = {"plain": {}, "bf16": {"bf16": True}, "checkpointed": {"gradient_checkpointing": True}}
    measures = {
        name: pretrain.run(replace(arguments, output_dir=str(tmp_path / name), training=FAST | settings))
        for name, settings in runs.items()
    }
    assert measures["bf16"]["perplexity"] == pytest.approx(measures["plain"]["perplexity"], rel=0.02)
    assert measures["bf16"]["perplexity"] != measures["plain"]["perplexity"]
    assert_same_weights(tmp_path / "plain", tmp_path / "checkpointed")


@pytest.mark.invariant
def test_accumulation_equals_a_large_batch(arguments: PretrainArguments, tmp_path: Path) -> None:
    """The loss is a mean over masked codes, of which each micro-batch has another number."""
    still = replace(arguments, model=replace(arguments.model, hidden_dropout=0.0))
    for name, settings in {
        "large": {"per_device_train_batch_size": 16},
        "small": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
    }.items():
        pretrain.run(replace(still, output_dir=str(tmp_path / name), training=FAST | settings))
    large, small = (load_file(tmp_path / name / "model.safetensors") for name in ("large", "small"))
    for name, weight in large.items():
        torch.testing.assert_close(small[name], weight, atol=1e-5, rtol=0)


@pytest.mark.invariant
def test_a_network_per_codebook_is_what_each_gives_alone(
    arguments: PretrainArguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run that ended between two of them goes on with the second."""
    each = replace(arguments, model=replace(arguments.model, fusion="each"))
    original, trained = pretrain.build_trainer, []

    def build_one(*args: Any) -> Any:
        if trained:
            raise KeyboardInterrupt
        trained.append(args)
        return original(*args)

    monkeypatch.setattr(pretrain, "build_trainer", build_one)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(each)
    monkeypatch.setattr(pretrain, "build_trainer", original)
    first = (tmp_path / "run" / "codebook_1" / "model.safetensors").stat().st_mtime_ns
    measures = pretrain.run(replace(each, resume=True))
    assert (tmp_path / "run" / "codebook_1" / "model.safetensors").stat().st_mtime_ns == first
    assert json.loads((tmp_path / "run" / "measures.json").read_text()) == measures
    assert measures["accuracy"] == np.mean([row["accuracy"] for row in measures["codebooks"].values()])

    for index in (0, 1):
        model = replace(arguments.model, num_codebooks=1, codebook_index=index)
        folder = tmp_path / f"alone_{index}"
        alone = pretrain.run(replace(arguments, output_dir=str(folder), model=model))
        name = f"C{index + 1}"
        assert alone["codebooks"] == {name: measures["codebooks"][name]}
        part = tmp_path / "run" / f"codebook_{index + 1}"
        assert_same_weights(part, folder)
        extractor = AutoFeatureExtractor.from_pretrained(part)
        features = extractor(np.random.default_rng(0).normal(size=24_000), sampling_rate=24_000, return_tensors="pt")
        assert features["input_ids"].shape == ((1, 77, 2) if index else (1, 77))
        logits = AutoModelForMaskedLM.from_pretrained(part)(**features).logits
        assert logits.shape == (1, 77, 68)
        column = features["input_ids"][..., index] if index else features["input_ids"]
        torch.testing.assert_close(AutoModelForMaskedLM.from_pretrained(part)(column).logits, logits)


def assert_same_weights(folder: Path, other: Path, tolerance: float = 0.0) -> None:
    one, two = (load_file(path / "model.safetensors") for path in (folder, other))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=tolerance, msg=name)


@pytest.mark.unit
def test_the_defaults_and_the_preset_mask_as_the_paper_does() -> None:
    assert MaskArguments() == MaskArguments(rate=0.25, span_frames=1, mask_share=1.0, random_share=0.0)
    arguments = parse_config(PretrainArguments, ["pretrain_audioset"], description="")
    assert arguments.mask == MaskArguments()
    assert (arguments.model.fusion, [*arguments.model.codebooks]) == ("each", [0, 1, 2, 3])


@pytest.mark.fault
@pytest.mark.parametrize("sizes", [{"num_codebooks": 0}, {"codebook_index": -1}, {"codebook_index": 1}])
def test_codebooks_that_are_not_there_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"num_codebooks is \d and model.codebook_index .*; at least one codebook"):
        NetworkArguments(**sizes)


@pytest.mark.unit
def test_the_codec_can_be_left_out_of_the_embeddings(
    arguments: PretrainArguments, tiny_extractor: AudioFormerFeatureExtractor
) -> None:
    first, second = (
        pretrain.build_model(replace(arguments.model, codec_embeddings=codec), tiny_extractor).state_dict()
        for codec in (True, False)
    )
    name = "audioformer.embeddings.code_embeddings.weight"
    assert first[name].view(2, 68, 32)[:, :64, 16:].abs().max() == 0
    assert second[name].view(2, 68, 32)[:, :64, 16:].abs().min() > 0


@pytest.mark.cli
def test_a_store_made_without_settings_is_taken_without_settings(
    arguments: PretrainArguments, tone_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the README, one after the other."""
    store = str(tmp_path / "codes")
    assert cli.main(["encode", "--data.source", str(tone_folder), "--output_dir", store]) == 0
    command = ["pretrain", "--data.sources", json.dumps([store]), "--output_dir", str(tmp_path / "network")]
    assert cli.main([*command, "--model.hidden_size", "32", "--training.max_steps", "1"]) == 0, capsys.readouterr().err
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "network").rms_level_dbfs == -23.0


@pytest.fixture
def with_folds(arguments: PretrainArguments, tone_csv: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    """Arguments with a second source that has folds, and the names of the clips that are loaded."""
    loaded: list[str] = []
    original = ClipTable.load

    def load(clips: ClipTable, index: int) -> Any:
        loaded.append(clips.ids[index])
        return original(clips, index)

    monkeypatch.setattr(ClipTable, "load", load)
    sources = [*arguments.data.sources, str(tone_csv)]
    return replace(arguments, data=replace(arguments.data, sources=sources)), loaded


@pytest.mark.unit
def test_clips_held_out_are_never_read(with_folds: tuple[Any, list[str]], tone_csv: Path) -> None:
    arguments, loaded = with_folds
    data = replace(arguments.data, hold_out=["fold=2"])
    measures = pretrain.run(replace(arguments, data=data, training=FAST | {"num_train_epochs": 1}))
    with tone_csv.open() as file:
        folds = {row["file_name"]: row["fold"] for row in csv.DictReader(file)}
    assert {folds[name] for name in loaded if name in folds} == {"1"}
    assert measures["training_clips"] + measures["validation_clips"] == 24 + 12


@pytest.mark.fault
def test_mistakes_are_told_before_a_clip_is_read(with_folds: tuple[Any, list[str]]) -> None:
    arguments, loaded = with_folds
    with pytest.raises(ValueError, match="hold_out 'fold=3' leaves no clip out"):
        pretrain.run(replace(arguments, data=replace(arguments.data, hold_out=["fold=3"])))
    with pytest.raises(ValueError, match=r"training.save_total_limit is 1; it must be at least 2"):
        pretrain.run(replace(arguments, training={"save_total_limit": 1}))
    assert loaded == []
    assert not Path(arguments.output_dir).exists()


@pytest.mark.fault
def test_a_mask_out_of_range_and_an_occupied_folder_are_refused(arguments: PretrainArguments) -> None:
    with pytest.raises(ValueError, match="rate must lie between 0 and 1"):
        pretrain.run(replace(arguments, mask=MaskArguments(rate=1.5)))
    with pytest.raises(FileExistsError, match="is not empty"):
        pretrain.run(arguments)
