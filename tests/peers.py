"""Trainers of others, imported as far as they load data.

They are installed without what they require (requirements-peers.txt). What they import at the top
and do not use for text (audio, quantisation, telemetry, another reader of configs) is a stub here.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
from unittest.mock import MagicMock

import pytest

STUBS = {
    "llamafactory": ("torchaudio", "omegaconf"),
    "axolotl": ("colorama", "posthog", "numba"),
    "torchtune": (
        "torchao",
        "torchao.dtypes",
        "torchao.dtypes.nf4tensor",
        "omegaconf",
        "tiktoken",
        "tiktoken.load",
    ),
}


def peer(monkeypatch, package, module):
    """A module of a trainer; the test is skipped where the trainer is not installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: see requirements-peers.txt")
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")  # LLaMA-Factory wants older versions
    monkeypatch.setenv("AXOLOTL_DO_NOT_TRACK", "1")
    for name in STUBS[package]:
        if name not in sys.modules and not _installed(name):
            stub = MagicMock(__path__=[], __version__="0")
            stub.__spec__ = importlib.machinery.ModuleSpec(name, None)
            monkeypatch.setitem(sys.modules, name, stub)
    return importlib.import_module(f"{package}.{module}")


def _installed(name):
    parent = name.rpartition(".")[0]  # of a stub nothing lies below
    return not isinstance(sys.modules.get(parent), MagicMock) and bool(
        importlib.util.find_spec(name)
    )
