"""A real Chromium on the pages of an exporter, which trusts neither of them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from axe_playwright_python.base import AXE_FILE_PATH
from playwright.sync_api import sync_playwright

from tests.real_parts import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
#: How the pages are looked at.
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": DESKTOP},
    "dark": {"color_scheme": "dark", "viewport": DESKTOP},
    "phone": {
        "color_scheme": "light",
        "viewport": PHONE,
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Run Debian's; root cannot have its sandbox."""
    path = program("chromium", "Debian: chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", *arguments]
        )
        yield browser
        browser.close()


class Watched:
    """A window of its own, of which everything is written down that a page must not do."""

    def __init__(self, browser: Browser, base: str, **look: Any) -> None:
        self.base = base
        self.context: BrowserContext = browser.new_context(**look)
        self.context.set_default_timeout(10_000)
        #: What was asked for, and what was said on the console.
        self.requests: list[str] = []
        self.complaints: list[str] = []
        #: What may be said there: of what it cannot reach a browser complains by itself.
        self.tolerated = "nothing"
        self.page: Page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def open(self, path: str = "/") -> Page:
        self.page.goto(f"{self.base}{path}")
        return self.page

    def live(self) -> None:
        self.page.wait_for_selector("#live[data-state=live]")

    def close(self) -> None:
        """End it, and say what it should not have done."""
        self.context.close()
        here = urlsplit(self.base).netloc
        others = [url for url in self.requests if urlsplit(url).netloc != here]
        assert not others, others
        complaints = [one for one in self.complaints if self.tolerated not in one]
        assert not complaints, complaints


@contextlib.contextmanager
def window(browser: Browser, base: str, **look: Any) -> Iterator[Watched]:
    watched = Watched(browser, base, **look)
    try:
        yield watched
    except BaseException:
        watched.context.close()
        raise
    watched.close()


def faults(page: Page) -> list[str]:
    """Give what axe-core finds that keeps people from using a page."""
    # Injected through the debugger: the page's own policy would not have it.
    page.evaluate(Path(AXE_FILE_PATH).read_text("utf-8"))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['impact']} {one['id']}: {node['html']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
