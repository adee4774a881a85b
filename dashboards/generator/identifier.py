"""One identifier, at every source that has it."""

from __future__ import annotations

from dashboards.generator import board, states
from dashboards.generator.board import CHOSEN
from dashboards.generator.panels import AGO, bars, in_words, series, table, timeline
from dashboards.generator.parts import GREEN, RED, YELLOW, Json, instant, steps, target

_GROUP = f'{CHOSEN},group="$group"'
_ONE = f'{_GROUP},identifier="$identifier"'


def identifier() -> Json:
    return board.dashboard(
        board.IDENTIFIER,
        "One identifier across the sources: who is ready, since when, and how often it changes.",
        [
            board.sources(),
            board.groups(CHOSEN, one=True),
            board.identifiers(_GROUP, one=True),
        ],
        [*_states(), *_rates()],
        [board.changes(_ONE), board.restarts(CHOSEN), board.alerts(_ONE)],
    )


def _states() -> list[Json]:
    return [
        timeline(
            1,
            "$group/$identifier",
            "What each source says of it, in the words of its module; of a script's own groups the "
            "number. Unknown: it was there in the last hour, and is not heard now.",
            (0, 0, 24, 8),
            target(
                states.or_unknown(states.coded("source", _ONE), "source", _ONE),
                legendFormat="{{source}}",
            ),
            states.all_words(),
            [board.to_source("series")],
        ),
        table(
            2,
            "Now",
            "What each source says of it now. Ready: for which part of the time in the range it "
            "was, of the time in which it was known. Changes: of its status, in the range.",
            (0, 8, 16, 8),
            {"source": "Source"},
            {
                "State": (states.coded("source", _ONE), in_words(states.all_words())),
                "Since": (
                    (
                        "1000 * max by (source) "
                        f"(opensips_sr_status_change_timestamp_seconds{{{_ONE}}})"
                    ),
                    AGO,
                ),
                "Ready": (
                    f"min by (source) (avg_over_time(opensips_sr_ready{{{_ONE}}}[$__range]))",
                    {"unit": "percentunit", "decimals": 2},
                ),
                "Changes": (
                    (
                        "max by (source) "
                        f"(increase(opensips_sr_status_changes_total{{{_ONE}}}[$__range]))"
                    ),
                    {"decimals": 0},
                ),
                "Last report": (
                    f"1000 * max by (source) (opensips_sr_last_report_timestamp_seconds{{{_ONE}}})",
                    AGO,
                ),
                "Code": (states.plain("source", _ONE), {"custom.width": 80}),
            },
            sort="Since",
            empty="Nobody has it, or nothing is known.",
            links={"Source": [board.to_source("row")]},
        ),
        bars(
            3,
            "Ready",
            "For which part of the time in the range it was ready, of the time in which it was "
            "known: a source that is down counts as nothing.",
            (16, 8, 8, 8),
            instant(
                f"min by (source) (avg_over_time(opensips_sr_ready{{{_ONE}}}[$__range]))",
                legendFormat="{{source}}",
            ),
            steps((None, RED), (0.99, YELLOW), (0.9999, GREEN)),
            unit="percentunit",
            min=0,
            max=1,
        ),
    ]


def _rates() -> list[Json]:
    return [
        series(
            4,
            "Changes",
            "Changes of its status per minute, by source: one that flaps shows here.",
            (0, 16, 8, 8),
            [
                target(
                    "60 * max by (source) "
                    f"(rate(opensips_sr_status_changes_total{{{_ONE}}}[$__rate_interval]))",
                    legendFormat="{{source}}",
                )
            ],
            unit="cpm",
            links=[board.to_source("series")],
        ),
        series(
            5,
            "Reports",
            "Reports of it per minute, by source.",
            (8, 16, 8, 8),
            [
                target(
                    "60 * max by (source) "
                    f"(rate(opensips_sr_reports_total{{{_ONE}}}[$__rate_interval]))",
                    legendFormat="{{source}}",
                )
            ],
            unit="cpm",
            links=[board.to_source("series")],
        ),
        series(
            6,
            "What the reports tell",
            "Reports per minute that fit a report rule, by source and rule.",
            (16, 16, 8, 8),
            [
                target(
                    "60 * max by (source, rule) "
                    f"(rate(opensips_sr_report_matches_total{{{_ONE}}}[$__rate_interval]))",
                    legendFormat="{{source}} {{rule}}",
                )
            ],
            unit="cpm",
            links=[board.to_source("series")],
        ),
    ]
