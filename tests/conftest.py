"""Settings that hold for every test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from sr_exporter.simulator.judge import Violations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdist.remote import Producer

ACCEPTANCE = "tests/acceptance/"

# A loaded machine is slow; the limit per test is pytest's. `deep` is for runs by hand.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", settings.get_profile("default"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "harmful: it sends on purpose what no OpenSIPS should be sent (rule 1)"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try what needs the machine's time a second time when it fails (decision 0038)."""
    for item in items:
        if item.path.parent.name != "unit" and item.get_closest_marker("once") is None:
            item.add_marker(pytest.mark.flaky(reruns=1))


class _Judged:
    """Every record of every server of the run, and how much of each was looked at."""

    def __init__(self) -> None:
        self._records: list[tuple[Violations, int]] = []

    def take(self, record: Violations) -> None:
        self._records.append((record, 0))

    def new(self) -> list[str]:
        """Give what was written down since the last look."""
        looked = [(record, seen, len(record)) for record, seen in self._records]
        self._records = [(record, now) for record, _, now in looked]
        return [one for record, seen, now in looked for one in record[seen:now]]


@pytest.fixture(scope="session", autouse=True)
def _judged() -> Iterator[_Judged]:
    """Know every simulated server, and what the end of its test was too early to see."""
    judged = _Judged()
    Violations.watchers = (judged.take,)
    yield judged
    Violations.watchers = ()
    assert judged.new() == [], "servers of several tests were sent what no OpenSIPS should be"


@pytest.fixture(autouse=True)
def _harmless(request: pytest.FixtureRequest, _judged: _Judged) -> Iterator[None]:
    """Fail a test in which a real server would have been hurt, though it never looked (rule 1)."""
    yield
    found = _judged.new()
    if request.node.get_closest_marker("harmful") is None:
        assert found == [], "a server was sent what no OpenSIPS should be"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Have a line of measured figures printed at the end of the run."""
    request.node.user_properties.clear()  # of a first try

    def note(line: str) -> None:
        # A report's properties come from whichever process the test ran in.
        request.node.user_properties.append(("figure", line))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"failed at first: {report.nodeid} ({report.when})")
        terminalreporter.line(report.longreprtext)
    figures = [
        line
        for outcome, reports in terminalreporter.stats.items()
        for report in reports
        if outcome != "rerun" and getattr(report, "when", "") == "call"
        for name, line in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.line(line)


class _ByFile(LoadScopeScheduling):
    """Keeps a file's tests in one process, and what measures in one with its like.

    A long run under load next to another would measure that one.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return ACCEPTANCE if file.startswith(ACCEPTANCE) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    """Share tests out by file, though there be several processes."""
    return _ByFile(config, log)
