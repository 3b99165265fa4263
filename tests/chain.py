"""What tests of the whole chain share: a tiny local model, data, real jobs and commands."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tiny

from grads.config.run import RunConfig
from grads.jobs import processes as jobs
from grads.store.runs import ACTIVE, JobFolder, Status

ROOT = Path(__file__).parents[1]
PATIENCE = 180  # seconds for what takes a few on a machine without other work
WORDS = (
    "the heart lung blood fever cough pain rest drink water sleep doctor child skin rash".split()
)


def save_tiny_model(folder: Path) -> None:
    """A tiny Llama with a word-level tokenizer and no chat template, as a local folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = ["<pad>", "<s>", "</s>", "<unk>", "#", "Question", "Answer", ":", ".", "?"]
    vocabulary = {word: i for i, word in enumerate([*marks, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    tiny.make_model("llama-tied").save_pretrained(folder)


def write_data(path: Path, n: int = 60) -> None:
    """Rows of mixed length with an extra column, odd spacing, and two that cannot be used."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(n):
        question = " ".join(rng.choice(WORDS, rng.integers(3, 12))) + "?"
        answer = " ".join(rng.choice(WORDS, rng.integers(1, 40))) + "."
        lines.append(f'{{"question":  "{question}", "answer": "{answer}", "age": {i % 7}}}')
    lines[3] = '{"question": "the heart?", "answer": ""}'
    lines[8] = '"just text"'
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def config_for(place: Path, **values) -> RunConfig:
    settings = {
        "dataset": str(place / "data.jsonl"),
        "model": str(place / "model"),
        "max_length": 64,
        "batch_size": 4,
        "batch_tokens": 128,
        "lora_rank": 4,
        "heldout": 5,
    }
    return RunConfig.parse(settings | values)


def until(
    condition: Callable[[], Any],
    what: str,
    seconds: float = PATIENCE,
    during: Callable[[], object] = lambda: True,
    pause: float = 0.05,
) -> Any:
    """Wait for the condition, and return what it returned; fail after `seconds`, or once what must
    be so `during` the wait no longer is.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        # What was awaited may have come between the two looks, and ended the one thing it needed.
        assert during() or condition(), f"can no longer come: {what}"
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(pause)
    return found


def at_work(run: JobFolder) -> bool:
    """Whether the run's job is queued or runs."""
    return jobs.observe(run).state in ACTIVE


def wait_for(run: JobFolder, *states: str, seconds: float = PATIENCE) -> Status:
    """The run's status once it is in one of the states."""

    def reached() -> Status | None:
        status = jobs.observe(run)
        return status if status.state in states else None

    try:
        return until(reached, " or ".join(states), seconds)
    except AssertionError as error:
        log = run.log_file.read_text() if run.log_file.exists() else "no log"
        raise AssertionError(f"{error}, but {jobs.observe(run)}: {log}") from None


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; it may still wait for its parent to take note."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def command(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "grads", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        **kwargs,
    )
