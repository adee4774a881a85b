"""The exporter itself: whether it hears, keeps and tells."""

from __future__ import annotations

from dashboards.generator import board
from dashboards.generator.board import BUILD, JOB, OURS, RATE
from dashboards.generator.exporter_inside import notifiers, process, store
from dashboards.generator.panels import row, series, stat, table, timeline
from dashboards.generator.parts import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    GREEN,
    GREY,
    NEUTRAL,
    RED,
    YELLOW,
    Json,
    mappings,
    steps,
    target,
    value,
)


def exporter() -> Json:
    instance = board.variable(
        "instance",
        "Instance",
        "The exporters, by the address that is scraped.",
        f"label_values(sr_exporter_build_info{{{JOB}}}, instance)",
    )
    return board.dashboard(
        board.EXPORTER,
        "The exporters: polls, events, pushes, notifiers, store, memory.",
        [instance],
        [*_standing(), *_polls(), *_events(), *notifiers(), *store(), *process()],
        [board.alerts(OURS)],
    )


def _standing() -> list[Json]:
    own = f'{OURS},source="sr_exporter"'
    last = f"min by (instance, group, identifier) (last_over_time(opensips_sr_ready{{{own}}}[1h]))"
    return [
        stat(
            1,
            "Exporters up",
            "Exporters that can be scraped, of those that were there in the last day.",
            (0, 0, 4, 4),
            f"sum(up{{{OURS}}} and on (job, instance) last_over_time({BUILD}[1d]))",
            steps((None, RED), (1, GREEN)),
        ),
        stat(
            2,
            "Sources down",
            "Polled sources whose last poll failed, by what any exporter says.",
            (4, 0, 4, 4),
            f"sum(min by (job, source) (opensips_sr_source_up{{{OURS}}}) == bool 0)",
            ANY_IS_BAD,
        ),
        stat(
            3,
            "Identifiers held",
            "All keys that are shown, the exporters' own included.",
            (8, 0, 4, 4),
            f"sum(opensips_sr_identifiers{{{OURS}}})",
            NEUTRAL,
        ),
        stat(
            4,
            "Identifiers refused",
            "Identifiers for which limits left no room: they are not shown at all.",
            (12, 0, 4, 4),
            f"sum(sr_exporter_identifiers_refused{{{OURS}}})",
            ANY_IS_BAD,
        ),
        stat(
            5,
            "Subjects refused in 1 h",
            "Gateways, destinations and nodes of report texts for which limits.subjects left no "
            "room, in the last hour.",
            (16, 0, 4, 4),
            f"sum(increase(sr_exporter_subjects_refused_total{{{OURS}}}[1h]))",
            ANY_IS_ODD,
        ),
        stat(
            6,
            "Configuration",
            "Whether it was last read without a fault; else the one before is in force.",
            (20, 0, 4, 4),
            f"min(sr_exporter_config_last_reload_successful{{{OURS}}})",
            NEUTRAL,
            meanings=mappings(value(0, "Refused", RED), value(1, "In force", GREEN)),
        ),
        timeline(
            7,
            "What the exporter says of itself",
            "Its core, its store, each polled source and each notifier. Unknown: it was there in "
            "the last hour, and is not scraped now.",
            (0, 4, 16, 9),
            target(
                f"min by (instance, group, identifier) (opensips_sr_ready{{{own}}}) "
                f"or clamp({last}, -1, -1)",
                legendFormat="{{instance}} {{group}}/{{identifier}}",
            ),
            mappings(
                value(-1, "Unknown", GREY), value(0, "Not ready", RED), value(1, "Ready", GREEN)
            ),
        ),
        table(
            8,
            "Versions",
            "What runs where, since when, and since when with this configuration.",
            (16, 4, 8, 9),
            {"instance": "Instance", "version": "Version"},
            {
                "Configured": (
                    (
                        "1000 * max by (instance, version) (sr_exporter_build_info * "
                        "on (job, instance) group_left "
                        "sr_exporter_config_last_reload_success_timestamp_seconds"
                        f"{{{OURS}}})"
                    ),
                    {"unit": "dateTimeFromNow"},
                ),
                "Started": (
                    (
                        f"1000 * max by (instance, version) ({BUILD} * "
                        f"on (job, instance) group_left process_start_time_seconds{{{OURS}}})"
                    ),
                    {"unit": "dateTimeFromNow"},
                ),
            },
            sort="Started",
            empty="Nothing is known.",
        ),
    ]


def _polls() -> list[Json]:
    buckets = f"sum by (le) (rate(opensips_sr_poll_duration_seconds_bucket{{{OURS}}}{RATE}))"
    spent = f"rate(opensips_sr_poll_duration_seconds_sum{{{OURS}}}{RATE})"
    polls = f"rate(opensips_sr_poll_duration_seconds_count{{{OURS}}}{RATE})"
    to_source = [board.to_source("series")]
    return [
        row(10, "Polls", 13),
        series(
            11,
            "Poll duration",
            "How long polls take, good or not: half of them, and 99 of 100, take no longer.",
            (0, 14, 8, 8),
            [
                target(f"histogram_quantile(0.5, {buckets})", "A", legendFormat="50 %"),
                target(f"histogram_quantile(0.99, {buckets})", "B", legendFormat="99 %"),
            ],
            unit="s",
        ),
        series(
            12,
            "Share of a source's time",
            "For which part of the time a source is busy with our polls, on average; "
            "max_share (5 % by default) bounds it. The ten with the most.",
            (8, 14, 8, 8),
            [target(f"topk(10, max by (source) ({spent}))", legendFormat="{{source}}")],
            unit="percentunit",
            links=to_source,
        ),
        series(
            13,
            "Polls per minute",
            "Polls of each source: fewer than configured where a listing is slow or polls fail.",
            (16, 14, 8, 8),
            [
                target(f"60 * sum by (source) ({polls})", "A", legendFormat="{{source}}"),
            ],
            unit="cpm",
            links=to_source,
        ),
        series(
            14,
            "Failed requests",
            "Requests that failed, per minute, by source and reason.",
            (0, 22, 12, 8),
            [
                target(
                    "60 * sum by (source, reason) "
                    f"(rate(opensips_sr_poll_failures_total{{{OURS}}}{RATE})) > 0",
                    legendFormat="{{source}} {{reason}}",
                )
            ],
            unit="cpm",
            links=to_source,
        ),
        series(
            15,
            "Poll interval",
            "From one poll to the next, as the exporter paces itself.",
            (12, 22, 12, 8),
            [
                target(
                    f"max by (source) (opensips_sr_poll_interval_seconds{{{OURS}}})",
                    legendFormat="{{source}}",
                )
            ],
            unit="s",
            links=to_source,
        ),
    ]


def _events() -> list[Json]:
    return [
        row(20, "Events and pushes", 30),
        series(
            21,
            "Events taken",
            "Events per minute that were taken, by source and transport.",
            (0, 31, 8, 8),
            [
                target(
                    "60 * sum by (source, transport) "
                    f"(rate(opensips_sr_events_total{{{OURS}}}{RATE}))",
                    legendFormat="{{source}} {{transport}}",
                )
            ],
            unit="cpm",
            links=[board.to_source("series")],
        ),
        series(
            22,
            "Events not taken",
            "Events per minute that were refused, by reason, and datagrams for which the kernel "
            "had no room. Polls make up for both.",
            (8, 31, 8, 8),
            [
                target(
                    "60 * sum by (transport, reason) "
                    f"(rate(opensips_sr_events_rejected_total{{{OURS}}}{RATE}))",
                    "A",
                    legendFormat="{{transport}} {{reason}}",
                ),
                target(
                    "60 * sum by (transport) "
                    f"(rate(opensips_sr_events_dropped_total{{{OURS}}}{RATE}))",
                    "B",
                    legendFormat="{{transport}} dropped",
                ),
            ],
            unit="cpm",
        ),
        series(
            23,
            "Pushes",
            "Pushes per minute, by the code of the answer: 200 was kept, 400 was wrong, 401 and "
            "403 were not allowed, 503 could not be kept.",
            (16, 31, 8, 8),
            [
                target(
                    f"60 * sum by (code) (rate(sr_exporter_push_requests_total{{{OURS}}}{RATE}))",
                    legendFormat="{{code}}",
                )
            ],
            unit="cpm",
        ),
        timeline(
            24,
            "Subscriptions",
            "Whether our subscription to a source's events is in force.",
            (0, 39, 24, 6),
            target(
                f"max by (source) (opensips_sr_source_subscribed{{{OURS}}})",
                legendFormat="{{source}}",
            ),
            mappings(value(0, "Not in force", YELLOW), value(1, "In force", GREEN)),
            [board.to_source("series")],
        ),
    ]
