"""Real chat templates: what carries loss here is what TRL's own training twins mark.

The package trl ships the templates of real models, and for most a twin in which `{% generation %}`
says what to train. Rows of every kind are rendered with both.
"""

import json
import re
from pathlib import Path

import pytest
import trl
from transformers.utils.chat_template_utils import render_jinja_template

from grads.data.spans import GENERATION, MARK, render
from grads.data.turns import Turn, Unusable

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja") if not path.stem.endswith("_training"))
MARKS = {"bos_token": "<BOS>", "eos_token": "<EOS>", "pad_token": "<PAD>"}


class Tokenizer:
    """As much of a tokenizer as rendering needs."""

    special_tokens_map = MARKS

    def __init__(self, template):
        self.template = template

    def get_chat_template(self, tools=None):
        return self.template


def user(text):
    return Turn("user", text)


def says(text, **more):
    return Turn("assistant", text, **more)


CALL = json.dumps(
    [{"type": "function", "function": {"name": "look_up", "arguments": {"city": "Rome"}}}]
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "The weather of a place.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "A city."}},
                "required": ["city"],
            },
        },
    }
]
HEART, LUNG = user("What is the heart?"), user("And the lung?")
ROWS = {
    "single turn": [HEART, says("A pump.")],
    "several turns": [HEART, says("A pump."), LUNG, says("A bellows.")],
    "system": [Turn("system", "Be brief."), HEART, says("A pump.")],
    "reasoning": [HEART, says("A pump.", reasoning="It moves blood.")],
    "earlier reasoning": [
        HEART,
        says("A pump.", reasoning="It moves blood."),
        LUNG,
        says("A bellows.", reasoning="It moves air."),
    ],
    "think tags": [HEART, says("<think>\nIt moves blood.\n</think>\n\nA pump.")],
    "repeated text": [
        Turn("system", "I am"),
        user("assistant"),
        says("I"),
        user("I"),
        says("assistant"),
    ],
    "assistant first": [says("I"), user("Hm"), says("I")],
    "weighted": [HEART, says("A pump.", trained=False), LUNG, says("A bellows.")],
    "tools": [
        user("Weather in Rome?"),
        says("", tool_calls=CALL),
        Turn("tool", "Sunny.", name="look_up"),
        says("It is sunny."),
    ],
}


def template(name):
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def twin(name):
    """The template that says what to train: the twin, or itself; None where there is neither."""
    path = FOLDER / f"{name}_training.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    return template(name) if GENERATION.search(template(name)) else None


def theirs(source, turns, tools):
    """The pieces that the twin marks, in the form of writing that shows the words and the calls."""
    problem = None
    for parts in (False, True):
        for as_text in (False, True):
            for empty in ("", None):
                messages = [message(turn, parts, as_text, empty) for turn in turns]
                try:
                    texts, spans = render_jinja_template(
                        conversations=[messages],
                        tools=tools,
                        chat_template=source,
                        return_assistant_tokens_mask=True,
                        **MARKS,
                    )
                except Exception as error:  # templates raise what they like
                    problem = problem or error
                    continue
                found = pieces(texts[0], spans[0])
                told = squeezed(turns[0].content) in squeezed(texts[0])
                if told and (not tools or any("look_up" in piece for piece in found)):
                    return found
    raise LookupError(f"refused, or something is dropped: {problem}")


def message(turn, parts, as_text, empty):
    content = turn.content or (empty if turn.tool_calls else "")
    if parts and content is not None:
        content = [{"type": "text", "text": content}]
    made = {"role": turn.role, "content": content}
    if turn.reasoning:
        made["reasoning_content"] = turn.reasoning
    if turn.name:
        made["name"] = turn.name
    if turn.tool_calls:
        made["tool_calls"] = json.loads(turn.tool_calls)
        for call in made["tool_calls"] if as_text else ():
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return made


def squeezed(text):
    return re.sub(r"\s+", "", text)


def pieces(text, spans):
    """What spans hold, white space aside; spans with nothing between them are one."""
    joined = []
    for begin, end in spans:
        if end <= begin:
            continue
        if joined and not text[joined[-1][1] : begin].strip():
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return [squeezed(text[begin:end]) for begin, end in joined]


HEADER = re.compile(r"(<[^<>]*>|assistant|model|chatbot)*")


def alike(mine, other):
    """Equal but for tokens of a header in front, or of the next one behind."""
    if mine == other:
        return True
    longer, shorter = sorted((mine, other), key=len, reverse=True)
    begin = longer.find(shorter)
    if begin < 0:
        return False
    rest = longer[:begin], longer[begin + len(shorter) :]
    # The end of a turn is no header: a token too many behind is let pass for these alone.
    return bool(HEADER.fullmatch(rest[0])) and rest[1] in ("", "<|tool_response>")


def outcome(name, kind):
    """agree, differ, both refuse, refused here (with the reason), no twin."""
    turns, tools = ROWS[kind], TOOLS if kind == "tools" else None
    try:
        rendered = render(turns, Tokenizer(template(name)), tools)
    except Unusable as verdict:
        mine = verdict.reason
    else:
        mine = pieces(rendered.text, rendered.spans)
    source = twin(name)
    if source is None:
        return ("no twin", mine, None)
    try:
        other = theirs(source, turns, tools)
    except LookupError as error:
        other = str(error)
    if isinstance(mine, str) or isinstance(other, str):
        both = isinstance(mine, str) and isinstance(other, str)
        refused = "refused here" if isinstance(mine, str) else "refused there"
        return ("both refuse" if both else refused, mine, other)
    if kind == "weighted" and len(other) == 2:
        other = other[1:]  # the twin knows no weights
    same = len(mine) == len(other) and all(map(alike, mine, other))
    return ("agree" if same else "differ", mine, other)


# Where the plain template itself shows less or more than its twin.
NO_END = {"glm4moe"}  # shows no end-of-turn token; the twin adds the next turn's
FORGETS = {name for name in NAMES if name.startswith(("qwen3", "nemotron"))}
DROPS_THOUGHTS = {"reasoning", "earlier reasoning", "think tags"}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_trained_is_what_trl_trains(name, kind):
    result, mine, other = outcome(name, kind)
    if result == "refused here":
        # TRL drops in silence what the template leaves out; here the row says so.
        assert kind in DROPS_THOUGHTS, (mine, other)
        assert "leaves out the reasoning of turn" in mine
    elif result == "differ" and name in NO_END:
        assert [
            piece.removesuffix("<|user|>").removesuffix("<|observation|>") for piece in other
        ] == (mine)
    elif result == "differ" and name in FORGETS and kind == "earlier reasoning":
        # The twin shows the reasoning of earlier answers, the template does not.
        assert alike(mine[-1], other[-1])
        assert "Itmovesblood." in other[0]
        assert "Itmovesblood." not in mine[0]
        assert "Apump." in mine[0]
    else:
        assert result in ("agree", "both refuse", "no twin"), (mine, other)


SIGNS = {
    "agree": "=",
    "both refuse": "×",
    "refused here": "r",
    "differ": "d",
    "no twin": "·",
}


def table():
    """docs/data.md's table: a line a template, a column a kind of row."""
    lines = [
        "| template | " + " | ".join(ROWS) + " |",
        "|---" * (len(ROWS) + 1) + "|",
    ]
    for name in NAMES:
        signs = [SIGNS[outcome(name, kind)[0]] for kind in ROWS]
        lines.append(f"| {name} | " + " | ".join(signs) + " |")
    return "\n".join(lines)


def test_the_table_in_the_documents_is_what_is_found():
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    assert table() in text


@pytest.mark.parametrize("name", NAMES)
def test_templates_without_a_twin_train_the_answers_too(name):
    """Each answer with the token that ends it, and nothing of anybody else's."""
    rendered = render(ROWS["several turns"], Tokenizer(template(name)))
    found = pieces(rendered.text, rendered.spans)
    assert len(found) == 2
    for piece, answer in zip(found, ("Apump.", "Abellows."), strict=True):
        assert answer in piece
        assert "heart" not in piece
        assert "lung" not in piece
        assert rendered.ends == (not piece.endswith(answer))
    assert rendered.ends == (name not in NO_END)


def test_phi_3_of_april_2024_ignores_the_system_turn():
    """It knows two roles and passes others over."""
    source = (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{'<|user|>\n' + message['content'] + '<|end|>\n<|assistant|>\n'}}"
        "{% elif message['role'] == 'assistant' %}{{message['content'] + '<|end|>\n'}}{% endif %}"
        "{% endfor %}"
    )
    assert pieces(*both(render(ROWS["single turn"], Tokenizer(source)))) == ["Apump.<|end|>"]
    with pytest.raises(Unusable, match=r"leaves out the words of turn 1 \(system\): “Be brief.”"):
        render(ROWS["system"], Tokenizer(source))


def both(rendered):
    return rendered.text, rendered.spans


def test_an_answer_of_one_letter_is_not_found_in_the_system_prompt():
    """A template that brings a system prompt of its own, and an answer that occurs in it."""
    source = (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nI am an AI.<|im_end|>\n"
        "{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rendered = render([says("I"), user("am"), says("AI")], Tokenizer(source))
    assert [rendered.text[a:b] for a, b in rendered.spans] == ["I<|im_end|>", "AI<|im_end|>"]
    assert rendered.spans[0][0] > rendered.text.index("I am an AI.")


def test_the_mark_never_stays():
    for name in NAMES:
        assert MARK not in render(ROWS["single turn"], Tokenizer(template(name))).text
