"""A conversation -> token ids and the mask of trained tokens, by the model's chat template.

Only the assistant's turns carry loss, each with its end-of-turn token. Where a model has no chat
template, `PLAIN_TEMPLATE` stands in:

    ### System:\\n...\\n\\n### Question:\\n...\\n\\n### Answer:\\n...<eos>
"""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jinja2.exceptions import TemplateError

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


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str  # system, user or assistant
    content: str


class Unusable(Exception):  # noqa: N818 - a verdict on one row, collected, never shown as an error
    """A row that cannot be trained on: `reason`, and `advice` on what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.reason, self.advice = reason, advice


@dataclass(frozen=True)
class Encoded:
    """One sample as the model sees it."""

    input_ids: np.ndarray  # (T,) int32
    trained: np.ndarray  # (T,) bool: the token carries loss
    truncated: bool
    pieces: list[str]  # (T,) the text each token stands for; empty where nobody will read them

    @property
    def response_tokens(self) -> int:
        """Positions with loss: trained tokens that something precedes."""
        return int(self.trained[1:].sum())

    @property
    def prompt_tokens(self) -> int:
        """All other positions."""
        return len(self.input_ids) - self.response_tokens


def encode(turns: list[Turn], tokenizer: Any, max_length: int) -> Encoded:
    """Tokens and trained positions of a conversation; raises Unusable with the reason."""
    text, spans = render(turns, tokenizer)
    encoding = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
    )
    offsets = np.array(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    starts, ends = offsets.T
    trained = np.zeros(len(starts), dtype=bool)
    for begin, end in spans:
        trained |= (starts < end) & (ends > begin)  # a token on the border says some of it
    ids = np.array(encoding["input_ids"][:max_length], dtype=np.int32)
    pieces = _pieces(text, starts)[:max_length]
    sample = Encoded(ids, trained[:max_length], len(starts) > max_length, pieces)
    if sample.response_tokens == 0:
        raise Unusable(
            f"its response lies beyond max_length: the prompt alone takes {max_length} tokens",
            "raise --max-length or shorten the prompt",
        )
    return sample


def _pieces(text: str, starts: np.ndarray) -> list[str]:
    """The text from each token's start to the next one's.

    Of tokens that share one character (pieces of its bytes), the last carries it.
    """
    borders = [0, *starts[1:].tolist(), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(borders)]


def render(turns: list[Turn], tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as one text, and the character spans of what the assistant says.

    A span begins where generation would begin and ends with the end-of-turn token. Raises
    Unusable where the template refuses the conversation, or changes earlier text when turns are
    added: a trained prefix would then not be what generation sees.
    """
    messages = [turn._asdict() for turn in turns]
    text = _apply(tokenizer, messages)
    spans = []
    for n, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        prompt = _apply(tokenizer, messages[:n], add_generation_prompt=True) if n else ""
        upto = text if n == len(turns) - 1 else _apply(tokenizer, messages[: n + 1])
        if not (text.startswith(upto.rstrip()) and upto.startswith(prompt)):
            raise Unusable(
                f"the model's chat template rewrites earlier text when turn {n + 1} is added",
                "use single-turn samples, or a model whose template keeps its prefix",
            )
        if n == 0:  # nothing to generate from: the header before what it says is not its own
            prompt = upto[: max(upto.find(turn.content.strip()), 0)]
        # White space that a template puts behind the end-of-turn token is not the model's to say.
        end = max(len(upto.rstrip()), len(prompt))
        spans.append((len(prompt), end))
    return text, spans


def _apply(tokenizer: Any, messages: list[dict[str, str]], **kwargs: Any) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **kwargs))
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        raise Unusable(
            f"the model's chat template refuses it: {error}",
            "change the order or roles of its turns, or use another model",
        ) from None
