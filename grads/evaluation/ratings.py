"""Blind ratings: which of two answers a person finds better, without knowing who wrote which."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.stats import binomtest

from grads.errors import RunError
from grads.evaluation import texts
from grads.evaluation.result import Answers
from grads.store.folders import Evaluation
from grads.store.records import Stored

Better = Literal["left", "right", "equal"]


@dataclass(frozen=True)
class Pair:
    """Two arms' answers to one prompt, side by side."""

    prompt: int  # its place in answers.json
    left: str  # the arm whose answer stands there
    right: str


class Rating(Stored):
    """A line of ratings.jsonl: what a person found of a pair."""

    prompt: int
    left: str
    right: str
    better: Better
    rater: str
    time: str


@dataclass(frozen=True)
class Tally:
    """How often either of two arms was preferred, each pair and rater counted once."""

    first: str
    second: str
    first_better: int
    second_better: int
    equal: int

    @property
    def p(self) -> float:
        """Two-sided sign test of those that are not equal; 1 where there are none."""
        decided = self.first_better + self.second_better
        return float(binomtest(self.first_better, decided).pvalue) if decided else 1.0


def pairs(answers: Answers, seed: int = 0) -> list[Pair]:
    """Every prompt with every two arms that answered it differently, in an order and on sides that
    a seed draws: the same each time, so that a rating can go on."""
    found = []
    draw = np.random.default_rng(seed)
    for number, prompt in enumerate(answers.prompts):
        for two in combinations(prompt.answers, 2):
            sides = [two[i] for i in draw.permutation(2)]
            if prompt.answers[two[0]].strip() != prompt.answers[two[1]].strip():
                found.append(Pair(number, *sides))
    return [found[i] for i in draw.permutation(len(found))]


def rate(evaluation: Evaluation, pair: Pair, better: Better, rater: str) -> None:
    """Note which answer of a pair a person finds better; the last word counts.

    Raises RunError where the evaluation has no such pair, and where it cannot be written.
    """
    answers = Answers.read(evaluation.answers_file)
    if pair not in pairs(answers):
        raise RunError(f"evaluation '{evaluation.id}' has no such pair of answers to rate")
    made = Rating.checked(
        {
            "prompt": pair.prompt,
            "left": pair.left,
            "right": pair.right,
            "better": better,
            "rater": rater.strip(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        evaluation.ratings_file,
    )
    evaluation.rate(made.as_json())


def ratings(evaluation: Evaluation) -> dict[tuple[str, Pair], Better]:
    """The last word of each rater on each pair."""
    found: dict[tuple[str, Pair], Better] = {}
    for row in evaluation.read_ratings():
        one = Rating.checked(row, evaluation.ratings_file)
        found[one.rater, Pair(one.prompt, one.left, one.right)] = one.better
    return found


def tallies(rated: dict[tuple[str, Pair], Better]) -> list[Tally]:
    """A count for every two arms that were compared, the most compared first."""
    counts: dict[tuple[str, str], list[int]] = {}
    for (_, pair), better in rated.items():
        first, second = sorted((pair.left, pair.right))
        preferred = {"left": pair.left, "right": pair.right}.get(better)
        row = counts.setdefault((first, second), [0, 0, 0])
        row[2 if preferred is None else int(preferred == second)] += 1
    made = [Tally(*arms, *row) for arms, row in counts.items()]
    return sorted(made, key=lambda t: -(t.first_better + t.second_better + t.equal))


def sentence(tally: Tally) -> str:
    """A count in words."""
    arms = ((tally.first, tally.first_better), (tally.second, tally.second_better))
    (first, most), (second, least) = sorted(arms, key=lambda arm: -arm[1])
    if most == least:
        told = texts.EVEN_EQUAL if tally.equal else texts.EVEN
    else:
        told = texts.PREFERRED_EQUAL if tally.equal else texts.PREFERRED
    said = told.format(
        first=first,
        second=second,
        most=most,
        least=least,
        equal=tally.equal,
        decided=most + least,
        p=f"{tally.p:.2g}",
    )
    if most == least or tally.p < 0.05:
        return said
    return texts.BY_CHANCE.format(preference=said)


def open_pairs(answers: Answers, rated: Iterable[tuple[str, Pair]], rater: str) -> list[Pair]:
    """The pairs that a person has not rated yet, in order."""
    done = {pair for who, pair in rated if who == rater.strip()}
    return [pair for pair in pairs(answers) if pair not in done]
