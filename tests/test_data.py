"""From a data set to samples: sources and their places, layouts, labels, rejects, held-out rows."""

import csv
import json
from itertools import groupby, permutations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from grads.config.run import RunConfig
from grads.data.chat import PLAIN_TEMPLATE, encode
from grads.data.layouts import LAYOUTS, conversation, recognise
from grads.data.own import OwnColumns
from grads.data.prepare import hold_out, prepare
from grads.data.sources import Source, read_source
from grads.data.turns import Turn, Unusable
from grads.errors import ConfigError, DataError

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SENTENCES = [
    "What is the heart? It pumps blood.",
    "Rest and drink water.",
    "心脏是什么？心脏泵血。",
]
ROWS = [
    {"question": "What is 心脏?", "answer": "It pumps.", "age": 3},
    {"question": "Why, doctor?", "answer": 'Rest, "then"\ndrink.', "age": 5},
    {"question": "And now?", "answer": "Sleep.", "age": 8},
]


def make_tokenizer(template=PLAIN_TEMPLATE, eos="</s>", trim_offsets=False):
    """A byte-level BPE, trained on a few sentences, with the marks of both templates."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token=eos,
        pad_token="<pad>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


PLAIN = make_tokenizer()
CHAT = make_tokenizer(CHATML, "<|im_end|>")


def read(dataset, **settings):
    return read_source(RunConfig.parse({"dataset": str(dataset)} | settings))


def from_rows(rows, **settings):
    """`prepare` of these rows, with the plain template."""
    config = RunConfig.parse({"dataset": "rows"} | settings)
    source = Source("rows", list(range(len(rows))), rows, None, "digest")
    return prepare(source, config, PLAIN, config.max_length)


def lines(rows, end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def write(path, data):
    path.write_bytes(data)
    return path


def chat(*contents):
    """Turns of user and assistant by turns."""
    return [Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)]


def learnt(turns, tokenizer, max_length=1024):
    """What carries loss, decoded, one text for each run of trained tokens."""
    sample = encode(turns, tokenizer, max_length)
    pairs = zip(sample.trained, sample.input_ids.tolist(), strict=True)
    runs = [(on, [i for _, i in run]) for on, run in groupby(pairs, key=lambda pair: pair[0])]
    return [tokenizer.decode(ids) for on, ids in runs if on]


def refusal(action, *args, **kwargs):
    """The message of the DataError that `action` raises, which must be one line."""
    with pytest.raises(DataError) as caught:
        action(*args, **kwargs)
    assert "\n" not in caught.value.args[0]
    return str(caught.value)


# -- formats


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_jsonl_keeps_its_bytes(tmp_path, end, mark):
    """Odd spacing, line ends, byte order mark, and a last line without an end."""
    data = mark + b' {"question" :"a",  "answer":"b"} ' + end.encode() + lines(ROWS, end).rstrip()
    source = read(write(tmp_path / "d.jsonl", data))
    assert source.rows == [{"question": "a", "answer": "b"}, *ROWS]
    assert source.ids == [0, 1, 2, 3]
    assert b"".join(source.raw) == data


def test_jsonl_ids_are_line_numbers(tmp_path):
    """Blank lines hold no sample but count as lines; the limit counts samples."""
    first, second, third = lines(ROWS).splitlines(keepends=True)
    path = write(tmp_path / "d.jsonl", b"\n" + first + b"\n  \r\n" + second + third)
    assert read(path).ids == [1, 4, 5]
    assert read(path).raw == [first, second, third]
    assert read(path, limit=2).ids == [1, 4]


def test_jsonl_is_cut_at_line_feeds_only(tmp_path):
    """Unicode's other line separators may stand inside a string."""
    rows = [{"question": "a\u2028b\x85c", "answer": "d\u2029"}, ROWS[0]]
    assert read(write(tmp_path / "d.jsonl", lines(rows))).rows == rows


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_array(tmp_path, mark):
    text = json.dumps(ROWS, indent=2, ensure_ascii=False)
    source = read(write(tmp_path / "d.json", mark + b"\n" + text.encode()))
    assert (source.rows, source.ids, source.raw) == (ROWS, [0, 1, 2], None)


def test_json_that_holds_lines(tmp_path):
    source = read(write(tmp_path / "d.json", lines(ROWS)))
    assert source.rows == ROWS
    assert b"".join(source.raw) == lines(ROWS)


def write_csv(path, rows, tail=""):
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        file.write(tail)
    return path


@pytest.mark.parametrize("tail", ["", "\r\n"], ids=["", "blank last line"])
def test_csv_with_quoted_commas_and_newlines(tmp_path, tail):
    source = read(write_csv(tmp_path / "d.csv", ROWS, tail))
    assert source.rows == [row | {"age": str(row["age"])} for row in ROWS]
    assert source.ids == [0, 1, 2]


def test_parquet_keeps_its_types(tmp_path):
    table = pa.table(
        {
            "question": ["a", "b", "c"],
            "answer": ["d", None, "f"],
            "score": pa.array([1, 2, 3], pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "d.parquet")
    source = read(tmp_path / "d.parquet")
    assert source.rows == table.to_pylist()
    done = prepare(source, RunConfig(dataset="d"), PLAIN, 64)
    assert done.source.equals(table.take([0, 2]))
    assert done.samples["sample_id"].to_pylist() == [0, 2]


def test_folder_without_splits(tmp_path):
    Dataset.from_list(ROWS).select([2, 0]).save_to_disk(tmp_path / "d")
    assert read(tmp_path / "d").rows == [ROWS[2], ROWS[0]]


def test_folder_with_splits(tmp_path):
    """`train` by default, any by --split, and the names of those there are in the error."""
    splits = {"train": ROWS[:2], "test": ROWS[2:]}
    DatasetDict({k: Dataset.from_list(v) for k, v in splits.items()}).save_to_disk(tmp_path / "d")
    assert read(tmp_path / "d").rows == ROWS[:2]
    assert read(tmp_path / "d", split="test").rows == ROWS[2:]
    message = refusal(read, tmp_path / "d", split="dev")
    assert all(word in message for word in ("'dev'", "train, test", "--split"))


@pytest.mark.parametrize("name", ["../secret/data.arrow", "SECRET/data.arrow", "..", "a/b.arrow"])
@pytest.mark.parametrize("split", [True, False])
def test_a_saved_folder_names_no_file_elsewhere(tmp_path, name, split):
    """As a list of its files, or as a split: a page would show what its user may not have read."""
    Dataset.from_list([{"prompt": "secret", "response": "secret"}]).save_to_disk(
        tmp_path / "secret"
    )
    name = name.replace("SECRET", str(tmp_path / "secret"))
    mine = Dataset.from_list(ROWS)
    if split:
        DatasetDict({"train": mine}).save_to_disk(tmp_path / "d")
        name, lists = name.removesuffix("/data.arrow"), tmp_path / "d" / "dataset_dict.json"
        lists.write_text(json.dumps({"splits": [name]}))
    else:
        mine.save_to_disk(tmp_path / "d")
        (arrow,) = (tmp_path / "secret").glob("*.arrow")
        arrow.rename(arrow.with_name("data.arrow"))
        lists = tmp_path / "d" / "state.json"
        state = json.loads(lists.read_text()) | {"_data_files": [{"filename": name}]}
        lists.write_text(json.dumps(state))
    message = refusal(read, tmp_path / "d", split="train" if not split else None)
    assert "names a file elsewhere" in message
    assert name in message


@pytest.mark.parametrize(
    "damage", ["[]", "{}", "no json", '{"splits": 3}', '{"splits": ["train"]}']
)
def test_a_damaged_saved_folder_is_an_error_of_one_line(tmp_path, damage):
    DatasetDict({"test": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "d")
    (tmp_path / "d" / "dataset_dict.json").write_text(damage)
    assert "cannot load the data set" in refusal(read, tmp_path / "d")


def test_folder_with_splits_of_which_none_is_chosen(tmp_path):
    rows = Dataset.from_list(ROWS)
    DatasetDict({"a": rows, "b": rows}).save_to_disk(tmp_path / "d")
    message = refusal(read, tmp_path / "d")
    assert "a, b" in message
    assert "--split" in message
    assert "None" not in message  # nobody asked for a split of that name


def test_folder_that_is_no_data_set(tmp_path):
    assert "save_to_disk" in refusal(read, tmp_path)


def test_hub_data_set(monkeypatch):
    """Configuration and revision are passed on; split and limit choose the rows."""
    asked = {}

    def load(*args, **kwargs):
        asked.update(args=args, **kwargs)
        return DatasetDict({"test": Dataset.from_list(ROWS), "train": Dataset.from_list(ROWS[:1])})

    monkeypatch.setattr("datasets.load_dataset", load)
    source = read("some/data", dataset_config="en", revision="v1", split="test", limit=2)
    assert source.rows == ROWS[:2]
    assert (asked["args"], asked["revision"]) == (("some/data", "en"), "v1")


def test_hub_out_of_reach(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'some/data' on the Hub\nMore lines")

    monkeypatch.setattr("datasets.load_dataset", fail)
    message = refusal(read, "some/data")
    assert "'some/data'" in message
    assert "Couldn't reach" in message


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet", "folder"])
def test_limit(tmp_path, suffix):
    path = tmp_path / f"d.{suffix}"
    if suffix == "jsonl":
        path.write_bytes(lines(ROWS))
    elif suffix == "json":
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    elif suffix == "csv":
        write_csv(path, ROWS)
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        Dataset.from_list(ROWS).save_to_disk(path)
    for limit in (2, 3, 99):
        source = read(path, limit=limit)
        expected = [row["question"] for row in ROWS[:limit]]
        assert [row["question"] for row in source.rows] == expected
        typed = suffix in ("parquet", "folder")
        assert (source.table is not None) == typed
        assert not typed or len(source.table) == len(expected)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_a_subsample_is_drawn_by_its_seed(tmp_path, suffix):
    """Rows keep their numbers, lines and types; a larger draw holds the smaller one."""
    many = [{"question": f"question {i}", "answer": "yes"} for i in range(40)]
    path = tmp_path / f"d.{suffix}"
    if suffix == "jsonl":
        path.write_bytes(lines(many))
    elif suffix == "json":
        path.write_text(json.dumps(many), encoding="utf-8")
    elif suffix == "csv":
        write_csv(path, many)
    else:
        pq.write_table(pa.Table.from_pylist(many), path)
    whole, drawn = read(path), read(path, subsample=10)
    assert len(drawn.ids) == 10
    assert drawn.ids == sorted(drawn.ids)
    assert drawn.ids != list(range(10))
    for i, number in enumerate(drawn.ids):
        assert drawn.rows[i]["question"] == f"question {number}"
        assert drawn.spot(i) == whole.spot(number)
        assert drawn.raw is None or drawn.raw[i] == whole.raw[number]
        assert drawn.table is None or drawn.table["question"][i].as_py() == f"question {number}"
    assert drawn.digest == whole.digest
    assert read(path, subsample=10, seed=3).ids == drawn.ids, "the run's own seed has no say"
    assert read(path, subsample=10, subsample_seed=1).ids != drawn.ids
    assert set(drawn.ids) < set(read(path, subsample=20).ids)
    assert read(path, subsample=99).rows == whole.rows
    assert set(read(path, limit=15, subsample=10).ids) < set(range(15))


def test_a_subsample_draws_among_broken_rows_too(tmp_path):
    good = lines(ROWS[:1])
    path = write(tmp_path / "d.jsonl", (good + b"{broken\n") * 20)
    source = read(path, subsample=12)
    assert source.count == 12
    assert 0 < len(source.broken) < 12
    assert {row.sample_id % 2 for row in source.broken} == {1}
    assert {number % 2 for number in source.ids} == {0}


def test_other_files_are_read_whole(tmp_path):
    """What is held out or wanted is not drawn from as the run's own rows are."""
    config = RunConfig(dataset="d.jsonl", subsample=3, subsample_seed=1)
    assert config.for_file("other.jsonl").subsample is None


# -- bad files


def test_broken_json_names_its_line(tmp_path):
    good = lines(ROWS[:1])
    path = write(tmp_path / "d.jsonl", good * 15 + b"\n" + b'{"question": "a", \n' + good)
    (broken,) = read(path).broken
    assert (broken.sample_id, broken.line) == (16, 17)
    assert "ends in the middle" in broken.reason
    assert len(read(path).rows) == 16
    assert len(read(path, limit=15).rows) == 15
    assert read(path, limit=16).count == 16, "the broken row is one of those read"


def test_broken_array_names_its_line(tmp_path):
    path = write(tmp_path / "d.json", b'[\n{"a": 1},\n{"a": }\n]')
    (broken,) = read(path).broken
    assert (broken.sample_id, broken.line) == (1, 3)
    assert "line 3, column 7" in broken.reason


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
def test_wrong_encoding_names_the_line_and_the_byte(tmp_path, suffix, mark):
    data = mark + b"a,b\n1,2\n" + "é,2\n".encode("latin-1")
    broken = read(write(tmp_path / f"d.{suffix}", data)).broken[-1]
    assert broken.line == 3
    assert "0xe9" in broken.reason
    assert "looks like Latin-1" in broken.reason
    assert "UTF-8" in broken.advice


@pytest.mark.parametrize("name", ["no.jsonl", "no.PARQUET", "no/folder"])
def test_missing_file(tmp_path, name):
    assert str(tmp_path / name) in refusal(read, tmp_path / name)


def test_unknown_suffix(tmp_path):
    message = refusal(read, write(tmp_path / "d.xlsx", b"x"))
    assert "'.xlsx'" in message
    assert ".parquet" in message


@pytest.mark.parametrize("row", [b"1,2,3", b"1"])
def test_csv_with_a_wrong_number_of_fields_names_the_line(tmp_path, row):
    path = write(tmp_path / "d.csv", b'question,answer\n"a\nb",c\n' + row + b"\nd,e\n")
    source = read(path)
    (broken,) = source.broken
    assert (broken.sample_id, broken.line) == (1, 4)
    assert (source.ids, source.lines) == ([0, 2], [2, 5])


def test_csv_with_an_open_quote_names_a_line(tmp_path):
    path = write(tmp_path / "d.csv", b'question,answer\na,"b\n')
    (broken,) = read(path).broken
    assert broken.line == 2
    assert "from line 2 on" in broken.reason


def test_csv_with_a_column_twice(tmp_path):
    assert "twice" in refusal(read, write(tmp_path / "d.csv", b"a,b,a\n1,2,3\n"))


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.parquet"])
def test_empty_file(tmp_path, name):
    assert name in refusal(read, write(tmp_path / name, b""))


@pytest.mark.parametrize(
    ("name", "data"), [("d.jsonl", b"\n \n"), ("d.json", b"[]"), ("d.csv", b"a,b\n")]
)
def test_file_without_rows(tmp_path, name, data):
    assert "no rows" in refusal(read, write(tmp_path / name, data))


def test_corrupt_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    data = (tmp_path / "d.parquet").read_bytes()
    for broken in (data[:-20], b"PAR1" + b"x" * 50, data[:4] + b"\xff" * 40 + data[44:]):
        assert "d.parquet" in refusal(read, write(tmp_path / "d.parquet", broken))


# -- layouts


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognised(name):
    """Among other columns, and with the same conversation as the outcome."""
    roles = LAYOUTS[name]
    if "messages" in roles:
        messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
        row = {"id": 1, roles["messages"]: messages}
    else:
        row = {"id": 1, roles["prompt"]: "Q", roles["response"]: "A"}
    layout = recognise(list(row), {})
    assert layout.name == name
    assert conversation(row, layout).turns == chat("Q", "A")


def turns_of(row, **mapping):
    return conversation(row, recognise(list(row), mapping)).turns


@pytest.mark.parametrize(
    ("text", "prompt"), [("fever", "Advise:\n\nfever"), ("", "Advise:"), (None, "Advise:")]
)
def test_alpaca_joins_its_input(text, prompt):
    row = {"instruction": "Advise:", "input": text, "output": "Rest."}
    assert turns_of(row) == chat(prompt, "Rest.")


def test_system_column():
    row = {"system": "Be brief.", "prompt": "Q", "response": "A"}
    assert turns_of(row) == [Turn("system", "Be brief."), *chat("Q", "A")]
    assert turns_of(row | {"system": " "}) == chat("Q", "A")


def test_sharegpt_names():
    said = [("system", "S"), ("human", "Q"), ("gpt", "A"), ("human", "Q2"), ("gpt", "A2")]
    row = {"conversations": [{"from": who, "value": text} for who, text in said]}
    assert turns_of(row) == [Turn("system", "S"), *chat("Q", "A", "Q2", "A2")]


def test_prompt_and_completion_as_messages():
    row = {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "completion": [{"role": "assistant", "content": "A"}],
    }
    assert turns_of(row) == [Turn("system", "S"), *chat("Q", "A")]


def test_an_unanswered_last_question_is_dropped():
    messages = [{"role": turn.role, "content": turn.content} for turn in chat("Q", "A", "Q2")]
    assert turns_of({"messages": messages}) == chat("Q", "A")


def test_mapping_by_hand_beats_the_layout():
    row = {"question": "no", "answer": "no", "q": "Q", "extra": "E", "a": 42, "sys": "S"}
    mapping = {"prompt": "q", "input": "extra", "response": "a", "system": "sys"}
    assert turns_of(row, **mapping) == [Turn("system", "S"), *chat("Q\n\nE", "42")]


def test_messages_mapped_by_hand():
    row = {"talk": [{"role": "user", "content": "Q"}, {"from": "model", "value": "A"}]}
    assert turns_of(row, messages="talk") == chat("Q", "A")


def test_mapped_column_that_is_missing():
    message = refusal(recognise, ["q", "a"], {"prompt": "q", "response": "reply"})
    assert "'reply'" in message
    assert "q, a" in message


def test_unknown_layout_names_the_columns_and_the_way_out():
    message = refusal(recognise, ["topic", "essay"], {})
    assert "topic, essay" in message
    assert "--map" in message


# -- labels

MARKED = [(PLAIN, "</s>"), (CHAT, "<|im_end|>")]


@pytest.mark.parametrize(("tokenizer", "end"), MARKED, ids=["plain", "chatml"])
@pytest.mark.parametrize("answer", ["It pumps blood.", "心脏泵血。😀", " padded \n", "assistant"])
def test_only_the_response_and_its_end_are_trained(tokenizer, end, answer):
    turns = [Turn("system", "Be brief."), *chat("What is 心脏?", answer)]
    assert learnt(turns, tokenizer) == [answer + end]
    sample = encode(turns, tokenizer, 1024)
    assert sample.response_tokens == sample.trained.sum()
    assert not sample.truncated


@pytest.mark.parametrize(("tokenizer", "end"), MARKED, ids=["plain", "chatml"])
def test_every_assistant_turn_is_trained(tokenizer, end):
    assert learnt(chat("Q", "A", "Q2", "B 心", "Q3", "A"), tokenizer) == [
        "A" + end,
        "B 心" + end,
        "A" + end,
    ]


def test_tokens_are_the_template_without_additions():
    """One beginning-of-text token, from the template, and the line break behind the last turn."""
    plain, chatml = (encode(chat("Q", "A"), tokenizer, 99) for tokenizer in (PLAIN, CHAT))
    assert PLAIN.decode(plain.input_ids) == "<s>### Question:\nQ\n\n### Answer:\nA</s>"
    assert CHAT.decode(chatml.input_ids).endswith("<|im_start|>assistant\nA<|im_end|>\n")
    assert not chatml.trained[-1]


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_a_blank_before_the_answer_is_not_trained(trim_offsets):
    """With trim_offsets (as in GPT-NeoX) the blank's own token has no width."""
    template = PLAIN_TEMPLATE.replace("Answer:\\n", "Answer: ")
    tokenizer = make_tokenizer(template, trim_offsets=trim_offsets)
    assert learnt(chat("Q", "心脏 泵"), tokenizer) == ["心脏 泵</s>"]


@pytest.mark.parametrize(("tokenizer", "end"), MARKED, ids=["plain", "chatml"])
def test_an_assistant_that_speaks_first(tokenizer, end):
    """The first turn's header is no part of its response."""
    turns = [Turn("assistant", "Hello."), *chat("Q", "A")]
    assert learnt(turns, tokenizer) == ["Hello." + end, "A" + end]


def test_truncation_is_flagged():
    turns = chat("Q", "Rest and drink water. " * 20)
    whole = encode(turns, PLAIN, 1024)
    cut = encode(turns, PLAIN, 60)
    assert cut.truncated
    assert len(cut.input_ids) == 60
    np.testing.assert_array_equal(cut.input_ids, whole.input_ids[:60])
    assert cut.prompt_tokens == whole.prompt_tokens
    assert not encode(turns, PLAIN, len(whole.input_ids)).truncated


def verdict(turns, tokenizer, max_length=1024):
    with pytest.raises(Unusable) as caught:
        encode(turns, tokenizer, max_length)
    return caught.value


def test_a_response_cut_away_is_refused():
    prompt = encode(chat("Rest. " * 20, "A"), PLAIN, 1024).prompt_tokens
    refused = verdict(chat("Rest. " * 20, "A"), PLAIN, prompt)
    assert "max_length" in refused.reason
    assert "--max-length" in refused.advice
    assert encode(chat("Rest. " * 20, "A"), PLAIN, prompt + 1).response_tokens == 1


FORGETFUL = CHATML.replace("m.content", "(m.content if loop.last or m.role == 'user' else '')")


def test_a_template_that_drops_earlier_answers_is_refused():
    """Nothing is dropped in silence: the turn is named."""
    tokenizer = make_tokenizer(FORGETFUL, "<|im_end|>")
    assert learnt(chat("Q", "A"), tokenizer) == ["A<|im_end|>"]
    refused = verdict(chat("Q", "A", "Q2", "A2"), tokenizer)
    assert "leaves out turn 2 (assistant)" in refused.reason
    assert refused.advice


def test_a_template_that_refuses_a_role_is_a_verdict_on_the_row():
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}"
    tokenizer = make_tokenizer(strict + CHATML, "<|im_end|>")
    refused = verdict([Turn("system", "S"), *chat("Q", "A")], tokenizer)
    assert "No system!" in refused.reason
    assert refused.advice
    assert learnt(chat("Q", "A"), tokenizer) == ["A<|im_end|>"]


# -- rejects

GOOD = {"question": "Q", "answer": "A"}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"question": "Q", "answer": ""}, "'answer' is empty"),
        ({"question": "Q", "answer": " \n"}, "'answer' is empty"),
        ({"question": "Q", "answer": None}, "'answer' is empty"),
        ({"question": "Q"}, "'answer' is empty"),
        ({"answer": "A"}, "'question' is empty"),
        ({"question": "Q", "answer": {"text": "A"}}, "'answer' holds a dict"),
        ({"question": "Rest. " * 500, "answer": "A"}, "max_length"),
        (None, "not an object"),
    ],
)
def test_a_bad_row_is_refused_and_the_rest_goes_on(bad, reason):
    done = from_rows([GOOD, bad, GOOD])
    (reject,) = done.rejects
    assert reason in reject["reason"]
    assert reject["advice"]
    assert (reject["sample_id"], reject["row"], reject["line"]) == (1, 1, None)
    assert done.samples["sample_id"].to_pylist() == [0, 2]
    assert done.tokens["sample_id"].to_pylist() == [0, 2]


def test_half_a_character_is_refused_and_the_rest_goes_on():
    """A lone surrogate, valid in JSON but not as text, is one row's fault."""
    done = from_rows([GOOD, json.loads(r'{"question": "Q", "answer": "\ud83d"}'), GOOD])
    assert [reject["row"] for reject in done.rejects] == [1]


def test_half_a_character_in_another_column_stops_nothing():
    """It cannot be kept as it was: the row is refused, and the others go on."""
    bad = json.loads(r'{"question": "Q", "answer": "A", "tag": "\ud83d"}')
    done = from_rows([GOOD | {"tag": "ok"}, bad, GOOD | {"tag": "too"}])
    assert done.samples["sample_id"].to_pylist() == [0, 2]
    assert [reject["row"] for reject in done.rejects] == [1]


def said(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (said(("user", "Q"), ("judge", "T"), ("assistant", "A")), "role 'judge'"),
        (said(("user", "Q"), (["assistant"], "A")), "role '["),
        ([{"content": "Q"}], "role 'None'"),
        (said(("system", "S"), ("user", "Q")), "assistant"),
        (said(("user", "Q"), ("assistant", "")), "'content' is empty"),
        (["Q", "A"], "not an object"),
        ([], "no list of messages"),
        ("Q", "holds text, where messages are expected"),
        (None, "no list of messages"),
    ],
)
def test_bad_messages_are_refused(messages, reason):
    good = {"messages": said(("user", "Q"), ("assistant", "A"))}
    (reject,) = from_rows([good, {"messages": messages}]).rejects
    assert reason in reject["reason"]
    assert reject["advice"]
    assert reject["row"] == 1


def test_an_empty_completion_is_refused_even_behind_earlier_answers():
    """The prompt's own answers do not stand in for the missing one."""
    prompt = said(("user", "Q"), ("assistant", "A"), ("user", "Q2"))
    rows = [{"prompt": prompt, "completion": c} for c in (said(("assistant", "A2")), [])]
    assert [reject["row"] for reject in from_rows(rows).rejects] == [1]


def test_rejects_name_the_line(tmp_path):
    """Beside the row, which is counted from 0; blank lines count."""
    data = b"\n" + lines([GOOD]) + b"\n" + b'"text"\n' + lines([GOOD | {"answer": ""}])
    source = read(write(tmp_path / "d.jsonl", data))
    done = prepare(source, RunConfig(dataset="d"), PLAIN, 64)
    assert [reject["row"] for reject in done.rejects] == [3, 4]
    assert [reject["line"] for reject in done.rejects] == [4, 5]
    assert done.samples["sample_id"].to_pylist() == [1]


def test_nothing_usable_names_the_first_reason():
    message = refusal(from_rows, [{"question": "", "answer": "A"}, {"question": "Q", "answer": ""}])
    assert "row 0" in message
    assert "'question' is empty" in message


def test_rows_that_are_no_objects_at_all():
    assert "--map" in refusal(from_rows, [None, None])


@pytest.mark.parametrize("empty", [None, ""])
def test_a_column_empty_throughout_is_named(empty):
    message = refusal(from_rows, [GOOD | {"answer": empty}, GOOD | {"answer": None}, None])
    assert "'answer'" in message
    assert "--map" in message


# -- held-out samples


def test_a_tenth_is_held_out_where_nobody_says():
    """At most 200, none of small pools, and never one that occurs twice."""

    def held(texts):
        return int(hold_out(texts, "auto", seed=0).sum())

    def texts(n):
        return [str(i) for i in range(n)]

    assert [held(texts(n)) for n in (1, 49, 50, 300, 1999, 2000, 5000)] == [
        *(0, 0, 5, 30),
        *(199, 200, 200),
    ]
    assert held(["same"] * 100) == 0
    assert held(["same"] * 97 + texts(3)) == 3
    assert RunConfig(dataset="x.jsonl").heldout == "auto"
    assert RunConfig.parse({"dataset": "x.jsonl", "heldout": "12"}).heldout == 12
    with pytest.raises(ConfigError, match="heldout"):
        RunConfig.parse({"dataset": "x.jsonl", "heldout": -1})


def test_hold_out_is_exact_and_seeded():
    hashes = [f"text {i}" for i in range(50)]
    mask = hold_out(hashes, 7, seed=1)
    assert mask.sum() == 7
    np.testing.assert_array_equal(mask, hold_out(hashes, 7, seed=1))
    assert (mask != hold_out(hashes, 7, seed=2)).any()
    assert not hold_out(hashes, 0, seed=1).any()
    assert hold_out(hashes, 49, seed=1).sum() == 49


@pytest.mark.parametrize("seed", range(5))
def test_no_text_is_held_out_that_the_pool_holds_too(seed):
    hashes = [f"text {i // 2 if i < 20 else i}" for i in range(30)]
    mask = hold_out(hashes, 10, seed)
    assert mask.tolist() == [False] * 20 + [True] * 10


@pytest.mark.parametrize(
    ("hashes", "count"), [(["a", "b"], 2), (["a", "b"], 3), (["a", "a", "b", "b", "c"], 2)]
)
def test_hold_out_that_cannot_be(hashes, count):
    message = refusal(hold_out, hashes, count, seed=0)
    assert f"hold out {count} " in message
    assert "--heldout" in message


def test_prepare_marks_what_is_held_out():
    """By the conversation, whatever the other columns say; rejects are not counted."""
    rows = [GOOD | {"id": 1}, GOOD | {"id": 2}, {"question": "Q", "answer": ""}]
    rows += [{"question": f"Q{i}", "answer": "A", "id": i} for i in range(6)]
    samples = from_rows(rows, heldout=3, seed=4).samples
    assert samples["heldout"].to_pylist()[:2] == [False, False]
    assert sum(samples["heldout"].to_pylist()) == 3
    assert from_rows(rows, heldout=3, seed=4).samples.equals(samples)
    assert "7" in refusal(from_rows, rows, heldout=7)


# -- the tables


def test_other_single_values_are_kept_as_columns():
    """With their types; lists stay out, mixed kinds become text, gaps are null."""
    extra = [
        {"age": 3, "score": 1, "tag": "x", "mixed": 1, "list": [1]},
        {"age": None, "score": 2.5, "tag": "y", "mixed": "one", "list": [2]},
        {"score": 3, "tag": "z", "mixed": None, "list": None, "late": True},
    ]
    column = from_rows([GOOD | row for row in extra]).samples["columns"]
    assert column.to_pylist() == [
        {"age": 3, "score": 1.0, "tag": "x", "mixed": "1", "late": None},
        {"age": None, "score": 2.5, "tag": "y", "mixed": "one", "late": None},
        {"age": None, "score": 3.0, "tag": "z", "mixed": None, "late": True},
    ]
    assert column.type.field("age").type == pa.int64()


def test_no_other_columns():
    assert "columns" not in from_rows([GOOD]).samples.column_names


def test_hash_follows_the_conversation():
    rows = [GOOD | {"id": 1}, GOOD | {"id": 2}, GOOD | {"answer": "B"}]
    first, second, third = from_rows(rows).samples["hash"].to_pylist()
    assert first == second != third
    messages = {"messages": said(("user", "Q"), ("assistant", "A"))}
    assert from_rows([messages]).samples["hash"].to_pylist() == [first]


def test_turns_and_bytes_are_kept(tmp_path):
    """A line stands as it was; a row of an array is written as JSON."""
    data = '{"question":  "什么?",\t"answer": "心"}\r\n'.encode()
    source = read(write(tmp_path / "d.jsonl", data))
    samples = prepare(source, RunConfig(dataset="d"), PLAIN, 64).samples
    assert samples["raw"].to_pylist() == [data]
    assert samples["turns"].to_pylist() == [said(("user", "什么?"), ("assistant", "心"))]
    assert json.loads(from_rows(ROWS).samples["raw"][1].as_py()) == ROWS[1]


def test_token_counts_add_up():
    """Also of a truncated sample, and the same in both tables."""
    rows = [*ROWS, {"question": "Q", "answer": "water " * 50}]
    done = from_rows(rows, max_length=70)
    samples, tokens = done.samples, done.tokens
    prompts, responses = (samples[name].to_numpy() for name in ("prompt_tokens", "response_tokens"))
    lengths = [len(ids) for ids in tokens["input_ids"].to_pylist()]
    assert (prompts + responses).tolist() == lengths
    assert [sum(mask) for mask in tokens["trained"].to_pylist()] == responses.tolist()
    assert samples["truncated"].to_pylist() == [False, False, False, True]
    assert lengths[-1] == 70
    for i, row in enumerate(ROWS):
        alone = encode(chat(row["question"], row["answer"]), PLAIN, 70)
        assert tokens["input_ids"][i].as_py() == alone.input_ids.tolist()
        assert tokens["trained"][i].as_py() == alone.trained.tolist()


def test_progress_is_told_of_every_row():
    seen = []
    source = Source("rows", [0, 1], [GOOD, None], None, "digest")
    prepare(source, RunConfig(dataset="d"), PLAIN, 64, progress=seen.append)
    assert seen == [1, 2]


def test_numbers_in_a_csv_are_numbers(tmp_path):
    """Text alone cannot say what it is: columns that read as numbers throughout become such."""
    extra = {
        "age": ["7", " 12", "", "3"],
        "dose": ["0.5", "1e-3", "2", ""],
        "room": ["1", "2", "3b", "4"],
        "note": ["", "", "", ""],
    }
    rows = [
        {"question": "q", "answer": "a", **{name: texts[i] for name, texts in extra.items()}}
        for i in range(4)
    ]
    config = RunConfig.parse({"dataset": str(write_csv(tmp_path / "d.csv", rows))})
    found = prepare(read_source(config), config, PLAIN, config.max_length).samples["columns"]
    columns = {name: [row[name] for row in found.to_pylist()] for name in extra}
    assert columns == {
        "age": [7, 12, None, 3],
        "dose": [0.5, 0.001, 2.0, None],
        "room": extra["room"],
        "note": extra["note"],
    }
    kinds = {field.name: str(field.type) for field in found.type}
    text = "large_string"
    assert kinds == {"age": "int64", "dose": "double", "room": text, "note": text}


@pytest.mark.job
def test_more_than_two_gib_of_text_is_one_column():
    """Arrow's plain strings hold 2 GiB; what exceeds them came in chunks that no table takes."""
    long = "x" * 2**27
    rows = [{"question": "why?", "note": long, "count": i} for i in range(17)]
    own = OwnColumns({"prompt": "question"}, texts_only=False)
    own.see(rows)
    struct = own.array(rows)
    assert pc.sum(pc.binary_length(struct.field("note"))).as_py() == 17 * 2**27


@pytest.mark.parametrize("values", [*permutations([1.5, True]), *permutations(["a", b"a"])])
@pytest.mark.parametrize("at_once", [True, False])
def test_values_of_two_kinds_stay_what_they_say_in_any_order(values, at_once):
    """A true beside 1.5 became 1.0 where Arrow came upon the number first."""
    rows = [{"question": "why?", "label": value} for value in values]
    own = OwnColumns({"prompt": "question"}, texts_only=False)
    for block in [rows] if at_once else [[row] for row in rows]:
        own.see(block)
    assert own.array(rows).field("label").to_pylist() == list(map(str, values))


def narrow(kind):
    """Whether a type, or one inside it, counts its bytes or entries in 32 bits."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_list(kind):
        return True
    return any(narrow(kind.field(i).type) for i in range(kind.num_fields))


def test_prepared_tables_have_no_limit(tmp_path):
    """Every text and list of what a run keeps is of the large kind."""
    row = {"question": "a?", "answer": "b", "note": "n"}
    lines = [row | {"mixed": [1, "a"][i % 2]} for i in range(6)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = RunConfig(dataset=str(path))
    prepared = prepare(read_source(config), config, PLAIN, 64)
    for table in (prepared.samples, prepared.tokens):
        assert [f.name for f in table.schema if narrow(f.type)] == []
