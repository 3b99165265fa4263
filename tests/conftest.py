"""What all tests share: the environment, the demo model, and a guard of the fast tier."""

import os
from contextlib import ExitStack
from functools import cache

import pytest
from filelock import FileLock
from forked import Spawned
from hypothesis import settings
from watched import watch

from grads.jobs import processes as jobs

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads cost more than they bring
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing may be fetched
settings.register_profile("any machine", deadline=None)  # a loaded one is slow, and not wrong
settings.load_profile("any machine")
SLOW = ("job", "browser", "wheel")  # the marks that `make check` leaves out


def pytest_configure(config):
    watch(config)


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that the processes have their last ones together."""
    slow = {one.path for one in items if any(map(one.get_closest_marker, SLOW))}
    items.sort(key=lambda one: one.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test without a mark of the slow tier starts no job, nor does a fixture on its behalf."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"{item.nodeid} starts a job: give it the mark `job`")

    with pytest.MonkeyPatch.context() as patch:
        if not any(item.get_closest_marker(mark) for mark in SLOW):
            patch.setattr(jobs, "start", refuse)
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def forked_jobs():
    """Jobs that a test starts itself need not load torch each: they are forks of what has."""
    spawn = jobs.spawn
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        loaded = cache(lambda: stack.enter_context(Spawned()))

        def start(folder, command, *, processes=1, turn=None):
            some = loaded().spawn if command[0] == "worker" else spawn
            some(folder, command, processes=processes, turn=turn)

        patch.setattr(jobs, "spawn", start)
        yield spawn


@pytest.fixture
def own_processes(forked_jobs, monkeypatch):
    """Jobs are started as the program starts them."""
    monkeypatch.setattr(jobs, "spawn", forked_jobs)


@pytest.fixture(scope="session")
def full():
    """Whether the tests marked `full` run at their whole length: `make reliability` asks for it."""
    return os.environ.get("RELIABILITY") == "full"


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory):
    """The bundled model, converted at its first use ever: by one of the processes of the tests."""
    from grads.engine import models

    with FileLock(tmp_path_factory.getbasetemp().parent / "demo-model.lock"):
        models.load_tokenizer("demo")
