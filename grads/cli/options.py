"""The command line's options, made of the settings: their names, types, help and defaults."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from grads.api import ConfigError, OneOf, Settings, flag_of, read_yaml

RunDir = Annotated[str, typer.Option("--run-dir", help="The run's directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file with settings by these names; options win over it."),
]
Root = Annotated[
    str | None,
    typer.Option("--runs-dir", help="Where runs live [default: GRADS_RUNS_DIR, else ./runs]."),
]


def with_settings(settings: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, beside its own options, --config and one option for each setting.

    The command is called with `given`: the settings of the YAML file, overruled by the options
    that were typed.
    """
    own = inspect.get_annotations(settings)  # what makes these settings special comes first
    order = sorted(settings.model_fields, key=lambda name: name not in own)
    fields = {
        name: field
        for name, field in ((name, settings.model_fields[name]) for name in order)
        if len(_choices(field)) != 1  # one choice is no choice: it marks the kind of settings
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        mine = [p for p in inspect.signature(command).parameters.values() if p.name != "given"]

        def called(**values: Any) -> None:
            typed = {name: values.pop(name) for name in fields}
            given = _settings_of(values.pop("config_file"), typed)
            command(**values, given=given)

        options = [("config_file", ConfigFile), *((n, _option(n, f)) for n, f in fields.items())]
        made = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in options
        ]
        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in mine]
        named = {parameter.name: parameter for parameter in [*keyword, *made]}
        called.__signature__ = inspect.Signature(list(named.values()))  # type: ignore[attr-defined]
        called.__annotations__ = {name: p.annotation for name, p in named.items()}
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        return called

    return decorate


def _settings_of(path: Path | None, typed: dict[str, Any]) -> dict[str, Any]:
    values = read_yaml(path) if path else {}
    return values | {name: value for name, value in typed.items() if value not in (None, [])}


def _option(name: str, field: FieldInfo) -> Any:
    """A field as typer takes an option: its type, names, help with choices and default."""
    kind = _plain(field.annotation)
    flag = flag_of(name, field)
    if kind is bool and field.default is None:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    # No markup: what stands in brackets is text.
    return Annotated[kind | None, typer.Option(flag, help=_help(field), show_default=False)]


def _plain(annotation: Any) -> Any:
    """The type of what is typed: text, a number, a switch, or a list of texts or numbers."""
    if get_origin(annotation) in (Union, UnionType):
        kinds = [_plain(one) for one in get_args(annotation) if one is not type(None)]
        return kinds[0] if len(kinds) == 1 else str
    if get_origin(annotation) is tuple:
        return list[int] if get_args(annotation)[0] is int else list[str]
    if get_origin(annotation) is dict:
        return list[str]
    return annotation if annotation in (int, float, bool) else str


def _choices(field: FieldInfo) -> tuple[str, ...]:
    """The values that a field can take, where they have names."""
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    with suppress(ConfigError):  # an installed package's is broken: what needs it will say so
        return next((tuple(m.names()) for m in field.metadata if isinstance(m, OneOf)), ())
    return ()


def _help(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    choices, default = _choices(field), field.default
    if choices:
        text += f" One of {', '.join(choices)}."
    if default is None or default is False or default in ((), PydanticUndefined):
        return text
    shown = " ".join(default) if isinstance(default, tuple) else default
    return f"{text} [default: {shown}]"
