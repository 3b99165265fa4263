"""Files, folders and hub data sets: which they are, and their rows, at once or as a stream."""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from grads.config.base import is_path
from grads.config.run import RunConfig
from grads.data import tables
from grads.data.blocks import Source
from grads.data.csv_rows import read_csv
from grads.data.json_rows import read_json
from grads.data.places import data_files, relative_names
from grads.data.reading import KINDS, DataFile, digest, suffix_of
from grads.data.rows import Part
from grads.data.stream import Stream
from grads.errors import DataError


def read_source(config: RunConfig) -> Source:
    """Read a data set at once, at most `limit` rows, and of these the `subsample` that is drawn.

    Raises DataError with the place.
    """
    return open_source(config).whole()


def open_source(config: RunConfig) -> Stream:
    """A data set that is read as its blocks are asked for; raises as `read_source` does."""
    path = Path(config.dataset).expanduser()
    if is_path(config.dataset) and not (path.is_dir() and tables.is_saved(path)):
        return _of_files(path, data_files(config.dataset, config.split), config)
    if is_path(config.dataset):
        name, loaded = path.name, tables.saved(path, config)
    elif path.exists():  # datasets would take it; stored paths are absolute
        raise DataError(
            f"the data set '{config.dataset}' is a hub id, but {Path.cwd()} holds something of"
            " that name: work from another folder, or give its absolute path"
        )
    else:
        name, loaded = config.dataset, tables.on_hub(config)
    read = partial(tables.from_dataset, loaded, name)
    return Stream(name, {"": read}, lambda: str(loaded._fingerprint), config)


def _of_files(path: Path, files: list[Path], config: RunConfig) -> Stream:
    """Files one after the other; those behind the limit count in the digest alone."""
    names = relative_names(files)

    def digest_of() -> str:
        if len(files) == 1:
            return digest(files[0])
        named = json.dumps([(name, digest(file)) for name, file in zip(names, files, strict=True)])
        return hashlib.sha256(named.encode()).hexdigest()

    name = files[0].name if len(files) == 1 else f"{path.name} ({len(files)} files)"
    readers = {name: partial(_read, file) for name, file in zip(names, files, strict=True)}
    return Stream(name, readers, digest_of, config)


def _read(file: Path, limit: int | None) -> Iterator[Part]:
    data, suffix = DataFile.of(file), suffix_of(file)
    if suffix == ".parquet":
        return tables.from_parquet(data, limit)
    if KINDS[suffix] in ("CSV", "TSV"):
        return read_csv(data, limit, "\t" if suffix == ".tsv" else None)
    return read_json(data, limit)
