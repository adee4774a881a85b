"""The whole exporter hears events, in every way they come, and shows whose they are."""

from __future__ import annotations

import socket

import pytest

from sr_exporter.config import Config, Events
from sr_exporter.errors import ListenError
from tests.harness import RunningApp, eventually, series
from tests.hearing import endpoint, event
from tests.recorded_events import posts, reads

FAMILY = "opensips_sr_events_total"


def _bodies(path) -> list[bytes]:
    return [one.partition(b"\r\n\r\n")[2] for one in reads(path)]


@pytest.mark.parametrize("path", posts(), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_what_scripts_posted_is_heard(tmp_path, path):
    """Every recorded body of rest_post; they are counted when they are taken, and only then."""
    bodies = [body for body in _bodies(path) if body]
    assert bodies
    with RunningApp(tmp_path) as app:
        url = f"{app.base}/api/v1/push?source=sip-1"
        assert series(app.client.metrics(), FAMILY) == {}
        for body in bodies:
            assert app.client.session.post(url, data=body, timeout=10).status_code == 200
        wrong = b'{"group": "g", "status": "x", "old_status": 1}'
        assert app.client.session.post(url, data=wrong, timeout=10).status_code == 400
        app.client.push({"group": "g", "status": 1})  # no event: it holds no old_status
        assert series(app.client.metrics(), FAMILY) == {
            (("source", "sip-1"), ("transport", "http")): len(bodies)
        }


def test_events_of_every_way_are_shown_and_a_reload_takes_effect(tmp_path):
    """From the socket to /metrics; sources come and go with the file."""
    path = tmp_path / "events.sock"
    stream, datagram = endpoint(), endpoint()
    file = tmp_path / "sr.yml"
    listening = f"stream: {{listen: '{stream}'}}, datagram: {{listen: '{datagram}', unix: "
    file.write_text(f"events: {{{listening}{{{path}: on-unix}}}}, peers: {{127.0.0.1: local}}}}")
    with (
        RunningApp(tmp_path / "data", config_file=file) as app,
        socket.create_connection(stream) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix,
    ):

        def heard() -> dict[tuple[str, str], float]:
            found = series(app.client.metrics(), FAMILY)
            return {
                (dict(labels)["source"], dict(labels)["transport"]): value
                for labels, value in found.items()
            }

        assert set(heard().values()) == {0}
        tcp.sendall(event(-1, 1) + event(-2, 1, method="on-unix"))
        udp.sendto(event(2, -1), datagram)
        unix.sendto(event(3, -2), str(path))
        wanted = {
            ("local", "tcp"): 1,
            ("on-unix", "tcp"): 1,
            ("local", "udp"): 1,
            ("on-unix", "unix"): 1,
        }
        eventually(lambda: heard() == wanted)
        shown = series(app.client.metrics(), "opensips_sr_status", group="g")
        assert {dict(labels)["source"]: value for labels, value in shown.items()} == {
            "local": 2,
            "on-unix": 3,
        }
        dropped = series(app.client.metrics(), "opensips_sr_events_dropped_total")
        assert dropped == {(("transport", "udp"),): 0}
        with socket.create_server(("127.0.0.1", 0)) as taken:
            busy = taken.getsockname()[1]
            file.write_text(f"events: {{stream: {{listen: '127.0.0.1:{busy}'}}}}")
            answer = app.client.reload()
            assert answer.status_code == 400
            assert answer.json()["faults"] == [
                f"events.stream.listen: cannot listen on 127.0.0.1:{busy}: address already in use"
            ]
        tcp.sendall(event(1, 2))
        eventually(lambda: heard()["local", "tcp"] == 2)
        file.write_text(f"events: {{stream: {{listen: '{stream}'}}, peers: {{127.0.0.1: local}}}}")
        assert app.client.reload().status_code == 200
        assert heard() == {("local", "tcp"): 2, ("local", "udp"): 1}
        assert not path.exists()
        assert not series(app.client.metrics(), "opensips_sr_events_dropped_total")
        tcp.sendall(event(5, 1))
        eventually(lambda: heard()["local", "tcp"] == 3)


def test_an_address_that_is_taken_prevents_the_start(tmp_path):
    """As it does for requests: at once, and by name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = endpoint()._replace(port=taken.getsockname()[1])
        app = RunningApp(tmp_path, Config(events=Events(stream=place)))
        with pytest.raises(ListenError, match=f"cannot listen on {place}: address already in use"):
            app.__enter__()
