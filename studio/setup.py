"""The settings of a new run as widgets; what is set travels in the URL from Data to Run."""

from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

import streamlit as st

from grads import api
from grads.api import ConfigError, RunConfig
from studio import url, words

FIELDS = RunConfig.model_fields
LABELS = {
    "dataset": "Data: file, folder or hub id",
    "model": "Model",
    "warmup": "Warm-up",
    "when": "When gradients are taken",
    "max_length": "Longest, in tokens",
    "limit": "Read only the first rows",
    "subsample": "Take only rows drawn at random",
    "heldout": "Set aside for the evaluation, in examples",
    "layout": "How rows are read",
    "split": "Split of the data set",
    "dataset_config": "Configuration of the hub data set",
    "revision": "Revision of the hub data set",
}
# Which rows are read, and how many are set aside.
ROWS = ("limit", "subsample", "subsample_seed", "heldout")
OF_A_HUB = ("split", "dataset_config", "revision")
CHOICES = {
    "warmup": {
        "lora": "LoRA: small added weights",
        "full": "Full: all weights",
        "none": "None: the model as it is",
    },
    "when": {
        "after": "After the warm-up, in a pass of their own",
        "during": "During the warm-up: saves that pass",
    },
}
ADVANCED = (
    "layout limit subsample subsample_seed heldout split dataset_config revision epochs lr"
    " warmup_fraction when lora_rank batch_size batch_tokens dtype device processes shard quantize"
    " attention"
    " gradient_checkpointing clusters seed token_signals warmup_from"
).split()


def text(name: str, place: Any = st, default: str = "", **more: Any) -> str:
    """A text field whose value stands in the address."""
    label = LABELS.get(name, name.replace("_", " "))
    return url.text(place.text_input, label, name, default, help=_help(name), **more).strip()


def _help(name: str) -> str:
    return " ".join((FIELDS[name].description or "").split())


def widget(name: str, place: Any = st) -> Any:
    """The field's widget by its type, with its help and default; None where it is left empty."""
    field, help_text = FIELDS[name], _help(name)
    label = LABELS.get(name, name.replace("_", " "))
    kinds = [field.annotation, *get_args(field.annotation)]
    if get_origin(field.annotation) is Literal:
        return url.choose(
            place.selectbox,
            label,
            list(get_args(field.annotation)),
            name,
            default=field.default,
            format_func=lambda c: CHOICES.get(name, {}).get(c, c),
            help=help_text,
        )
    if bool in kinds:
        answers: dict[str, bool | None] = {"no": False, "yes": True}
        if field.default is None:
            answers = {"by size": None, "yes": True, "no": False}
        return answers[url.choose(place.selectbox, label, list(answers), name, help=help_text)]
    if float in kinds:
        written = url.text(
            place.text_input,
            label,
            name,
            str(field.default or ""),
            placeholder="chosen by itself",
            help=help_text,
        )
        return written.strip() or None
    if int in kinds or name in ("heldout", "batch_tokens"):
        return url.whole_number(
            place.number_input,
            label,
            field.default if isinstance(field.default, int) else None,
            key=name,
            placeholder="a tenth" if name == "heldout" else "none",
            help=help_text,
        )
    return text(name, place, field.default or "") or None


def mapping(columns: list[str]) -> dict[str, str]:
    """Which column plays which role, where the layout is not to be recognised by itself."""
    places = st.columns(len(words.ROLES))
    chosen = {}
    for (role, label), place in zip(words.ROLES.items(), places, strict=True):
        column = url.choose(
            place.selectbox,
            label,
            columns,
            f"map_{role}",
            index=None,
            placeholder="recognised",
            accept_new_options=True,
            help="Choose the dialogue column alone, or both question and answer; of a hub data set"
            " type their names.",
        )
        if column:
            chosen[role] = column
    return chosen


def stored_mapping() -> dict[str, str]:
    """The mapping that came along in the URL."""
    found = {role: url.get(f"map_{role}") for role in words.ROLES}
    return {role: column for role, column in found.items() if column}


def first_look(place: str) -> RunConfig | None:
    """As much of the settings as tells whether the columns are understood; None where the mapping
    is but half made."""
    layout = url.get("layout", "auto")
    with suppress(ConfigError):
        return RunConfig.parse({"dataset": place, "columns": stored_mapping(), "layout": layout})
    return None


def config(**values: Any) -> RunConfig:
    """Validated settings; a path outside the allowed folders is refused."""
    values["dataset"] = api.data_place(values["dataset"])
    values["model"] = api.model_place(values["model"])
    if values.get("warmup_from"):
        values["warmup_from"] = api.model_place(values["warmup_from"])
    return RunConfig.parse({k: v for k, v in values.items() if v not in (None, "", {}, [])})


def handed_over(settings: RunConfig) -> dict[str, str]:
    """Query parameters that bring the settings that differ from their defaults to the page Run."""
    params = {f"map_{role}": column for role, column in settings.columns.items()}
    for name in ("dataset", "layout", "model", "max_length", *ROWS, *OF_A_HUB):
        value = getattr(settings, name)
        if value not in (None, FIELDS[name].default):
            params[name] = str(value)
    return params | {"view": "New run"}
