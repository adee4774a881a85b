"""A stream of JSON objects, back to back and cut anywhere, to the bytes of each object.

event_stream writes one object after the other on a connection, with nothing between them, and a
read ends wherever the network cut it (facts on OpenSIPS, section 2). Where an object ends is told
by its braces, those in strings apart; what it says is read elsewhere.
"""

from __future__ import annotations

import re

from sr_exporter.wire.text import Undecodable

#: What changes how the next byte is read, outside of a string and inside of one.
_STRUCTURE = re.compile(rb'["{}\[\]]')
_IN_STRING = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"
#: A whole object that holds objects of its own, and those none: as events are. Possessive, so that
#: it costs no more than the bytes it passes over, whether it fits or not.
_FLAT = rb'[^{}\[\]"]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^{}\[\]"]*+)*+'
_USUAL = re.compile(rb"\{%b(?:\{%b\}%b)*+\}" % (_FLAT, _FLAT, _FLAT), re.DOTALL)


class Broken(Undecodable):
    """The stream cannot be followed any more."""

    def __init__(self, reason: str, whole: list[bytes], *, too_big: bool = False) -> None:
        super().__init__(reason)
        #: The objects of the same read that came before.
        self.whole = whole
        #: An object is longer than the limit; else what follows is no object.
        self.too_big = too_big


class Objects:
    """Cuts one stream. After an error the stream cannot be followed any more."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._taken = bytearray()
        #: How much of what was taken is read; how deep it is; whether a string is open.
        self._read = 0
        self._depth = 0
        self._in_string = False

    @property
    def unfinished_bytes(self) -> int:
        """How much of an object is there that has not come to its end."""
        return len(self._taken)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read; give the objects that are whole now.

        Raises:
            Broken: what follows is no object, or one is longer than the limit, finished or not.
        """
        self._taken += data
        whole: list[bytes] = []
        try:
            while (end := self._next_end()) is not None and end <= self._limit_bytes:
                whole.append(bytes(self._taken[:end]))
                del self._taken[:end]
                self._read = 0
        except Undecodable as error:
            raise Broken(str(error), whole) from None
        if len(self._taken) > self._limit_bytes:
            reason = f"an object is longer than {self._limit_bytes} bytes"
            raise Broken(reason, whole, too_big=True)
        return whole

    def _next_end(self) -> int | None:
        """Give where the object that is at the front ends; None: not yet."""
        if self._depth == 0:
            if not self._begin():
                return None
            if usual := _USUAL.match(self._taken):
                return usual.end()
        while True:
            pattern = _IN_STRING if self._in_string else _STRUCTURE
            found = pattern.search(self._taken, self._read)
            if found is None:
                self._read = len(self._taken)
                return None
            at, byte = found.start(), found[0]
            if byte == b"\\":
                if at + 1 == len(self._taken):
                    self._read = at  # what it escapes has not come yet
                    return None
                self._read = at + 2
                continue
            self._read = at + 1
            if byte == b'"':
                self._in_string = not self._in_string
                continue
            self._depth += 1 if byte in b"{[" else -1
            if self._depth == 0:
                return self._read

    def _begin(self) -> bool:
        """Pass over space between objects; say whether one begins."""
        begun = len(self._taken) - len(self._taken.lstrip(_SPACE))
        del self._taken[:begun]
        if not self._taken:
            return False
        if not self._taken.startswith(b"{"):
            raise Undecodable("an object is expected")
        return True
