"""Data as people really have them: kinds of files, folders and globs, and what is broken."""

import gzip
import io
import json
import pickle
import zipfile

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_data import PLAIN, lines, read, refusal, write, write_csv

from grads.config.base import is_path
from grads.config.run import RunConfig
from grads.data.prepare import prepare
from grads.data.rejects import place
from grads.data.sources import read_source

ROWS = [{"question": "What is 心脏?", "answer": "It pumps."}, {"question": "b", "answer": "c, d"}]
THIRD = {"question": "e", "answer": "f"}
FIRST, SECOND = lines(ROWS).splitlines()


def pretty(*rows, indent=2):
    return "\n".join(json.dumps(row, indent=indent, ensure_ascii=False) for row in rows).encode()


def zstd(data):
    return pa.compress(data, "zstd", asbytes=True)


def parquet(rows, **options):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


def zipped(*names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return out.getvalue()


def arrow(rows):
    out = io.BytesIO()
    feather.write_feather(pa.Table.from_pylist(rows), out)
    return out.getvalue()


CSV = 'question,answer\nWhat is 心脏?,It pumps.\nb,"c, d"\n'.encode()
HALVES = CSV.replace(b",", b";").replace(b'"c; d"', b'"c, d"')
TABS = CSV.replace(b",", b"\t").replace(b'"c\t d"', b'"c, d"')

# Kind -> file name, content, lines of the two rows (None: it has no lines).
KINDS = {
    "JSONL": ("d.jsonl", lines(ROWS), [1, 2]),
    "JSONL named .ndjson": ("d.ndjson", lines(ROWS), [1, 2]),
    "JSONL named .json": ("d.json", lines(ROWS), [1, 2]),
    "an upper-case suffix": ("d.JSONL", lines(ROWS), [1, 2]),
    "JSONL in UTF-16": ("d.jsonl", lines(ROWS).decode().encode("utf-16"), [1, 2]),
    "JSONL in big-endian UTF-16": (
        "d.jsonl",
        b"\xfe\xff" + lines(ROWS).decode().encode("utf-16-be"),
        [1, 2],
    ),
    "JSONL with blank lines": ("d.jsonl", b"\n" + FIRST + b"\n \n" + SECOND, [2, 4]),
    "array": ("d.json", json.dumps(ROWS).encode(), [1, 1]),
    "array named .jsonl": ("d.jsonl", json.dumps(ROWS).encode(), [1, 1]),
    "array printed on lines": ("d.jsonl", b"\n" + pretty(ROWS), [3, 7]),
    "array of an object a line": ("d.json", b"[" + FIRST + b",\n" + SECOND + b"\n]", [1, 2]),
    "objects printed on lines": ("d.jsonl", pretty(*ROWS), [1, 5]),
    "objects printed without indent": ("d.json", pretty(*ROWS, indent=0), [1, 5]),
    "objects on one line": ("d.json", FIRST + b" " + SECOND, [1, 1]),
    "objects with commas between": ("d.jsonl", FIRST + b",\r\n" + SECOND + b",\r\n", [1, 2]),
    "rows under a key": ("d.json", pretty({"version": "1", "data": ROWS}), None),
    "rows under a key on one line": ("d.jsonl", json.dumps({"rows": ROWS}).encode(), None),
    "CSV": ("d.csv", CSV, [2, 3]),
    "CSV with semicolons": ("d.csv", HALVES, [2, 3]),
    "CSV with tabs": ("d.csv", TABS, [2, 3]),
    "CSV with a blank line before its header": ("d.csv", b"\n" + CSV, [3, 4]),
    "CSV in UTF-16": ("d.csv", TABS.decode().encode("utf-16"), [2, 3]),
    "TSV": ("d.tsv", TABS, [2, 3]),
    "Parquet": ("d.parquet", parquet(ROWS), None),
    "JSONL in gzip": ("d.jsonl.gz", gzip.compress(lines(ROWS)), [1, 2]),
    "JSONL in two gzip members": (
        "d.jsonl.gz",
        gzip.compress(FIRST + b"\n") + gzip.compress(SECOND),
        [1, 2],
    ),
    "JSONL in zstd": ("d.jsonl.zst", zstd(lines(ROWS)), [1, 2]),
    "array in gzip": ("d.json.gz", gzip.compress(json.dumps(ROWS).encode()), [1, 1]),
    "CSV in zstd": ("d.csv.zst", zstd(CSV), [2, 3]),
    "TSV in gzip": ("d.tsv.gz", gzip.compress(TABS), [2, 3]),
    "Parquet in gzip": ("d.parquet.gz", gzip.compress(parquet(ROWS, compression="none")), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_file(tmp_path, kind):
    """The same two rows whatever holds them, no more and no less under a limit."""
    name, data, where = KINDS[kind]
    path = write(tmp_path / name, data)
    source = read(path)
    assert (source.rows, source.lines, source.broken) == (ROWS, where, [])
    assert source.count == 2
    assert [dict(row) for row in read(path, limit=1).rows] == ROWS[:1]
    assert read(path, limit=2).rows == ROWS
    assert source.digest == read(path, limit=1).digest


@pytest.mark.parametrize("key", ["data", "rows", "什么"])
def test_the_key_of_the_rows_is_named(tmp_path, key):
    path = write(tmp_path / "d.json", pretty({"license": "MIT", "tags": ["a"], key: ROWS}))
    assert read(path).name == f'd.json["{key}"]'


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_single_object_is_one_row(tmp_path, indent, suffix):
    """Also when its one list is a conversation, which is no list of rows."""
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    for row in (THIRD, talk):
        path = write(tmp_path / f"d.{suffix}", json.dumps(row, indent=indent).encode())
        assert read(path).rows == [row]
        assert read(path).name == path.name


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd)])
def test_lines_of_a_packed_file_are_kept_byte_for_byte(tmp_path, suffix, pack):
    data = b"\xef\xbb\xbf" + FIRST.replace(b": ", b":   ") + b" \r\n\n" + SECOND
    source = read(write(tmp_path / f"d.jsonl.{suffix}", pack(data)))
    assert source.ids == [0, 2]
    assert source.raw == [data.splitlines(keepends=True)[0], SECOND]


# -- broken rows

GOOD = FIRST + b"\n"

# Kind -> file name, content, ids of the rows read, (id, line, what the reason says) of the others.
BROKEN = {
    "cut line": ("d.jsonl", GOOD + b'{"a": \n' + GOOD, [0, 2], [(1, 2, "ends in the middle")]),
    "cut text": ("d.jsonl", GOOD + b'{"a": "b\n', [0], [(1, 2, "ends in the middle")]),
    "first line": ("d.jsonl", b'{"a": 1, \n' + GOOD * 2, [1, 2], [(0, 1, "ends in the middle")]),
    "bare bracket": ("d.jsonl", b"{\n" + GOOD * 2, [1, 2], [(0, 1, "Expecting")]),
    "more behind": ("d.jsonl", GOOD + b"{} x\n", [0], [(1, 2, "at character 4, before 'x'")]),
    "Python": ("d.jsonl", GOOD + b"{'a': 'b'}\n", [0], [(1, 2, "holds a Python dict")]),
    "words": ("d.jsonl", GOOD + b"a,b\n", [0], [(1, 2, "holds text, 'a,b'")]),
    "text": ("d.jsonl", GOOD + b'"a"\n', [0], [(1, 2, "holds text, 'a'")]),
    "JSON as text": (
        "d.jsonl",
        GOOD + json.dumps(FIRST.decode()).encode(),
        [0],
        [(1, 2, "holds text that is itself an object")],
    ),
    "other values": (
        "d.jsonl",
        GOOD + b'[1]\n7\ntrue\nnull\n[{"role": "user"}]\n',
        [0],
        [
            (1, 2, "a list"),
            (2, 3, "a number"),
            (3, 4, "a truth value"),
            (4, 5, "null"),
            (5, 6, "a list of messages"),
        ],
    ),
    "deep nesting": ("d.jsonl", GOOD + b"[" * 100_000 + b"\n", [0], [(1, 2, "too deeply")]),
    "a huge number": ("d.jsonl", GOOD + b'{"a": ' + b"9" * 5000 + b"}", [0], [(1, 2, "4300")]),
    "Latin-1": ("d.jsonl", GOOD + b'{"a": "caf\xe9"}\n' + GOOD, [0, 2], [(1, 2, "like Latin-1")]),
    "GBK": ("d.jsonl", GOOD + '{"a": "心脏"}'.encode("gbk"), [0], [(1, 2, "looks like GBK")]),
    "cut character": ("d.jsonl", GOOD + b'{"a": "\xe5\xbf', [0], [(1, 2, "inside a character")]),
    "zeros": ("d.jsonl", GOOD * 50 + b"\0" * 30 + b"\n" + GOOD, [*range(50), 51], [(50, 51, "")]),
    "UTF-16 cut in a character": (
        "d.jsonl",
        (GOOD + b'{"a": 1').decode().encode("utf-16")[:-1],
        [0],
        [(1, 2, "ends")],
    ),
    "printed object": (
        "d.json",
        pretty(THIRD) + b'\n{\n  "a": "b,\n  "c": 1\n}\n' + pretty(THIRD),
        [0, 2],
        [(1, 5, "line 6, column 11")],
    ),
    "Latin-1 in a printed object": (
        "d.json",
        pretty(THIRD) + b'\n{\n "a": "\xe9"\n}\n' + pretty(THIRD),
        [0, 2],
        [(1, 5, "0xe9")],
    ),
    "Latin-1 under a key": (
        "d.json",
        b'{"data": [{"a": 1},\n {"a": "\xe9"}]}',
        [0],
        [(1, None, "0xe9")],
    ),
    "number in an array": ("d.json", b"[\n{},\n 7,\n{}\n]", [0, 2], [(1, 3, "holds a number")]),
    "object of an array": (
        "d.json",
        b'[\n  {"a": 1},\n  {"a": },\n  {"a": 3}\n]',
        [0, 2],
        [(1, 3, "line 3, column 9")],
    ),
    "cut array": ("d.json", b'[{}, {}, {"a": "b', [0, 1], [(2, 1, "nothing behind it is read")]),
    "array without end": ("d.json", b"[\n{},\n{}\n", [0, 1], [(2, 4, "without its ]")]),
    "text behind an array": ("d.json", b"[\n{}\n]\nand more", [0], [(1, 4, "'and more'")]),
    "too few fields": ("d.csv", b"a,b\n1\n2,3\n", [1], [(0, 2, "1 fields where the header has 2")]),
    "too many fields": ("d.csv", b'a,b\n"1\n1",2\n\n1,2,3\n', [0], [(1, 5, "3 fields")]),
    "text behind a quote": ("d.csv", b'a,b\n1,"2" x\n3,4\n', [1], [(0, 2, "break in line 2")]),
    "a quote never closed": (
        "d.csv",
        b'a,b\n1,2\n3,"4\n5,6\n7,8\n',
        [0],
        [(1, 3, "all from line 3 on")],
    ),
    "Latin-1 in a CSV": ("d.csv", b"a,b\n1,\xe9\n3,4\n", [1], [(0, 2, "0xe9")]),
    "a broken line in gzip": ("d.jsonl.gz", gzip.compress(GOOD + b"{"), [0], [(1, 2, "ends")]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_row_is_refused_and_the_rest_goes_on(tmp_path, kind):
    """With its number, its line, the reason in one line, and what to do."""
    name, data, ids, refused = BROKEN[kind]
    source = read(write(tmp_path / name, data))
    assert source.ids == ids
    assert [(b.sample_id, b.line) for b in source.broken] == [r[:2] for r in refused]
    for broken, (_, _, reason) in zip(source.broken, refused, strict=True):
        assert reason in broken.reason
        assert "\n" not in broken.reason
        assert broken.advice


PIECES = st.sampled_from(
    [
        GOOD,
        b'{"question": "q", "answer": ""}\n',
        b"\n",
        b"{\n",
        b"x\n",
        b'"a"\n',
        b"\xff\n",
        b"[]\n",
    ]
)


@given(st.lists(PIECES, min_size=1, max_size=12), st.none() | st.integers(1, 12))
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_used_and_refused_rows_are_all_rows(tmp_path, pieces, limit):
    """Whatever is mixed: each line that is not blank is used or refused once, by its number."""
    first = GOOD + b"".join(pieces)
    path = write(tmp_path / "d.jsonl", first)
    source = read(path, limit=limit)
    done = prepare(source, RunConfig(dataset="d"), PLAIN, 64)
    used = done.samples["sample_id"].to_pylist()
    refused = [reject["row"] for reject in done.rejects]
    expected = [i for i, piece in enumerate([GOOD, *pieces]) if piece.strip()][:limit]
    assert sorted(used + refused) == expected
    assert all(reject["line"] == reject["row"] + 1 for reject in done.rejects)
    packed = read(write(tmp_path / "d.jsonl.gz", gzip.compress(first)), limit=limit)
    for name in ("ids", "rows", "raw", "lines", "broken"):
        assert getattr(packed, name) == getattr(source, name)


@given(
    st.lists(st.sampled_from(['1,"2\n2"', "1", "1,2,3", "", '"1" x,2', '"",""']), max_size=10),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_record_of_a_csv_is_used_or_refused(tmp_path, records, end):
    text = end.join(["a,b", "1,2", *(record.replace("\n", end) for record in records)])
    source = read(write(tmp_path / "d.csv", text.encode()))
    wanted = [bool(record) for record in ["1,2", *records]]
    assert source.count == sum(wanted)
    assert sorted([*source.ids, *(b.sample_id for b in source.broken)]) == list(range(sum(wanted)))


# -- files that are not what they are called

LOOKS = {
    "a zip": ("d.jsonl", zipped("d.jsonl"), "a zip archive"),
    "a workbook": ("d.csv", zipped("[Content_Types].xml", "xl/workbook.xml"), "Excel workbook"),
    "a workbook by its name": (
        "d.xlsx",
        zipped("xl/workbook.xml"),
        "Excel workbook: save it as CSV",
    ),
    "a pickle": ("d.jsonl", pickle.dumps(ROWS), "a pickle"),
    "Feather": ("d.jsonl", arrow(ROWS), "an Arrow or Feather file"),
    "Feather by its name": ("d.feather", arrow(ROWS), "an Arrow or Feather file"),
    "Parquet called JSONL": ("d.jsonl", parquet(ROWS), "a Parquet file: name it .parquet"),
    "gzip called JSONL": ("d.jsonl", gzip.compress(GOOD), "packed with gzip: name it .gz"),
    "JSONL called gzip": ("d.jsonl.gz", GOOD, "is plain text: name it d.jsonl"),
    "JSONL called Parquet": ("d.parquet", GOOD, "not a readable Parquet file"),
    "zip called Parquet": ("d.parquet", zipped("a"), "a zip archive"),
    "zstd called gzip": ("d.jsonl.gz", zstd(GOOD), "packed with zstd"),
    "cut gzip": ("d.jsonl.gz", gzip.compress(GOOD * 99)[:-9], "is cut short"),
    "cut zstd": ("d.jsonl.zst", zstd(GOOD * 99)[:-3], "is cut short"),
    "damaged gzip": ("d.jsonl.gz", gzip.compress(GOOD)[:-6] + b"123456", "is damaged"),
    "gzip of what": ("d.gz", gzip.compress(GOOD), "unknown format"),
    "gzip of a tar": ("d.tar.gz", gzip.compress(b"d" * 257 + b"ustar"), "a tar archive"),
    "bytes": ("d.jsonl", bytes(range(1, 200)), "binary (it begins with 01 02 03 04)"),
    "a web page": ("d.json", b"\n<!DOCTYPE html><html>", "a web page"),
    "a pointer": ("d.jsonl", b"version https://git-lfs.example/v1\n", "git lfs pull"),
    "UTF-16 without its mark": ("d.jsonl", GOOD.decode().encode("utf-16-le"), "UTF-16"),
    "UTF-32": ("d.jsonl", GOOD.decode().encode("utf-32"), "UTF-32"),
    "a header in Latin-1": (
        "d.csv",
        b"caf\xe9,b\n1,2\n",
        "line 1, the header: it holds the byte 0xe9",
    ),
    "a header never closed": ("d.csv", b'a,"b\n1,2\n', "line 1, the header"),
}


@pytest.mark.parametrize("kind", LOOKS)
def test_a_file_that_is_not_what_it_is_called(tmp_path, kind):
    name, data, what = LOOKS[kind]
    message = refusal(read, write(tmp_path / name, data))
    assert name in message
    assert what in message


# -- several files


def parts(folder, **files):
    """Files of this folder by stem: JSONL of these rows."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, rows in files.items():
        write(folder / f"{name}.jsonl", lines(rows))
    return folder


def test_a_folder_is_its_files_one_after_the_other(tmp_path):
    """Numbers in names by their value; ids run on, lines begin anew, hidden files stay out."""
    folder = parts(tmp_path / "d", part10=[THIRD])
    write(folder / "part2.jsonl", b"\n" + GOOD + b"x\n" + SECOND)
    write(folder / ".part3.jsonl", b"x")
    write(folder / "README.md", b"# Data")
    write(folder / "dataset_infos.json", b"{}")
    source = read(folder)
    assert source.rows == [*ROWS, THIRD]
    assert (source.ids, source.lines) == ([1, 3, 4], [2, 4, 1])
    assert source.raw == [GOOD, SECOND, lines([THIRD])]
    assert source.name == "d (2 files)"
    assert [place(spot) for spot in map(source.spot, range(3))] == [
        "row 1 (line 2 of part2.jsonl)",
        "row 3 (line 4 of part2.jsonl)",
        "row 4 (line 1 of part10.jsonl)",
    ]
    (refused,) = source.refused()
    assert (refused["row"], refused["line"], refused["file"]) == (2, 3, "part2.jsonl")


def test_the_limit_and_the_digest_are_of_all_files(tmp_path):
    folder = parts(tmp_path / "d", a=ROWS, b=[THIRD])
    whole = read(folder)
    for limit, rows in ((1, ROWS[:1]), (2, ROWS), (3, [*ROWS, THIRD]), (9, [*ROWS, THIRD])):
        assert read(folder, limit=limit).rows == rows
        assert read(folder, limit=limit).digest == whole.digest
    (folder / "b.jsonl").rename(folder / "c.jsonl")
    renamed = read(folder)
    assert renamed.rows == whole.rows
    assert renamed.digest != whole.digest
    parts(folder, c=[THIRD, THIRD])
    assert read(folder, limit=1).digest != renamed.digest


@pytest.mark.parametrize("below", ["", "data"])
def test_hub_style_names(tmp_path, below):
    """The files of one split, train by default; a folder's own or those in its data/."""
    folder = tmp_path / "d" / below
    folder.mkdir(parents=True)
    for i, row in enumerate([*ROWS, THIRD]):
        pq.write_table(
            pa.Table.from_pylist([row | {"n": i}]), folder / f"train-0000{i}-of-00003.parquet"
        )
    pq.write_table(pa.Table.from_pylist([THIRD]), folder / "test-00000-of-00001-0a1b2c.parquet")
    source = read(tmp_path / "d")
    assert [row["question"] for row in source.rows] == ["What is 心脏?", "b", "e"]
    assert source.ids == [0, 1, 2]
    assert source.table["n"].to_pylist() == [0, 1, 2]
    assert read(tmp_path / "d", split="test").rows == [THIRD]
    assert "choose one of test, train" in refusal(read, tmp_path / "d", split="dev")
    (folder / "train-00001-of-00003.parquet").unlink()
    assert "2 of the 3 files of 'train': get number 00001" in refusal(read, tmp_path / "d")
    assert len(read(folder / "train-*.parquet").rows) == 2, "a glob takes what is there"


def test_files_named_by_split(tmp_path):
    folder = parts(tmp_path / "d", train=ROWS, test=[THIRD])
    assert read(folder).rows == ROWS
    assert read(folder, split="test").rows == [THIRD]
    assert read(folder / "*.jsonl").count == 3
    assert read(folder / "*.jsonl", split="test").rows == [THIRD]
    (folder / "train.jsonl").rename(folder / "validation.jsonl")
    assert "several splits: choose one of test, validation" in refusal(read, folder)
    assert "--split" in refusal(read, parts(tmp_path / "e", a=ROWS), split="train")


def test_a_folder_of_one_file_is_that_file(tmp_path):
    folder = parts(tmp_path / "d", a=ROWS)
    source, alone = read(folder), read(folder / "a.jsonl")
    assert (source.name, source.digest, source.files) == (alone.name, alone.digest, {})


@pytest.mark.parametrize("pattern", ["part-?.jsonl", "part-[12].jsonl", "p*", "*/part-*.jsonl"])
def test_a_glob(tmp_path, pattern):
    folder = parts(tmp_path / "d", **{"part-1": ROWS, "part-2": [THIRD]})
    source = read((tmp_path if "/" in pattern else folder) / pattern)
    assert source.rows == [*ROWS, THIRD]
    assert list(source.files) == ["part-1.jsonl", "part-2.jsonl"]


def test_a_file_whose_name_reads_as_a_glob_is_that_file(tmp_path):
    parts(tmp_path, **{"d[1]": ROWS, "d1": [THIRD]})
    assert read(tmp_path / "d[1].jsonl").rows == ROWS
    (tmp_path / "d[1].jsonl").unlink()
    assert read(tmp_path / "d[1].jsonl").rows == [THIRD]


def test_files_of_one_name_in_several_folders_are_told_apart(tmp_path):
    for name in "ab":
        parts(tmp_path / name, d=[THIRD])
    source = read(tmp_path / "*" / "d.jsonl")
    assert list(source.files) == ["a/d.jsonl", "b/d.jsonl"]


def test_folders_and_globs_that_cannot_be_read(tmp_path):
    """Each says what is there and what to do."""
    mixed = parts(tmp_path / "mixed", a=ROWS)
    write_csv(mixed / "b.csv", ROWS)
    message = refusal(read, mixed)
    assert "1 of JSONL, 1 of CSV" in message
    assert str(mixed / "*.jsonl") in message
    twice = parts(tmp_path / "twice", a=ROWS)
    write(twice / "a.jsonl.gz", gzip.compress(GOOD))
    assert "packed and unpacked" in refusal(read, twice)
    other = tmp_path / "other"
    other.mkdir()
    assert "holds nothing" in refusal(read, other)
    for i in range(7):
        write(other / f"{i}.txt", b"x")
    assert "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more" in refusal(read, other)
    assert "0.txt" in refusal(read, other / "*")
    assert "no file matches" in refusal(read, other / "*.jsonl")


def test_tables_of_several_files_are_joined_by_their_columns(tmp_path):
    """Numbers of two widths are one column; a number and a text are none."""
    narrow = pa.table({"question": ["a"], "answer": ["b"], "n": pa.array([1], pa.int32())})
    wide = pa.table({"question": ["c"], "answer": ["d"], "n": [2**40], "more": [True]})
    pq.write_table(narrow, tmp_path / "a.parquet")
    pq.write_table(wide, tmp_path / "b.parquet")
    source = read(tmp_path)
    assert source.table["n"].to_pylist() == [1, 2**40]
    assert source.table["more"].to_pylist() == [None, True]
    pq.write_table(wide.set_column(2, "n", pa.array(["x"])), tmp_path / "b.parquet")
    message = refusal(read, tmp_path)
    assert "a.parquet, b.parquet" in message
    assert "different types" in message


@pytest.mark.parametrize(
    "text", ["d.tsv", "d.jsonl.gz", "d.zst", "data/*.parquet", "d?", "d[0]", "a/b/c", "/a", "./a"]
)
def test_what_can_only_be_a_path_is_stored_absolute(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_path(text)
    assert RunConfig(dataset=text).absolute().dataset.startswith("/")
    assert RunConfig(dataset="some/data").absolute().dataset == "some/data"


# -- refused rows


def test_nothing_usable_is_an_error_that_still_gives_the_refused_rows(tmp_path):
    """Where no line can be read, and where the layout is unknown."""
    seen = []
    cases = [(b"\nx\n", "none of the 1 rows of d.jsonl can be used; row 1 (line 2): it holds text")]
    cases += [(b'{"topic": "a"}\nx\n', "fit no known layout")]
    for data, expected in cases:
        source = read(write(tmp_path / "d.jsonl", data))
        config = RunConfig(dataset="d")
        message = refusal(prepare, source, config, PLAIN, 64, refused=seen.append)
        assert expected in message
    assert [[reject["row"] for reject in rejects] for rejects in seen] == [[1], [1]]


def test_refused_rows_are_in_order(tmp_path):
    """Those that cannot be read among those that hold no sample."""
    data = GOOD + b"x\n" + lines([THIRD | {"answer": ""}]) + b"y\n"
    source = read_source(RunConfig(dataset=str(write(tmp_path / "d.jsonl", data))))
    done = prepare(source, RunConfig(dataset="d"), PLAIN, 64)
    assert [(r["sample_id"], r["row"], r["line"]) for r in done.rejects] == [
        (1, 1, 2),
        (2, 2, 3),
        (3, 3, 4),
    ]
    assert all("file" not in reject for reject in done.rejects)


def test_refused_rows_of_earlier_runs_are_named_by_their_id():
    """They counted rows from 1, and knew no line."""
    assert place({"sample_id": 3, "row": 4, "reason": "r", "advice": "a"}) == "row 3"
