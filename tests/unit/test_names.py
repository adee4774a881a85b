"""Names of hosts: DNS that hangs holds up nobody who can be asked without it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from sr_exporter import names as names_module
from sr_exporter.names import LOOKUPS_AT_ONCE, Names, NotResolvedError
from tests.harness import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

STREAM = socket.SOCK_STREAM


class Dns:
    """Answers `getaddrinfo`; a name in `hangs` waits until it is let go."""

    def __init__(self, real: Callable[..., list]) -> None:
        self._real = real
        self.asked: list[str] = []
        self.hangs: set[str] = set()
        self.faults: dict[str, int] = {}
        self.let_go = threading.Event()
        self.address = "192.0.2.1"

    def __call__(self, host: str, port: int, *, type: int, flags: int = 0) -> list:  # noqa: A002
        if flags & socket.AI_NUMERICHOST:
            return self._real(host, port, type=type, flags=flags)
        self.asked.append(host)
        if host in self.hangs:
            assert self.let_go.wait(30)
        if host in self.faults:
            raise socket.gaierror(self.faults[host], "no luck")
        return [(socket.AF_INET, type, 6, "", (self.address, port))]


@pytest.fixture
def dns(monkeypatch) -> Iterator[Dns]:
    made = Dns(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.let_go.set()


def run(act: Callable[[Names], Awaitable[None]], dns: Dns) -> None:
    async def main() -> None:
        names = Names()
        try:
            async with asyncio.timeout(20):
                await act(names)
        finally:
            dns.let_go.set()
            names.close()

    asyncio.run(main())


async def place(names: Names, host: str) -> tuple[str, int]:
    found, *_ = await names.addresses(host, 80, STREAM)
    return found.place[:2]


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "fe80::1%lo"])
def test_a_number_is_looked_up_nowhere(dns, host):
    """Nor does it wait for a thread, be they all hanging."""

    async def act(names: Names) -> None:
        assert await place(names, host) == (host.partition("%")[0], 80)

    run(act, dns)
    assert dns.asked == []


def test_names_that_hang_do_not_hold_up_others(dns):
    """Those that are numbers, nor those whose address was found before."""
    dns.hangs = {f"h{number}" for number in range(300)}

    async def act(names: Names) -> None:
        assert await place(names, "good") == ("192.0.2.1", 80)
        waiting = [asyncio.create_task(place(names, host)) for host in sorted(dns.hangs)]
        await asyncio.to_thread(eventually, lambda: len(dns.asked) > LOOKUPS_AT_ONCE)
        assert await place(names, "192.0.2.7") == ("192.0.2.7", 80)
        assert await place(names, "good") == ("192.0.2.1", 80)
        ours = [one for one in threading.enumerate() if one.name.startswith("names")]
        assert len(ours) <= LOOKUPS_AT_ONCE
        dns.let_go.set()
        assert set(await asyncio.gather(*waiting)) == {("192.0.2.1", 80)}

    run(act, dns)


def test_a_name_is_looked_up_once_at_a_time(dns):
    """Whoever gives up leaves the lookup to the others, and to those who come later."""
    dns.hangs = {"slow"}

    async def act(names: Names) -> None:
        first, second = (asyncio.create_task(place(names, "slow")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        third = asyncio.create_task(place(names, "slow"))
        await asyncio.sleep(0)
        dns.let_go.set()
        assert await second == await third == ("192.0.2.1", 80)
        assert dns.asked == ["slow"]
        await place(names, "slow")
        assert dns.asked == ["slow"] * 2

    run(act, dns)


def test_a_host_that_moves_is_found(dns):
    """What is known is for the time that DNS is silent, and no longer."""

    async def act(names: Names) -> None:
        await place(names, "sip")
        dns.address = "192.0.2.2"
        assert await place(names, "sip") == ("192.0.2.2", 80)

    run(act, dns)


def test_trouble_of_dns_is_not_the_trouble_of_the_host(dns, monkeypatch):
    """A host that was found goes on being asked, until it is said that there is none."""
    monkeypatch.setattr(names_module, "PATIENCE_SECONDS", 0.05)

    async def act(names: Names) -> None:
        await place(names, "sip")
        dns.faults["sip"] = socket.EAI_AGAIN
        assert await place(names, "sip") == ("192.0.2.1", 80)
        dns.hangs = {"sip"}
        assert await place(names, "sip") == ("192.0.2.1", 80)
        dns.let_go.set()
        dns.faults["sip"] = socket.EAI_NONAME
        while True:  # what hung may still be under way
            with contextlib.suppress(NotResolvedError):
                await place(names, "sip")
                continue
            break
        dns.faults["sip"] = socket.EAI_AGAIN
        with pytest.raises(NotResolvedError, match="name not resolved: no luck"):
            await place(names, "sip")

    run(act, dns)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_what_can_be_no_name_is_told(host):
    """Python refuses some before it asks anybody."""

    async def main() -> None:
        names = Names()
        try:
            with pytest.raises(NotResolvedError, match="name not resolved: "):
                await names.addresses(host, 80, STREAM)
        finally:
            names.close()

    asyncio.run(main())
