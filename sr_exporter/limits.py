"""The names of the limits (docs/limits.md)."""

from __future__ import annotations

import enum


class Limit(enum.StrEnum):
    """What is limited: the closed set of the label `limit`."""

    #: Connections to the HTTP server, and to the listener of events over TCP.
    CONNECTIONS = "connections"
    EVENT_CONNECTIONS = "event_connections"
    #: Descriptors that connections leave to the rest of the exporter.
    OPEN_FILES = "open_files"
    #: How long a request may take to come, and its answer to be taken.
    HEAD_TIME = "head_time"
    BODY_TIME = "body_time"
    ANSWER_TIME = "answer_time"
    #: How long an event may take to come over TCP.
    EVENT_TIME = "event_time"
    #: Requests that came before the one before them was answered.
    PIPELINED = "pipelined"
    #: How large the parts of a request may be.
    HEAD_BYTES = "head_bytes"
    URL_BYTES = "url_bytes"
    BODY_BYTES = "body_bytes"
    GZIP_MEMBERS = "gzip_members"
    #: Listeners of the journal.
    LISTENERS = "listeners"
    #: Identifiers of pushes and events that found no room.
    IDENTIFIERS = "identifiers"
    IDENTIFIERS_PER_SOURCE = "identifiers_per_source"
    #: Subjects of report texts that found no room.
    SUBJECTS = "subjects"
    #: Of names, which become labels; of details and reports.
    NAME_LENGTH = "name_length"
    TEXT_LENGTH = "text_length"
