"""The few files beside a page: its style, its script, and the icons of its tab."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2s
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import Response

from sr_exporter.web.errors import Refused

if TYPE_CHECKING:
    from starlette.requests import Request

_TYPES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "good.svg": "image/svg+xml",
    "bad.svg": "image/svg+xml",
}


class _File(NamedTuple):
    content: bytes
    mark: str


@lru_cache(maxsize=1)
def _files() -> dict[str, _File]:
    folder = resources.files("sr_exporter.web").joinpath("static")
    read = {name: folder.joinpath(name).read_bytes() for name in _TYPES}
    return {
        name: _File(content, blake2s(content, digest_size=8).hexdigest())
        for name, content in read.items()
    }


def address(name: str) -> str:
    """Give the path of a file, which is another as soon as the file is."""
    return f"/static/{name}?v={_files()[name].mark}"


async def static(request: Request) -> Response:
    """`GET /static/{name}`: a file; a browser that has it is told so.

    Raises:
        Refused: 404, there is none of that name.
    """
    name = request.path_params["name"]
    file = _files().get(name)
    if file is None:
        raise Refused(404, f"no such file: {name}")
    # Who asks for a version by its name has it for good; others ask again.
    lasts = request.query_params.get("v") == file.mark
    headers = {
        "ETag": f'"{file.mark}"',
        "Cache-Control": "public, max-age=31536000, immutable" if lasts else "no-cache",
    }
    known = request.headers.get("if-none-match", "")
    if file.mark in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=_TYPES[name], headers=headers)
