"""How a verb is made: one pydantic model is its YAML schema, its flags and its defaults."""

import functools
import inspect
import json
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from neurodeploy.errors import ConfigError
from neurodeploy.files import write_text


class Options(BaseModel):
    """Base of every verb's options. The first field is the positional argument (see ``verb``); the others are flags."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


O = TypeVar("O", bound=Options)  # noqa: E741


def verb(
    options: type[O], *, config_flag: bool = True, arguments: int = 1
) -> Callable[[Callable[[O], dict[str, Any]]], click.Command]:
    """Make a click command of ``function(options) -> result``.

    The command takes ``--config FILE.yaml`` (fields of ``options``) with flags on top. ``result`` is JSON-ready; with
    ``--json`` it is what the command prints, and nothing else goes to standard output. ``config_flag=False`` leaves out
    ``--config``, for a verb whose argument is a YAML file of its own. The first ``arguments`` fields are positional. A
    function that is not called ``command`` becomes a sub-verb of that name.
    """

    def decorate(function: Callable[[O], dict[str, Any]]) -> click.Command:
        @functools.wraps(function)
        def run(json: bool, config: Path | None = None, **flags: Any) -> None:
            given = {name: value for name, value in flags.items() if value not in (None, ())}
            resolved = resolve(options, config, given, arguments)
            from neurodeploy.cli.output import machine_readable

            with machine_readable(json):
                result = function(resolved)
            if json:
                click.echo(_dump(result))

        parameters: list[click.Parameter] = []
        for position, (name, field) in enumerate(options.model_fields.items()):
            parameters.append(_argument(name) if position < arguments else _option(name, field))
        if config_flag:
            text = "YAML file with these options; flags override it."
            parameters.append(click.Option(["--config"], type=click.Path(path_type=Path), help=text))
        parameters.append(click.Option(["--json"], is_flag=True, help="Print the result as JSON on standard output."))
        name = function.__name__
        if name == "command":
            name = function.__module__.rsplit(".", 1)[1].removesuffix("_verb")
        text = inspect.getdoc(function) or ""
        for field_name, field in list(options.model_fields.items())[:arguments]:
            text += f"\n\n{field_name.upper()}: {field.description}"
        return click.Command(name, callback=run, params=parameters, help=text)

    return decorate


def resolve(options: type[O], config: Path | None, flags: dict[str, Any], arguments: int = 1) -> O:
    """Merge a YAML file and flags and check them; the first ``arguments`` fields are positional.

    Raises:
        ConfigError: the file is missing or not a YAML mapping, or a field is unknown, missing or has a wrong value; the
            message holds the field's path.
    """
    given = read_yaml(config) if config else {}
    try:
        return options.model_validate({**given, **flags})
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"]) or "(top level)"
        name = str(first["loc"][0]) if first["loc"] else ""
        wrong = "is missing" if first["type"] == "missing" else f"{first['msg']} (found: {first['input']!r})"
        if config and name not in flags:
            source = f"{config}: {path}"
            remedy = f"the fields are: {', '.join(options.model_fields)}; see --help."
        else:
            positional = name in list(options.model_fields)[:arguments]
            source = name.upper() if positional else f"--{name.replace('_', '-')}"
            remedy = "see --help."
        raise ConfigError(f"{source}: {wrong}.", remedy=remedy, code="config") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: cannot be read as YAML: {error}.", remedy="check the path and the syntax.", code="config-file"
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: holds {type(value).__name__}, expected a mapping of options.",
            remedy="write lines of the form 'field: value'.",
            code="config-file",
        )
    return value


def write_resolved(options: Options, path: Path) -> None:
    """Write the options as they were used, as a YAML file that ``--config`` reads back."""
    write_text(path, yaml.safe_dump(json.loads(options.model_dump_json(exclude_none=True)), sort_keys=False))


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False)


def _argument(name: str) -> click.Argument:
    # Not required here: a YAML file may give it, and the model says so when nothing does.
    return click.Argument([name], required=False)


def _option(name: str, field: FieldInfo) -> click.Option:
    kind, multiple = _click_type(field.annotation)
    flag = "--" + name.replace("_", "-")
    extra = field.json_schema_extra
    short = extra.get("short") if isinstance(extra, dict) else None
    names = [name, flag, *([str(short)] if short else [])]
    value = field.default
    shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
    default = "" if field.is_required() or value in (None, (), False) else f"  [default: {shown}]"
    text = f"{field.description}{default}"
    if kind is bool:
        return click.Option(names, is_flag=True, default=None, help=text)
    return click.Option(names, type=kind, multiple=multiple, default=None, help=text)


def _click_type(annotation: Any) -> tuple[Any, bool]:
    """The click type of a field, and whether the flag may be repeated. pydantic does the checking."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        return _click_type(members[0]) if len(members) == 1 else (str, False)
    if origin is tuple:
        return _click_type(typing.get_args(annotation)[0])[0], True
    if origin is Literal:
        return click.Choice([str(choice) for choice in typing.get_args(annotation)]), False
    return (annotation if annotation in (bool, int, float) else str), False
