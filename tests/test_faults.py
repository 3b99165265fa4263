"""Jobs killed at random moments, and what comes of them: resumed, they end as undisturbed ones.

The moments are changes of files, drawn for each stage: of checkpoints, parts, tables, locks,
statuses. Half of the kills come some time after one. In full, by `make reliability`, there are
ninety.
"""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from chain import config_for, save_tiny_model, until, write_data
from forked import Forks

from grads import api
from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.config.probe import ProbeConfig
from grads.jobs import processes as jobs
from grads.selection.options import SelectionConfig
from grads.store import pipeline
from grads.store.columns import MEASURED
from grads.store.files import DRAFT, open_table
from grads.store.folders import Evaluation, ProbeRequest, open_folder
from grads.store.runs import JobFolder, Run

pytestmark = pytest.mark.job
RECIPE = {"epochs": 1.0, "batch_size": 4, "lora_rank": 4, "lr": 5e-3}
KILLS = {  # of each kind of job: a few, and in full
    "LoRA run": (1, 20),
    "full-parameter run": (0, 10),
    "run with sets": (1, 14),
    "evaluation": (1, 20),
    "search": (1, 14),
    "request for sets": (1, 14),
}
LATEST_S = 0.5  # from a change of a file to the kill


@dataclass
class Undisturbed:
    """A job that nothing befell, with what it changed on the disk and in which stage."""

    folder: JobFolder
    changes: list[list[str]]
    places: dict[str, list[int]] = field(init=False)
    """By stage, the numbers of its changes, from 1."""

    def __post_init__(self) -> None:
        self.places = {}
        for number, (stage, _, _) in enumerate(self.changes, start=1):
            self.places.setdefault(stage or "the start", []).append(number)

    def moments(self, seed: int, number: int) -> Iterator[tuple[int, float]]:
        """A change in each of the stages in turn, and seconds after it; every other one at once."""
        rng = np.random.default_rng(seed)
        stages = rng.permutation(list(self.places))
        for i in range(number):
            after = int(rng.choice(self.places[stages[i % len(stages)]]))
            yield after, float(rng.uniform(0, LATEST_S)) if i % 2 else 0.0


@pytest.fixture(scope="module")
def forks():
    with Forks() as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    lines = (folder / "data.jsonl").read_text().splitlines()
    (folder / "good.jsonl").write_text("\n".join(lines[20:25]) + "\n")
    general = ['{"instruction": "the heart?", "output": "rest and water."}'] * 4
    (folder / "general.jsonl").write_text("\n".join(general) + "\n")
    return folder


@pytest.fixture(scope="module")
def scored(place, forks):
    """A finished run with a selection, for what is asked of one."""
    run = Run.create(config_for(place), place / "runs" / "scored")
    assert forks.work(run.path)["code"] == 0
    api.select_samples(run, "fifth", SelectionConfig(ratio=0.2))
    return run


def made(kind: str, place: Path, scored: Run, root: Path) -> JobFolder:
    """A job of a kind that has not begun, in a runs folder of its own."""
    sets = {"targets": {"good": str(place / "good.jsonl")}, "extras": ("question_gain",)}
    values = {
        "LoRA run": {},
        "full-parameter run": {"warmup": "full"},
        "run with sets": sets,
    }
    if kind in values:
        return Run.create(config_for(place, **values[kind]), root / "run")
    run = Run(shutil.copytree(scored.path, root / "run"))
    if kind == "request for sets":
        return api.create_probe(run, ProbeConfig.parse(sets))
    recipe = RECIPE | {"general": [str(place / "general.jsonl")]}
    if kind == "search":
        chosen = {"ratio": 0.2, "seeds": 2, "settings": ("typical-high", "loss-low")}
        return api.create_evaluation(run, "one", TuneConfig.parse(recipe | chosen))
    chosen = {"selections": ["fifth"], "arms": ["base", "random", "selection"], "seeds": 2}
    return api.create_evaluation(run, "one", EvaluationConfig.parse(recipe | chosen))


@pytest.fixture(scope="module")
def undisturbed(place, scored, forks, tmp_path_factory):
    """By kind, the job that nothing befell; made when it is first asked for."""
    known: dict[str, Undisturbed] = {}

    def of(kind: str) -> Undisturbed:
        if kind not in known:
            folder = made(kind, place, scored, tmp_path_factory.mktemp("undisturbed"))
            done = forks.work(folder.path)
            assert done["code"] == 0, folder.read_status()
            known[kind] = Undisturbed(folder, done["changes"])
        return known[kind]

    return of


def finished_files(folder: JobFolder) -> set[str]:
    """What no resume has to make again: parts, arms, and the files of stages that hold."""
    found = set(folder.path.glob("arms/[!.]*.json"))
    for parts in ("scores", "parts"):
        found |= set((folder.path / parts).rglob("[!.]*.parquet"))
    if isinstance(folder, Run):
        for stage in pipeline.STAGES.values():
            if pipeline.holds(folder, stage):
                found |= {folder.path / name for name in stage.makes}
    return {str(path) for path in found}


def steps(folder: JobFolder) -> Counter:
    """How often each step of a training was taken."""
    lines = [row for row in folder.read_metrics() if "lr" in row]
    return Counter((row.get("key"), row["step"]) for row in lines)


def group_of(leader: int) -> list[int]:
    """Living processes of the session that a process led."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def assert_same_tables(mine: Path, theirs: Path, names) -> None:
    a, b = (open_table(path).read() for path in (mine, theirs))
    assert a["sample_id"].equals(b["sample_id"])
    for name in names:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6)


def assert_same_run(mine: Run, theirs: Run) -> None:
    """The same scores, topics and sets, and so the same selections."""
    assert_same_tables(mine.scores_file, theirs.scores_file, MEASURED)
    features = [pq.read_table(run.features_file) for run in (mine, theirs)]
    for name in ("cluster", "duplicate_group"):
        assert features[0][name].equals(features[1][name])
    for file in theirs.probes.glob("*.parquet"):
        columns = [name for name in pq.read_schema(file).names if name != "sample_id"]
        assert_same_tables(mine.probes / file.name, file, columns)
    if theirs.extras_file.exists():
        assert_same_tables(mine.extras_file, theirs.extras_file, ["question_gain"])
    assert mine.read_manifest().counts == theirs.read_manifest().counts
    assert pipeline.damaged(mine) == []
    kept = []
    for run in (mine, theirs):
        api.select_samples(run, "compared", SelectionConfig(ratio=0.2))
        kept.append(api.read_selection(run, "compared")[1]["kept"])
    assert kept[0].equals(kept[1])


def assert_same_result(mine: Evaluation, theirs: Evaluation) -> None:
    """The same arms with the same numbers and verdicts; of a search the same winner."""
    a, b = (api.read_evaluation(one.run, one.id).result for one in (mine, theirs))
    assert a.finished
    assert [arm.label for arm in a.arms] == [arm.label for arm in b.arms]
    for one, other in zip(a.arms, b.arms, strict=True):
        numbers = {name: value for name, value in other.mean.items() if value is not None}
        found = {name: one.mean[name] for name in numbers}
        assert found == pytest.approx(numbers, rel=1e-4, abs=1e-6)
        assert [seed.steps for seed in one.seeds] == [seed.steps for seed in other.seeds]
    assert [(c.learning, c.forgetting) for c in a.comparisons] == [
        (c.learning, c.forgetting) for c in b.comparisons
    ]
    assert getattr(a, "winner", None) == getattr(b, "winner", None)
    assert mine.run.selection_names() == theirs.run.selection_names()


def assert_same(mine: JobFolder, theirs: JobFolder) -> None:
    if isinstance(mine, Evaluation):
        assert_same_result(mine, theirs)
    elif isinstance(mine, ProbeRequest):
        assert_same_run(mine.run, theirs.run)
    else:
        assert_same_run(mine, theirs)


@pytest.mark.full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KILLS)
def test_killed_at_random_moments_and_resumed(
    kind, place, scored, undisturbed, forks, tmp_path, full
):
    """Nothing is repeated but the open part, no process is left, and no lock stands in the way."""
    wanted = KILLS[kind][full]
    if not wanted:
        pytest.skip("by `make reliability`")
    whole = undisturbed(kind)
    killed: Counter = Counter()
    for number, (after, delay) in enumerate(whole.moments(sum(kind.encode()), 2 * wanted)):
        if killed.total() == wanted:
            break
        told = f"{kind}, change {after} {whole.changes[after - 1]}, {delay:.2f} s later"
        folder = made(kind, place, scored, tmp_path / str(number))
        done = forks.work(folder.path, after, delay)
        assert done["code"] in (0, -9), told
        if done["code"]:
            resume(forks.work, folder, done, told)
            killed[done["changes"][-1][0] or "the start"] += 1
        assert_same(folder, whole.folder)
    print(f"{kind}: {killed.total()} kills, last seen in {dict(killed)}")
    assert killed.total() == wanted


def resume(
    work: Callable[[Path], dict],
    folder: JobFolder,
    done: dict,
    told: str,
    *,
    ends: tuple[str, ...] = ("interrupted",),
) -> None:
    """Go on after a kill; fails where more is done again than has to be, or something is left."""
    until(lambda: not group_of(done["pid"]), f"no process is left: {told}")
    assert jobs.observe(folder).state in ends, told
    with jobs.at_rest(folder):  # no lock is held
        kept, taken = finished_files(folder), steps(folder)
    folder = open_folder(folder.path)
    again = work(folder.path)
    assert again["code"] == 0, (told, folder.read_status())
    assert jobs.observe(folder).state == "finished", told
    changes = again["changes"] + again["others"]
    written = {path for _, event, path in changes if event == "os.rename"}
    grown = {str(folder.path / "features.parquet")}  # to which the topics are added
    assert kept & written <= grown, told
    repeated = steps(folder) - Counter(set(steps(folder)))
    assert repeated.total() <= 1, (told, taken, repeated)
    assert [path for path in folder.path.rglob(".*") if DRAFT.fullmatch(path.name)] == [], told


def test_a_set_is_there_only_once_its_digests_are_noted(
    place, scored, undisturbed, forks, tmp_path
):
    """Killed with the last file in place, before anything says so."""
    whole = undisturbed("request for sets").folder
    request = made("request for sets", place, scored, tmp_path)
    run = request.run
    done = forks.work(request.path, behind=str(run.probe_file("good")))
    assert done["code"] == -signal.SIGKILL
    assert run.probe_file("good").exists()
    assert "good" not in run.read_manifest().probes
    assert "good" not in api.load_pool(run).probes
    assert pipeline.damaged(run) == [], "a resume of the run does not score again"
    assert forks.work(request.path)["code"] == 0, request.read_status()
    assert "good" in api.load_pool(run).probes
    assert_same(request, whole)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_job_without_memory_says_so_and_goes_on_with_more(
    place, scored, undisturbed, forks, tmp_path, full
):
    """Limits from next to nothing to enough: failed, with the reason, and nothing is lost."""
    whole = undisturbed("LoRA run")
    # MiB more than a fork begins with; the first 68 are for linear algebra.
    steps = (1, 24, 55, 67, *np.linspace(69, 166, 24)) if full else (55, 78, 108)
    ends: Counter = Counter()
    others = []
    for number, more in enumerate(steps):
        folder = made("LoRA run", place, scored, tmp_path / str(number))
        code = forks.limited(folder.path, int(more * 2**20))["code"]
        status = jobs.observe(folder)
        assert code != -signal.SIGALRM, f"with {more} MiB it does not come out of {status.stage}"
        ends[status.state, status.stage] += 1
        if code != 0:
            if "memory" not in (status.error or "") and status.state != "interrupted":
                others.append(status.error)
            again = forks.work(folder.path)
            assert again["code"] == 0, folder.read_status()
        assert_same(folder, whole.folder)
    print(f"memory: {len(steps)} limits, {dict(ends)}")
    assert others == []
