"""The scripts that start a run elsewhere: what shells and schedulers make of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import slurm
import typer
import yaml
from chain import ROOT
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.api import SCHEDULERS, ConfigError, RunError
from grads.jobs.launch import Launch, job_name, quoted

HOSTILE = [
    "plain",
    "it's mine",
    '$(touch made) `touch made` "$HOME"',
    "; touch made #",
    "-rf",
    "a\nb\ttouch made",
    "\\ * ? [a] {b,c} ~ !",
    "ünï 数据 ' \x1b[31m \u202e",
]
FAKE = """#!/bin/bash
# Stands for a program of the cluster: notes how it was called.
printf '%s\\0' "$0" "$@" >> "$NOTES"
printf '\\n' >> "$NOTES"
"""


def settings(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"dataset": "/shared/train.jsonl", "model": "demo"} | values))
    return file


def made(config: Path, scheduler: str, run_dir: str = "/shared/runs/mine", **more) -> str:
    """The script for GPUs of a kind, with a volume where one is asked for."""
    if scheduler == "skypilot":
        more = {"gpu": "H100", "volume": "grads"} | more
    return api.launch_script(config, run_dir, scheduler, **more)


def shell_part(text: str, scheduler: str) -> str:
    return yaml.safe_load(text)["run"] if scheduler == "skypilot" else text


def calls(script: str, place: Path, *arguments: str, **environment: str) -> list[list[str]]:
    """Run a script where srun starts what it is given and torchrun notes how it was called."""
    programs = place / "bin"
    programs.mkdir()
    (programs / "torchrun").write_text(FAKE)
    (programs / "srun").write_text(
        '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
    )
    (programs / "scontrol").write_text("#!/bin/bash\nprintf 'n%s\\n' 1 2 3 4\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    notes = place / "notes"
    notes.touch()
    (place / "script.sh").write_text(script, encoding="utf-8")
    done = subprocess.run(
        ["bash", str(place / "script.sh"), *arguments],
        env={"PATH": f"{programs}:{os.environ['PATH']}", "NOTES": str(notes), "HOME": str(place)}
        | environment,
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = notes.read_bytes().decode().split("\0\n")
    return [line.split("\0")[1:] for line in lines if line]


ENVIRONMENTS = {
    "slurm": {
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "n[1-4]",
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_CPUS_PER_TASK": "64",
    },
    "torchrun": {},
    "skypilot": {
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2\n10.0.0.3\n10.0.0.4",
        "SKYPILOT_NUM_NODES": "4",
        "SKYPILOT_NUM_GPUS_PER_NODE": "8",
        "SKYPILOT_NODE_RANK": "2",
    },
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_names_arrive_as_they_are(tmp_path, scheduler, name):
    """The script runs nothing but torchrun, whatever files and folders are called."""
    config, run_dir = settings(tmp_path / name), f"/shared/{name}/{name}"
    text = made(config, scheduler, run_dir, nodes=4, gpus=8)
    script = shell_part(text, scheduler)
    assert all(line.isprintable() for line in text.splitlines())
    given = ["n1"] if scheduler == "torchrun" else []
    (called,) = calls(script, tmp_path, *given, **ENVIRONMENTS[scheduler])
    copied = str(tmp_path / "grads-run.yaml") if scheduler == "skypilot" else str(config)
    inner = ["-m", "grads", "run", "--config", copied, "--run-dir", run_dir]
    assert called[called.index("-m") :] == inner
    assert not list(tmp_path.rglob("made"))
    typer.main.get_command(app).commands["run"].make_context("run", inner[3:])
    expected = {
        "slurm": ["--nnodes=4", "--nproc-per-node=8", "--rdzv-endpoint=n1:24567"],
        "torchrun": ["--nnodes=4", "--nproc-per-node=8", "--rdzv-endpoint=n1:29500"],
        "skypilot": ["--nnodes=4", "--node-rank=2", "--master-addr=10.0.0.1"],
    }
    assert set(expected[scheduler]) < set(called)


def test_torchrun_itself_reads_these_options(tmp_path):
    """Its own parser, for one node and for several."""
    from torch.distributed.run import get_args_parser

    for i, (scheduler, nodes) in enumerate([("torchrun", 1), *((s, 4) for s in SCHEDULERS)]):
        place = tmp_path / str(i)
        config = settings(place)
        script = shell_part(made(config, scheduler, nodes=nodes, gpus=2), scheduler)
        given = ["n1"] if (scheduler, nodes) == ("torchrun", 4) else []
        (called,) = calls(script, place, *given, **ENVIRONMENTS[scheduler])
        read = get_args_parser().parse_args(called)
        assert read.module
        assert (read.training_script, read.training_script_args[0]) == ("grads", "run")
        assert read.standalone == (nodes == 1)
        if nodes > 1:
            assert read.nnodes == "4"
            assert read.master_addr == "10.0.0.1" or read.rdzv_backend == "c10d"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("name", ["plain", HOSTILE[2], HOSTILE[5]])
def test_shellcheck_finds_nothing(tmp_path, scheduler, nodes, name):
    script = shell_part(
        made(settings(tmp_path / name), scheduler, f"/shared/{name}", nodes=nodes), scheduler
    )
    file = tmp_path / "script.sh"
    file.write_text(script, encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(file)], capture_output=True).stderr == b""
    beside = Path(sys.executable).with_name("shellcheck")
    checker = str(beside) if beside.exists() else shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        # A name may look like an expression; that it is not expanded is what is wanted.
        [checker, "--shell=bash", "--severity=style", "--exclude=SC2016", str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout


# -- schedulers


@pytest.mark.skipif(not slurm.is_installed(), reason="Slurm is not installed")
def test_slurm_would_start_it(tmp_path):
    """On as many nodes, GPUs and cores as were asked for; a controller refuses what it lacks."""
    config = settings(tmp_path)
    with slurm.controller(tmp_path) as environment:

        def asked(**more) -> str:
            file = tmp_path / "run.sbatch"
            file.write_text(made(config, "slurm", "/shared/$(x)\n#SBATCH --nodes=9", **more))
            done = subprocess.run(
                ["sbatch", "--test-only", str(file)],
                env=environment,
                capture_output=True,
                text=True,
            )
            return done.stderr

        assert "using 256 processors on nodes n[1-4]" in asked(nodes=4, gpus=8)
        assert "using 8 processors on nodes n1" in asked()
        assert "not available" in asked(nodes=5, gpus=8)
        assert "not available" in asked(nodes=1, gpus=9, cpus=1)


def test_the_lines_that_slurm_reads(tmp_path):
    """Names cannot add one."""
    text = made(settings(tmp_path), "slurm", "/a/b\n#SBATCH --nodes=9", nodes=4, gpus=8, gpu="h100")
    read = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert read == [
        "#SBATCH --job-name=grads-b-SBATCH-nodes-9",
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --gpus-per-node=h100:8",
        "#SBATCH --cpus-per-task=64",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_skypilot_reads_its_task(tmp_path, name):
    """By the validation of SkyPilot itself, where it is on the PATH."""
    config = settings(tmp_path / name)
    text = made(config, "skypilot", f"/shared/{name}", nodes=4, gpus=8)
    task = yaml.safe_load(text)
    assert set(task) == set(
        "name num_nodes resources workdir volumes file_mounts setup run".split()
    )
    assert task["resources"] == {"accelerators": "H100:8", "cpus": "64+"}
    assert task["file_mounts"] == {"~/grads-run.yaml": str(config)}
    assert task["volumes"] == {"/shared": "grads"}
    sky = shutil.which("sky")
    if sky is None:
        pytest.skip("SkyPilot is not installed")
    (tmp_path / "task.yaml").write_text(text, encoding="utf-8")
    code = (
        "import sky, sys; t = sky.Task.from_yaml(sys.argv[1]);"
        " print(t.num_nodes, [r.accelerators for r in t.resources], t.name)"
    )
    done = subprocess.run(
        [str(Path(sky).with_name("python")), "-c", code, str(tmp_path / "task.yaml")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 [{'H100': 8}] grads")


# -- what is refused, and the command


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"scheduler": "lsf"}, "there is no scheduler 'lsf'"),
        ({"scheduler": "slurm", "nodes": 0}, "nodes is 0"),
        ({"scheduler": "slurm", "gpus": -1}, "gpus is -1"),
        ({"scheduler": "slurm", "gpu": "h100\n#SBATCH"}, "gpu is"),
        ({"scheduler": "slurm", "volume": "x"}, "volume is SkyPilot's"),
        ({"scheduler": "slurm", "run_dir": "runs/mine"}, "absolute path"),
        ({"scheduler": "skypilot", "gpu": None}, "give --gpu"),
        ({"scheduler": "skypilot", "volume": None}, "give --volume"),
        ({"scheduler": "skypilot", "run_dir": "/mine"}, "within the volume"),
    ],
)
def test_what_no_script_can_be_made_of(tmp_path, more, told):
    with pytest.raises(ConfigError, match=told):
        made(settings(tmp_path), **more)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"epochs": -1}, "epochs is -1"),
        ({"datasets": "x"}, "unknown setting 'datasets'"),
        ({"dataset": "data/train.jsonl"}, "dataset in .* is relative"),
        ({"targets": {"good": "good.jsonl"}}, "targets in .* is relative"),
    ],
)
def test_wrong_settings_are_told_before_they_wait_in_a_queue(tmp_path, values, told):
    with pytest.raises(ConfigError, match=told):
        made(settings(tmp_path, **values), "slurm")


def test_the_command_prints_or_writes(tmp_path):
    config, out = str(settings(tmp_path)), tmp_path / "run.sbatch"
    call = ["launch-script", "--config", config, "--run-dir", "/shared/a b", "--scheduler", "slurm"]
    text = made(Path(config), "slurm", "/shared/a b")
    assert CliRunner().invoke(app, call).output == text
    done = CliRunner().invoke(app, [*call, "--out", str(out)])
    assert done.output == f"wrote {out}\n"
    assert out.read_text() == text
    assert json.loads(CliRunner().invoke(app, [*call, "--json"]).output)["script"] == text


def test_the_folder_of_the_script_is_made_and_a_place_that_is_none_is_told(tmp_path):
    config, wrong = str(settings(tmp_path)), tmp_path / "file" / "run.sbatch"
    call = ["launch-script", "--config", config, "--run-dir", "/shared/a", "--scheduler", "slurm"]
    out = tmp_path / "a" / "b" / "run.sbatch"
    done = CliRunner().invoke(app, [*call, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert out.read_text() == made(Path(config), "slurm", "/shared/a")
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, [*call, "--out", str(wrong)])
    assert isinstance(done.exception, RunError)
    assert str(wrong) in str(done.exception)


@pytest.mark.parametrize("text", HOSTILE)
def test_quoted_words_are_one_word(text):
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {quoted(text)}"], capture_output=True, check=True
    )
    assert done.stdout.decode() == f"{text}\0"
    assert quoted(text).isprintable()


def test_job_names_are_names():
    names = [job_name(Launch("", d, 1, 1, cpus=1)) for d in ("/a/数据", "/a/my run_1")]
    assert names == ["grads", "grads-my-run-1"]
    assert len(job_name(Launch("", "/a/" + "b" * 300, 1, 1, cpus=1))) < 60


def test_accelerate_reads_the_settings_of_the_document(tmp_path):
    """Its own reader, which refuses names that it does not know."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import FullyShardedDataParallelPlugin

    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    (settings_of,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    file = tmp_path / "fsdp.yaml"
    file.write_text(settings_of)
    read = load_config_from_file(str(file))
    assert (read.distributed_type.value, read.num_processes) == ("FSDP", 8)
    known = set(FullyShardedDataParallelPlugin.__dataclass_fields__)
    named = {name.removeprefix("fsdp_") for name in read.fsdp_config}
    aliases = {
        "offload_params": "cpu_offload",
        "transformer_layer_cls_to_wrap": "transformer_cls_names_to_wrap",
        "version": "fsdp_version",
    }
    assert {aliases.get(name, name) for name in named} <= known
