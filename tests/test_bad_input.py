"""What people give by mistake: each kind is a clear error, or counted rows with their reasons.

Of every data file, rows used and rows refused are all rows there are. Kinds of files, packings and
broken lines stand in tests/test_sources.py, layouts and roles in tests/test_rows.py; here are the
kinds that went wrong once or may, of rows, of tables, and of model folders.
"""

import gzip
import io
import json
import shutil
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from chain import save_tiny_model
from test_data import CHAT, PLAIN, make_tokenizer, read, refusal, write
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from grads.config.run import RunConfig
from grads.data.chat import PLAIN_TEMPLATE, encode
from grads.data.prepare import prepare
from grads.data.turns import Turn, Unusable
from grads.engine import adapters, models
from grads.errors import ModelError
from grads.store.files import write_table

LONG = "It pumps blood. " * (10 * 2**16)  # 10 MB


def rows(*values):
    """JSON lines, all beyond ASCII as escapes, so that halves of characters can stand there."""
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def qa(question="a", answer="b", **more):
    return {"question": question, "answer": answer, **more}


def said(*turns, **more):
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


def parquet(columns):
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def beside(column):
    """A Parquet file of two rows with this column beside question and answer."""
    return parquet({"question": ["a", "b"], "answer": ["c", "d"], "x": column})


def viewed(values, kind, as_kind):
    """Values that their kind does not allow, as a damaged or careless writer leaves them."""
    return pa.array(values, kind).view(as_kind)


GOOD = rows(qa())
NESTED = b'{"question": "a", "answer": "b", "x": ' + b"[" * 9_000 + b"]" * 9_000 + b"}"
BYTES = viewed([b"\xff", b"a"], pa.binary(), pa.string())
TWICE = b'{"question": "a", "question": "c", "answer": "b"}'
CALL = [{"name": "look", "arguments": "[" * 9_000}]


@dataclass
class Data:
    """A file, and what comes of it: an error that says something, or rows used and refused."""

    name: str
    content: bytes
    used: int = 0
    refused: dict[int, str] = field(default_factory=dict)  # by number: part of the reason
    error: str = ""


DATA = {
    # what stands in a file
    "nothing": Data("d.jsonl", b"", error="holds no rows"),
    "a byte order mark alone": Data("d.jsonl", b"\xef\xbb\xbf", error="holds no rows"),
    "blank lines alone": Data("d.jsonl", b" \n\r\n\t\n", error="holds no rows"),
    "an empty CSV": Data("d.csv", b"", error="holds no rows"),
    "a header alone": Data("d.csv", b"question,answer\r\n", error="holds no rows"),
    "an empty array": Data("d.json", b"[]", error="holds no rows"),
    "an empty Parquet file": Data("d.parquet", b"", error="not a readable Parquet file"),
    "an empty file in gzip": Data("d.jsonl.gz", gzip.compress(b""), error="holds no rows"),
    "zeros": Data("d.jsonl", bytes(100), error="is binary"),
    "one row": Data("d.jsonl", GOOD, 1),
    "one row without a line end": Data("d.jsonl", GOOD.strip(), 1),
    "a row of 10 MB": Data("d.jsonl", rows(qa(answer=LONG), qa()), 2),
    "a question of 1 MB": Data("d.jsonl", rows(qa(LONG[: 2**20]), qa()), 1, {0: "beyond"}),
    "a field of 1 MB": Data("d.csv", f"question,answer\na,{LONG[: 2**20]}\na,b\n".encode(), 2),
    "an archive that unpacks without end": Data(
        "d.jsonl.gz", gzip.compress(b" " * (2**28 + 1), 9), error="unpacks to more than 200 times"
    ),
    "garbage behind gzip": Data("d.jsonl.gz", gzip.compress(GOOD) + b"x" * 99, error="is damaged"),
    # line ends and encodings
    "line ends of old Macs": Data("d.jsonl", GOOD.replace(b"\n", b"\r") * 3, 3),
    "line ends written twice": Data("d.jsonl", GOOD.replace(b"\n", b"\r\r\n") * 3, 3),
    "a CSV with line ends of old Macs": Data("d.csv", b"question,answer\ra,b\rc,d\r", 2),
    "files joined with their byte order marks": Data(
        "d.jsonl", (b"\xef\xbb\xbf" + GOOD) * 2, 1, {1: "byte order mark"}
    ),
    "Windows quotes": Data(
        "d.csv", "question,answer\nit’s,“b”\nc,d\n".encode("cp1252"), 1, {0: "0x92"}
    ),
    "Shift-JIS": Data("d.jsonl", GOOD + '{"a": "日本"}\n'.encode("shift-jis"), 1, {1: "not UTF-8"}),
    "an overlong zero": Data("d.jsonl", GOOD + b'{"question": "\xc0\x80"}\n', 1, {1: "0xc0"}),
    "halves of characters as UTF-8": Data(
        "d.jsonl", GOOD + b'{"question": "\xed\xa0\xbd"}\n', 1, {1: "0xed"}
    ),
    "half a character as an escape": Data("d.jsonl", rows(qa(), qa("\ud800")), 1, {1: "surrogate"}),
    "half a character in a column that is not used": Data(
        "d.jsonl", rows(qa(), qa(x={"y": ["\udfff"]})), 1, {1: "surrogate"}
    ),
    "zero characters": Data("d.jsonl", rows(qa("a\0b", "c\0")), 1),
    "zero characters in a CSV": Data("d.csv", b"question,answer\na\0a,b\nc,d\n" + b"e,f\n" * 9, 11),
    "escapes of a terminal": Data("d.jsonl", rows(qa("\x1b[2J", "\x1b]0;x\x07")), 1),
    "right to left": Data("d.jsonl", rows(qa("\u202eabc\u202c", "\u2067שלום\u2069")), 1),
    "line separators inside a text": Data("d.jsonl", rows(qa("a\u2028b\x85c\v\f", "d")), 1),
    "joined and combining characters": Data("d.jsonl", rows(qa("👩‍👩‍👧‍👦", "e\u0301\u200d")), 1),
    "an answer of white space": Data(
        "d.jsonl", rows(qa(), qa(answer=" \n\u3000")), 1, {1: "empty"}
    ),
    # rows that are none, or not what they look like
    "comments": Data("d.jsonl", b"# made by hand\n" + GOOD, 1, {0: "holds text"}),
    "null as a row": Data("d.jsonl", GOOD + b"null\n", 1, {1: "holds null"}),
    "a row of no columns": Data("d.jsonl", rows(qa(), {}), 1, {1: "'question' is empty"}),
    "rows of lists": Data("d.jsonl", b'["a", "b"]\n["c", "d"]\n', error="it holds a list"),
    "a text in a file": Data("d.json", b'"x"', error="it holds text, 'x'"),
    "a list in a list": Data("d.json", b"[[]]", error="it holds a list"),
    "columns of lists": Data("d.json", rows(qa(["a"], ["b"])), error="not an object but text"),
    "JSONL called CSV": Data("d.csv", GOOD * 2, error="is JSON: name it d.jsonl"),
    "CSV called JSONL": Data("d.jsonl", b"question,answer\na,b\n", error="'question,answer'"),
    "a key twice": Data("d.jsonl", GOOD + TWICE + b"\n" + GOOD, 2, {1: "'question' twice"}),
    "a key twice in an array": Data(
        "d.json", b"[" + TWICE + b", " + GOOD + b"]", 1, {0: "'question' twice"}
    ),
    "a key twice deep inside": Data(
        "d.jsonl",
        GOOD + b'{"question": "a", "answer": "b", "x": [{"y": 1, "y": 2}]}',
        1,
        {1: "'y'"},
    ),
    "a column twice in a CSV": Data("d.csv", b"question,answer,answer\na,b,c\n", error="twice"),
    "nesting without end": Data("d.jsonl", GOOD + NESTED, 1, {1: "nested too deeply"}),
    "nesting without end in an array": Data(
        "d.json", b"[" + GOOD + b",\n" + NESTED + b"]", 1, {1: "nested too deeply"}
    ),
    "messages as text, nested without end": Data(
        "d.jsonl",
        rows(said(("user", "a"), ("assistant", "b")), {"messages": "[" * 9_000}),
        1,
        {1: "nested too deeply"},
    ),
    "tools as text, nested without end": Data(
        "d.jsonl",
        rows(said(("assistant", "b")), said(("assistant", "b"), tools="[" * 9_000)),
        1,
        {1: "'tools' is no JSON"},
    ),
    "a tool whose function is a text": Data(
        "d.jsonl",
        rows(said(("assistant", "b")), said(("assistant", "b"), tools=[{"function": "look"}])),
        1,
        {1: "function is no object"},
    ),
    "arguments of a call, nested without end": Data(
        "d.jsonl",
        rows(said(("assistant", "b")), {"messages": [{"role": "gpt", "tool_calls": CALL}]}),
        1,
        {1: "arguments of a tool call"},
    ),
    # values of other kinds
    "numbers for text": Data("d.jsonl", rows(qa(7, 2.5), qa(0, -1), qa(2**70, 10**30)), 3),
    "truth values for text": Data("d.jsonl", rows(qa(answer=True)), 1),
    "NaN for text": Data("d.jsonl", GOOD + b'{"question": "a", "answer": NaN}', 1, {1: "empty"}),
    "infinity for text": Data(
        "d.jsonl", GOOD + b'{"question": "a", "answer": 1e400}', 1, {1: "number without end"}
    ),
    "a number of 5,000 digits": Data(
        "d.jsonl", GOOD + b'{"question": 1' + b"0" * 5_000 + b"}", 1, {1: "4300 digits"}
    ),
    "objects for text": Data(
        "d.jsonl",
        rows(qa(), qa({"a": 1}), qa(answer={"b": 2})),
        1,
        {1: "holds a dict", 2: "holds a dict"},
    ),
    "nulls": Data("d.jsonl", rows(qa(), qa(None), qa(answer=None)), 1, {1: "empty", 2: "empty"}),
    "another column that is mixed": Data(
        "d.jsonl", rows(*(qa(x=x) for x in (1, "s", [1], {}, None, 2**80, True))), 7
    ),
    "another column beyond 64 bits": Data("d.jsonl", rows(qa(x=1), qa(x=2**80)), 2),
    "another column that is empty": Data("d.jsonl", rows(qa(x=None), qa(x=None)), 2),
    "a column without a name, as pandas writes its index": Data(
        "d.csv", b",question,answer\n0,a,b\n1,c,d\n", 2
    ),
    "a column without a name beside messages": Data(
        "d.jsonl", rows(said(("user", "a"), ("assistant", "b")) | {"": "be rude"}), 1
    ),
    "columns called as those of the run": Data(
        "d.jsonl", rows(qa(sample_id=3, raw="x", turns=[], loss=1.5, hash=None)), 1
    ),
    "columns that read as paths": Data("d.jsonl", rows(qa(**{"a.b": 1, "...1": 2, ".id": "x"})), 1),
    # conversations
    "wrong roles": Data(
        "d.jsonl",
        rows(
            said(("user", "a"), ("assistant", "b")),
            *(
                said((role, "a"), ("assistant", "b"))
                for role in ("narrator", "", None, 3, ["user"])
            ),
        ),
        1,
        dict.fromkeys(range(1, 6), "a message has the role"),
    ),
    "an empty answer": Data(
        "d.jsonl",
        rows(said(("assistant", "b")), said(("user", "a"), ("assistant", ""))),
        1,
        {1: "'content' is empty"},
    ),
    "only prompts": Data("d.jsonl", rows(said(("user", "a"))), error="comes from the assistant"),
    "only a system turn": Data(
        "d.jsonl", rows(said(("assistant", "b")), said(("system", "a"))), 1, {1: "the assistant"}
    ),
    "no messages": Data(
        "d.jsonl",
        rows(
            said(("assistant", "b")),
            *({"messages": nothing} for nothing in ([], None, "x", {}, 3, ["a"], [None], [["a"]])),
        ),
        1,
        {1: "no list", 2: "no list", 3: "holds text", 4: "no list", 5: "no list"}
        | {6: "not an object but text", 7: "not an object", 8: "other lengths"},
    ),
    "parts of other kinds": Data(
        "d.jsonl",
        rows(
            said(("assistant", [{"type": "text", "text": "b"}])),
            *(
                said(("user", "a"), ("assistant", content))
                for content in ([1], [None], [{"type": 3}], [{"type": "text", "text": ["a"]}])
            ),
        ),
        1,
        {1: "kind 'int'", 2: "kind 'NoneType'", 3: "kind '3'", 4: "holds a list"},
    ),
    "weights between none and one": Data(
        "d.jsonl",
        rows(
            *(
                {
                    "messages": [
                        {"role": "user", "content": "a"},
                        {"role": "assistant", "content": "b"} | more,
                    ]
                }
                for more in ({"weight": 1}, {"weight": 0.5}, {"train": "false"}, {"training": []})
            )
        ),
        1,
        {1: "weight '0.5'", 2: "train 'false'", 3: "training '[]'"},
    ),
    "weights of nothing": Data(
        "d.jsonl",
        rows({"messages": [{"role": "assistant", "content": "b", "weight": 0}]}),
        error="no answer carries loss",
    ),
    # tables
    "CSV with quotes and line breaks": Data(
        "d.csv", b'question,answer\r\n"a ""b"", c","d\r\ne"\r\n"","f"\r\n', 1, {1: "empty"}
    ),
    "a table of no rows": Data(
        "d.parquet", parquet({"question": pa.array([], pa.string())}), error="holds no rows"
    ),
    "text that is no UTF-8": Data(
        "d.parquet", parquet({"question": BYTES, "answer": ["c", "d"]}), 1, {0: "not UTF-8"}
    ),
    "text that is no UTF-8 in another column": Data("d.parquet", beside(BYTES), 1, {0: "'x'"}),
    "dates of no calendar": Data(
        "d.parquet", beside(viewed([10**7, 0], pa.int32(), pa.date32())), 1, {0: "holds no date32"}
    ),
    "times of no calendar": Data(
        "d.parquet", beside(viewed([2**62, 0], pa.int64(), pa.timestamp("us"))), 1, {0: "timestamp"}
    ),
    "an unknown time zone": Data(
        "d.parquet",
        beside(pa.array([1, 2], pa.timestamp("us", "Mars/Olympus"))),
        error="its column 'x' holds no timestamp",
    ),
    "times of nanoseconds": Data("d.parquet", beside(pa.array([123, 1], pa.timestamp("ns"))), 2),
    "durations": Data("d.parquet", beside(pa.array([1, 2], pa.duration("ns"))), 2),
    "maps": Data(
        "d.parquet", beside(pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64()))), 2
    ),
    "half floats": Data("d.parquet", beside(pa.array([1.5, 2.5], pa.float16())), 2),
    "a column of no type": Data("d.parquet", beside(pa.nulls(2)), 2),
    "categories": Data(
        "d.parquet",
        parquet(
            {name: pa.array(["a", "b"]).dictionary_encode() for name in ("question", "answer")}
        ),
        2,
    ),
    "list columns": Data(
        "d.parquet",
        parquet({"question": [["a"]], "answer": [["b"]]}),
        error="not an object but text",
    ),
    "bytes for text": Data(
        "d.parquet", parquet({"question": [b"a"], "answer": ["b"]}), error="holds a bytes"
    ),
    "a table with a column twice": Data(
        "d.parquet",
        parquet(pa.Table.from_arrays([pa.array(["a"])] * 3, ["question", "answer", "answer"])),
        error="names a column twice",
    ),
    "a name of a column that is no UTF-8": Data(
        "d.parquet",
        beside(pa.nulls(2)).replace(b"answer", b"answe\xee"),
        error="not a readable Parquet file",
    ),
    "a damaged page": Data(
        "d.parquet",
        beside(pa.nulls(2))[:20] + bytes(30) + beside(pa.nulls(2))[50:],
        error="not a readable Parquet file",
    ),
}


@pytest.mark.parametrize("kind", DATA)
def test_bad_data(tmp_path, kind):
    """What is used can be stored as a run stores it."""
    case = DATA[kind]
    path = write(tmp_path / case.name, case.content)
    config = RunConfig(dataset="d")
    if case.error:
        assert case.error in refusal(lambda: prepare(read(path), config, PLAIN, 64))
        return
    source = read(path)
    made = prepare(source, config, PLAIN, 64)
    refused = {reject["row"]: reject["reason"] for reject in made.rejects}
    assert len(made.samples) == case.used
    assert sorted(refused) == sorted(case.refused)
    assert all(case.refused[row] in reason for row, reason in refused.items())
    assert all("\n" not in reason and len(reason) < 500 for reason in refused.values())
    assert len(made.samples) + len(refused) == source.count
    for table in (made.samples, made.tokens, made.source):
        if table is not None:
            write_table(tmp_path / "t.parquet", table)


def test_numbers_are_the_text_that_people_see(tmp_path):
    path = write(tmp_path / "d.jsonl", rows(qa(7, 2.5), qa(0, 2**70)))
    made = prepare(read(path), RunConfig(dataset="d"), PLAIN, 64)
    turns = [[turn["content"] for turn in row] for row in made.samples["turns"].to_pylist()]
    assert turns == [["7", "2.5"], ["0", str(2**70)]]


def test_a_column_without_a_name_plays_no_role(tmp_path):
    """It was taken for the history of every row, or for what the system says."""
    path = write(tmp_path / "d.csv", b",question,answer\n0,a,b\n1,c,d\n")
    made = prepare(read(path), RunConfig(dataset="d"), PLAIN, 64)
    assert [len(row) for row in made.samples["turns"].to_pylist()] == [2, 2]
    row = said(("user", "a"), ("assistant", "b")) | {"": "be rude"}
    made = prepare(read(write(tmp_path / "d.jsonl", rows(row))), RunConfig(dataset="d"), PLAIN, 64)
    assert [turn["role"] for turn in made.samples["turns"][0].as_py()] == ["user", "assistant"]


# -- control tokens that a text spells out

SPELLED = "say <|im_end|>\n<|im_start|>system </s>"


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@pytest.mark.parametrize("tokenizer", [CHAT, PLAIN], ids=["chat template", "plain template"])
def test_spelled_control_tokens_stay_text(tokenizer, role):
    """The text is the same to the letter, and of control tokens there are those of the template."""

    def written(text):
        turns = [Turn("system", "s"), Turn("user", "u"), Turn("assistant", "a")]
        turns = [Turn(role, text) if turn.role == role else turn for turn in turns]
        return encode(turns, tokenizer, 500)

    def controls(sample):
        return [i for i in sample.input_ids.tolist() if i in tokenizer.all_special_ids or i < 5]

    plain, spelled = written("word"), written(SPELLED)
    assert controls(spelled) == controls(plain)
    assert "".join(spelled.pieces) == "".join(plain.pieces).replace("word", SPELLED)
    assert tokenizer.decode(spelled.input_ids) == "".join(spelled.pieces)
    assert spelled.trained.sum() > plain.trained.sum() or role != "assistant"
    assert (spelled.spelled, plain.spelled) == (True, False)


@pytest.mark.parametrize("text", [SPELLED, "</s>", " </s> ", "<s><s>"])
def test_an_answer_of_control_tokens_is_learned_as_text(text):
    sample = encode([Turn("user", "u"), Turn("assistant", text)], CHAT, 500)
    ids = sample.input_ids[sample.trained].tolist()
    assert CHAT.decode(ids) == f"{text}<|im_end|>"
    assert [i for i in ids if i < 5] == [CHAT.convert_tokens_to_ids("<|im_end|>")]


def test_the_demo_model_reads_spelled_control_tokens_as_text(demo_model):
    tokenizer = models.load_tokenizer("demo")
    sample = encode([Turn("user", SPELLED), Turn("assistant", "<|im_end|>")], tokenizer, 500)
    own = encode([Turn("user", "u"), Turn("assistant", "a")], tokenizer, 500)
    ends = [s.input_ids.tolist().count(tokenizer.eos_token_id) for s in (sample, own)]
    assert ends[0] == ends[1]
    assert SPELLED in tokenizer.decode(sample.input_ids)


def test_a_text_that_spells_a_control_token_is_refused_with_the_way_out():
    """Whether a text that was rendered elsewhere means it, nobody can tell."""
    with pytest.raises(Unusable, match=r"control token </s>, which only a chat template"):
        encode([Turn("text", "a </s> b")], CHAT, 500)


def test_private_characters_beside_control_tokens_are_refused():
    """Such characters stand for the control tokens while a row is rendered."""
    with pytest.raises(Unusable, match="beside characters for private use"):
        encode([Turn("user", "\U000f0000 </s>"), Turn("assistant", "a")], CHAT, 500)
    sample = encode([Turn("user", "\U000f0000"), Turn("assistant", "a")], CHAT, 500)
    assert "\U000f0000" in CHAT.decode(sample.input_ids)


def test_what_a_tokenizer_cannot_read_as_text_is_refused():
    """By whole words, one of which is the control token."""
    words = {word: i for i, word in enumerate(["</s>", "<unk>", "a", "###", "Question:"])}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", chat_template=PLAIN_TEMPLATE
    )
    with pytest.raises(Unusable, match="control token </s>, which this tokenizer cannot read"):
        encode([Turn("user", "a </s> a"), Turn("assistant", "a")], tokenizer, 500)
    encode([Turn("user", "a a"), Turn("assistant", "a")], tokenizer, 500)


# -- models


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "whole"
    save_tiny_model(place)
    return place


def file(name, content):
    """The folder with another content of a file."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def without(name):
    return lambda folder: (folder / name).unlink()


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def setting(name, **values):
    """The folder with other settings in a JSON file."""

    def change(folder):
        there = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(there | values))

    return change


def emptied(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")


def removed(folder):
    for path in list(folder.iterdir()):
        path.unlink()


def only_adapter(folder):
    """An adapter, which names the model that it was made from."""
    model = adapters.add_lora(models.load_model(str(folder), "cpu", torch.float32), 2)
    removed(folder)
    model.save_pretrained(folder, save_embedding_layers=False)


def beside_an_adapter(folder):
    """An adapter in a folder that has a model's configuration and tokenizer too."""
    adapters.add_lora(models.load_model(str(folder), "cpu", torch.float32), 2).save_pretrained(
        folder, save_embedding_layers=False
    )
    (folder / "model.safetensors").unlink()


def weights_elsewhere(folder):
    shutil.copy(folder / "model.safetensors", folder.parent / "secret.safetensors")
    (folder / "model.safetensors").unlink()
    names = {"model.embed_tokens.weight": "../secret.safetensors"}
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pickled(folder):
    weights = models.load_model(str(folder), "cpu", torch.float32).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def pickled_by_another_name(folder):
    torch.save({"a": torch.ones(2)}, folder / "model.safetensors")


def link_to_itself(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")


def tokenizer_json(content):
    return file("tokenizer.json", content)


WEIGHTS, CONFIG, TOKENS = "model.safetensors", "config.json", "tokenizer_config.json"
OWN_CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
MODELS = {
    "an empty folder": (removed, "holds no config.json"),
    "files of no bytes": (emptied, "not a valid JSON file"),
    "no configuration": (without(CONFIG), "holds no config.json"),
    "a configuration that links to itself": (link_to_itself, "holds no config.json"),
    "a cut configuration": (cut(CONFIG, 40), "not a valid JSON file"),
    "a configuration that is a list": (file(CONFIG, "[]"), "cannot load"),
    "a configuration that is null": (file(CONFIG, "null"), "cannot load"),
    "a configuration in Latin-1": (file(CONFIG, b'{"model_type": "\xe9"}'), "not a valid JSON"),
    "a configuration nested without end": (file(CONFIG, "[" * 10_000), "recursion"),
    "an unknown kind of model": (setting(CONFIG, model_type="nothing"), "type `nothing`"),
    "no kind of model": (file(CONFIG, "{}"), "model_type"),
    "a negative width": (setting(CONFIG, hidden_size=-4), "negative dimension"),
    "a width in words": (setting(CONFIG, hidden_size="wide"), "hidden_size"),
    "no heads": (setting(CONFIG, num_attention_heads=0), "cannot load"),
    "more layers than weights": (setting(CONFIG, num_hidden_layers=4), "are missing"),
    "a wider vocabulary than the weights": (setting(CONFIG, vocab_size=99), "another shape"),
    "more width than any memory": (setting(CONFIG, hidden_size=2**40), "out of memory"),
    "an adapter": (only_adapter, "is an adapter, not a model"),
    "an adapter with a configuration": (beside_an_adapter, "is an adapter, not a model"),
    "weights cut short": (cut(WEIGHTS, 2_000), "cannot load the model"),
    "weights of no bytes": (file(WEIGHTS, b""), "header too small"),
    "weights that are noise": (file(WEIGHTS, b"\7" * 5_000), "header too large"),
    "weights with a huge header": (file(WEIGHTS, (2**62).to_bytes(8, "little")), "header"),
    "no weights": (without(WEIGHTS), "no file named model.safetensors"),
    "weights outside the folder": (weights_elsewhere, "names weights elsewhere, ../secret"),
    "a damaged index of weights": (file(f"{WEIGHTS}.index.json", "{"), "index.json is damaged"),
    "pickled weights": (pickled, "no file named model.safetensors"),
    "pickled weights by another name": (pickled_by_another_name, "cannot load the model"),
    "a model with code of its own": (
        setting(CONFIG, model_type="own", auto_map=OWN_CODE),
        "needs code of its own",
    ),
    "a tokenizer with code of its own": (
        setting(TOKENS, auto_map={"AutoTokenizer": ["own.A", "own.B"]}, tokenizer_class="Own"),
        "needs code of its own",
    ),
    "no tokenizer": (without("tokenizer.json"), "cannot load the tokenizer"),
    "a cut tokenizer": (cut("tokenizer.json", 300), "cannot load the tokenizer"),
    "a tokenizer that is a list": (tokenizer_json("[]"), "cannot load the tokenizer"),
    "a tokenizer of no bytes": (tokenizer_json(""), "cannot load the tokenizer"),
    "cut settings of a tokenizer": (cut(TOKENS, 20), "cannot load the tokenizer"),
    "no end token": (setting(TOKENS, eos_token=None), "has no end token"),
    "a number as end token": (setting(TOKENS, eos_token=3), "cannot load the tokenizer"),
    "a template that is no text": (file("chat_template.jinja", b"\xff\xfe"), "cannot load"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_bad_models(tmp_path, whole, kind, monkeypatch):
    """Nobody is asked anything, least of all whether code may run."""
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asks whoever is there"))
    change, expected = MODELS[kind]
    folder = shutil.copytree(whole, tmp_path / "model")
    change(folder)

    def load():
        models.load_tokenizer(str(folder))
        models.load_model(str(folder), "cpu", torch.float32)

    with pytest.raises(ModelError) as caught:
        load()
    assert expected in str(caught.value)
    assert "\n" not in caught.value.args[0]


def test_a_tokenizer_needs_no_padding_token(tmp_path, whole):
    assert models.load_tokenizer(str(whole)).pad_token is None
    sample = encode(
        [Turn("user", "a"), Turn("assistant", "b")], models.load_tokenizer(str(whole)), 9
    )
    assert sample.response_tokens


TEMPLATES = {
    "no syntax": ("{% for %}", "Expected an expression"),
    "an unknown name": ("{{ nothing.at.all }}", "'nothing' is undefined"),
    "a division by zero": ("{{ 1 / 0 }}", "division by zero"),
    "a range without end": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "a recursion": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
    "a way out of its box": ("{{ ''.__class__.__mro__ }}", "is unsafe"),
    "another file": ("{% include '/etc/passwd' %}", "no loader"),
    "a message without end": ("{{ raise_exception('x' * 10**6) }}", "refuses it: xxx"),
    "nothing of the answer": ("{{ messages[0].content }}", "leaves out turn 2"),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_bad_chat_templates(kind):
    """Of a row, as another row may fare better."""
    source, expected = TEMPLATES[kind]
    with pytest.raises(Unusable, match=expected) as caught:
        encode([Turn("user", "a"), Turn("assistant", "b")], make_tokenizer(source), 64)
    assert len(caught.value.reason) < 500


def test_the_table_is_long_enough():
    assert len(DATA) + len(MODELS) + len(TEMPLATES) >= 80
