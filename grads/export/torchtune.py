"""torchtune: conversations in strict order, and the part of a recipe's config that names them.

torchtune reads the words of system, user and assistant turns alone, trains every answer, and stops
at a conversation that is not by turns.
"""

from pathlib import Path

import yaml

from grads.config.run import RunConfig
from grads.data.layouts import Conversation
from grads.data.turns import Turn, Unusable
from grads.export.inferred import dump_texts
from grads.export.order import by_turns
from grads.export.rows import Format, Subset, count_lines, learned, write_text

NOTE = """\
# The data set for a recipe of torchtune: copy it into the config of the model's recipe, and run it
# in this folder. Prompts are written by the recipe's tokenizer.
"""


def _fit(row: Conversation) -> Conversation:
    """By turns, of words alone, every answer trained."""
    if row.turns[0].role == "text":
        raise Unusable("it is a plain text, no conversation", "use another format")
    if row.tools or any(turn.tool_calls or turn.role == "tool" for turn in row.turns):
        raise Unusable("there is no place for tools", "use another format")
    if any(turn.reasoning for turn in row.turns):
        raise Unusable("there is no place for its reasoning", "move it into the answer")
    if any(turn.role == "assistant" and not learned(turn) for turn in row.turns):
        raise Unusable("an answer must not be trained, and all would be", "use another format")
    return by_turns(row)


def _said(turn: Turn) -> dict[str, str]:
    return {"role": turn.role, "content": turn.content}


def _write(subset: Subset, path: Path, config: RunConfig) -> None:
    rows = [{"messages": [_said(turn) for turn in c.turns]} for c in subset.conversations()]
    dump_texts(subset.with_scores(rows), path)
    dataset = {
        "_component_": "torchtune.datasets.chat_dataset",
        "source": "json",
        "data_files": path.name,
        "conversation_column": "messages",
        "conversation_style": "openai",
        "train_on_input": False,
    }
    text = yaml.safe_dump({"dataset": dataset, "seed": config.seed}, sort_keys=False)
    write_text(path.with_name("torchtune.yaml"), NOTE + text)


FORMAT = Format(
    "torchtune",
    "torchtune: data set",
    "Conversations in strict order, and the part of a recipe that names them.",
    _write,
    count_lines,
    fit=_fit,
)
