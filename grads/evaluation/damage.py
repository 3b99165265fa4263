"""Which files of an evaluation do not hold what was written: a resume makes them anew."""

from collections.abc import Callable
from pathlib import Path

from grads.errors import RunError
from grads.evaluation.result import Answers, read_result
from grads.evaluation.trials import TrialResult
from grads.store.folders import Evaluation
from grads.store.records import LaterFormatError


def damaged(evaluation: Evaluation) -> list[Path]:
    """Files of finished arms, and of what they show, that cannot be read as what they are."""
    readers: dict[Path, Callable[[Path], object]] = dict.fromkeys(
        evaluation.arm_files().values(), TrialResult.read
    )
    readers |= {evaluation.result_file: read_result, evaluation.answers_file: Answers.read}
    return [path for path, read in readers.items() if path.exists() and not _is_whole(path, read)]


def _is_whole(path: Path, read: Callable[[Path], object]) -> bool:
    try:
        read(path)
    except LaterFormatError:
        return True
    except RunError:
        return False
    return True


def remove_damaged(evaluation: Evaluation) -> None:
    """Remove such files, with a line each: their arms are trained again."""
    for path in damaged(evaluation):
        print(f"{path} is damaged: made anew")
        path.unlink()
