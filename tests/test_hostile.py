"""Hostile use: formulas, places, uploads, strangers at the port, secrets, and who is asked what."""

import base64
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from chain import PATIENCE, ROOT, command, config_for, save_tiny_model, write_data
from run_dirs import PAGES, demo_run, everything, open_page

from grads import api
from grads.api import drafts
from grads.cli.dashboard import allowed_hosts, free_port
from grads.config.run import RunConfig
from grads.data.sources import read_source
from grads.engine import adapters, models
from grads.errors import DataError, GradsError, ModelError
from grads.stages import worker
from grads.store.runs import Run
from grads.text import for_spreadsheet

# -- formulas

FORMULAS = [
    '=HYPERLINK("http://example.org","x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "- a list",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "=",
]
HARMLESS = ["", "a=b", " =1", "'=1", "-5", "+1.5", "-1e3", "a\n=1", "1-2", "－1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_would_obey_is_text(text):
    assert for_spreadsheet(text) == "'" + text


@pytest.mark.parametrize("value", [*HARMLESS, -5, 1.5, None, True])
def test_other_cells_stay_as_they_are(value):
    assert for_spreadsheet(value) is value


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, and a run over rows whose answers and a column's name read as formulas."""
    place = tmp_path_factory.mktemp("hostile")
    save_tiny_model(place / "model")
    write_data(place / "data.jsonl", 40)
    rows = [json.loads(line) for line in (place / "data.jsonl").read_text().splitlines()[20:]]
    for n, row in enumerate(rows):
        row["=note"] = FORMULAS[n % len(FORMULAS)]
        row["answer"] = f"- {row['answer']}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "data.jsonl").write_text(lines)
    return place


@pytest.fixture(scope="module")
def run(place):
    """A finished run, made while a token lay in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, TOKEN)
        run = Run.create(config_for(place, warmup="none", heldout=0), place / "run")
        assert worker.main(run, at_once=True) == 0, run.read_status().error
        run.log_file.touch()
        api.select_samples(run, "all", api.SelectionConfig(ratio=1.0, criterion="random"))
        for kind in ("csv", "jsonl", "trl", "llamafactory", "axolotl"):
            api.export_selection(run, "all", kind)
    return run


def test_an_exported_table_holds_no_formula(run):
    """And JSONL, which is for training, holds every letter as it was."""
    (table,) = (run.exports / "all" / "csv").glob("*.csv")
    with table.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert "'=note" in head
    column, answer = head.index("'=note"), head.index("answer")
    assert {row[column] for row in rows} == {"'" + text for text in FORMULAS}
    assert all(row[answer].startswith("'- ") for row in rows)
    (lines,) = (run.exports / "all" / "jsonl").glob("*.jsonl")
    exact = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {row["=note"] for row in exact} == set(FORMULAS)
    assert len(exact) == len(rows)


# -- secrets

TOKEN = "hf_" + "s3cret" * 6
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "WANDB_API_KEY")


def test_no_secret_of_the_environment_is_in_any_file(run):
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def with_token(place, tmp_path_factory):
    """A folder of runs by commands with tokens around them: one finished, one failed; all said."""
    folder, said = tmp_path_factory.mktemp("token"), []
    environment = os.environ | dict.fromkeys(SECRETS, TOKEN)
    environment |= {"HF_HUB_OFFLINE": "1", "GRADS_RUNS_DIR": str(folder)}

    def grads(*words, code=0):
        done = command(*map(str, words), env=environment)
        assert done.returncode == code, done.stderr
        said.append(done.stdout + done.stderr)

    whole, broken = folder / "whole", folder / "broken"
    data = ("run", "--dataset", place / "data.jsonl")
    options = ("--warmup", "none", "--heldout", "0", "--max-length", "64")
    grads(*data, "--model", "no-such-group/no-such-model", "--run-dir", broken, code=1)
    grads(*data, "--model", place / "model", *options, "--run-dir", whole)
    grads("select", "--run-dir", whole, "--name", "all", "--ratio", "1.0", "--json")
    for kind in api.FORMATS:
        grads("export", "--run-dir", whole, "--selection", "all", "--format", kind, "--json")
    grads("report", "--run-dir", whole, "--selection", "all", "--out", folder / "report.html")
    grads("packet", "--run-dir", whole, "--queue", "random", "--out", folder / "packet.html")
    for run in (whole, broken):
        grads("status", "--run-dir", run, "--json")
    grads("list")
    return folder, "".join(said)


@pytest.mark.job
def test_jobs_and_commands_tell_no_secret_of_the_environment(with_token):
    folder, said = with_token
    assert Run(folder / "broken").read_status().state == "failed"
    assert "no-such-group/no-such-model" in said, "else the failure was another one"
    assert TOKEN not in said
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"worker.log", "manifest.json", "trl.yaml", "report.html"} <= {f.name for f in files}
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


@pytest.mark.job
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["whole", "broken"])
def test_nor_do_pages(with_token, monkeypatch, page, name):
    for secret in SECRETS:
        monkeypatch.setenv(secret, TOKEN)
    monkeypatch.setenv("GRADS_RUNS_DIR", str(with_token[0]))
    at = open_page(page, run=name)
    assert len(everything(at)) > 20
    assert TOKEN not in everything(at)
    assert TOKEN not in str(at)


# -- who is asked what


@pytest.fixture
def no_network(monkeypatch):
    """Any connection out of this machine fails the test, caught or not."""
    asked = []

    def refuse(self, address):
        asked.append(address)
        raise OSError("no connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: refuse(None, host))
    yield asked
    assert asked == []


@pytest.mark.parametrize(
    "use",
    [
        lambda: models.load_tokenizer("some/model"),
        lambda: models.load_model("some/model", "cpu", torch.float32),
        lambda: models.model_digest("some/model"),
        lambda: models.position_limit("some/model"),
        lambda: read_source(RunConfig(dataset="some/data")),
    ],
)
def test_offline_nothing_leaves_the_machine(no_network, use):
    """HF_HUB_OFFLINE, which the tests have set: not even for an id of the hub."""
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(GradsError, match="cannot load"):
        use()


def test_an_adapter_that_is_a_pickle_is_not_opened(tmp_path):
    """PEFT reads adapter_model.bin where there are no safetensors."""
    save_tiny_model(tmp_path / "model")
    model = models.load_model(str(tmp_path / "model"), "cpu", torch.float32)
    adapted = adapters.add_lora(model, 2)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.unlink()
    ran = tmp_path / "ran"

    class Pickled:
        def __reduce__(self):
            return Path.touch, (ran,)

    torch.save({"a": Pickled()}, tmp_path / "adapter" / "adapter_model.bin")
    model = models.load_model(str(tmp_path / "model"), "cpu", torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *a, **k: pytest.fail("a pickle is opened"))
        with pytest.raises(ModelError, match="cannot load the adapter"):
            adapters.load_adapter(model, tmp_path / "adapter")
    assert not ran.exists()


# -- places that a browser names


@pytest.fixture
def allowed(tmp_path, monkeypatch):
    folder = tmp_path / "allowed"
    folder.mkdir()
    monkeypatch.setenv("GRADS_DATA_DIRS", str(folder))
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path / "runs"))
    return folder


@pytest.mark.parametrize("name", ["a\0b.jsonl", "../etc/passwd\0.jsonl"])
@pytest.mark.parametrize("place", [api.data_place, api.model_place])
def test_a_zero_in_a_name_is_refused(allowed, name, place):
    with pytest.raises(GradsError, match="no path that can be read"):
        place(str(allowed / name))


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/stdin", "/proc/self/environ", "/dev/fd/0"])
def test_devices_lie_elsewhere(allowed, place):
    """By their own name, and by a link to them."""
    with pytest.raises(DataError, match="GRADS_DATA_DIRS"):
        api.data_place(place)
    (allowed / "link.jsonl").symlink_to(place)
    with pytest.raises(DataError, match="GRADS_DATA_DIRS"):
        api.data_place(str(allowed / "link.jsonl"))


@pytest.mark.parametrize("given", ["d.jsonl", ".", "*.jsonl"])
def test_a_pipe_is_no_file(allowed, given):
    """Reading one would wait for ever."""
    os.mkfifo(allowed / "d.jsonl")
    config = RunConfig(dataset=api.data_place(str(allowed / given)))
    for use in (api.look, read_source):
        with pytest.raises(DataError):
            use(config)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "own.json"])
def test_a_pipe_is_no_part_of_a_model(allowed, name):
    save_tiny_model(allowed / "m")
    (allowed / "m" / name).unlink(missing_ok=True)
    os.mkfifo(allowed / "m" / name)
    place = api.model_place(str(allowed / "m"))
    try:
        models.load_tokenizer(place)
        models.load_model(place, "cpu", torch.float32)
    except ModelError:
        assert name != "own.json"
    models_digest = models.model_digest if name != "config.json" else lambda place: ""
    models_digest(place)


def test_a_loop_of_links_is_no_file(allowed):
    (allowed / "a.jsonl").symlink_to("a.jsonl")
    with pytest.raises(DataError):
        read_source(RunConfig(dataset=api.data_place(str(allowed / "a.jsonl"))))


# -- uploads


def test_an_upload_is_what_it_holds(allowed):
    """Not what its name says, nor the browser."""
    place = api.save_upload("d.jsonl", b"PK\3\4" + bytes(99))
    with pytest.raises(DataError, match="a zip archive"):
        read_source(RunConfig(dataset=place))


def test_uploads_are_capped():
    settings = (ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8")
    assert f"maxUploadSize = {drafts.UPLOAD_BYTES // 2**20}" in settings


def test_a_too_large_upload_is_refused_in_words(tmp_path, monkeypatch):
    """Whatever has let it through to here; nothing of it is kept."""
    monkeypatch.setattr(drafts, "UPLOAD_BYTES", 2**20)
    with pytest.raises(DataError, match=r"d\.jsonl has 1\.1 MB, and an upload at most 1: .* path"):
        api.save_upload("d.jsonl", bytes(int(1.1 * 2**20)), str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert api.save_upload("d.jsonl", bytes(2**20), str(tmp_path))


# -- the server


def test_names_of_this_server(monkeypatch):
    monkeypatch.delenv("GRADS_ALLOWED_HOSTS", raising=False)
    assert allowed_hosts() == ["127.0.0.1", "localhost"]
    monkeypatch.setenv("GRADS_ALLOWED_HOSTS", "studio.example, other.example")
    assert allowed_hosts() == ["127.0.0.1", "localhost", "studio.example", "other.example"]


class Server:
    """A dashboard, and what it answers on the socket over which all of a page goes."""

    def __init__(self, root, **environment):
        self.port = free_port()
        command = [sys.executable, "-m", "grads", "dashboard", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--runs-dir", str(root)],
            env=os.environ | {"DISPLAY": ""} | environment,
            stdout=subprocess.PIPE,
            stderr=(root / "log").open("w"),
            text=True,
        )
        assert "this machine only" in self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def answers(self, host, origin):
        """The status that a browser at this origin gets for this host."""
        lines = [
            "GET /_stcore/stream HTTP/1.1",
            f"Host: {host}",
            *([f"Origin: {origin}"] if origin else []),
            *["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"],
            f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}",
        ]
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as stranger:
            stranger.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            return int(stranger.recv(64).split()[1])

    def addresses(self):
        """Those that it listens on."""
        family = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        found = [c for p in family[1:] for c in p.net_connections("tcp") if c.status == "LISTEN"]
        return {c.laddr.ip for c in found}


@pytest.mark.job
def test_the_server_answers_this_machine_alone(tmp_path):
    """Whatever the environment says, and whatever name a stranger's page has for this machine."""
    demo_run(tmp_path)
    with Server(tmp_path, STREAMLIT_SERVER_ADDRESS="0.0.0.0") as server:
        assert server.addresses() == {"127.0.0.1"}
        port = server.port
        own = f"127.0.0.1:{port}"
        assert server.answers(own, f"http://{own}") == 101
        assert server.answers(f"localhost:{port}", f"http://localhost:{port}") == 101
        assert server.answers(own, "http://evil.example") == 403
        assert server.answers(f"evil.example:{port}", f"http://evil.example:{port}") == 403
        assert server.answers("studio.example", "https://studio.example") == 403
        time.sleep(0.5)
    assert "external IP" not in (tmp_path / "log").read_text(), "it asks nobody for its address"


@pytest.mark.job
def test_a_server_behind_a_proxy_answers_by_its_name(tmp_path):
    with Server(tmp_path, GRADS_ALLOWED_HOSTS="studio.example") as server:
        assert server.answers("studio.example", "https://studio.example") == 101
        assert server.answers("studio.example", "https://evil.example") == 403
        assert server.answers("evil.example", "https://evil.example") == 403
        assert server.addresses() == {"127.0.0.1"}
