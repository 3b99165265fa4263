"""From a data set to a subset, by the Python API.

python examples/choose.py DATA OUT [MODEL]

DATA is a file, folder or hub id, OUT a .jsonl file that does not exist yet, MODEL a hub id, a
folder, a GGUF file, or the demo model. In a checkout that is not installed, set PYTHONPATH=. first.
"""

import sys
from pathlib import Path

from grads import api


def main(data: str, out: str, model: str = "demo") -> None:
    """Score every sample, keep a tenth, and write it in the source's own lines."""
    run = api.create_run(api.RunConfig(dataset=data, model=model, max_length=256))
    api.start_run(run)  # a process of its own, which would outlive this one
    api.wait(run)
    pool = api.load_pool(run)
    print(f"{len(pool)} samples scored in {run.path}")
    record = api.select_samples(run, "tenth", api.SelectionConfig(ratio=0.1), pool)
    tokens = record.response_tokens
    print(f"{tokens.kept} response tokens kept, a random tenth has {tokens.random}")
    made = api.export_selection(run, "tenth", "jsonl", Path(out))
    print(f"{made['rows']} rows written to {made['path']}, loaded back and counted")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except api.GradsError as error:  # says what was wrong and what to do
        sys.exit(f"error: {error}")
