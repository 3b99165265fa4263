"""A Slurm controller of a test's own, where Slurm and MUNGE are installed, with nodes that are not.

It says of a script whether it could be started, and on which nodes; nothing is ever run.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "sbatch", "scontrol", "munged")
NODES, GPUS, CORES = 4, 8, 64


def is_installed() -> bool:
    """Whether a controller can be started; it and its keys must belong to one user, root."""
    return all(map(shutil.which, PROGRAMS)) and os.geteuid() == 0


@contextmanager
def controller(place: Path) -> Iterator[dict[str, str]]:
    """The environment in which `sbatch --test-only` asks a controller at work in `place`."""
    (place / "state").mkdir()
    conf, key, munge = place / "slurm.conf", place / "key", place / "munge.socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf.write_text(_settings(place, munge))
    environment = os.environ | {"SLURM_CONF": str(conf)}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}"]
    munged += [f"--{kind}-file={place / kind}" for kind in ("pid", "log", "seed")]
    with _process(munged, environment), _process(["slurmctld", "-D", "-c"], environment):
        # Nodes that have never come up have no GPUs but those they are told to have.
        told = ["scontrol", "update", f"nodename=n[1-{NODES}]", f"gres=gpu:{GPUS}"]
        deadline = time.monotonic() + 120
        while subprocess.run(told, env=environment, capture_output=True).returncode:
            assert time.monotonic() < deadline, (place / "slurmctld.log").read_text()
            time.sleep(0.5)
        yield environment


@contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command, env=environment, **quiet)
    try:
        yield
    finally:
        running.terminate()
        running.wait()


def _settings(place: Path, munge: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(str(shutil.which("slurmctld"))).resolve()
    plugins = next(program.parents[1].glob("lib/*/slurm-wlm"), None)
    return f"""
ClusterName=test
SlurmctldHost={socket.gethostname().split(".")[0]}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={munge}
{f"PluginDir={plugins}" if plugins else ""}
StateSaveLocation={place}/state
SlurmctldPidFile={place}/slurmctld.pid
SlurmctldLogFile={place}/slurmctld.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ProctrackType=proctrack/pgid
MailProg=/bin/true
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=300
PrivateData=cloud
NodeName=n[1-{NODES}] CPUs={CORES} CoresPerSocket={CORES} RealMemory=500000 State=CLOUD
PartitionName=main Nodes=n[1-{NODES}] Default=YES MaxTime=INFINITE State=UP
"""
