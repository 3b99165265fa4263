"""What memory a whole run of many rows takes, stage by stage.

PYTHONPATH=. python tests/large_job.py FOLDER ROWS WORDS [stub] [OPTION=VALUE ...] makes seeded rows
of so many words (a tenth are near-copies of others) and a random model of one thin layer in the
folder, runs the job of a run with them, and prints, as JSON, for each stage the most memory of the
process and all that help it, in MB: `own`, and `mapped` files, which leave memory when it is short;
`together` is the most of both at once, `begins` what it was at first. With `stub`, numbers are
drawn in the place of the scoring. OPTIONs are settings of the run.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from grads.config.run import RunConfig
from grads.store.runs import Run

KNOWN = 500  # words
COPIES = 0.1  # share of rows that are near-copies
SAMPLED_S = 0.05


def words() -> list[str]:
    """The words that rows are made of."""
    rng = Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return sorted({"".join(rng.choices(letters, k=6)) for _ in range(KNOWN)})


def rows(count: int, length: int) -> Iterator[dict[str, str]]:
    """A question of a third of so many words, and an answer of the others, a row."""
    rng, known = Random(1), words()
    said = rng.choices(known, k=length)
    for _ in range(count):
        if rng.random() < COPIES:
            said = [*said[:-1], rng.choice(known)]
        else:
            said = rng.choices(known, k=rng.randint(length // 2, length + length // 2))
        third = len(said) // 3
        yield {"question": " ".join(said[:third]), "answer": " ".join(said[third:])}


def save_model(folder: Path) -> None:
    """A random Llama of one thin layer, wide enough that features are projected."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    marks = ["<pad>", "<s>", "</s>", "<unk>", "#", "Question", "Answer", ":"]
    vocabulary = {word: i for i, word in enumerate([*marks, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=258,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def memory(pid: int) -> dict[str, float]:
    """Of a process and all that help it, in MB; what several share counts in each."""
    found = {"own": 0.0, "mapped": 0.0}
    with suppress(psutil.Error, OSError):
        leader = psutil.Process(pid)
        for member in [leader, *leader.children(recursive=True)]:
            status = Path(f"/proc/{member.pid}/status").read_text()
            lines = dict(line.split(":", 1) for line in status.splitlines())
            for name, line in (("own", "RssAnon"), ("mapped", "RssFile")):
                found[name] += int(lines.get(line, "0").split()[0]) / 2**10  # none once it ended
    return found


def work(path: Path, stub: bool) -> int:
    """The run's job, in this process."""
    from grads.engine.passes import Parts
    from grads.engine.scoring import PROJECTED
    from grads.stages import scoring, worker
    from grads.store.columns import MEASURED

    def score_pool(parts: Parts, *args: Any, report: Any, should_stop: Any, **more: Any) -> None:
        def measure(batch: np.ndarray) -> pa.Table:
            rng, n = np.random.default_rng(batch[0]), len(batch)
            drawn = rng.standard_normal(n * PROJECTED, np.float32)
            columns = dict.fromkeys(MEASURED, np.abs(drawn[:n]))
            columns["feature"] = pa.FixedSizeListArray.from_arrays(pa.array(drawn), PROJECTED)
            return pa.table({"sample_id": parts.pool.sample_ids[batch]} | columns)

        parts.write(measure, report=report, should_stop=should_stop)

    if stub:
        scoring.score_pool = score_pool
    return worker.main(Run(path), at_once=True)


def watched(run: Run, stub: bool) -> dict[str, dict[str, int]]:
    """Run the job in a process of its own; by stage, what memory it took."""
    command = [sys.executable, __file__, "work", str(run.path), *(["stub"] if stub else [])]
    stages: dict[str, dict[str, float]] = {}
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            now, stage = memory(process.pid), run.read_status().stage
            if stage:
                now["together"] = sum(now.values())
                most = stages.setdefault(stage, {"begins": now["together"]} | now)
                stages[stage] = most | {name: max(most[name], now[name]) for name in now}
            time.sleep(SAMPLED_S)
    assert run.read_status().state == "finished", run.read_status().error
    return {name: {n: round(mb) for n, mb in most.items()} for name, most in stages.items()}


def main(folder: Path, count: int, length: int, *, options: list[str]) -> None:
    """Make data and model where they are not there, run the job, print what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    data, model, path = folder / f"{count}x{length}.jsonl", folder / "model", folder / "run"
    if not data.exists():
        with data.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(count, length))
    if not model.exists():
        save_model(model)
    shutil.rmtree(path, ignore_errors=True)
    settings = {"dataset": str(data), "model": str(model), "dtype": "float32", "batch_size": 256}
    settings |= dict(option.split("=", 1) for option in options if option != "stub")
    run = Run.create(RunConfig.parse(settings).absolute(), path)
    print(json.dumps(watched(run, "stub" in options), indent=1))


if __name__ == "__main__":
    if sys.argv[1] == "work":
        sys.exit(work(Path(sys.argv[2]), stub="stub" in sys.argv))
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), options=sys.argv[4:])
