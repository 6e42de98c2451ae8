"""Settings come from a YAML file and the command line, and every mistake is named."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_audioformer.recipes.finetune import FinetuneArguments
from hf_audioformer.training.arguments import dump_config, parse_config


@dataclass
class Data:
    source: str = field(metadata={"help": "a folder, a csv or a Hub id"})
    folds: list[int] = field(default_factory=list)
    label_column: str | None = None
    crop_seconds: float = 5.0
    split: Literal["column", "folds"] = "column"


@dataclass
class Model:
    name: str = "small"
    sizes: tuple[int, ...] = (1, 2)
    dropout: float | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    rate: float | None = None
    epochs: int = 1


@dataclass
class Config:
    data: Data
    steps: list[Step] = field(default_factory=list)
    model: Model = field(default_factory=lambda: Model(name="base"))
    training: dict[str, Any] = field(
        default_factory=lambda: {"learning_rate": 1e-3}, metadata={"keywords_of": "transformers.TrainingArguments"}
    )
    seed: int = 0


def parse(*argv: str) -> Config:
    return parse_config(Config, list(argv), description="Teaches.")


def write(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.unit
def test_command_line_wins_over_file_and_file_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "data: {source: clips, folds: [1, 2]}\ntraining: {learning_rate: 1e-4}\nseed: 3\nmodel:\n")
    config = parse(file, "--data.folds", "[4]", "--training.num_train_epochs=2", "--training.eval_strategy", "no")
    assert config.data == Data(source="clips", folds=[4])
    assert config.model == Model(name="base"), "a section left out keeps the defaults of its factory"
    assert config.training == {"learning_rate": 1e-4, "num_train_epochs": 2.0, "eval_strategy": "no"}
    assert config.seed == 3


@pytest.mark.unit
def test_command_line_words_take_the_type_of_their_field() -> None:
    config = parse(
        *("--data.source", "123", "--data.label_column", "null", "--data.crop_seconds", "2"),
        *("--model.sizes", "[3]", "--model.dropout", "1e-1", "--model.overrides", "{a: 1}"),
    )
    assert config.data == Data(source="123", label_column=None, crop_seconds=2.0)
    assert isinstance(config.data.crop_seconds, float)
    assert config.model == Model(name="base", sizes=(3,), dropout=0.1, overrides={"a": 1})


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {sorce: x}", r"config\.yaml: unknown key 'data\.sorce'; did you mean 'data\.source'\?"),
        ("dta: {source: x}", r"unknown key 'dta'; did you mean 'data'\?"),
        ("source: x", r"unknown key 'source'; did you mean 'data\.source'\?"),
        (
            "training: {learnin_rate: 1}",
            r"unknown key 'training\.learnin_rate'; did you mean 'training\.learning_rate'",
        ),
        ("zzzz: 1", r"unknown key 'zzzz'; --help lists the valid keys"),
        ("data: 5", r"data must map names to values, found 5 \(int\)"),
        ("[1]", r"the file must map names to values, found \[1\] \(list\)"),
        ("data: {folds: [a]}", r"data\.folds must be a list of int, found \['a'\] \(list\)"),
        ("data: {source: 5}", r"data\.source must be str, found 5 \(int\); quote it"),
        ("data: {split: random}", r"data\.split must be 'column' or 'folds', found 'random' \(str\)"),
        ("seed: true", r"seed must be int, found True \(bool\)"),
        ("seed: null", r"seed must be int, found null"),
        ("training: {eval_strategy: no}", r"training\.eval_strategy must be .* or str, found False \(bool\); quote it"),
        ("training: {learning_rate: fast}", r"training\.learning_rate must be float, found 'fast' \(str\)"),
        ("model: {name: base}", r"data\.source is required: set it in the config file or with --data\.source VALUE"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(write(tmp_path, text))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data.sorce", "x"], r"the command line: unknown key 'data\.sorce'; did you mean 'data\.source'"),
        (["--data.source"], r"--data\.source needs a value"),
        (["--data.source", "x", "--seed", "one"], r"the command line: seed must be int, found 'one' \(str\)"),
        (["--seed", "[1"], r"seed must be int, found '\[1' \(str\)"),
    ],
)
def test_mistakes_on_the_command_line_are_named(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(*argv)


@pytest.mark.unit
def test_lists_of_records(tmp_path: Path) -> None:
    text = "data: {source: x}\nsteps: [{rate: 1e-4}, {epochs: 3}]"
    config = parse(write(tmp_path, text))
    assert config.steps == [Step(rate=1e-4), Step(epochs=3)]
    assert parse("--data.source", "x", "--steps", "[{rate: 2}]").steps == [Step(rate=2.0)]
    assert parse(write(tmp_path, dump_config(config))) == config
    for wrong in ("{rate: 1}", "[1]", "[{rat: 1}]", "[{epochs: many}]"):
        with pytest.raises(ValueError, match="steps must be a list of mappings of rate, epochs, found"):
            parse("--data.source", "x", "--steps", wrong)


@pytest.mark.unit
def test_config_file_mistakes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config file 'missing\.yaml' does not exist; packaged presets: "):
        parse("missing.yaml")
    file = write(tmp_path, "data: {source: x}")
    with pytest.raises(ValueError, match="one config file is allowed"):
        parse(file, file)


@pytest.mark.unit
def test_help_prints_every_setting_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse("--help")
    text = capsys.readouterr().out
    assert leaving.value.code == 0
    assert text.startswith("Teaches.")
    for line in (
        "data:\n  --data.source: str, required\n      a folder, a csv or a Hub id\n",
        "--data.split: 'column' or 'folds', default column",
        "--model.name: str, default base",
        "--training.learning_rate: float, default 0.001",
        "--training.FIELD: a field of transformers.TrainingArguments",
        "--seed: int, default 0",
    ):
        assert line in text


@pytest.mark.property
@given(
    source=st.text(st.characters(codec="utf-8")),
    folds=st.lists(st.integers()),
    crop_seconds=st.floats(allow_nan=False),
    sizes=st.lists(st.integers()).map(tuple),
    learning_rate=st.floats(0, 1),
)
def test_a_dumped_config_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    source: str,
    folds: list[int],
    crop_seconds: float,
    sizes: tuple[int, ...],
    learning_rate: float,
) -> None:
    data = Data(source=source, folds=folds, crop_seconds=crop_seconds)
    config = Config(data=data, model=Model(sizes=sizes), training={"learning_rate": learning_rate}, seed=7)
    assert parse(write(tmp_path_factory.mktemp("config"), dump_config(config))) == config


@pytest.mark.unit
def test_presets_are_found_by_name() -> None:
    config = parse_config(FinetuneArguments, ["quickstart", "--data.source", "elsewhere"], description="")
    assert config.output_dir == "quickstart"
    assert config.data.source == "elsewhere"
