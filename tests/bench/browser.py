"""Has a real Chromium read an answer, and say what it read."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from typing import TYPE_CHECKING

from tests.bench.processes import LONG_SECONDS
from tests.harness import process

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "chromium"

#: The answer is longer than the longest string of a browser: it is read as it comes.
_PAGE = """<!doctype html><script>
(async () => {
  const decoder = new TextDecoder();
  const reader = (await fetch(%s)).body.getReader();
  let rest = "", lines = 0, characters = 0;
  for (;;) {
    const {done, value} = await reader.read();
    const pieces = (rest + decoder.decode(value, {stream: !done})).split("\\n");
    rest = pieces.pop();
    for (const line of pieces) {
      if (line.includes('source="sip-')) {
        lines += 1;
        characters += line.length;
      }
    }
    if (done) break;
  }
  await fetch("/read", {method: "POST", body: JSON.stringify([lines, characters])});
})();
</script>"""


def read(url: str, folder: Path) -> tuple[int, int]:
    """Give how many lines of keys it read, and of how many characters they are."""
    said: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = (_PAGE % json.dumps(url)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def do_POST(self) -> None:
            lines, characters = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()
            said.put((lines, characters))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            with process(
                PROGRAM,
                "--headless",
                "--no-sandbox",  # which root cannot have
                "--disable-gpu",
                "--disable-web-security",  # the page is of another origin
                f"--user-data-dir={folder / 'chromium'}",
                f"http://127.0.0.1:{server.server_port}/",
                log=folder / "chromium.log",
            ):
                return said.get(timeout=LONG_SECONDS)
        finally:
            server.shutdown()
            serving.join()
