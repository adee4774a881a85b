"""All servers at a glance."""

from __future__ import annotations

from dashboards.generator import board, states
from dashboards.generator.board import ANY_SOURCE, CHOSEN, JOB, KEY, SERVERS
from dashboards.generator.panels import AGO, history, in_words, series, stat, table, timeline
from dashboards.generator.parts import ANY_IS_BAD, ANY_IS_ODD, NEUTRAL, Json, or_zero, target

_NOT_READY = f"opensips_sr_ready{{{CHOSEN}}} == 0"
_NEWEST = (
    f"topk(200, max by ({KEY}) "
    f"(opensips_sr_status_change_timestamp_seconds{{{CHOSEN}}} and {_NOT_READY}))"
)
#: Registrants are each server's own.
_SHARED = f'{SERVERS},group!="uac_registrant"'


def _sources(ready: int) -> str:
    """Count, for what some call ready and others do not, the sources that say the one."""

    def said(what: int) -> str:
        told = f"max by ({KEY}) (opensips_sr_ready{{{_SHARED}}})"
        return f"count by (group, identifier) ({told} == {what})"

    return f"{said(ready)} and {said(1 - ready)}"


def overview() -> Json:
    return board.dashboard(
        board.FLEET,
        "Readiness of all OpenSIPS servers and pushed sources, as sr-exporter knows it.",
        [board.sources()],
        [*_counts(), *_states(), *_tables()],
    )


def _counts() -> list[Json]:
    return [
        stat(
            1,
            "Sources",
            "OpenSIPS servers and pushing names that are known, whether they answer or not.",
            (0, 0, 3, 4),
            f"count(count by (source) ({{{ANY_SOURCE},{SERVERS}}}))",
            NEUTRAL,
        ),
        stat(
            2,
            "Sources down",
            "Polled OpenSIPS servers whose last poll failed, at every exporter that polls them. "
            "Whether they carry calls is not known. Pushing names are never counted here.",
            (3, 0, 3, 4),
            f"sum(max by (source) (opensips_sr_source_up{{{SERVERS}}}) == bool 0)",
            ANY_IS_BAD,
        ),
        stat(
            3,
            "Cores not ready",
            "Servers that answer, and say of themselves (group core) that they initialize or "
            "shut down. Servers that do not answer are under Sources down.",
            (6, 0, 3, 4),
            f'sum(min by (source) (opensips_sr_ready{{{SERVERS},group="core"}}) == bool 0)',
            ANY_IS_BAD,
        ),
        stat(
            4,
            "Identifiers not ready",
            "Identifiers of all groups that are not ready, those included that are so by design: "
            "cluster capabilities of a lone node, registrants that were deleted.",
            (9, 0, 3, 4),
            f'sum(max by (source, group) (opensips_sr_identifiers{{{CHOSEN},ready="false"}}))',
            ANY_IS_ODD,
        ),
        stat(
            10,
            "Reported not ready",
            "Gateways, destinations and cluster nodes that a report text calls not ready, and no "
            "status does. A text is a hint.",
            (12, 0, 3, 4),
            or_zero(f"count(max by ({KEY}, subject) (opensips_sr_reported_ready{{{CHOSEN}}}))"),
            ANY_IS_ODD,
        ),
        stat(
            11,
            "Changes in 1 h",
            "Changes of status in the last hour, registrants not counted.",
            (15, 0, 3, 4),
            f"sum(max by ({KEY}) "
            f'(increase(opensips_sr_status_changes_total{{{CHOSEN},group!="uac_registrant"}}[1h])))',
            NEUTRAL,
        ),
        stat(
            12,
            "Missed in 1 h",
            "Status changes and turns of report rings that happened unseen in the last hour, at "
            "least. What is shown is true all the same: polls make up for it.",
            (18, 0, 3, 4),
            "sum(max by (source) "
            f"(increase(opensips_sr_status_changes_missed_total{{{CHOSEN}}}[1h]))) + "
            "sum(max by (source) "
            f"(increase(opensips_sr_report_overruns_total{{{CHOSEN}}}[1h])))",
            ANY_IS_ODD,
        ),
        stat(
            5,
            "Alerts firing",
            "Alerts of sr-exporter's Prometheus rules. Also 0 when this Prometheus has not loaded "
            "those rules. Alerts the exporter sends by itself are not counted.",
            (21, 0, 3, 4),
            or_zero(
                'count(ALERTS{alertname=~"OpenSIPS.+|SRExporter.+",alertstate="firing",'
                f'{JOB},source=~"$source|"}})'
            ),
            ANY_IS_BAD,
        ),
    ]


def _worst() -> str:
    """Ask for the worst of each group: its status where there are words for it, else readiness.

    Of registrants there may be very many, of a script's identifiers too: their statuses are looked
    at one by one where a single source is looked at.
    """
    by = "source, group"
    kinds = (states.of_kind(kind, by, CHOSEN) for kind in ("table", "core", "capability"))
    ready = f"min by ({by}) (opensips_sr_group_ready{{{CHOSEN}}})"
    last = f"min by ({by}) (last_over_time(opensips_sr_group_ready{{{CHOSEN}}}[1h]))"
    return f"{' or '.join(kinds)} or 2 * {ready} - 1 or clamp({last}, 0, 0)"


def _states() -> list[Json]:
    core = f"{SERVERS},{states.CORE}"
    # Of all that was said between one column and the next the worst is drawn.
    worst = f"min by (source) (min_over_time(opensips_sr_status{{{core}}}[$__rate_interval]))"
    return [
        history(
            6,
            "Core of each server",
            "What each OpenSIPS server says of itself (group core); the worst since the column "
            "before. Unknown: it said something in "
            "the last hour, and is not heard now.",
            (0, 4, 24, 7),
            target(states.or_unknown(worst, "source", core), legendFormat="{{source}}"),
            states.words("core"),
            [board.to_source("series")],
        ),
        timeline(
            7,
            "Groups",
            "The worst status of each group, in the words of its module. Of registrants and of a "
            "script's own groups, whether all are ready. Unknown: the group was there in the last "
            "hour, and is not heard now.",
            (0, 11, 24, 11),
            target(_worst(), legendFormat="{{source}} {{group}}"),
            states.all_words(),
            [board.to_source("series")],
        ),
    ]


def _tables() -> list[Json]:
    return [
        table(
            8,
            "Not ready now",
            "The 200 keys that turned last, of all that are not ready now. Since: when the status "
            "last changed. Code: the status itself.",
            (0, 22, 15, 10),
            {"source": "Source", "group": "Group", "identifier": "Identifier"},
            {
                "State": (
                    f"{states.coded(KEY, CHOSEN)} and {_NEWEST}",
                    in_words(states.all_words()),
                ),
                "Since": (f"1000 * {_NEWEST}", AGO),
                "Last report": (
                    (
                        f"1000 * max by ({KEY}) "
                        f"(opensips_sr_last_report_timestamp_seconds{{{CHOSEN}}}) and {_NEWEST}"
                    ),
                    AGO,
                ),
                "Code": (f"{states.plain(KEY, CHOSEN)} and {_NEWEST}", {"custom.width": 80}),
            },
            sort="Since",
            empty="Everything is ready, or nothing is known.",
            links={
                "Source": [board.to_source("row")],
                "Identifier": [board.to_identifier("row")],
            },
        ),
        series(
            9,
            "Status changes",
            "Changes of status per minute, by source; a reload of routing data is up to two. Those "
            "of registrants are on the dashboard of the cluster.",
            (15, 22, 9, 10),
            [
                target(
                    f"60 * sum by (source) (max by ({KEY}) "
                    f'(rate(opensips_sr_status_changes_total{{{CHOSEN},group!="uac_registrant"}}'
                    "[$__rate_interval])))",
                    legendFormat="{{source}}",
                )
            ],
            unit="cpm",
            links=[board.to_source("series")],
        ),
        table(
            13,
            "Sources disagree",
            "What is ready at some sources and not ready at others, and at how many: a server that "
            "missed a reload, or is the first to fail.",
            (0, 32, 12, 8),
            {"group": "Group", "identifier": "Identifier"},
            {"Not ready at": (_sources(0), {}), "Ready at": (_sources(1), {})},
            sort="Not ready at",
            empty="No disagreement, or nothing is known.",
            links={"Identifier": [board.to_identifier("row", source="$__all")]},
        ),
        table(
            14,
            "Versions",
            "What each source runs, and how it is heard: http, udp, unix and fifo are polled.",
            (12, 32, 12, 8),
            {"source": "Source", "version": "Version", "transport": "Transport"},
            {
                "Last heard": (
                    (
                        "1000 * max by (source, version, transport) "
                        f"(opensips_sr_source_info{{{SERVERS}}} * on (job, instance, source) "
                        "group_left opensips_sr_source_last_seen_timestamp_seconds)"
                    ),
                    AGO,
                )
            },
            sort="Last heard",
            empty="Nothing is known.",
            links={"Source": [board.to_source("row")]},
        ),
    ]
