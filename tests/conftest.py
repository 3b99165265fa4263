"""What all tests share: the environment, the demo model, and a guard of the fast tier."""

import os

import pytest
from filelock import FileLock
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test without a mark of the slow tier starts no job, nor does a fixture on its behalf."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"{item.nodeid} starts a job: give it the mark `job`")

    with pytest.MonkeyPatch.context() as patch:
        if not any(item.get_closest_marker(mark) for mark in SLOW):
            patch.setattr(jobs, "start", refuse)
        return (yield)


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
