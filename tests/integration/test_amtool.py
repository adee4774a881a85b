"""What fires is read by Debian's amtool, and is told as a real Alertmanager tells it."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import requests

from sr_exporter.config import Alertmanager, Config, SecretUrl, Webhook
from sr_exporter.web.alerts import MOST_PATTERN
from tests.harness import RunningApp, eventually, free_port
from tests.integration.test_alerting import alertmanager
from tests.real_parts import program

KEYS = [
    {"source": "sip-1", "group": "core", "status": -1, "details": "initializing"},
    {"source": "sip-1", "group": 'say "hi\\', "identifier": "ünï", "status": -7},
    {"source": "sip-2", "group": "gw", "identifier": "gw-1", "status": -2, "reports": ["a<b>&"]},
    {"source": "sip-2", "group": "gw", "identifier": "gw-2", "status": 1},
]
QUERIES = [
    "",
    "filter=group=core",
    'filter=group%3D"core"',
    "filter=group!=core",
    'filter= identifier =~ "gw-.*" ',
    "filter=source=~sip-[0-9]&filter=severity=warning",
    "filter=source=~sip",
    "filter=group!~c(o|r)+e",
    "filter=identifier=~(?i)GW-[12]?",
    "filter=identifier=~g[^a-f]-\\d{1,2}",
    "filter=identifier=~[[:alpha:][]+.(1|x)",
    "filter=identifier=~^(?U)gw-.$",
    "filter=nobody=",
    "filter=nobody!=x",
    'filter=group="say \\"hi\\\\"',
    "active=false",
    "active=0",
    "active=nonsense",
    "active=",
    "active=TRUE",
    "silenced=false&inhibited=false&unprocessed=false",
    "receiver=none",
    "receiver=n.*",
    "receiver=no",
    "receiver=",
    "strange=1",
]
FAULTS = ["filter=group", "filter=", 'filter=group="x', 'filter=group=a"b', "filter=0a=b"]
FAULTY_EXPRESSIONS = ["filter=group=~(", "filter=group=~a)", "filter=group=~[", "receiver=*"]


def get(base, path):
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{base}/api/v2/{path}", timeout=5)


def same(alert):
    """Give what must be alike in an alert: times of their own are checked for their form."""
    for name in ("endsAt", "updatedAt"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", alert[name])
    return {name: value for name, value in alert.items() if name not in ("endsAt", "updatedAt")}


def alike(found):
    """Give what must be alike in any answer."""
    if isinstance(found, list) and found and "fingerprint" in found[0]:
        return [same(alert) for alert in found]
    return found


def shape(value):
    """Give the keys and types of a document."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return type(value)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Run the exporter, whose only notifier is `none`, and a real Alertmanager that it tells."""
    folder = tmp_path_factory.mktemp("pair")
    with alertmanager(folder) as real:
        config = Config(notifiers=(Alertmanager("none", (real.url,)),))
        with RunningApp(folder / "data", config) as app:
            assert app.client.push(*KEYS).ok, "not taken"
            eventually(lambda: len(real.alerts()) == 3)
            # An Alertmanager has a receiver for an alert once it has sorted it.
            eventually(lambda: all(one["status"]["state"] == "active" for one in real.alerts()))
            eventually(lambda: len(get(app.base, "alerts").json()) == 3)
            yield app, real


def amtool(base, *arguments):
    done = subprocess.run(
        [program("amtool"), *arguments, f"--alertmanager.url={base}"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.real
@pytest.mark.parametrize("query", QUERIES)
def test_alerts_are_those_a_real_alertmanager_gives(pair, query):
    """Each query has the same alerts in the same order, alike but for times of sending."""
    app, real = pair
    ours, theirs = (get(base, f"alerts?{query}") for base in (app.base, real.url))
    assert ours.status_code == theirs.status_code == 200, theirs.text
    assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]
    assert alike(ours.json()) == alike(theirs.json())


@pytest.mark.real
def test_the_queries_can_tell_right_from_wrong(pair):
    """They find nothing, something, and everything: no filter is tried in vain."""
    app, _ = pair
    assert {len(get(app.base, f"alerts?{query}").json()) for query in QUERIES} == {0, 1, 2, 3}


@pytest.mark.real
@pytest.mark.parametrize("query", FAULTS)
def test_faults_are_told_in_alertmanagers_words(pair, query):
    """The code and the text are the same."""
    app, real = pair
    ours, theirs = (get(base, f"alerts?{query}") for base in (app.base, real.url))
    assert ours.status_code == theirs.status_code == 400
    assert ours.json() == theirs.json()
    silences = get(app.base, f"silences?{query}")
    assert silences.status_code == get(real.url, f"silences?{query}").status_code == 400


@pytest.mark.real
@pytest.mark.parametrize("query", FAULTY_EXPRESSIONS)
def test_faulty_expressions_are_refused_with_a_string(pair, query):
    """The code and the type are the same; the words are each its own."""
    app, real = pair
    ours, theirs = (get(base, f"alerts?{query}") for base in (app.base, real.url))
    assert ours.status_code == theirs.status_code == 400
    assert isinstance(ours.json(), str)
    assert isinstance(theirs.json(), str)


@pytest.mark.parametrize(
    "query",
    ["filter=identifier=~{}", "receiver={}", "filter=a!~x&filter=b=~{}"],
)
@pytest.mark.parametrize("route", ["alerts", "alerts/groups", "silences"])
def test_long_expressions_are_refused(tmp_path, route, query):
    """RE2 takes their length times that of each name: 30 kB of it held others up for seconds."""
    with RunningApp(tmp_path) as app:
        for length, code in ((MOST_PATTERN - 50, 200), (MOST_PATTERN, 400), (8_000, 400)):
            answer = get(app.base, f"{route}?{query.format('(.|p)*' * (length // 6 + 1))}")
            assert answer.status_code == code
        assert f"{MOST_PATTERN} characters long together" in answer.json()


@pytest.mark.real
@pytest.mark.parametrize("query", ["", "filter=group=core", "receiver=x", "active=no"])
def test_groups_are_those_a_real_alertmanager_makes(pair, query):
    """One group with every alert, as a route without `group_by` makes it."""
    app, real = pair
    ours, theirs = (get(base, f"alerts/groups?{query}").json() for base in (app.base, real.url))
    for group in (*ours, *theirs):
        group["alerts"] = sorted(map(same, group["alerts"]), key=lambda one: one["fingerprint"])
    assert ours == theirs


@pytest.mark.real
def test_the_other_routes_have_the_shapes_of_a_real_alertmanager(pair):
    """Receivers and silences are alike; the status has the same keys and types."""
    app, real = pair
    for path in ("receivers", "silences"):
        assert get(app.base, path).json() == get(real.url, path).json()
    assert shape(get(app.base, "status").json()) == shape(get(real.url, "status").json())


@pytest.mark.real
def test_amtool_prints_what_fires(pair):
    """Its three forms of output are those it prints of a real Alertmanager."""
    app, real = pair
    for arguments in (
        ("alert", "query"),
        ("alert", "query", "group=core"),
        ("alert", "query", 'identifier=~"gw-.*"', "--receiver=none"),
        ("alert", "query", "--silenced"),
        ("silence", "query"),
        ("alert", "query", "group=~("),
        ("cluster", "show"),
    ):
        code, out, error = amtool(app.base, *arguments)
        assert (code, out) == amtool(real.url, *arguments)[:2], arguments
        # It only has heard of one program with this API: --no-version-check makes it quiet.
        assert re.fullmatch(r"(Warning: amtool version .* are different\.\n)?", error)
    code, out, _ = amtool(app.base, "alert", "query", "-o", "json", "group=core")
    assert code == 0
    (alert,) = json.loads(out)
    assert alert["annotations"]["details"] == "initializing"
    code, out, _ = amtool(app.base, "alert", "query", "-o", "extended")
    assert (code, out.count("active")) == (0, 3)
    assert amtool(app.base, "config", "show")[0] == 0


def test_what_fires_follows_the_state_and_the_configuration(tmp_path):
    """Nothing fires, then one, then none; receivers are the notifiers in force."""
    dead = f"http://127.0.0.1:{free_port()}"
    config = Config(
        notifiers=(Alertmanager("am", (dead,)), Webhook("hook", SecretUrl(f"{dead}/x?y=z")))
    )
    running = [config]
    with RunningApp(tmp_path, read_config=lambda: running[0]) as app:
        assert get(app.base, "alerts").json() == []
        assert get(app.base, "alerts/groups").json() == []
        app.client.push({"group": "sbc", "status": -1})
        (alert,) = eventually(lambda: get(app.base, "alerts").json())
        assert alert["receivers"] == [{"name": "am"}, {"name": "hook"}]
        assert len(get(app.base, "alerts/groups").json()) == 2
        assert len(get(app.base, "alerts/groups?receiver=hook").json()) == 1
        assert get(app.base, "alerts?receiver=nobody").json() == []
        running[0] = Config()
        assert app.client.session.post(f"{app.base}/-/reload", timeout=20).ok
        (alone,) = get(app.base, "alerts").json()
        assert alone == {**alert, "receivers": [], "endsAt": alone["endsAt"]}
        app.client.push({"group": "sbc", "status": 1})
        eventually(lambda: get(app.base, "alerts").json() == [])


def test_alerts_are_not_taken(tmp_path):
    """Nobody mistakes the exporter for an Alertmanager: 405."""
    with RunningApp(tmp_path) as app:
        answer = app.client.session.post(f"{app.base}/api/v2/alerts", json=[], timeout=5)
        assert answer.status_code == 405


def test_many_alerts_are_given_whole(tmp_path):
    """What is written in pieces is one list."""
    with RunningApp(tmp_path) as app:
        app.client.push(*({"group": "g", "identifier": str(n), "status": -1} for n in range(1234)))
        eventually(lambda: len(get(app.base, "alerts").json()) == 1234)
        found = get(app.base, "alerts").json()
        assert len({alert["fingerprint"] for alert in found}) == 1234
        assert found == sorted(found, key=lambda alert: alert["fingerprint"])
