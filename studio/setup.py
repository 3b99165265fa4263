"""The settings of a new run as widgets; what is set travels in the URL from Data to Run."""

import json
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
    "max_length": "Longest, in tokens",
    "limit": "Read only the first rows",
    "subsample": "Take only rows drawn at random",
    "heldout": "Set aside for the evaluation, in examples",
    "layout": "How rows are read",
    "split": "Split of the data set",
    "dataset_config": "Configuration of the hub data set",
    "revision": "Revision of the hub data set",
}
GIVEN = "given"  # query parameter: settings that one page hands to another, as JSON
ROWS = ("limit", "subsample", "subsample_seed", "heldout")  # which are read, and how many set aside
OF_A_HUB = ("split", "dataset_config", "revision")
WARMUPS = {
    "lora": "LoRA: small added weights",
    "full": "Full: all weights",
    "none": "None: the model as it is",
}
ADVANCED = (
    "layout limit subsample subsample_seed heldout split dataset_config revision epochs lr"
    " warmup_fraction lora_rank batch_size batch_tokens dtype device quantize attention"
    " gradient_checkpointing clusters seed token_signals warmup_from"
).split()


def text(name: str, place: Any = st, **more: Any) -> str:
    """A text field bound to the URL."""
    value = place.text_input(
        LABELS.get(name, name), key=name, bind="query-params", help=_help(name), **more
    )
    return str(value or "").strip()


def _help(name: str) -> str:
    return " ".join((FIELDS[name].description or "").split())


def _is_choice(name: str) -> bool:
    """Whether it is one of a few words; its widget keeps the choice in the address itself."""
    return get_origin(FIELDS[name].annotation) is Literal


def widget(name: str, place: Any = st) -> Any:
    """The field's widget by its type, with its help and default; None where it is left empty."""
    field = FIELDS[name]
    label = LABELS.get(name, name.replace("_", " "))
    shared = {"key": name, "bind": "query-params", "help": _help(name)}
    kinds = [field.annotation, *get_args(field.annotation)]
    if _is_choice(name):
        choices = list(get_args(field.annotation))
        return url.choose(
            place.selectbox,
            label,
            choices,
            name,
            default=field.default,
            format_func=lambda c: WARMUPS.get(c, c) if name == "warmup" else c,
            help=_help(name),
        )
    if bool in kinds:
        answers: dict[str, bool | None] = {"no": False, "yes": True}
        if field.default is None:
            answers = {"by size": None, "yes": True, "no": False}
        return answers[place.selectbox(label, list(answers), **shared)]
    if float in kinds:
        value = place.text_input(
            label, str(field.default or ""), placeholder="chosen by itself", **shared
        )
        return value.strip() or None
    if int in kinds or name == "heldout":
        value = field.default if isinstance(field.default, int) else None
        empty = "a tenth" if name == "heldout" else "none"
        return place.number_input(
            label, min_value=0, value=value, step=1, placeholder=empty, **shared
        )
    return place.text_input(label, field.default or "", **shared).strip() or None


def mapping(columns: list[str]) -> dict[str, str]:
    """Which column plays which role, where the layout is not to be recognised by itself."""
    places = st.columns(len(words.ROLES))
    chosen = {}
    for (role, label), place in zip(words.ROLES.items(), places, strict=True):
        column = place.selectbox(
            label,
            columns,
            index=None,
            key=f"map_{role}",
            bind="query-params",
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
    found = {role: st.query_params.get(f"map_{role}") for role in words.ROLES}
    return {role: column for role, column in found.items() if column}


def first_look(place: str) -> RunConfig | None:
    """As much of the settings as tells whether the columns are understood; None where the mapping
    is but half made."""
    layout = st.query_params.get("layout", "auto")
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
    """Query parameters that bring the settings to the page Run.

    Under a name of their own: what widgets of one page are bound to, Streamlit takes out of the
    address on the way to another.
    """
    return {GIVEN: json.dumps(as_link(settings)), "view": "New run"}


def take_over() -> None:
    """Put settings that were handed over where the widgets of this page look for them."""
    try:
        given = json.loads(st.query_params.get(GIVEN, "{}"))
    except ValueError:
        given = {}
    st.query_params.pop(GIVEN, None)
    for name, value in given.items() if isinstance(given, dict) else ():
        if name.startswith("map_") or (name in FIELDS and _is_choice(name)):
            st.query_params[name] = str(value)
        elif name in FIELDS:
            number = int in (FIELDS[name].annotation, *get_args(FIELDS[name].annotation))
            st.session_state[name] = int(value) if number and str(value).isdecimal() else value


def as_link(settings: RunConfig) -> dict[str, str]:
    """Query parameters that carry the settings that differ from their defaults."""
    params = {f"map_{role}": column for role, column in settings.columns.items()}
    for name in ("dataset", "layout", "model", "max_length", *ROWS, *OF_A_HUB):
        value = getattr(settings, name)
        if value not in (None, FIELDS[name].default):
            params[name] = str(value)
    return params
