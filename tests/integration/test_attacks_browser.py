"""A foreign page in a real Chromium on this machine, which is loopback to the exporter."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.attacks import attacked
from tests.browser import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.attacks import Attacked

pytestmark = [pytest.mark.real, pytest.mark.once]

EVIL = "evil.example"
#: All by which a page makes a browser send something; each gives what the page learns of it.
TRIES = """async (base) => {
    const body = '{"source": "sbc-1", "group": "Trunks", "status": -7}';
    const learned = {};
    const attempt = async (name, request) => {
        try {
            const answer = await request();
            learned[name] = answer?.status ?? String(answer);
        } catch (error) {
            learned[name] = "stopped";
        }
    };
    const post = {method: "POST", body};
    const json = {headers: {"Content-Type": "application/json"}};
    const call = JSON.stringify({jsonrpc: "2.0", id: 1, method: "sr_set_status",
                                 params: {group: "Trunks", status: -7}});
    const push = `${base}/api/v1/push`;
    await attempt("fetch", () => fetch(push, post));
    await attempt("fetch without CORS", () => fetch(push, {...post, mode: "no-cors"}));
    await attempt("fetch without referrer",
                  () => fetch(push, {...post, mode: "no-cors", referrerPolicy: "no-referrer"}));
    await attempt("fetch, kept alive",
                  () => fetch(push, {...post, mode: "no-cors", keepalive: true}));
    await attempt("fetch with a type", () => fetch(push, {...post, ...json}));
    await attempt("fetch of MI", () => fetch(`${base}/mi`, {...json, method: "POST", body: call}));
    await attempt("delete", () => fetch(`${base}/api/v1/sources/sbc-1`, {method: "DELETE"}));
    await attempt("put", () => fetch(`${base}/-/reload`, {method: "PUT"}));
    await attempt("reload", () => fetch(`${base}/-/reload`, {method: "POST", mode: "no-cors"}));
    await attempt("XMLHttpRequest", () => new Promise((done, failed) => {
        const request = new XMLHttpRequest();
        request.onload = () => done(request);
        request.onerror = failed;
        request.open("POST", push);
        request.send(body);
    }));
    await attempt("beacon", () => navigator.sendBeacon(push, body));
    await attempt("image", () => new Promise((done, failed) => {
        const image = new Image();
        image.onload = done;
        image.onerror = failed;
        image.src = `${base}/-/reload`;
    }));
    await attempt("reading", () => fetch(`${base}/metrics`));
    return learned;
}"""
FORM = """(base) => {
    const form = document.createElement("form");
    form.method = "POST";
    form.enctype = "text/plain";
    form.action = `${base}/api/v1/push`;
    const field = document.createElement("input");
    field.name = '{"source": "sbc-1", "group": "Trunks", "status": -7, "details": "';
    field.value = '"}';
    form.append(field);
    document.body.append(form);
    form.submit();
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give one for which every name of the foreign domain leads to this machine."""
    with chromium(f"--host-resolver-rules=MAP *{EVIL} 127.0.0.1") as running:
        yield running


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("browsed")) as running:
        yield running


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = b"<!doctype html><title>evil</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """Give the port of a server whose pages may do what they want to."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def _refused(target: Attacked) -> float:
    """Give how many pushes were refused as not of this machine."""
    return target.app.client.metrics()["sr_exporter_push_requests_total", (("code", "403"),)]


def test_a_page_of_another_origin_writes_nothing(browser, target, elsewhere, figure):
    """Of the Internet, though its name leads to this machine."""
    before, refused = target.settled(), _refused(target)
    page = browser.new_context().new_page()
    page.goto(f"http://{EVIL}:{elsewhere}/")
    learned = page.evaluate(TRIES, target.app.base)
    page.evaluate(FORM, target.app.base)
    page.wait_for_url(f"{target.app.base}/api/v1/push")
    assert "loopback" in page.inner_text("body")
    page.context.close()
    assert learned["reading"] == "stopped"  # it may not look at what comes
    assert not {200, 202} & set(learned.values()), learned
    assert _refused(target) >= refused + 5  # they were made, and refused by us
    assert target.settled() == before
    figure(f"a foreign page, {len(learned) + 1} ways to write: written 0")


def test_a_page_that_is_bound_anew_writes_nothing(browser, target, figure):
    """Its name leads to the exporter: to the browser both are of one origin (DNS rebinding)."""
    before, refused = target.settled(), _refused(target)
    base = f"http://{EVIL}:{target.app.port}"
    page = browser.new_context(bypass_csp=True).new_page()
    page.goto(f"{base}/metrics")
    learned = page.evaluate(TRIES, base)
    page.evaluate(FORM, base)
    page.wait_for_url(f"{base}/api/v1/push")
    page.context.close()
    assert learned.pop("reading") == 200  # which is open to everybody
    assert learned.pop("beacon") == "true"
    assert learned.pop("image") == "stopped"
    assert set(learned.values()) == {403}, learned
    assert _refused(target) >= refused + len(learned) - 3
    assert target.settled() == before
    figure(f"a page bound anew, {len(learned) + 3} ways to write: 403, written 0")
