"""Texts that are damaged, not of a subject: keyboard mash, mojibake, lost characters, odd spacing.

What counts is how much of a text looks so, by marks that no language writes. A foreign language,
code or formulas are none of it.
"""

import re
from functools import lru_cache
from itertools import pairwise

LEAST_WORDS = 4  # that must look so
ODD = 0.1  # share of the words that look so from which a text is broken
DAMAGED = 0.005  # the same of its characters
WORD = re.compile(r"[^\W_]+")
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # of a keyboard
BESIDE = {a + b for row in ROWS for a, b in pairwise(row)}
BESIDE |= {pair[::-1] for pair in BESIDE}
MASHED = re.compile(r".*([a-z])\1{3}.*|[bcdfghjklmnpqrstvwxz]{6,}")  # vaccinnnnn, jfkdls
MISREAD = re.compile(r"(?=.{4})[a-z]+[013456][a-z]+([013456][a-z]+)?")  # c0mmon, he1p
# UTF-8 that was read as Latin-1 or Windows-1252, once or twice, and characters that were lost.
DAMAGE = re.compile(
    r"[ÂÃ][\u0080-\u00bf\u0152-\u0178\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
    r"|â[\u0080-\u009f\u2018-\u203a\u20ac\u2122]|\ufffd|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
ALONE = re.compile(r"(?:(?<![^\W\d_])[a-z]\s+){5,}")  # s p a c e d


def is_broken(text: str) -> bool:
    """Whether much of a text is damaged."""
    damaged = len(DAMAGE.findall(text))
    if damaged > 1 and damaged >= DAMAGED * len(text):
        return True
    text = text.lower()
    words = WORD.findall(text)
    odd = sum(map(_looks_odd, words)) + sum(len(run.split()) for run in ALONE.findall(text))
    return odd >= max(LEAST_WORDS, ODD * len(words))


@lru_cache(maxsize=2**16)  # most of a pool's words are a few
def _looks_odd(word: str) -> bool:
    """Whether fingers or a bad scan made a word, not a head: asdf, jkjk, ffff, sdfkjh, c0mmon."""
    if len(word) < 4 or not word.isascii():
        return False
    if MASHED.fullmatch(word) or MISREAD.fullmatch(word):
        return True
    return all(a + b in BESIDE for a, b in pairwise(word))
