"""DNS that hangs, and DNS that is gone: who needs no name, or has one, notices nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from sr_exporter.simulator.httpd import MiHttpd
from sr_exporter.simulator.node import SimulatedNode
from sr_exporter.simulator.releases import OPENSIPS_4_0
from sr_exporter.simulator.servers import MiThread
from tests.harness import RunningApp, eventually, series
from tests.receiver import Receiver

UNKNOWN = 4


class Dns:
    """Resolves names that end in `.test` to 127.0.0.1, as long as it is there."""

    def __init__(self) -> None:
        self._real = socket.getaddrinfo
        self.answers = threading.Event()
        self.gone = False
        self.asked = 0

    def __call__(self, host, port, *more, **named):
        if not str(host).endswith(".test") or named.get("flags", 0) & socket.AI_NUMERICHOST:
            return self._real(host, port, *more, **named)
        self.asked += 1
        self.answers.wait(60)
        if self.gone:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._real("127.0.0.1", port, *more, **named)


@pytest.fixture
def dns(monkeypatch):
    made = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.answers.set()


def test_names_that_hang_and_are_gone_hold_up_nobody_else(tmp_path, dns, figure):
    """Sources, webhooks, pushes, scrapes and the stop; a host that was found stays found."""
    node = SimulatedNode(OPENSIPS_4_0)
    node.start(time.time())
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(MiThread(MiHttpd(node))).url for _ in range(UNKNOWN + 1)]
        hooks = [stack.enter_context(Receiver()) for _ in range(2)]
        config = tmp_path / "sr.yml"
        sources = [
            f"- {{name: named-{n}, mi: '{url.replace('127.0.0.1', f'sip-{n}.test')}'}}"
            for n, url in enumerate(urls[1:])
        ]
        config.write_text(
            "defaults: {poll_interval: 200ms, max_share: 1, timeout: 500ms}\n"
            "sources:\n" + "\n".join(sources) + f"\n- {{name: numbered, mi: '{urls[0]}'}}\n"
            "notifiers:\n"
            f"- {{name: named, webhook: {{url: 'http://hook.test:{hooks[0].port}/',"
            " timeout: 1s}}\n"
            f"- {{name: numbered, webhook: {{url: '{hooks[1].url}'}}}}\n"
        )
        app = RunningApp(tmp_path / "data", config_file=config)
        with app:
            eventually(lambda: up(app)["numbered"])
            pushed = app.client.push({"group": "g", "status": -1})
            assert pushed.status_code == 200
            (told,) = hooks[1].wait_for(1)
            assert (told.status, hooks[0].received) == ("firing", [])
            eventually(lambda: dns.asked > UNKNOWN)
            hanging = up(app)
            dns.answers.set()
            assert app.client.reload().ok
            eventually(lambda: all(up(app).values()), within=20)
            eventually(lambda: [one for one in hooks[0].received if one.status == "firing"])
            dns.gone = True
            asked = dns.asked
            eventually(lambda: dns.asked > asked + UNKNOWN, within=20)
            gone = up(app)
            dns.answers.clear()
            asked = dns.asked
            eventually(lambda: dns.asked > asked)
            began = time.monotonic()
        stopped = time.monotonic() - began
    figure(f"DNS hangs: up {hanging}; gone: up {gone}; stopped in {stopped:.1f} s while it hung")
    assert hanging == {**{f"named-{n}": 0.0 for n in range(UNKNOWN)}, "numbered": 1.0}
    assert set(gone.values()) == {1.0}
    assert stopped < 10


def up(app: RunningApp) -> dict[str, float]:
    found = series(app.client.metrics(), "opensips_sr_source_up")
    return {dict(labels)["source"]: value for labels, value in found.items()}
