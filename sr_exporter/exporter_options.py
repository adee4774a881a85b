"""How an exporter is asked, as commands are told it: who asks, and whom to trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sr_exporter.asking import Exporter, Login, certificate, refuse_unless_usable

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def exporter(
    parser: argparse.ArgumentParser, given: argparse.Namespace, url: str, token: str | None
) -> Exporter:
    """Make who asks, by --user, --password-file, --cert-file, --key-file and --ca-file as well.

    What is wrong with them is an error of the parser's.
    """
    options = _options(parser, given)
    if token is not None and "login" in options:
        parser.error("--token-file and --user are two ways to say who asks: one is enough")
    try:
        return Exporter(url, token=token, **options)
    except ValueError:
        parser.error(f"{given.ca_file} holds no certificate in PEM")


def _options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if (given.user is None) != (given.password_file is None):
        parser.error("--user and --password-file belong together")
    if given.user is not None:
        if not given.user or ":" in given.user or not given.user.isprintable():
            parser.error("--user must be a name without a colon")
        password = _file(parser, given.password_file).strip("\r\n")
        if not password or not password.isprintable():
            parser.error(f"{given.password_file} must hold one line of text")
        options["login"] = Login(given.user, password)
    if given.ca_file is not None:
        options["ca"] = _file(parser, given.ca_file)
    if given.key_file is not None and given.cert_file is None:
        parser.error("--key-file is for a --cert-file")
    ours = certificate(given.cert_file, given.key_file)
    if ours is not None:
        try:
            refuse_unless_usable(ours)
        except ValueError as error:
            parser.error(str(error))
        options["certificate"] = ours
    return options


def _file(parser: argparse.ArgumentParser, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        parser.error(f"{path} cannot be read: {error.strerror}")
    except ValueError:
        parser.error(f"{path} is not UTF-8")
