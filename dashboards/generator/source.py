"""One source: how it is heard, and all that it says."""

from __future__ import annotations

from dashboards.generator import board, states
from dashboards.generator.board import JOB, KEY
from dashboards.generator.panels import AGO, bars, row, series, stat, table, timeline
from dashboards.generator.parts import (
    ANY_IS_ODD,
    GREEN,
    NEUTRAL,
    RED,
    YELLOW,
    Json,
    instant,
    mappings,
    target,
    value,
)

_ONE = f'{JOB},source="$source"'
_GROUP = f'{_ONE},group=~"$group"'
#: The identifiers that changed last, of those that were there at any time of the range. The same
#: ones for all of it: one that is lost must not leave the picture.
_NEWEST = (
    "and on (source, group, identifier) topk(100, max by (source, group, identifier) "
    "(last_over_time(opensips_sr_status_change_timestamp_seconds"
    f"{{{_GROUP}}}[$__range] @ end())))"
)


def source() -> Json:
    return board.dashboard(
        board.SOURCE,
        "One OpenSIPS server, or a name that pushes: its core, how it is heard, its groups.",
        [board.sources(one=True), board.groups(_ONE)],
        [*_standing(), *_hearing(), *_core(), *_of_group()],
        [
            board.changes(f'{_ONE},group!="uac_registrant"'),
            board.restarts(_ONE),
            board.alerts(_ONE),
        ],
    )


def _standing() -> list[Json]:
    return [
        stat(
            1,
            "Polls",
            "Whether the last poll was good. Only polled sources have this.",
            (0, 0, 4, 4),
            f"max(opensips_sr_source_up{{{_ONE}}})",
            NEUTRAL,
            meanings=mappings(value(0, "Failing", RED), value(1, "Good", GREEN)),
            unknown="Not polled",
        ),
        stat(
            2,
            "Core",
            "What the server says of itself.",
            (4, 0, 4, 4),
            f"min(opensips_sr_status{{{_ONE},{states.CORE}}})",
            NEUTRAL,
            meanings=states.words("core"),
        ),
        stat(
            3,
            "Groups not ready",
            "Groups of which at least one identifier is not ready.",
            (8, 0, 4, 4),
            f"sum(min by (group) (opensips_sr_group_ready{{{_ONE}}}) == bool 0)",
            ANY_IS_ODD,
        ),
        stat(
            4,
            "Identifiers not ready",
            "Identifiers of all groups that are not ready, those that are so by design included.",
            (12, 0, 4, 4),
            f'sum(max by (group) (opensips_sr_identifiers{{{_ONE},ready="false"}}))',
            ANY_IS_ODD,
        ),
        stat(
            5,
            "Last heard",
            "When anything was last heard of it: a poll, an event, a push.",
            (16, 0, 4, 4),
            f"1000 * max(opensips_sr_source_last_seen_timestamp_seconds{{{_ONE}}})",
            NEUTRAL,
            unit="dateTimeFromNow",
        ),
        stat(
            6,
            "Version",
            "What it runs, and how it is heard.",
            (20, 0, 4, 4),
            f"max by (version, transport) (opensips_sr_source_info{{{_ONE}}})",
            NEUTRAL,
            legend="{{version}} {{transport}}",
            text_mode="name",
        ),
    ]


def _hearing() -> list[Json]:
    return [
        stat(
            7,
            "Started",
            "When it started, as its up time tells; polled servers only.",
            (0, 4, 4, 4),
            f"1000 * max(opensips_sr_source_start_timestamp_seconds{{{_ONE}}})",
            NEUTRAL,
            unit="dateTimeFromNow",
        ),
        stat(
            8,
            "Restarts",
            "How often its start time moved in the range.",
            (4, 4, 4, 4),
            f"max(changes(opensips_sr_source_start_timestamp_seconds{{{_ONE}}}[$__range]))",
            ANY_IS_ODD,
        ),
        stat(
            9,
            "Poll interval",
            "From one poll to the next: longer than configured where a listing is slow, or polls "
            "fail.",
            (8, 4, 4, 4),
            f"max(opensips_sr_poll_interval_seconds{{{_ONE}}})",
            NEUTRAL,
            unit="s",
            unknown="Not polled",
        ),
        stat(
            10,
            "Subscription",
            "Whether our own subscription to its events is in force; only where the exporter "
            "subscribes.",
            (12, 4, 4, 4),
            f"max(opensips_sr_source_subscribed{{{_ONE}}})",
            NEUTRAL,
            meanings=mappings(value(0, "Not in force", YELLOW), value(1, "In force", GREEN)),
            unknown="None",
        ),
        stat(
            11,
            "Changes missed",
            "Status changes in the range that events tell of and that were not heard, at least.",
            (16, 4, 4, 4),
            f"max(increase(opensips_sr_status_changes_missed_total{{{_ONE}}}[$__range]))",
            ANY_IS_ODD,
        ),
        stat(
            12,
            "Reports lost",
            "How often in the range a ring of reports turned over unseen, at least.",
            (20, 4, 4, 4),
            f"max(increase(opensips_sr_report_overruns_total{{{_ONE}}}[$__range]))",
            ANY_IS_ODD,
        ),
    ]


def _core() -> list[Json]:
    core = f"{_ONE},{states.CORE}"
    return [
        timeline(
            13,
            "Core",
            "What the server says of itself. Restarts are marked. Unknown: it said something in "
            "the last hour, and is not heard now.",
            (0, 8, 24, 4),
            target(
                states.or_unknown(states.plain("source", core), "source", core),
                legendFormat="{{source}}",
            ),
            states.words("core"),
        ),
        timeline(
            14,
            "Groups that could be read",
            "Whether the last poll could read all of a group. While it could not, nothing of the "
            "group is removed, and what is shown of it may be old: see the documentation on "
            "listings that are too big.",
            (0, 12, 8, 7),
            target(
                f"min by (group) (opensips_sr_group_complete{{{_ONE}}})", legendFormat="{{group}}"
            ),
            mappings(value(0, "In part", YELLOW), value(1, "Whole", GREEN)),
        ),
        series(
            15,
            "Failed requests",
            "Requests to it that failed, per minute, by reason.",
            (8, 12, 8, 7),
            [
                target(
                    "60 * sum by (reason) "
                    f"(rate(opensips_sr_poll_failures_total{{{_ONE}}}[$__rate_interval])) > 0",
                    legendFormat="{{reason}}",
                )
            ],
            unit="cpm",
        ),
        table(
            16,
            "Reported not ready",
            "What a report text calls not ready, and no status does: gateways, destinations, "
            "cluster nodes. A text is a hint.",
            (16, 12, 8, 7),
            {"group": "Group", "identifier": "Identifier", "subject": "Subject"},
            {
                "Last report": (
                    f"max by (group, identifier, subject) ({board.reported(_ONE)})",
                    AGO,
                )
            },
            sort="Last report",
            empty="Nothing is reported, or nothing is known.",
        ),
    ]


def _of_group() -> list[Json]:
    links = [
        board.to_identifier(
            "series", group="${group:percentencode}", source="${source:percentencode}"
        )
    ]
    by = "group, identifier"
    return [
        row(20, "$group", 19, repeat="group"),
        timeline(
            21,
            "Identifiers of $group",
            "What the group says of each identifier, in the words of its module; of a script's own "
            "groups the number. The 100 that changed last. Unknown: it was there in the last hour, "
            "and is not heard now.",
            (0, 20, 24, 8),
            target(
                f"({states.or_unknown(states.coded(KEY, _GROUP), KEY, _GROUP)}) {_NEWEST}",
                legendFormat="{{identifier}}",
            ),
            states.all_words(),
            links,
        ),
        series(
            22,
            "Changes of $group",
            "Changes of status per minute, of the 20 identifiers that change most.",
            (0, 28, 8, 7),
            [
                target(
                    f"topk(20, 60 * max by ({by}) "
                    f"(rate(opensips_sr_status_changes_total{{{_GROUP}}}[$__rate_interval])))",
                    legendFormat="{{identifier}}",
                )
            ],
            unit="cpm",
            links=links,
        ),
        series(
            23,
            "Reports of $group",
            "Reports per minute, of the 20 identifiers that report most.",
            (8, 28, 8, 7),
            [
                target(
                    f"topk(20, 60 * max by ({by}) "
                    f"(rate(opensips_sr_reports_total{{{_GROUP}}}[$__rate_interval])))",
                    legendFormat="{{identifier}}",
                )
            ],
            unit="cpm",
            links=links,
        ),
        bars(
            24,
            "Time in state of $group",
            "For how long each identifier has been in the state that it is in now; the 20 that "
            "changed last.",
            (16, 28, 8, 7),
            instant(
                f"bottomk(20, time() - max by ({by}) "
                f"(opensips_sr_status_change_timestamp_seconds{{{_GROUP}}}))",
                legendFormat="{{identifier}}",
            ),
            NEUTRAL,
            unit="s",
            min=0,
        ),
    ]
