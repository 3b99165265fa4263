"""Scripts that start a run elsewhere: on a Slurm cluster, by SkyPilot, or by torchrun alone."""

import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath
from textwrap import indent
from typing import Any

import yaml

from grads.errors import ConfigError

SCHEDULERS = ("slurm", "skypilot", "torchrun")
PORT = 29_500  # where the processes of a run find each other
COPIED = "grads-run.yaml"  # what SkyPilot puts the settings under, in the home of each node
GPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
RUN = '-m grads run --config "$config" --run-dir "$run_dir"'


@dataclass(frozen=True)
class Launch:
    """Which run is started, and on what."""

    config: str  # absolute path of the file of settings
    run_dir: str  # absolute, on storage that every node sees
    nodes: int
    gpus: int  # a node
    cpus: int  # cores a GPU
    gpu: str | None = None  # the kind, as the scheduler calls it
    volume: str | None = None  # of SkyPilot, mounted at the parent of the run's directory


def script(launch: Launch, scheduler: str) -> str:
    """The text of the script; raises ConfigError where something is missing or does not fit."""
    makers = {"slurm": _slurm, "skypilot": _skypilot, "torchrun": _torchrun}
    if scheduler not in makers:
        raise ConfigError(f"there is no scheduler '{scheduler}': choose {', '.join(SCHEDULERS)}")
    for name, count in (("nodes", launch.nodes), ("gpus", launch.gpus), ("cpus", launch.cpus)):
        if count < 1:
            raise ConfigError(f"{name} is {count}: give at least 1")
    if launch.gpu is not None and not GPU.fullmatch(launch.gpu):
        raise ConfigError(f"gpu is '{launch.gpu}': give a name such as H100 or A100-80GB")
    if not PurePosixPath(launch.run_dir).is_absolute():
        raise ConfigError(f"run-dir is '{launch.run_dir}': give an absolute path")
    if launch.volume and scheduler != "skypilot":
        raise ConfigError("volume is SkyPilot's: leave it out")
    return makers[scheduler](launch)


def _slurm(launch: Launch) -> str:
    kind = f"{launch.gpu}:" if launch.gpu else ""
    return f"""#!/bin/bash
# Made by `grads launch-script`; submit it with sbatch, from a shell whose environment has grads.
# Partition, account and time go on that line: sbatch --partition=NAME --time=24:00:00 FILE
# Submitted again, or requeued, the run goes on where it was.
#SBATCH --job-name={job_name(launch)}
#SBATCH --nodes={launch.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={kind}{launch.gpus}
#SBATCH --cpus-per-task={launch.gpus * launch.cpus}
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

{_paths(launch)}
srun test -r "$config" # every node must see it

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000))
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 torchrun \\
  --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node={launch.gpus} \\
  --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="${{hosts[0]}}:$port" \\
  {RUN}
"""


def _torchrun(launch: Launch) -> str:
    if launch.nodes == 1:
        return f"""#!/bin/bash
# Made by `grads launch-script`. Started again, the run goes on where it was.
set -euo pipefail

{_paths(launch)}
torchrun --standalone --nproc-per-node={launch.gpus} \\
  {RUN}
"""
    return f"""#!/bin/bash
# Made by `grads launch-script`. Start it on each of the {launch.nodes} nodes, with the name of the
# first one: bash FILE HOST. Started again, the run goes on where it was.
set -euo pipefail

head=${{1:?give the name of the first node}}
{_paths(launch)}
torchrun --nnodes={launch.nodes} --nproc-per-node={launch.gpus} \\
  --rdzv-backend=c10d --rdzv-id={job_name(launch)} --rdzv-endpoint="$head:{PORT}" \\
  {RUN}
"""


def _skypilot(launch: Launch) -> str:
    if launch.gpu is None:
        raise ConfigError("SkyPilot asks for the kind of GPU: give --gpu, such as H100")
    if launch.volume is None:
        raise ConfigError(
            "the run's directory must outlive the nodes: give --volume, a SkyPilot volume"
        )
    folder = str(PurePosixPath(launch.run_dir).parent)
    if folder == "/":
        raise ConfigError(f"run-dir is {launch.run_dir}: give a folder within the volume")
    task: dict[str, Any] = {
        "name": job_name(launch),
        "num_nodes": launch.nodes,
        "resources": {
            "accelerators": f"{launch.gpu}:{launch.gpus}",
            "cpus": f"{launch.gpus * launch.cpus}+",
        },
        "workdir": ".",
        "volumes": {folder: launch.volume},
        "file_mounts": {f"~/{COPIED}": launch.config},
        "setup": "pip install .",
    }
    commands = f"""set -euo pipefail
config=$HOME/{COPIED}
run_dir={quoted(launch.run_dir)}
head=${{SKYPILOT_NODE_IPS%%$'\\n'*}}
torchrun --nnodes="$SKYPILOT_NUM_NODES" --nproc-per-node="$SKYPILOT_NUM_GPUS_PER_NODE" \\
  --node-rank="$SKYPILOT_NODE_RANK" --master-addr="$head" --master-port={PORT} \\
  {RUN}
"""
    return (
        "# Made by `grads launch-script`; start it with sky launch, from a checkout of grads.\n"
        "# Launched again, the run goes on where it was.\n"
        + yaml.safe_dump(task, sort_keys=False, width=1_000)
        + "run: |\n"
        + indent(commands, "  ")
    )


def _paths(launch: Launch) -> str:
    return f"config={quoted(launch.config)}\nrun_dir={quoted(launch.run_dir)}"


def job_name(launch: Launch) -> str:
    """The name of the run's directory, with marks that no scheduler reads as anything else."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", PurePosixPath(launch.run_dir).name).strip("-")
    return f"grads-{name[:40].strip('-')}" if name else "grads"


def quoted(text: str) -> str:
    """One word of a Bash script on one line, whatever is in it."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(mark) for mark in text) + "'"


def _escaped(mark: str) -> str:
    if mark.isprintable() and mark not in "'\\":
        return mark
    return "".join(f"\\{byte:03o}" for byte in mark.encode("utf-8", "surrogateescape"))
