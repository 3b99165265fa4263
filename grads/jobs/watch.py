"""What a job is doing: stages, speed, machine, log. Reads, never writes."""

from dataclasses import dataclass
from typing import Any, Literal

import psutil

from grads.jobs.identity import process_of
from grads.jobs.turns import WAITS
from grads.store import pipeline
from grads.store.folders import Draft
from grads.store.pipeline import STAGES
from grads.store.runs import ACTIVE, JobFolder, Run, Status
from grads.text import Sentence

__all__ = [
    "STAGES",
    "WAITS",
    "Machine",
    "Step",
    "left",
    "log_tail",
    "machine",
    "metrics",
    "stages",
]
LOG_BYTES = 20_000
FOR_LONG = ("warm-up", "score")  # the stages that take nearly all of a run's time
SCORING = {"lora": 0.8, "full": 0.6}  # over an epoch of the warm-up (docs/benchmarks.md)
StepState = Literal["done", "now", "broken off", "waiting", "skipped"]


@dataclass(frozen=True)
class Step:
    """One stage of a run, as it stands."""

    name: str
    label: str
    state: StepState
    seconds: float | None


@dataclass(frozen=True)
class Machine:
    """What a job takes of the machine, its child processes included."""

    cpu_percent: float  # 100 is one core
    memory: int  # bytes
    total_memory: int
    cores: int
    gpu: str | None  # load and memory of the first GPU, where there is one


def stages(run: Run, status: Status) -> list[Step]:
    """The run's stages with their state; those that are only for runs that ask are not listed."""
    spent, wanted = run.read_manifest().seconds, pipeline.wanted(run)
    names = [name for name, stage in STAGES.items() if name in wanted or not stage.asked]
    at = names.index(status.stage) if status.stage in names else -1
    rows: list[Step] = []
    for place, name in enumerate(names):
        state: StepState = "waiting"
        if name not in wanted:
            state = "skipped"
        elif status.state == "finished" or place < at:
            state = "done"
        elif place == at:
            state = "now" if status.state in ACTIVE else "broken off"
        rows.append(Step(name, STAGES[name].label, state, spent.get(name)))
    return rows


def left(folder: JobFolder, status: Status) -> float | None:
    """Seconds to the end of a whole job; None where nothing tells yet.

    Of a run: of this stage by its own speed, of later ones by the estimate from before the start,
    else roughly by the speed of the warm-up. Other jobs foresee it themselves, or do not.
    """
    if status.state not in ACTIVE or status.state == "queued":  # how long it waits is not known
        return None
    if not isinstance(folder, Run) or isinstance(folder, Draft):
        return status.left_s
    return _of_a_run(folder, status)


def _of_a_run(run: Run, status: Status) -> float | None:
    steps = [step for step in stages(run, status) if step.state in ("now", "waiting")]
    now = next((step.name for step in steps if step.state == "now"), "")
    if run.estimate_file.exists():
        expected = run.read_estimate().seconds
    else:
        expected = _by_the_warm_up(run, status)
        long = {step.name for step in steps} & set(FOR_LONG)
        if not long or not long <= expected.keys():
            return None
    later = sum(expected.get(step.name, 0.0) for step in steps if step.name != now)
    return later + (expected.get(now, 0.0) if status.eta_s is None else status.eta_s)


def _by_the_warm_up(run: Run, status: Status) -> dict[str, float]:
    """Seconds that the two long stages take in all, as far as the warm-up's speed tells them."""
    config, spent = run.config(), run.read_manifest().seconds
    found = {name: spent[name] for name in FOR_LONG if name in spent}
    if status.stage in FOR_LONG and status.eta_s is not None and status.done < status.total:
        found[status.stage] = status.eta_s * status.total / (status.total - status.done)
    if "warm-up" in found and not config.warmup_from:  # one that was taken over took no time
        epoch = found["warm-up"] / (config.epochs * config.warmup_fraction)
        found.setdefault("score", SCORING[config.warmup] * epoch if config.when == "after" else 0.0)
    return found


def metrics(folder: JobFolder) -> dict[str, list[dict[str, Any]]]:
    """The lines of metrics.jsonl by stage; of a step done twice, the last line counts."""
    found: dict[str, dict[Any, dict[str, Any]]] = {}
    for row in folder.read_metrics():
        found.setdefault(row["stage"], {})[row.get("step")] = row
    return {stage: list(rows.values()) for stage, rows in found.items()}


def machine(status: Status) -> Machine | None:
    """What the job takes now; None where it does not run."""
    process = process_of(status)
    if process is None:
        return None
    cpu, memory = 0.0, 0
    try:
        for member in [process, *process.children(recursive=True)]:
            with member.oneshot():
                cpu += _cpu_percent(member)
                memory += member.memory_info().rss
    except psutil.Error:
        return None
    total = psutil.virtual_memory().total
    return Machine(cpu, memory, total, psutil.cpu_count() or 1, _gpu())


_seen: dict[tuple[int, float], psutil.Process] = {}


def _cpu_percent(process: psutil.Process) -> float:
    """Since the last look at this process; psutil counts per Process object, so it is kept."""
    key = (process.pid, process.create_time())
    kept = _seen.setdefault(key, process)
    if len(_seen) > 200:
        _seen.clear()
    return float(kept.cpu_percent())


def _gpu() -> str | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        load = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        used, total = memory.used / 2**30, memory.total / 2**30
        return Sentence(
            "{load}% busy, {used:.1f} of {total:.0f} GB", load=load, used=used, total=total
        )
    except pynvml.NVMLError:
        return None


def log_tail(folder: JobFolder) -> str:
    """The end of the job's own output."""
    if not folder.log_file.exists():
        return ""
    with folder.log_file.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - LOG_BYTES, 0))
        return file.read().decode("utf-8", "replace")
