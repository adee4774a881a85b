"""MI over HTTP: OpenSIPS' httpd and mi_http.

An answer other than 200 has a body that may never end, so it is judged by its status line,
and its connection closed (facts, section 8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.errors import MiError
from sr_exporter.model import PollFailure
from sr_exporter.outbound import Failure, Outbound, OutboundError, Post

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

#: More than any listing that was ever seen: 100,000 registrants' reports are 30 MB.
LIMIT_BYTES = 64 * 2**20

_REASONS = {
    Failure.CONNECT: PollFailure.CONNECT,
    Failure.TIMEOUT: PollFailure.TIMEOUT,
    Failure.TOO_BIG: PollFailure.TOO_BIG,
    Failure.BROKEN: PollFailure.MALFORMED,
}


class HttpTransport:
    """Implements `Transport` for `http://` and `https://` addresses.

    A request that is cancelled keeps a thread until its connection is made, or has failed.
    """

    name = "http"

    def __init__(
        self,
        url: str,
        pool: ThreadPoolExecutor,
        *,
        timeout_seconds: float,
        basic_auth: tuple[str, str] | None = None,
    ) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._basic_auth = basic_auth
        self._outbound = Outbound(pool)

    async def ask(self, request: bytes) -> bytes:
        post = Post(
            url=self._url,
            body=request,
            timeout_seconds=self._timeout_seconds,
            limit_bytes=LIMIT_BYTES,
            headers={},
            basic_auth=self._basic_auth,
        )
        try:
            answer = await self._outbound.post(post, wants_body=lambda status: status == 200)
        except OutboundError as error:
            raise MiError(_REASONS[error.failure], str(error)) from None
        if answer.status == 401:
            raise MiError(PollFailure.AUTH, "HTTP 401: basic_auth is missing or wrong")
        if answer.status != 200:
            raise MiError(PollFailure.HTTP_STATUS, _status_message(answer.status))
        return answer.body

    def rest(self) -> None:
        self._outbound.hang_up()

    @property
    def busy(self) -> bool:
        return self._outbound.busy

    async def gone(self) -> None:
        await self._outbound.gone()


def _status_message(status: int) -> str:
    if status == 500:
        return "HTTP 500: the answer may be too big for OpenSIPS' httpd buf_size"
    return f"HTTP {status}"
