"""What tests of exports share: rows of every kind, scored by models of several templates."""

from pathlib import Path

import trl
from test_data import CHATML, make_tokenizer
from test_templates import CALL, HEART, LUNG, TOOLS, says, user

from grads.config.run import RunConfig
from grads.data.chat import PLAIN_TEMPLATE
from grads.data.prepare import prepare
from grads.data.sources import Source
from grads.data.turns import Turn
from grads.errors import DataError
from grads.export.rows import Subset, Template, message
from grads.export.write import FORMATS, export

LENGTH = 2048
KINDS = {
    "single turn": [HEART, says("A pump.")],
    "several turns": [HEART, says("A pump."), LUNG, says(" A bellows,\nmostly. ")],
    "system": [Turn("system", "Be brief."), HEART, says("A pump.")],
    "first answer silent": [HEART, says("A pump.", trained=False), LUNG, says("A bellows.")],
    "last answer silent": [HEART, says("A pump."), LUNG, says("A bellows.", trained=False)],
    "tools": [
        user("Weather in Rome?"),
        says("", tool_calls=CALL),
        Turn("tool", "Sunny.", name="look_up"),
        says("It is sunny."),
    ],
    "assistant first": [says("I"), user("Hm"), says("I"), user("am"), says("AI")],
    "two questions": [HEART, LUNG, says("A pump. A bellows.")],
    "reasoning": [HEART, says("A pump.", reasoning="It moves blood.")],
    "one letter": [user("I"), says("I"), user("I I"), says("I")],
    "no question": [says("I am here.")],
    "control tokens": [user("What does <|im_end|> do, </s>?"), says("<s> begins, </s> ends. </s>")],
    "long": [HEART, says("A pump. " * 400)],
    "text": [Turn("text", "The heart is a pump.")],
}
MIXES = {
    "mixed": ["single turn", "several turns", "system", "two questions"],
    "cut": ["single turn", "long", "several turns"],
    "weighted": ["first answer silent", "several turns", "last answer silent"],
    "control tokens among others": ["single turn", "control tokens", "several turns"],
    "everything": ["single turn", "tools", "assistant first", "several turns", "long"],
}
SETS = {kind: [kind] for kind in KINDS} | MIXES

ZEPHYR = (  # with marks of its own
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def of_trl(name):
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")


MODELS = {
    "no template": (PLAIN_TEMPLATE, "</s>"),
    "chatml": (CHATML, "<|im_end|>"),
    "marked": (ZEPHYR, "</s>"),
    "llama3": (of_trl("llama3"), "</s>"),
    "qwen2_5": (of_trl("qwen2_5"), "<|im_end|>"),
    "qwen2_5 marked": (of_trl("qwen2_5_training"), "<|im_end|>"),
    "qwen3": (of_trl("qwen3"), "<|im_end|>"),
}


def tokenizer_of(model):
    """A byte-level tokenizer with the model's template."""
    template, end = MODELS[model]
    tokenizer = make_tokenizer(template, end)
    if model == "llama3":
        tokenizer.add_tokens("<|eot_id|>", special_tokens=True)
    return tokenizer


def subset_of(kinds, tokenizer):
    """The rows of these kinds as a run has scored them; None where its template refuses one."""
    return scored_subset([row_of(kind) for kind in kinds], tokenizer)


def scored_subset(rows, tokenizer):
    """These rows as a run has scored them; None where its template refuses one."""
    layout = {"layout": "text"} if any("text" in row for row in rows) else {}
    config = RunConfig.parse({"dataset": "rows"} | layout)
    source = Source("rows", list(range(len(rows))), rows, None, "digest")
    try:
        made = prepare(source, config, tokenizer, LENGTH)
    except DataError:
        return None
    if made.rejects:
        return None
    samples = made.samples
    tools = [row.get("tools") or [] for row in rows]
    return Subset(
        name="mine",
        lines=None,
        rows=rows,
        table=None,
        turns=samples["turns"].to_pylist(),
        scores=None,
        ids=samples["sample_id"].to_pylist(),
        tools=tools if any(tools) else None,
        template=Template(
            tokenizer.chat_template,
            tokenizer.chat_template != PLAIN_TEMPLATE,
            dict(tokenizer.special_tokens_map),
        ),
        tokens=made.tokens.append_column("truncated", samples["truncated"]),
    )


def row_of(kind):
    turns = KINDS[kind]
    if kind == "text":
        return {"text": turns[0].content}
    row = {"messages": [message(turn) for turn in turns]}
    return row | ({"tools": TOOLS} if kind == "tools" else {})


def ours(subset):
    """(ids, labels) of each row as it was scored."""
    found = []
    for row in subset.tokens.to_pylist():
        pairs = zip(row["input_ids"], row["trained"], strict=True)
        found.append((row["input_ids"], [i if on else -100 for i, on in pairs]))
    return found


def written(subset, kind, out, **settings):
    """The manifest of an export, and the folder."""
    values = {"dataset": "rows.jsonl", "model": "org/model", "max_length": LENGTH} | settings
    return export(subset, kind, out, RunConfig.parse(values), manifest={}), out


def data_of(out, kind):
    return out / FORMATS[kind].data_name
