"""Runs: made, started, stopped, listed, read."""

import shutil
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock

from grads.api.drafts import draft
from grads.api.queue import folders
from grads.config.probe import ProbeConfig, rows_of
from grads.config.run import RunConfig
from grads.errors import ConfigError, RunError
from grads.evaluation.damage import damaged
from grads.jobs import processes as jobs
from grads.selection.decisions import stale_names
from grads.selection.pool import Pool
from grads.store import pipeline
from grads.store.bundled import BUNDLED, DEMO
from grads.store.files import replacing
from grads.store.folders import Evaluation, ProbeRequest, TokenRequest
from grads.store.machine import processes, rank
from grads.store.runs import ACTIVE, JobFolder, Run, Status, list_runs, new_run_path, runs_root

LOOK_S, LOOKS = 0.5, 1200  # between two looks for a run that another process makes; how many


@dataclass(frozen=True)
class RunSummary:
    """What a list of runs shows of each."""

    id: str
    title: str
    """By people; empty where nobody gave one."""
    notes: str
    made: str
    """ISO 8601, UTC: when it was set up."""
    path: str
    dataset: str
    model: str
    status: Status
    counts: dict[str, int]
    scored: bool
    selections: list[str]
    stale: list[str]
    """Of the selections those that do not follow what people have decided."""
    unreadable_decisions: list[int]
    """Lines of decisions.jsonl, counted from 1, that a broken-off write has left."""

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**vars(self), "status": self.status.model_dump(mode="json")}


def create_run(config: RunConfig, run_dir: str | None = None, root: str | None = None) -> Run:
    """The run's directory with its config: `run_dir`, or a new one under the runs root.

    Of several processes that a launcher has started the first makes it, and the others wait for it.
    """
    if processes() > 1 and not run_dir:
        raise ConfigError("several processes work at one run: give its --run-dir to all of them")
    if rank() > 0:
        return _made_by_the_first(Run(Path(run_dir or "").expanduser()))
    path = Path(run_dir).expanduser() if run_dir else new_run_path(runs_root(root), config)
    return Run.create(config.absolute(), path)


def _made_by_the_first(run: Run) -> Run:
    for _ in range(LOOKS):
        if run.config_file.exists():
            return run
        time.sleep(LOOK_S)
    raise RunError(f"{run.path} was not made by the first process: is that disk shared by all?")


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return processes() > 1


def take_part(run: JobFolder) -> NoReturn:
    """Go on as a worker of the job, with the other processes that the launcher has started."""
    jobs.become(run)


def start_run(run: JobFolder) -> bool:
    """Start the job of a run or an evaluation in the background; False where one is at work."""
    return jobs.start(run)


def resume_run(run: JobFolder) -> bool:
    """Go on from the last finished step or part.

    A finished run or evaluation goes on where files of it are damaged or gone, and makes them
    anew; raises RunError where none are.
    """
    if jobs.observe(run).state == "finished" and not _damaged(run):
        raise RunError(f"{run.id} is finished and its files are whole: there is nothing to resume")
    return jobs.start(run)


def _damaged(folder: JobFolder) -> bool:
    """Whether a job would make anew what of a finished folder is damaged."""
    if isinstance(folder, Evaluation):
        return bool(damaged(folder)) or not folder.result_file.exists()
    return isinstance(folder, Run) and bool(pipeline.damaged(folder))


def wait(run: JobFolder) -> Status:
    """Wait until the job of a run or of an evaluation has ended; its status.

    Raises RunError where it has failed, was stopped, or was never started.
    """
    return jobs.wait(run)


def stop_run(run: JobFolder) -> Status:
    """Stop the job of a run or of an evaluation; returns when its process tree is gone."""
    return jobs.stop(run)


def summary(run: Run) -> RunSummary:
    """One run at a glance."""
    config, about = run.config_values(), run.read_about()
    return RunSummary(
        id=run.id,
        title=about.title,
        notes=about.notes,
        made=run.made.isoformat(timespec="seconds"),
        path=str(run.path),
        dataset=str(config.get("dataset")),
        model=str(config.get("model")),
        status=jobs.observe(run),
        counts=run.read_manifest().counts.as_json(),
        scored=run.scores_file.exists(),
        selections=run.selection_names(),
        stale=stale_names(run),
        unreadable_decisions=run.unreadable_decisions(),
    )


def summaries(root: str | None = None) -> list[RunSummary]:
    """Every run under the root that can be read, newest first."""
    return listed(root)[0]


def listed(root: str | None = None) -> tuple[list[RunSummary], dict[str, str]]:
    """The same, and of each run that cannot be read, by its name, what is wrong."""
    found, unreadable = [], {}
    for run in list_runs(runs_root(root)):
        try:
            found.append(summary(run))
        except RunError as error:
            unreadable[run.id] = str(error)
    return found, unreadable


def load_pool(run: Run) -> Pool:
    """The scored samples of a run as columns; raises RunError before its scoring has ended.

    The last few are kept in memory for as long as their files stay the same.
    """
    files = (
        *(run.scores_file, run.clusters_file, run.topic_names_file),
        *(run.probes, run.extras_file),
    )
    stamp = (f.stat().st_mtime_ns if f.exists() else 0 for f in files)
    return _read_pool(run.path, (*stamp, *run.read_manifest().probes))


@lru_cache(maxsize=3)
def _read_pool(path: Path, stamp: tuple[int | str, ...]) -> Pool:
    return Pool(Run(path))


# -- around a run


def start_new(config: RunConfig, root: str | None = None, at_once: bool = False) -> Run:
    """A new run in the background; it waits for others unless it is to start at once.

    Where a job with these very settings is at work already (a double click, a second tab), that
    one is the answer. What was measured for the settings goes with the run, to be held against
    what it took.
    """
    values = config.absolute().model_dump(mode="json")
    place = runs_root(root)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".start.lock"):
        for run in list_runs(place):
            with suppress(RunError):
                if run.config_values() == values and jobs.observe(run).state in ACTIVE:
                    return run
        run = create_run(config, root=root)
        measured = draft(config, "cost", root).estimate_file
        if measured.exists():
            shutil.copy2(measured, run.estimate_file)
        jobs.start(run, at_once)
        return run


def rough_cost(config: RunConfig, data: Run, root: str | None = None) -> tuple[str, float] | None:
    """What a run of these settings on checked data would take, without measuring anything.

    At the speed of the newest finished run here of the same model that takes gradients when this
    one does: its name and the seconds, or None.
    """
    model = config.absolute().model
    for run in list_runs(runs_root(root)):
        with suppress(RunError):
            known, spent = run.config(), run.read_manifest().seconds
            alike = known.model == model and known.when == config.when
            if not alike or not spent.get("score") or not run.scores_file.exists():
                continue
            ratio = _tokens(data) / _tokens(run)
            seconds = spent["score"] * ratio
            if config.warmup != "none" and known.warmup == config.warmup:
                trained = config.epochs * config.warmup_fraction
                before = known.epochs * known.warmup_fraction
                seconds += spent.get("warm-up", 0.0) * ratio * trained / before
            return run.id, seconds
    return None


def _tokens(run: Run) -> int:
    """All tokens of a run's pool."""
    table = run.read_table(run.samples_file, ["prompt_tokens", "response_tokens", "heldout"])
    inside = ~table["heldout"].to_numpy(zero_copy_only=False)
    tokens = table["prompt_tokens"].to_numpy() + table["response_tokens"].to_numpy()
    return max(int(tokens[inside].sum()), 1)


def busy(root: str | None = None) -> list[JobFolder]:
    """Runs, evaluations and requests whose job is at work or waits."""
    known = [folder for run in list_runs(runs_root(root)) for folder in folders(run)]
    return [folder for folder in known if jobs.observe(folder).state in ACTIVE]


def delete_run(run: Run) -> None:
    """Remove a run and all its files; raises RunError while a job is at work in it."""
    with ExitStack() as held:
        for folder in folders(run):
            held.enter_context(jobs.at_rest(folder))
        shutil.rmtree(run.path)


def ask_token_signals(run: Run, sample_ids: list[int]) -> TokenRequest:
    """Start a job that computes the per-token signals of samples the run kept none of."""
    request = TokenRequest(run)
    with run.held(run.path / ".ask.lock"):
        if jobs.observe(request).state not in ACTIVE:
            request.ask(sample_ids)
            jobs.start(request)
    return request


def create_probe(run: Run, config: ProbeConfig) -> ProbeRequest:
    """The request for probe sets and further columns of a run that is scored.

    Raises RunError where the run is not scored, a set of that name is another one, a file is
    missing, nothing is asked for, or an earlier request is at work.
    """
    config = config.absolute()
    run.read_table(run.scores_file, ["sample_id"])
    if not config.sets and not config.extras:
        raise RunError("nothing is asked for: give --target, --protect or --extras")
    there = run.read_manifest().probes
    for name, (role, place) in config.sets.items():
        if name in there and (there[name].role, there[name].source) != (role, place):
            raise RunError(
                f"run {run.id} has a set '{name}' already, {there[name].role} from"
                f" {there[name].source}: give another name"
            )
        if rows_of(place) is None and not Path(place).exists():
            raise RunError(f"no file at {place}: check the path of the set '{name}'")
    request = ProbeRequest(run)
    with run.held(run.path / ".ask.lock"):
        at_work = jobs.observe(request).state in ACTIVE
        if at_work and request.config() != config:
            raise RunError(f"run {run.id} is measuring other sets: wait until that has ended")
        if not at_work:
            request.ask(config)
    return request


def start_probe(run: Run, config: ProbeConfig) -> ProbeRequest:
    """The same in the background; raises as `create_probe` does."""
    request = create_probe(run, config)
    jobs.start(request)
    return request


def place_demo(root: str | Path | None = None) -> None:
    """Put the finished demo run into a runs folder, unless something called `demo` is there.

    Raises RunError where the folder cannot be written to.
    """
    target = runs_root(root) / "demo"
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as copy:
                shutil.copytree(DEMO / "run", copy)
    except OSError as error:
        raise RunError(
            f"the demo run cannot be put at {target} ({error}): give a --runs-dir that can be"
            " written to"
        ) from None


def demo_heldout(run: Run) -> str | None:
    """The held-out file beside the demo's data, for a run of them that has set none aside."""
    data = (BUNDLED / str(run.config_values().get("dataset"))).resolve()
    if run.read_manifest().counts.heldout or data != (DEMO / "medical_qa.jsonl").resolve():
        return None
    return str((DEMO / "medical_qa_heldout.jsonl").relative_to(BUNDLED))


def bench(out: Path, dataset: str | None = None) -> dict[str, Any]:
    """Measure speed and memory of scoring against its peers; writes `out`, a JSON file.

    The data are the demo's unless others are given. Raises GradsError where a peer is not
    installed.
    """
    from grads.bench.scoring import main  # loads torch

    return main(out, dataset or str(DEMO / "medical_qa.jsonl"))
