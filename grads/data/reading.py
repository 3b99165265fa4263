"""The bytes of a data file: unpacked, told apart from what is no text, and as UTF-8."""

import codecs
import hashlib
import re
from pathlib import Path

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
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content(path: Path) -> tuple[bytes, str]:
    """The bytes of a data file, unpacked and text as UTF-8, and the SHA-256 of the file.

    Raises DataError, with what to do, where the file is not what its name says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    suffix = suffix_of(path)
    if path.suffix.lower() in PACKED:
        data = _unpacked(path, data)
    looks = looks_like(data)
    if suffix == ".parquet" and (not looks or data.startswith(b"PAR1")):
        return data, found
    if suffix in KINDS and _is_utf16(data):
        return _from_utf16(data), found
    if looks:
        raise DataError(f"{path.name} is {looks[0]}: {looks[1]}")
    if suffix not in KINDS:
        raise DataError(
            f"{path.name} has an unknown format '{suffix}': use {', '.join(KINDS)} (also .gz or"
            " .zst of them, as data.jsonl.gz), a folder of such files, a save_to_disk folder or a"
            " hub id"
        )
    return data, found


def looks_like(data: bytes) -> tuple[str, str] | None:
    """What bytes that are no text seem to be, and what to do; None for text."""
    head = data[:HEAD]
    for pattern, what, advice in LOOKS:
        if re.match(pattern, head, re.DOTALL):
            return what, advice
    if len(head.translate(None, CONTROLS)) < 0.95 * len(head):
        return f"binary (it begins with {head[:4].hex(' ')})", "give it as text or as Parquet"
    return None


def _unpacked(path: Path, data: bytes) -> bytes:
    packing, magic = PACKED[path.suffix.lower()]
    if not data.startswith(magic):
        what, advice = looks_like(data) or ("plain text", f"name it {path.stem}")
        if not data:
            what, advice = "empty", "download or pack it again"
        raise DataError(f"{path.name} is named as packed with {packing} but is {what}: {advice}")
    most = max(MOST_UNPACKED, MOST_TIMES * len(data))
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), packing) as file:
            unpacked = bytes(file.read(most + 1))
    except OSError as error:
        reason = str(error).splitlines()[0]
        what = "is cut short" if "Truncated" in reason else f"is damaged ({reason})"
        raise DataError(f"{path.name} {what}: download or pack it again") from None
    if len(unpacked) > most:
        raise DataError(
            f"{path.name} unpacks to more than {MOST_TIMES} times its size, as no data do: give it"
            " unpacked, where you trust it"
        )
    return unpacked


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
