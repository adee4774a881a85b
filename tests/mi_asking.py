"""Ask a simulated server once, over whichever transport its address names."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sr_exporter.mi.transports import Transports
from sr_exporter.wire import jsonrpc


def ask(url: str, method: str, *params: str) -> Any:
    """Give the result. Raises RpcError and MiError as our client does."""

    async def answer() -> bytes:
        transports = Transports()
        transport = transports.to(url, timeout_seconds=10.0)
        try:
            return await transport.ask(jsonrpc.request(method, list(params)))
        finally:
            transport.rest()
            transports.close()

    return json.loads(jsonrpc.result(asyncio.run(answer())))
