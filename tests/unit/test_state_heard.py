"""What events and single answers do to the state: sources that only send, doubts, counts."""

from __future__ import annotations

import pytest

from sr_exporter.model import (
    ChangeKind,
    Checked,
    Configured,
    Forget,
    Key,
    Kind,
    ListedStatus,
    Origin,
    PolledSource,
    Statement,
    Way,
)
from sr_exporter.state import State
from sr_exporter.tally import CLOSE_SECONDS, LATE_SECONDS
from tests.unit.test_state import CORE, DP, SIP, Polled, kinds, listed, restored

SENDER = "sip-2"
ITS_CORE = Key(SENDER, "core", "main")


def check(sip: Polled, status: int, **said) -> Checked:
    """Ask for `CORE` now; what is given is applied by `Polled.state.apply`."""
    answer = ListedStatus("CORE", "main", status, status > 0, said.get("details"))
    return Checked(SIP, sip.state.revision, sip.now, answer)


# --- answers to single questions ------------------------------------------------------------


def test_an_answer_is_taken():
    sip = Polled()
    sip.poll(listed("core"))
    outcome = sip.state.apply(check(sip, -1, details="loading"), sip.now)
    assert kinds(outcome) == [ChangeKind.STATUS]
    assert (sip.entry().status, sip.entry().details) == (-1, "loading")
    assert sip.entry().changes_total == 1


def test_an_answer_loses_to_an_event_after_its_question():
    sip = Polled()
    sip.poll(listed("core"))
    asked = check(sip, 1)
    sip.event(CORE, 1, -1)
    assert kinds(sip.state.apply(asked, sip.now)) == []
    assert sip.entry().status == -1


def test_an_answer_outranks_a_poll_that_was_asked_before_it():
    sip = Polled()
    sip.poll(listed("core"))
    poll = sip.question(listed("core", 1))
    sip.event(CORE, 1, 2)
    sip.state.apply(check(sip, -1), sip.now)
    sip.answer(poll)
    assert sip.entry().status == -1


def test_an_answer_about_what_is_not_held_is_nothing():
    """A key that was removed meanwhile, or a source that left: the next poll tells."""
    sip = Polled()
    assert kinds(sip.state.apply(check(sip, 1), sip.now)) == []
    assert sip.state.identifiers == 0
    asked = check(sip, 1)
    sip.configure()
    assert kinds(sip.state.apply(asked, sip.now)) == []
    sip.configure(PolledSource(SIP, 60.0))
    sip.event(CORE, 1, 2)
    assert kinds(sip.state.apply(asked, sip.now)) == []


# --- which keys are in doubt (rule 8) -------------------------------------------------------


def test_a_missed_change_leaves_a_key_in_doubt():
    sip = Polled()
    sip.poll(listed("core"))
    assert sip.event(CORE, 1, 2).doubtful == []
    sip.now += CLOSE_SECONDS
    assert sip.event(CORE, -5, -4).doubtful == [CORE]


def test_two_events_close_together_leave_a_key_in_doubt():
    """An inverted pair fits what is held at each step."""
    sip = Polled()
    sip.poll(listed("core"))
    assert sip.event(CORE, -1, 1).doubtful == []
    assert sip.event(CORE, 1, -1).doubtful == [CORE]
    sip.now += CLOSE_SECONDS
    assert sip.event(CORE, -1, 1).doubtful == []


def test_the_event_that_makes_a_key_known_is_one_of_two():
    sip = Polled()
    sip.poll(listed("core"))
    assert sip.event(DP, -1, 1).doubtful == []
    assert sip.event(DP, 1, -1).doubtful == [DP]


def test_who_cannot_be_asked_is_not_in_doubt():
    state = State()
    state.apply(Configured((), event_sources=(SENDER,)), 0.0)
    for old_status, status in ((1, 2), (5, 6), (6, 7)):
        said = Statement(*ITS_CORE, status, old_status=old_status, origin=Origin.EVENT, way=Way.UDP)
        assert state.apply(said, 0.0).doubtful == []
    assert state.sources[SENDER].changes_missed_total == 1


# --- how often it changed -------------------------------------------------------------------


def test_an_event_after_the_poll_that_overtook_it_counts_once():
    sip = Polled()
    sip.poll(listed("core", 1))
    sip.poll(listed("core", -1))
    sip.event(CORE, 1, -1, way=Way.TCP)
    assert sip.entry().changes_total == 1


def test_a_change_whose_event_was_lost_counts_when_none_can_be_late():
    """The kept record says so, too: a restart of ours counts on from there."""
    sip = Polled()
    sip.poll(listed("core", 1))
    sip.event(CORE, 1, -1, way=Way.TCP)
    sip.poll(listed("core", 1))
    assert sip.entry().changes_total == 1
    sip.now += LATE_SECONDS
    outcome = sip.poll(listed("core", 1))
    assert sip.entry().changes_total == 2
    assert sip.entry().tally is None
    assert outcome.entries[CORE].changes_total == 2
    again = restored(sip.state, sip.now).entry(CORE)
    assert again is not None
    assert again.changes_total == 2


def test_expiry_counts_and_what_follows_counts_on():
    """A posted event may have a time to live, also at a source that is polled."""
    sip = Polled()
    sip.poll(listed("core", 1))
    sip.event(CORE, 1, 2, ttl_seconds=30.0)
    assert sip.entry().changes_total == 1
    sip.tick(31.0)
    assert (sip.entry().status, sip.entry().changes_total) == (-1, 2)
    sip.event(CORE, 2, 1, way=Way.HTTP)
    assert sip.entry().changes_total == 3


def test_nothing_is_kept_open_for_what_does_not_change():
    sip = Polled()
    sip.poll(listed("core", 1))
    for _ in range(3):
        sip.poll(listed("core", 1))
        assert sip.entry().tally is None


# --- sources that only send events ----------------------------------------------------------


class Sender:
    """A state with a source that sends events and is not polled."""

    def __init__(self) -> None:
        self.state = State()
        self.now = 1000.0
        self.configure(SENDER)

    def configure(self, *names: str, polled: tuple[PolledSource, ...] = ()):
        return self.state.apply(Configured(polled, event_sources=names), self.now)

    def event(self, old_status: int, status: int, key: Key = ITS_CORE):
        said = Statement(*key, status, old_status=old_status, origin=Origin.EVENT, way=Way.UDP)
        return self.state.apply(said, self.now)

    @property
    def source(self):
        return self.state.sources[SENDER]


def test_a_sender_is_known_before_it_is_heard():
    sender = Sender()
    assert (sender.source.kind, sender.source.transport) == (Kind.EVENT, "event")
    assert not sender.source.polled
    assert not sender.source.withheld
    assert sender.source.last_seen is None
    sender.event(1, -1)
    assert sender.source.last_seen == 1000.0


def test_after_our_restart_a_sender_is_withheld_until_it_is_heard():
    sender = Sender()
    sender.event(1, -1)
    sender.event(1, 2, Key(SENDER, "dialplan", "main"))
    sender.state = restored(sender.state, sender.now)
    sender.configure(SENDER)
    assert sender.source.withheld
    sender.event(-1, 1)
    assert not sender.source.withheld
    entry = sender.state.entry(ITS_CORE)
    assert entry is not None
    assert entry.changes_total == 1


def test_a_sender_that_leaves_the_configuration_is_removed():
    sender = Sender()
    sender.event(1, -1)
    assert kinds(sender.configure()) == [ChangeKind.REMOVED]
    assert SENDER not in sender.state.sources


def test_a_sender_whose_keys_are_deleted_is_still_known():
    sender = Sender()
    sender.event(1, -1)
    sender.state.apply(Forget(SENDER), sender.now)
    assert sender.source.groups == {}


@pytest.mark.parametrize("heard", [True, False])
def test_a_sender_that_is_polled_from_now_on_keeps_what_was_heard(heard):
    sender = Sender()
    if heard:
        sender.event(1, -1)
    sender.configure(polled=(PolledSource(SENDER, 60.0),))
    assert sender.source.polled
    assert sender.source.withheld, "until it is polled"
    assert sender.state.identifiers == heard


def test_a_polled_source_that_only_sends_from_now_on_begins_anew():
    """Nobody will ask any more whether what was polled is still so."""
    sip = Polled()
    sip.poll(listed("core"))
    sip.fail()
    outcome = sip.state.apply(Configured((), event_sources=(SIP,)), sip.now)
    assert ChangeKind.REMOVED in kinds(outcome)
    assert sip.source.kind is Kind.EVENT
    assert sip.source.groups == {}
    assert SIP in outcome.sources
    assert SIP not in outcome.sources_removed


def test_one_that_is_both_is_polled():
    sip = Polled()
    sip.poll(listed("core"))
    configured = Configured((PolledSource(SIP, 60.0),), event_sources=(SIP,))
    assert kinds(sip.state.apply(configured, sip.now)) == []
    assert sip.source.polled


def test_what_finds_no_room_is_counted():
    sender = Sender()
    sender.state.limit_identifiers = 1
    sender.event(1, -1)
    for _ in range(3):
        sender.event(1, -1, Key(SENDER, "dialplan", "main"))
    assert sender.state.identifiers == 1
    assert sender.source.refused == 3


# --- groups of which nothing is known -------------------------------------------------------


def test_a_group_that_could_not_be_listed_is_known_to_be_there():
    sip = Polled()
    sip.poll(listed("core"), partial_groups=frozenset({"uac_registrant"}))
    group = sip.source.groups["uac_registrant"]
    assert (group.name, group.complete, group.entries) == ("uac_registrant", False, {})
    sip.poll(listed("core"))
    assert list(sip.source.groups) == ["core"]


def test_the_last_key_of_a_partial_group_may_go_and_the_group_stays():
    sip = Polled()
    sip.poll(listed("core"), listed("dialplan"))
    sip.poll(listed("core"), partial_groups=frozenset({"DialPlan"}))
    assert sip.entry(DP).status == 1
    assert not sip.source.groups["dialplan"].complete
