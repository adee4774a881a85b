"""What a turn of the loop writes goes out together, in order, and nothing of it is lost."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from sr_exporter.web.writes import LONG_BYTES, JoiningTransport


class Below(asyncio.Transport):
    """The transport below: notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        assert not self.closing, "written after the end"
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...


def test_head_and_body_are_one_write():
    async def act() -> None:
        below = Below()
        joining = JoiningTransport(below, asyncio.get_running_loop())
        joining.write(b"head")
        joining.write(b"body")
        assert below.written == []
        await asyncio.sleep(0)
        assert below.written == [b"headbody"]

    asyncio.run(act())


def test_what_was_written_goes_out_before_the_end():
    async def act() -> None:
        below = Below()
        joining = JoiningTransport(below, asyncio.get_running_loop())
        joining.write(b"refused")
        joining.close()
        assert (below.written, below.closing) == ([b"refused"], True)
        await asyncio.sleep(0)

    asyncio.run(act())


def test_nothing_is_written_to_who_went_away():
    async def act() -> None:
        below = Below()
        joining = JoiningTransport(below, asyncio.get_running_loop())
        joining.write(b"late")
        below.closing = True
        await asyncio.sleep(0)
        joining.write(b"later")
        joining.abort()
        await asyncio.sleep(0)
        assert (below.written, below.aborted) == ([], True)

    asyncio.run(act())


@given(st.lists(st.one_of(st.none(), st.sampled_from([0, 1, 7, LONG_BYTES - 1, LONG_BYTES]))))
def test_order_is_kept(script: list[int | None]) -> None:
    """Short and long, within a turn (None: it ends) and over several."""

    async def act() -> None:
        below = Below()
        joining = JoiningTransport(below, asyncio.get_running_loop())
        said = b""
        for number, size in enumerate(script):
            if size is None:
                await asyncio.sleep(0)
            else:
                piece = bytes([number % 256]) * size
                said += piece
                joining.write(piece)
        await asyncio.sleep(0)
        assert b"".join(below.written) == said

    asyncio.run(act())
