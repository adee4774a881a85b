"""How a Management Interface is reached, as commands are told it: credentials and trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sr_exporter.config.tls import certificates
from sr_exporter.config.urls import scheme_of

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def transport_options(
    parser: argparse.ArgumentParser, given: argparse.Namespace, address: str
) -> dict[str, Any]:
    """Give what `Transports.to` wants of --timeout, --user, --password-file and --ca-file.

    What is wrong with them is an error of the parser's.
    """
    scheme = scheme_of(address)
    options: dict[str, Any] = {"timeout_seconds": given.timeout}
    if (given.user is None) != (given.password_file is None):
        parser.error("--user and --password-file belong together")
    if given.user is not None:
        if scheme not in ("http", "https"):
            parser.error("--user is for http:// and https:// only")
        if not given.user or ":" in given.user or not given.user.isprintable():
            parser.error("--user must be a name without a colon")
        password = _file(parser, given.password_file).strip()
        if not password or not password.isprintable():
            parser.error(f"{given.password_file} must hold one line of text")
        options["basic_auth"] = (given.user, password)
    if given.ca_file is not None:
        if scheme != "https":
            parser.error("--ca-file is for https:// only")
        options["ca"] = certificates(_file(parser, given.ca_file))
        if not options["ca"]:
            parser.error(f"{given.ca_file} holds no certificate in PEM")
    return options


def _file(parser: argparse.ArgumentParser, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        parser.error(f"{path} cannot be read: {error.strerror}")
    except ValueError:
        parser.error(f"{path} is not UTF-8")
