"""Job folders beside a run or within it: drafts, evaluations, requests for further measurements."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from grads.config.base import members
from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.config.probe import ProbeConfig
from grads.config.run import RunConfig
from grads.errors import RunError
from grads.store.files import digest_of, member, read_json, write_json
from grads.store.runs import JobFolder, Run, Status

DRAFTS = ".drafts"
DATA_SETTINGS = (  # all that decides what the prepared data are
    "dataset dataset_config split revision columns layout limit subsample subsample_seed heldout"
    " max_length model seed"
).split()


def data_stamp(place: str) -> str:
    """What changes with any file that a data set's path, folder or glob names."""
    changed = [(str(file), file.stat().st_mtime_ns) for file in members(place)]
    return digest_of(changed)


def _model_stamp(model: str) -> list[tuple[str, int]]:
    """What changes with any file of a model that lies here; nothing for others."""
    place = Path(model)
    files = sorted(place.iterdir()) if place.is_dir() else [place] if place.is_file() else []
    return [(file.name, file.stat().st_mtime_ns) for file in files]


class Draft(Run):
    """A run that is only checked: its data prepared, its cost measured, before it is started.

    It lies in a hidden folder of the runs folder, under a name made of its settings.
    """

    @classmethod
    def of(cls, config: RunConfig, root: Path, purpose: Literal["data", "cost"]) -> "Draft":
        """The draft of these settings, made where there is none yet.

        A look at the data does not depend on how the model will be trained.
        """
        if purpose == "data":
            config = RunConfig(**{name: getattr(config, name) for name in DATA_SETTINGS})
        files = [data_stamp(config.dataset), _model_stamp(config.model)]
        number = digest_of([config.model_dump(mode="json"), files])[:16]
        draft = cls(root / DRAFTS / f"{purpose}-{number}")
        cls.create(config, draft.path)
        return draft

    def remedy(self, path: Path) -> str:
        """A draft is not resumed, but made where there is none."""
        return f"remove {self.path}, and look at the data again"

    @property
    def wants_cost(self) -> bool:
        """Whether the cost is to be measured, or only the data looked at."""
        return self.id.startswith("cost-")

    @property
    def root(self) -> Path:
        """The runs folder, whose jobs wait for each other."""
        return self.path.parent.parent


class Checker(JobFolder):
    """Where the process that looks at data keeps its status, and what waits for it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / DRAFTS / ".checker")
        self.queue = self.path / "queue"

    def ask(self, draft: Draft) -> None:
        """Put a draft into the queue, behind the others."""
        self.queue.mkdir(parents=True, exist_ok=True)
        (self.queue / draft.id).touch()

    def waiting(self) -> list[Path]:
        """The drafts that wait, in the order of asking."""
        marks = sorted(self.queue.glob("*"), key=lambda mark: mark.stat().st_mtime_ns)
        return [self.path.parent / mark.name for mark in marks]

    def taken(self, draft: Path) -> None:
        """Take a draft out of the queue, before it is worked at: it may be asked for again then."""
        (self.queue / draft.name).unlink(missing_ok=True)


class TokenRequest(JobFolder):
    """The wish for per-token signals of samples that the scoring pass kept none of."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.path / "token_signal")
        self.run = run

    @property
    def root(self) -> Path:
        """The runs folder, whose jobs wait for each other."""
        return self.run.root

    def ask(self, sample_ids: list[int]) -> None:
        """Write down which samples are wanted; a job must not be at work."""
        self.path.mkdir(exist_ok=True)
        write_json(self.config_file, {"sample_ids": sample_ids})


class ProbeRequest(JobFolder):
    """The wish for probe sets or further columns of a run that is scored already."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.path / "probe_request")
        self.run = run
        self.parts = self.path / "parts"

    @property
    def root(self) -> Path:
        """The runs folder, whose jobs wait for each other."""
        return self.run.root

    def ask(self, config: ProbeConfig) -> None:
        """Write down what is wanted; a job must not be at work."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.config_file, config.model_dump(mode="json"))
        self.write_status(Status())

    def config(self) -> ProbeConfig:
        """What is wanted."""
        return ProbeConfig.parse(self.config_values())


class Evaluation(JobFolder):
    """A comparison of trainings on a run's subsets: its arms one by one, and what they show."""

    def __init__(self, run: Run, name: str) -> None:
        super().__init__(run.evaluations / name)
        self.run = run
        self.arms = self.path / "arms"
        self.tasks = self.path / "tasks"
        self.checkpoints = self.path / "checkpoints"
        self.answers_file = self.path / "answers.json"
        self.ratings_file = self.path / "ratings.jsonl"
        self.result_file = self.path / "result.json"

    @property
    def root(self) -> Path:
        """The runs folder, whose jobs wait for each other."""
        return self.run.root

    def rate(self, rating: dict[str, Any]) -> None:
        """Note down a rating of answers; raises RunError where it cannot be kept."""
        self.note(self.ratings_file, "rating", "rate again", [rating])

    def read_ratings(self) -> list[dict[str, Any]]:
        """Every rating of answers, in order; `unreadable_ratings` tells what is missing.

        Raises RunError where the file is there and empty: no writer leaves it so.
        """
        return self.read_noted(self.ratings_file).rows

    def unreadable_ratings(self) -> list[int]:
        """Numbers, from 1, of the lines of ratings.jsonl that a broken-off write has left."""
        return self.read_noted(self.ratings_file).unreadable

    @classmethod
    def open(cls, run: Run, name: str) -> "Evaluation":
        """An existing evaluation; raises RunError where there is none."""
        found = cls(run, member(run.evaluations, name).name)
        if not found.config_file.is_file():
            there = ", ".join(run.evaluation_names()) or "none yet"
            raise RunError(f"run {run.path} has no evaluation '{name}': there are {there}")
        return found

    @classmethod
    def create(cls, run: Run, name: str, config: EvaluationConfig | TuneConfig) -> "Evaluation":
        """Make the folder with its config; an existing one must have the same config."""
        made = cls(run, name)
        if made.config_file.exists():
            made.refuse_other_config("evaluation", made.config(), config, "--name")
            return made
        made.path.mkdir(parents=True, exist_ok=True)
        made.write_status(Status())
        write_json(made.config_file, config.model_dump(mode="json"))
        return made

    def config(self) -> EvaluationConfig | TuneConfig:
        """The validated settings of the evaluation, or of the search for a setting."""
        values = self.config_values()
        return (TuneConfig if "kind" in values else EvaluationConfig).parse(values)

    def reference_file(self, phase: str) -> Path:
        """Where the base model's predictions lie while arms are measured against them."""
        return self.path / f"reference-{phase}.npy"

    def arm_file(self, name: str) -> Path:
        """Where one finished arm and seed lies."""
        return self.arms / f"{name}.json"

    def task_file(self, key: str) -> Path:
        """Where the samples of tasks lie that one training was asked, by the training's key."""
        return self.tasks / f"{key}.jsonl"

    def arm_files(self) -> dict[str, Path]:
        """Where every finished arm and seed lies, by the name of its file."""
        return {path.stem: path for path in sorted(self.arms.glob("[!.]*.json"))}


def open_folder(path: str | Path) -> JobFolder:
    """The job folder at a path: a run, a draft of one, or something within a run.

    A folder's name alone tells nothing: a run may be called `evaluations`. Raises RunError where
    the settings of the run that it lies in cannot be read.
    """
    path = Path(path).resolve()
    with suppress(RunError):
        if _is_run(path):
            return Draft(path) if path.parent.name == DRAFTS else Run(path)
    if path.parent.name == "evaluations" and _is_run(path.parents[1]):
        return Evaluation.open(Run(path.parents[1]), path.name)
    requests = {"token_signal": TokenRequest, "probe_request": ProbeRequest}
    if path.name in requests and _is_run(path.parent):
        return requests[path.name](Run(path.parent))
    return Run.open(path)


def _is_run(path: Path) -> bool:
    """Whether a folder has the settings of a run: those of others name no data set."""
    file = path / "config.json"
    return file.exists() and "dataset" in read_json(file)
