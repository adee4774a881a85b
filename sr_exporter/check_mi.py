"""Asks an OpenSIPS itself whether something is ready, for `sr-exporter check --mi`.

One request, as harmless as a poll's (design, rule 1); `sr_get_status` answers for the same names
as readiness.py does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sr_exporter.config.urls import mi_fault
from sr_exporter.errors import MiError, NoVerdict
from sr_exporter.mi.client import MiClient
from sr_exporter.mi.transports import Transports
from sr_exporter.mi_options import transport_options
from sr_exporter.model import MAIN
from sr_exporter.readiness import CORE, Verdict

if TYPE_CHECKING:
    import argparse


def verdict(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Verdict:
    """Ask `given.mi`; a wrong command line is an error of the parser's.

    Raises:
        NoVerdict: it does not answer, or has no such thing.
    """
    if given.source is not None or given.token_file is not None:
        parser.error("--source and --token-file are for --url")
    if given.cert_file is not None or given.key_file is not None:
        parser.error("--cert-file and --key-file are for --url")
    if fault := mi_fault(given.mi):
        parser.error(f"--mi ADDRESS {fault}")  # not shown: it may hold a password
    options = transport_options(parser, given, given.mi)
    group, identifier = given.group or CORE, given.identifier or MAIN
    try:
        return asyncio.run(_ask(given.mi, options, group, identifier))
    except MiError as error:
        raise NoVerdict(str(error)) from None
    except TimeoutError:
        raise NoVerdict(f"no answer within {given.timeout:g} s") from None


async def _ask(address: str, options: dict[str, Any], group: str, identifier: str) -> Verdict:
    transports = Transports()
    try:
        transport = transports.to(address, **options)
        try:
            async with asyncio.timeout(options["timeout_seconds"]):
                said = await MiClient(transport).status(group, identifier)
        finally:
            transport.rest()
    finally:
        transports.close()
    return Verdict(said.ready, said.status, said.details, stale=False)
