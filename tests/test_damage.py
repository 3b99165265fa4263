"""Every file of a run cut short, emptied or filled with noise, under every command and page.

Each either works as on the sound run, or ends with one line that says what is wrong. By
`make reliability` all of them are tried, otherwise a few that are drawn anew for each version.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from chain import config_for, save_tiny_model, write_data
from forked import Forks
from run_dirs import BROKEN, PAGES, assert_sound, everything, headlines, links, open_page

from grads import __version__, api
from grads.selection.options import SelectionConfig
from grads.store.columns import MEASURED
from grads.store.runs import Run

pytestmark = pytest.mark.job
DAMAGES = ("cut short", "emptied", "noise")
FEW = 6  # files of the short form
RECIPE = ["--epochs", "1", "--batch-size", "4", "--lora-rank", "4", "--seeds", "1", "--lr", "5e-3"]
# What of a state is of the moment.
MOMENT = {"path", "heartbeat", "pid", "process_ticks", "process_started", "turn", "run", "id"}
MOMENT |= {"message"}


@dataclass
class Place:
    """A folder with a model, data, and a run that has a file of every kind."""

    folder: Path
    run: Run
    forks: Forks

    def arguments(self, name: str, run: Path) -> list[str]:
        """What a command is called with; it writes what it makes beside the run."""
        at = ["--run-dir", str(run)]
        general = ["--general", str(self.folder / "general.jsonl")]
        target = ["--target", f"new={self.folder / 'good.jsonl'}"]
        out = ["--selection", "fifth", "--out", str(run.parent / "out.jsonl")]
        search = ["--setting", "loss-low", "--setting", "typical-high", "--ratio", "0.2"]
        arms = ["--selection", "fifth", "--arms", "base", "--arms", "selection"]
        shown = ["--selection", "fifth", "--evaluation", "one"]
        by_set = ["--criterion", "aligned", "--ratio", "0.3"]
        return {
            "list": ["list", "--runs-dir", str(run.parent)],
            "status": ["status", *at],
            "status of an evaluation": ["status", "--run-dir", str(run / "evaluations/one")],
            "decisions": ["decisions", *at],
            "export": ["export", *at, *out],
            "select": ["select", *at, "--name", "new", "--ratio", "0.3"],
            "select by a set": ["select", *at, "--name", "by-set", *by_set],
            "agree": ["agree", str(run), str(self.run.path)],
            "packet": ["packet", *at, "--out", str(run.parent / "packet.html")],
            "report": ["report", *at, *shown, "--out", str(run.parent / "report.html")],
            "rename": ["rename", str(run), "ward round"],
            "rename a topic": ["rename", str(run), "hydration", "--topic", "1"],
            "note": ["note", str(run), "for Ada"],
            "correct": ["correct", *at, "--sample", "9", "--field", "answer", "--text", "rest."],
            "run": ["run", *at, "--config", str(self.folder / "run.yaml")],
            "decide": ["decide", *at, "--exclude", "9", "--reason", "wrong"],
            "stop": ["stop", *at],
            "resume": ["resume", *at],
            "resume an evaluation": ["resume", "--run-dir", str(run / "evaluations/one")],
            "evaluate": ["evaluate", *at, "--name", "new", *arms, *general, *RECIPE],
            "tune": ["tune", *at, "--name", "new", *search, *general, *RECIPE],
            "probe": ["probe", *at, *target],
            "reproduce": ["reproduce", str(run)],
            "reproduce a selection": ["reproduce", str(run / "selections" / "fifth.json")],
        }[name]

    def call(self, name: str, run: Path) -> tuple[int, str, str]:
        more = [] if name == "decide" else ["--json"]
        return self.forks.command(*self.arguments(name, run), *more)


# What a command that goes on without a damaged file says, or without a line of it.
TOLD = re.compile(
    "cannot be read|was broken off and is passed over|is damaged"
    r'|"unreadable_decisions": \[\s*\d'
)
# In this order upon one copy; each of the others gets a copy of its own.
QUICK = (
    "list",
    "status",
    "status of an evaluation",
    "stop",
    "decisions",
    "export",
    "select",
    "select by a set",
    "reproduce a selection",
    "agree",
    "packet",
    "report",
    "rename",
    "rename a topic",
    "note",
    "correct",
    "decide",
)
JOBS = ("run", "resume", "resume an evaluation", "evaluate", "tune", "probe", "reproduce")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl", 40)
    lines = (folder / "data.jsonl").read_text().splitlines()
    (folder / "good.jsonl").write_text("\n".join(lines[20:24]) + "\n")
    general = ['{"instruction": "the heart?", "output": "rest and water."}'] * 4
    (folder / "general.jsonl").write_text("\n".join(general) + "\n")
    sets = {"targets": {"good": str(folder / "good.jsonl")}, "extras": ("question_gain",)}
    with Forks() as forks:
        run = Run.create(config_for(folder, **sets), folder / "runs" / "run")
        assert forks.work(run.path)["code"] == 0
        api.select_samples(run, "fifth", SelectionConfig(ratio=0.2))
        api.decide_all(run, [("exclude", 11), ("pin", 14)], "seen", reviewer="Ada")
        api.describe(run, title="ward", notes="for Ada")
        api.name_topic(run, 0, "heart")
        answer = next(path for path in api.texts_of(run, 14) if api.name_of(path) == "answer")
        api.correct(run, 14, answer, "rest.", reviewer="Ada")
        values = run.config().model_dump_json(exclude_none=True)
        (folder / "run.yaml").write_text(values)
        made = Place(folder, run, forks)
        at = ["--run-dir", str(run.path)]
        general_file = ["--general", str(folder / "general.jsonl")]
        arms = ["--arms", "base", "--arms", "selection", "--arms", "random"]
        for arguments in (
            ["evaluate", *at, "--name", "one", "--selection", "fifth", *arms, *general_file],
            [
                "tune",
                *at,
                "--name",
                "two",
                "--setting",
                "loss-low",
                "--ratio",
                "0.2",
                *general_file,
            ],
        ):
            code, _, error = forks.command(*arguments, *RECIPE)
            assert code == 0, error
        code, _, error = forks.command(
            "probe", *at, "--protect", f"other={folder / 'general.jsonl'}"
        )
        assert code == 0, error
        one = api.Evaluation.open(run, "one")
        api.rate(one, api.pairs(api.read_evaluation(run, "one").answers)[0], "left", "Ada")
        code, _, error = forks.command("export", *at, "--selection", "fifth")
        assert code == 0, error
        yield made


def files_of(run: Run) -> list[str]:
    """Every file with something in it, as a path within the run."""
    found = (path for path in run.path.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(str(path.relative_to(run.path)) for path in found)


def copy_of(place: Place, folder: Path, file: str | None, damage: str) -> Path:
    """A copy of the run, of the same name, with one file damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    run = folder / "runs" / "run"
    shutil.copytree(place.run.path, run)
    if file is not None:
        content = (run / file).read_bytes()
        noise = np.random.default_rng(len(content)).bytes(max(len(content), 64))
        changed = {"cut short": content[: len(content) // 2], "emptied": b"", "noise": noise}
        (run / file).write_bytes(changed[damage])
    return run


def result_of(name: str, run: Path, out: str) -> object:
    """What a command has made of a run, without what is of the moment."""
    if name == "export":
        return hashlib.sha256((run.parent / "out.jsonl").read_bytes()).hexdigest()
    if name in ("select", "select by a set"):
        saved = {"select": "new", "select by a set": "by-set"}[name]
        return api.read_selection(Run(run), saved)[1]["kept"].to_pylist()
    if name in ("evaluate", "tune"):
        found = api.read_evaluation(Run(run), "new").result
        return {arm.label: round_all(arm.mean) for arm in found.arms}
    if name == "resume an evaluation":
        found = api.read_evaluation(Run(run), "one").result
        return {arm.label: round_all(arm.mean) for arm in found.arms}
    if name in ("run", "resume"):
        return scores_of(run)
    if name == "agree":
        return json.loads(out) | {"first": run.name}
    if name == "report":
        return (run.parent / "report.html").exists()
    if name == "correct":
        return json.loads(out)["texts"]
    if name == "probe":
        table = pq.read_table(Run(run).probe_file("new"))
        return {c: np.round(table[c].to_numpy(), 4).tolist() for c in table.column_names}
    if name in ("reproduce", "reproduce a selection"):
        return json.loads(out)["agrees"]
    if name == "decide":
        return out
    return without_moment(json.loads(out))


def round_all(values: dict) -> dict:
    return {k: round(v, 4) for k, v in values.items() if v is not None and "seconds" not in k}


def scores_of(run: Path) -> dict:
    table = pq.read_table(run / "scores.parquet")
    return {c: np.round(table[c].to_numpy(), 4).tolist() for c in ("sample_id", *MEASURED)}


def without_moment(value: object) -> object:
    if isinstance(value, dict):
        return {k: without_moment(v) for k, v in value.items() if k not in MOMENT}
    return [without_moment(one) for one in value] if isinstance(value, list) else value


def is_told(error: str) -> bool:
    """Whether the last line is the error, and the only one, and none that was not foreseen."""
    *before, last = error.splitlines() or [""]
    others = [line for line in before if line.startswith("error: ")]
    return last.startswith("error: ") and not others and "unexpected" not in last


def wrong_with(place: Place, name: str, run: Path, sound: object) -> str | None:
    """What is wrong with how a command ended on a damaged run; None where all is well."""
    code, out, error = place.call(name, run)
    told = f"{name}: exit {code}: {(error or out)[-600:]}"
    if "Traceback" in out + error or "unexpected" in error:
        return told
    if code:
        return None if is_told(error) else told
    try:
        found = result_of(name, run, out)
    except Exception as broken:
        return f"{name}: exit 0, but {type(broken).__name__}: {broken}"
    if found == sound or TOLD.search(out + error):
        return None
    return f"{name}: exit 0, but {str(found)[:300]} and not {str(sound)[:300]}"


def wrong_page(page: str, run: Path, sound: list[str]) -> str | None:
    """The same of a page."""
    at = drawn(page)
    try:
        assert_sound(at)
    except AssertionError as error:
        return f"page {page}: {str(error)[:600]}"
    if BROKEN in everything(at):
        return f"page {page}: {BROKEN}"
    told = at.error or at.warning
    listed = page != "Start" or {"Explore it", "Watch it"} & set(links(at))
    if told or (listed and headlines(at) == sound):
        return None
    return f"page {page}: {headlines(at)} and not {sound}, without a word"


def drawn(page: str):
    more = {"Explore": {"sample": "9"}, "Evaluate": {"evaluation": "one"}}.get(page, {})
    return open_page(page, run="run", **more)


@dataclass
class Sound:
    """What a command makes of the sound run, and which of its files it touches on the way."""

    result: object
    touched: list[str]


@pytest.fixture(scope="module")
def sound(place, tmp_path_factory):
    """By command, made when it is first asked for."""
    known: dict[str, Sound] = {}
    folder = tmp_path_factory.mktemp("sound")

    def of(name: str) -> Sound:
        if name not in known:
            run = copy_of(place, folder, None, "")
            for before in QUICK[: QUICK.index(name)] if name in QUICK else ():
                place.call(before, run)
            never_read(run)
            code, out, error = place.call(name, run)
            touched = [
                file
                for file in files_of(place.run)
                if was_touched(run / file, place.run.path / file)
            ]
            assert (code == 0) == (name not in ("stop", "resume", "resume an evaluation")), error
            result = None if code and "resume" not in name else result_of(name, run, out)
            known[name] = Sound(result, touched)
        return known[name]

    return of


def never_read(folder: Path) -> None:
    """Set the files' times of access back: the system notes the next one, by whatever library."""
    for path in filter(Path.is_file, folder.rglob("*")):
        os.utime(path, ns=(0, path.stat().st_mtime_ns))


def was_touched(file: Path, original: Path) -> bool:
    """Whether a copy was read since, written to, replaced or removed."""
    if not file.exists():
        return True
    return file.stat().st_atime > 0 or file.stat().st_mtime_ns != original.stat().st_mtime_ns


def chosen(place: Place, full: bool) -> list[tuple[str, str]]:
    """The damages to try: all, or a few files, each damaged in one way."""
    files = files_of(place.run)
    rng = np.random.default_rng(list(__version__.encode()))
    if full:
        cells = [(file, damage) for file in files for damage in DAMAGES]
        return [cells[i] for i in rng.permutation(len(cells))]
    picked = rng.choice(files, FEW, replace=False)
    return [(str(file), DAMAGES[i % 3]) for i, file in enumerate(picked)]


def chosen_for_jobs(place: Place, sound: Callable, full: bool) -> list[tuple[str, str, str]]:
    """The same under commands with jobs: of each, the files that it touches.

    What it does not touch on the sound run, it does not on one where that alone is damaged.
    Where the system keeps no times of access, all.
    """
    never_read(place.folder / "model")
    file = place.folder / "model" / "config.json"
    file.read_bytes()
    kept = was_touched(file, file)
    rng = np.random.default_rng(list(__version__.encode()))
    cells = []
    for i, name in enumerate(JOBS):
        files = sound(name).touched if kept else files_of(place.run)
        picked = files if full else [rng.choice(files)]
        damages = DAMAGES if full else [DAMAGES[i % 3]]
        cells += [(str(file), damage, name) for file in picked for damage in damages]
    return cells


@pytest.mark.full
def test_commands_that_read_are_told_of_damage(place, sound, tmp_path, full):
    wrong = []
    cells = chosen(place, full)
    for file, damage in cells:
        run = copy_of(place, tmp_path / "copy", file, damage)
        for name in QUICK:
            if found := wrong_with(place, name, run, sound(name).result):
                wrong.append(f"{file} {damage}: {found}")
    print(f"{len(cells)} damages under {len(QUICK)} commands")
    assert not wrong, "\n".join(wrong)


@pytest.mark.full
def test_jobs_are_told_of_damage_or_mend_it(place, sound, tmp_path, full):
    wrong = []
    cells = chosen_for_jobs(place, sound, full)
    for number, (file, damage, name) in enumerate(cells, start=1):
        run = copy_of(place, tmp_path / "copy", file, damage)
        if found := wrong_with(place, name, run, sound(name).result):
            wrong.append(f"{file} {damage}: {found}")
            print(wrong[-1])
        print(f"{number} of {len(cells)}: {name}, {file} {damage}, {len(wrong)} wrong", flush=True)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("damage", ["cut", "valid JSON"])
@pytest.mark.parametrize("file", ["result.json", "answers.json", "arms/*.json"])
def test_a_damaged_evaluation_is_mended_by_a_resume(place, tmp_path, file, damage):
    """From its arms; a damaged arm is trained again, and gives the same numbers. What is JSON still
    lacks a field, or in an arm has a digit that is another one.
    """
    run = copy_of(place, tmp_path, None, "")
    folder = run / "evaluations" / "one"
    sound = result_of("resume an evaluation", run, "")
    damaged = max(folder.glob(file))
    values = json.loads(damaged.read_text())
    if file == "arms/*.json":
        values["sums"]["heldout_loss"][0][0] += 1.0
    else:
        values.pop({"result.json": "arms", "answers.json": "prompts"}[file])
    damaged.write_text(damaged.read_text()[:40] if damage == "cut" else json.dumps(values))
    code, _, error = place.call("resume an evaluation", run)
    assert code == 0, error
    assert result_of("resume an evaluation", run, "") == sound
    assert json.loads(damaged.read_text())
    code, _, error = place.call("resume an evaluation", run)
    assert (code, is_told(error)) == (1, True)
    assert "nothing to resume" in error


def test_a_search_tells_of_decisions_that_it_could_not_read(place, tmp_path):
    """It tests its settings with what people have decided."""
    run = copy_of(place, tmp_path, "decisions.jsonl", "cut short")
    code, out, error = place.call("tune", run)
    assert code == 0, error
    (number,) = Run(run).unreadable_decisions()
    told = f"line {number} of decisions.jsonl was broken off and is passed over"
    assert told in api.read_evaluation(Run(run), "new").result.notes
    assert told in out


@pytest.mark.full
def test_pages_tell_of_damage(place, tmp_path, monkeypatch, full):
    run = copy_of(place, tmp_path / "sound", None, "")
    monkeypatch.setenv("GRADS_RUNS_DIR", str(run.parent))
    sentences = {page: headlines(drawn(page)) for page in PAGES}
    wrong = []
    cells = chosen(place, full)
    for number, (file, damage) in enumerate(cells):
        run = copy_of(place, tmp_path / str(number), file, damage)
        monkeypatch.setenv("GRADS_RUNS_DIR", str(run.parent))
        for page in PAGES:
            if found := wrong_page(page, run, sentences[page]):
                wrong.append(f"{file} {damage}: {found}")
        shutil.rmtree(tmp_path / str(number))
    print(f"{len(cells)} damages under {len(PAGES)} pages")
    assert not wrong, "\n".join(wrong)
