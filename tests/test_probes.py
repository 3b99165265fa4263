"""Probe sets of real runs: at the start and later, the same numbers; damage, selections."""

import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from chain import WORDS, command, config_for, save_tiny_model, until, wait_for, write_data

from grads import api
from grads.api import ConfigError, ProbeConfig, RunError, SelectionConfig
from grads.errors import GradsError, SelectionError
from grads.store import pipeline
from grads.store.columns import TOWARDS, towards_name
from grads.store.files import open_table, read_json
from grads.store.runs import Run

pytestmark = pytest.mark.job
EXTRAS = ("question_gain",)


def write_set(path, n, seed, broken=0):
    """n rows to hold samples against, and rows that cannot be used."""
    rng = np.random.default_rng(seed)
    rows = [[" ".join(rng.choice(WORDS, k)) for k in (6, 9)] for _ in range(n)]
    lines = [json.dumps({"question": q + "?", "answer": a + "."}) for q, a in rows]
    path.write_text("\n".join(lines + [json.dumps({"question": "the?"})] * broken) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    write_set(folder / "good.jsonl", 5, 1, broken=2)
    write_set(folder / "other.jsonl", 7, 2)
    return folder


@pytest.fixture(scope="module")
def started(place):
    """A run that was given its sets at the start."""
    sets = {
        "targets": {"good": str(place / "good.jsonl")},
        "protected": {"other": str(place / "other.jsonl")},
    }
    run = api.create_run(config_for(place, **sets, extras=EXTRAS), str(place / "runs" / "started"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").error is None
    return run


@pytest.fixture(scope="module")
def plain(place):
    """The same run without any."""
    run = api.create_run(config_for(place), str(place / "runs" / "plain"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").error is None
    return run


@pytest.fixture
def copied(plain, tmp_path):
    return Run(shutil.copytree(plain.path, tmp_path / "runs" / "copy"))


def ask(run, **values):
    request = api.start_probe(run, ProbeConfig.parse(values))
    status = wait_for(request, "finished", "failed")
    return request, status


def assert_same_tables(mine, theirs):
    a, b = (open_table(path).read() for path in (mine, theirs))
    assert a.schema == b.schema
    for name in a.column_names:
        np.testing.assert_allclose(a[name].to_numpy(), b[name].to_numpy(), rtol=2e-4, atol=1e-6)


def test_sets_at_the_start_change_no_score(started, plain):
    assert_same_tables(started.scores_file, plain.scores_file)
    manifest = started.read_manifest()
    good, other = manifest.probes["good"], manifest.probes["other"]
    assert (good.role, good.samples, good.refused, good.in_pool) == ("target", 5, 2, 0)
    assert (other.role, other.samples) == ("protect", 7)
    assert pipeline.damaged(started) == []
    assert not started.parts.exists()


def test_sets_given_later_give_the_same_numbers(started, copied, place):
    sets = {
        "targets": [f"good={place / 'good.jsonl'}"],
        "protected": {"other": str(place / "other.jsonl")},
    }
    request, status = ask(copied, **sets, extras=EXTRAS)
    assert status.error is None
    for name in ("good", "other"):
        assert_same_tables(copied.probe_file(name), started.probe_file(name))
    assert_same_tables(copied.extras_file, started.extras_file)
    assert not request.parts.exists()
    assert pipeline.damaged(copied) == []
    with pytest.raises(RunError, match="its files are whole"):
        api.resume_run(copied)
    pool = api.load_pool(copied)
    for name in ("good", "other"):
        for field in TOWARDS:
            stored = open_table(copied.probe_file(name)).read()[field].to_numpy()
            assert (pool.numbers[towards_name(field, name)] == stored).all()


def test_samples_of_the_pool_as_a_set(copied):
    """A sample that is the whole set lies on itself."""
    sample = int(api.load_pool(copied).scores.sample_id[4])
    _, status = ask(copied, targets={"one": f"rows:{sample}"})
    assert status.error is None
    one = copied.read_manifest().probes["one"]
    assert (one.samples, one.in_pool, one.source) == (1, 1, f"rows:{sample}")
    table = open_table(copied.probe_file("one")).read().to_pandas().set_index("sample_id")
    assert table.loc[sample, ["embed_cosine", "head_cosine", "cosine", "rds"]].to_numpy() == (
        pytest.approx(np.ones(4), abs=1e-4)
    )
    assert (table.drop(index=sample)["cosine"] < 0.999).all()


def test_a_killed_request_goes_on(started, copied, place):
    config = ProbeConfig(targets={"good": str(place / "good.jsonl")}, extras=EXTRAS)
    request = api.start_probe(copied, config)
    until(lambda: api.observe(request).stage == "score" or not request_at_work(request), "scoring")
    now = api.observe(request)
    if now.state == "running":
        os.kill(now.pid, 9)
        until(lambda: api.observe(request).state == "interrupted", "the kill is seen")
    done = command("resume", "--run-dir", str(request.path))
    assert done.returncode == 0 or "finished" in done.stderr
    assert_same_tables(copied.probe_file("good"), started.probe_file("good"))
    assert_same_tables(copied.extras_file, started.extras_file)


def request_at_work(request):
    return api.observe(request).state in api.ACTIVE


@pytest.mark.parametrize(
    "name", ["probes/good.parquet", "probe_sets/good.parquet", "extras.parquet"]
)
def test_what_is_damaged_is_made_anew(started, tmp_path, name):
    """Also of sets that were given later, and where the file that they came from is gone."""
    run = Run(shutil.copytree(started.path, tmp_path / "runs" / "copy"))
    file = run.path / name
    file.write_bytes(file.read_bytes()[:-30])
    assert pipeline.damaged(run)
    api.resume_run(run)
    assert wait_for(run, "finished", "failed").error is None
    assert_same_tables(run.probe_file("good"), started.probe_file("good"))
    assert_same_tables(run.extras_file, started.extras_file)


@pytest.mark.parametrize("name", ["probes/good.parquet", "probe_sets/good.parquet"])
def test_a_set_beside_a_damaged_one_does_not_make_that_sound(started, place, tmp_path, name):
    """Only what was added is noted; a resume finds the damage, and makes that set anew."""
    run = Run(shutil.copytree(started.path, tmp_path / "runs" / "copy"))
    file = run.path / name
    file.write_bytes(file.read_bytes()[:-30])
    _, status = ask(run, targets={"more": str(place / "other.jsonl")})
    assert status.error is None
    assert pipeline.damaged(run)
    api.resume_run(run)
    assert wait_for(run, "finished", "failed").error is None
    assert pipeline.damaged(run) == []
    assert_same_tables(run.probe_file("good"), started.probe_file("good"))
    assert {"good", "other", "more"} == set(api.load_pool(run).probes)


def test_signals_are_not_added_to_damaged_ones(copied):
    sample = int(api.load_pool(copied).scores.sample_id[0])
    file = copied.token_signal_file
    file.write_bytes(file.read_bytes()[:-30])
    request = api.ask_token_signals(copied, [sample])
    error = wait_for(request, "failed", "finished").error
    assert "signals.parquet is damaged" in error
    assert "resume the run, which makes it anew" in error
    api.resume_run(copied)
    assert wait_for(copied, "finished", "failed").error is None
    assert copied.read_token_signal(sample)


def test_a_set_whose_file_has_changed_is_refused_on_resume(started, place, tmp_path):
    run = Run(shutil.copytree(started.path, tmp_path / "runs" / "copy"))
    values = read_json(run.config_file)
    write_set(tmp_path / "good.jsonl", 5, 9)
    values["targets"]["good"] = str(tmp_path / "good.jsonl")
    run.config_file.write_text(json.dumps(values))
    probes = run.read_manifest().probes
    probes["good"].source = str(tmp_path / "good.jsonl")
    run.update_manifest(probes=probes)
    run.probe_set_file("good").unlink()
    api.resume_run(run)
    assert "has changed since it was read" in wait_for(run, "failed", "finished").error


def test_the_command(copied, place):
    done = command(
        *("probe", "--run-dir", str(copied.path), "--target", f"good={place / 'good.jsonl'}"),
        *("--extras", "question_gain"),
    )
    assert done.returncode == 0, done.stderr
    assert "set good, target: 5 samples with" in done.stdout
    assert "2 rows refused" in done.stdout
    again = command("probe", "--run-dir", str(copied.path), "--protect", "good=x.jsonl")
    assert again.returncode == 1
    assert "has a set 'good' already" in again.stderr
    kept = command(
        *("select", "--run-dir", str(copied.path), "--name", "a", "--ratio", "0.2"),
        *("--criterion", "aligned", "--json"),
    )
    assert kept.returncode == 0, kept.stderr


def test_what_cannot_be_asked(copied, place, tmp_path):
    good = {"good": str(place / "good.jsonl")}
    for values, message in (
        ({}, "nothing is asked for"),
        ({"targets": {"gone": "/gone.jsonl"}}, "no file at /gone.jsonl"),
    ):
        with pytest.raises(RunError, match=message):
            api.create_probe(copied, ProbeConfig.parse(values))
    for values, message in (
        ({"targets": {"a/b": "x.jsonl"}}, "is no name for a set"),
        ({"targets": good, "protected": good}, "is a target and to be protected"),
        ({"targets": {"a": "rows:1,x"}}, "names no rows"),
        ({"targets": ["good"]}, "write NAME=FILE"),
        ({"targets": ["a=x", "a=y"]}, "given twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            ProbeConfig.parse(values)
    _, status = ask(copied, targets={"none": "rows:99999"})
    assert "no sample 99999" in status.error
    (tmp_path / "odd.jsonl").write_text('{"colour": "red", "size": 3}\n')
    _, status = ask(copied, targets={"odd": str(tmp_path / "odd.jsonl")})
    assert "neither those of the run nor a known layout" in status.error
    assert copied.read_manifest().probes == {}
    shutil.rmtree(copied.adapter)
    _, status = ask(copied, targets=good)
    assert "no warmed-up model" in status.error


def test_selections_without_what_they_need_say_what_to_do(plain):
    pool = api.load_pool(plain)
    for values, message in (
        ({"criterion": "aligned"}, "grads probe --target"),
        ({"criterion": "rds"}, "grads probe --target"),
        ({"towards": 1.0}, "grads probe --target"),
        ({"away": 1.0}, "grads probe --protect"),
        ({"criterion": "question_gain"}, "grads probe --extras question_gain"),
    ):
        with pytest.raises(SelectionError, match=message) as caught:
            pool.select(SelectionConfig.parse(values | {"ratio": 0.2}))
        assert isinstance(caught.value, GradsError)


def test_selections_by_direction(started):
    """Against plain sorting of the stored columns."""
    pool = api.load_pool(started)

    def kept(**values):
        return set(np.flatnonzero(pool.select(SelectionConfig.parse({"count": 9} | values)).kept))

    def best(column):
        return set(np.argsort(-pool.numbers[column], kind="stable")[:9])

    pure = {"typicality": 0.0, "focus": 0.0, "draw": "top"}
    assert kept(criterion="aligned") == best("embed_cosine_good")
    assert kept(**pure, towards=1.0) == best("embed_cosine_good")
    assert kept(**pure, towards=2.0, cosine="both") == best("cosine_good")
    assert kept(**pure, away=-1.0, cosine="head") == best("head_cosine_other")
    assert kept(criterion="rds") == best("rds_good")
    assert kept(criterion="question_gain") == best("question_gain_z")
    low = kept(**pure, away=1.0)
    assert low == set(np.argsort(pool.numbers["embed_cosine_other"], kind="stable")[:9])
    bound = kept(criterion="aligned", bounds=["question_gain_z:0:"])
    assert (pool.numbers["question_gain_z"][list(bound)] >= 0).all()


def test_question_gain_is_the_loss_that_the_question_saves(started):
    """The answers scored again as samples of their own, behind the template's words alone."""
    import torch

    from grads.data.tokens import TokenPool
    from grads.engine.autograd import autograd_norms
    from grads.engine.probing import without_questions
    from grads.stages import loading

    pool = loading.load_pool(started)
    alone: TokenPool = without_questions(pool)
    model = loading.load_scoring_model(started, torch.float32, "cpu")
    scores = api.load_pool(started).scores
    loss = dict(zip(scores.sample_id.tolist(), scores.loss, strict=True))
    stored = pq.read_table(started.extras_file).to_pydict()
    gain = dict(zip(stored["sample_id"], stored["question_gain"], strict=True))
    assert len(alone) == len(gain) > 40
    for row in range(0, len(alone), 9):
        ids, _, labels = alone.collate(np.array([row]), "cpu")
        slow = autograd_norms(model, ids[0], labels[0]).loss
        sample = int(alone.sample_ids[row])
        assert gain[sample] == pytest.approx(slow - loss[sample], abs=2e-5)
