"""`sr-exporter rules test`: which alert rule decides for a key or a source, and why.

It asks the same code that decides in a running exporter, and no network.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_exporter import config
from sr_exporter.durations import format_duration
from sr_exporter.errors import ConfigError
from sr_exporter.model import INT32_MAX, INT32_MIN, MAIN, OWN_SOURCE, Key, Statement
from sr_exporter.notify import alerts
from sr_exporter.notify.rules import STARTING_SECONDS, Decision, Rules
from sr_exporter.state import State
from sr_exporter.words import meaning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXIT_CONFIG = 2
_EXAMPLE_ERROR = "connection refused (an example)"
#: In place of why a notifier takes nothing.
_LAST_ERROR = "(last error)"

_DESCRIPTION = """\
Show which alert rule decides for a key that is not ready, or, without
--group, for a polled source that is down; what it says, and the alert.
"""

_EPILOG = """\
example:
  sr-exporter rules test --config.file sr-exporter.yml \\
      --source sip-1 --group uac_registrant --identifier sip:vip@example.org

exit status: 0 it was shown, 2 wrong command line or configuration
"""


def run(arguments: Sequence[str]) -> int:
    """Print it, and give the exit status; a wrong command line ends by `SystemExit`."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.group is None and given.identifier is not None:
        parser.error("--identifier needs --group")
    if "" in (given.source, given.group, given.identifier):
        parser.error("a name must not be empty")
    try:
        read = config.load(given.config_file)
    except ConfigError as error:
        for fault in error.faults:
            print(f"sr-exporter: {fault}", file=sys.stderr)  # noqa: T201
        return EXIT_CONFIG
    rules, links = Rules(read.rules), alerts.Links(given.external_url)
    if given.group is None:
        shown = _about_source(given.source, read, rules, links)
    else:
        key = Key(given.source, given.group, given.identifier or MAIN)
        shown = _about_key(key, given.status, given.details, read, rules, links)
    print("\n".join(shown))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sr-exporter rules",
        usage="sr-exporter rules test --source S [--config.file FILE]\n"
        "           [--group G [--identifier I]] [--status N] [--details TEXT]\n"
        "           [--web.external-url URL]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=["test"], metavar="test", help=argparse.SUPPRESS)
    required = parser.add_argument_group("required")
    required.add_argument("--source", required=True, metavar="S", help="name of the source")
    options = parser.add_argument_group("options")
    options.add_argument("-h", "--help", action="help", help="show this")
    options.add_argument(
        "--config.file",
        dest="config_file",
        type=Path,
        metavar="FILE",
        help="the configuration (default: what is built in)",
    )
    options.add_argument("--group", metavar="G", help="the group (default: the source is down)")
    options.add_argument("--identifier", metavar="I", help=f"the identifier (default: {MAIN})")
    options.add_argument(
        "--status",
        type=_status,
        default=-1,
        metavar="N",
        help="what the key's status would be (default: -1)",
    )
    options.add_argument("--details", metavar="TEXT", help="what its details would be")
    options.add_argument(
        "--web.external-url",
        dest="external_url",
        default="http://localhost:9797",
        metavar="URL",
        help="what links begin with (default: http://localhost:9797)",
    )
    return parser


def _status(text: str) -> int:
    try:
        status = int(text)
    except ValueError:
        status = 0
    if not status or not INT32_MIN <= status <= INT32_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no status: 32 bits, and not 0")
    return status


def _about_key(
    key: Key,
    status: int,
    details: str | None,
    read: config.Config,
    rules: Rules,
    links: alerts.Links,
) -> Iterator[str]:
    state = State()
    if details is None and status < 0 and alerts.is_notifier(key):
        details = _LAST_ERROR
    said = Statement(*key, status=status, details=details)
    (entry,) = state.apply(said, time.time()).entries.values()
    ready = "ready" if entry.ready else "not ready"
    word = meaning(key.group, key.identifier, status)
    yield f"key: {_quoted(key.group)}/{_quoted(key.identifier)} on {_quoted(key.source)}"
    yield f"status: {status} ({word}), {ready}"
    decision = rules.explain_key(key, early=False)
    yield from _told(decision, read)
    starting = rules.for_key(key, early=True).for_seconds
    told = starting != decision.rule.for_seconds and not decision.rule.silent
    if told and key.source != OWN_SOURCE:
        yield (
            f"  for: {format_duration(starting)} where it appears not ready, or turns so within"
            f" {format_duration(STARTING_SECONDS)} of a restart of its source"
        )
    if entry.ready:
        yield "alert: none, since it is ready"
    elif decision.rule.silent:
        yield "alert: none"
    else:
        yield from _alert(alerts.of_key(entry, decision.rule, links))


def _about_source(
    source: str, read: config.Config, rules: Rules, links: alerts.Links
) -> Iterator[str]:
    address = next((one.mi for one in read.sources if one.name == source), "")
    yield f"source: {_quoted(source)}, down"
    if not address:
        yield "note: the configuration has no such source, and only what is polled can be down"
    decision = rules.explain_source(source)
    yield from _told(decision, read)
    if decision.rule.silent:
        yield "alert: none"
    else:
        yield from _alert(
            alerts.of_source(
                source,
                decision.rule,
                links,
                since=time.time(),
                error=_EXAMPLE_ERROR,
                address=address,
            )
        )


def _told(decision: Decision, read: config.Config) -> Iterator[str]:
    for place, why in enumerate(decision.passed):
        reason = why if why.startswith("is ") else f"its {why} does not fit"
        yield f"skipped: alerts.rules[{place}], {reason}"
    said = None if decision.place is None else read.rules[decision.place]
    built_in = f"built in for {decision.built_in}" if decision.built_in else "built in for the rest"
    rule, base = decision.rule, decision.base
    if base.silent:
        yield f"decides: {built_in}, whatever is configured: no alert"
        return
    if said is None:
        yield f"decides: {built_in}"
    else:
        globs = (("source", said.source), ("group", said.group), ("identifier", said.identifier))
        fits = ", ".join(f"{name} {_quoted(glob)}" for name, glob in globs if glob is not None)
        yield f"decides: alerts.rules[{decision.place}], by {fits}"
    if rule.silent:
        yield "  silence: true"
        return
    by_built_in = "" if said is None else f" ({built_in})"
    severity_from = "" if said and said.severity is not None else by_built_in
    for_from = "" if said and said.for_seconds is not None else by_built_in
    yield f"  severity: {rule.severity}{severity_from}"
    yield f"  for: {format_duration(rule.for_seconds)}{for_from}"
    yield f"  keep_firing_for: {format_duration(rule.keep_firing_seconds)}"
    yield f"  labels: {_json(dict(rule.labels))}"
    yield f"  annotations: {', '.join(name for name, _ in rule.annotations) or 'as built in'}"
    yield "  silence: false"


def _alert(alert: alerts.Alert) -> Iterator[str]:
    yield "alert:"
    yield _json(
        {
            "labels": alert.labels,
            "annotations": alert.annotations,
            "generatorURL": alert.generator_url,
            "fingerprint": alert.fingerprint,
        },
        indent=2,
    )


def _quoted(name: str) -> str:
    """Show a name as it is, but for what a terminal may obey."""
    return name if name.isprintable() and name else json.dumps(name)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent)
