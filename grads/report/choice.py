"""What a report says of a selection: counts, pictures, examples with their reasons, decisions."""

from dataclasses import replace
from typing import Any

import numpy as np

from grads.report import pictures
from grads.report.markup import code, figure, line, lines, section, table, text
from grads.report.run import differing
from grads.selection.decisions import decisions, stale
from grads.selection.pool import SIGNALS, TOPIC, Pool
from grads.selection.preview import Preview, coverage, emptied, preview
from grads.selection.reasons import reasons
from grads.selection.record import SelectionRecord
from grads.store.files import digest
from grads.store.runs import Run

KEPT, ASIDE = 15, 10  # examples that are shown
LONGEST = 1_500  # characters of a turn
WHO = {"user": "Question", "assistant": "Answer", "tool": "Result of a tool", "text": "Text"}


def saved(pool: Pool, record: SelectionRecord) -> Preview:
    """The selection as it was saved, with what there is to say of it.

    Raises SelectionError where it cannot be worked out any more.
    """
    shown = preview(pool, record.options)
    return replace(shown, kept=pool.kept(record.name))


def chosen(pool: Pool, record: SelectionRecord, shown: Preview) -> str:
    """How many are kept, by what options, and what is to be known of it."""
    tokens = record.response_tokens
    rows = [
        ("examples kept", f"{record.samples.kept:,} of {record.samples.pool:,}"),
        (
            "answer tokens",
            f"{tokens.kept:,} of {tokens.pool:,}; a random subset keeps {tokens.random:,}",
        ),
        (
            "signal share",
            f"{shown.signal_share:.1%}; random subsets {shown.random_signal_share.low:.1%} to"
            f" {shown.random_signal_share.high:.1%}",
        ),
    ]
    if shown.stability is not None:
        rows.append(("kept again under another seed", f"{shown.stability:.0%}"))
    options = differing(record.options, without=("pins", "excluded"))
    since = [str(made.sample_id) for made in stale(pool.run, record.name)]
    remarks = [*record.notes, *record.warnings]
    if record.scores_sha256 not in ("", digest(pool.run.scores_file)):
        remarks.append("the run's scores are others than it was chosen by")
    if since:
        remarks.append(f"people have decided otherwise since about row {', '.join(since)}")
    return section(
        f"The selection {record.name}",
        table(("", ""), rows),
        table(("option", "here", "by default"), options),
        lines(remarks),
    )


def drawn(pool: Pool, shown: Preview | None) -> str:
    """The distribution of the signal, and how the topics are covered."""
    signal = pictures.distribution(
        pool.numbers["signal"],
        None if shown is None else shown.kept,
        SIGNALS["signal"].label,
    )
    parts = [figure(signal, SIGNALS["signal"].help)]
    if shown is not None and TOPIC in pool.categories:
        rows = coverage(pool, shown, TOPIC)
        gone = ", ".join(emptied(rows))
        caption = "Topics, by the terms that set their texts apart or by the names given to them."
        parts.append(
            figure(
                pictures.coverage(rows, len(pool), shown.count),
                caption + (f" Nothing is kept of: {gone}." if gone else ""),
            )
        )
    return section("Pictures", *parts)


def examples(pool: Pool, shown: Preview | None) -> str:
    """Kept ones and some set aside, evenly from the best of each to the last; else by signal."""
    if shown is None:
        order = pool.ordered("signal", np.ones(len(pool), bool))
        return section(
            "Examples",
            line("Evenly from the strongest learning signal to the weakest.", "soft"),
            *_cards(pool, _evenly(order, KEPT), None),
        )
    by_score = np.argsort(-np.nan_to_num(shown.ranking.score, nan=-np.inf), kind="stable")
    parts = []
    for title, mask, most in (("Kept", shown.kept, KEPT), ("Set aside", ~shown.kept, ASIDE)):
        positions = _evenly(by_score[mask[by_score]], most)
        head = f"{title} examples: {len(positions):,} of {int(mask.sum()):,}"
        note = line("Evenly from the best score to the last.", "soft")
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
    told = reasons(pool, shown, positions) if shown is not None else [""] * len(ids)
    topics = pool.cluster_names() if pool.cluster is not None else []
    cards = []
    for sample, position, reason in zip(ids, positions.tolist(), told, strict=True):
        facts = [
            f"row {sample}",
            f"signal {pool.numbers['signal'][position]:.2f}",
            f"loss {pool.scores.loss[position]:.2f}",
            f"{pool.scores.response_tokens[position]:,} answer tokens",
        ]
        if pool.cluster is not None:
            facts.append(topics[pool.cluster[position]])
        aside = shown is not None and not shown.kept[position]
        turns = "".join(_turn(turn) for turn in samples[sample]["turns"])
        cards.append(
            f'<article{" class=aside" if aside else ""}><div class="who">'
            f"{text(' · '.join(facts))}</div>"
            + (f"<div><b>{text(reason)}</b></div>" if reason else "")
            + f"{turns}</article>"
        )
    return cards


def _turn(turn: dict[str, Any]) -> str:
    said = {
        "Reasoning": turn.get("reasoning"),
        WHO.get(turn["role"], "Instruction to the model"): turn["content"],
        "Calls a tool": turn.get("tool_calls"),
    }
    return "".join(_said(who, words) for who, words in said.items() if words)


def _said(who: str, words: str) -> str:
    more = len(words) - LONGEST
    shown = words if more <= 0 else f"{words[:LONGEST]}… ({more:,} more characters)"
    return f'<div class="who">{who}</div><div class="turn" dir="auto">{text(shown)}</div>'


def decided(run: Run) -> str:
    """What people decided about single examples."""
    rows = [
        (
            made.sample_id,
            {"pin": "always kept", "exclude": "never kept"}[made.decision],
            made.reason,
            made.reviewer,
            made.time,
        )
        for made in decisions(run).values()
    ]
    head = ("row", "decision", "reason", "by", "time (UTC)")
    return section("Decisions by people", table(head, rows))


def repeated(commands: list[str]) -> str:
    """The lines that make all of it again."""
    return section("To repeat it", code("\n".join(commands)))
