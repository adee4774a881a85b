"""The exporter itself, its inner parts: notifiers, store, process."""

from __future__ import annotations

from dashboards.generator.board import BUILD, OURS, RATE
from dashboards.generator.panels import row, series, timeline
from dashboards.generator.parts import (
    GREEN,
    RED,
    Json,
    mappings,
    target,
    value,
)


def notifiers() -> list[Json]:
    latency = (
        "sum by (le, notifier) "
        f"(rate(sr_exporter_notification_latency_seconds_bucket{{{OURS}}}{RATE}))"
    )
    return [
        row(30, "Notifiers", 45),
        series(
            31,
            "Owed",
            "Notifications that are owed. One that only grows: the receiver takes nothing.",
            (0, 46, 8, 8),
            [
                target(
                    f"sum by (notifier) (sr_exporter_notifier_backlog{{{OURS}}})",
                    legendFormat="{{notifier}}",
                )
            ],
            unit="short",
        ),
        series(
            32,
            "Deliveries",
            "Deliveries per minute, by how they ended; dead ones are given up for good.",
            (8, 46, 8, 8),
            [
                target(
                    "60 * sum by (notifier, result) "
                    f"(rate(sr_exporter_notifications_total{{{OURS}}}{RATE}))",
                    legendFormat="{{notifier}} {{result}}",
                )
            ],
            unit="cpm",
        ),
        series(
            33,
            "Time to be told",
            "From a change being seen to its notification being accepted: 99 of 100 take no "
            "longer.",
            (16, 46, 8, 8),
            [target(f"histogram_quantile(0.99, {latency})", legendFormat="{{notifier}}")],
            unit="s",
        ),
    ]


def store() -> list[Json]:
    def rate(name: str) -> str:
        return f"sum by (instance) (rate(sr_exporter_store_{name}{{{OURS}}}{RATE}))"

    def now(name: str) -> str:
        return f"sum by (instance) (sr_exporter_store_{name}{{{OURS}}})"

    return [
        row(40, "Store", 54),
        timeline(
            41,
            "Store",
            "Whether the last commit succeeded. While it does not, pushes are answered with 503 "
            "and everything else goes on from memory.",
            (0, 55, 8, 8),
            target(
                f"min by (instance) (sr_exporter_store_up{{{OURS}}})", legendFormat="{{instance}}"
            ),
            mappings(value(0, "Failing", RED), value(1, "Good", GREEN)),
        ),
        series(
            42,
            "Commits",
            "Commits a second, the batches that they kept, and what failed or was given up.",
            (8, 55, 8, 8),
            [
                target(rate("commits_total"), "A", legendFormat="commits"),
                target(rate("batches_total"), "B", legendFormat="batches"),
                target(rate("commit_failures_total"), "C", legendFormat="failed"),
                target(rate("changes_given_up_total"), "D", legendFormat="changes given up"),
            ],
            unit="ops",
        ),
        series(
            43,
            "Commit duration",
            "How long a commit takes, on average.",
            (16, 55, 8, 8),
            [
                target(
                    f"{rate('commit_seconds_total')} / ({rate('commits_total')} > 0)",
                    legendFormat="{{instance}}",
                )
            ],
            unit="s",
        ),
        series(
            44,
            "Waiting",
            "Batches that wait for a commit.",
            (0, 63, 12, 7),
            [target(now("waiting_batches"), legendFormat="{{instance}}")],
            unit="short",
        ),
        series(
            45,
            "Size",
            "Size of the database's files.",
            (12, 63, 12, 7),
            [target(now("size_bytes"), legendFormat="{{instance}}")],
            unit="bytes",
        ),
    ]


def process() -> list[Json]:
    def line(expr: str, **more: str) -> Json:
        return target(expr, legendFormat="{{instance}}", **more)

    # Of the scrape jobs that are chosen, only what is an exporter of ours.
    ours = f"and on (job, instance) {BUILD}"
    return [
        row(50, "Process", 70),
        series(
            51,
            "Memory",
            "Resident memory of the exporter.",
            (0, 71, 6, 7),
            [line(f"process_resident_memory_bytes{{{OURS}}} {ours}")],
            unit="bytes",
        ),
        series(
            52,
            "Processor",
            "Processor time a second.",
            (6, 71, 6, 7),
            [line(f"rate(process_cpu_seconds_total{{{OURS}}}{RATE}) {ours}")],
            unit="percentunit",
        ),
        series(
            53,
            "Open files",
            "Open files and sockets, and how many there may be.",
            (12, 71, 6, 7),
            [
                line(f"process_open_fds{{{OURS}}} {ours}"),
                target(f"process_max_fds{{{OURS}}} {ours}", "B", legendFormat="{{instance}} most"),
            ],
            unit="short",
        ),
        series(
            54,
            "Scrape duration",
            "How long Prometheus waits for /metrics.",
            (18, 71, 6, 7),
            [line(f"scrape_duration_seconds{{{OURS}}} {ours}")],
            unit="s",
        ),
        series(
            55,
            "Event loop lag",
            "The longest in the last minute for which nothing was answered, heard or sent.",
            (0, 78, 6, 7),
            [line(f"sr_exporter_event_loop_lag_seconds{{{OURS}}} {ours}")],
            unit="s",
        ),
        series(
            56,
            "Connections",
            "Connections that are open, to the HTTP server and to the listener of events.",
            (6, 78, 6, 7),
            [
                target(
                    f"sr_exporter_connections{{{OURS}}} {ours}",
                    legendFormat="{{instance}} {{listener}}",
                )
            ],
            unit="short",
        ),
        series(
            57,
            "Limits met in 5 min",
            "How often a limit held somebody off; docs/limits.md says what each means.",
            (12, 78, 6, 7),
            [
                target(
                    f"increase(sr_exporter_limited_total{{{OURS}}}[5m]) > 0 {ours}",
                    legendFormat="{{instance}} {{limit}}",
                )
            ],
            unit="short",
        ),
    ]
