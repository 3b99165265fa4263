"""The readers under a fuzzer: some hundred cases here, as many as ten minutes allow in full."""

import time

import pytest
from fuzz_readers import MOST_BYTES, check, grown, make

CASES, MINUTES = 300, 10


@pytest.mark.full
def test_no_file_breaks_the_readers(tmp_path, full):
    """Those of `make test` are always the same, those in full always others."""
    seed, until, before = 0, time.monotonic() + 60 * MINUTES, grown()
    if full:
        seed = int(time.time())
    number = 0
    while time.monotonic() < until if full else number < CASES:
        try:
            check(make(seed, number), tmp_path, number)
        except BaseException as error:
            error.add_note(f"tests/fuzz_readers.py --seed {seed} --case {number}")
            raise
        number += 1
    assert grown() - before < MOST_BYTES


def test_the_cases_end_in_every_way(tmp_path):
    """Else they say little: too damaged, or hardly at all."""
    ends = [check(make(1, number), tmp_path, number) for number in range(100)]
    assert len(set(ends)) == 3


@pytest.mark.parametrize("number", [0, 7, 99])
def test_a_case_is_made_again_by_its_seed_and_number(number):
    assert make(5, number) == make(5, number)
    assert make(5, number) != make(6, number)
