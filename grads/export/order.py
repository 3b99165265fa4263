"""Conversations as strict targets want them: one system turn, then question and answer by turns."""

from grads.data.layouts import Conversation
from grads.data.turns import Turn, Unusable


def by_turns(row: Conversation) -> Conversation:
    """The row in that order; raises Unusable where it could only be had by changing its meaning.

    Questions in a row are joined with an empty line between them, so are system turns in front and
    results of tools. Answers are not: where one ends is something that is learned.
    """
    if row.turns[0].role == "text":
        return row
    turns: list[Turn] = []
    for turn in row.turns:
        named = Turn("system", turn.content) if turn.role == "developer" else turn
        before = turns[-1] if turns else None
        if before and before.role == named.role != "assistant":
            turns[-1] = before.saying(f"{before.content}\n\n{named.content}")
        else:
            turns.append(named)
    question = True
    for turn in turns[turns[0].role == "system" :]:
        if turn.role == "system":
            raise Unusable("a system turn stands behind others", "move it to the front")
        if question and turn.role == "assistant":
            raise Unusable("an answer stands where a question is due", "add the question")
        if not question and turn.role != "assistant":
            raise Unusable(f"a turn of the {turn.role} stands where an answer is due", "reorder it")
        question = not question
    return Conversation(turns, row.tools)
