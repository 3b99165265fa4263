"""The command line's options, made of the settings: their help, choices and defaults."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from grads.config import run


def option(settings: type[run.Settings], name: str, *flags: str) -> Any:
    """An option whose help, choices and default are the setting's own."""
    field = settings.model_fields[name]
    text = " ".join((field.description or "").split())
    if get_origin(field.annotation) is Literal:
        text += f" One of {', '.join(get_args(field.annotation))}."
    default = field.default
    if not (field.is_required() or default is None or default is False or default in ((), {})):
        shown = " ".join(default) if isinstance(default, tuple) else default
        text += f" [default: {shown}]"
    return typer.Option(*(flags or (f"--{name.replace('_', '-')}",)), help=text, show_default=False)


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


def settings_of(path: Path | None, **given: Any) -> dict[str, Any]:
    """Settings of the YAML file, overruled by the options that were given."""
    values = run.read_yaml(path) if path else {}
    return values | {name: value for name, value in given.items() if value not in (None, [])}
