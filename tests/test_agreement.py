"""How far two runs agree: which samples are the same, how they rank, and what a seed changes."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain import command, config_for, save_tiny_model, wait_for, write_data
from run_dirs import assert_sound, choose, demo_run, everything, open_page
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.errors import ConfigError, RunError
from grads.selection.agreement import SHARES, ranks
from grads.store.files import write_json, write_table
from grads.store.runs import Run


def settings(run: Run, **values) -> Run:
    """The run with other settings in its config."""
    write_json(run.config_file, run.config_values() | values)
    return run


def with_scores(run: Run, **columns: np.ndarray) -> Run:
    """The run with other numbers in some of its score columns."""
    table = pq.read_table(run.scores_file)
    for name, values in columns.items():
        table = table.set_column(
            table.column_names.index(name), name, [np.asarray(values, np.float32)]
        )
    write_table(run.scores_file, table)
    return run


def scaled(run: Run, spread: float, seed: int) -> Run:
    """The run with every gradient and loss off by a random factor."""
    table, rng = pq.read_table(run.scores_file), np.random.default_rng(seed)
    names = ("loss", "embed_grad_norm", "head_grad_norm")
    found = {n: table[n].to_numpy() * np.exp(spread * rng.normal(size=len(table))) for n in names}
    return with_scores(run, **found)


def keep_rows(run: Run, kept: np.ndarray) -> Run:
    """The run with some of its scored samples alone, as if the others were never read."""
    files = [run.scores_file, run.features_file, run.extras_file, *run.probes.glob("*.parquet")]
    for file in files:
        table = pq.read_table(file)
        ids = pa.array(kept)
        write_table(file, table.filter(pa.compute.is_in(table["sample_id"], ids)))
    return run


def other_source(run: Run, digest: str = "another") -> Run:
    source = run.read_manifest().source.model_copy(update={"digest": digest})
    run.update_manifest(source=source)
    return run


@pytest.fixture
def three(tmp_path) -> tuple[Run, Run, Run]:
    """A run, another model's, and the first with another seed, which differs less."""
    first = demo_run(tmp_path, "first")
    second = settings(scaled(demo_run(tmp_path, "second"), 0.8, 1), model="/models/large")
    again = settings(scaled(demo_run(tmp_path, "again"), 0.1, 2), seed=7)
    return first, second, again


# -- ranks


def test_ranks_by_hand():
    a = np.array([10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    b = np.array([9.0, 10.0, 1.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 8.0])
    found = ranks(a, b)
    places = [np.argsort(np.argsort(v)) for v in (a, b)]
    difference = ((places[0] - places[1]) ** 2).sum()
    assert found.rank_correlation == pytest.approx(1 - 6 * difference / (10 * 99))
    assert tuple(found.overlap) == SHARES == (0.05, 0.1, 0.5)
    assert found.overlap[0.1] == 0.0  # the highest is another
    assert found.overlap[0.5] == pytest.approx(4 / 5)  # 10 9 7 6 of 10 9 8 7 6
    assert ranks(a, -a).rank_correlation == pytest.approx(-1)
    assert ranks(a, a**3).overlap == dict.fromkeys(SHARES, 1.0)


def test_samples_without_a_number_are_left_out():
    a = np.array([np.nan, 3.0, 2.0, 1.0, 0.0])
    b = np.array([1.0, 3.0, 2.0, np.inf, 0.0])
    assert ranks(a, b).samples == 3
    assert ranks(a, b).rank_correlation == pytest.approx(1)
    assert ranks(a, np.full(5, np.nan)) is None
    assert ranks(np.ones(5), np.arange(5.0)) is None, "what is all the same ranks nothing"


# -- which samples are the same


def test_rows_of_one_source_are_told_by_their_number(three):
    first, second, _ = three
    ids = pq.read_table(first.scores_file)["sample_id"].to_numpy()
    keep_rows(second, ids[::3])
    found = api.agree(first, second)
    assert (found.joined_by, found.samples) == ("row", len(ids[::3]))
    assert found.sample_id.tolist() == ids[::3].tolist()
    assert (found.only_first, found.only_second) == (len(ids) - len(ids[::3]), 0)


def test_a_row_with_another_text_is_another_sample(three):
    first, second, _ = three
    table = pq.read_table(second.samples_file)
    hashes = table["hash"].to_pylist()
    place = table["heldout"].to_pylist().index(False)
    hashes[place] = "0" * 32
    column = pa.array(hashes, table.schema.field("hash").type)
    table = table.set_column(table.column_names.index("hash"), "hash", column)
    write_table(second.samples_file, table)
    found = api.agree(first, second)
    assert (found.samples, found.only_first, found.only_second) == (299, 1, 1)
    assert table["sample_id"][place].as_py() not in found.sample_id


def test_rows_of_other_sources_are_told_by_their_text(three):
    """Copies in their order, wherever the rows stand."""
    first, second, _ = three
    for run in (first, second):
        table = pq.read_table(run.samples_file)
        hashes = ["f" * 32 if i % 50 == 0 else h for i, h in enumerate(table["hash"].to_pylist())]
        column = pa.array(hashes, table.schema.field("hash").type)
        place = table.column_names.index("hash")
        write_table(run.samples_file, table.set_column(place, "hash", column))
    own = pq.read_table(first.scores_file)["sample_id"].to_numpy()
    moved = [second.samples_file, second.scores_file, second.features_file, second.extras_file]
    for file in (*moved, *second.probes.glob("*.parquet")):
        table = pq.read_table(file)
        ids = pa.array(table["sample_id"].to_numpy() + 1000)
        write_table(file, table.set_column(0, "sample_id", ids))
    with pytest.raises(RunError, match="0 scored samples in common"):
        api.agree(first, second)
    found = api.agree(first, other_source(second))
    assert (found.joined_by, found.samples) == ("text", 300)
    assert found.sample_id.tolist() == own.tolist()
    gain = found.values["question_gain"]  # not scaled: the same of the same sample
    np.testing.assert_array_equal(*gain)


# -- what is compared


def test_numbers_are_those_of_the_whole_pool(three):
    """A run of a hundredth is standardised by its own samples, as its selections are."""
    first, second, _ = three
    keep_rows(second, pq.read_table(first.scores_file)["sample_id"].to_numpy()[::2])
    found = api.agree(first, second)
    pools = api.load_pool(first), api.load_pool(second)
    places = pools[0].positions(found.sample_id), pools[1].positions(found.sample_id)
    for name in ("signal", "embed_cosine_good", "loss"):
        for pool, place, values in zip(pools, places, found.values[name], strict=True):
            np.testing.assert_array_equal(pool.numbers[name][place], values)
    chosen = pools[0].select(api.SelectionConfig(ratio=0.1))
    np.testing.assert_array_equal(found.values["score"][0], chosen.ranking.score[places[0]])
    best = {found.sample_id[np.argsort(-v)[:75]].tobytes() for v in found.values["loss"]}
    assert len(best) == 2
    shared = np.intersect1d(*(np.argsort(-v)[:75] for v in found.values["loss"]))
    assert found.columns["loss"].overlap[0.5] == pytest.approx(len(shared) / 75)


def test_lengths_and_columns_of_the_source_are_not_compared(three):
    found = api.agree(*three[:2])
    assert {"score", "signal", "embed_signal", "loss", "cosine_good"} <= set(found.columns)
    assert not {"response_tokens", "prompt_tokens", "sample_id", "truncated"} & set(found.columns)


def test_a_set_with_other_rows_is_left_out_and_told(three):
    first, second, _ = three
    probes = second.read_manifest().probes
    probes["good"] = probes["good"].model_copy(update={"digest": "other"})
    second.update_manifest(probes=probes)
    found = api.agree(first, second)
    assert "cosine_everyday" in found.columns
    assert not any(name.endswith("_good") for name in found.columns)
    assert any("set good holds other examples" in note for note in found.notes)


# -- a second seed


def test_a_second_seed_stands_beside_it(three):
    first, second, again = three
    alone = api.agree(first, second)
    assert not alone.by_seed
    assert "such as again" in alone.notes[-1], "the run that would do is named"
    found = api.agree(first, second, again)
    assert found.by_seed.keys() == found.columns.keys()
    assert found.by_seed["loss"].rank_correlation > found.columns["loss"].rank_correlation + 0.1
    direct = api.agree(first, again)
    assert found.by_seed["loss"] == direct.columns["loss"]
    assert not any("--again" in note for note in found.notes)
    assert found.differ == {"model": ("demo", "/models/large")}


def test_both_comparisons_are_of_the_samples_that_all_three_have(three):
    first, second, again = three
    ids = pq.read_table(first.scores_file)["sample_id"].to_numpy()
    keep_rows(second, ids[:200])
    keep_rows(again, ids[100:])
    found = api.agree(first, second, again)
    assert found.sample_id.tolist() == ids[100:200].tolist()
    assert {one.samples for one in (found.columns["loss"], found.by_seed["loss"])} == {100}
    keep_rows(again, ids[200:])
    with pytest.raises(RunError, match="leave --again out"):
        api.agree(first, second, again)


@pytest.mark.parametrize(
    ("values", "told"),
    [({"seed": 0}, "differs .* by nothing"), ({"epochs": 2.0}, "by epochs, seed")],
)
def test_only_the_seed_may_differ(three, values, told):
    first, second, again = three
    with pytest.raises(RunError, match=told):
        api.agree(first, second, settings(again, **values))
    assert not api.second_seeds(first)


def test_a_run_is_not_compared_with_itself(three):
    with pytest.raises(RunError, match="with itself"):
        api.agree(three[0], Run.open(three[0].path))


# -- the command


def test_the_command_shows_a_table_and_speaks_json(three):
    first, second, again = (str(run.path) for run in three)
    done = CliRunner().invoke(app, ["agree", first, second, "--again", again])
    assert done.exit_code == 0, done.output
    found = api.agree(*three)
    (line,) = [line for line in done.output.splitlines() if line.startswith("signal ")]
    one, seed = found.columns["signal"], found.by_seed["signal"]
    assert line.split()[1:3] == [f"{one.rank_correlation:.3f}", f"({seed.rank_correlation:.3f})"]
    assert line.split()[3] == f"{one.overlap[0.05]:.1%}"
    assert "300 samples are in all three" in done.output
    assert "the runs differ in model demo and /models/large" in done.output
    told = json.loads(CliRunner().invoke(app, ["agree", first, second, "--json"]).output)
    assert told["columns"]["signal"]["overlap"]["0.1"] == one.overlap[0.1]
    assert told["by_seed"] == {}
    assert "not known: give --again" in told["notes"][-1]
    assert "values" not in told
    assert "seed_values" not in told


def test_the_picture_stands_alone(three, tmp_path):
    first, second, _ = (str(run.path) for run in three)
    file = tmp_path / "it's a picture.html"
    done = CliRunner().invoke(app, ["agree", first, second, "--picture", str(file)])
    assert done.exit_code == 0, done.output
    text = file.read_text(encoding="utf-8")
    assert "Learning signal in first" in text
    assert "plotly.js v" in text, "the library is in it: no connection is needed"
    assert "<h2>" not in text
    wrong = CliRunner().invoke(app, ["agree", first, second, "--picture", "signal.png"])
    assert isinstance(wrong.exception, ConfigError)
    nowhere = str(file / "a.html")
    failed = CliRunner().invoke(app, ["agree", first, second, "--picture", nowhere])
    assert "could not be written" in str(failed.exception)


def test_the_picture_shows_beside_it_what_a_second_seed_changes(three, tmp_path):
    """The same samples, placed by the two runs of one setting."""
    first, second, again = (str(run.path) for run in three)
    file = tmp_path / "picture.html"
    pair = ["agree", first, second, "--again", again]
    done = CliRunner().invoke(app, [*pair, "--picture", str(file)])
    assert done.exit_code == 0, done.output
    text = file.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "The two runs",
        "What a second seed alone changes",
    ]
    for name in ("first", "second", "again"):
        assert f"Learning signal in {name}" in text
    assert text.count("plotly.js v") == 1
    found = api.agree(*three)
    for name, one in found.by_seed.items():
        assert ranks(*found.seed_values[name]) == one
        assert all(len(values) == found.samples for values in found.seed_values[name])


# -- the page


def test_explore_compares_with_another_run(three, monkeypatch):
    first, second, _ = three
    monkeypatch.setenv("GRADS_RUNS_DIR", str(first.root))
    at = choose(open_page("Explore", run="first"), "Other run", "second")
    assert_sound(at)
    assert at.query_params["other"] == "second", "a copied link shows the same"
    found = api.agree(first, second)
    assert "300 examples with the same rows and texts" in everything(at)
    assert "The runs differ in model" in everything(at)
    (table,) = [t.value for t in at.dataframe if "Rank correlation" in t.value]
    row = table[table["Column"] == "Learning signal"].iloc[0]
    value = f"{found.columns['signal'].rank_correlation:.2f}"
    assert row["Rank correlation"].startswith(f"{value} / "), "the second seed is found by itself"
    assert row["10%"].startswith(f"{found.columns['signal'].overlap[0.1]:.0%} / ")
    assert "What a second seed alone changes" in everything(at)
    pictures = [c.proto.alt for c in at.get("plotly_chart") if "Places of" in c.proto.alt]
    assert len(pictures) == 2
    assert_sound(choose(at, "Ranked by", "loss"))
    linked = open_page("Explore", run="first", other="second", ranked="loss")
    assert "300 examples with the same rows and texts" in everything(linked)
    assert [box.value for box in linked.selectbox if box.label == "Ranked by"] == ["loss"]


def test_explore_says_where_there_is_nothing_to_compare(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    demo_run(tmp_path)
    at = open_page("Explore")
    assert_sound(at)
    assert "There is no other scored run" in everything(at)


# -- a small draw


@pytest.mark.job
def test_a_draw_of_the_rows_agrees_with_all_of_them(tmp_path):
    """The check on a few: the same rows are found, and an untrained model scores them alike."""
    save_tiny_model(tmp_path / "model")
    write_data(tmp_path / "data.jsonl")
    runs = []
    for name, more in (("all", {}), ("some", {"subsample": 20, "seed": 5})):
        run = api.create_run(config_for(tmp_path, warmup="none", **more), str(tmp_path / name))
        api.start_run(run)
        assert wait_for(run, "finished", "failed").error is None
        runs.append(run)
    manifests = [run.read_manifest() for run in runs]
    assert manifests[1].counts.rows == 20
    assert manifests[0].source.digest == manifests[1].source.digest
    done = command("agree", *(str(run.path) for run in runs), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ids = [pq.read_table(run.scores_file)["sample_id"].to_pylist() for run in runs]
    assert found["samples"] == len(set(ids[0]) & set(ids[1])) > 5
    assert found["columns"]["loss"]["rank_correlation"] == pytest.approx(1)
    assert found["columns"]["embed_grad_norm"]["overlap"]["0.5"] == 1
