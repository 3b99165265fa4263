"""What tests of the pages begin with: folders of runs, the demo, data that a page has looked at."""

import shutil

import chain
import pytest
from run_dirs import demo_run

from grads import api
from grads.selection.pool import Pool
from grads.store.folders import Evaluation


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty runs folder, which the pages use; data may lie below it."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    monkeypatch.setenv("GRADS_DATA_DIRS", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(root):
    """A copy of the demo's finished run."""
    return demo_run(root)


@pytest.fixture
def pool(run):
    return Pool(run)


@pytest.fixture(scope="module")
def tiny_place(tmp_path_factory):
    """A tiny local model and a data file with two rows that cannot be used."""
    folder = tmp_path_factory.mktemp("place")
    chain.save_tiny_model(folder / "model")
    chain.write_data(folder / "data.jsonl")
    return folder


@pytest.fixture
def tiny_link(tiny_place, root, monkeypatch):
    """Query parameters of a page that sets up a run of them."""
    monkeypatch.setenv("GRADS_DATA_DIRS", str(tiny_place))
    return {
        "dataset": str(tiny_place / "data.jsonl"),
        "model": str(tiny_place / "model"),
        "max_length": "64",
        "heldout": "5",
    }


@pytest.fixture(scope="module")
def checked_data(tiny_place, tmp_path_factory):
    """The folder of drafts after the real job has read these data."""
    config = chain.config_for(tiny_place)
    draft = api.check(config, "data", str(tmp_path_factory.mktemp("checked")))
    assert chain.wait_for(draft, "finished", "failed").state == "finished"
    return draft.path.parent


@pytest.fixture
def new_link(checked_data, tiny_link, root):
    """The same, where the data were looked at already; of the page Run."""
    shutil.copytree(checked_data, root / ".drafts")
    return tiny_link | {"view": "New run"}


@pytest.fixture
def started(monkeypatch):
    """Settings of the evaluations that a page wants to start."""
    wanted = []

    def start(run, name, config):
        wanted.append(config)
        return Evaluation.open(run, "tenth")

    monkeypatch.setattr(api, "start_evaluation", start)
    return wanted
