"""Files that people upload: kept below the runs folder, their place put into a field."""

from typing import Any

import streamlit as st

from grads import api

KINDS = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "gz", "zst"]


def offer(place: Any, label: str, field: str, several: bool = False, **more: Any) -> None:
    """An upload whose path goes into the text field of this key, drawn later or before.

    Of `several` files, semicolons stand between the paths.
    """
    key = f"{field}-upload"

    def keep() -> None:
        found = st.session_state[key]
        files: list[Any] = found if isinstance(found, list) else [found] if found else []
        paths = [api.save_upload(file.name, file.getvalue()) for file in files]
        if paths:
            st.session_state[field] = "; ".join(paths)

    place.file_uploader(
        label, KINDS, key=key, on_change=keep, accept_multiple_files=several, **more
    )
