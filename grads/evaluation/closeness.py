"""How close a written answer comes to its reference, in [0, 1].

Words are compared without regard to case, width of letters and punctuation; where a script writes
no blanks between words (Chinese, Japanese), each character counts as one.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any

CHARACTER = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"  # Japanese syllables, Chinese characters
WORD = re.compile(rf"{CHARACTER}|(?:(?!{CHARACTER})\w)+")


def words(text: str) -> list[str]:
    """A text's words, in order."""
    return WORD.findall(_plain(text))


def exact(written: str, reference: str) -> float:
    """1 where both are the same but for case, blanks, and a full stop at the end."""
    return float(_bare(written) == _bare(reference))


def token_f1(written: str, reference: str) -> float:
    """Harmonic mean of the shares of words that both have, each as often as both have it."""
    ours, theirs = words(written), words(reference)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def rouge_l(written: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words, as the package rouge-score has it."""
    return float(_scorer().score(reference, written)["rougeL"].fmeasure)


class _Words:
    """As the scorer asks for words; its own way knows the letters a to z alone."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _bare(text: str) -> str:
    return " ".join(_plain(text).split()).rstrip(" .。")
