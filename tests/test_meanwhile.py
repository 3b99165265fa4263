"""What another process, a kill or a hand does meanwhile makes no result wrong in silence."""

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from run_dirs import demo_run
from test_export import config, lines_subset
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.api import exports
from grads.engine.models import load_tokenizer
from grads.errors import ExportError, RunError
from grads.export import saved, write
from grads.export.write import FORMATS, changed_lines, export
from grads.report import choice
from grads.selection.options import SelectionConfig
from grads.selection.record import kept_ids
from grads.stages.preparing import keep_template
from grads.store import files
from grads.store.files import replacing


@pytest.fixture
def run(tmp_path):
    return demo_run(tmp_path)


class Killed(BaseException):
    """What ends a process at once."""


def killed(*_, **__):
    raise Killed


def first(act, then):
    """A function that acts, and then does what the given one does."""

    def both(*args, **kwargs):
        act()
        return then(*args, **kwargs)

    return both


# -- exports


def to_file(out, **manifest):
    return export(lines_subset(ids=[0, 1, 2]), "jsonl", out, config(), manifest=manifest)


def test_no_manifest_of_an_earlier_file_stays_beside_that_of_a_killed_export(tmp_path, monkeypatch):
    """The file was removed by hand, its manifest was not."""
    out = tmp_path / "mine.jsonl"
    to_file(out, selection="earlier")
    out.unlink()
    monkeypatch.setattr(write, "write_text", killed)  # of the manifest
    with pytest.raises(Killed):
        to_file(out, selection="later")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_of_two_exports_to_one_place_the_later_is_refused(tmp_path, monkeypatch):
    """It would have taken the place of the other's file, beside the other's manifest."""
    out, form = tmp_path / "mine.jsonl", FORMATS["jsonl"]

    def the_other_is_done():
        monkeypatch.setitem(FORMATS, "jsonl", form)
        to_file(out, selection="the other's")

    slow = replace(form, count=first(the_other_is_done, form.count))
    monkeypatch.setitem(FORMATS, "jsonl", slow)
    with pytest.raises(ExportError, match="exists already"):
        to_file(out, selection="mine")
    (beside,) = tmp_path.glob("*.manifest.json")
    assert json.loads(beside.read_text())["selection"] == "the other's"
    assert len([*tmp_path.iterdir()]) == 2


def test_an_export_made_anew_while_it_is_packed_is_no_mixture(run, monkeypatch):
    path = Path(api.export_selection(run, "auto", "trl")["path"])

    def made_anew():
        monkeypatch.undo()
        api.export_selection(run, "auto", "trl", with_scores=True)

    packing = first(made_anew, zipfile.ZipFile.write)
    monkeypatch.setattr(zipfile.ZipFile, "write", lambda *args: packing(*args))
    with pytest.raises(RunError, match="was made anew meanwhile"):
        saved.bundle(path)
    _, packed = saved.bundle(path)
    there = {file.name: file.read_bytes() for file in path.iterdir()}
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert {Path(name).name: archive.read(name) for name in archive.namelist()} == there


def test_what_people_decide_while_an_export_is_at_work_is_not_said_of_it(run, monkeypatch):
    one = int(kept_ids(run, "auto")[0])
    api.decide(run, one, "pin", reviewer="Ada")

    def decided():
        api.decide(run, one, "exclude", reviewer="Bo")

    monkeypatch.setattr(exports, "sampling_weights", first(decided, exports.sampling_weights))
    manifest = api.export_selection(run, "auto", "jsonl", weights="repeat")
    assert manifest["disagreed"] == []
    assert [made["sample_id"] for made in manifest["decisions"]] == [one]
    monkeypatch.undo()
    assert api.export_selection(run, "auto", "jsonl")["disagreed"] == [one]


def test_a_correction_made_while_an_export_is_at_work_has_its_tokens(run, monkeypatch):
    """Without them a trainer's way of writing it out would be trusted unseen."""
    keep_template(run, load_tokenizer("demo"))
    one = int(kept_ids(run, "auto")[0])
    api.correct(run, one, ("answer",), "Call a doctor.")
    place = Path(api.export_selection(run, "auto", "trl")["path"])
    expected = {file.name: file.read_text() for file in place.iterdir() if file.stem != "manifest"}
    assert "assistant_only_loss" in expected["trl.yaml"]
    run.corrections_file.unlink()

    def corrected():
        api.correct(run, one, ("answer",), "Call a doctor.")

    monkeypatch.setattr(saved, "_subset", first(corrected, saved._subset))
    assert api.export_selection(run, "auto", "trl")["corrected"] == [one]
    assert {name: (place / name).read_text() for name in expected} == expected


def test_an_export_by_other_scores_says_so(run):
    assert changed_lines(api.export_selection(run, "auto", "jsonl")) == []
    run.scores_file.write_bytes((run.scores_file).read_bytes() + b" ")
    told = changed_lines(api.export_selection(run, "auto", "jsonl"))
    assert told == ["the run's scores are others than it was chosen by"]


def test_a_selection_is_of_the_scores_that_it_was_chosen_by(run):
    """Though others have come between reading and saving, as a resume elsewhere writes them."""
    pool = api.load_pool(run)
    run.scores_file.write_bytes(run.scores_file.read_bytes() + b" ")
    api.select_samples(run, "later", SelectionConfig.parse({"ratio": 0.1}), pool)
    told = changed_lines(api.export_selection(run, "later", "jsonl"))
    assert told == ["the run's scores are others than it was chosen by"]


def test_a_selection_of_samples_that_the_run_does_not_have_is_refused(run):
    """As one that was copied from another run: the rows would be fewer without a word."""
    last = int(kept_ids(run, "auto")[-1])
    table = run.read_table(run.samples_file)
    others = table.filter([sample != last for sample in table["sample_id"].to_pylist()])
    files.write_table(run.samples_file, others)
    with pytest.raises(RunError, match="does not have all samples of selection 'auto'"):
        api.export_selection(run, "auto", "jsonl")


# -- folders and files


def test_a_folder_that_is_replaced_is_never_half_there(tmp_path, monkeypatch):
    """Whoever is killed as the old one is removed."""
    place = tmp_path / "data"
    for text in ("earlier", "later"):
        if text == "later":
            monkeypatch.setattr(shutil, "rmtree", killed)
        try:
            with replacing(place) as draft:
                draft.mkdir()
                for name in ("a", "b"):
                    (draft / name).write_text(text)
        except Killed:
            pass
        assert {path.name: path.read_text() for path in place.iterdir()} == {"a": text, "b": text}


def test_an_upload_is_what_was_uploaded_now(tmp_path):
    """Not what a crash has left of it, or a hand has made of it, under the same digest."""
    place = Path(api.save_upload("d.jsonl", b'{"a": 1}\n', str(tmp_path)))
    for left in (b"", b'{"a": 2}\n'):
        place.write_bytes(left)
        assert api.save_upload("d.jsonl", b'{"a": 1}\n', str(tmp_path)) == str(place)
        assert place.read_bytes() == b'{"a": 1}\n'


def test_a_report_shows_the_rows_of_the_selection_that_it_tells_of(run, monkeypatch):
    """Not those of one that is saved by the same name meanwhile."""
    api.select_samples(run, "mine", api.SelectionConfig(ratio=0.1))
    shown = []

    def saved_anew():
        api.select_samples(run, "mine", api.SelectionConfig(ratio=0.5))

    def told(pool, record, preview):
        shown.append((record.samples.kept, int(preview.kept.sum())))
        return ""

    monkeypatch.setattr(choice, "preview", first(saved_anew, choice.preview))
    monkeypatch.setattr(choice, "chosen", told)
    api.report(run, "mine")
    ((said, kept),) = shown
    assert said == kept


# -- what people type


@pytest.mark.parametrize("option", ["--reviewer", "--reason"])
def test_a_name_that_is_no_text_is_kept_as_json_writes_it(run, option):
    """A terminal hands over bytes that are no UTF-8."""
    words = ["decide", "--run-dir", str(run.path), "--exclude", "12", option, "a\udcff"]
    done = CliRunner().invoke(app, words)
    assert done.exception is None
    (made,) = api.decisions(run).values()
    assert getattr(made, option.removeprefix("--")) == "a\udcff"
    assert run.unreadable_decisions() == []
