"""Reload: what changes in the file changes in the exporter, and nothing else does."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager

import pytest
import yaml

from sr_exporter import reload
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import Planned, SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.harness import Client, RunningApp, eventually, free_port, series
from tests.integration.test_alerting import alertmanager
from tests.receiver import Receiver

GOOD = "sr_exporter_config_last_reload_successful"
SINCE = "sr_exporter_config_last_reload_success_timestamp_seconds"


class File:
    """A configuration file that is written over and over."""

    def __init__(self, folder) -> None:
        self.path = folder / "sr.yml"
        self.write()

    def write(self, **keys: object) -> None:
        self.path.write_text(yaml.safe_dump(keys))


@pytest.fixture
def file(tmp_path):
    return File(tmp_path)


@contextmanager
def running(file, **more):
    with RunningApp(file.path.parent / "data", config_file=file.path, **more) as app:
        yield app


class Node:
    """A simulated server, ready for an hour, that counts what it is asked."""

    def __init__(self, stack: ExitStack) -> None:
        now = time.time() - 3600
        self.node = SimulatedNode(OPENSIPS_4_0, (Planned("sql_cacher", "carriers"),))
        self.node.start(now)
        self.node.initialized(now + 1)
        self.node.begin_load("sql_cacher", "carriers", now + 1)
        self.node.finish_load("sql_cacher", "carriers", "1 records loaded", now + 2)
        self.asked = 0
        httpd = MiHttpd(self.node, on_request=self._count)
        self.url = stack.enter_context(MiThread(httpd)).url

    def _count(self, _: object) -> None:
        self.asked += 1


def _polled(name: str, url: str, **more: object) -> dict[str, object]:
    return {"name": name, "mi": url, "poll_interval": "100ms", "max_share": 1, **more}


def _hook(name: str, url: str, **more: object) -> dict[str, object]:
    return {"name": name, "webhook": {"url": url, **more}}


def _am(name: str, *urls: str) -> dict[str, object]:
    return {"name": name, "alertmanager": {"urls": list(urls)}}


def _up(app) -> dict[str, float]:
    found = series(app.client.metrics(), "opensips_sr_source_up")
    return {dict(labels)["source"]: value for labels, value in found.items()}


def _reload(app, **headers: str) -> None:
    answer = app.client.reload(**headers)
    assert answer.status_code == 200, answer.text


# --- the file -------------------------------------------------------------------------------


def test_a_faulty_file_changes_nothing_and_says_everything(file):
    """All faults at once in the answer and the log; the gauge is 0 until a good one is read."""
    file.write(push={"tokens": []}, limits={"body_bytes": 2048})
    with running(file) as app:
        before = app.client.metrics()
        assert before[GOOD, ()] == 1
        file.path.write_text("sources: [{name: push, mi: 'ftp://h'}]\nlimits: {body_bytes: 1}\n")
        answer = app.client.reload()
        assert answer.status_code == 400
        faults = answer.json()["faults"]
        assert len(faults) == 3
        for part in ("sources[0].name", "sources[0].mi", "limits.body_bytes"):
            assert any(part in fault for fault in faults)
            assert part in answer.json()["error"]
        after = app.client.metrics()
        assert after[GOOD, ()] == 0
        assert after[SINCE, ()] == before[SINCE, ()]
        body = b" " * 2049
        assert app.client.session.post(f"{app.base}/api/v1/push", data=body).status_code == 413
        assert app.client.push({"group": "g", "status": 1}).status_code == 200
        file.path.unlink()
        assert "cannot be read" in app.client.reload().json()["error"]
        file.write()
        _reload(app)
        mended = app.client.metrics()
        assert mended[GOOD, ()] == 1
        assert mended[SINCE, ()] > before[SINCE, ()]


def test_reading_takes_a_post(file):
    """As Prometheus has it: 405 for a GET, PUT is as good as POST."""
    with running(file) as app:
        assert app.client.session.get(f"{app.base}/-/reload").status_code == 405
        assert app.client.session.put(f"{app.base}/-/reload").status_code == 200


def test_who_may_reload(file, tmp_path):
    """Whoever may write everything: strangers 403, no token 401, a token of some groups 403."""
    with running(file) as app:
        stranger = app.client.reload(**{"X-Forwarded-For": "10.0.0.1"})
        assert (stranger.status_code, "push.tokens" in stranger.text) == (403, True)
        for name in ("all", "some"):
            (tmp_path / name).write_text(f"{name}-token\n")
        tokens = [{"token_file": "all"}, {"token_file": "some", "groups": ["g"]}]
        file.write(push={"tokens": tokens})
        _reload(app)
        assert app.client.reload().status_code == 401
        some = app.client.reload(Authorization="Bearer some-token")
        assert (some.status_code, "sources: ['*']" in some.text) == (403, True)
        _reload(app, Authorization="Bearer all-token")


def test_tokens_are_rotated(file, tmp_path):
    """The file that holds one is read again: the old token is nobody's, the new one works."""
    (tmp_path / "token").write_text("old")
    file.write(push={"tokens": [{"token_file": "token"}]})
    with running(file) as app:
        item = {"group": "g", "status": 1}
        assert app.client.push(item, Authorization="Bearer old").status_code == 200
        (tmp_path / "token").write_text("new")
        _reload(app, Authorization="Bearer old")
        assert app.client.push(item, Authorization="Bearer old").status_code == 401
        assert app.client.push(item, Authorization="Bearer new").status_code == 200


def test_limits_take_effect_and_remove_nothing(file):
    """A lower limit refuses what is new, and keeps what is held."""
    with running(file) as app:
        eventually(lambda: series(app.client.metrics(), "opensips_sr_status", group="store"))
        assert app.client.push(*({"group": f"g{n}", "status": 1} for n in range(5))).ok
        file.write(limits={"identifiers": 3, "body_bytes": 1024})
        _reload(app)
        assert app.client.push({"group": "g0", "status": -1}).status_code == 200
        refused = app.client.push({"group": "new", "status": 1})
        assert "limits.identifiers (3)" in refused.text
        assert app.client.push({"group": "g", "reports": ["x" * 1024]}).status_code == 413
        assert len(series(app.client.metrics(), "opensips_sr_status", source="push")) == 5


# --- sources --------------------------------------------------------------------------------


def test_sources_come_and_go(file):
    """A new one is polled at once, one that left is gone with all it had, the third goes on."""
    with ExitStack() as stack:
        first, second, third = (Node(stack) for _ in range(3))
        file.write(sources=[_polled("one", first.url), _polled("two", second.url)])
        app = stack.enter_context(running(file))
        eventually(lambda: _up(app) == {"one": 1, "two": 1})
        before = series(app.client.metrics(), "opensips_sr_reports_total", source="two")
        file.write(sources=[_polled("two", second.url), _polled("three", third.url)])
        _reload(app)
        eventually(lambda: _up(app) == {"two": 1, "three": 1})
        found = app.client.metrics()
        assert not [key for key in found if dict(key[1]).get("source") == "one"]
        own = series(found, "opensips_sr_status", source="sr_exporter", group="source")
        assert {dict(labels)["identifier"] for labels in own} == {"two", "three"}
        assert series(found, "opensips_sr_reports_total", source="two") == before
        asked = first.asked
        seen = third.asked
        eventually(lambda: third.asked > seen + 8)
        assert first.asked == asked


def test_a_reload_that_changes_nothing_disturbs_nobody(file):
    """No poll more, and none less: a slow source is not asked again because a file was read."""
    with ExitStack() as stack:
        node = Node(stack)
        file.write(sources=[_polled("one", node.url, poll_interval="1h")])
        app = stack.enter_context(running(file))
        eventually(lambda: _up(app) == {"one": 1})
        asked = node.asked
        for _ in range(20):
            _reload(app)
        assert _up(app) == {"one": 1}
        assert node.asked == asked


def test_a_source_with_other_settings_keeps_what_it_had(file):
    """Its counters go on, it is not down meanwhile, and the new interval is its own."""
    with ExitStack() as stack:
        node = Node(stack)
        file.write(sources=[_polled("one", node.url)])
        app = stack.enter_context(running(file))
        eventually(lambda: _up(app) == {"one": 1})
        before = app.client.metrics()
        file.write(sources=[_polled("one", node.url, poll_interval="1h")])
        _reload(app)
        eventually(
            lambda: (
                app.client.metrics()["opensips_sr_poll_interval_seconds", (("source", "one"),)]
                == 3600
            )
        )
        after = app.client.metrics()
        for name in ("opensips_sr_status_changes_total", "opensips_sr_reports_total"):
            assert series(after, name, source="one") == series(before, name, source="one")
        assert _up(app) == {"one": 1}


def test_reloading_again_and_again_asks_no_more_than_its_share(file):
    """A source that changes with each reload is not polled with each: its time is its own."""
    with ExitStack() as stack:
        node = Node(stack)

        def source(number: int) -> dict[str, object]:
            return _polled("one", node.url, stale_after=f"{number}s", max_share=0.001)

        file.write(sources=[source(1)])
        app = stack.enter_context(running(file))
        eventually(lambda: _up(app) == {"one": 1})
        asked = node.asked
        for number in range(2, 22):
            file.write(sources=[source(number)])
            _reload(app)
        # One poll takes milliseconds: at a thousandth of its time the next is seconds away.
        assert node.asked <= asked + 4


def test_a_hanging_source_is_let_go_of(file):
    """It is asked at another address at once; two connections to one source there never are."""
    with ExitStack() as stack:
        node = Node(stack)
        hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/mi"
        file.write(sources=[_polled("one", url, timeout="2m")])
        app = stack.enter_context(running(file))
        connection, _ = hanging.accept()
        with connection:
            assert connection.recv(4096)
            file.write(sources=[_polled("one", node.url)])
            _reload(app)
            while connection.recv(4096):
                pass  # until it is closed
            eventually(lambda: _up(app) == {"one": 1})


def test_sources_files_are_read_again(file, tmp_path):
    """A file that appeared in the folder is one source more."""
    with ExitStack() as stack:
        node = Node(stack)
        (tmp_path / "sources.d").mkdir()
        file.write(sources_files=["sources.d/*.yml"])
        app = stack.enter_context(running(file))
        assert _up(app) == {}
        (tmp_path / "sources.d" / "lab.yml").write_text(yaml.safe_dump([_polled("lab", node.url)]))
        _reload(app)
        eventually(lambda: _up(app) == {"lab": 1})


# --- notifiers and rules --------------------------------------------------------------------


def _statuses(receiver, **labels: str) -> list[tuple[str, str]]:
    """Give status and severity of what a receiver got about a key."""
    return [
        (one.status, one.body["commonLabels"]["severity"])
        for one in receiver.received
        if labels.items() <= one.body["commonLabels"].items()
    ]


@pytest.mark.real
def test_an_alert_labelled_anew_is_resolved_everywhere(file):
    """At a real Alertmanager and a webhook, in that pass: the old one ends, the new one fires."""
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        server = stack.enter_context(alertmanager(file.path.parent))
        notifiers = [_hook("hook", receiver.url), _am("am", server.url)]
        file.write(notifiers=notifiers)
        app = stack.enter_context(running(file))
        app.client.push({"group": "g", "status": -1})
        eventually(lambda: len(server.alerts('group="g"')) == 1)
        receiver.wait_for(1)
        began = server.alerts('group="g"')[0]["startsAt"]
        rules = [{"group": "g", "severity": "critical", "labels": {"team": "voip"}}]
        file.write(notifiers=notifiers, alerts={"rules": rules})
        _reload(app)
        receiver.wait_for(3)
        assert _statuses(receiver, group="g") == [
            ("firing", "warning"),
            ("resolved", "warning"),
            ("firing", "critical"),
        ]
        (alert,) = eventually(lambda: server.alerts('severity="critical"'))
        assert (alert["labels"]["team"], alert["startsAt"]) == ("voip", began)
        eventually(lambda: not server.alerts('severity="warning"'))
        file.write(notifiers=notifiers, alerts={"rules": [{"source": "push", "silence": True}]})
        _reload(app)
        receiver.wait_for(4)
        assert _statuses(receiver, group="g")[3:] == [("resolved", "critical")]
        eventually(lambda: not server.alerts('group="g"'))


@pytest.mark.real
def test_alerts_of_a_source_that_left_are_resolved(file):
    """That of a key and that of the source itself, at both notifiers."""
    with ExitStack() as stack:
        node = Node(stack)
        receiver = stack.enter_context(Receiver())
        server = stack.enter_context(alertmanager(file.path.parent))
        notifiers = [_hook("hook", receiver.url), _am("am", server.url)]
        dead = _polled("dead", f"http://127.0.0.1:{free_port()}/mi")
        rules = [{"source": "*", "for": "0s"}]
        both = [_polled("one", node.url), dead]
        file.write(sources=both, notifiers=notifiers, alerts={"rules": rules})
        app = stack.enter_context(running(file))
        eventually(lambda: _up(app) == {"one": 1, "dead": 0})
        node.node.set_status("sql_cacher", "carriers", -2, "no data loaded")
        eventually(lambda: len(server.alerts()) == 2)
        receiver.wait_for(2)
        file.write(notifiers=notifiers, alerts={"rules": rules})
        _reload(app)
        receiver.wait_for(4)
        assert _statuses(receiver, source="dead")[-1][0] == "resolved"
        assert _statuses(receiver, source="one")[-1][0] == "resolved"
        eventually(lambda: not server.alerts())


@pytest.mark.real
def test_a_notifier_that_left_hears_that_its_alerts_end(file):
    """A webhook by a last notification, an Alertmanager by a last POST; who stays hears nothing."""
    with ExitStack() as stack:
        stays, leaves = (stack.enter_context(Receiver()) for _ in range(2))
        server = stack.enter_context(alertmanager(file.path.parent))
        stay = _hook("stays", stays.url)
        file.write(notifiers=[stay, _hook("leaves", leaves.url), _am("am", server.url)])
        app = stack.enter_context(running(file))
        app.client.push({"group": "g", "status": -1})
        eventually(lambda: server.alerts('group="g"'))
        stays.wait_for(1)
        leaves.wait_for(1)
        file.write(notifiers=[stay])
        _reload(app)
        # Their last words were spoken before the reload was over.
        assert [status for status, _ in _statuses(leaves)] == ["firing", "resolved"]
        assert not server.alerts('group="g"')
        found = app.client.metrics()
        for name in ("sr_exporter_notifier_backlog", "sr_exporter_notifications_total"):
            assert {dict(labels)["notifier"] for labels in series(found, name)} == {"stays"}
        app.client.push({"group": "g", "status": 1})
        stays.wait_for(2)
        assert len(leaves.received) == 2
        assert [status for status, _ in _statuses(stays)] == ["firing", "resolved"]


@pytest.mark.real
def test_an_alertmanager_under_another_name_goes_on(file):
    """Renaming a notifier, or adding an instance, resolves nothing."""
    with ExitStack() as stack:
        server = stack.enter_context(alertmanager(file.path.parent))
        file.write(notifiers=[_am("old", server.url)])
        app = stack.enter_context(running(file))
        app.client.push({"group": "g", "status": -1})
        eventually(lambda: server.alerts('group="g"'))
        dead = f"http://127.0.0.1:{free_port()}"
        for notifier in (_am("new", server.url), _am("new", dead, server.url), _am("new", dead)):
            gone = server.url not in notifier["alertmanager"]["urls"]
            file.write(notifiers=[notifier])
            _reload(app)
            assert bool(server.alerts('group="g"')) is not gone
        file.write(notifiers=[_am("new", server.url)])
        _reload(app)
        eventually(lambda: server.alerts('group="g"'))


def test_what_is_owed_goes_to_the_mended_address_at_once(file):
    """An operator mends the URL, and does not wait for a backoff of minutes."""
    with Receiver() as receiver:
        file.write(notifiers=[_hook("hook", f"http://127.0.0.1:{free_port()}/x")])
        with running(file) as app:
            for number in range(3):
                app.client.push({"group": "g", "status": -1 - number})

            def retried() -> float:
                labels = (("notifier", "hook"), ("result", "retried"))
                return app.client.metrics()["sr_exporter_notifications_total", labels]

            eventually(lambda: retried() >= 1)
            file.write(notifiers=[_hook("hook", receiver.url)])
            _reload(app)
            got = receiver.wait_for(3, within=2)
            said = [one.body["alerts"][0]["annotations"]["status"] for one in got]
            assert said == ["-1", "-2", "-3"]


def test_a_receiver_that_hangs_is_left_for_the_mended_address_at_once(file):
    """What is under way to the old address is broken off, though its time-out is far away."""
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/x"
        file.write(notifiers=[_hook("hook", url, timeout="2m")])
        app = stack.enter_context(running(file))
        for number in range(6):
            app.client.push({"group": f"g{number}", "status": -1})
        connection, _ = hanging.accept()
        with connection:
            assert connection.recv(65536)
            file.write(notifiers=[_hook("hook", receiver.url, timeout="2m")])
            _reload(app)
            receiver.wait_for(6, within=5)


def test_a_webhook_under_another_name_goes_on(file):
    """What it is owed is delivered, what it heard does not end; two may share a receiver."""
    with Receiver(503) as receiver:
        file.write(notifiers=[_hook("old", receiver.url)])
        with running(file) as app:
            app.client.push({"group": "g", "status": -1})
            receiver.wait_for(1)
            both = [_hook("new", receiver.url), _hook("twin", receiver.url)]
            file.write(notifiers=both)
            _reload(app)
            receiver.answer(200)
            receiver.wait_for(2)
            file.write(notifiers=both[:1])
            _reload(app)
            app.client.push({"group": "g", "status": 1})
            receiver.wait_for(3)
            found = app.client.metrics()
            backlog = series(found, "sr_exporter_notifier_backlog")
            assert {dict(labels)["notifier"] for labels in backlog} == {"new"}
    assert [status for status, _ in _statuses(receiver)] == ["firing", "firing", "resolved"]
    assert len({one.delivery for one in receiver.received}) == 2


def test_a_file_that_cannot_be_read_now_can_be_read_later(file, monkeypatch):
    """A FIFO nobody writes to: told so in time, and the next reload is like the first."""
    monkeypatch.setattr(reload, "READ_SECONDS", 0.2)
    with running(file) as app:
        file.path.unlink()
        os.mkfifo(file.path)
        answer = app.client.reload()
        assert (answer.status_code, "could not be read" in answer.text) == (503, True)
        assert app.client.metrics()[GOOD, ()] == 0
        fifo = file.path.rename(file.path.with_name("fifo"))
        file.write()
        _reload(app)
        assert app.client.metrics()[GOOD, ()] == 1
        fifo.open("w").close()  # let the thread that waits for it go


def test_a_new_notifier_hears_what_changes_from_then_on(file):
    """And is in the metrics and in the exporter's own state."""
    with Receiver() as receiver, running(file) as app:
        app.client.push({"group": "before", "status": -1})
        file.write(notifiers=[_hook("hook", receiver.url)])
        _reload(app)
        app.client.push({"group": "after", "status": -1})
        receiver.wait_for(1)
        assert [one.body["commonLabels"]["group"] for one in receiver.received] == ["after"]
        found = app.client.metrics()
        assert series(found, "sr_exporter_notifier_backlog", notifier="hook")
        assert series(found, "opensips_sr_status", group="notifier", identifier="hook")


def test_a_notifier_that_hangs_as_it_leaves_holds_up_nobody(file, figure):
    """Pushes and the other webhook go on; the reload is over within seconds; what was owed is
    a dead letter.
    """
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/x"
        stay = _hook("stays", receiver.url)
        file.write(notifiers=[stay, _hook("hangs", url, timeout="2m")])
        app = stack.enter_context(running(file))
        app.client.push({"group": "g", "status": -1})
        receiver.wait_for(1)
        file.write(notifiers=[stay])
        answers = []
        began = time.monotonic()
        thread = threading.Thread(target=lambda: answers.append(app.client.reload()))
        thread.start()
        pushed = 0
        with closing(Client(app.base)) as client:  # sessions are not for two threads
            while thread.is_alive():
                pushed += 1
                assert client.push({"group": f"p{pushed}", "status": -1}).status_code == 200
                receiver.wait_for(1 + pushed)
        thread.join()
        took = time.monotonic() - began
        assert answers[0].status_code == 200
        assert took < 8
        assert pushed > 10
        found = app.client.metrics()
        assert {
            dict(labels)["notifier"] for labels in series(found, "sr_exporter_notifier_backlog")
        } == {"stays"}
    figure(f"reload away from a webhook that hangs: {took:.1f} s, {pushed} pushes meanwhile")


def test_what_is_held_is_told_by_the_new_rule(file):
    """A `for` that is made shorter is over at once."""
    with Receiver() as receiver:
        notifiers = [_hook("hook", receiver.url)]
        file.write(notifiers=notifiers, alerts={"rules": [{"group": "g", "for": "1h"}]})
        with running(file) as app:
            app.client.push({"group": "g", "status": -1})
            assert app.client.push({"group": "x", "status": -1}).ok
            receiver.wait_for(1)
            file.write(notifiers=notifiers)
            _reload(app)
            receiver.wait_for(2)
    assert [status for status, _ in _statuses(receiver, group="g")] == ["firing"]
