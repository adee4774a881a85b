"""What the API can be asked, one row for each operation: `GET /api/v1/openapi.json`.

A route and its row come and go together: a test holds the table of routes against this one. Pages
that are for people are not in it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from sr_exporter.readiness import Verdict
from sr_exporter.store.contract import Standing
from sr_exporter.web.alert_items import AlertGroup, AlertItem, AlertmanagerStatus, ReceiverItem
from sr_exporter.web.errors import Problem, PushProblem, ReloadProblem
from sr_exporter.web.items import (
    Accepted,
    ChangeItem,
    MiAnswer,
    MiRequest,
    NotificationItem,
    Removed,
    ReportsItem,
    SourceItem,
    StatusItem,
)
from sr_exporter.web.lists import MOST_ITEMS, Listed
from sr_exporter.web.openapi import Answer, Body, OneOrMany, Operation, Parameter
from sr_exporter.wire.push import Item, PushedEvent

_TEXT = Body(str, "text/plain")
_PROBLEM = (Body(Problem),)
_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Number = Annotated[int, msgspec.Meta(ge=0)]
#: Some send it empty before they have one.
_LastNumber = Annotated[str, msgspec.Meta(pattern="^[0-9]*$")]
_Limit = Annotated[int, msgspec.Meta(ge=1, le=MOST_ITEMS)]
_RETRY_AFTER = {"Retry-After": "Seconds"}

_NOT_UNDERSTOOD = {400: Answer("The question is not understood", _PROBLEM)}
_NOT_ALLOWED = {
    401: Answer("There is no token, or it is not known", _PROBLEM, {"WWW-Authenticate": "Bearer"}),
    403: Answer("Writing is not open to you, or not for this token", _PROBLEM),
}
_NOT_KEPT = {503: Answer("It cannot be kept now: try again", _PROBLEM, _RETRY_AFTER)}
_NOT_READ = {503: Answer("The store cannot be read now", _PROBLEM, _RETRY_AFTER)}

_SOURCE = Parameter("source", "Of this source, as it is spelled")
_GROUP = Parameter("group", "Of this group, whatever its case")
_IDENTIFIER = Parameter("identifier", "This identifier, whatever its case")
_READY = Parameter("ready", "What is ready, or is not", Literal["true", "false"])
_PAGING = (
    Parameter("limit", "How many items at most", _Limit),
    Parameter("cursor", "The `next` of the page before"),
)
_SOURCE_PART = Parameter("source", "`%2F` is a slash inside it", _Name, "path")
_GROUP_PART = Parameter("group", "`%2F` is a slash inside it", _Name, "path")
_IDENTIFIER_PART = Parameter("identifier", "`%2F` is a slash inside it", _Name, "path")
_KEY_PATHS = (
    ((_SOURCE_PART,), ""),
    ((_SOURCE_PART, _GROUP_PART), "_group"),
    ((_SOURCE_PART, _GROUP_PART, _IDENTIFIER_PART), "_identifier"),
)


def _list(path: str, name: str, says: str, item: Any, *filters: Parameter) -> Operation:
    return Operation(
        "GET",
        f"/api/v1/{path}",
        name,
        says,
        {200: Answer("A page", (Body(Listed[item]),)), **_NOT_UNDERSTOOD},
        (*filters, *_PAGING),
    )


_VERDICTS = {
    200: Answer("It is ready", (Body(Verdict),)),
    400: Answer("The question is not understood", _PROBLEM),
    404: Answer("Its source is heard, and never said anything of that", _PROBLEM),
    503: Answer("It is not ready, or its source is lost", (Body(Verdict),)),
}

_READ = (
    _list("status", "status", "What is held, by key", StatusItem,
          _SOURCE, _GROUP, _IDENTIFIER, _READY),
    _list("reports", "reports", "The reports of what is held", ReportsItem,
          _SOURCE, _GROUP, _IDENTIFIER, _READY),
    _list("sources", "sources", "How each source is heard", SourceItem, _SOURCE),
    Operation(
        "GET", "/api/v1/changes", "changes", "What changed, in pages or as it comes",
        {
            200: Answer(
                "A page; or, where text/event-stream is accepted, events: `change`, with a"
                " ChangeItem as its data, and `gap`, of changes that are kept no more",
                (Body(Listed[ChangeItem]), Body(str, "text/event-stream")),
            ),
            **_NOT_UNDERSTOOD,
            **_NOT_READ,
        },
        (
            Parameter("since", "What follows the change of this number", _Number),
            _SOURCE, _GROUP, _IDENTIFIER, *_PAGING,
            Parameter("Last-Event-ID", "As `since`, for events", _LastNumber, "header"),
        ),
    ),
    Operation(
        "GET", "/api/v1/notifications", "notifications",
        "What webhooks are owed, and what was given up",
        {200: Answer("A page", (Body(Listed[NotificationItem]),)), **_NOT_UNDERSTOOD, **_NOT_READ},
        (
            Parameter("state", "How it stands; dead unless said", Standing),
            Parameter("notifier", "Of this notifier"), *_PAGING,
        ),
    ),
    Operation(
        "GET", "/api/v1/openapi.json", "openapi", "This document",
        {200: Answer("It", (Body(dict[str, Any]),)), **_NOT_UNDERSTOOD},
    ),
    Operation(
        "GET", "/api/v1/check", "check", "Whether it is ready", _VERDICTS,
        (
            Parameter("source", "`push` unless said", _Name),
            Parameter("group", "None: the source itself, by its core/main", _Name),
            Parameter("identifier", "`main` unless said; `all`: all of the group", _Name),
        ),
    ),
    *(
        Operation(
            "GET", "/".join(["/ready", *("{" + part.name + "}" for part in parts)]),
            f"ready{suffix}", "Whether it is ready", _VERDICTS, parts,
        )
        for parts, suffix in _KEY_PATHS
    ),
)  # fmt: skip

_WRITING = (
    Operation(
        "POST", "/api/v1/push", "push", "Push statuses and reports",
        {
            200: Answer("They are kept on disk", (Body(Accepted),)),
            400: Answer("Nothing was taken, and why", (Body(PushProblem),)),
            **_NOT_ALLOWED,
            413: Answer("It is larger than limits.body_bytes", _PROBLEM),
            415: Answer("Its Content-Encoding is neither gzip nor none", _PROBLEM),
            **_NOT_KEPT,
        },
        (Parameter("source", "Of items that name none; `push` unless said", _Name),),
        (
            Body(OneOrMany((Item, PushedEvent))),
            Body(None, "application/x-ndjson"),
        ),
        writes=True,
    ),
    *(
        Operation(
            "DELETE",
            "/".join(["/api/v1/sources", "{source}", *(
                f"{part.name}s/{{{part.name}}}" for part in parts[1:]
            )]),
            f"forget{suffix}", "Forget what was pushed",
            {
                200: Answer("It is forgotten, and that is kept", (Body(Removed),)),
                **_NOT_UNDERSTOOD,
                **_NOT_ALLOWED,
                404: Answer("Nothing of that is held", _PROBLEM),
                409: Answer("The source is not pushed", _PROBLEM),
                **_NOT_KEPT,
            },
            parts,
            writes=True,
        )
        for parts, suffix in _KEY_PATHS
    ),
    Operation(
        "POST", "/api/v1/notifications/{id}/retry", "retry",
        "Have a notification that was given up delivered after all",
        {
            200: Answer("It is owed again, and that is kept", (Body(NotificationItem),)),
            **_NOT_UNDERSTOOD,
            **_NOT_ALLOWED,
            404: Answer("None of that id is dead", _PROBLEM),
            409: Answer("It is owed already, or its notifier is not configured", _PROBLEM),
            **_NOT_KEPT,
        },
        (Parameter("id", "Its id", _Name, "path"),),
        writes=True,
    ),
    *(
        Operation(
            method, "/-/reload", f"reload_by_{method.lower()}", "Read the configuration again",
            {
                200: Answer("It is in force", (_TEXT,)),
                400: Answer("Nothing was changed, and what is wrong", (Body(ReloadProblem),)),
                **_NOT_ALLOWED,
                503: Answer("The exporter is stopping", _PROBLEM),
            },
            writes=True,
        )
        for method in ("POST", "PUT")
    ),
)  # fmt: skip

_FILTER = Parameter("filter", 'As amtool has it: `name="value"`, `!=`, `=~` or `!~`; all must fit',
                    list[str])  # fmt: skip
_BAD_FILTER = {400: Answer("A filter is not understood", (Body(str),))}
_ALERTS = (
    *(
        Operation(
            "GET", path, name, says, {200: Answer("They", (Body(item),)), **_BAD_FILTER},
            (
                _FILTER,
                Parameter("receiver", "A regular expression, for names of notifiers"),
                Parameter("active", "false gives none: all are active"),
            ),
        )
        for path, name, says, item in (
            ("/api/v2/alerts", "alerts", "What fires, as Alertmanager tells it", list[AlertItem]),
            ("/api/v2/alerts/groups", "alert_groups", "The same for each notifier",
             list[AlertGroup]),
        )
    ),
    Operation(
        "GET", "/api/v2/receivers", "receivers", "The notifiers",
        {200: Answer("They", (Body(list[ReceiverItem]),))},
    ),
    Operation(
        "GET", "/api/v2/silences", "silences", "There are none",
        {200: Answer("None", (Body(list[Any]),)), **_BAD_FILTER}, (_FILTER,),
    ),
    Operation(
        "GET", "/api/v2/status", "alertmanager_status", "This exporter, as an Alertmanager",
        {200: Answer("It", (Body(AlertmanagerStatus),))},
    ),
)  # fmt: skip

_SERVER = (
    Operation(
        "GET", "/metrics", "metrics", "What Prometheus scrapes",
        {200: Answer("The samples", (_TEXT, Body(str, "application/openmetrics-text")))},
        (Parameter("name[]", "Samples of these names alone", list[str]),),
    ),
    Operation(
        "GET", "/-/healthy", "healthy", "Whether the process runs",
        {200: Answer("It does", (_TEXT,))},
    ),
    Operation(
        "GET", "/-/ready", "ready_to_serve", "Whether the exporter serves",
        {200: Answer("It does", (_TEXT,)), 503: Answer("It starts, or stops", (_TEXT,))},
    ),
)  # fmt: skip

_MI = tuple(
    Operation(
        "POST", path, name, says,
        {
            200: Answer("The answer, also where it is an error of JSON-RPC", (Body(MiAnswer),)),
            202: Answer("It was a notification, which is not answered"),
            400: Answer("It is none that OpenSIPS would answer", _PROBLEM),
            **_NOT_ALLOWED,
            404: Answer("The path has a part too many", _PROBLEM),
            415: Answer("Content-Type is not application/json", _PROBLEM),
            **_NOT_KEPT,
        },
        parts,
        (Body(MiRequest),),
        writes=True,
    )
    for path, name, says, parts in (
        ("/mi", "mi", "Ask, or set, what is held of the source `push` as of an OpenSIPS 4.0", ()),
        ("/mi/{source}", "mi_source", "The same of any source", (_SOURCE_PART,)),
    )
)  # fmt: skip

OPERATIONS: tuple[Operation, ...] = (*_READ, *_WRITING, *_ALERTS, *_SERVER, *_MI)
