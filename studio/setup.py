"""The settings of a new run as widgets; what is set travels in the URL from Data to Run."""

from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

import streamlit as st

from grads import api
from grads.api import ConfigError, RunConfig
from studio import url, words
from studio.language import mark, say

FIELDS = RunConfig.model_fields
LABELS = {
    "dataset": mark("Data: file, folder or hub id"),
    "model": mark("Model"),
    "warmup": mark("Warm-up"),
    "when": mark("When gradients are taken"),
    "max_length": mark("Longest, in tokens"),
    "limit": mark("Read only the first rows"),
    "subsample": mark("Take only rows drawn at random"),
    "heldout": mark("Set aside for the evaluation, in examples"),
    "layout": mark("How rows are read"),
    "split": mark("Split of the data set"),
    "dataset_config": mark("Configuration of the hub data set"),
    "revision": mark("Revision of the hub data set"),
}
# Which rows are read, and how many are set aside.
ROWS = ("limit", "subsample", "subsample_seed", "heldout")
OF_A_HUB = ("split", "dataset_config", "revision")
CHOICES = {
    "warmup": {
        "lora": mark("LoRA: small added weights"),
        "full": mark("Full: all weights"),
        "none": mark("None: the model as it is"),
    },
    "when": {
        "after": mark("After the warm-up, in a pass of their own"),
        "during": mark("During the warm-up: saves that pass"),
    },
    "shard": {
        "none": mark("Nothing: each process holds all"),
        "layers": mark("The layers"),
    },
    "layout": {"auto": mark("auto"), "text": mark("text"), "chosen": mark("chosen")},
}
ADVANCED = (
    "layout limit subsample subsample_seed heldout split dataset_config revision epochs lr"
    " warmup_fraction when lora_rank batch_size batch_tokens dtype device processes shard quantize"
    " attention gradient_checkpointing clusters seed token_signals warmup_from"
).split()
SHOWN = ("dataset", "model", "warmup", "max_length", *ADVANCED)


def text(name: str, place: Any = st, default: str = "", **more: Any) -> str:
    """A text field whose value stands in the address."""
    told = {"label": say(label(name)), "help": say(described(name))}
    return url.text(place.text_input, key=name, default=default, **told, **more).strip()


def label(name: str) -> str:
    """What a setting is called, in English."""
    return LABELS.get(name, name.replace("_", " "))


def described(name: str) -> str:
    """What the engine says of a setting, in English."""
    return " ".join((FIELDS[name].description or "").split())


def widget(name: str, place: Any = st) -> Any:
    """The field's widget by its type, with its help and default; None where it is left empty."""
    field, called, help_text = FIELDS[name], say(label(name)), say(described(name))
    kinds = [field.annotation, *get_args(field.annotation)]
    if get_origin(field.annotation) is Literal:
        return url.choose(
            place.selectbox,
            called,
            list(get_args(field.annotation)),
            name,
            default=field.default,
            format_func=lambda c: say(CHOICES.get(name, {}).get(c) or c),
            help=help_text,
        )
    if bool in kinds:
        answers: dict[str, bool | None] = {mark("no"): False, mark("yes"): True}
        if field.default is None:
            answers = {mark("by size"): None, "yes": True, "no": False}
        more: dict[str, Any] = {"format_func": say, "help": help_text}
        return answers[url.choose(place.selectbox, called, list(answers), name, **more)]
    if float in kinds:
        written = url.text(
            place.text_input,
            called,
            name,
            str(field.default or ""),
            placeholder=say("chosen by itself"),
            help=help_text,
        )
        return written.strip() or None
    if name == "batch_tokens":  # a number, or the word that leaves it to the memory
        return url.choose(
            place.selectbox,
            called,
            [field.default, "auto"],
            name,
            format_func=lambda number: say(str(number)),
            accept_new_options=True,
            help=help_text,
        )
    if int in kinds or name == "heldout":
        return url.whole_number(
            place.number_input,
            called,
            field.default if isinstance(field.default, int) else None,
            key=name,
            placeholder=say("a tenth") if name == "heldout" else say("none"),
            help=help_text,
        )
    return text(name, place, field.default or "") or None


def mapping(columns: list[str]) -> dict[str, str]:
    """Which column plays which role, where the layout is not to be recognised by itself."""
    places = st.columns(len(words.ROLES))
    chosen = {}
    for (role, called), place in zip(words.ROLES.items(), places, strict=True):
        column = url.choose(
            place.selectbox,
            say(called),
            columns,
            f"map_{role}",
            index=None,
            placeholder=say("recognised"),
            accept_new_options=True,
            help=say(
                "Choose the dialogue column alone, or both question and answer; of a hub data set"
                " type their names."
            ),
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
