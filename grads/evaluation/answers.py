"""What a model writes to held-out prompts, and how close it comes where the reference is short."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from grads.data.spelled import controls_of, write
from grads.data.turns import Turn
from grads.errors import Stopped
from grads.evaluation.closeness import words
from grads.evaluation.cost import ANSWER_TOKENS, PROMPTS, SHORT_TOKENS, answer_passes
from grads.evaluation.measure import Probe
from grads.evaluation.metrics import METRICS, Sums


def asks(turns: list[Turn]) -> bool:
    """Whether a conversation asks something that words answer."""
    return turns[0].role not in ("assistant", "text") and bool(words(turns[-1].content))


def positions(heldout: Probe) -> list[int]:
    """Positions of the first held-out samples that ask something, one of each file in turn."""
    before: Counter[int] = Counter()  # of each file
    turns = []
    for i, file in enumerate(heldout.source):
        if asks(heldout.turns[i]):
            turns.append((before[file], i))
            before[file] += 1
    return sorted(i for _, i in sorted(turns)[:PROMPTS])


def shown(heldout: Probe) -> dict[int, int]:
    """Positions of the samples whose answers people are shown, and the token passes of writing the
    longest answer to each."""
    lengths = heldout.samples.lengths
    return {i: answer_passes(int(lengths[i]), ANSWER_TOKENS) for i in positions(heldout)}


def short_references(probe: Probe, tokenizer: Any, limit: int) -> dict[int, int]:
    """Of each file the first `limit` samples with a short reference: their positions, and the token
    passes that writing an answer takes.

    Short is a reference of at most SHORT_TOKENS tokens: what is longer can be said in many ways,
    and sharing words with it says little.
    """
    found: dict[int, int] = {}
    taken: Counter[int] = Counter()  # of each file
    for i, file in enumerate(probe.source):
        if taken[file] == limit or not asks(probe.turns[i]):
            continue
        reference = len(
            tokenizer(probe.turns[i][-1].content, add_special_tokens=False)["input_ids"]
        )
        if reference <= SHORT_TOKENS:
            taken[file] += 1
            found[i] = answer_passes(int(probe.samples.lengths[i]), reference)
    return found


def write_answers(
    model: Any,
    tokenizer: Any,
    probe: Probe,
    passes: dict[int, int],
    *,
    report: Callable[[int], None] = lambda passes: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, str]:
    """What a model writes to the samples at these positions; each reports its `passes`.

    Raises Stopped between two answers.
    """
    written = {}
    for i, work in passes.items():
        if should_stop():
            raise Stopped
        written[i] = write_answer(model, tokenizer, probe.turns[i])
        report(work)
    return written


def closeness(probe: Probe, written: dict[int, str]) -> dict[str, Sums]:
    """Every metric of written answers by sample, by its name; each counts its samples once."""
    found = {}
    for metric in METRICS:
        if metric.of_answer and written:
            sums, asked = np.zeros(len(probe)), np.zeros(len(probe))
            for i, text in written.items():
                sums[i] = metric.of_answer(text, probe.turns[i][-1].content)
                asked[i] = 1.0
            found[metric.name] = (sums, asked)
    return found


@torch.inference_mode()
def write_answer(model: Any, tokenizer: Any, turns: list[Turn]) -> str:
    """What the model says, greedily, in the place of the last answer; at most ANSWER_TOKENS."""
    whole = write(turns, tokenizer)
    before = whole.rendered.text[: whole.rendered.spans[-1][0]]
    prompt, _ = controls_of(tokenizer).encode(before, whole.spelled)
    ids = torch.tensor([prompt], device=next(model.parameters()).device)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    room = ANSWER_TOKENS if limit is None else min(ANSWER_TOKENS, limit - ids.shape[1])
    if room < 1:
        return ""
    own = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    settings = GenerationConfig(
        max_new_tokens=room,
        do_sample=False,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.eos_token_id,
    )
    written = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
    )
    return str(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)).strip()
