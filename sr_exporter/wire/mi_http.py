"""What an OpenSIPS takes for a call over HTTP (`httpd` with `mi_http`), and what it does not.

The methods and types of requests are recorded from 3.6, 4.0 and 4.1-dev, over libmicrohttpd 0.9.75.
"""

from __future__ import annotations

import enum

JSON = "application/json"
HTML = "text/html"
#: What a method other than GET and POST is answered, with 406.
UNSUPPORTED = b"<html><body>Unsupported HTTP request!</body></html>"


class Heard(enum.Enum):
    """What a request is to it, by its method and its Content-Type."""

    CALL = enum.auto()
    #: 405, and no end.
    GET = enum.auto()
    #: 406.
    OTHER_METHOD = enum.auto()
    #: 400, and no end.
    FORM = enum.auto()
    #: The connection is closed without a word.
    OTHER_TYPE = enum.auto()


def heard(method: str, content_type: str) -> Heard:
    """Say what a request is. Its type need only begin as the right one does, in any case."""
    if method != "POST":
        return Heard.GET if method == "GET" else Heard.OTHER_METHOD
    content_type = content_type.lower()
    if content_type.startswith("application/x-www-form-urlencoded"):
        return Heard.FORM
    return Heard.CALL if content_type.startswith(JSON) else Heard.OTHER_TYPE
