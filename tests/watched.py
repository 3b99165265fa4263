"""A run of the tests that tells each failure as it comes, and what is at work where it is ended.

A machine with a time limit ends it from outside, before there is a summary.
"""

import signal
import time

import pytest

LINES = 25  # of a failure's end, as it comes; the summary has it whole


class Watch:
    """What the process that hands the tests out is told by those that run them."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.begun: dict[str, float] = {}  # by test, of those at work

    def pytest_runtest_logstart(self, nodeid):
        self.begun[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid):
        self.begun.pop(nodeid, None)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            end = report.longreprtext.splitlines()[-LINES:]
            self.say(f"{report.nodeid} failed ({report.when}, {report.duration:.0f} s)", *end)

    def ended(self, number, _frame):
        """Tell which tests are not done, and end as the signal asks."""
        now = time.monotonic()
        for name, since in self.begun.items():
            self.say(f"at work for {now - since:.0f} s: {name}")
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def say(self, *lines: str) -> None:
        # What is printed between two reports is captured; what the reporter writes is not.
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        for line in ("", *lines):
            reporter.write_line(line)
        reporter.flush()


def watch(config: pytest.Config) -> None:
    """Watch the tests from the process that was started, not from those that it starts."""
    if not hasattr(config, "workerinput"):
        one = Watch(config)
        config.pluginmanager.register(one, "watched")
        signal.signal(signal.SIGTERM, one.ended)
