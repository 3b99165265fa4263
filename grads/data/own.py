"""The columns of a source that no role plays: what each holds, over all blocks of rows."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Rows = list[dict[str, Any]]
TEXT = pa.large_string()  # the plain kind cuts what exceeds 2 GiB into chunks
TOLD = (str, bool, list, dict)  # kinds of values that somebody may have meant to be learned


@dataclass
class _Column:
    """What one column holds, as far as it was seen."""

    told: bool = False  # whether it holds text, labels or lists
    nested: bool = False
    witnesses: dict[Any, Any] = field(default_factory=dict)  # values that decide the type

    def see(self, values: list[Any]) -> None:
        kinds = set(map(type, values))
        self.told |= any(issubclass(kind, TOLD) for kind in kinds)
        self.nested |= any(issubclass(kind, list | dict) for kind in kinds)
        if self.nested:
            return
        numbers = [value for value in values if type(value) is int]
        for bound in (min, max) if numbers else ():
            known = self.witnesses.get((int, bound))
            self.witnesses[int, bound] = bound([*numbers, *([] if known is None else [known])])
        for kind in kinds & {float, str, bool, bytes}:
            self.witnesses.setdefault(kind, next(v for v in values if type(v) is kind))
        for value in values:
            if type(value) not in (int, float, str, bool, bytes, type(None)):
                self.witnesses.setdefault((type(value), str(pa.infer_type([value]))), value)

    def kind(self) -> pa.DataType | None:
        """The type that fits all values; None where they are of mixed kinds."""
        values = list(self.witnesses.values())
        kinds = set(map(type, values))
        if len(kinds) > 1 and not kinds <= {int, float}:
            return None  # Arrow takes some of these mixtures, if in one order alone
        try:
            found = pa.infer_type(values)
            pa.array(values, found)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return None
        return {pa.string(): TEXT, pa.binary(): pa.large_binary()}.get(found, found)


@dataclass
class _Texts(_Column):
    """What a column of texts holds: whole numbers or floats, where all that are not empty are."""

    filled: bool = False
    numbers: dict[pa.DataType, None] = field(  # the kinds that all are, the first one wins
        default_factory=lambda: dict.fromkeys((pa.int64(), pa.float64()))
    )

    def see(self, values: list[Any]) -> None:
        self.told |= any(value is not None for value in values)
        texts = _filled(values)
        self.filled |= texts.null_count < len(texts)
        for kind in list(self.numbers):
            try:
                texts.cast(kind)
            except pa.ArrowInvalid:
                del self.numbers[kind]

    def kind(self) -> pa.DataType:
        return next(iter(self.numbers), TEXT) if self.filled else TEXT


class OwnColumns:
    """The other columns of rows that are seen block by block, and then made arrays of."""

    def __init__(self, roles: dict[str, str], texts_only: bool) -> None:
        """`texts_only`: the source holds text alone, so what reads as numbers counts as such."""
        self._played, self._texts_only = set(roles.values()), texts_only
        self._columns: dict[str, _Column] = {}

    def see(self, rows: Rows) -> None:
        """Take note of what a block holds."""
        for name in dict.fromkeys(key for row in rows for key in row if key not in self._played):
            column = self._columns.setdefault(name, _Texts() if self._texts_only else _Column())
            column.see([row.get(name) for row in rows])

    @property
    def unused(self) -> list[str]:
        """Columns of text, lists or labels, which nothing has a use for."""
        return [name for name, column in self._columns.items() if column.told]

    @property
    def kinds(self) -> dict[str, pa.DataType | None]:
        """The types of those that hold single values; None for values of mixed kinds."""
        return {name: c.kind() for name, c in self._columns.items() if not c.nested}

    def array(self, rows: Rows) -> pa.StructArray | None:
        """(n,) a struct of those that hold single values; None where there is none of these."""
        found = {
            name: self._values([row.get(name) for row in rows], kind)
            for name, kind in self.kinds.items()
        }
        if not found:
            return None
        return pa.StructArray.from_arrays(list(found.values()), names=list(found))

    def _values(self, values: list[Any], kind: pa.DataType | None) -> pa.Array:
        if self._texts_only and kind != TEXT:
            return _filled(values).cast(kind)
        if kind is None:
            return pa.array([None if v is None else str(v) for v in values], TEXT)
        return pa.array(values, kind)


def _filled(texts: list[str | None]) -> pa.Array:
    """Texts without the space around them, the empty ones missing."""
    trimmed = pc.utf8_trim_whitespace(pa.array(texts, TEXT))
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)
