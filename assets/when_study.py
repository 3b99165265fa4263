"""How alike gradients taken during, after and before the warm-up rank the same samples.

    make study-when DATA=FOLDER     # FOLDER/medicine
    make study-when                 # only print what has been found so far

After a whole epoch is what the others are held against; a second seed of it says how much of a
difference is nothing but luck. It goes on where it was ended: docs/study/when/overlap.json holds
what is known of each setting, the runs lie in build/study/when.
"""

import argparse
from pathlib import Path
from typing import Any

import study

from grads import api
from grads.config.run import RunConfig
from grads.selection.agreement import SHARES, comparable, ranks, shared_rows
from grads.selection.pool import Pool
from grads.store.files import read_json, write_json

BUILD, RESULT = study.BUILD / "when", study.RESULTS / "when" / "overlap.json"
ROWS = {"limit": 300, "max_length": 128, "heldout": 0, "dtype": "float32"}
WHOLE = {"warmup_fraction": 1.0}
# By name, what decides most first. A second seed trains on other samples, in another order.
SETTINGS: dict[str, dict[str, Any]] = {
    "after 100%": WHOLE,
    "after 100%, seed 1": WHOLE | {"seed": 1},
    "during": {"when": "during"},
    "after 25%": {"warmup_fraction": 0.25},
    "after 10%": {"warmup_fraction": 0.1},
    "before": {"warmup": "none"},
    "during, seed 1": {"when": "during", "seed": 1},
    "after 25%, seed 1": {"warmup_fraction": 0.25, "seed": 1},
    "after 10%, seed 1": {"warmup_fraction": 0.1, "seed": 1},
    "after 5%": {"warmup_fraction": 0.05},
    "after 5%, seed 1": {"warmup_fraction": 0.05, "seed": 1},
}
COLUMNS = ("score", "signal", "loss")  # the first is what the default selection ranks by


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, help="folder with the data sets")
    data = parser.parse_args().data
    if data is not None:
        conduct(data)
    print(report())


def conduct(data: Path) -> None:
    """Every setting, as far as it is not known yet."""
    found = read_json(RESULT) if RESULT.exists() else {}
    if not set(SETTINGS) - set(found):
        return
    first = scored(data, "after 100%")
    for name in SETTINGS:
        if name not in found:
            run = scored(data, name)
            found[name] = compared(first, run) | {"seconds": run.run.read_manifest().seconds}
            write_json(RESULT, found)


def scored(data: Path, name: str) -> Pool:
    config = RunConfig.parse(
        {"dataset": str(data / "medicine/train.jsonl"), "when": "after"} | ROWS | SETTINGS[name]
    )
    run = api.create_run(
        config, str(BUILD / name.replace("%", "").replace(", ", "-").replace(" ", "-"))
    )
    study.work(run)
    return api.load_pool(run)


def compared(first: Pool, second: Pool) -> dict[str, Any]:
    """Rank correlation and overlaps of each column, by name."""
    shared = shared_rows(first, second)
    pairs, _ = comparable(first, second)
    found = {}
    for column in COLUMNS:
        one, other = pairs[column]
        alike = ranks(one[shared.first], other[shared.second])
        assert alike is not None
        overlap = {f"{share:g}": part for share, part in alike.overlap.items()}
        found[column] = {"rank_correlation": alike.rank_correlation, "overlap": overlap}
    return found


def report() -> str:
    """What is known as a Markdown table, one row a setting."""
    if not RESULT.exists():
        return "nothing has been found yet"
    shares = [f"{share:.0%}" for share in SHARES]
    head = ["setting", *(f"{c}: rank, {', '.join(shares)}" for c in COLUMNS), "warm-up, scoring"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, one in read_json(RESULT).items():
        cells = [
            ", ".join(
                f"{value:.2f}"
                for value in (one[c]["rank_correlation"], *one[c]["overlap"].values())
            )
            for c in COLUMNS
        ]
        times = [one["seconds"].get(stage, 0.0) for stage in ("warm-up", "score")]
        lines.append(f"| {name} | {' | '.join(cells)} | {times[0]:.0f} s, {times[1]:.0f} s |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
