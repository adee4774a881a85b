"""The status page in a real Chromium: what it shows, live, to whom, and what it does not let in."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sr_exporter.config import Config, Source
from sr_exporter.simulator.events import Events
from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.instance import Instance
from sr_exporter.simulator.node import Planned, SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.browser import LOOKS, Watched, chromium, faults, window
from tests.harness import Command, RunningApp, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.real

#: Where the pictures of the last run are: what CI keeps.
OUTPUT = Path(os.environ.get("SR_TEST_OUTPUT", Path(__file__).parents[1] / "output"))
NASTY = '<img src="http://evil.example/x.png" onerror="document.title=1"><script>evil()</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


class Fleet:
    """An exporter that polls two servers and is pushed to, with the past of an evening."""

    def __init__(self, app: RunningApp, servers: dict[str, MiThread]) -> None:
        self.app = app
        self.servers = servers
        self.base = app.base

    def push(self, *items: dict[str, object]) -> None:
        answer = self.app.client.push(*items)
        assert answer.ok, answer.text


def _server() -> MiThread:
    plan = [Planned("alarms"), Planned("drouting", "us"), Planned("drouting", "us;events")]
    node = SimulatedNode(OPENSIPS_4_0, plan)
    events = Events(node)
    return MiThread(Instance(node, MiHttpd(node, commands=events.commands), events))


def load(server: MiThread) -> None:
    """Have a server that has just started load its table."""
    node, now = server.server.node, time.time()
    server.call(lambda: node.begin_load("drouting", "us", now))
    server.call(lambda: node.finish_load("drouting", "us", "3 gateways loaded", now))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Iterator[Fleet]:
    with _server() as first, _server() as second:
        servers = {"sip-1": first, "sip-2": second}
        for server in servers.values():
            load(server)
        sources = tuple(
            Source(name, server.url, poll_interval_seconds=0.1, max_share=1.0)
            for name, server in servers.items()
        )
        with RunningApp(tmp_path_factory.mktemp("fleet"), Config(sources=sources)) as app:
            running = Fleet(app, servers)
            trunk = {"source": "sbc-1", "group": "trunks", "identifier": "carrier-a"}
            now = time.time()
            for ago, status, details in (
                (9000, 1, "4 of 4 trunks"),
                (7000, -1, "0 of 4 trunks answer"),
                (6400, 1, "4 of 4 trunks"),
                (300, -1, "1 of 4 trunks answers"),
            ):
                report = {"log": f"carrier A: {details}", "timestamp": int(now - ago)}
                said = {"status": status, "details": details, "at": now - ago}
                running.push({**trunk, **said, "reports": [report]})
            steady = [{**trunk, "identifier": f"carrier-{x}", "status": 1} for x in "bcdef"]
            idle = [{"source": "sbc-2", "group": "hosts", "identifier": f"h{n}"} for n in range(30)]
            running.push(*steady, *({**one, "status": 1} for one in idle))
            eventually(lambda: len([s for s in app.app.state.sources.values() if s.up]) == 2)
            yield running


@pytest.fixture
def seen(browser, fleet) -> Iterator[Watched]:
    with window(browser, fleet.base, viewport={"width": 1280, "height": 900}) as watched:
        yield watched


def text(page: Page, selector: str = "main") -> str:
    return page.inner_text(selector)


def within(page: Page, selector: str, said: str, seconds: float = 10.0) -> None:
    """Wait until something is read there."""
    page.wait_for_function(
        "([selector, said]) => document.querySelector(selector)?.innerText.includes(said)",
        arg=[selector, said],
        timeout=seconds * 1000,
    )


# --- the demo -------------------------------------------------------------------------------


def test_the_demo_is_seen_and_changes_by_itself(browser):
    """Its servers, what they are in words, and what is pushed to it."""
    with Command("demo") as demo:
        demo.wait_ready()
        with window(browser, demo.base) as watched:
            page = watched.open()
            for name in ("sip-1", "sip-2", "edge-1", "reg-1"):
                within(page, "#main", name)
            watched.live()
            within(page, "#main", "registered")
            assert demo.client.push({"group": "sbc", "status": -1, "details": "all lost"}).ok
            within(page, "#main", "all lost")
        assert "HARM" not in demo.said


# --- what is shown --------------------------------------------------------------------------


def test_the_reason_comes_first(seen):
    """What is not ready stands above all else, with details, report, and since when."""
    page = seen.open()
    assert "1 not ready" in text(page, "h1")
    first = page.locator(".wrong li").first.inner_text()
    for said in ("NOT READY", "sbc-1 / trunks / carrier-a", "1 of 4 trunks answers", "for 5 min"):
        assert said in first
    assert page.title().startswith("1 not ready")
    seen.open("/?group=drouting")
    assert "data available (1)" in text(page)


def test_a_change_is_seen_within_a_second(seen, fleet, figure):
    """In place: nothing is loaded anew."""
    page = seen.open()
    seen.live()
    page.evaluate("window.kept = 1")
    took = []
    for number in range(5):
        began = time.monotonic()
        details = f"change number {number}"
        fleet.push({"source": "live", "group": "g", "status": -1, "details": details})
        page.get_by_text(details).first.wait_for()
        took.append(time.monotonic() - began)
    figure(f"page: a change is seen after {statistics.median(took) * 1000:.0f} ms (median of 5)")
    assert statistics.median(took) < 1.0
    assert page.evaluate("window.kept") == 1, "it was reloaded"
    page.goto("about:blank")
    fleet.app.client.delete("live")


def test_a_source_that_goes_down_and_comes_back_is_seen_so(seen, fleet):
    """Live: it is said, and since when and why; its identifiers are unknown meanwhile."""
    page = seen.open("/?source=sip-2")
    seen.live()
    fleet.servers["sip-2"].refuse()
    within(page, "h1", "1 source down")
    down = page.locator("section[aria-labelledby=h-down]").inner_text()
    assert "DOWN sip-2" in down
    assert "connection refused" in down
    assert "unknown" in text(page, "details summary")
    assert "up" not in page.locator("section[aria-labelledby=h-sources] tbody tr").inner_text()
    fleet.servers["sip-2"].listen()
    load(fleet.servers["sip-2"])
    page.wait_for_selector("#h-down", state="detached")
    within(page, "h1", "All that is heard is ready")


def test_who_is_only_reported_not_ready_is_shown_as_such(seen, fleet):
    """Rule 16: a gateway has no status, and its alert fires all the same."""
    node = fleet.servers["sip-1"].server.node
    fleet.servers["sip-1"].call(
        lambda: node.gateway("us", "<gw7>/192.0.2.7:5060", "inactive", "probing", time.time())
    )
    page = seen.open("/?source=sip-1")
    reported = "section[aria-labelledby=h-texts]"
    seen.live()
    fleet.push({"source": "other", "group": "g", "status": 1})  # reports alone wake nobody
    eventually(lambda: fleet.app.app.state.sources["sip-1"].subjects)
    page.reload()
    within(page, reported, "gw7")
    assert "REPORTED" in text(page, reported)
    assert "switched to [inactive]" in text(page, reported)
    assert "alert fires, warning" in text(page, reported)
    fleet.servers["sip-1"].call(
        lambda: node.gateway("us", "<gw7>/192.0.2.7:5060", "active", "probing", time.time())
    )
    eventually(lambda: not fleet.app.app.state.sources["sip-1"].subjects)


def test_the_page_of_a_key_tells_its_past(seen):
    """Drawn, and in words beside it; of as many hours as are asked for."""
    page = seen.open()
    page.locator(".wrong a").first.click()
    page.wait_for_url("**/sources/sbc-1?group=trunks&identifier=carrier-a")
    assert "NOT READY carrier-a" in text(page, "h1")
    drawn = page.get_by_role("img", name="The last 6 h: not ready 2 times, 15 min in all")
    assert drawn.locator("path.n").count() == 1
    assert drawn.locator("path.r").count() == 1
    spells = [row.inner_text() for row in page.locator("#h-past ~ table tbody tr").all()]
    assert [spell.split("\t")[2].strip() for spell in spells] == [
        "not ready",
        "ready",
        "not ready",
        "ready",
        "not held",
    ]
    assert "0 of 4 trunks answer" in spells[2]
    page.get_by_role("link", name="1 h", exact=True).click()
    page.wait_for_url("**&hours=1")
    page.get_by_role("img", name="The last 1 h: not ready once, 5 min in all").wait_for()


# --- filters, folds, paging -----------------------------------------------------------------


def test_filters_are_a_form_whose_answer_has_an_address(seen):
    page = seen.open()
    page.get_by_label("Group").fill("trunk")
    page.get_by_label("Show").select_option("ready")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/?source=&group=trunk&identifier=&ready=true")
    shown = page.locator("details td[data-name=Identifier]").all_inner_texts()
    assert shown == [f"carrier-{x}" for x in "bcdef"]
    page.get_by_role("link", name="Show all").click()
    assert page.locator("details").count() > 4


def test_what_was_folded_and_typed_and_chosen_stays_while_it_changes(seen, fleet):
    """A change alters what is other, and nothing that the person did."""
    page = seen.open()
    seen.live()
    group = page.locator("details", has_text="sbc-1 / trunks")
    other = page.locator("details", has_text="sip-1 / drouting")
    before = (group.get_attribute("open"), other.get_attribute("open"))
    group.locator("summary").click()
    other.locator("summary").click()
    page.get_by_role("textbox", name="Identifier").fill("half a na")
    other.locator("summary").focus()
    page.evaluate("window.scrollTo(0, 200)")
    at = page.evaluate("window.scrollY")
    fleet.push({"source": "live", "group": "g", "status": -1, "details": "came meanwhile"})
    within(page, "#main", "came meanwhile")
    after = (group.get_attribute("open"), other.get_attribute("open"))
    assert [value is None for value in after] == [value is not None for value in before]
    assert page.get_by_role("textbox", name="Identifier").input_value() == "half a na"
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.evaluate("window.scrollY") >= at
    fleet.app.client.delete("live")
    page.get_by_text("came meanwhile").first.wait_for(state="detached")


def test_pages_lead_to_the_next_and_keep_the_filters(browser, tmp_path):
    """Every identifier is on one of them, once."""
    with RunningApp(tmp_path) as app, window(browser, app.base) as watched:
        items = [{"group": "many", "identifier": f"i{n:04}", "status": 1} for n in range(450)]
        assert app.client.push(*items).ok
        page = watched.open("/?group=many")
        shown = page.locator("details tbody tr").count()
        for _ in range(2):
            page.get_by_role("link", name="Next page").click()
            page.wait_for_url("**group=many&after=**")
            shown += page.locator("details tbody tr").count()
        assert shown == 450
        assert page.get_by_role("link", name="Next page").count() == 0
        page.get_by_role("link", name="First page").click()
        page.wait_for_url("**/?group=many")


# --- whoever looks, and however -------------------------------------------------------------


def test_all_of_it_can_be_had_by_keyboard(seen):
    """The way past the filters, a fold, a link: each is reached, and seen to be."""
    page = seen.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText").startswith("Skip to")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert "carrier-a" in page.evaluate("document.activeElement.innerText")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    folded = page.locator("details:not([open]) summary").first
    folded.focus()
    name = folded.locator(".name").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("details[open]", has_text=name).count() == 1


def test_without_javascript_all_is_there_but_that_it_changes(browser, fleet):
    """It says so; folds, filters and timelines need none."""
    with window(browser, fleet.base, java_script_enabled=False) as watched:
        page = watched.open()
        assert "Stands still" in page.locator("#live").inner_text()
        assert "1 not ready" in page.locator("h1").inner_text()
        page.locator("details:not([open]) summary").first.click()
        page.get_by_role("textbox", name="Identifier").fill("carrier-a")
        page.get_by_role("button", name="Filter").click()
        assert page.locator("details tbody tr").count() == 1
        assert page.locator("svg path.n").count() > 0


@pytest.mark.parametrize("look", LOOKS)
def test_it_can_be_read_by_everybody(browser, fleet, look, figure):
    """No serious fault is found in any of its pages; pictures of them are kept."""
    folder = OUTPUT / "page"
    folder.mkdir(parents=True, exist_ok=True)
    some = {"fleet": "/", "key": "/sources/sbc-1?group=trunks&identifier=carrier-a"}
    more = {"source": "/sources/sip-1", "runbooks": "/runbooks", "nothing": "/sources/nobody"}
    with window(browser, fleet.base, **LOOKS[look]) as watched:
        watched.tolerated = "404"
        for name, path in (some | more if look == "light" else some).items():
            page = watched.open(path)
            if name not in ("runbooks", "nothing"):
                watched.live()
            assert faults(page) == []
            width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert width <= 0, f"{name} is wider than its window"
            page.screenshot(path=folder / f"{name}-{look}.png", full_page=name == "fleet")
    figure(f"pictures of the page: {folder}")


# --- what it does not let in ----------------------------------------------------------------


def test_what_sources_say_is_text_and_nothing_else(seen, fleet):
    """Markup in every place that a source may fill: nothing runs, nothing is fetched."""
    where = {"source": "html", "group": NASTY, "identifier": NASTY}
    reports = [NASTY, f"GW {NASTY}/192.0.2.1 switched to [inactive] due to {NASTY}"]
    fleet.push({**where, "status": -1, "details": NASTY, "reports": reports})
    drouting = {"source": NASTY, "group": "drouting", "identifier": "us;events"}
    fleet.push({**drouting, "reports": reports})
    page = seen.open()
    seen.live()
    fleet.push({**where, "status": -2, "details": f"again {NASTY}"})
    within(page, "#main", "again <img")
    page.locator(".wrong a", has_text="html").first.click()
    within(page, "h1", "<img")
    within(page, "#main", "again <img")
    assert page.locator("main img, main script").count() == 0
    assert page.title() != "1"
    page.goto("about:blank")
    for name in ("html", NASTY):
        fleet.app.client.delete(name.replace("%", "%25").replace("/", "%2F").replace("?", "%3F"))


def test_the_policy_lets_nothing_else_in(browser, fleet):
    """A script, style or picture that gets into the page all the same does not run or load."""
    with window(browser, fleet.base) as watched:
        page = watched.open()
        page.evaluate(
            """() => {
                const add = (tag, more) => document.body.append(
                    Object.assign(document.createElement(tag), more));
                add("script", {textContent: "window.ran = 1"});
                add("img", {src: "data:image/gif;base64,R0lGODlhAQABAAAAACw="});
                add("style", {textContent: "h1 { display: none }"});
                add("iframe", {src: "/metrics"});
                document.querySelector("h1").setAttribute("onclick", "window.ran = 2");
                document.querySelector("h1").click();
            }"""
        )
        assert page.evaluate("window.ran") is None
        assert page.locator("h1").is_visible()
        page.wait_for_function("() => true")
        refused = [one for one in watched.complaints if "Content Security Policy" in one]
        assert len(refused) >= 4, watched.complaints
        watched.tolerated = "Content Security Policy"


# --- the connection -------------------------------------------------------------------------


def test_a_lost_connection_is_said_and_comes_back(browser, tmp_path):
    """The exporter is killed and starts again: meanwhile the page says of when it is."""
    port = free_port()
    storage = f"--storage.path={tmp_path}"
    with Command(storage, port=port) as command:
        command.wait_ready()
        item = {"group": "g", "status": -1, "details": "kept"}
        assert command.client.push(item).ok
        with window(browser, command.base) as watched:
            watched.tolerated = "net::ERR"
            page = watched.open()
            watched.live()
            command.process.kill()
            page.wait_for_selector("#live[data-state=lost]")
            assert "Connection lost at" in text(page, "#live")
            assert "kept" in text(page)
            with Command(storage, port=port) as again:
                again.wait_ready()
                watched.live()
                assert again.client.push({**item, "details": "changed since"}).ok
                within(page, "#main", "changed since", 5.0)


def test_a_proxy_that_lets_no_streams_through_costs_no_more_than_the_page(browser, fleet):
    """It is said that changes come late; the exporter is not asked without end."""
    with window(browser, fleet.base) as watched:
        watched.tolerated = "net::ERR"
        watched.page.route("**/api/v1/changes*", lambda route: route.abort())
        page = watched.open()
        page.wait_for_selector("#live[data-state=slow]")
        assert "looked at every 15 s" in text(page, "#live")
        asked = len(watched.requests)
        page.wait_for_timeout(1500)
        assert len(watched.requests) == asked


def test_below_the_path_of_a_proxy_everything_is_found(browser, tmp_path):
    """Links, files, and the stream begin with the path that people use."""
    with RunningApp(tmp_path, external_url="http://sr.example/sr") as app:
        assert app.client.push({"group": "g", "status": -1}).ok
        with window(browser, app.base) as watched:
            # The proxy: what people ask for below /sr is asked for without it.
            watched.page.route(
                "**/sr/**",
                lambda route: route.continue_(url=route.request.url.replace("/sr/", "/", 1)),
            )
            page = watched.page
            page.goto(f"{app.base}/sr/")
            watched.live()
            page.locator(".wrong a").first.click()
            within(page, "h1", "NOT READY")
            assert "/sr/sources/push?" in page.url
            watched.live()
