"""Settings as the command line spells them: the line that repeats what a page shows."""

import shlex
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from grads.config.base import Flag, Settings


def flag_of(name: str, field: FieldInfo) -> str:
    """The option of a field: --max-length, or the name that it is marked with."""
    marked = next((mark.text for mark in field.metadata if isinstance(mark, Flag)), None)
    return marked or f"--{name.replace('_', '-')}"


def command(verb: str, settings: Settings | None = None, **own: str) -> str:
    """`python -m grads VERB` with the command's own options and those that make these settings.

    What is left out is what the command takes by itself.
    """
    words = ["python", "-m", "grads", verb]
    for name, value in own.items():
        words += _given(f"--{name.replace('_', '-')}", value)
    if settings is not None:
        words += _options(settings)
    return shlex.join(words)


def changed(settings: Settings) -> dict[str, Any]:
    """The fields that are not what they are where nobody says anything, and must be said.

    A default can depend on other fields: such a field is said where it differs from what those
    alone would make of it.
    """
    kind = type(settings)
    fields = {
        name: field
        for name, field in kind.model_fields.items()
        if not (get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1)
    }
    values = {name: getattr(settings, name) for name in fields}
    said = {name: value for name, value in values.items() if value != _default(fields[name])}
    alone = kind.parse(said)
    return {n: value for n, value in values.items() if n in said or value != getattr(alone, n)}


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _options(settings: Settings) -> list[str]:
    fields, words = type(settings).model_fields, list[str]()
    for name, value in changed(settings).items():
        flag = flag_of(name, fields[name])
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        elif isinstance(value, dict):
            words += [word for key, one in value.items() for word in _given(flag, f"{key}={one}")]
        else:
            several = value if isinstance(value, tuple) else (value,)
            words += [word for one in several for word in _given(flag, str(one))]
    return words


def _given(flag: str, value: str) -> list[str]:
    """An option and its value; one word where the value could be taken for an option."""
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]
