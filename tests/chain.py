"""What tests of the whole chain share: a tiny local model, data, real jobs and commands."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tiny

from grads.config.run import RunConfig
from grads.jobs import processes as jobs
from grads.store.runs import JobFolder, Status

ROOT = Path(__file__).parents[1]
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


def wait_for(run: JobFolder, *states: str, seconds: float = 180) -> Status:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = jobs.observe(run)
        if status.state in states:
            return status
        time.sleep(0.05)
    raise AssertionError(f"still {status} after {seconds} s: {run.log_file.read_text()}")


def command(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "grads", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        **kwargs,
    )
