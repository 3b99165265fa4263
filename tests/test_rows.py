"""Rows as people write them: roles, reasoning, calls, parts, weights, preferences, plain texts."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_data import CHAT, PLAIN, make_tokenizer
from tokenizers import processors

from grads.config.run import RunConfig
from grads.data.layouts import conversation, recognise
from grads.data.prepare import prepare
from grads.data.sources import Source, read_source
from grads.data.turns import Turn, Unusable
from grads.errors import DataError

TOOLED = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RICH = make_tokenizer(TOOLED, "<|im_end|>")
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def said(row, tokenizer=PLAIN, **settings):
    """A row as turns, and the texts that are trained; raises Unusable."""
    config = RunConfig.parse({"dataset": "rows"} | settings)
    layout = recognise(list(row), config.columns, config.layout, row)
    found = conversation(row, layout)
    return found.turns, trained(row, tokenizer, **settings)


def trained(row, tokenizer=PLAIN, **settings):
    config = RunConfig.parse({"dataset": "rows"} | settings)
    made = prepare(Source("rows", [0], [row], None, "digest"), config, tokenizer, 256)
    tokens = made.tokens.to_pylist()[0]
    texts, open_ = [], False
    for piece, learned in zip(tokens["pieces"], tokens["trained"], strict=True):
        if learned:
            texts.append((texts.pop() if open_ else "") + piece)
        open_ = learned
    return texts


def messages(*pairs, **more):
    return [{"role": role, "content": text} | more for role, text in pairs]


QA = messages(("user", "Why?"), ("assistant", "So."))


@pytest.mark.parametrize(
    ("written", "role"),
    [
        ("Human", "user"),
        ("USER", "user"),
        (" prompter ", "user"),
        ("GPT", "assistant"),
        ("Bot", "assistant"),
        ("model", "assistant"),
        ("Observation", "tool"),
        ("function", "tool"),
        ("Developer", "developer"),
        ("System", "system"),
    ],
)
def test_roles_by_many_names(written, role):
    turns = [{"from": written, "value": "x"}, *QA]
    layout = recognise(["conversations"], {})
    assert conversation({"conversations": turns}, layout).turns[0] == Turn(role, "x")


def test_reasoning_is_kept_and_trained():
    for key in ("reasoning_content", "thinking", "reasoning"):
        row = {"messages": [QA[0], QA[1] | {key: "Because."}]}
        turns, texts = said(row, RICH)
        assert turns[1] == Turn("assistant", "So.", reasoning="Because.")
        assert texts == ["<think>Because.</think>So.<|im_end|>"]


@pytest.mark.parametrize("later", [[], messages(("user", "And?"), ("assistant", "Or."))])
def test_a_template_that_leaves_reasoning_out_refuses_the_row(later):
    """Also where it is an earlier answer's: this template would never have shown it."""
    row = {"messages": [QA[0], QA[1] | {"reasoning_content": "Because."}, *later]}
    with pytest.raises(DataError, match="leaves out the reasoning of turn 2"):
        said(row, CHAT)


CALLS = [
    [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": {"a": "b"}}}],
    [{"type": "function", "function": {"name": "look_up", "arguments": '{"a": "b"}'}}],
    [{"name": "look_up", "arguments": {"a": "b", "none": None}}],
    json.dumps([{"name": "look_up", "arguments": {"a": "b"}}]),
]


@pytest.mark.parametrize("calls", CALLS)
def test_tool_calls_are_passed_shown_and_trained(calls):
    """Content null with calls is no empty turn; the tool's result is read, not learned."""
    row = {
        "messages": [
            QA[0],
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "name": "look_up", "content": "found"},
            QA[1],
        ],
        "tools": [TOOL],
    }
    turns, texts = said(row, RICH)
    (call,) = json.loads(turns[1].tool_calls)
    assert call["function"] == {"name": "look_up", "arguments": {"a": "b"}}
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert len(texts) == 2
    assert '"look_up"' in texts[0]
    assert texts[0].endswith("</call><|im_end|>")
    assert texts[1] == "So.<|im_end|>"


def test_sharegpt_calls_and_observations():
    """As LLaMA-Factory's examples write them; the call is the assistant's."""
    call = json.dumps({"name": "look_up", "arguments": {"a": "b"}})
    row = {
        "conversations": [
            {"from": "human", "value": "Why?"},
            {"from": "function_call", "value": call},
            {"from": "observation", "value": "found"},
            {"from": "gpt", "value": "So."},
        ],
        "tools": json.dumps([TOOL]),
    }
    turns, texts = said(row, RICH)
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert "look_up" in texts[0]
    assert texts[1] == "So.<|im_end|>"


def test_calls_that_a_template_leaves_out_refuse_the_row():
    row = {"messages": [QA[0], {"role": "assistant", "content": "", "tool_calls": CALLS[0]}]}
    with pytest.raises(DataError, match=r"leaves out the tool calls of turn 2 .*look_up"):
        said(row, CHAT)
    with pytest.raises(DataError, match="leaves out the tools"):
        said({"messages": QA, "tools": [TOOL]}, CHAT)


def test_parts_of_text_are_joined_others_refuse_by_kind():
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
    turns, _ = said({"messages": [{"role": "user", "content": parts}, QA[1]]})
    assert turns[0].content == "Why?"
    picture = [*parts, {"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(Unusable, match="a part of the kind 'image_url'"):
        conversation(
            {"messages": [{"role": "user", "content": picture}, QA[1]]},
            recognise(["messages"], {}),
        )


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"training": False}])
def test_weight_0_carries_no_loss(mark):
    row = {"messages": [QA[0], QA[1] | mark, *messages(("user", "And?"), ("assistant", "Or."))]}
    turns, texts = said(row, CHAT)
    assert [turn.trained for turn in turns] == [True, False, True, True]
    assert texts == ["Or.<|im_end|>"]
    with pytest.raises(Unusable, match="no answer carries loss"):
        conversation({"messages": [QA[0], QA[1] | mark]}, recognise(["messages"], {}))
    assert said({"messages": [QA[0], QA[1] | {"weight": 1}]}, CHAT)[1] == ["So.<|im_end|>"]


SAME = [
    QA,
    json.dumps(QA),
    {"role": ["user", "assistant"], "content": ["Why?", "So."]},
    [["user", "Why?"], ["assistant", "So."]],
    [["Why?", "So."]],
]


@pytest.mark.parametrize("written", SAME)
def test_lists_of_messages_in_many_forms(written):
    assert said({"messages": written})[0] == [Turn("user", "Why?"), Turn("assistant", "So.")]


# -- whole rows


@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message"])
@pytest.mark.parametrize("row", [{"messages": QA}, {"question": "Why?", "answer": "So."}])
def test_a_system_column_beside_any_layout(name, row):
    assert said(row | {name: "Be brief."})[0][0] == Turn("system", "Be brief.")
    assert said(row | {name: None})[0][0].role == "user"


def test_alpaca_history_and_context():
    row = {
        "instruction": "And?",
        "input": "",
        "output": "Or.",
        "history": [["Why?", "So."]],
        "context": "Once.",
    }
    turns, texts = said(row, CHAT)
    assert [turn.content for turn in turns] == ["Why?", "So.", "Once.\n\nAnd?", "Or."]
    assert texts == ["So.<|im_end|>", "Or.<|im_end|>"]
    with pytest.raises(Unusable, match="'history' holds no rounds"):
        conversation(row | {"history": "x"}, recognise(list(row), {}))


CHOSEN = messages(("user", "Why?"), ("assistant", "Good."))
REJECTED = messages(("user", "Why?"), ("assistant", "Bad."))
PREFERENCES = [
    {"chosen": CHOSEN, "rejected": REJECTED},
    {"prompt": "Why?", "chosen": "Good.", "rejected": "Bad."},
    {"prompt": CHOSEN[:1], "chosen": CHOSEN[1:], "rejected": REJECTED[1:]},
    {"prompt": "Why?", "completion": "Good.", "label": True},
]


@pytest.mark.parametrize("row", PREFERENCES)
def test_preferences_train_the_chosen_answer_when_asked_for(row):
    with pytest.raises(DataError, match="--layout chosen"):
        said(row)
    turns, texts = said(row, CHAT, layout="chosen")
    assert [turn.content for turn in turns] == ["Why?", "Good."]
    assert texts == ["Good.<|im_end|>"]


def test_a_chosen_answer_keeps_all_that_comes_before_it():
    row = {"context": "Once.", "prompt": "Why?", "input": "Here.", "history": [["A?", "B."]]}
    turns, _ = said(row | {"chosen": "Good.", "rejected": "Bad."}, CHAT, layout="chosen")
    assert [turn.content for turn in turns] == ["A?", "B.", "Once.\n\nWhy?\n\nHere.", "Good."]


def test_a_rejected_answer_is_never_trained():
    rows = [
        {"prompt": "Why?", "completion": "Good.", "label": True},
        {"prompt": "Why?", "completion": "Bad.", "label": False},
        {"prompt": "Why?", "completion": "Bad.", "label": None},
    ]
    config = RunConfig(dataset="rows", layout="chosen")
    made = prepare(Source("rows", [0, 1, 2], rows, None, "digest"), config, PLAIN, 64)
    assert made.samples["sample_id"].to_pylist() == [0]
    assert {reject["reason"] for reject in made.rejects} == {"its answer is not a chosen one"}
    with pytest.raises(DataError, match="one side of a preference"):
        said({"rejected": REJECTED})


def test_a_label_that_is_no_verdict_is_a_column_like_others():
    row = {"prompt": "Why?", "completion": "So.", "label": "medicine"}
    assert said(row)[0] == [Turn("user", "Why?"), Turn("assistant", "So.")]


@pytest.mark.parametrize("name", ["images", "audio", "video"])
def test_what_is_no_text_is_refused_by_name(name):
    layout = recognise(["messages", name], {})
    with pytest.raises(Unusable, match=f"it holds {name}"):
        conversation({"messages": QA, name: ["a.png"]}, layout)
    assert conversation({"messages": QA, name: []}, layout).turns


def test_a_completion_of_messages_is_trained_alone():
    """What the assistant says in the prompt is read, not learned."""
    row = {
        "prompt": messages(("user", "Why?"), ("assistant", "So."), ("user", "And?")),
        "completion": messages(("assistant", "Or.")),
    }
    assert said(row, CHAT)[1] == ["Or.<|im_end|>"]


def test_plain_texts_are_trained_whole_when_asked_for():
    row = {"text": "What is the heart?"}
    with pytest.raises(DataError, match="train all of each with --layout text"):
        said(row)
    turns, texts = said(row, layout="text")
    assert turns == [Turn("text", "What is the heart?")]
    assert texts == ["What is the heart?</s>"]
    mapped = {"body": "What is the heart?"}
    assert trained(mapped, columns={"text": "body"}) == texts


def test_columns_that_nothing_uses_are_named():
    rows = [{"question": "Q", "answer": "A", "note": "n", "tags": ["t"], "age": 3, "ok": True}]
    config = RunConfig(dataset="rows")
    made = prepare(Source("rows", [0], rows, None, "digest"), config, PLAIN, 64)
    assert made.unused == ["note", "tags", "ok"]


def test_messages_say_what_is_there():
    with pytest.raises(DataError, match=r"'talk' holds lists: --map messages=talk\?"):
        said({"talk": QA, "id": 1})
    with pytest.raises(Unusable, match="holds text that begins as JSON but is none"):
        conversation({"messages": '[{"role": "user"'}, recognise(["messages"], {}))


def test_a_template_without_an_end_of_turn_is_counted():
    bare = make_tokenizer("{% for m in messages %}<s>{{ m.content }}{% endfor %}")
    config = RunConfig(dataset="rows")
    rows = [{"question": "Q", "answer": "A"}] * 3
    source = Source("rows", [0, 1, 2], rows, None, "digest")
    assert prepare(source, config, bare, 64).unended == 3
    assert prepare(source, config, PLAIN, 64).unended == 0


def test_turns_go_through_parquet_and_come_back(tmp_path):
    """Samples hold what a turn has, and nothing that none has; typed sources keep theirs."""
    rows = [
        {"messages": [QA[0], QA[1] | {"reasoning_content": "Because."}]},
        {"messages": QA},
    ]
    config = RunConfig(dataset="rows")
    made = prepare(Source("rows", [0, 1], rows, None, "digest"), config, RICH, 64)
    pq.write_table(made.samples, tmp_path / "samples.parquet")
    back = pq.read_table(tmp_path / "samples.parquet")["turns"].to_pylist()
    assert [[Turn.of(turn) for turn in turns] for turns in back] == [
        [Turn("user", "Why?"), Turn("assistant", "So.", reasoning="Because.")],
        [Turn("user", "Why?"), Turn("assistant", "So.")],
    ]
    assert list(back[0][0]) == ["role", "content", "reasoning"]
    plain = prepare(Source("rows", [0], [{"messages": QA}], None, "digest"), config, RICH, 64)
    assert list(plain.samples["turns"].to_pylist()[0][0]) == ["role", "content"]


def test_calls_from_typed_sources(tmp_path):
    """Parquet fills every call with the arguments of all others: what is null was not given."""

    def calling(arguments):
        call = {"type": "function", "function": {"name": "look_up", "arguments": arguments}}
        return [QA[0], {"role": "assistant", "content": None, "tool_calls": [call]}]

    table = pa.Table.from_pylist(
        [{"messages": calling({"a": "b"})}, {"messages": calling({"c": 1})}]
    )
    pq.write_table(table, tmp_path / "d.parquet")
    config = RunConfig(dataset=str(tmp_path / "d.parquet"))
    made = prepare(read_source(config), config, RICH, 256)
    calls = [json.loads(turns[1]["tool_calls"]) for turns in made.samples["turns"].to_pylist()]
    assert [call[0]["function"]["arguments"] for call in calls] == [{"a": "b"}, {"c": 1}]


def test_a_less_than_sign_begins_no_token():
    """Where a turn ends is told by tokens in angle brackets; what people write may hold one."""
    row = {
        "messages": [
            {"role": "user", "content": "Is 3 < 5?"},
            {"role": "assistant", "content": "if a < b", "tool_calls": CALLS[0]},
            {"role": "tool", "content": "1 < 2"},
            {"role": "assistant", "content": "3 < 5"},
        ],
        "tools": [TOOL],
    }
    assert [text[:8] for text in said(row, RICH)[1]] == ["if a < b", "3 < 5<|i"]
    plain = {"messages": [row["messages"][0], {"role": "assistant", "content": "3 < 5"}, *QA]}
    assert said(plain)[1] == ["3 < 5</s>", "So.</s>"]


@pytest.mark.parametrize(
    ("answer", "call"),
    [({}, {"weight": 0}), ({"weight": 0}, {}), ({}, {"reasoning_content": "Hm."})],
)
def test_an_answer_and_a_call_stay_apart_where_one_would_lose_something(answer, call):
    asked, said_first = QA
    called = {"role": "assistant", "content": "", "tool_calls": CALLS[0]}
    row = {"messages": [asked, said_first | answer, called | call]}
    _, first, second = conversation(row, recognise(list(row), {})).turns
    assert (first.trained, bool(first.tool_calls)) == (not answer, False)
    assert second.trained == ("weight" not in call)
    assert second.reasoning == call.get("reasoning_content", "")


@pytest.mark.parametrize("calls", ["5", 5, "true"])
def test_calls_that_are_no_list_refuse_the_row_alone(calls):
    row = {"messages": [*QA, {"role": "assistant", "content": "x", "tool_calls": calls}]}
    with pytest.raises(Unusable, match="the tool calls are no list"):
        conversation(row, recognise(list(row), {}))


def test_the_tokenizers_own_marks_at_both_ends_stand_for_no_words():
    tokenizer = make_tokenizer()
    ends = [(mark, tokenizer.convert_tokens_to_ids(mark)) for mark in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=ends
    )
    row = {"text": "Breathe out. Why?"}
    made = prepare(
        Source("rows", [0], [row], None, "digest"),
        RunConfig(dataset="rows", layout="text"),
        tokenizer,
        64,
    )
    tokens = made.tokens.to_pylist()[0]
    own = tokenizer.convert_ids_to_tokens(tokens["input_ids"])
    assert [own[0], own[-1]] == ["<s>", "</s>"]
    plain = [piece.replace("\u0120", " ") for piece in own[1:-1]]
    assert tokens["pieces"] == ["", *plain, ""]
