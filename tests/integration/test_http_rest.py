"""How long a client's connection may rest between two requests."""

from __future__ import annotations

import http.client

from sr_exporter.web import server
from tests.harness import RunningApp

#: What prometheus/common gives its connections: "above the maximum sane scrape interval".
PROMETHEUS_SECONDS = 300


def test_a_connection_that_rests_is_closed_later_than_clients_would(tmp_path, monkeypatch):
    """A push that crosses our closing of its connection is lost, and nobody can say whether."""
    assert server.REST_SECONDS > PROMETHEUS_SECONDS
    for seconds, closed in ((server.REST_SECONDS, False), (0.05, True)):
        monkeypatch.setattr(server, "REST_SECONDS", seconds)
        with RunningApp(tmp_path) as app:
            host, _, port = app.base.removeprefix("http://").partition(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request("GET", "/-/healthy")
            connection.getresponse().read()
            connection.sock.settimeout(10 if closed else 0.3)
            try:
                assert (connection.sock.recv(1) == b"") is closed
            except TimeoutError:
                assert not closed
            connection.close()
