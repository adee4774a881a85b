"""A state that holds a little of everything, for targets that read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.model import (
    DEEPEST_RING,
    INT32_MAX,
    INT32_MIN,
    Configured,
    ListedReports,
    ListedStatus,
    PolledSource,
    Report,
    Snapshot,
    Statement,
)
from sr_exporter.report_rules import ReportRules
from sr_exporter.state import State

if TYPE_CHECKING:
    from sr_exporter.held import Entry

NOW = 1795378416.0
CONFIGURED = Configured(
    (PolledSource("sip-1", 60.0), PolledSource("sip-2", 60.0)), 500, ("sip-3",), ReportRules(), 20
)


def a_state() -> State:
    """Make one: a polled source that is up, one that was never heard, and pushed keys."""
    state = State()
    state.apply(CONFIGURED, NOW)
    state.apply(
        Snapshot(
            "sip-1",
            as_of=state.revision,
            requested_at=NOW,
            statuses=(
                ListedStatus("core", "main", 1, ready=True, details="running"),
                ListedStatus("trunks", "carrier-a", -1, ready=False, details=None),
                ListedStatus("trunks", "a/b;events", 1, ready=True, details=""),
            ),
            reports=(
                ListedReports("trunks", "carrier-a", (Report(1.0, "one"), Report(2.0, "two"))),
            ),
            uptime_seconds=100.0,
            version="4.0.1",
        ),
        NOW,
    )
    state.apply(Statement("push", "trunks", "carrier-a", -1, "no answer", ("down",)), NOW)
    return state


class Watched:
    """Looks at a state from time to time: at its sums, and that its counters never fall."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._counted: dict[Entry, tuple[int, int]] = {}
        self._seq = 0

    def look(self) -> None:
        """See that what is held holds together."""
        state = self._state
        entries = [entry for source in state.sources.values() for entry in source.entries()]
        assert state.identifiers == len(entries) <= state.limit_identifiers
        assert set(state.not_ready) == {entry for entry in entries if not entry.ready}
        for source in state.sources.values():
            own = list(source.entries())
            assert source.identifiers == len(own)
            assert source.not_ready == sum(not entry.ready for entry in own)
            assert source.subjects == sum(len(entry.subjects) for entry in own)
            for group in source.groups.values():
                assert group.not_ready == sum(not entry.ready for entry in group.entries.values())
        for entry in entries:
            must_be_held(entry)
            before = self._counted.get(entry, (0, 0))
            assert entry.changes_total >= before[0], (entry.key, "changes fell")
            assert entry.reports_total >= before[1], (entry.key, "reports fell")
        assert state.last_seq >= self._seq, "numbers of changes fell"
        self._seq = state.last_seq
        self._counted = {entry: (entry.changes_total, entry.reports_total) for entry in entries}


def must_be_held(entry: Entry) -> None:
    """See that a key can be written everywhere, and says nothing impossible."""
    for said in (*entry.key, entry.details or ""):
        said.encode()
    assert all(entry.key)
    assert entry.status
    assert INT32_MIN <= entry.status <= INT32_MAX
    assert len(entry.reports) <= DEEPEST_RING
    assert entry.reports_total >= len(entry.reports)
