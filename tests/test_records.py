"""The JSON files of a run as checked records: formats, damage, what others have added; the arms."""

import json
import shutil

import pytest
from run_dirs import LATER_OPTIONS, demo_run

from grads import api
from grads.config.evaluation import ARM_KINDS, ARMS, EvaluationConfig
from grads.errors import ConfigError, RunError
from grads.evaluation.result import EvaluationResult, read_result
from grads.evaluation.trials import TrialResult
from grads.selection.options import SelectionConfig
from grads.selection.record import SelectionRecord, kept_ids
from grads.store.files import digest, write_table
from grads.store.folders import Draft
from grads.store.manifest import Manifest


@pytest.fixture
def run(tmp_path):
    """A copy of the demo's finished run."""
    return demo_run(tmp_path)


def changed(path, **values):
    """Rewrite a JSON file with other values of these names."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(kept | values), encoding="utf-8")


def files_of(run):
    """A file of each kind, and what reads it."""
    folder = run.evaluations / "tenth"
    return {
        run.manifest_file: run.read_manifest,
        run.selection_file("grads-10"): lambda: api.read_selection(run, "grads-10"),
        folder / "result.json": lambda: api.read_evaluation(run, "tenth"),
        folder / "answers.json": lambda: api.read_evaluation(run, "tenth"),
    }


def test_a_later_format_is_refused_by_name(run):
    for path, read in files_of(run).items():
        before = path.read_text(encoding="utf-8")
        changed(path, format=7, arms="another shape", counts=[], samples=1, prompts=None)
        with pytest.raises(RunError, match=rf"{path.name} is of format 7.* reads up to 1.* later"):
            read()
        path.write_text(before, encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("manifest.json", {"counts": {"rows": "many"}}, "counts.rows is 'many'"),
        ("manifest.json", {"format": "newest"}, "format is 'newest'"),
        ("selections/grads-10.json", {"samples": {"pool": 3}}, "samples.kept is missing"),
        ("selections/grads-10.json", {"options": {"ratio": 2}}, "options.ratio is 2"),
        ("evaluations/tenth/result.json", {"arms": [{}]}, "arms.0.label is missing"),
        ("evaluations/tenth/result.json", {"finished": None}, "finished is None"),
        ("evaluations/tenth/answers.json", {"prompts": {}}, "prompts is {}"),
    ],
)
def test_a_damaged_file_is_named_with_its_field(run, file, values, message):
    path = run.path / file
    changed(path, **values)
    with pytest.raises(RunError, match=f"{path.name} cannot be read: .*{message}"):
        files_of(run)[path]()


def test_what_others_have_added_stays(run):
    """In the file itself and in its parts, through a change of the manifest."""
    source = run.read_manifest().source.as_json()
    changed(run.manifest_file, note="by hand", source=source | {"license": "CC0"})
    run.update_manifest(device="another")
    values = json.loads(run.manifest_file.read_text(encoding="utf-8"))
    assert (values["note"], values["source"]["license"]) == ("by hand", "CC0")
    assert values["device"] == "another"
    result = run.evaluations / "tenth" / "result.json"
    changed(result, note="by hand")
    assert api.read_evaluation(run, "tenth").as_dict()["result"]["note"] == "by hand"


def test_the_manifest_takes_no_value_that_it_could_not_read_again(run):
    before = run.manifest_file.read_bytes()
    with pytest.raises(RunError, match=r"manifest.json cannot be read: seconds.score is 'long'"):
        run.update_manifest(seconds={"score": "long"})
    assert run.manifest_file.read_bytes() == before


def test_a_manifest_grows_by_what_is_told(tmp_path):
    """What no stage has told is not in the file."""
    manifest = Manifest(run="mine", seconds={"prepare": 1.5})
    manifest.write(tmp_path / "manifest.json")
    values = json.loads((tmp_path / "manifest.json").read_text())
    assert values == {"format": 1, "run": "mine", "seconds": {"prepare": 1.5}}
    assert Manifest.read(tmp_path / "manifest.json") == manifest
    with pytest.raises(RunError, match="tells no max_length"):
        _ = manifest.longest


def test_a_record_holds_every_option(run):
    """A default may be another one later: what was asked for is kept in full."""
    record = api.select_samples(run, "mine", SelectionConfig(ratio=0.5))
    values = json.loads(run.selection_file("mine").read_text(encoding="utf-8"))
    assert values["format"] == 1
    assert set(values["options"]) == set(SelectionConfig.model_fields)
    assert SelectionRecord.read(run.selection_file("mine")) == record


def test_a_selection_outlives_the_package_of_its_criterion(run):
    """It is read and exported; only choosing by it anew fails, by name."""
    path = run.selection_file("magnitude-10")
    options = json.loads(path.read_text(encoding="utf-8"))["options"]
    changed(path, options=options | {"criterion": "theirs"})
    record = api.read_record(run, "magnitude-10")
    assert record.options.criterion == "theirs"
    assert record.as_json()["options"] == options | LATER_OPTIONS | {"criterion": "theirs"}
    assert api.export_selection(run, "magnitude-10", "jsonl")["rows"] == 30
    with pytest.raises(ConfigError, match="no criterion 'theirs'"):
        api.preview(api.load_pool(run), record.options)


def test_results_written_and_read_again_are_the_same(run, tmp_path):
    result = read_result(run.evaluations / "tenth" / "result.json")
    result.write(tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == result
    prices = json.loads((tmp_path / "result.json").read_text())["price"]
    assert set(prices) == {"warm-up", "scoring", "training"}
    assert isinstance(prices["scoring"]["tokens"], int), "a count stays a whole number"


def test_infinite_losses_survive_a_file(tmp_path):
    """A diverged arm is no damaged file."""
    trial = TrialResult(
        arm="full",
        seed=0,
        key="k",
        samples=1,
        response_tokens=2,
        steps=1,
        tokens=3,
        seconds=0.5,
        curve=[(1, float("inf"))],
        sums={"heldout_loss": ([float("inf")], [2.0])},
    )
    trial.write(tmp_path / "full-0.json")
    again = TrialResult.read(tmp_path / "full-0.json")
    assert again == trial
    assert again.value("heldout_loss") == float("inf")
    assert again.value("general_loss") is None


def test_an_arm_that_is_not_as_it_was_written_is_refused(tmp_path):
    """Files of before have no digest, and are read as they stand."""
    path = tmp_path / "full-0.json"
    values = {"arm": "full", "seed": 0, "key": "k", "samples": 1, "response_tokens": 2, "steps": 1}
    values |= {"tokens": 3, "seconds": 0.5, "curve": [], "sums": {}, "written": {10: "a", 9: "b"}}
    TrialResult.checked(values, path).write(path)
    assert TrialResult.read(path).written == {10: "a", 9: "b"}
    TrialResult.read(path).model_copy(update={"seed": 1}).write(path)
    assert TrialResult.read(path).seed == 1
    changed(path, tokens=4)
    with pytest.raises(RunError, match="does not hold what was written"):
        TrialResult.read(path)
    values = json.loads(path.read_text())
    values.pop("sha256")
    path.write_text(json.dumps(values))
    assert TrialResult.read(path).tokens == 4


def test_a_selection_is_read_with_its_own_table_alone(run):
    for name, ratio in (("mine", 0.2), ("other", 0.1)):
        api.select_samples(run, name, SelectionConfig(ratio=ratio))
    tables = [run.selection_file(name).with_suffix(".parquet") for name in ("other", "mine")]
    shutil.copy(*tables)
    for read in (api.read_selection, kept_ids):
        with pytest.raises(RunError, match=r"'mine' is damaged .* save it again"):
            read(run, "mine")
    record = api.select_samples(run, "mine", SelectionConfig(ratio=0.1))
    assert len(kept_ids(run, "mine")) == record.samples.kept
    changed(run.selection_file("mine"), table_sha256="")
    assert len(kept_ids(run, "mine")) == record.samples.kept, "earlier records have none"


@pytest.mark.parametrize("damage", ["gone", "emptied", "cut short"])
def test_refused_rows_that_are_lost_are_told(run, damage):
    whole = [{"sample_id": i, "reason": "no answer", "advice": "write one"} for i in range(2)]
    run.write_rejects(whole)
    run.update_manifest(counts={"refused": 2})
    content = run.rejects_file.read_bytes()
    run.rejects_file.write_bytes(b"" if damage == "emptied" else content[:-9])
    if damage == "gone":
        run.rejects_file.unlink()
    with pytest.raises(RunError, match=r"rejects\.jsonl is damaged .* put a copy in its place"):
        run.read_rejects()
    run.update_manifest(files={"rejects.jsonl": "digest"})
    with pytest.raises(RunError, match="resume the run, which makes it anew"):
        run.read_rejects()
    run.rejects_file.write_bytes(content)
    assert run.read_rejects() == whole


@pytest.mark.parametrize("damage", ["noise", "other samples"])
def test_what_is_advised_for_a_damaged_table_helps(run, damage):
    """A resume makes anew what the digests tell of; a draft is no run to resume."""
    if damage == "noise":
        run.extras_file.write_bytes(b"?" * 99)
    else:
        write_table(run.extras_file, run.read_table(run.extras_file).slice(1))
    read = lambda: api.load_pool(run).question_gain  # noqa: E731
    with pytest.raises(RunError, match=r"extras\.parquet is .*: put a copy in its place, or start"):
        read()
    run.update_manifest(files={"extras.parquet": "digest"})
    with pytest.raises(RunError, match=r"extras\.parquet is .*: resume the run"):
        read()
    draft = Draft(run.path)
    if damage == "noise":
        with pytest.raises(RunError, match=f": remove {run.path}, and look at the data again"):
            draft.read_table(draft.extras_file)


def test_the_study_is_read_as_results():
    """Parts that earlier versions have written, without loss curves."""
    parts = sorted((api.APP.parent / "docs" / "study").glob("*.json"))
    assert parts
    for path in parts:
        values = json.loads(path.read_text(encoding="utf-8"))["result"]
        result = EvaluationResult.checked(values, path)
        assert {arm.label for arm in result.arms} == {arm["label"] for arm in values["arms"]}


# -- the kinds of arms


def test_arms_are_named_as_before():
    assert ARMS == ("base", "full", "random", "selection", "random_steps", "selection_steps")
    assert {name for name in ARM_KINDS if name not in ARMS} == {"criterion"}
    config = EvaluationConfig(selections=("a",), arms=("random_steps",))
    assert config.model_dump(mode="json")["arms"] == ["random_steps"]
    with pytest.raises(ConfigError, match=r"arms.0 is 'criterion'.* choose among base, full"):
        EvaluationConfig.parse({"selections": ["a"], "arms": ["criterion"]})


def test_every_chosen_kind_has_a_random_one_to_beat():
    """Trained as long as it is."""
    random = {kind.as_long_as_full for kind in ARM_KINDS.values() if kind.random}
    assert {kind.as_long_as_full for kind in ARM_KINDS.values() if kind.chosen} <= random


def test_a_page_says_which_file_is_damaged(run, monkeypatch):
    from run_dirs import assert_sound, messages, open_page

    monkeypatch.setenv("GRADS_RUNS_DIR", str(run.root))
    changed(run.evaluations / "tenth" / "result.json", finished="perhaps")
    at = open_page("Evaluate", run="demo")
    assert_sound(at)
    assert "result.json cannot be read: finished is 'perhaps'" in messages(at)
    shutil.rmtree(run.evaluations)
    changed(run.manifest_file, seconds=[])
    at = open_page("Run", run="demo", view="Watch")
    assert "manifest.json cannot be read: seconds is" in messages(at)


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_damaged_run_is_not_left_out_without_a_word(run, monkeypatch, capfd, name):
    """Where runs are listed, it is named with what is wrong."""
    from run_dirs import assert_sound, messages, open_page
    from typer.testing import CliRunner

    from grads.__main__ import app

    monkeypatch.setenv("GRADS_RUNS_DIR", str(run.root))
    (run.path / name).write_bytes(b"")
    assert api.summaries() == []
    done = CliRunner().invoke(app, ["list"])
    assert done.exit_code == 0
    told = done.output + capfd.readouterr().err
    assert f"demo is left out: {run.path / name} cannot be read" in told
    at = open_page("Start")
    assert_sound(at)
    assert f"{name} cannot be read" in messages(at)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{%", None])
def test_no_export_takes_a_template_that_is_not_the_runs(run, tmp_path, content):
    """Of what was scored, exports for trainers depend on it."""
    run.template_file.write_text("{{ messages }}")
    known = run.read_manifest().files | {run.template_file.name: digest(run.template_file)}
    run.update_manifest(files=known)
    api.export_selection(run, "grads-10", "jsonl", tmp_path / "sound.jsonl")
    run.template_file.unlink() if content is None else run.template_file.write_bytes(content)
    with pytest.raises(RunError, match=r"chat_template.jinja is damaged: resume the run"):
        api.export_selection(run, "grads-10", "jsonl", tmp_path / "other.jsonl")
