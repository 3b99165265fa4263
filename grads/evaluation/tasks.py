"""Tasks of lm-evaluation-harness: found by their names, loaded, their requests counted.

lm_eval is an extra (requirements-tasks.txt) and is imported where it is used; none of this takes
torch.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from grads.config.evaluation import EvaluationConfig
from grads.config.run import RunConfig
from grads.errors import EvaluationError
from grads.evaluation import texts
from grads.evaluation.cost import CHARACTERS, WRITTEN, Work

SEED = 1234  # of few-shot examples and of tasks that sample: the same for every arm
LISTED = 8  # names in a message
PLACES = ("dataset_path", "dataset_kwargs", "metadata")  # of a task's config
GENERATED = 256  # tokens that a task lets a model write where it says nothing


@dataclass(frozen=True)
class Tasks:
    """What is asked: some tasks by the names they were asked for, each loaded."""

    parts: dict[str, list[str]]  # of each name, itself or the tasks of the group of that name
    loaded: dict[str, Any]  # lm_eval's tasks by their names
    limit: int | None  # samples of each task
    work: Work  # requests to one model, and their token passes, about
    served: bool  # by vLLM
    digest: str  # changes with any request, what is right, how it is judged, and who serves

    def judged(self, task: str) -> dict[str, bool]:
        """The metrics that are means over a task's samples, and whether higher is better."""
        means, better = self.loaded[task].aggregation(), self.loaded[task].higher_is_better()
        return {
            name: bool(better[name])
            for name, how in means.items()
            if getattr(how, "__name__", "") == "mean" and better.get(name) is not None
        }

    @property
    def notes(self) -> list[str]:
        """What is not shown, as it has no value by sample."""
        return [
            texts.NO_MEAN.format(task=name, metric=metric)
            for name, task in self.loaded.items()
            for metric in task.aggregation()
            if metric not in self.judged(name)
        ]


def check_names(config: EvaluationConfig) -> None:
    """Raise EvaluationError where tasks are asked for that there are not, or without lm_eval."""
    if config.tasks:
        _manager(config)


def check_server(config: EvaluationConfig, run: RunConfig) -> None:
    """Raise EvaluationError where vLLM is to serve models, and cannot."""
    if not config.tasks or config.tasks_with != "vllm":
        return
    if not can_serve():
        raise EvaluationError(
            "vLLM is not installed: install the version of it that is made for your torch, or leave"
            " out --tasks-with"
        )
    if run.quantize != "none":
        raise EvaluationError(
            f"the run's model is in {run.quantize}, as which vLLM is not given it: leave out"
            " --tasks-with"
        )


def can_serve() -> bool:
    """Whether vLLM is installed, which can run the models that tasks are asked of."""
    return find_spec("vllm") is not None


def load(config: EvaluationConfig, longest: int) -> Tasks | None:
    """The tasks that are asked for, none where none are; requests have up to `longest` tokens.

    Raises EvaluationError on an unknown name, or where a task or its data cannot be loaded.
    """
    if not config.tasks:
        return None
    manager = _manager(config)
    parts: dict[str, list[str]] = {}
    loaded: dict[str, Any] = {}
    for name in config.tasks:
        found = _load(manager, name)
        parts[name] = list(found)
        loaded |= {task: found[task] for task in found if task not in loaded}  # each asked once
    count, passes, digest = 0, 0.0, hashlib.sha256()
    for name, task in loaded.items():
        digest.update(repr((sorted(task.aggregation()), _judging(name, task))).encode())
        for request, right in _requests(name, task, config.task_limit):
            count += 1
            passes += _passes(request, longest)
            digest.update(repr((request.args, right)).encode())
    served = config.tasks_with == "vllm"
    if served:
        digest.update(b"vllm")
    work = Work(count, round(passes))
    return Tasks(parts, loaded, config.task_limit, work, served, digest.hexdigest())


def _manager(config: EvaluationConfig) -> Any:
    """Knows all tasks by their names; raises EvaluationError where it lacks one that is asked for.

    Where all are tasks of the user's own folder, the thousands that come with lm_eval are not read.
    """
    if find_spec("lm_eval") is None:
        raise EvaluationError(
            "tasks need lm-evaluation-harness, which is not installed: pip install '.[tasks]'"
        )
    folder = config.tasks_dir
    if folder is not None and not Path(folder).is_dir():
        raise EvaluationError(f"no folder at {folder}: check --tasks-dir")
    from lm_eval.tasks import TaskManager

    with quiet():
        if folder is not None:
            own = TaskManager(include_path=folder, include_defaults=False)
            if _knows(own, config.tasks):
                return own
        manager = TaskManager(include_path=folder)
    names = manager.all_tasks
    for name in config.tasks:
        if name not in names:
            like = get_close_matches(name, names, LISTED) or islice(names, LISTED)
            raise EvaluationError(
                f"no task '{name}' among {len(names):,}: there are {', '.join(like)} and others;"
                " --tasks-dir FOLDER adds your own"
            )
    return manager


def _knows(manager: Any, names: Iterable[Any]) -> bool:
    """Whether these are its tasks, or groups of such."""
    for name in names:
        entry = manager.task_index.get(name) if isinstance(name, str) else None
        if entry is None or entry.kind.name not in ("TASK", "PY_TASK", "GROUP"):
            return False
        if entry.kind.name == "GROUP" and not _knows(manager, entry.cfg["task"]):
            return False
    return True


def _load(manager: Any, name: str) -> dict[str, Any]:
    with _blaming(name):
        found: dict[str, Any] = manager.load([name])["tasks"]
    for task in found.values():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            raise EvaluationError(
                f"task '{task.task_name}' runs code that the model writes, or shows pictures: it is"
                " not asked here; choose another"
            )
    return found


def _requests(name: str, task: Any, limit: int | None) -> list[tuple[Any, Any]]:
    """Each request of a task, and what is right there."""
    prepare(task)
    with _blaming(name):
        task.build_all_requests(limit=limit)
        return [(request, task.doc_to_target(request.doc)) for request in task.instances]


def _judging(name: str, task: Any) -> str:
    """What a task says of itself but where it lies: what it reads is in its requests."""
    with _blaming(name):
        said = {key: value for key, value in task.dump_config().items() if key not in PLACES}
    return re.sub(" at 0x[0-9a-f]+", "", repr(said))  # of functions without a source


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    try:
        with quiet():
            yield
    except Exception as error:  # a task is code of others, and reads what it will
        raise EvaluationError(
            f"task '{name}' cannot be loaded ({said(error)}): data of the hub need a connection or"
            " must lie in its cache; of a task of your own check the YAML file and data_files"
        ) from error


def said(error: Exception) -> str:
    """An error's kind and first line."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"


def prepare(task: Any) -> None:
    """The same few-shot examples for every arm, none where the task asks for none."""
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEED)


def _passes(request: Any, longest: int) -> float:
    """Token passes of a request, about."""
    letters = sum(len(part) for part in request.args if isinstance(part, str))
    tokens = min(letters / CHARACTERS, longest)
    if request.request_type != "generate_until":
        return tokens
    most = int(request.args[1].get("max_gen_toks", GENERATED))
    return tokens + WRITTEN * most / 2


@contextmanager
def quiet() -> Iterator[None]:
    """What lm_eval says at its work, bars included, is for its own users."""
    with redirect_stderr(io.StringIO()):
        yield
