"""Asks an exporter whether something is ready, for `sr-exporter check --url`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import msgspec

from sr_exporter.asking import Answer, Exporter, Unanswered, document, exporter_url, token_in
from sr_exporter.errors import NoVerdict
from sr_exporter.exporter_options import exporter
from sr_exporter.readiness import Verdict

if TYPE_CHECKING:
    import argparse


def verdict(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Verdict:
    """Ask `given.url`; a wrong command line is an error of the parser's.

    Raises:
        NoVerdict: it does not answer, or holds no such thing.
    """
    asked = _exporter(parser, given)
    query = {"source": given.source, "group": given.group, "identifier": given.identifier}
    try:
        answer = asked.ask(
            "GET",
            "/api/v1/check",
            query={name: said for name, said in query.items() if said is not None},
            timeout_seconds=given.timeout,
        )
    except Unanswered as error:
        raise NoVerdict(f"no answer from {given.url}: {error}") from None
    finally:
        asked.close()
    return _read(answer, given.url)


def _exporter(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Exporter:
    try:
        url = exporter_url(given.url)
    except ValueError as error:
        parser.error(f"--url {error}")  # not shown: it may hold a password
    try:
        token = None if given.token_file is None else token_in(given.token_file)
    except ValueError as error:
        parser.error(f"--token-file {error}")
    return exporter(parser, given, url, token)


def _read(answer: Answer, url: str) -> Verdict:
    try:
        said = msgspec.json.decode(answer.body, type=Verdict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        _refuse(answer, url)
    contradictory = said.ready and said.stale
    if contradictory or answer.status != (200 if said.ready else 503):
        _refuse(answer, url)
    return said


def _refuse(answer: Answer, url: str) -> NoReturn:
    try:
        said = str(document(answer)["error"])
    except (ValueError, KeyError):
        said = f"HTTP {answer.status}: something else than an exporter answers at {url}"
    raise NoVerdict(said)
