"""Files read beside a run's own data: by its column mapping where that fits, else recognised."""

from collections.abc import Mapping
from typing import Any

from grads.config.run import RunConfig
from grads.data.blocks import Source
from grads.data.layouts import recognise
from grads.data.prepare import Prepared, prepare
from grads.data.sources import read_source
from grads.errors import DataError


def read_beside(
    config: RunConfig,
    file: str,
    tokenizer: Any,
    *,
    mapping: Mapping[str, str],
    max_length: int,
    limit: int | None = None,
) -> tuple[Source, Prepared]:
    """The rows of another file as the run of this config would take them.

    `mapping` are the run's columns by role. Raises DataError as `prepare` does, and where the
    columns are neither those nor a known layout.
    """
    config = config.for_file(file, limit)
    source = read_source(config)
    if source.rows:  # without any, the reasons why they cannot be read are the better message
        columns = _columns(source, mapping, config.columns)
        config = config.model_copy(update={"columns": columns})
    return source, prepare(source, config, tokenizer, max_length)


def _columns(source: Source, *mappings: Mapping[str, str]) -> dict[str, str]:
    """The first mapping whose columns the source has; none where its layout is a known one."""
    for mapping in mappings:
        if mapping and set(mapping.values()) <= set(source.columns):
            return dict(mapping)
    try:
        recognise(source.columns, {})
    except DataError:
        raise DataError(
            f"the columns of {source.name}, {', '.join(source.columns) or '(none)'}, are neither"
            " those of the run nor a known layout: rename them to question and answer, or to"
            " instruction and output"
        ) from None
    return {}
