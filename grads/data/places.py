"""Which files a path, a folder or a glob names as one data set."""

import os
import re
from collections import Counter
from pathlib import Path

from grads.config.base import is_glob, members
from grads.data.reading import KINDS, PACKED, suffix_of
from grads.errors import DataError

# Files that describe others, as hubs, trainers and our exports put them beside the data.
ABOUT = {
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
    "manifest.json",
}
SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<total>\d{5})(-\w+)?")
SPLIT = re.compile(r"(train|test|validation|valid|val|dev|eval|heldout)(?![A-Za-z])")


def data_files(place: str, split: str | None) -> list[Path]:
    """The files of one kind that make up a data set, in order.

    Of a folder whose files are named by splits, those of one. Raises DataError with what there is.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir() and not is_glob(place):
        raise DataError(f"no file at {path}: check the path")
    there = members(place)
    found = [file for file in there if suffix_of(file) in KINDS and file.name not in ABOUT]
    found = [file for file in found if not file.name.startswith((".", "_"))]
    if path.is_dir():
        found = [file for file in found if file.parent == path] or found
    if not found:
        raise DataError(_nothing(path, there))
    _refuse_mixtures(path, found)
    if path.is_dir() or split:
        found = _of_split(path, found, split)
    return found


def choose(name: str, splits: list[str], split: str | None) -> str:
    """The wanted split; else train, or the only one. Raises DataError that names those there."""
    wanted = split or ("train" if "train" in splits else None)
    if wanted is None and len(splits) == 1:
        return splits[0]
    if wanted not in splits:
        what = f"no split '{wanted}'" if wanted else "several splits"
        raise DataError(f"{name} has {what}: choose one of {', '.join(splits)} with --split")
    return wanted


def relative_names(files: list[Path]) -> list[str]:
    """The files' names below the deepest folder that holds them all."""
    base = os.path.commonpath([file.parent for file in files])
    return [file.relative_to(base).as_posix() for file in files]


def _nothing(path: Path, there: list[Path]) -> str:
    kinds = ", ".join(KINDS)
    if not path.is_dir() and not there:
        return f"no file matches {path}: check the pattern"
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    names = names or [file.name for file in there]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"{path} holds {shown or 'nothing'}: give a folder of data files ({kinds}, also .gz or"
        " .zst), one of them, or a save_to_disk folder"
    )


def _refuse_mixtures(path: Path, files: list[Path]) -> None:
    kinds = Counter(KINDS[suffix_of(file)] for file in files)
    if len(kinds) > 1:
        found = ", ".join(f"{count} of {kind}" for kind, count in kinds.items())
        example = path / f"*{''.join(files[0].suffixes[-1:])}" if path.is_dir() else files[0]
        raise DataError(
            f"{path} holds files of several kinds ({found}): give those of one, as {example}"
        )
    for name, count in Counter(_plain(file) for file in files).items():
        if count > 1:
            raise DataError(f"{name} is there packed and unpacked: remove one, or give one of them")


def _plain(file: Path) -> str:
    """The path without the suffix of its packing."""
    return str(file.with_suffix("") if file.suffix.lower() in PACKED else file)


def _of_split(path: Path, files: list[Path], split: str | None) -> list[Path]:
    """The files of the wanted split, where their names tell splits; else all."""
    stems = {file: Path(_plain(file)).stem for file in files}
    shards = {file: SHARD.fullmatch(stem) for file, stem in stems.items()}
    if not any(shards[file] or SPLIT.match(stems[file]) for file in files):
        if split:
            names = ", ".join(file.name for file in files[:5])
            raise DataError(f"{path} has files of no split ({names}): leave --split out")
        return files
    splits: dict[str, list[Path]] = {}
    for file, stem in stems.items():
        shard, named = shards[file], SPLIT.match(stem)
        splits.setdefault(shard["split"] if shard else named[0] if named else stem, []).append(file)
    wanted = choose(path.name, list(splits), split)
    _refuse_missing_shards(path, wanted, [s for f in splits[wanted] if (s := shards[f])])
    return splits[wanted]


def _refuse_missing_shards(path: Path, split: str, shards: list[re.Match[str]]) -> None:
    for total in {int(shard["total"]) for shard in shards}:
        there = {int(shard["number"]) for shard in shards if int(shard["total"]) == total}
        if missing := sorted(set(range(total)) - there):
            raise DataError(
                f"{path} has {len(there)} of the {total} files of '{split}': get number"
                f" {missing[0]:05d}, or give those there by a glob"
            )
