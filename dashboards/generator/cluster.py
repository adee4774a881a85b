"""What belongs to no table: cluster capabilities, registrations, floods."""

from __future__ import annotations

from dashboards.generator import board, states
from dashboards.generator.board import CHOSEN, KEY
from dashboards.generator.panels import AGO, in_words, row, series, stat, table, timeline
from dashboards.generator.parts import ANY_IS_ODD, NEUTRAL, Json, or_zero, target

_CAPABILITIES = f"{CHOSEN},{states.CAPABILITIES}"
_CLUSTERER = f'{CHOSEN},group="clusterer"'
_REGISTRANTS = f"{CHOSEN},{states.REGISTRANTS}"
_PIKE = f'{CHOSEN},group="pike"'
_REGISTRANTS_READY = f"max by ({KEY}) (opensips_sr_ready{{{_REGISTRANTS}}})"
_LOST = (
    f"topk(200, max by ({KEY}) "
    f"(opensips_sr_status_change_timestamp_seconds{{{_REGISTRANTS}}} "
    f"and opensips_sr_ready{{{_REGISTRANTS}}} == 0))"
)


def cluster() -> Json:
    return board.dashboard(
        board.CLUSTER,
        "Cluster capabilities and nodes, registrations at other servers, and floods.",
        [board.sources()],
        [*_cluster(), *_registrations(), *_floods()],
        [board.restarts(CHOSEN)],
    )


def _cluster() -> list[Json]:
    return [
        row(1, "Cluster", 0),
        timeline(
            2,
            "Capabilities",
            "What clusterer says of each capability. One without a donor stays at Sync pending for "
            "ever: so does a lone node, by design. Unknown: it was there in the last hour, and is "
            "not heard now.",
            (0, 1, 24, 8),
            target(
                states.or_unknown(states.plain(KEY, _CAPABILITIES), KEY, _CAPABILITIES),
                legendFormat="{{source}} {{identifier}}",
            ),
            states.words("capability"),
            [board.to_identifier("series")],
        ),
        stat(
            3,
            "Capabilities not synced",
            "Those of lone nodes included.",
            (0, 9, 5, 8),
            f"sum(min by ({KEY}) (opensips_sr_ready{{{_CAPABILITIES}}}) == bool 0)",
            ANY_IS_ODD,
        ),
        table(
            4,
            "Nodes reported down",
            "Cluster nodes that a report text calls down, and no later one up. No status shows "
            "them; a text is a hint. Last report: of any node at that source.",
            (5, 9, 10, 8),
            {"source": "Source", "identifier": "Identifier", "subject": "Subject"},
            {
                "Last report": (
                    f"max by (source, identifier, subject) ({board.reported(_CLUSTERER)})",
                    AGO,
                )
            },
            sort="Last report",
            empty="Nothing is reported, or nothing is known.",
            links={"Source": [board.to_source("row")]},
        ),
        series(
            5,
            "Nodes and sharing tags",
            "What reports tell per minute: nodes that come and go, tags that move.",
            (15, 9, 9, 8),
            [
                target(
                    f"60 * max by ({KEY}, rule) "
                    f"(rate(opensips_sr_report_matches_total{{{_CLUSTERER}}}[$__rate_interval]))",
                    legendFormat="{{source}} {{rule}}",
                )
            ],
            unit="cpm",
            links=[board.to_identifier("series")],
        ),
    ]


def _registrations() -> list[Json]:
    by_source = [board.to_source("series")]
    return [
        row(10, "Registrations", 17),
        stat(
            11,
            "Registrants",
            "Registrations that uac_registrant keeps up (4.0 and later), or should.",
            (0, 18, 4, 4),
            or_zero(f"count({_REGISTRANTS_READY})"),
            NEUTRAL,
        ),
        stat(
            12,
            "Not registered",
            "Of these, how many are not registered now. One that was deleted stays so for ever; a "
            "routine re-registration passes through it in a moment.",
            (0, 22, 4, 4),
            or_zero(f"sum({_REGISTRANTS_READY} == bool 0)"),
            ANY_IS_ODD,
        ),
        series(
            13,
            "Share not registered",
            "Which part of each source's registrants is not registered.",
            (4, 18, 10, 8),
            [
                target(
                    f"avg by (source) ({_REGISTRANTS_READY} == bool 0)",
                    legendFormat="{{source}}",
                )
            ],
            unit="percentunit",
            links=by_source,
        ),
        series(
            14,
            "Changes of registrants",
            "Changes of status per minute. Each routine re-registration is two.",
            (14, 18, 10, 8),
            [
                target(
                    f"60 * sum by (source) (max by ({KEY}) "
                    f"(rate(opensips_sr_status_changes_total{{{_REGISTRANTS}}}[$__rate_interval])))",
                    legendFormat="{{source}}",
                )
            ],
            unit="cpm",
            links=by_source,
        ),
        table(
            15,
            "Not registered now",
            "The 200 that turned last, of all that are not registered now. The state of the "
            "registration is in the details, on the exporter's page.",
            (0, 26, 24, 9),
            {"source": "Source", "group": "Group", "identifier": "Identifier"},
            {
                "State": (
                    f"{states.plain(KEY, _REGISTRANTS)} and {_LOST}",
                    in_words(states.words("registrant")),
                ),
                "Since": (f"1000 * {_LOST}", AGO),
            },
            sort="Since",
            empty="All are registered, or nothing is known.",
            links={
                "Source": [board.to_source("row")],
                "Identifier": [board.to_identifier("row")],
            },
        ),
    ]


def _floods() -> list[Json]:
    return [
        row(20, "Floods", 35),
        series(
            21,
            "Addresses blocked",
            "Addresses per minute that pike reports as flooding, by source.",
            (0, 36, 12, 8),
            [
                target(
                    "60 * max by (source) (rate("
                    f'opensips_sr_report_matches_total{{{_PIKE},rule="flood"}}[$__rate_interval]))',
                    legendFormat="{{source}}",
                )
            ],
            unit="cpm",
            links=[board.to_source("series")],
        ),
        series(
            22,
            "Reports of pike",
            "All reports of pike per minute, by source.",
            (12, 36, 12, 8),
            [
                target(
                    "60 * max by (source) "
                    f"(rate(opensips_sr_reports_total{{{_PIKE}}}[$__rate_interval]))",
                    legendFormat="{{source}}",
                )
            ],
            unit="cpm",
            links=[board.to_source("series")],
        ),
    ]
