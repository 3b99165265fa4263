"""Make the bundled demo run: the engine on the demo data with the demo model (`make demo`).

Everything under assets/demo/run comes from here; nothing in it is edited by hand. It takes about
half an hour on two quiet CPU cores. On another machine the scores agree within 1% (float32 sums in
another order, amplified by the training steps of the warm-up).
"""

import shutil
import sys
from pathlib import Path

import pandas as pd

from grads import api
from grads.cli.terminal import watch
from grads.config.evaluation import EvaluationConfig
from grads.config.run import RunConfig
from grads.jobs import processes as jobs
from grads.selection.options import SelectionConfig
from grads.selection.record import kept_ids
from grads.store.runs import JobFolder, Run

HERE = Path("assets/demo")
BUILD = Path("build/demo-run")
STORED = (
    "config.json",
    "status.json",
    "manifest.json",
    "metrics.jsonl",
    "samples.parquet",
    "tokens.parquet",
    "rejects.jsonl",
    "scores.parquet",
    "features.parquet",
    "clusters.json",
    "token_signal",
    "probe_sets",
    "probes",
    "extras.parquet",
    "selections",
    "evaluations",
)
LEFT_OUT = ("worker.log", ".*", "arms")  # of the folders
CRITERIA = ("grads", "density", "magnitude", "loss_high", "random", "aligned", "question_gain")
BUDGETS = {"10": 0.1, "50": 0.5}


def main() -> None:
    config = RunConfig(
        dataset=str(HERE / "medical_qa.jsonl"),
        max_length=256,
        heldout=0,
        targets={"good": str(HERE / "target.jsonl")},
        protected={"everyday": str(HERE / "protect.jsonl")},
        extras=("question_gain",),
    )
    run = api.create_run(config, str(BUILD))
    work(run)
    select_all(run)
    evaluate(run)
    store(run)
    print(kept_by_kind(Run(HERE / "run")))


def select_all(run: Run) -> None:
    """Every criterion at every budget, the default's other draws, and the cleaner ones."""
    for criterion in CRITERIA:
        for label, ratio in BUDGETS.items():
            options = SelectionConfig(criterion=criterion, ratio=ratio)
            api.select_samples(run, f"{criterion}-{label}", options)
    api.select_samples(run, "high-10", SelectionConfig(ratio=0.1, focus=1.0, draw="top"))
    api.select_samples(run, "stratified-10", SelectionConfig(ratio=0.1, draw="stratified"))
    api.select_samples(run, "auto", SelectionConfig(auto=True))
    for label, ratio in BUDGETS.items():
        options = {"criterion": "aligned", "bounds": ["question_gain_z:-0.5:"], "deduplicate": True}
        api.select_samples(run, f"clean-{label}", SelectionConfig.parse(options | {"ratio": ratio}))


def evaluate(run: Run) -> None:
    """The default, and the setting that keeps most sound rows, against random and everything."""
    config = EvaluationConfig(
        heldout=str(HERE / "medical_qa_heldout.jsonl"),
        general=(str(HERE / "general.jsonl"),),
        selections=("grads-10", "high-10"),
        arms=("base", "full", "random", "selection"),
        epochs=1,
        batch_size=8,
    )
    work(api.create_evaluation(run, "tenth", config))


def work(folder: JobFolder) -> None:
    """Work in a folder to its end, unless that is done."""
    if jobs.observe(folder).state != "finished":
        jobs.start(folder)
        watch(folder)
    if jobs.observe(folder).state != "finished":
        sys.exit(f"the job ended as {jobs.observe(folder)}")


def store(run: Run) -> None:
    """Copy what can be shown, without weights, logs and locks."""
    target = HERE / "run"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in STORED:
        source = run.path / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        else:
            shutil.copy2(source, target / name)
    # What is left out cannot be checked, and would count as damaged.
    Run(target).update_manifest(files={}, made={})
    for file in target.rglob("*.json"):  # paths as they are below the demo's own root
        text = file.read_text(encoding="utf-8").replace(f"{Path.cwd()}/", "")
        file.write_text(text, encoding="utf-8")


def kept_by_kind(run: Run) -> str:
    """How many rows of each kind every selection keeps, as a Markdown table."""
    samples = run.read_table(run.samples_file, ["sample_id", "columns"])
    kinds = pd.Series(
        [row["kind"] for row in samples["columns"].to_pylist()],
        index=samples["sample_id"].to_pylist(),
    )
    columns = {"in the pool": kinds.value_counts()}
    for name in run.selection_names():
        columns[name] = kinds[kept_ids(run, name)].value_counts()
    frame = pd.DataFrame(columns).fillna(0).astype(int).sort_values("in the pool", ascending=False)
    lines = [
        "| kind | " + " | ".join(frame.columns) + " |",
        "|---" * (len(frame.columns) + 1) + "|",
    ]
    lines += [f"| {kind} | " + " | ".join(map(str, row)) + " |" for kind, row in frame.T.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
