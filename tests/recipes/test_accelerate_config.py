"""The packaged configurations are what Accelerate's own launcher takes, and fit the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from transformers import ASTForAudioClassification, PreTrainedModel

from hf_audioformer import AudioFormerForMaskedLM, AudioFormerForPreTraining, cli
from hf_audioformer.models.ast.lean_ast import make_lean
from hf_audioformer.recipes.accelerate_config import accelerate_configs
from hf_audioformer.training.launch import wrap_layers

from ..fixtures_recipes import tiny_config
from ..models.ast.tiny_ast import tiny_ast_config

KINDS = {
    "ddp": ("MULTI_GPU", 1),
    "deepspeed_zero2": ("DEEPSPEED", 1),
    "deepspeed_zero3": ("DEEPSPEED", 1),
    "fsdp2": ("FSDP", 1),
    "single_gpu": ("NO", 1),
    "two_nodes": ("MULTI_GPU", 2),
}


def lean_ast(**settings: Any) -> ASTForAudioClassification:
    """As `finetune-ast` trains it."""
    model = ASTForAudioClassification(tiny_ast_config(**settings))
    make_lean(model)
    return model


@pytest.mark.unit
def test_every_configuration_is_tested() -> None:
    assert [*accelerate_configs()] == [*KINDS]


@pytest.mark.reference
@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_it_and_knows_every_setting(name: str) -> None:
    config = load_config_from_file(str(accelerate_configs()[name]))  # refuses keys that it does not know
    assert (config.distributed_type.value, config.num_machines) == KINDS[name]
    assert config.num_processes % config.num_machines == 0
    assert config.mixed_precision == "bf16"
    options = launch_command_parser().parse_args(["train.py"])
    assert all(hasattr(options, setting) for setting in [*config.fsdp_config, *config.deepspeed_config])


@pytest.mark.reference
@pytest.mark.parametrize(
    "make_model",
    [
        lambda: AudioFormerForMaskedLM(tiny_config()),
        lambda: AudioFormerForPreTraining(tiny_config()),
        lambda: lean_ast(num_hidden_layers=1),
        lambda: lean_ast(num_hidden_layers=2),
    ],
    ids=["masked", "pretraining", "AST of one layer", "AST"],
)
def test_sharded_models_are_wrapped_by_layers_and_saved_whole(
    make_model: Callable[[], PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accelerate's own choice of what to share out, from its plugin as the launcher's environment makes it."""
    settings = load_config_from_file(str(accelerate_configs()["fsdp2"])).fsdp_config
    assert (settings["fsdp_version"], settings["fsdp_state_dict_type"]) == (2, "FULL_STATE_DICT")
    monkeypatch.setenv("FSDP_AUTO_WRAP_POLICY", settings["fsdp_auto_wrap_policy"])
    monkeypatch.delenv("FSDP_TRANSFORMER_CLS_TO_WRAP", raising=False)
    assert "fsdp_transformer_layer_cls_to_wrap" not in settings
    plugin, model = FullyShardedDataParallelPlugin(fsdp_version=2), make_model()
    wrap_layers(plugin, model)
    is_wrapped = fsdp2_prepare_auto_wrap_policy(plugin, model)
    assert [module for module in model.modules() if is_wrapped(module)] == list(model.base_model.layers)
    named = FullyShardedDataParallelPlugin(fsdp_version=2, transformer_cls_names_to_wrap=["Chosen"])
    wrap_layers(named, model)
    assert named.transformer_cls_names_to_wrap == ["Chosen"]


@pytest.mark.reference
def test_weights_shared_out_by_deepspeed_are_saved_whole() -> None:
    assert load_config_from_file(str(accelerate_configs()["deepspeed_zero3"])).deepspeed_config[
        "zero3_save_16bit_model"
    ]


@pytest.mark.cli
def test_the_command_prints_a_path_or_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["accelerate-config", "fsdp2"]) == 0
    assert Path(capsys.readouterr().out.strip()) == accelerate_configs()["fsdp2"]
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["accelerate-config"])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in KINDS)


@pytest.mark.cli
@pytest.mark.parametrize("arguments", [["fsdp"], ["ddp", "fsdp2"]])
def test_an_unknown_name_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["accelerate-config", *arguments]) == 1
    assert "accelerate-config takes one name" in capsys.readouterr().err
