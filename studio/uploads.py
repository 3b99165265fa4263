"""Files that people upload: kept below the runs folder, their place put into a field."""

from typing import Any

import streamlit as st

from grads import api
from grads.api import GradsError
from studio import words
from studio.language import say

KINDS = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "gz", "zst"]


def offer(place: Any, label: str, field: str, several: bool = False, **more: Any) -> None:
    """An upload whose path goes into the text field of this key, drawn later or before.

    Of `several` files, semicolons stand between the paths.
    """
    key, refused, lost = (f"{field}-{what}" for what in ("upload", "refused", "lost"))

    def keep() -> None:
        found = st.session_state[key]
        files: list[Any] = found if isinstance(found, list) else [found] if found else []
        files, st.session_state[refused] = _usable(files)
        st.session_state[lost] = ""
        try:
            paths = [api.save_upload(file.name, file.getvalue()) for file in files]
        except GradsError as error:
            st.session_state[lost] = str(error)
            return
        if paths:
            st.session_state[field] = "; ".join(paths)

    # Of any kind: what is refused here is told in words, and not by an icon alone.
    place.file_uploader(label, key=key, on_change=keep, accept_multiple_files=several, **more)
    if wrong := st.session_state.get(refused):
        place.error(_told(wrong), icon=":material/error:")
    if why := st.session_state.get(lost):
        place.error(words.error(why), icon=":material/error:")


def _usable(files: list[Any]) -> tuple[list[Any], list[str]]:
    """The files that can be data, and the names of the others."""
    wrong = [file.name for file in files if file.name.rsplit(".", 1)[-1].lower() not in KINDS]
    return [file for file in files if file.name not in wrong], wrong


def _told(wrong: list[str]) -> str:
    names = words.literal(", ".join(wrong))
    told = say("{files} cannot be read: give JSONL, JSON, CSV, TSV or Parquet.", files=names)
    if any(name.lower().endswith((".xlsx", ".xls", ".ods")) for name in wrong):
        told += " " + say("A table of Excel is saved as one by “Save as”, “CSV UTF-8”.")
    return told
