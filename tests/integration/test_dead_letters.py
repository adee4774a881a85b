"""What was given up is shown, and delivered after all when somebody asks for it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from sr_exporter import notifications_command
from sr_exporter.config import AlertRule, Config, SecretUrl, Token, Webhook
from tests.harness import RunningApp, eventually, series
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver that refuses for good."""
    with Receiver(400) as made:
        yield made


@pytest.fixture
def app(tmp_path: Path, receiver: Receiver) -> Iterator[RunningApp]:
    with RunningApp(tmp_path / "data", hooked(receiver)) as running:
        yield running


def hooked(*receivers: Receiver) -> Config:
    names = ("hook", "other")
    return Config(
        notifiers=tuple(
            Webhook(name, SecretUrl(f"{receiver.url}/s3cret"))
            for name, receiver in zip(names, receivers, strict=False)
        )
    )


def push(app: RunningApp, status: int, name: str = "k") -> None:
    item = {"source": "sbc", "group": "g", "identifier": name, "status": status}
    app.client.push(item).raise_for_status()


def listed(app: RunningApp, **query: object) -> dict[str, Any]:
    answer = app.client.session.get(f"{app.base}/api/v1/notifications", params=query, timeout=10)
    answer.raise_for_status()
    return answer.json()


def dead(app: RunningApp, count: int) -> list[dict[str, Any]]:
    """Wait until so many are dead; give them."""
    return eventually(lambda: (items := listed(app)["items"]) and len(items) >= count and items)


def retried(app: RunningApp, row_id: str) -> int:
    url = f"{app.base}/api/v1/notifications/{row_id}/retry"
    return app.client.session.post(url, timeout=10).status_code


def heard(receiver: Receiver, since: int) -> list[tuple[str, str]]:
    return [(one.identifier, one.status) for one in receiver.received[since:]]


def backlog(app: RunningApp) -> float:
    return sum(series(app.client.metrics(), "sr_exporter_notifier_backlog").values())


def test_a_dead_letter_tells_what_it_is_and_why(app, receiver):
    """Whole, with the reason, and without the receiver's URL."""
    assert listed(app) == {"items": [], "next": None}
    push(app, -1)
    (item,) = dead(app, 1)
    sent = receiver.received[0]
    assert item == {
        "id": sent.delivery,
        "notifier": "hook",
        "state": "dead",
        "created_at": item["created_at"],
        "due_at": item["due_at"],
        "attempts": 1,
        "reason": "HTTP 400",
        "notification": sent.body,
    }
    assert "s3cret" not in str(listed(app))
    assert listed(app, state="owed") == {"items": [], "next": None}


def test_a_retried_letter_is_delivered_under_its_id(app, receiver):
    """It is no letter any more when it was taken, and nobody knows of it."""
    push(app, -1)
    (item,) = dead(app, 1)
    receiver.answer(200)
    assert retried(app, item["id"]) == 200
    again = receiver.wait_for(2)[1]
    assert (again.delivery, again.raw) == (item["id"], receiver.received[0].raw)
    eventually(lambda: backlog(app) == 0)
    assert listed(app)["items"] == []
    assert retried(app, item["id"]) == 404


def test_a_retried_letter_that_is_refused_again_is_dead_again(app, receiver):
    """Under the same id."""
    push(app, -1)
    (item,) = dead(app, 1)
    assert retried(app, item["id"]) == 200
    receiver.wait_for(2)
    assert [one["id"] for one in dead(app, 1)] == [item["id"]]


def test_letters_of_a_key_are_delivered_in_their_order(app, receiver):
    """Whoever retries them in order has them heard in order, and nothing besides."""
    for status in (-1, 1, -2, -3, 1):
        push(app, status)
    items = dead(app, 5)
    receiver.answer(200)
    for item in items:
        assert retried(app, item["id"]) == 200
    receiver.wait_for(10)
    eventually(lambda: backlog(app) == 0)
    assert [one.delivery for one in receiver.received[5:]] == [item["id"] for item in items]


def test_a_retried_letter_goes_before_what_is_younger_and_still_owed(app, receiver):
    """It is where it would have been in the order of its key."""
    push(app, -1)
    (item,) = dead(app, 1)
    receiver.answer(503)
    push(app, 1)
    # It waits for its next attempt; one that is under way is not overtaken.
    eventually(lambda: [one["attempts"] for one in listed(app, state="owed")["items"]] == [1])
    assert retried(app, item["id"]) == 200
    receiver.wait_for(3)
    receiver.answer(200)
    eventually(lambda: backlog(app) == 0)
    taken = [one.delivery for one in receiver.accepted]
    assert taken == [item["id"], receiver.received[1].delivery]
    assert heard(receiver, 0)[-1] == ("k", "resolved")


@pytest.mark.parametrize(
    ("before", "after", "follows"),
    [
        ([-1], [1], ["firing", "resolved"]),
        ([-1, 1], [-1], ["resolved", "firing"]),
        ([-1], [-2], ["firing"]),
        ([-1], [1, -1], ["firing"]),
    ],
)
def test_what_is_so_now_follows_an_old_letter(app, receiver, before, after, follows):
    """A receiver that heard what came later already is not left with the past."""
    for status in before:
        push(app, status)
    items = dead(app, len(before))
    receiver.answer(200)
    for status in after:
        push(app, status)
    count = len(before) + len(after)
    receiver.wait_for(count)
    eventually(lambda: backlog(app) == 0)
    assert retried(app, items[-1]["id"]) == 200
    receiver.wait_for(count + len(follows))
    eventually(lambda: backlog(app) == 0)
    assert heard(receiver, count) == [("k", status) for status in follows]
    deliveries = [one.delivery for one in receiver.received[len(before) :]]
    assert len(set(deliveries)) == len(deliveries)
    assert receiver.received[count].delivery == items[-1]["id"]


def test_the_end_that_follows_an_old_letter_ends_that_alert(app, receiver):
    """Same labels and start, so that a receiver knows which one."""
    push(app, -1)
    (item,) = dead(app, 1)
    receiver.answer(200)
    push(app, 1)
    receiver.wait_for(2)
    eventually(lambda: backlog(app) == 0)
    assert retried(app, item["id"]) == 200
    firing, resolved = (one.body["alerts"][0] for one in receiver.wait_for(4)[2:])
    for name in ("labels", "startsAt", "fingerprint", "generatorURL"):
        assert firing[name] == resolved[name]
    assert resolved["endsAt"] >= resolved["startsAt"]


def test_what_is_held_back_is_not_the_last_word(tmp_path, receiver):
    """It may be withdrawn: until then, too, the receiver is to know what is so."""
    configs = [hooked(receiver)]
    with RunningApp(tmp_path / "data", read_config=lambda: configs[-1]) as app:
        push(app, -1)
        (item,) = dead(app, 1)
        receiver.answer(200)
        push(app, 1)
        receiver.wait_for(2)
        eventually(lambda: backlog(app) == 0)
        configs.append(replace(hooked(receiver), rules=(AlertRule(for_seconds=3600.0),)))
        app.client.reload().raise_for_status()
        push(app, -1)
        (held,) = listed(app, state="held")["items"]
        assert retried(app, item["id"]) == 200
        receiver.wait_for(4)
        assert heard(receiver, 2) == [("k", "firing"), ("k", "resolved")]
        eventually(lambda: backlog(app) == 0)
        assert listed(app, state="held")["items"] == [held]


def test_lists_are_filtered_and_paged(tmp_path, receiver):
    """By state and notifier; a page ends where its `next` begins."""
    with Receiver(503) as other, RunningApp(tmp_path / "data", hooked(receiver, other)) as app:
        names = [f"k{number}" for number in range(5)]
        for name in names:
            push(app, -1, name)
        dead(app, 5)
        other.wait_for(4)
        for query in ({"state": "dead", "notifier": "hook"}, {"state": "owed"}):
            found, cursor = [], {}
            while True:
                page = listed(app, limit=2, **query, **cursor)
                assert len(page["items"]) <= 2
                found += page["items"]
                if page["next"] is None:
                    break
                cursor = {"cursor": page["next"]}
            labels = [one["notification"]["alerts"][0]["labels"] for one in found]
            assert [one["identifier"] for one in labels] == names
            assert {one["state"] for one in found} == {query["state"]}
        assert listed(app, state="dead", notifier="other")["items"] == []
        assert listed(app, state="owed", notifier="hook")["items"] == []
        assert listed(app, state="owed", notifier="nobody")["items"] == []
        # What is owed is not retried: it is already.
        (owed, *_) = listed(app, state="owed")["items"]
        assert retried(app, owed["id"]) == 409
        url = f"{app.base}/api/v1/notifications/{owed['id']}/retry"
        said = app.client.session.post(url, timeout=10).json()["error"]
        assert said.endswith(
            "it is owed already, and tried again by itself at most 5 minutes later;"
            " a reload tries at once"
        )


@pytest.mark.parametrize(
    "query", ["state=alive", "limit=0", "limit=1001", "cursor=x", "nope=1", "state=dead&state=owed"]
)
def test_what_is_not_understood_is_refused(app, query):
    """As of every list."""
    answer = app.client.session.get(f"{app.base}/api/v1/notifications?{query}", timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_letters_outlive_a_restart_and_their_notifier(tmp_path, receiver):
    """Kept with their reason; without their notifier they cannot be retried, and say so."""
    with RunningApp(tmp_path / "data", hooked(receiver)) as app:
        push(app, -1)
        (item,) = dead(app, 1)
    with RunningApp(tmp_path / "data") as app:
        assert listed(app)["items"] == [item]
        assert retried(app, item["id"]) == 409
    receiver.answer(200)
    with RunningApp(tmp_path / "data", hooked(receiver)) as app:
        assert retried(app, item["id"]) == 200
        assert receiver.wait_for(2)[1].delivery == item["id"]


def test_a_letter_of_an_earlier_run_stays_before_what_comes_after_it(tmp_path, receiver):
    """Its number is of that run, and may be the higher one: a restart reads by numbers."""
    with RunningApp(tmp_path / "data", hooked(receiver)) as app:
        for name in ("a", "b", "c", "k"):
            push(app, -1, name)
        letter = dead(app, 4)[-1]["id"]
    receiver.answer(503)
    with RunningApp(tmp_path / "data", hooked(receiver)) as app:
        assert retried(app, letter) == 200
        push(app, 1)
        eventually(lambda: len(listed(app, state="owed")["items"]) == 2)
    receiver.answer(200)
    with RunningApp(tmp_path / "data", hooked(receiver)) as app:
        eventually(lambda: backlog(app) == 0)
    assert [(one.identifier, one.status) for one in receiver.accepted] == [
        ("k", "firing"),
        ("k", "resolved"),
    ]


def test_who_may_not_write_may_not_retry(tmp_path, receiver):
    """It takes a token for everything, where there are tokens; and loopback where not."""
    some, all_ = ({"Authorization": f"Bearer {name}"} for name in ("some", "all"))
    with RunningApp(tmp_path / "data", hooked(receiver)) as app:
        push(app, -1)
        (item,) = dead(app, 1)
        url = f"/api/v1/notifications/{item['id']}/retry"
        strange = {"X-Forwarded-For": "10.0.0.1"}
        post = app.client.session.post
        assert post(app.base + url, headers=strange, timeout=10).status_code == 403
        assert app.client.session.get(app.base + url, timeout=10).status_code == 405
    tokens = (
        Token(digest("some"), sources=("sbc",)),
        Token(digest("all")),
    )
    config = Config(notifiers=hooked(receiver).notifiers, tokens=tokens)
    with RunningApp(tmp_path / "data", config) as app:
        post = app.client.session.post
        assert post(app.base + url, timeout=10).status_code == 401
        assert post(app.base + url, headers=some, timeout=10).status_code == 403
        assert post(app.base + url, headers=all_, timeout=10).status_code == 200


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def test_the_log_says_what_was_given_up_and_how_to_have_it_after_all(app):
    """Whom it is about, by the names of its labels."""
    with capture_logs() as logs:
        push(app, -1, "k 1")
        (item,) = dead(app, 1)
    (said,) = (one for one in logs if one["event"] == "notification given up")
    assert (said["source"], said["group"], said["identifier"]) == ("sbc", "g", "k 1")
    assert "subject" not in said
    assert said["hint"] == f"sr-exporter notifications retry {item['id']}"


# --- the command ---------------------------------------------------------------------------


def test_the_command_lists_and_retries(app, receiver, capsys):
    """A line each; what was retried is delivered."""
    for name in ("a", "b\x1b[31m"):
        push(app, -1, name)
    items = dead(app, 2)
    run = notifications_command.run
    assert run(["list", "--url", app.base]) == 0
    # Between them are those of the exporter's log.
    lines = [line for line in capsys.readouterr().out.splitlines() if " attempts=" in line]
    for line, item in zip(lines, items, strict=True):
        assert line.startswith(f"{item['id']} hook ")
        assert " attempts=1 firing {" in line
        assert line.endswith("} HTTP 400")
        assert line.isprintable()
    receiver.answer(200)
    assert run(["retry", "--url", app.base, items[1]["id"]]) == 0
    assert f"{items[1]['id']} is owed again\n" in capsys.readouterr().out
    assert receiver.wait_for(3)[2].delivery == items[1]["id"]
    assert run(["retry", "--all", "--notifier", "hook", "--url", app.base]) == 0
    assert "\n1 owed again, 0 refused\n" in capsys.readouterr().out
    assert receiver.wait_for(4)[3].delivery == items[0]["id"]


def test_the_command_says_that_there_is_nothing_and_what_there_is(tmp_path, receiver, capsys):
    """Who sees nothing is told where to look; a notifier that is not there is an error."""
    run = notifications_command.run
    rules = (AlertRule(group="slow", for_seconds=3600.0), AlertRule(group="*"))
    config = replace(hooked(receiver), rules=rules)
    receiver.answer(503)
    with RunningApp(tmp_path / "data", config) as app:
        push(app, -1)
        for name in ("k", "l"):
            item = {"source": "sbc", "group": "slow", "identifier": name, "status": -1}
            app.client.push(item).raise_for_status()
        receiver.wait_for(1)
        assert run(["list", "--url", app.base, "--notifier", "hook"]) == 0
        said = capsys.readouterr().err
        assert said == "sr-exporter: nothing is dead; 1 owed, 2 held: see --state\n"
        assert run(["list", "--state", "held", "--url", app.base]) == 0
        shown = capsys.readouterr().out
        (first, _) = listed(app, state="held")["items"]
        url = f"{app.base}/api/v1/notifications/{first['id']}/retry"
        refused = app.client.session.post(url, timeout=10)
        assert refused.status_code == 409
        assert refused.json()["error"].endswith(
            "it is held back by its rule, and sent when it is due"
        )
        due = datetime.fromtimestamp(first["due_at"], UTC).isoformat(timespec="seconds")
        assert f"attempts=0 due={due} firing {{" in shown
        for what in (["list"], ["list", "--state", "owed"], ["retry", "--all"]):
            assert run([*what, "--notifier", "nosuch", "--url", app.base]) == 1
            assert capsys.readouterr().err == "sr-exporter: no notifier 'nosuch' (hook)\n"


def test_the_command_says_what_went_wrong(app, tmp_path, capsys):
    """By its exit status, and in a line on standard error."""
    run = notifications_command.run
    assert run(["retry", "nothing/of\nthat", "--url", app.base]) == 1
    said = capsys.readouterr().err
    assert said.startswith("sr-exporter: HTTP 404: ")
    assert said.count("\n") == 1
    assert run(["list", "--url", "http://127.0.0.1:1"]) == 3
    assert capsys.readouterr().err == (
        "sr-exporter: no answer of an exporter from http://127.0.0.1:1:"
        " connection refused; --url says where the exporter is\n"
    )
    with Receiver() as no_exporter:
        assert run(["list", "--url", no_exporter.base]) == 3
    assert "something else answers" in capsys.readouterr().err
    (tmp_path / "token").write_text("two words")
    for wrong in (
        [],
        ["retry"],
        ["retry", "x", "--all"],
        ["retry", "x", "--notifier", "hook"],
        ["list", "--state", "alive"],
        ["list", "--url", "ftp://h"],
        ["list", "--token-file", str(tmp_path / "token")],
        ["list", "--token-file", str(tmp_path / "nothing")],
    ):
        with pytest.raises(SystemExit) as ended:
            run(wrong)
        assert ended.value.code == 2


def test_the_command_counts_as_far_as_one_page_tells(tmp_path, receiver, capsys):
    """More than a page are not counted one by one."""
    receiver.answer(503)
    with RunningApp(tmp_path / "data", hooked(receiver)) as app:
        items = [
            {"source": "sbc", "group": "g", "identifier": f"k{number}", "status": -1}
            for number in range(1001)
        ]
        app.client.push(*items).raise_for_status()
        assert notifications_command.run(["list", "--url", app.base]) == 0
    said = "sr-exporter: nothing is dead; more than 1000 owed, 0 held: see --state\n"
    assert capsys.readouterr().err == said


def test_the_command_bears_a_token(tmp_path, receiver, capsys):
    """From a file."""
    (tmp_path / "token").write_text("t\n")
    config = Config(notifiers=hooked(receiver).notifiers, tokens=(Token(digest("t")),))
    run = notifications_command.run
    with RunningApp(tmp_path / "data", config) as app:
        headers = {"Authorization": "Bearer t"}
        app.client.push({"source": "s", "group": "g", "status": -1}, **headers)
        (item,) = dead(app, 1)
        assert run(["retry", item["id"], "--url", app.base]) == 1
        assert "HTTP 401" in capsys.readouterr().err
        token = ["--token-file", str(tmp_path / "token")]
        assert run(["retry", item["id"], "--url", app.base, *token]) == 0
