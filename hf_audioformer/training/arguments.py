"""Nested dataclasses from a YAML file and `--section.field value` overrides.

A recipe describes its settings as a dataclass of dataclasses; `field(metadata={"help": ...})` documents a setting. A
section that is passed on as keyword arguments is a `dict` field with
`metadata={"keywords_of": "transformers.TrainingArguments"}`: its keys and types are those of the dataclass it names.
"""

import importlib
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

__all__ = ["dump_config", "parse_config", "presets"]

Config = TypeVar("Config")


def parse_config(cls: type[Config], argv: list[str], *, description: str) -> Config:
    """An instance of the dataclass `cls`, from `argv` = `[config.yaml] [--section.field value ...]`.

    `config.yaml` is a path or the name of a packaged preset; the command line wins over the file, the file over the
    defaults. `--help` prints every setting and leaves with exit code 0.

    Raises:
        FileNotFoundError: the file does not exist and is no preset.
        ValueError: an unknown key, a value of the wrong type or a missing required value; the message names the
            file or option, what was found and what is allowed.
    """
    settings = _all_settings(cls)
    if "--help" in argv or "-h" in argv:
        print(_help(settings, description))
        sys.exit(0)
    config_name, overrides = _split_command_line(argv)
    values = _read_yaml(config_name, settings) if config_name else {}
    for key, text in overrides.items():
        setting = _known(settings, key, "the command line")
        values[key] = _checked(_parse_text(text, setting.annotation), setting.annotation, key, "the command line")
    missing = [key for key, setting in settings.items() if setting.default is MISSING and key not in values]
    if missing:
        raise ValueError(f"{missing[0]} is required: set it in the config file or with --{missing[0]} VALUE")
    return _build(cls, values)


def dump_config(config: Any) -> str:
    """The YAML text that `parse_config` reads back as an equal instance of the dataclass `config`."""
    return yaml.safe_dump(asdict(config), sort_keys=False)


@dataclass(frozen=True)
class _Setting:
    annotation: Any
    default: Any  # MISSING where a value is required, _ABSENT where leaving it out means something of its own
    help: str


_ABSENT = object()


def _settings(cls: Any, prefix: str = "", base: Any = None) -> dict[str, _Setting]:
    """Every setting of `cls` by its dotted name, sections opened; `base` is the instance that holds the defaults."""
    settings: dict[str, _Setting] = {}
    hints = get_type_hints(cls)
    for field in _init_fields(cls):
        key, annotation = prefix + field.name, hints[field.name]
        default = _default(field) if base is None else getattr(base, field.name)
        if is_dataclass(annotation):
            settings |= _settings(annotation, key + ".", None if default is MISSING else default)
        elif "keywords_of" in field.metadata:
            target = _import(field.metadata["keywords_of"])
            target_hints = get_type_hints(target)
            for option in _init_fields(target):
                value = (default or {}).get(option.name, _ABSENT)
                help_text = f"a field of {field.metadata['keywords_of']}" if value is _ABSENT else ""
                settings[f"{key}.{option.name}"] = _Setting(target_hints[option.name], value, help_text)
        else:
            settings[key] = _Setting(annotation, default, field.metadata.get("help", ""))
    return settings


_all_settings: Callable[[Any], Mapping[str, _Setting]] = cache(_settings)


def _build(cls: type[Config], values: Mapping[str, Any], prefix: str = "", base: Any = None) -> Config:
    chosen: dict[str, Any] = {}
    hints = get_type_hints(cls)
    for field in _init_fields(cls):
        key = prefix + field.name
        default = _default(field) if base is None else getattr(base, field.name)
        if is_dataclass(hints[field.name]):
            chosen[field.name] = _build(hints[field.name], values, key + ".", None if default is MISSING else default)
        elif "keywords_of" in field.metadata:
            start = len(key) + 1
            given = {name[start:]: value for name, value in values.items() if name.startswith(key + ".")}
            chosen[field.name] = {**({} if default is MISSING else default), **given}
        elif key in values:
            chosen[field.name] = values[key]
    return cls(**chosen) if base is None else replace(base, **chosen)


def _init_fields(cls: Any) -> list[Field]:
    return [field for field in fields(cls) if field.init]


def _default(field: Field) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _import(dotted_name: str) -> Any:
    module, _, name = dotted_name.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _split_command_line(argv: list[str]) -> tuple[str | None, dict[str, str]]:
    config_name, overrides = None, {}
    tokens = iter(argv)
    for token in tokens:
        if token.startswith("--"):
            key, has_value, text = token[2:].partition("=")
            value = text if has_value else next(tokens, None)
            if value is None:
                raise ValueError(f"--{key} needs a value: --{key} VALUE")
            overrides[key] = value
        elif config_name is None:
            config_name = token
        else:
            raise ValueError(f"one config file is allowed, found {config_name!r} and {token!r}")
    return config_name, overrides


def presets() -> dict[str, Path]:
    """The packaged config files by name."""
    folder = Path(__file__).parent.parent / "recipes" / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _read_yaml(name: str, settings: Mapping[str, _Setting]) -> dict[str, Any]:
    packaged = presets()
    path = packaged.get(name, Path(name))
    if not path.is_file():
        raise FileNotFoundError(
            f"config file {name!r} does not exist; packaged presets: {', '.join(packaged) or 'none'}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    return {
        key: _checked(value, settings[key].annotation, key, str(path))
        for key, value in _flatten(content, "", settings, str(path))
    }


def _flatten(content: Any, prefix: str, settings: Mapping[str, _Setting], source: str) -> Iterator[tuple[str, Any]]:
    if content is None:
        return
    if not isinstance(content, dict):
        raise ValueError(f"{source}: {prefix[:-1] or 'the file'} must map names to values, found {_found(content)}")
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key not in settings and key in _sections(settings):
            yield from _flatten(value, key + ".", settings, source)
        else:
            _known(settings, key, source)
            yield key, value


def _sections(settings: Iterable[str]) -> list[str]:
    parents = (key.split(".")[:-1] for key in settings)
    return list(dict.fromkeys(".".join(parent[: depth + 1]) for parent in parents for depth in range(len(parent))))


def _known(settings: Mapping[str, _Setting], key: str, source: str) -> _Setting:
    if key in settings:
        return settings[key]
    names = [*settings, *_sections(settings)]
    same_ending = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    nearest = get_close_matches(key, names, n=1) or same_ending
    hint = f"did you mean {nearest[0]!r}?" if nearest else "--help lists the valid keys"
    raise ValueError(f"{source}: unknown key {key!r}; {hint}")


def _parse_text(text: str, annotation: Any) -> Any:
    """A command-line word as YAML reads it, or the word itself where only that fits (`no` as a string, say)."""
    try:
        value = yaml.safe_load(text)
        _convert(value, annotation)
    except (yaml.YAMLError, TypeError):
        return text
    return text if isinstance(value, str) else value


def _checked(value: Any, annotation: Any, key: str, source: str) -> Any:
    try:
        return _convert(value, annotation)
    except TypeError:
        message = f"{source}: {key} must be {_describe(annotation)}, found {_found(value)}"
        quote = "; quote it to make it a string" if "str" in _describe(annotation).split() else ""
        raise ValueError(message + quote) from None


def _convert(value: Any, annotation: Any) -> Any:
    """`value` as `annotation` wants it; TypeError where it does not fit."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any or (isinstance(annotation, type) and type(value) is annotation):
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is Literal and any(value == choice and type(value) is type(choice) for choice in arguments):
        return value
    if origin is list and isinstance(value, list):
        return [_convert(item, arguments[0]) for item in value]
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _convert_record(value, annotation)
    if origin is tuple and isinstance(value, (list, tuple)):
        members = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(members) == len(value):
            return tuple(_convert(item, member) for item, member in zip(value, members, strict=True))
    if origin is dict and isinstance(value, dict):
        return {_convert(name, arguments[0]): _convert(item, arguments[1]) for name, item in value.items()}
    if annotation is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        return _to_float(value)
    raise TypeError


def _convert_record(value: Any, annotation: type) -> Any:
    """A dataclass without sections, as an item of a list, from a mapping."""
    hints = get_type_hints(annotation)
    if not isinstance(value, dict) or not value.keys() <= {field.name for field in _init_fields(annotation)}:
        raise TypeError
    return annotation(**{name: _convert(item, hints[name]) for name, item in value.items()})


def _convert_union(value: Any, members: tuple[Any, ...]) -> Any:
    if type(value) in members:
        return value
    for member in members:
        try:
            return _convert(value, member)
        except TypeError:
            continue
    raise TypeError


def _to_float(value: int | str) -> float:
    try:
        return float(value)  # YAML 1.1 reads 1e-4, without a dot, as a string
    except ValueError:
        raise TypeError from None


def _describe(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is types.NoneType:
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(member) for member in arguments)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin in (list, tuple):
        return "a list of " + ", ".join(_describe(member) for member in arguments if member is not ...)
    if is_dataclass(annotation):
        return f"mappings of {', '.join(field.name for field in _init_fields(annotation))}"
    return "a mapping" if dict in (origin, annotation) else getattr(annotation, "__name__", str(annotation))


def _found(value: Any) -> str:
    return "null" if value is None else f"{value!r} ({type(value).__name__})"


def _help(settings: Mapping[str, _Setting], description: str) -> str:
    lines = [
        description,
        "",
        "Arguments: [CONFIG] [--section.field VALUE ...]",
        f"CONFIG is a YAML file or a packaged preset ({', '.join(presets()) or 'none'}); options win over it",
    ]
    open_section = None
    for key, setting in settings.items():
        section = key.rpartition(".")[0]
        if section != open_section:
            lines += ["", f"{section or 'general'}:"]
            open_section = section
        if setting.default is not _ABSENT:
            lines += [f"  --{key}: {_describe(setting.annotation)}, {_default_text(setting.default)}"]
            lines += [f"      {setting.help}"] if setting.help else []
        elif (rest := f"  --{section}.FIELD: {setting.help}") not in lines:
            lines += [rest]
    return "\n".join(lines)


def _default_text(default: Any) -> str:
    if default is MISSING:
        return "required"
    return "default " + ("null" if default is None else str(default))
