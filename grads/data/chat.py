"""A conversation -> token ids and the mask of trained tokens, by the model's chat template.

Only the assistant's turns carry loss, each with its end-of-turn token. A control token that a row
spells out is text. Where a model has no chat template, `PLAIN_TEMPLATE` stands in:

    ### System:\\n...\\n\\n### Question:\\n...\\n\\n### Answer:\\n...<eos>
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from grads.data.spelled import controls_of, write
from grads.data.turns import Turn, Unusable

PLAIN_TEMPLATE = (
    "{{ bos_token if bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ '### System:\\n' + message.content + '\\n\\n' }}"
    "{% elif message.role == 'user' %}{{ '### Question:\\n' + message.content + '\\n\\n' }}"
    "{% else %}{{ '### Answer:\\n' + message.content + eos_token }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Answer:\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Encoded:
    """One sample as the model sees it."""

    input_ids: np.ndarray  # (T,) int32
    trained: np.ndarray  # (T,) bool: the token carries loss
    truncated: bool
    pieces: list[str]  # (T,) the text each token stands for; empty where nobody will read them
    ends: bool = True  # whether a token ends what the assistant says
    spelled: bool = False  # whether its text spells out a control token

    @property
    def response_tokens(self) -> int:
        """Positions with loss: trained tokens that something precedes."""
        return int(self.trained[1:].sum())

    @property
    def prompt_tokens(self) -> int:
        """All other positions."""
        return len(self.input_ids) - self.response_tokens


def encode(
    turns: list[Turn], tokenizer: Any, max_length: int, tools: list[dict[str, Any]] | None = None
) -> Encoded:
    """Tokens and trained positions of a conversation; raises Unusable with the reason."""
    if turns[0].role == "text":
        return _encode_text(turns[0].content, tokenizer, max_length)
    written = write(turns, tokenizer, tools or None)
    rendered, text = written.rendered, written.text
    found, offsets = controls_of(tokenizer).encode(rendered.text, written.spelled)
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    trained = np.zeros(len(starts), dtype=bool)
    for begin, end in rendered.spans:
        trained |= (starts < end) & (ends > begin)  # a token on the border says some of it
    sample = Encoded(
        input_ids=np.array(found[:max_length], dtype=np.int32),
        trained=trained[:max_length],
        truncated=len(starts) > max_length,
        pieces=_pieces(text, starts)[:max_length],
        ends=rendered.ends,
        spelled=written.spelled,
    )
    if not trained[1:].any():
        raise Unusable(
            "the model's chat template shows nothing of what the assistant says",
            "use another model, or one with another template",
        )
    if sample.response_tokens == 0:
        raise Unusable(
            f"its response lies beyond max_length: the prompt alone takes {max_length} tokens",
            "raise --max-length or shorten the prompt",
        )
    return sample


def _encode_text(text: str, tokenizer: Any, max_length: int) -> Encoded:
    """All of a text is trained, as in pre-training, with the tokenizer's own marks and its end."""
    if name := controls_of(tokenizer).spelled([text]):
        raise Unusable(
            f"it spells out the control token {name}, which only a chat template may write",
            "give conversations as messages; an end of text is added without it",
        )
    encoding = tokenizer(text, return_offsets_mapping=True, return_attention_mask=False)
    ids = list(encoding["input_ids"])
    offsets = encoding["offset_mapping"]
    # The marks that a tokenizer adds at the end stand for no text, and say (0, 0).
    last = max((n for n, (_, end) in enumerate(offsets) if end), default=0)
    starts = [begin if n <= last else len(text) for n, (begin, _) in enumerate(offsets)]
    pieces = _pieces(text, np.array(starts, dtype=np.int64))
    if ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
        pieces.append(tokenizer.eos_token)
    if len(ids) < 2:
        raise Unusable("it is a text of one token", "nothing can be learned from it alone")
    return Encoded(
        input_ids=np.array(ids[:max_length], dtype=np.int32),
        trained=np.ones(min(len(ids), max_length), dtype=bool),
        truncated=len(ids) > max_length,
        pieces=pieces[:max_length],
    )


def _pieces(text: str, starts: np.ndarray) -> list[str]:
    """The text from each token's start to the next one's.

    Of tokens that share one character (pieces of its bytes), the last carries it.
    """
    borders = [0, *starts[1:].tolist(), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(borders)]
