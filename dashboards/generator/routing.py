"""What calls are routed by: the tables of drouting, dispatcher, dialplan and sql_cacher."""

from __future__ import annotations

from dashboards.generator import board, states
from dashboards.generator.board import CHOSEN, KEY
from dashboards.generator.panels import AGO, row, series, stat, table, timeline
from dashboards.generator.parts import ANY_IS_BAD, ANY_IS_ODD, Json, or_zero, target

_MODULES = f'{CHOSEN},group=~"config|dialplan|dispatcher|drouting|sql_cacher"'
_ALL = f'{CHOSEN},group=~"$group",identifier=~"$identifier"'
_TABLES = f"{_ALL},{states.TABLES}"
#: Where the texts of gateways and destinations come: beside the tables.
_EVENTS = f'{CHOSEN},group=~"$group",identifier=~".*;events"'


def _counted(status: int) -> str:
    """Count the tables in a state; an older exporter and a newer one may know the same table."""
    return f"sum(min by ({KEY}) (opensips_sr_status{{{_TABLES}}}) == bool {status})"


def _matched(rule: str) -> str:
    return (
        f"sum(max by ({KEY}) "
        f'(increase(opensips_sr_report_matches_total{{{_TABLES},rule="{rule}"}}[1h])))'
    )


def routing() -> Json:
    return board.dashboard(
        board.ROUTING,
        "Routing tables and their loads, and what reports tell of gateways and destinations.",
        [board.sources(), board.groups(_MODULES), board.identifiers(f'{_MODULES},group=~"$group"')],
        [*_counts(), *_loads(), *_gateways()],
        [board.restarts(CHOSEN)],
    )


def _counts() -> list[Json]:
    return [
        stat(
            1,
            "No data",
            "Tables without any data: calls that need them fail.",
            (0, 0, 5, 4),
            _counted(-2),
            ANY_IS_BAD,
        ),
        stat(
            2,
            "Loading",
            "Tables that are loaded for the first time, and are not ready until they are.",
            (5, 0, 5, 4),
            _counted(-1),
            ANY_IS_ODD,
        ),
        stat(
            3,
            "Reloading",
            "Tables that are loaded anew. Ready all the while, on the data they had.",
            (10, 0, 5, 4),
            _counted(2),
            ANY_IS_ODD,
        ),
        stat(
            4,
            "Loads failed in 1 h",
            "Loads that failed in the last hour, as reports tell. Old data stays in use, which no "
            "status shows.",
            (15, 0, 5, 4),
            _matched("data_load_failed"),
            ANY_IS_BAD,
        ),
        stat(
            5,
            "Reported not ready",
            "Gateways and destinations that a report text calls inactive. No status shows them; a "
            "text is a hint.",
            (20, 0, 4, 4),
            or_zero(f"count(max by ({KEY}, subject) (opensips_sr_reported_ready{{{_EVENTS}}}))"),
            ANY_IS_ODD,
        ),
    ]


def _loads() -> list[Json]:
    loading = f"(opensips_sr_status{{{_TABLES}}} == -1 or opensips_sr_status{{{_TABLES}}} == 2)"
    newest = f"max by ({KEY}) (opensips_sr_last_report_timestamp_seconds{{{_TABLES}}})"
    by_table = [board.to_identifier("series", source="$__all")]
    return [
        timeline(
            6,
            "Tables",
            "What each table stands at. A reload takes milliseconds where tables are small, and is "
            "seldom seen here. Unknown: it was there in the last hour, and is not heard now.",
            (0, 4, 24, 10),
            target(
                states.or_unknown(states.plain(KEY, _TABLES), KEY, _TABLES),
                legendFormat="{{source}} {{group}}/{{identifier}}",
            ),
            states.words("table"),
            [board.to_identifier("series")],
        ),
        series(
            7,
            "Loading for",
            "How long a load or reload that is under way has taken by now: it grows until the data "
            "is there, and its height is the load's duration.",
            (0, 14, 8, 8),
            [
                target(
                    f"max by ({KEY}) (time() - "
                    f"opensips_sr_status_change_timestamp_seconds{{{_TABLES}}} and {loading})",
                    legendFormat="{{source}} {{group}}/{{identifier}}",
                )
            ],
            unit="s",
            links=[board.to_identifier("series")],
        ),
        series(
            8,
            "Reload skew",
            "Of tables of the same name: from the first server's last load to the last server's. "
            "While it is large the servers route by different data. Times are the servers' own.",
            (8, 14, 8, 8),
            [
                target(
                    f"max by (group, identifier) ({newest}) - "
                    f"min by (group, identifier) ({newest}) and "
                    f"count by (group, identifier) ({newest}) > 1",
                    legendFormat="{{group}}/{{identifier}}",
                )
            ],
            unit="s",
            links=by_table,
        ),
        series(
            9,
            "Loads",
            "Loads per minute that reports tell of, by how they ended.",
            (16, 14, 8, 8),
            [
                target(
                    f"60 * sum by (rule) (max by ({KEY}, rule) (rate("
                    f'opensips_sr_report_matches_total{{{_TABLES},rule=~"data_load_.+"}}'
                    "[$__rate_interval])))",
                    legendFormat="{{rule}}",
                )
            ],
            unit="cpm",
        ),
    ]


def _gateways() -> list[Json]:
    return [
        row(10, "Gateways and destinations", 22),
        table(
            11,
            "Gateways and destinations reported not ready",
            "Gateways and destinations that a report text calls inactive, and no later one active. "
            "A text is a hint. Last report: of the list that the gateway is in.",
            (0, 23, 14, 8),
            {
                "source": "Source",
                "group": "Group",
                "identifier": "Identifier",
                "subject": "Subject",
            },
            {"Last report": (board.reported(_EVENTS), AGO)},
            sort="Last report",
            empty="Nothing is reported, or nothing is known.",
            links={
                "Source": [board.to_source("row")],
                "Identifier": [board.to_identifier("row")],
            },
        ),
        series(
            12,
            "Reports of gateways and destinations",
            "Reports per minute: each is a gateway or destination that turned active or inactive.",
            (14, 23, 10, 8),
            [
                target(
                    f"60 * max by ({KEY}) "
                    f"(rate(opensips_sr_reports_total{{{_EVENTS}}}[$__rate_interval]))",
                    legendFormat="{{source}} {{group}}/{{identifier}}",
                )
            ],
            unit="cpm",
            links=[board.to_identifier("series")],
        ),
    ]
