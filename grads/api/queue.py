"""The queue of a runs folder: which jobs are at work, and which wait in which order."""

from dataclasses import dataclass

from grads.jobs import processes as jobs
from grads.jobs import turns
from grads.store.folders import DRAFTS, Draft, Evaluation, ProbeRequest, TokenRequest
from grads.store.runs import ACTIVE, JobFolder, Run, Status, list_runs, runs_root

KINDS = {  # in words: what a job of such a folder does
    Evaluation: "the evaluation {name}",
    Draft: "measuring what a new run will cost",
    TokenRequest: "signals of words",
    ProbeRequest: "examples of what is wanted",
    Run: "the run",
}


@dataclass(frozen=True)
class QueuedJob:
    """A job that is at work or waits for its turn."""

    folder: JobFolder
    run: Run
    kind: str
    """One of `KINDS`."""
    status: Status
    place: int
    """Among those that wait, from 1 on; 0 where it is at work."""

    @property
    def what(self) -> str:
        """In words: what it does."""
        return self.kind.format(name=self.folder.id)


def folders(run: Run) -> list[JobFolder]:
    """The run and every job folder within it."""
    evaluations = [Evaluation(run, name) for name in run.evaluation_names()]
    requests = (TokenRequest(run), ProbeRequest(run))
    return [run, *evaluations, *(one for one in requests if one.config_file.exists())]


def queue(root: str | None = None) -> list[QueuedJob]:
    """Runs, evaluations, requests and estimates that are at work, then those that wait in order."""
    place = runs_root(root)
    known = [folder for run in list_runs(place) for folder in folders(run)]
    known += [Draft(path.parent) for path in place.glob(f"{DRAFTS}/cost-*/config.json")]
    waiting = turns.waiting(place)
    found = []
    for folder in known:
        status = jobs.observe(folder)
        if status.state in ACTIVE:
            ahead = waiting.index(status.pid) + 1 if status.pid in waiting else 0
            found.append(QueuedJob(folder, _run(folder), KINDS[type(folder)], status, ahead))
    return sorted(found, key=lambda one: (one.place, one.status.process_started or 0.0))


def _run(folder: JobFolder) -> Run:
    if isinstance(folder, Evaluation | TokenRequest | ProbeRequest):
        return folder.run
    assert isinstance(folder, Run)
    return folder
