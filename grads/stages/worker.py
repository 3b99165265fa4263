"""The worker: what a job's folder asks for is done here, from the first stage to the last word."""

import traceback
from contextlib import nullcontext
from typing import Any

from filelock import FileLock, Timeout

from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.errors import GradsError, Stopped
from grads.jobs.job import Job, turn
from grads.store.folders import Draft, Evaluation, TokenRequest
from grads.store.runs import JobFolder

OUT_OF_MEMORY = "out of memory: lower --batch-tokens or --max-length"


def main(folder: JobFolder, at_once: bool = False) -> int:
    """Work in a folder until its job is finished, stopped or failed; the process's exit code.

    The job first waits for the other jobs of the runs folder to end, unless it is to start at once.
    """
    with FileLock(folder.start_lock):
        pass  # who started this process has noted its number
    try:
        with FileLock(folder.lock_file, timeout=0):
            return _work(Job(folder), at_once)
    except Timeout:
        print("another worker is at work here", flush=True)
        return 1


def _work(job: Job[Any], at_once: bool) -> int:
    with job.beating():
        try:
            with nullcontext() if at_once else turn(job):
                job.status.state = "running"
                _stages(job)
            job.status.state, job.status.eta_s = "finished", None
            return 0
        except Stopped:
            job.status.state, job.status.message = "stopped", "resume it to go on"
            return 0
        except GradsError as error:
            return _failed(job, str(error))
        except MemoryError:
            return _failed(job, OUT_OF_MEMORY)
        except Exception as error:
            traceback.print_exc()
            if "out of memory" in str(error).lower():  # torch has its own, on each device
                return _failed(job, OUT_OF_MEMORY)
            line = (str(error).splitlines() or [""])[0]
            log = job.folder.log_file
            return _failed(job, f"unexpected {type(error).__name__}: {line}; the trace is in {log}")
        finally:
            job.folder.stop_file.unlink(missing_ok=True)


def _stages(job: Job[Any]) -> None:
    """What the folder asks for. Torch and its kin load here, while the heart already beats."""
    if isinstance(job.folder, Evaluation):
        _evaluation_stages(job, job.folder.config())
        return
    from grads.stages import run as stages

    if isinstance(job.folder, TokenRequest):
        stages.add_token_signals(job)
    elif isinstance(job.folder, Draft):
        stages.check(job)
    else:
        stages.run_all(job)


def _evaluation_stages(job: Job[Any], config: EvaluationConfig | TuneConfig) -> None:
    if isinstance(config, TuneConfig):
        from grads.stages import tuning

        tuning.tune(job, config)
    else:
        from grads.stages import evaluation

        evaluation.evaluate(job, config)


def _failed(job: Job[Any], error: str) -> int:
    print(f"failed: {error}", flush=True)
    job.status.state, job.status.error, job.status.eta_s = "failed", error, None
    return 1
