"""Run directories in every state, and the dashboard's pages as AppTest draws them."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner, Result

from grads.__main__ import app
from grads.selection.record import read_selection
from grads.store.files import write_table
from grads.store.runs import Run, Status

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "assets" / "demo"
PAGES = ("Start", "Data", "Run", "Explore", "Review", "Select", "Evaluate")
STATES = ("queued", "running", "stopping", "stopped", "failed", "interrupted")
ERROR = "the loss is nan at step 3 on samples [1, 2]: lower --lr"
BROKEN = "Something went wrong"  # what studio/frame.py says of an unexpected exception
PATIENCE = 90  # seconds for a page, on a machine with other work
# Options that selections of 0.1 to 0.4 did not have, as they read: off.
LATER_OPTIONS = {"towards": 0.0, "away": 0.0, "cosine": "embed", "deduplicate": False}


def grads(*arguments: object) -> Result:
    """What a command says and ends with, in this process."""
    return CliRunner().invoke(app, [str(one) for one in arguments])


def demo_run(root: Path, name: str = "demo") -> Run:
    """A copy of the bundled run: finished, with saved selections."""
    shutil.copytree(DEMO / "run", root / name)
    return Run.open(root / name)


def run_in(root: Path, state: str, name: str = "") -> Run:
    """A run of the demo's settings that is in `state` and has not scored its samples yet."""
    run = demo_run(root, name or state)
    for path in (run.scores_file, run.features_file, run.clusters_file):
        path.unlink()
    for folder in (run.selections, run.token_signal_file.parent):
        shutil.rmtree(folder)
    run.update_manifest(seconds={"prepare": 0.6, "warm-up": 95.0})
    run.log_file.write_text("12:00:00 score\n")
    set_state(run, state)
    return run


def set_state(run: Run, state: str, **values) -> None:
    """Rewrite status.json so that jobs.observe says `state`: the live job is this very process."""
    own = psutil.Process()
    status = {"state": state, "stage": "score", "done": 120, "total": 300, "unit": "samples"}
    status |= {"pid": own.pid, "process_started": own.create_time(), "heartbeat": time.time()}
    if state == "failed":
        status |= {"error": ERROR, "stage": "warm-up", "done": 3, "total": 19, "unit": "steps"}
    if state == "interrupted":  # it was running, and is gone
        status |= {"state": "running", "pid": dead_pid()}
    if state == "queued":
        status |= {"stage": "", "total": 0, "message": "waiting for another job to end"}
    run.write_status(Status.model_validate(status | values))


def dead_pid() -> int:
    """The PID of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=PATIENCE)
    return process.pid


def rewrite_sample(run: Run, sample_id: int, question: str, answer: str) -> None:
    """Give a sample other texts, as conversation and as tokens."""
    samples = pq.read_table(run.samples_file)
    turns = samples["turns"].to_pylist()
    place = samples["sample_id"].to_pylist().index(sample_id)
    for turn in turns[place]:
        turn["content"] = {"user": question, "assistant": answer}.get(turn["role"], "")
    index = samples.schema.get_field_index("turns")
    column = pa.array(turns, samples.schema.field("turns").type)
    write_table(run.samples_file, samples.set_column(index, "turns", column))
    tokens = pq.read_table(run.tokens_file)
    pieces = tokens["pieces"].to_pylist()
    place = tokens["sample_id"].to_pylist().index(sample_id)
    pieces[place][0], pieces[place][-1] = question, answer
    index = tokens.schema.get_field_index("pieces")
    column = pa.array(pieces, tokens.schema.field("pieces").type)
    write_table(run.tokens_file, tokens.set_column(index, "pieces", column))


def set_source_columns(run: Run, **columns: pa.Array) -> None:
    """Give the run's samples other columns of the source, one value a sample."""
    samples = pq.read_table(run.samples_file)
    if "columns" in samples.column_names:
        samples = samples.drop_columns(["columns"])
    struct = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    write_table(run.samples_file, samples.append_column("columns", struct))


def kept_ids(run: Run, name: str) -> list[int]:
    """What a saved selection keeps."""
    _, table = read_selection(run, name)
    return sorted(np.array(table["sample_id"])[np.array(table["kept"])].tolist())


# -- pages


def open_page(page: str, /, **parameters: str | list[str]) -> AppTest:
    """A page drawn in a fresh session, under a link with these parameters."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE)
    if page != "Start":
        at.switch_page(f"pages/{page}.py")
    for name, value in parameters.items():
        at.query_params[name] = value
    return at.run()


def headlines(at: AppTest) -> list[str]:
    """The page's sentences of the largest size, without their mark."""
    return [m.value.removeprefix("## ") for m in at.markdown if m.value.startswith("## ")]


def headline(at: AppTest) -> str:
    """The page's one sentence."""
    assert_sound(at)
    found = headlines(at)
    assert len(found) == 1, (found, messages(at))
    return found[0]


def messages(at: AppTest) -> str:
    """Everything the page says in boxes, without the marks that keep Markdown literal."""
    boxes = [*at.error, *at.warning, *at.info, *at.success]
    return "\n".join(box.value for box in boxes).replace("\\", "")


def everything(at: AppTest) -> str:
    """All text of the page: Markdown, captions, boxes, HTML, labels of buttons and links."""
    parts = [m.value for m in [*at.markdown, *at.caption]] + [messages(at)]
    parts += [block.proto.body for block in at.get("html")]
    parts += [button.label for button in at.button]
    parts += links(at)
    return "\n".join(parts)


def links(at: AppTest) -> list[str]:
    """Labels of the page's links, the navigation's included."""
    return [link.proto.label for link in at.get("page_link")]


def assert_sound(at: AppTest) -> None:
    """Nothing raised, nothing unexpected, no trace on the screen."""
    assert not at.exception, [e.value for e in at.exception]
    text = everything(at)
    assert BROKEN not in text, text
    assert "Traceback" not in text
    assert 'File "' not in text


def press(at: AppTest, label: str) -> AppTest:
    """Press the one button whose label begins so."""
    found = [button for button in at.button if button.label.startswith(label)]
    assert len(found) == 1, (label, [button.label for button in at.button])
    return found[0].click().run()


def has_button(at: AppTest, label: str) -> bool:
    """Whether a button's label begins so."""
    return any(button.label.startswith(label) for button in at.button)


def choose(at: AppTest, label: str, value: str) -> AppTest:
    """Choose in the one box with this label."""
    (box,) = [box for box in at.selectbox if box.label == label]
    return box.set_value(value).run()


def downloads(at: AppTest) -> list:
    """What the page offers to download, besides the report that every page offers."""
    return [one for one in at.get("download_button") if one.proto.label != "Download the report"]


def matching(at: AppTest) -> int:
    """How many examples the headline says match."""
    text = headline(at).split(": ")[1]
    assert text.endswith(" match")
    return int(text.split()[0].replace(",", ""))


def listed(at: AppTest) -> list[int]:
    """Rows of the page's table of examples."""
    return [
        row
        for table in at.dataframe
        if "question" in table.value.columns
        for row in table.value["row"].tolist()
    ]


def shown_count(at: AppTest) -> int:
    """How many examples the headline keeps."""
    found = re.fullmatch(r"Keep ([\d,]+) of 300 examples", headline(at))
    assert found
    return int(found[1].replace(",", ""))


def save_as(at: AppTest, name: str) -> AppTest:
    at.text_input(key="name").set_value(name).run()
    return press(at, "Save these")


def drafts(root: Path, purpose: str) -> list[Run]:
    """What the pages look at data with, and measure costs in."""
    return [Run(path) for path in (root / ".drafts").glob(f"{purpose}-*")]
