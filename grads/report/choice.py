"""What a report says of a selection: counts, pictures, examples with their reasons, decisions."""

from dataclasses import replace
from typing import Any

import numpy as np

from grads.report import pictures
from grads.report.markup import code, figure, line, lines, section, table, text, told
from grads.report.run import differing
from grads.selection.decisions import decisions, stale, why_in_words
from grads.selection.pool import SIGNALS, TOPIC, Pool
from grads.selection.preview import Preview, coverage, emptied, preview
from grads.selection.reasons import reasons
from grads.selection.record import SelectionRecord, kept_of, read_selection
from grads.store.runs import Run
from grads.text import Sentence

KEPT, ASIDE = 15, 10  # examples that are shown
LONGEST = 1_500  # characters of a turn
WHO = {
    "user": Sentence("Question"),
    "assistant": Sentence("Answer"),
    "tool": Sentence("Result of a tool"),
    "text": Sentence("Text"),
}


def saved(pool: Pool, name: str) -> tuple[SelectionRecord, Preview]:
    """The selection of this name as it was saved, with what there is to say of it.

    Raises SelectionError where it cannot be worked out any more.
    """
    record, table = read_selection(pool.run, name)
    shown = preview(pool, record.options)
    return record, replace(shown, kept=pool.mask(kept_of(table)))


def chosen(pool: Pool, record: SelectionRecord, shown: Preview) -> str:
    """How many are kept, by what options, and what is to be known of it."""
    options = differing(record.options, without=("pins", "excluded"))
    since = [str(made.sample_id) for made in stale(pool.run, record.name)]
    remarks = [*map(Sentence, record.notes), *map(Sentence, record.warnings)]
    if record.scores_sha256 not in ("", pool.scores_sha256):
        remarks.append(Sentence("the run's scores are others than it was chosen by"))
    if since:
        remarks.append(
            Sentence("people have decided otherwise since about row {rows}", rows=", ".join(since))
        )
    return section(
        Sentence("The selection {name}", name=record.name),
        table(("", ""), _counts(record, shown)),
        table((Sentence("option"), Sentence("here"), Sentence("by default")), options),
        lines(remarks),
    )


def _counts(record: SelectionRecord, shown: Preview) -> list[tuple[str, str]]:
    samples, tokens, random = record.samples, record.response_tokens, shown.random_signal_share
    kept = Sentence("{kept:,} of {all:,}", kept=samples.kept, all=samples.pool)
    of_tokens = Sentence(
        "{kept:,} of {all:,}; a random subset keeps {random:,}",
        kept=tokens.kept,
        all=tokens.pool,
        random=tokens.random,
    )
    signal = Sentence(
        "{share:.1%}; random subsets {low:.1%} to {high:.1%}",
        share=shown.signal_share,
        low=random.low,
        high=random.high,
    )
    rows: list[tuple[str, str]] = [
        (Sentence("examples kept"), kept),
        (Sentence("answer tokens"), of_tokens),
        (Sentence("signal share"), signal),
    ]
    if shown.stability is not None:
        rows.append((Sentence("kept again under another seed"), f"{shown.stability:.0%}"))
    return rows


def drawn(pool: Pool, shown: Preview | None) -> str:
    """The distribution of the signal, and how the topics are covered."""
    signal = pictures.distribution(
        pool.numbers["signal"],
        None if shown is None else shown.kept,
        Sentence(SIGNALS["signal"].label),
    )
    parts = [figure(signal, Sentence(SIGNALS["signal"].help))]
    if shown is not None and TOPIC in pool.categories:
        rows = coverage(pool, shown, TOPIC)
        gone = ", ".join(map(told, emptied(rows)))
        caption = Sentence(
            "Topics, by the terms that set their texts apart or by the names given to them."
        )
        if gone:
            left = Sentence("Nothing is kept of: {topics}.", topics=gone)
            caption = Sentence("{sentence} {next}", sentence=caption, next=left)
        parts.append(figure(pictures.coverage(rows, len(pool), shown.count), caption))
    return section(Sentence("Pictures"), *parts)


def examples(pool: Pool, shown: Preview | None) -> str:
    """Kept ones and some set aside, evenly from the best of each to the last; else by signal."""
    if shown is None:
        order = pool.ordered("signal", np.ones(len(pool), bool))
        return section(
            Sentence("Examples"),
            line(Sentence("Evenly from the strongest learning signal to the weakest."), "soft"),
            *_cards(pool, _evenly(order, KEPT), None),
        )
    by_score = np.argsort(-np.nan_to_num(shown.ranking.score, nan=-np.inf), kind="stable")
    parts = []
    for title, mask, most in (
        (Sentence("Kept examples: {shown:,} of {all:,}"), shown.kept, KEPT),
        (Sentence("Set aside examples: {shown:,} of {all:,}"), ~shown.kept, ASIDE),
    ):
        positions = _evenly(by_score[mask[by_score]], most)
        head = title.filled(shown=len(positions), all=int(mask.sum()))
        note = line(Sentence("Evenly from the best score to the last."), "soft")
        cards = _cards(pool, positions, shown)
        parts.append(section(head, note, *cards) if cards else "")
    return "\n".join(parts)


def _evenly(order: np.ndarray, most: int) -> np.ndarray:
    """At most so many of an order, its first and last among them."""
    if len(order) <= most:
        return order
    return np.asarray(order[np.linspace(0, len(order) - 1, most).astype(int)])


def _cards(pool: Pool, positions: np.ndarray, shown: Preview | None) -> list[str]:
    ids = pool.scores.sample_id[positions].tolist()
    samples = pool.run.read_samples(ids)
    whys = reasons(pool, shown, positions) if shown is not None else [""] * len(ids)
    topics = pool.cluster_names() if pool.cluster is not None else []
    cards = []
    for sample, position, reason in zip(ids, positions.tolist(), whys, strict=True):
        facts = [
            Sentence("row {row}", row=sample),
            Sentence("signal {value:.2f}", value=pool.numbers["signal"][position]),
            Sentence("loss {value:.2f}", value=pool.scores.loss[position]),
            Sentence("{number:,} answer tokens", number=pool.scores.response_tokens[position]),
        ]
        if pool.cluster is not None:
            facts.append(topics[pool.cluster[position]])
        aside = shown is not None and not shown.kept[position]
        turns = "".join(_turn(turn) for turn in samples[sample]["turns"])
        cards.append(
            f'<article{" class=aside" if aside else ""}><div class="who">'
            f"{text(' · '.join(map(told, facts)))}</div>"
            + (f"<div><b>{text(reason)}</b></div>" if reason else "")
            + f"{turns}</article>"
        )
    return cards


def _turn(turn: dict[str, Any]) -> str:
    said = {
        Sentence("Reasoning"): turn.get("reasoning"),
        WHO.get(turn["role"], Sentence("Instruction to the model")): turn["content"],
        Sentence("Calls a tool"): turn.get("tool_calls"),
    }
    return "".join(_said(who, words) for who, words in said.items() if words)


def _said(who: str, words: str) -> str:
    more = len(words) - LONGEST
    shown = words
    if more > 0:
        shown = f"{words[:LONGEST]}… {told(Sentence('({number:,} more characters)', number=more))}"
    return f'<div class="who">{text(who)}</div><div class="turn" dir="auto">{text(shown)}</div>'


def decided(run: Run) -> str:
    """What people decided about single examples."""
    says = {"pin": Sentence("always kept"), "exclude": Sentence("never kept")}
    rows = [
        (
            made.sample_id,
            says[made.decision],
            why_in_words(made.reason),
            made.reviewer,
            made.time,
        )
        for made in decisions(run).values()
    ]
    head = (
        *(Sentence("row"), Sentence("decision"), Sentence("reason")),
        *(Sentence("by"), Sentence("time (UTC)")),
    )
    return section(Sentence("Decisions by people"), table(head, rows))


def repeated(commands: list[str]) -> str:
    """The lines that make all of it again."""
    return section(Sentence("To repeat it"), code("\n".join(commands)))
