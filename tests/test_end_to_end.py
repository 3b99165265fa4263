"""The whole chain on a tiny model, in real processes: run, select, export; kill and resume."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from chain import (
    PATIENCE,
    ROOT,
    at_work,
    command,
    config_for,
    gone,
    save_tiny_model,
    until,
    wait_for,
    write_data,
)

from grads import api
from grads.errors import RunError
from grads.jobs import processes as jobs
from grads.selection.options import SelectionConfig
from grads.store.columns import MEASURED
from grads.store.runs import Run

pytestmark = pytest.mark.job


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny model and a data set."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    return folder


@pytest.fixture(scope="module")
def finished(place):
    """An undisturbed run."""
    run = api.create_run(config_for(place), str(place / "runs" / "undisturbed"))
    assert api.start_run(run)
    assert wait_for(run, "finished", "failed").state == "finished"
    return run


def test_token_signals_asked_for_later_are_those_of_the_scoring_pass(finished, tmp_path):
    """A job of their own computes them; others that are there already stay."""
    run = Run(shutil.copytree(finished.path, tmp_path / "copy"))
    before = {sample: run.read_token_signal(sample) for sample in (0, 9)}
    shutil.rmtree(run.token_signal_file.parent)
    for sample in before:
        assert run.read_token_signal(sample) is None
        request = api.ask_token_signals(run, [sample])
        assert wait_for(request, "finished", "failed").state == "finished"
    for sample, expected in before.items():
        found = run.read_token_signal(sample)
        assert found["embed_token_norm"] == pytest.approx(expected["embed_token_norm"], rel=1e-4)
        assert found["head_token_norm"] == pytest.approx(expected["head_token_norm"], rel=1e-4)
        pieces = run.read_tokens(sample)["pieces"]
        assert len(pieces) == len(found["embed_token_norm"])


def test_token_signals_need_the_warmed_up_model(finished, tmp_path):
    run = Run(shutil.copytree(finished.path, tmp_path / "copy"))
    shutil.rmtree(run.token_signal_file.parent)
    shutil.rmtree(run.adapter)
    status = wait_for(api.ask_token_signals(run, [9]), "finished", "failed")
    assert status.state == "failed"
    assert "no warmed-up model" in status.error


def stored(run):
    """Bytes of the run's files."""
    return sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())


def test_a_cost_is_measured_before_the_start(place, finished, tmp_path):
    """A draft says seconds by stage, memory and disk; a run without a warm-up costs none.

    With a tiny model nearly all memory is Python's and torch's own, as in the run itself.
    """
    took = max(row["rss"] for row in finished.read_metrics())
    found = {}
    for warmup in ("lora", "none"):
        draft = api.check(config_for(place, warmup=warmup), "cost", str(tmp_path))
        assert wait_for(draft, "finished", "failed").state == "finished"
        found[warmup] = draft.read_estimate()
    assert set(found["lora"].seconds) == {"warm-up", "self-check", "score"}
    assert set(found["none"].seconds) == {"self-check", "score"}
    for estimate in found.values():
        assert estimate.samples == 60 - 2 - 5
        assert sum(estimate.seconds.values()) > 0
        assert estimate.memory_bytes == pytest.approx(took, rel=0.2)
    assert 1.2 < found["lora"].disk_bytes / stored(finished) < 2.2
    assert 0 < found["none"].disk_bytes < found["lora"].disk_bytes
    assert api.busy(str(tmp_path)) == [], "a draft is no run"
    assert api.summaries(str(tmp_path)) == []


def most_memory(run):
    """Wait for the run's job to end; the most memory its process ever held, as Linux counts it."""
    most = 0

    def ended():
        nonlocal most
        status = jobs.observe(run)
        file = Path(f"/proc/{status.pid}/status")
        lines = file.read_text().splitlines() if status.pid and file.exists() else []
        for line in lines:
            if line.startswith("VmHWM:"):
                most = max(most, 1024 * int(line.split()[1]))
        return status if status.state in ("finished", "failed") else None

    status = until(ended, f"the end of {run.path}", pause=0.01)
    assert status.state == "finished", status.error
    return most


def test_an_estimate_is_what_the_run_then_takes(place, tmp_path):
    """Where the logits outweigh all else: a run takes hardly more than was said, nor far less.

    Its time follows from the speed that was measured, and that is held to the right magnitude: the
    load of the machine may change between the two.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(place / "model", tmp_path / "wide", ignore=shutil.ignore_patterns("model.*"))
    shape = {"vocab_size": 60_000, "hidden_size": 64, "intermediate_size": 64}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": True}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **shape, **heads))
    model.save_pretrained(tmp_path / "wide")
    wide = {"model": str(tmp_path / "wide"), "batch_size": 32, "batch_tokens": 2048}
    config = config_for(place, **wide)
    draft = api.check(config, "cost", str(tmp_path))
    assert wait_for(draft, "finished", "failed").state == "finished"
    said = draft.read_estimate()
    run = api.create_run(config, str(tmp_path / "run"))
    api.start_run(run)
    took = most_memory(run)
    logits = 4 * 60_000 * 53 * 30  # bytes for one pass over 53 samples of about 30 tokens
    assert took > 2 * logits, "else the test would say nothing"
    assert 0.9 < said.memory_bytes / took < 1.8
    assert 1.5 < said.disk_bytes / stored(run) < 2.2
    seconds = run.read_manifest().seconds
    spent = sum(seconds[stage] for stage in said.seconds)
    assert 1 / 6 < sum(said.seconds.values()) / spent < 6
    warmup, score = (
        said.seconds[stage] - said.tokens / getattr(said, f"{speed}_tokens_per_s")
        for stage, speed in (("warm-up", "training"), ("score", "scoring"))
    )
    assert min(warmup, score) > -0.06, "on top comes the loading of the model"
    assert warmup == pytest.approx(score, abs=0.11), "the same for both, but for a rounded digit"


def test_run_directory_is_as_the_contract_says(finished):
    scores = pq.read_table(finished.scores_file)
    assert scores.schema.names == [
        "sample_id",
        "prompt_tokens",
        "response_tokens",
        "loss",
        "embed_grad_norm",
        "head_grad_norm",
        "grad_dot",
        "truncated",
    ]
    assert [str(t) for t in scores.schema.types] == [
        "int64",
        "int32",
        "int32",
        *["float"] * 4,
        "bool",
    ]
    assert len(scores) == 60 - 2 - 5
    ids = scores["sample_id"].to_numpy()
    assert (np.diff(ids) > 0).all()
    assert {3, 8}.isdisjoint(ids.tolist())
    manifest = finished.read_manifest()
    assert manifest.counts.as_json() == {
        "rows": 60,
        "usable": 58,
        "refused": 2,
        "heldout": 5,
        "truncated": manifest.counts.truncated,
        "response_tokens": manifest.counts.response_tokens,
    }
    assert manifest.self_check.largest_relative_difference < 1e-4
    assert manifest.gradients_taken == "after the warm-up"
    rejects = finished.read_rejects()
    assert [(reject["row"], reject["line"]) for reject in rejects] == [(3, 4), (8, 9)]
    signals = pq.read_table(finished.token_signal_file)
    lengths = [len(v) for v in signals["embed_token_norm"].to_pylist()]
    total = scores["prompt_tokens"].to_numpy() + scores["response_tokens"].to_numpy()
    assert lengths == total.tolist()
    assert not finished.parts.exists()
    assert {row["stage"] for row in finished.read_metrics()} == {"warm-up", "score"}
    features = pq.read_table(finished.features_file)
    assert features["sample_id"].to_pylist() == ids.tolist()
    assert not set(pq.read_table(finished.samples_file)["sample_id"].to_pylist()) - set(range(60))


def test_scores_of_the_run_agree_with_autograd(finished):
    """What the files hold is what plain autograd says of the warmed-up model."""
    import torch

    from grads.engine.autograd import autograd_norms
    from grads.stages import loading

    model = loading.load_scoring_model(finished, torch.float32, "cpu")
    pool = loading.load_pool(finished)
    scores = pq.read_table(finished.scores_file).to_pylist()
    for row in scores[::10]:
        position = np.flatnonzero(pool.sample_ids == row["sample_id"])
        ids, _, labels = pool.collate(position)
        expected = autograd_norms(model, ids[0], labels[0])
        for name in ("loss", "embed_grad_norm", "head_grad_norm"):
            assert row[name] == pytest.approx(getattr(expected, name), rel=1e-4)
    assert any("lora" in name for name, _ in model.named_parameters())


def test_select_and_export_match_bytes_ids_and_counts(place, finished, tmp_path):
    """The source may be gone: the run keeps its lines."""
    lines = (place / "data.jsonl").read_bytes().splitlines(keepends=True)
    options = SelectionConfig.parse({"ratio": 0.2, "bounds": [{"column": "age", "high": 5}]})
    record = api.select_samples(finished, "fifth", options)
    assert record.samples.as_json() == {"kept": round(0.2 * 53), "pool": 53}
    _, table = api.read_selection(finished, "fifth")
    kept = table.filter(table["kept"])["sample_id"].to_pylist()
    assert all(json.loads(lines[i])["age"] <= 5 for i in kept)
    (place / "data.jsonl").rename(place / "gone.jsonl")
    try:
        out = tmp_path / "subset.jsonl"
        manifest = api.export_selection(finished, "fifth", "jsonl", out)
    finally:
        (place / "gone.jsonl").rename(place / "data.jsonl")
    assert out.read_bytes() == b"".join(lines[i] for i in sorted(kept))
    assert manifest["rows"] == len(kept)
    tokens = pq.read_table(finished.scores_file).filter(table["kept"])["response_tokens"]
    assert record.response_tokens.kept == sum(tokens.to_pylist())


@pytest.mark.parametrize("stage", ["prepare", "warm-up", "self-check", "score", "cluster"])
def test_killed_in_a_stage_and_resumed(place, finished, stage, monkeypatch):
    """SIGKILL at the stage's first report: shown as interrupted, resumed to the same scores."""
    run = api.create_run(config_for(place), str(place / "runs" / f"killed-{stage}"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.setenv("GRADS_TEST_PAUSE", stage)
    with run.log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "paused_worker", str(run.path)],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=ROOT,
        )
    marker = run.path / "paused"
    until(marker.exists, f"{stage} of {run.path}", during=lambda: process.poll() is None)
    assert jobs.observe(run).stage == stage
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=PATIENCE)
    status = jobs.observe(run)
    assert status.state == "interrupted"
    assert "resume" in status.error
    api.resume_run(run)
    assert wait_for(run, "finished", "failed").state == "finished"
    mine, theirs = (pq.read_table(r.scores_file) for r in (run, finished))
    assert mine["sample_id"].equals(theirs["sample_id"])
    for name in MEASURED:
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("own_processes")
@pytest.mark.parametrize("own", [None, "glibc.malloc.top_pad=65536"])
def test_stop_ends_the_process_tree_and_keeps_what_is_done(place, monkeypatch, own):
    """The job runs with huge pages, unless the user has settings for glibc's memory."""
    if own:
        monkeypatch.setenv("GLIBC_TUNABLES", own)
    run = api.create_run(config_for(place, epochs=500.0), str(place / "runs" / f"stopped-{own}"))
    api.start_run(run)
    assert not api.start_run(run), "a second start must find the first one's job"
    wait_for(run, "running")

    def warming_up():
        status = jobs.observe(run)
        return status.stage == "warm-up" and status.done > 2

    until(warming_up, "three steps of the warm-up", during=lambda: at_work(run))
    process = psutil.Process(jobs.observe(run).pid)
    assert process.environ()["GLIBC_TUNABLES"] == (own or "glibc.malloc.hugetlb=1")
    assert api.stop_run(run).state == "stopped"
    until(lambda: gone(process), "the end of the process")
    assert list(run.checkpoints.glob("checkpoint-*/complete"))
    with pytest.raises(RunError, match="no job to stop"):
        api.stop_run(run)


def test_a_second_job_waits_in_the_queue(place):
    first = api.create_run(config_for(place, epochs=500.0), str(place / "runs" / "first"))
    second = api.create_run(config_for(place, epochs=500.0), str(place / "runs" / "second"))
    api.start_run(first)
    wait_for(first, "running")
    api.start_run(second)
    waits = lambda: "another job" in wait_for(second, "queued").message  # noqa: E731
    until(waits, "the message that another job is at work")
    assert api.stop_run(second).state == "stopped"
    assert api.stop_run(first).state == "stopped"


def test_a_frozen_job_is_at_work_and_can_be_stopped(place, monkeypatch):
    """SIGSTOP, as by a machine that sleeps: no heartbeat, but the process is there."""
    monkeypatch.setattr(jobs, "STALE_S", 1.0)
    run = api.create_run(config_for(place, epochs=500.0), str(place / "runs" / "frozen"))
    api.start_run(run)
    wait_for(run, "running")
    process = psutil.Process(jobs.observe(run).pid)
    process.suspend()
    until(lambda: "no sign of life" in jobs.observe(run).message, "the silence")
    assert jobs.observe(run).state == "running"
    with pytest.raises(RunError, match="stop it first"):
        api.delete_run(run)
    assert jobs.stop(run, grace_s=1.0).state == "stopped"
    until(lambda: gone(process), "the end of the process", seconds=30)


def test_another_config_is_refused(place, finished):
    with pytest.raises(RunError, match=r"made with another config \(seed was 0, now 1\)"):
        api.create_run(config_for(place, seed=1), str(finished.path))


def test_nan_loss_stops_with_step_and_samples(place, tmp_path):
    """A learning rate without bounds: the run fails with the step and the batch's ids."""
    run = api.create_run(config_for(place, lr=1e30, epochs=5.0), str(place / "runs" / "nan"))
    api.start_run(run)
    status = wait_for(run, "failed", "finished")
    assert status.state == "failed"
    assert "at step" in status.error
    assert "on samples [" in status.error


def test_warmup_can_be_taken_over(place, finished):
    """The same adapter, the same scores, no training; other data is refused."""
    config = config_for(place, warmup_from=str(finished.path))
    run = api.create_run(config, str(place / "runs" / "taken-over"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").state == "finished"
    mine, theirs = (pq.read_table(r.scores_file) for r in (run, finished))
    np.testing.assert_allclose(mine["head_grad_norm"], theirs["head_grad_norm"], rtol=1e-5)
    assert {row["stage"] for row in run.read_metrics()} == {"score"}


@pytest.mark.parametrize("values", [{"warmup": "full"}, {"warmup": "none"}, {"dtype": "bfloat16"}])
def test_other_warmups(place, values):
    name = "-".join(f"{k}-{v}" for k, v in values.items())
    run = api.create_run(config_for(place, **values), str(place / "runs" / name))
    api.start_run(run)
    status = wait_for(run, "finished", "failed")
    assert status.state == "finished", status.error
    assert run.weights.exists() == (values.get("warmup") == "full")
    assert len(pq.read_table(run.scores_file)) == 53


def test_batch_tokens_do_not_change_the_scores(place, finished):
    """Another batch size and order of the scoring pass, the same warm-up: the same numbers."""
    config = config_for(place, warmup_from=str(finished.path), batch_tokens=1000)
    run = api.create_run(config, str(place / "runs" / "large-batches"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").state == "finished"
    mine, theirs = (pq.read_table(r.scores_file) for r in (run, finished))
    for name in ("loss", "embed_grad_norm", "head_grad_norm"):
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-4)


def test_command_line_from_run_to_export(place, tmp_path):
    """Exit codes, JSON for machines, one-line errors."""
    settings = tmp_path / "run.yaml"
    settings.write_text(f"model: {place / 'model'}\nmax_length: 64\nbatch_size: 4\nlora_rank: 4\n")
    run_dir = str(tmp_path / "run")
    arguments = ["--dataset", str(place / "data.jsonl"), "--config", str(settings), "--json"]
    done = command("run", "--run-dir", run_dir, *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"]["state"] == "finished"
    again = command("run", "--run-dir", run_dir, *arguments)
    assert again.returncode == 0

    done = command("select", "--run-dir", run_dir, "--name", "mine", "--ratio", "0.5", "--json")
    kept = json.loads(done.stdout)["samples"]["kept"]
    assert kept == 26  # of 58 usable rows 5 are set aside
    out = str(tmp_path / "mine.parquet")
    export = ["export", "--run-dir", run_dir, "--selection", "mine", "--format", "parquet"]
    done = command(*export, "--out", out, "--with-scores")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(out)
    assert len(table) == kept
    assert {"question", "age", "grads_loss"} <= set(table.column_names)
    every = str(tmp_path / "every.jsonl")
    by_weight = [*export[:-1], "jsonl", "--weights", "repeat", "--rows", "90"]
    done = command(*by_weight, "--out", every)
    assert done.returncode == 0, done.stderr
    assert f"wrote 90 rows as jsonl to {every}, loaded back\nweights: " in done.stdout
    assert len(Path(every).read_bytes().splitlines()) == 90
    general = tmp_path / "general.jsonl"
    general.write_text('{"instruction": "pain?", "output": "rest."}\n')
    out_mixed = str(tmp_path / "mixed.parquet")
    replay = [*export, "--replay", str(general), "--replay-share", "0.03"]
    done = command(*replay, "--out", out_mixed)
    assert done.returncode == 0, done.stderr
    assert "replay: 1 row of general.jsonl, 3.7% of all" in done.stdout
    assert len(pq.read_table(out_mixed)) == kept + 1

    listed = json.loads(command("list", "--runs-dir", str(tmp_path), "--json").stdout)
    assert [row["id"] for row in listed] == ["run"]
    assert "finished" in command("status", "--run-dir", run_dir).stdout
    for arguments, code, message in (
        ([*export, "--out", out], 1, "exists already"),
        ([*export, "--weights", "twice"], 1, "no weights 'twice'"),
        ([*export, "--replay", "a.jsonl"], 1, "its share None: give a file, and a share"),
        (["select", "--run-dir", run_dir, "--name", "x"], 2, "exactly one budget"),
        (["select", "--run-dir", run_dir, "--name", "../x", "--ratio", "0.1"], 1, "is no name"),
        (["status", "--run-dir", str(tmp_path / "no")], 1, "no run at"),
        (["stop", "--run-dir", run_dir], 1, "no job to stop"),
        (["resume", "--run-dir", run_dir], 1, "nothing to resume"),
        (["run", "--dataset", str(tmp_path / "no.jsonl")], 1, "no file at"),
    ):
        failed = command(*arguments, env={**os.environ, "GRADS_RUNS_DIR": str(tmp_path / "bad")})
        assert failed.returncode == code, (arguments, failed.stderr)
        assert message in failed.stderr
        assert "Traceback" not in failed.stderr
        if code == 1:
            *before, last = failed.stderr.splitlines()
            assert last.startswith("error: ")
            assert message in last, "one line says what was wrong"
            assert not any(line.startswith("error: ") for line in before)


def test_ctrl_c_stops_cleanly_and_says_how_to_resume(place, tmp_path):
    settings = config_for(place, epochs=500.0).model_dump(mode="json", exclude_none=True)
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "grads", "run", "--config", str(file), "--run-dir", tmp_path / "r"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # As a terminal starts it; a job in the background would inherit a SIGINT that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    made = tmp_path / "r" / "config.json"
    until(made.exists, "the run's folder", during=lambda: process.poll() is None)
    wait_for(Run(tmp_path / "r"), "running")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "go on with: python -m grads resume --run-dir" in error
    assert jobs.observe(Run(tmp_path / "r")).state == "stopped"
