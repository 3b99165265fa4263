"""The bytes of a data file: unpacked, told apart from what is no text, and as UTF-8."""

import codecs
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa

from grads.errors import DataError

KINDS = {  # by suffix
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
}
PACKED = {".gz": ("gzip", b"\x1f\x8b"), ".zst": ("zstd", b"\x28\xb5\x2f\xfd")}
ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as `text_of` keeps them

# First bytes (a regular expression) -> what a file looks like, and what to do.
LOOKS: tuple[tuple[bytes, str, str], ...] = (
    (rb"PAR1\x15", "a Parquet file", "name it .parquet"),
    (rb"\x1f\x8b", "packed with gzip", "name it .gz behind its other suffix, as in data.jsonl.gz"),
    (rb"\x28\xb5\x2f\xfd", "packed with zstd", "name it .zst, as in data.jsonl.zst"),
    (rb"PK\x03\x04.*xl/", "an Excel workbook", "save it as CSV (UTF-8)"),
    (rb"PK\x03\x04", "a zip archive", "unpack it, and give the file or folder inside"),
    (rb".{257}ustar", "a tar archive", "unpack it, and give the file or folder inside"),
    (rb"BZh[1-9]1AY&SY", "packed with bzip2", "unpack it, or pack it with gzip"),
    (rb"\xfd7zXZ\x00", "packed with xz", "unpack it, or pack it with gzip"),
    (rb"7z\xbc\xaf", "a 7-Zip archive", "unpack it, and give the file or folder inside"),
    (
        rb"ARROW1\x00|FEA1\x00|\xff\xff\xff\xff",
        "an Arrow or Feather file",
        "save its table as Parquet, or give the save_to_disk folder around it",
    ),
    (
        rb"\x80[\x02-\x05]",
        "a pickle, which can run code and is never opened",
        "save what it holds as JSONL or Parquet, where you trust it",
    ),
    (rb"\x89HDF", "an HDF5 file", "save its table as CSV or Parquet"),
    (rb"SQLite format 3\x00", "an SQLite database", "save its table as CSV"),
    (rb"\xd0\xcf\x11\xe0", "an Excel file of the old kind (.xls)", "save it as CSV (UTF-8)"),
    (rb"%PDF-", "a PDF", "give the data that it was made from"),
    (rb"(?i)\s*<(!doctype html|html)", "a web page", "download the file itself, not its page"),
    (
        rb"version https://git-lfs",
        "a Git LFS pointer, which stands for the file",
        "fetch the file itself with: git lfs pull",
    ),
    (rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff", "UTF-32 text", "save it as UTF-8"),
    (
        rb"[\w{\[\"]\x00[^\x00]\x00|\x00[\w{\[\"]\x00[^\x00]",
        "UTF-16 text without its byte order mark",
        "save it as UTF-8",
    ),
)
CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))  # rare in text, common in all else
HEAD = 4096  # bytes that tell what a file is
MOST_UNPACKED, MOST_TIMES = 2**28, 200  # bytes that any file may unpack to, and times its size


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, without that of the packing: .jsonl of d.jsonl.gz."""
    name = Path(path.stem) if path.suffix.lower() in PACKED else path
    return name.suffix.lower()


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes; raises DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


@dataclass(frozen=True)
class DataFile:
    """A data file that is read from its beginning as often as it is opened."""

    path: Path
    utf16: bool = False

    @classmethod
    def of(cls, path: Path) -> Self:
        """The file at a path; raises DataError, with what to do, if it is not what its name says.

        So does reading one that is damaged within its packing, where the damage is come to.
        """
        try:
            head = cls(path).head(HEAD)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        suffix, looks = suffix_of(path), looks_like(head)
        if suffix == ".parquet" and (not looks or head.startswith(b"PAR1")):
            return cls(path)
        if suffix in KINDS and _is_utf16(head):
            return cls(path, utf16=True)
        if looks:
            raise DataError(f"{path.name} is {looks[0]}: {looks[1]}")
        if suffix not in KINDS:
            raise DataError(
                f"{path.name} has an unknown format '{suffix}': use {', '.join(KINDS)} (also .gz"
                " or .zst of them, as data.jsonl.gz), a folder of such files, a save_to_disk folder"
                " or a hub id"
            )
        return cls(path)

    @property
    def packed(self) -> bool:
        """Whether what is read is not what lies on the disk."""
        return self.path.suffix.lower() in PACKED

    def open(self) -> BinaryIO:
        """Its bytes, unpacked, and text as UTF-8; text in UTF-16 is read whole for that."""
        file = io.BufferedReader(_Unpacked(self.path)) if self.packed else self.path.open("rb")
        if not self.utf16:
            return file
        with file:
            return io.BytesIO(_from_utf16(file.read()))

    def head(self, size: int) -> bytes:
        """Its first bytes, unpacked."""
        with self.open() as file:
            return file.read(size)

    def read(self) -> bytes:
        """All of its bytes, unpacked."""
        with self.open() as file:
            return file.read()


def looks_like(data: bytes) -> tuple[str, str] | None:
    """What bytes that are no text seem to be, and what to do; None for text."""
    head = data[:HEAD]
    for pattern, what, advice in LOOKS:
        if re.match(pattern, head, re.DOTALL):
            return what, advice
    if len(head.translate(None, CONTROLS)) < 0.95 * len(head):
        return f"binary (it begins with {head[:4].hex(' ')})", "give it as text or as Parquet"
    return None


class _Unpacked(io.RawIOBase):
    """What a packed file holds, as it comes."""

    def __init__(self, path: Path) -> None:
        packing, magic = PACKED[path.suffix.lower()]
        with path.open("rb") as file:
            head = file.read(HEAD)
        if not head.startswith(magic):
            what, advice = looks_like(head) or ("plain text", f"name it {path.stem}")
            if not head:
                what, advice = "empty", "download or pack it again"
            raise DataError(
                f"{path.name} is named as packed with {packing} but is {what}: {advice}"
            )
        self._name, self._left = path.name, max(MOST_UNPACKED, MOST_TIMES * path.stat().st_size)
        self._file = pa.CompressedInputStream(pa.PythonFile(path.open("rb")), packing)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except OSError as error:
            reason = str(error).splitlines()[0]
            what = "is cut short" if "Truncated" in reason else f"is damaged ({reason})"
            raise DataError(f"{self._name} {what}: download or pack it again") from None
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"{self._name} unpacks to more than {MOST_TIMES} times its size, as no data do:"
                " give it unpacked, where you trust it"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _is_utf16(data: bytes) -> bool:
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return marked and not data.startswith(codecs.BOM_UTF32_LE)


def _from_utf16(data: bytes) -> bytes:
    """Text with a UTF-16 mark as UTF-8; what is no character stays no UTF-8, for its line."""
    whole = len(data) // 2 * 2
    text = data[:whole].decode("utf-16", "surrogatepass")
    return text.encode("utf-8", "surrogatepass") + data[whole:]


def text_of(data: bytes) -> str:
    """The text without a byte order mark; bytes that are no UTF-8 stay, as ESCAPED finds them."""
    return data.decode("utf-8-sig", "surrogateescape")


def not_utf8(line: bytes) -> tuple[str, str]:
    """Why bytes are no UTF-8 text, in which encoding they seem to be, and what to do."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return "it ends inside a character", "write it whole, or remove it"
        byte = f"it holds the byte 0x{line[error.start]:02x}, which is not UTF-8"
        return f"{byte} and looks like {_encoding_of(line)}", "save the file as UTF-8"
    raise ValueError("these bytes are UTF-8")


def _encoding_of(line: bytes) -> str:
    """GBK where its characters come in pairs of bytes, else Latin-1; a guess for a message."""
    if all(len(run) > 1 for run in re.findall(rb"[\x80-\xff]+", line)):
        try:
            line.decode("gb18030")
        except UnicodeDecodeError:
            return "Latin-1"
        return "GBK"
    return "Latin-1"
