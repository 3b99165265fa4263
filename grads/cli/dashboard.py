"""Serve the dashboard: a free port on 127.0.0.1, its address printed, a browser opened."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

from grads import api
from grads.api import APP, RunError, runs_root

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 8501, 8600


def main(port: int | None, runs_dir: str | None) -> int:
    """Serve until Ctrl-C or a SIGTERM; the server's exit code. Jobs it started go on without it."""
    root = runs_root(runs_dir)
    api.place_demo(root)
    port = port or free_port()
    url = f"http://{HOST}:{port}"
    # The pages, their settings and the server's code lie beside the app; runs stay where they were.
    environment = os.environ | {"GRADS_RUNS_DIR": str(root)}
    roots = [str(Path.cwd()), *filter(None, [os.environ.get("GRADS_DATA_DIRS")])]
    environment["GRADS_DATA_DIRS"] = os.pathsep.join(roots)
    command = [sys.executable, "-m", "studio.serve", "run", str(APP), "--server.port", str(port)]
    command += ["--server.address", HOST]  # whatever the environment says
    for name in allowed_hosts():
        command += ["--server.allowedHosts", name]
    server = subprocess.Popen(
        command, cwd=APP.parent, env=environment, stdout=subprocess.DEVNULL, stderr=None
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the server would outlive this
    threading.Thread(target=_open_when_ready, args=(url, server), daemon=True).start()
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        print("the dashboard is closed; running jobs go on: python -m grads list")
        return 0


def allowed_hosts() -> list[str]:
    """Names by which a browser may call the server: this machine's own, and GRADS_ALLOWED_HOSTS.

    Else a page of another site, whose name leads to this machine, could open the dashboard.
    """
    return [HOST, "localhost", *os.environ.get("GRADS_ALLOWED_HOSTS", "").replace(",", " ").split()]


def free_port() -> int:
    """The first port from 8501 that nothing listens on."""
    for port in range(FIRST_PORT, LAST_PORT):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                return port
    raise RunError(f"no free port from {FIRST_PORT} to {LAST_PORT}: give one with --port")


def _open_when_ready(url: str, server: "subprocess.Popen[bytes]") -> None:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1):
                break
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    else:
        return
    print(f"GrADS Studio is at {url} (this machine only; Ctrl-C closes it)", flush=True)
    if os.environ.get("DISPLAY") or sys.platform in ("darwin", "win32"):
        webbrowser.open(url)
