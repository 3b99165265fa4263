"""The worker: what a job's folder asks for is done here, from the first stage to the last word."""

import signal
import traceback
from contextlib import nullcontext, suppress
from typing import Any

from filelock import FileLock, Timeout

from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.errors import GradsError, Stopped, of_the_machine
from grads.jobs import disk
from grads.jobs.job import Job
from grads.jobs.processes import LETTING_GO_S
from grads.jobs.turns import turn
from grads.stages.linear_algebra import take_buffers
from grads.store.files import remove_drafts
from grads.store.folders import Draft, Evaluation, ProbeRequest, TokenRequest
from grads.store.machine import processes, rank
from grads.store.runs import JobFolder, Run
from grads.text import MESSAGE, cut, visible


def main(folder: JobFolder, at_once: bool = False) -> int:
    """Work in a folder until its job is finished, stopped or failed; the process's exit code.

    The job first waits for the other jobs of the runs folder to end, unless it is to start at once.
    """
    if rank() > 0:
        from grads.stages.run import help_with

        return help_with(Run(folder.path))
    if not folder.config_file.is_file():  # a lock would bring back the folder of a deleted run
        return _say(f"failed: {folder.path} is no job's folder, or no longer")
    try:
        with FileLock(folder.start_lock):
            pass  # who started this process has noted its number
        with FileLock(folder.lock_file, timeout=LETTING_GO_S):
            remove_drafts(folder.path)
            if processes() > 1:
                _lead(folder)
            return _work(Job(folder), at_once)
    except Timeout:
        return _say("another worker is at work here")
    except OSError as error:  # the disk takes no lock, or not even the last status
        job = Job(folder)
        code = _failed(job, _why(job, error))
        with suppress(OSError):
            folder.write_last_status(job.status)
        return code


def _work(job: Job[Any], at_once: bool) -> int:
    with job.beating():
        try:
            with nullcontext() if at_once else turn(job, job.folder.root):
                job.status.state = "running"
                _stages(job)
            job.status.state = "finished"
            job.status.eta_s = job.status.left_s = None
            return 0
        except Stopped:
            job.status.state, job.status.message = "stopped", "resume it to go on"
            return 0
        except Exception as error:
            return _failed(job, _why(job, error))
        finally:
            job.folder.stop_file.unlink(missing_ok=True)


def _lead(folder: JobFolder) -> None:
    """Be ready for the end of the other processes."""
    from grads.stages import together

    for file in folder.path.glob(Run(folder.path).helper_error_file("*").name):
        file.unlink()
    signal.signal(signal.SIGTERM, together.asked_to_end)


def _why(job: Job[Any], error: Exception) -> str:
    """What ended the job, in a line for people; the trace of what is not their doing is logged."""
    if processes() > 1:
        from grads.stages import together

        if together.lost_touch(error):
            return together.ended(job.folder)
    if job.folder.is_gone():
        return disk.gone(job.folder)
    if isinstance(error, GradsError):
        return str(error)
    with suppress(OSError):  # the log's own disk may be full
        print("\n".join(map(visible, traceback.format_exc().split("\n"))), flush=True)
    if told := disk.reason(error, job.folder) or of_the_machine(error):
        return told
    line = (str(error).splitlines() or [""])[0]
    kind, told = type(error).__name__, cut(visible(line), MESSAGE)
    return f"unexpected {kind}: {told}; the trace is in {job.folder.log_file}"


def _stages(job: Job[Any]) -> None:
    """What the folder asks for. Torch and its kin load here, while the heart already beats."""
    take_buffers()
    if isinstance(job.folder, Evaluation):
        _evaluation_stages(job, job.folder.config())
        return
    from grads.stages import probes, scoring
    from grads.stages import run as stages

    if isinstance(job.folder, TokenRequest):
        scoring.add_token_signals(job)
    elif isinstance(job.folder, ProbeRequest):
        probes.add(job)
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
    job.status.state, job.status.error = "failed", error
    job.status.eta_s = job.status.left_s = None
    return _say(f"failed: {error}")


def _say(text: str) -> int:
    """A line in the log, unless its disk is full; the exit code of what ends with it."""
    with suppress(OSError):
        print(text, flush=True)
    return 1
