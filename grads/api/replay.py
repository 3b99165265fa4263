"""What an export has tokenised anew: general rows, and corrected ones. Loads torch: import it
where needed."""

import json
from typing import Any

from grads.data.beside import read_beside
from grads.data.chat import encode
from grads.data.layouts import Conversation
from grads.data.turns import Turn
from grads.engine.models import load_tokenizer
from grads.errors import RunError
from grads.export.corrections import Encoder
from grads.export.replay import Replay
from grads.store.runs import Run


def read_replay(run: Run, file: str, share: float, seed: int) -> Replay:
    """The usable rows of a file, read as the general samples of an evaluation are.

    Raises DataError where it cannot be read or its columns are of no layout, and RunError where the
    run's tokenizer is not the one that it was made with.
    """
    manifest, tokenizer = run.read_manifest(), load_tokenizer(run.config().model)
    _refuse_other_tokenizer(run, tokenizer)
    source, prepared = read_beside(
        run.config(), file, tokenizer, mapping=manifest.columns, max_length=manifest.longest
    )
    return Replay(source, prepared, manifest.columns, share, seed)


def encoder(run: Run) -> Encoder:
    """What makes the tokens of a conversation as the run would have them.

    Raises RunError as `read_replay` does.
    """
    tokenizer, longest = load_tokenizer(run.config().model), run.read_manifest().longest
    _refuse_other_tokenizer(run, tokenizer)

    def encoded(said: Conversation) -> dict[str, Any]:
        found = encode(said.turns, tokenizer, longest, said.tools)
        lists = {"input_ids": found.input_ids.tolist(), "trained": found.trained.tolist()}
        return vars(found) | lists

    return encoded


def _refuse_other_tokenizer(run: Run, tokenizer: Any) -> None:
    """Where the model has changed since, its tokens are not like those that were scored."""
    there = run.column_names(run.samples_file)
    samples = run.read_table(run.samples_file, ["turns", *({"tools"} & set(there))])
    kept = run.read_table(run.tokens_file, ["input_ids"])["input_ids"][0].as_py()
    first = samples.slice(0, 1).to_pylist()[0]
    turns = [Turn.of(turn) for turn in first["turns"]]
    tools = json.loads(first["tools"]) if first.get("tools") else None
    if encode(turns, tokenizer, run.read_manifest().longest, tools).input_ids.tolist() != kept:
        raise RunError(
            f"the tokenizer of the model '{run.config().model}' is not the one that run {run.id}"
            " was made with: put its files back, or start a new run"
        )
