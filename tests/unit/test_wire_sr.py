"""Answers of Status/Report commands, read as they were recorded and as they might be garbled."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sr_exporter.model import ListedReports, ListedStatus, Report, fold
from sr_exporter.wire import jsonrpc, sr
from sr_exporter.wire.text import Undecodable
from tests.recorded_mi import OTHER_SERVICES, RECORDINGS, Exchange, exchanges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: With the other properties of this file: 10,000 inputs.
garbled = settings(max_examples=1_200)

DECODERS: tuple[Callable[[bytes], object], ...] = (
    sr.statuses,
    sr.reports,
    sr.identifiers,
    sr.version,
    sr.uptime,
    lambda result: sr.status(result, "group", "identifier"),
    lambda result: sr.group_statuses(result, "group"),
    lambda result: sr.group_reports(result, "group"),
    lambda result: sr.identifier_reports(result, "group", "identifier"),
)


# --- what was recorded, read by another reader --------------------------------------------


def read(body: bytes) -> Any:
    return json.loads(body.decode("utf-8", "replace"))


def a_status(group: str, identifier: str, said: dict[str, Any]) -> ListedStatus:
    return ListedStatus(group, identifier, said["Status"], said["Readiness"], said.get("Details"))


def a_ring(listed: list[dict[str, Any]]) -> tuple[Report, ...]:
    return tuple(Report(item["Timestamp"], item["Log"].removesuffix("\n")) for item in listed)


def check_against(result: bytes, said: Any) -> str:
    """Compare what the fitting decoder reads with what stdlib's reader did; name the decoder."""
    if isinstance(said, dict):
        return _check_object(result, said)
    inner = [item for group in said if isinstance(group, dict) for item in _inner(group)]
    first = said[0] if said and isinstance(said[0], dict) else {}
    if "Readiness" in first or "Reports" in first or "Timestamp" in first:
        return _check_part(result, said)
    if "Group" in first:
        expected = tuple((group["Group"], tuple(group["Identifiers"])) for group in said)
        assert sr.identifiers(result) == sr.Identifiers(expected)
        return "identifiers"
    if inner and "Status" in inner[0]:
        statuses = tuple(
            a_status(group["Name"], item["Name"], item)
            for group in said
            for item in group["Identifiers"]
        )
        assert sr.statuses(result) == sr.Statuses(statuses, frozenset(), complete=True, faults=())
        return "statuses"
    if inner and "Reports" in inner[0]:
        rings = tuple(
            ListedReports(group["Name"], item["Name"], a_ring(item["Reports"]))
            for group in said
            for item in group["Identifiers"]
        )
        assert sr.reports(result) == sr.Reports(rings, faults=())
        return "reports"
    return "other"


def _check_part(result: bytes, said: list[dict[str, Any]]) -> str:
    """Compare what was listed of one group, or of one identifier."""
    if "Readiness" in said[0]:
        statuses = tuple(a_status("g", item["Name"], item) for item in said)
        assert sr.group_statuses(result, "g") == sr.Statuses(
            statuses, frozenset(), complete=True, faults=()
        )
        return "statuses of a group"
    if "Reports" in said[0]:
        rings = tuple(ListedReports("g", item["Name"], a_ring(item["Reports"])) for item in said)
        assert sr.group_reports(result, "g") == sr.Reports(rings, faults=())
        return "reports of a group"
    assert sr.identifier_reports(result, "g", "i") == sr.Reports(
        (ListedReports("g", "i", a_ring(said)),), faults=()
    )
    return "reports of an identifier"


def _inner(group: dict[str, Any]) -> list[Any]:
    return group["Identifiers"] if "Name" in group and "Identifiers" in group else []


def _check_object(result: bytes, said: dict[str, Any]) -> str:
    if "Readiness" in said:
        assert sr.status(result, "g", "i") == a_status("g", "i", said)
        return "status"
    if "Server" in said:
        assert sr.version(result) == said["Server"].removeprefix("OpenSIPS (").partition(" ")[0]
        return "version"
    if "Up time" in said:
        assert sr.uptime(result) == int(said["Up time"].removesuffix(" [sec]"))
        return "uptime"
    if "Group" in said:
        expected = ((said["Group"], tuple(said["Identifiers"])),)
        assert sr.identifiers(result) == sr.Identifiers(expected)
        return "identifiers"
    return "other"


def check_reply(body: bytes) -> str:
    """Compare a whole reply; name what it was."""
    document = read(body)
    request_id = document["id"] if type(document["id"]) is int else 1
    if "error" in document:
        error = document["error"]
        with pytest.raises(jsonrpc.RpcError) as caught:
            jsonrpc.result(body, request_id=request_id)
        data = f": {error['data']}" if "data" in error else ""
        assert (caught.value.code, caught.value.message) == (
            error["code"],
            error["message"] + data,
        )
        return "error"
    if type(document["id"]) is not int:
        with pytest.raises(Undecodable):
            jsonrpc.result(body)
        return "foreign id"
    result = jsonrpc.result(body, request_id=request_id)
    assert read(result) == document["result"]
    return check_against(result, document["result"])


ANSWERED = [e for e in exchanges(without=OTHER_SERVICES) if e.status == 200 and e.answer_body]


@pytest.mark.parametrize("exchange", ANSWERED, ids=str)
def test_recorded_answers_are_read_as_another_reader_reads_them(exchange):
    """Every recorded answer gives the values, or the error, that stdlib's JSON finds in it."""
    check_reply(exchange.answer_body.partition(b"HTTP/1.1 ")[0])


def test_recorded_answers_are_of_every_kind():
    """No kind of answer goes unchecked because its recording is not recognised."""
    kinds = [check_reply(e.answer_body.partition(b"HTTP/1.1 ")[0]) for e in ANSWERED]
    assert {kind: kinds.count(kind) > 2 for kind in set(kinds)} == dict.fromkeys(
        (
            "statuses", "reports", "identifiers", "status", "version", "uptime", "error",
            "foreign id", "other", "statuses of a group", "reports of a group",
            "reports of an identifier",
        ),
        True,
    )  # fmt: skip


DATAGRAMS = [
    path
    for flavour in ("dgram", "fifo")
    for path in sorted(RECORDINGS.glob(f"*/{flavour}/*.res"))
    if path.read_bytes().startswith(b"{")
]


@pytest.mark.parametrize(
    "path", DATAGRAMS, ids=lambda path: str(path.relative_to(RECORDINGS)).removesuffix(".res")
)
def test_answers_over_datagram_and_fifo_are_the_same_json(path):
    """The other transports carry the same replies."""
    check_reply(path.read_bytes())


@pytest.mark.parametrize("name", ["sr_list_status", "sr_list_reports", "sr_list_identifiers"])
def test_big_answers_are_read_whole(name):
    """A server with a thousand registrants is listed to the last of them."""
    answer = (RECORDINGS / "4.0" / "big" / f"N1000-{name}.res").read_bytes()
    body = answer.partition(b"\r\n\r\n")[2]
    assert check_reply(body) in {"statuses", "reports", "identifiers"}
    registrants = next(
        group["Identifiers"]
        for group in read(body)["result"]
        if "uac_registrant" in (group.get("Name"), group.get("Group"))
    )
    assert len(registrants) >= 1000


def escaped(suffix: str = "") -> list[Any]:
    return sorted(RECORDINGS.glob(f"*/escaping/esc-{suffix}*.json"))


@pytest.mark.parametrize(
    "path", escaped(), ids=lambda path: f"{path.parent.parent.name}/{path.stem}"
)
def test_escapes_are_read_as_another_reader_reads_them(path):
    """Quotes, control characters and bytes that are no UTF-8 come out as stdlib shows them."""
    body = path.read_bytes().strip()
    if path.stem != "esc-reports":
        assert check_reply(body) == "status"
        return
    # One identifier's ring: the wire has it inside a group's list.
    ring = jsonrpc.result(body)
    listed = b'[{"Name":"g","Identifiers":[{"Name":"i","Reports":%b}]}]' % ring
    assert sr.reports(listed).reports == (ListedReports("g", "i", a_ring(read(body)["result"])),)


@pytest.mark.parametrize(
    ("stem", "shown"),
    [("bad_ff", "a\ufffdb"), ("bad_trunc", "abc\ufffd"), ("bad_surr", "\ufffd\ufffd\ufffd")],
)
def test_invalid_utf8_costs_a_character_and_not_the_list(stem, shown):
    """A bad byte in one identifier's details is replaced, and every other one is listed."""
    (path,) = (path for path in escaped(stem) if path.parent.parent.name == "4.0")
    bad = path.read_bytes().partition(b'"Details":')[2].partition(b"}")[0]
    assert b"\\" not in bad
    with pytest.raises(UnicodeDecodeError):
        bad.decode()
    body = Exchange("4.0", "status-noparams").answer_body
    before = sr.statuses(jsonrpc.result(body)).statuses
    details = b'"Details":"data available"'
    assert details in body
    after = sr.statuses(jsonrpc.result(body.replace(details, b'"Details":' + bad, 1)))
    assert after.faults == ()
    assert after.complete
    assert after.partial_groups == frozenset()
    (changed,) = (new for old, new in zip(before, after.statuses, strict=True) if old != new)
    assert changed.details == shown


# --- particular rules ------------------------------------------------------------------------


def one_status(item: bytes) -> ListedStatus:
    (listed,) = sr.statuses(b'[{"Name":"g","Identifiers":[%b]}]' % item).statuses
    return listed


@pytest.mark.parametrize(
    ("details", "held"),
    [
        (b"", None),
        (b',"Details":""', ""),
        (b',"Details":null', None),
        (b',"Details":" x "', " x "),
        (b',"Details":"line\\n"', "line\n"),
        (b',"Details":"\\ud800"', "\ufffd"),
    ],
)
def test_details_absent_and_empty_are_different(details, held):
    """Details never set are None, empty ones are empty, and nothing of them is trimmed."""
    shown = one_status(b'{"Name":"i","Readiness":true,"Status":1%b}' % details).details
    assert (shown or "").rstrip("\ufffd") == (held or "").rstrip("\ufffd")
    assert (shown is None) == (held is None)


@pytest.mark.parametrize(
    ("readiness", "status", "held", "ready"),
    [
        (b"true", b"0", 1, True),
        (b"false", b"0", -1, False),
        (b"true", b"2", 2, True),
        (b"false", b"-2147483648", -2147483648, False),
        (b"true", b"2147483647", 2147483647, True),
        (b"false", b"5", 5, False),
        (b"true", b"-5", -5, True),
    ],
)
def test_readiness_is_what_the_source_says(readiness, status, held, ready):
    """A listed 0 is held as the readiness has it; any other status is held as it is."""
    listed = one_status(b'{"Name":"i","Readiness":%b,"Status":%b}' % (readiness, status))
    assert (listed.status, listed.ready) == (held, ready)


@pytest.mark.parametrize(
    ("said", "held"),
    [("a\\n", "a"), ("a\\n\\n", "a\n"), ("a", "a"), ("\\n", ""), ("a\\r\\n", "a\r")],
)
def test_one_trailing_newline_of_a_log_is_stripped(said, held):
    """One newline at the end is how some modules write; a second one was meant."""
    listed = sr.reports(
        b'[{"Name":"g","Identifiers":[{"Name":"i","Reports":'
        b'[{"Timestamp":7,"Date":"","Log":"%b"}]}]}]' % said.encode()
    )
    assert listed.reports == (ListedReports("g", "i", (Report(7, held),)),)


@pytest.mark.parametrize(
    ("server", "version"),
    [
        ("OpenSIPS (3.4.18 (x86_64/linux))", "3.4.18"),
        ("OpenSIPS (4.1.0-dev (x86_64/linux))", "4.1.0-dev"),
        ("something else", "something else"),
    ],
)
def test_version_is_the_bare_one(server, version):
    """Of what `version` answers only the version is held, where there is one."""
    assert sr.version(json.dumps({"Server": server}).encode()) == version


@pytest.mark.parametrize("said", ["", "x", "-1 [sec]", "1" * 13, "86s"])
def test_up_time_that_is_none_is_refused(said):
    """An up time that does not begin with a number of seconds is malformed."""
    with pytest.raises(Undecodable):
        sr.uptime(json.dumps({"Up time": said}).encode())


@pytest.mark.parametrize("result", [b"{}", b"null", b"1", b'"x"', b"", b"[", b"\xff"])
def test_no_list_at_all_is_refused(result):
    """What is no list is malformed, not a server without groups or a group without anything."""
    for decoder in (
        sr.statuses,
        sr.reports,
        partial(sr.group_statuses, group="g"),
        partial(sr.group_reports, group="g"),
        partial(sr.identifier_reports, group="g", identifier="i"),
    ):
        with pytest.raises(Undecodable):
            decoder(result)


def test_empty_list_is_a_server_without_groups():
    """A list without groups is a good answer."""
    assert sr.statuses(b"[]") == sr.Statuses((), frozenset(), complete=True, faults=())
    assert sr.reports(b"[]") == sr.Reports((), ())
    assert sr.identifiers(b"[]") == sr.Identifiers(())


def test_empty_list_of_a_part_is_a_part_without_anything():
    """A group may have no identifiers, and an identifier an empty ring."""
    assert sr.group_statuses(b"[]", "g") == sr.Statuses((), frozenset(), complete=True, faults=())
    assert sr.group_reports(b"[]", "g") == sr.Reports((), ())
    ring = ListedReports("g", "i", ())
    assert sr.identifier_reports(b"[]", "g", "i") == sr.Reports((ring,), ())


def test_group_without_a_name_makes_the_list_incomplete():
    """An unnamed group may be any: the others are listed, and nothing may be removed."""
    good = b'{"Name":"g","Identifiers":[{"Name":"i","Readiness":true,"Status":1}]}'
    listed = sr.statuses(b"[%b,{},%b,3]" % (good, good.replace(b'"g"', b'"h"')))
    assert [(item.group, item.identifier) for item in listed.statuses] == [("g", "i"), ("h", "i")]
    assert not listed.complete
    assert len(listed.faults) == 2


# --- properties ------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | finite | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
good_items = st.fixed_dictionaries(
    {
        "Name": names,
        "Readiness": st.booleans(),
        "Status": st.integers(-(2**31), 2**31 - 1).filter(bool),
    },
    optional={"Details": st.text(max_size=5)},
)
bad_items = st.one_of(
    values.filter(lambda value: not isinstance(value, dict)),
    good_items.map(lambda item: item | {"Status": "1"}),
    good_items.map(lambda item: item | {"Status": 2**31}),
    good_items.map(lambda item: item | {"Readiness": 1}),
    good_items.map(lambda item: item | {"Details": 1}),
    good_items.map(lambda item: item | {"Name": ""}),
    good_items.map(lambda item: {k: v for k, v in item.items() if k != "Name"}),
)


def tagged(good: bool) -> Callable[[Any], tuple[bool, Any]]:
    return lambda item: (good, item)


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(
            names, st.lists(good_items.map(tagged(True)) | bad_items.map(tagged(False)), max_size=4)
        ),
        max_size=3,
    )
)
def test_one_bad_item_never_loses_the_others(groups):
    """All good items are listed whatever stands between them, and each bad one is told of."""
    document = [
        {"Name": group, "Identifiers": [item for _, item in items]} for group, items in groups
    ]
    listed = sr.statuses(json.dumps(document).encode())
    assert listed.statuses == tuple(
        a_status(group, item["Name"], item)
        for group, items in groups
        for good, item in items
        if good
    )
    assert listed.complete
    assert listed.partial_groups == {
        fold(group) for group, items in groups if not all(good for good, _ in items)
    }
    assert len(listed.faults) == sum(not good for _, items in groups for good, _ in items)


@settings(max_examples=500)
@given(names, st.lists(good_items.map(tagged(True)) | bad_items.map(tagged(False)), max_size=4))
def test_one_bad_item_never_loses_the_others_of_its_group(group, items):
    """A group that is asked for by its name is read as it is among the others."""
    document = [item for _, item in items]
    listed = sr.group_statuses(json.dumps(document).encode(), group)
    whole = sr.statuses(json.dumps([{"Name": group, "Identifiers": document}]).encode())
    assert listed == whole
    assert len(listed.statuses) == sum(good for good, _ in items)


good_reports = st.fixed_dictionaries(
    {"Timestamp": st.integers(0, 2**40), "Date": st.text(max_size=3), "Log": st.text(max_size=5)}
)
bad_reports = st.one_of(
    values.filter(lambda value: not isinstance(value, dict)),
    good_reports.map(lambda item: item | {"Timestamp": -1}),
    good_reports.map(lambda item: item | {"Log": None}),
)


@settings(max_examples=500)
@given(st.lists(good_reports.map(tagged(True)) | bad_reports.map(tagged(False)), max_size=5))
def test_one_bad_report_never_loses_the_others(items):
    """A ring with a bad line in it is listed without that line."""
    document = [
        {
            "Name": "g",
            "Identifiers": [
                {"Name": "i", "Reports": [item for _, item in items]},
                {"Name": "j", "Reports": []},
            ],
        }
    ]
    listed = sr.reports(json.dumps(document).encode())
    assert listed.reports == (
        ListedReports("g", "i", a_ring([item for good, item in items if good])),
        ListedReports("g", "j", ()),
    )
    assert len(listed.faults) == sum(not good for good, _ in items)
    group = json.dumps(document[0]["Identifiers"]).encode()
    assert sr.group_reports(group, "g") == listed
    ring = json.dumps([item for _, item in items]).encode()
    alone = sr.identifier_reports(ring, "g", "i")
    assert alone == sr.Reports(listed.reports[:1], listed.faults)


raw_names = st.binary(min_size=1, max_size=6).filter(
    lambda raw: all(byte >= 0x20 and byte not in b'"\\' for byte in raw)
)


@settings(max_examples=1_500)
@given(st.lists(raw_names, min_size=2, max_size=5, unique=True))
@example([b"\xff", b"\xfe", b"\xed\xa0\x80", b"\xef\xbf\xbd"])
def test_two_names_never_merge(raw):
    """Names of different bytes stay different names, though some are no UTF-8, and encodable."""
    group = b'{"Group":"g","Identifiers":[%b]}' % b",".join(b'"%b"' % name for name in raw)
    ((_, read_names),) = sr.identifiers(group).groups
    assert len(set(read_names)) == len(raw)
    for name in read_names:
        name.encode()
    assert read_names == tuple(name.decode("utf-8", "backslashreplace") for name in raw)


def feed(body: bytes) -> None:
    """Have everything read it; nothing but the two promised errors may come of it."""
    try:
        result = jsonrpc.result(body)
    except (Undecodable, jsonrpc.RpcError) as error:
        str(error).encode()
    else:
        feed_result(result)


def feed_result(result: bytes) -> None:
    for decoder in DECODERS:
        try:
            read_value = decoder(result)
        except Undecodable as error:
            str(error).encode()
        else:
            repr_of(read_value).encode()


def repr_of(value: object) -> str:
    """Join all strings inside a value: each must be encodable."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | frozenset):
        return "".join(map(repr_of, value))
    return ""


@garbled
@given(st.binary(max_size=200))
@example(b'{"id":1,"error":{"\xff":1,"code":1,"message":"x\xff"}}')
@example(b'{"id":1,"error":{"code":1,"message":"\\ud800"}}')
@example(b'{"id":1,"error":{"code":1,"message":"x","data":"\xff"}}')
@example(b'{"id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
@example(b'{"id":1,"result":[{"Name":"g","Identifiers":[{"\xff":2}]}]}')
@example(b'{"id":1,"result":{"\xff":2}}')
@example(b"[]")
@example(b'{"id":' + b"1" * 5000 + b',"result":[]}')
def test_arbitrary_bytes_are_undecodable_at_worst(body):
    """Whatever bytes come back, reading them ends in values or in one of two errors."""
    feed(body)
    feed_result(body)


SMALL = [
    exchange.answer_body
    for exchange in ANSWERED
    if exchange.version == "4.0" and len(exchange.answer_body) < 4_000
] + [path.read_bytes().strip() for path in escaped() if path.parent.parent.name == "4.0"]

mutations = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert"]),
        st.integers(0, 4_000),
        st.integers(0, 255),
        st.binary(min_size=1, max_size=4) | st.sampled_from([b"\xff", b'"', b"\\", b"{", b"]"]),
    ),
    min_size=1,
    max_size=4,
)


def mutated(body: bytes, steps: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, place, number, inserted in steps:
        at = place % (len(body) + 1)
        if kind == "flip" and at < len(body):
            body = body[:at] + bytes([body[at] ^ (1 << number % 8)]) + body[at + 1 :]
        elif kind == "cut":
            body = body[:at] + body[at + number :]
        else:
            body = body[:at] + inserted + body[at:]
    return body


@garbled
@given(st.sampled_from(SMALL), mutations)
def test_garbled_recordings_are_undecodable_at_worst(body, steps):
    """Recorded answers with bytes flipped, cut and inserted raise nothing unforeseen."""
    garble = mutated(body, steps)
    feed(garble)
    feed_result(garble)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Give every container in a document with every index or key in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


def as_json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


@garbled
@given(st.sampled_from(SMALL), st.integers(0, 10_000), values, st.booleans())
def test_replaced_values_are_undecodable_at_worst(body, place, value, inside):
    """A recorded answer with any one of its values replaced raises nothing unforeseen."""
    document = read(body)
    root = document["result"] if inside and isinstance(document.get("result"), list) else document
    found = list(places(root))
    if found:
        container, key = found[place % len(found)]
        container[key] = value
    feed(as_json(document))
    feed_result(as_json(document.get("result")) if isinstance(document, dict) else b"")


def test_a_listing_of_nothing_but_faults_is_given_up():
    """Naming a million wrong items would cost more than the listing is worth."""
    with pytest.raises(Undecodable, match="more than 1000 items are wrong"):
        sr.statuses(b"[" + b"{}," * 200_000 + b"{}]")
    with pytest.raises(Undecodable, match="more than 1000 items are wrong"):
        sr.reports(b"[" + b"{}," * 200_000 + b"{}]")
    for decoder in (sr.group_statuses, sr.group_reports):
        with pytest.raises(Undecodable, match="more than 1000 items are wrong"):
            decoder(b"[" + b"{}," * 200_000 + b"{}]", "g")
