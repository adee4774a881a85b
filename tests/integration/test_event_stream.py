"""Events over TCP, on real sockets: what real servers wrote, and what nobody should have."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import socket
from itertools import pairwise

import pytest
import uvloop

from sr_exporter import limited
from sr_exporter.config import Events
from sr_exporter.sources import intake, stream
from sr_exporter.store.sqlite import SqliteStore
from sr_exporter.wire.text import loads, name, text
from tests.hearing import Ears, ears, endpoint, event, objects, until
from tests.recorded_events import logs, reads

#: The exporter's own loop, and Python's, which differ in their transports.
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
MALFORMED, STRANGER, TOO_BIG = "malformed", "unknown_peer", "too_big"


def on(loop, act):
    """Run a test's coroutine on one of the loops."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(act)


@pytest.fixture(params=LOOPS)
def run(request):
    """Run a test's coroutine, on each loop."""
    return lambda act: on(request.param, act)


def listening(**peers: str) -> Events:
    return Events(stream=endpoint(), peers=tuple(peers.items()))


#: Who connects from this machine is sip-1, where no name is given.
LOCAL = {"127.0.0.1": "sip-1"}


@contextlib.asynccontextmanager
async def connected(events: Events):
    reader, writer = await asyncio.open_connection(*events.stream)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def recorded(path) -> tuple[bytes, list[dict]]:
    whole = b"".join(reads(path))
    said, decoder = [], json.JSONDecoder()
    rest = whole.decode("utf-8", "surrogateescape")
    while rest:
        one, end = decoder.raw_decode(rest)
        said.append(one)
        rest = rest[end:]
    return whole, said


def finally_said(said: list[dict]) -> dict[tuple[str, str], tuple[int, str | None]]:
    """Give the last word on each key of what was said."""
    return {
        (name(one["params"]["group"]), name(one["params"]["identifier"])): (
            one["params"]["status"],
            text(one["params"]["details"]) if "details" in one["params"] else None,
        )
        for one in said
    }


def altered(said: list[dict]) -> list[tuple[str, str, int]]:
    """Give what each of these alters, in their order."""
    held: dict[tuple[str, str], tuple[int, str | None]] = {}
    changes = []
    for one in said:
        ((key, now),) = finally_said([one]).items()
        if held.get(key) != now:
            changes.append((*key, now[0]))
        held[key] = now
    return changes


@pytest.mark.parametrize("path", logs("tcp"), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_what_real_servers_wrote_is_held_however_it_is_cut(run, path):
    """As it was read, byte by byte in its beginning, and cut at random: always the last word,
    every change in its order, and in `reliable_mode` an answer with each id.
    """
    whole, said = recorded(path)
    asked = [one["id"] for one in said if "id" in one]
    assert bool(asked) == ("events-reliable" in path.parts)
    cuts = {
        "as read": [len(b"".join(reads(path)[:n])) for n in range(len(reads(path)))],
        "bytes": range(min(1000, len(whole))),
        "random": sorted(random.Random(7).choices(range(len(whole)), k=60)),
    }

    async def act() -> None:
        for places in cuts.values():
            events = listening(**LOCAL)
            async with ears(events) as heard, connected(events) as (reader, writer):
                writer.get_extra_info("socket").setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
                )
                for begin, end in pairwise([0, *places, len(whole)]):
                    writer.write(whole[begin:end])
                    await asyncio.sleep(0)
                await until(lambda heard=heard: heard.accepted("sip-1", "tcp") == len(said))
                assert heard.statuses("sip-1") == finally_said(said)
                assert altered(said) == [
                    (one.group, one.identifier, one.status) for one in heard.changes
                ]
                if asked:
                    answers = await objects(reader, len(asked))
                    assert [one["id"] for one in answers] == asked
                    assert all(one["result"] == "OK" for one in answers)
                assert not any(heard.samples("events_rejected").values())

    run(act())


def test_an_answer_comes_when_what_it_is_for_is_kept_and_not_before(run):
    """Also where an earlier one is refused: answers are in the order of the requests."""

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events) as heard, connected(events) as (reader, writer):
            heard.store.held = True
            writer.write(event(-1, 1, request_id=5) + event(2, -1, request_id=5_000_000))
            await until(lambda: heard.accepted("sip-1", "tcp") == 2)
            writer.write(event(3, 2, method="nobody", request_id=6) + event(4, 3))
            await until(lambda: heard.accepted("sip-1", "tcp") == 3)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.05)
            heard.store.release()
            answers = await objects(reader, 3)
            assert [one["id"] for one in answers] == [5, 5_000_000, 6]
            assert ["result" in one for one in answers] == [True, True, False]
            assert answers[2]["error"]["message"].startswith("no source is called 'nobody'")

    run(act())


def test_what_could_not_be_kept_is_answered_with_an_error_and_held(run):
    """What was heard stays true."""

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events) as heard, connected(events) as (reader, writer):
            heard.store.broken = "the disk is full"
            writer.write(event(-1, 1, request_id=7))
            (answer,) = await objects(reader, 1)
            assert answer == {
                "jsonrpc": "2.0",
                "error": {"code": -32000, "message": "the disk is full"},
                "id": 7,
            }
            assert heard.statuses("sip-1") == {("g", "i"): (-1, None)}
            heard.store.broken = None
            writer.write(event(1, -1, request_id=8))
            assert await objects(reader, 1) == [{"jsonrpc": "2.0", "result": "OK", "id": 8}]

    run(act())


def test_answers_go_out_one_by_one(run, monkeypatch):
    """Two in one read, twice, is what event_stream of OpenSIPS does not survive: so it is within
    a batch, and from one batch to the next.
    """
    pause = 0.02
    monkeypatch.setattr(stream, "ANSWER_SECONDS", pause)

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events) as heard, connected(events) as (reader, writer):
            loop = asyncio.get_running_loop()
            began = loop.time()
            ids = list(range(1, 21))

            async def read() -> list[bytes]:
                return [await asyncio.wait_for(reader.read(65536), 10) for _ in ids]

            reading = asyncio.ensure_future(read())
            writer.write(b"".join(event(n, -n, request_id=n) for n in ids[:10]))
            for n in ids[10:]:
                await until(lambda n=n: heard.accepted("sip-1", "tcp") == n - 1)
                writer.write(event(n, -n, request_id=n))
            assert [json.loads(one)["id"] for one in await reading] == ids
            assert loop.time() - began > 0.9 * pause * (len(ids) - 1)

    run(act())


def test_who_a_sender_is(run):
    """The name that was given when subscribing, else its address; a name that is nobody's is a
    stranger's, though its address is known.
    """

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events, "sip-2") as heard, connected(events) as (_, writer):
            writer.write(event(2, 1) + event(3, 1, method="sip-2") + event(4, 1, method="sip-3"))
            await until(lambda: heard.rejected("tcp", STRANGER) == 1)
            assert heard.statuses("sip-1") == {("g", "i"): (2, None)}
            assert heard.statuses("sip-2") == {("g", "i"): (3, None)}
            assert set(heard.state.sources) == {"sip-1", "sip-2"}
            # Names and peers change without the connection being disturbed.
            await heard.configure(Events(stream=events.stream), "sip-3")
            writer.write(event(5, 1) + event(6, 1, method="sip-3"))
            await until(lambda: heard.accepted("sip-3", "tcp") == 1)
            assert heard.statuses("sip-3") == {("g", "i"): (6, None)}
            assert heard.rejected("tcp", STRANGER) == 2
            assert set(heard.samples("events")) == {("sip-3", "tcp")}

    run(act())


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", MALFORMED),
        (b"}", MALFORMED),
        (b'{"jsonrpc":"' + b"x" * 70_000, TOO_BIG),
        (event(9, 1, identifier="x" * 70_000), TOO_BIG),
    ],
    ids=["http", "brace", "unfinished", "whole"],
)
def test_a_broken_stream_is_counted_and_closed(run, garbage, reason):
    """What came before it in the same read counts, and is answered; nothing after it does."""

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events) as heard, connected(events) as (reader, writer):
            writer.write(event(-1, 1, request_id=1) + garbage + event(1, -1))
            assert (await objects(reader, 1))[0]["id"] == 1
            with contextlib.suppress(ConnectionError):  # what it had not read yet resets it
                assert await asyncio.wait_for(reader.read(), 10) == b""
            assert heard.statuses("sip-1") == {("g", "i"): (-1, None)}
            assert heard.rejected("tcp", reason) == 1
            assert sum(heard.samples("events_rejected").values()) == 1

    run(act())


def test_a_malformed_event_in_a_good_stream_costs_itself_only(run):
    """It is counted, and answered with an error where it asks for an answer."""
    wrong = [
        event(1, 1).replace(b'"status":1', b'"status":"1"', 1),
        event(1, 1, request_id=3).replace(b'"group"', b'"grp"'),
        b"{}",
        b"{nonsense}",
        b'{"jsonrpc":"2.0","method":"E_PIKE_BLOCKED","params":{"ip":"192.0.2.1"}}',
    ]

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events) as heard, connected(events) as (reader, writer):
            writer.write(event(-1, 1) + b"".join(wrong) + event(1, -1, request_id=4))
            answers = await objects(reader, 2)
            assert [one["id"] for one in answers] == [3, 4]
            assert answers[0]["error"]["code"] == -32602
            assert heard.rejected("tcp", MALFORMED) == len(wrong)
            assert heard.accepted("sip-1", "tcp") == 2

    run(act())


def test_a_stream_that_ends_within_an_object_is_told(run):
    """What came whole is taken; half an event is none."""

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events) as heard, connected(events) as (reader, writer):
            writer.write(event(-1, 1, request_id=1) + event(1, -1)[:40])
            writer.write_eof()
            assert (await objects(reader, 1))[0]["id"] == 1
            assert await asyncio.wait_for(reader.read(), 10) == b""
            assert heard.rejected("tcp", MALFORMED) == 1

    run(act())


def test_a_peer_is_not_read_while_a_few_of_its_batches_wait_to_be_kept(run):
    """It is another connection's turn; and all of it is there in the end."""
    count = 5000
    burst = [event(n, n - 1) for n in range(2, count + 2)]

    async def act() -> None:
        events = listening(**LOCAL)
        async with (
            ears(events, "sip-2") as heard,
            connected(events) as (_, writer),
            connected(events) as (_, other),
        ):
            heard.store.held = True
            writer.write(b"".join(burst))
            await until(lambda: len(heard.store.batches) >= stream.MOST_BATCHES)
            other.write(event(-1, 1, method="sip-2"))
            await until(lambda: heard.statuses("sip-2"))
            waiting = heard.accepted("sip-1", "tcp")
            assert 0 < waiting < count
            assert len(heard.store.batches) <= stream.MOST_BATCHES + 2
            heard.store.held = False
            heard.store.release()
            await until(lambda: heard.accepted("sip-1", "tcp") == count)
            told = [one.status for one in heard.changes if one.source == "sip-1"]
            assert told == list(range(2, count + 2))

    run(act())


def test_a_peer_that_does_not_read_its_answers_is_not_read_either(run, monkeypatch):
    """What is owed to it stays bounded, and comes when it does read."""
    monkeypatch.setattr(stream, "MOST_ANSWER_BYTES", 5000)
    monkeypatch.setattr(stream, "ANSWER_SECONDS", 0.0)
    count = 8_000

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events) as heard, contextlib.AsyncExitStack() as stack:
            own = socket.socket()
            # Little room for answers, so that it is soon full.
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            own.connect(tuple(events.stream))
            own.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=own, limit=1024)
            stack.callback(writer.close)
            writer.write(b"".join(event(n, n - 1, request_id=n) for n in range(2, count + 2)))
            await until(lambda: heard.accepted("sip-1", "tcp"))
            seen = -1
            while heard.accepted("sip-1", "tcp") > seen:  # until it comes to a halt
                seen = heard.accepted("sip-1", "tcp")
                await asyncio.sleep(0.25)
            assert 0 < seen < count
            answers = await objects(reader, count)
            assert [one["id"] for one in answers] == list(range(2, count + 2))
            assert heard.accepted("sip-1", "tcp") == count

    run(act())


def test_many_connections_and_no_task_for_any(run):
    """Idle ones are kept; each brings its events whenever it likes."""
    many = 300

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events) as heard, contextlib.AsyncExitStack() as stack:
            before = len(asyncio.all_tasks())
            writers = [(await stack.enter_async_context(connected(events)))[1] for _ in range(many)]
            for round_ in (2, 3):
                for index, writer in enumerate(writers):
                    writer.write(event(round_, 1, identifier=f"i{index}"))
                await until(
                    lambda round_=round_: heard.accepted("sip-1", "tcp") == (round_ - 1) * many
                )
            assert len(asyncio.all_tasks()) <= before + 1
            assert set(heard.statuses("sip-1").values()) == {(3, None)}
            assert len(heard.statuses("sip-1")) == many

    run(act())


def test_where_there_are_too_many_who_never_brought_anything_makes_room(run, monkeypatch):
    """The oldest of them; where all have, a new one is refused. Both are logged, once."""
    monkeypatch.setattr(stream, "MOST_CONNECTIONS", 3)
    logged = []
    monkeypatch.setattr(limited.log, "warning", lambda what, **_: logged.append(what))

    async def act() -> None:
        events = listening(**LOCAL)
        async with ears(events) as heard, contextlib.AsyncExitStack() as stack:

            async def join() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                return await stack.enter_async_context(connected(events))

            async def ended(reader: asyncio.StreamReader) -> bool:
                try:
                    return await asyncio.wait_for(reader.read(1), 10) == b""
                except ConnectionError:
                    return True

            async def brings(writer: asyncio.StreamWriter) -> None:
                before = heard.accepted("sip-1", "tcp")
                writer.write(event(2, 1))
                await until(lambda: heard.accepted("sip-1", "tcp") == before + 1)

            good = await join()
            await brings(good[1])
            idle, other = await join(), await join()
            fourth = await join()
            assert await ended(idle[0])
            fifth = await join()
            assert await ended(other[0])
            for _, writer in (good, fourth, fifth):
                await brings(writer)
            sixth = await join()
            assert await ended(sixth[0])
            await brings(good[1])
            assert logged == [
                "connection closed to make room: it brought no event",
                "connection refused: there are too many",
            ]

    run(act())


@pytest.mark.parametrize(
    ("files", "most"), [(1024, 256), (1_000_000, 10_000), (resource.RLIM_INFINITY, 10_000), (2, 1)]
)
def test_connections_leave_descriptors_for_the_rest(monkeypatch, files, most):
    """A quarter of what we may open, and ten thousand at most."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert stream.most_connections() == most


def test_a_stranger_does_not_write_our_log(run, monkeypatch):
    """One line for a thousand refusals; it names the address, and what was said."""
    logged = []
    monkeypatch.setattr(intake.log, "warning", lambda what, **more: logged.append((what, more)))

    async def act() -> None:
        events = Events(stream=endpoint())
        async with ears(events) as heard, connected(events) as (_, writer):
            writer.write(event(2, 1, method="intruder") * 1000)
            await until(lambda: heard.rejected("tcp", STRANGER) == 1000)
            ((what, more),) = logged
            assert what == "event refused"
            assert more["sender"].startswith("127.0.0.1 port ")
            assert (more["transport"], more["reason"], more["said"]) == (
                "tcp",
                STRANGER,
                "no source is called 'intruder'",
            )
            writer.write(event(2, 1, method="another") * 10)
            await until(lambda: heard.rejected("tcp", STRANGER) == 1010)
            assert [more["said"] for _, more in logged[1:]] == ["no source is called 'another'"]
            assert heard.state.sources.get("intruder") is None

    run(act())


def test_at_a_stop_what_was_taken_is_kept_and_answered(run):
    """Then the connection ends; who does not listen does not hold it up for long."""

    async def act() -> None:
        events = listening(**LOCAL)
        heard = Ears()
        await heard.configure(events)
        reader, writer = await asyncio.open_connection(*events.stream)
        heard.store.held = True
        writer.write(event(-1, 1, request_id=1) + event(1, -1, request_id=2))
        await until(lambda: heard.accepted("sip-1", "tcp") == 2)
        stopping = asyncio.ensure_future(heard.listeners.stop())
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*events.stream)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not stopping.done()
        heard.store.release()
        assert [one["id"] for one in await objects(reader, 2)] == [1, 2]
        await asyncio.wait_for(stopping, 10)
        assert await reader.read() == b""
        writer.close()

    run(act())


def test_a_stop_takes_no_longer_than_it_may(run, monkeypatch):
    """Though the disk hangs: who waits for an answer is let go without one."""
    monkeypatch.setattr(stream, "STOP_SECONDS", 0.05)

    async def act() -> None:
        events = listening(**LOCAL)
        heard = Ears()
        await heard.configure(events)
        reader, writer = await asyncio.open_connection(*events.stream)
        heard.store.held = True
        writer.write(event(-1, 1, request_id=1))
        await until(lambda: heard.accepted("sip-1", "tcp") == 1)
        await asyncio.wait_for(heard.listeners.stop(), 10)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

    run(act())


def test_a_hundred_thousand_events_over_one_connection(tmp_path, figure):
    """None is lost, and their order is theirs: so says the journal, on disk."""
    count, keys = 100_000, 50
    burst = b"".join(
        event(n // keys + 2, n // keys + 1, identifier=f"i{n % keys}") for n in range(count)
    )
    wanted = [(f"i{n % keys}", n // keys + 2) for n in range(count)]

    async def act() -> None:
        events = listening(**LOCAL)
        store = SqliteStore(tmp_path)
        store.load()
        async with ears(events, store=store) as heard, connected(events) as (_, writer):
            loop = asyncio.get_running_loop()
            began = loop.time()
            for begin in range(0, len(burst), 2**18):
                writer.write(burst[begin : begin + 2**18])
                await writer.drain()
            await until(lambda: heard.accepted("sip-1", "tcp") == count)
            await heard.ingest.kept(30)
            took = loop.time() - began
            journal = []
            while more := await store.changes(journal[-1].seq if journal else 0, 10_000):
                journal += more
            order = [(one.identifier, one.status) for one in journal]
            assert set(heard.statuses("sip-1").values()) == {(count // keys + 1, None)}
            assert heard.state.sources["sip-1"].changes_missed_total == 0
        await asyncio.to_thread(store.close)
        figure(
            f"events: {count} over one TCP connection, kept on disk: {count - len(order)} lost,"
            f" order {'kept' if order == wanted else 'BROKEN'}, {count / took:,.0f} a second"
        )
        assert order == wanted

    on("uvloop", act())


def test_recorded_logs_are_what_they_are_taken_for():
    """The oracle above reads them with another decoder than the exporter's."""
    for path in logs("tcp"):
        whole, said = recorded(path)
        assert sum(len(one) for one in reads(path)) == len(whole)
        assert all(loads(json.dumps(one).encode()) for one in said)
