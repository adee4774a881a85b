"""The grammar of push bodies: every field, every shape, and what is said of each mistake."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sr_exporter.errors import ItemFault, PushRefused
from sr_exporter.model import OnExpiry, Origin, Report, Statement, Way
from sr_exporter.wire.push import statements
from tests.recorded_mi import RECORDINGS

if TYPE_CHECKING:
    from pathlib import Path

EVENT = (
    b'{"jsonrpc":"2.0","method":"E_CORE_SR_STATUS_CHANGED","params":{"group":"drouting",'
    b'"identifier":"us","status":2,"details":"data re-loading","old_status":1}}'
)


def refused(body: bytes) -> PushRefused:
    with pytest.raises(PushRefused) as caught:
        statements(body)
    return caught.value


def item(**fields: Any) -> bytes:
    return json.dumps({"group": "g", **fields}).encode()


# --- shapes of a body ------------------------------------------------------------------------

ONE = Statement("push", "g", "main", 1)
TWO = Statement("push", "h", "main", -1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"group":"g","status":1}', [ONE]),
        (b'  {"group":"g","status":1}\r\n', [ONE]),
        (b'\n\n{\n "group": "g",\n "status": 1\n}\n', [ONE]),
        (b'{\r\n"group": "g",\r\n"status": 1}', [ONE]),
        (b"[]", []),
        (b" [ ] ", []),
        (b'[{"group":"g","status":1}]', [ONE]),
        (b'[{"group":"g","status":1},{"group":"h","status":-1}]', [ONE, TWO]),
        (b'[\n{"group":"g",\n"status":1},\n\n{"group":"h","status":-1}\n]', [ONE, TWO]),
        (b'{"group":"g","status":1}\n{"group":"h","status":-1}', [ONE, TWO]),
        (b'{"group":"g","status":1}\r\n{"group":"h","status":-1}\r\n', [ONE, TWO]),
        (b'\n{"group":"g","status":1}\n\n \t\r\n{"group":"h","status":-1}\n\n', [ONE, TWO]),
        (b'{"group":"g","status":1}\n{"group":"g","status":1}', [ONE, ONE]),
    ],
)
def test_shapes_of_a_body(body, expected):
    """An array, lines of objects, or one object however it is laid out; blanks do not count."""
    assert statements(body) == expected


def test_items_come_in_the_order_they_have():
    """Items apply in order: the last word on a key is the last."""
    body = b"\n".join(item(status=status) for status in range(1, 50))
    assert [said.status for said in statements(body)] == list(range(1, 50))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is empty"),
        (b" \t\r\n\n", "the body is empty"),
        (b"[", "Input data was truncated"),
        (b"[1,2", "Input data was truncated"),
        (b'[{"group":"g","status":1}', "Input data was truncated"),
        (b'[]\n{"group":"g","status":1}', "JSON is malformed: trailing characters (byte 4)"),
        (b"[" * 100_000, "JSON is nested too deeply"),
    ],
    ids=lambda value: repr(value[:25]),
)
def test_a_body_that_is_none_has_no_items(body, error):
    """Where items cannot be told apart, the body as a whole is refused."""
    assert (refused(body).error, refused(body).items) == (error, ())


# --- fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": 1}, {"status": 1}),
        ({"status": -1}, {"status": -1}),
        ({"status": 0}, {"status": 0}),  # becomes 1 where it is held
        ({"status": 2**31 - 1}, {"status": 2**31 - 1}),
        ({"status": -(2**31)}, {"status": -(2**31)}),
        ({"status": 1, "identifier": "i"}, {"status": 1, "identifier": "i"}),
        ({"status": 1, "source": "s"}, {"status": 1, "source": "s"}),
        ({"status": 1, "source": None}, {"status": 1}),
        ({"status": 1, "details": "d"}, {"status": 1, "details": "d"}),
        ({"status": 1, "details": ""}, {"status": 1, "details": ""}),
        ({"status": 1, "details": None}, {"status": 1, "details": None}),
        ({"status": 1, "details": "d\n"}, {"status": 1, "details": "d\n"}),
        ({"reports": ["a"]}, {"reports": ("a",)}),
        ({"reports": ["a"], "details": None}, {"reports": ("a",)}),
        ({"reports": ["a\n", "b\n\n", ""]}, {"reports": ("a", "b\n", "")}),
        (
            {"status": 1, "reports": [{"log": "a\n", "timestamp": 7}, {"log": "b"}, "c"]},
            {"status": 1, "reports": (Report(7.0, "a"), "b", "c")},
        ),
        ({"reports": [{"log": "a", "timestamp": 7.5}]}, {"reports": (Report(7.5, "a"),)}),
        ({"reports": [{"log": "a", "timestamp": None}]}, {"reports": ("a",)}),
        ({"status": 1, "reports": []}, {"status": 1}),
        ({"status": 1, "ttl": 90}, {"status": 1, "ttl_seconds": 90.0}),
        ({"status": 1, "ttl": 0.5}, {"status": 1, "ttl_seconds": 0.5}),
        ({"status": 1, "ttl": "90s"}, {"status": 1, "ttl_seconds": 90.0}),
        ({"status": 1, "ttl": "1h30m"}, {"status": 1, "ttl_seconds": 5400.0}),
        ({"status": 1, "ttl": "10y"}, {"status": 1, "ttl_seconds": 315_360_000.0}),
        ({"status": 1, "ttl": None}, {"status": 1}),
        (
            {"status": 1, "ttl": 9, "on_expiry": "remove"},
            {"status": 1, "ttl_seconds": 9.0, "on_expiry": OnExpiry.REMOVE},
        ),
        ({"status": 1, "ttl": 9, "on_expiry": "not_ready"}, {"status": 1, "ttl_seconds": 9.0}),
        ({"status": 1, "at": 1795377166}, {"status": 1, "at": 1795377166.0}),
        ({"status": 1, "at": 0}, {"status": 1, "at": 0.0}),
        ({"status": 1, "at": 1795377166.25}, {"status": 1, "at": 1795377166.25}),
        (
            {"status": 1, "old_status": -1},
            {"status": 1, "old_status": -1, "origin": Origin.EVENT, "way": Way.HTTP},
        ),
    ],
)
def test_fields_of_an_item(fields, expected):
    """Every field an item may have, alone and with what it needs."""
    assert statements(item(**fields)) == [
        Statement(**{"source": "push", "group": "g", **expected})  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("said", [None, "mine"])
def test_the_query_names_the_source_of_items_that_do_not(said):
    """What an item says of its source goes before what the request says."""
    fields = {"status": 1} if said is None else {"status": 1, "source": said}
    (statement,) = statements(item(**fields), source="theirs")
    assert statement.source == (said or "theirs")


INT = "Expected `int`, got `{}` - at `$.status`"
TTL = "ttl: more than 0 seconds, and at most 10 years"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (item(status=True), INT.format("bool")),
        (item(status=1.0), INT.format("float")),
        (item(status=1.5), INT.format("float")),
        (item(status="1"), INT.format("str")),
        (item(status=None), INT.format("null")),
        (item(status=[1]), INT.format("array")),
        (item(status=2**31), "Expected `int` <= 2147483647 - at `$.status`"),
        (item(status=-(2**31) - 1), "Expected `int` >= -2147483648 - at `$.status`"),
        (b'{"status":1}', "Object missing required field `group`"),
        (item(group="", status=1), "Expected `str` of length >= 1 - at `$.group`"),
        (item(group=None, status=1), "Expected `str`, got `null` - at `$.group`"),
        (item(group=1, status=1), "Expected `str`, got `int` - at `$.group`"),
        (item(identifier="", status=1), "Expected `str` of length >= 1 - at `$.identifier`"),
        (item(identifier=None, status=1), "Expected `str`, got `null` - at `$.identifier`"),
        (item(source="", status=1), "Expected `str` of length >= 1 - at `$.source`"),
        (item(source=1, status=1), "Expected `str | null`, got `int` - at `$.source`"),
        (item(details=1, status=1), "Expected `str | null`, got `int` - at `$.details`"),
        (item(), "status or reports is required"),
        (item(reports=[]), "status or reports is required"),
        (item(details="d"), "details: only together with status"),
        (item(details="", reports=["a"]), "details: only together with status"),
        (item(old_status=1, reports=["a"]), "old_status: only together with status"),
        (
            item(old_status=True, status=1),
            "Expected `int | null`, got `bool` - at `$.old_status`",
        ),
        (item(reports=None, status=1), "Expected `array`, got `null` - at `$.reports`"),
        (item(reports="a", status=1), "Expected `array`, got `str` - at `$.reports`"),
        (item(reports=["a", 1]), "Expected `str | object`, got `int` - at `$.reports[1]`"),
        (item(reports=[{}]), "Object missing required field `log` - at `$.reports[0]`"),
        (item(reports=[{"log": 1}]), "Expected `str`, got `int` - at `$.reports[0].log`"),
        (
            item(reports=[{"log": "a", "timestamp": "1"}]),
            "Expected `float | null`, got `str` - at `$.reports[0].timestamp`",
        ),
        (
            item(reports=[{"log": "a", "timestamp": -1}]),
            "Expected `float` >= 0.0 - at `$.reports[0].timestamp`",
        ),
        (
            item(reports=[{"log": "a", "date": "x"}]),
            "Object contains unknown field `date` - at `$.reports[0]`",
        ),
        (item(status=1, ttl=True), "Expected `float | str | null`, got `bool` - at `$.ttl`"),
        (item(status=1, ttl=0), TTL),
        (item(status=1, ttl=-1), TTL),
        (item(status=1, ttl="0"), TTL),
        (item(status=1, ttl=315_360_001), TTL),
        (item(status=1, ttl="11y"), TTL),
        (item(status=1, ttl=1e308), TTL),
        (
            item(status=1, ttl="90"),
            (
                "ttl: not a duration: write a number and a unit, as in 90s, 1h30m or 500ms "
                "(units y w d h m s ms, in this order, each once)"
            ),
        ),
        (item(status=1, ttl="300y"), "ttl: too long: a duration is at most 292y"),
        (item(status=1, on_expiry="remove"), "on_expiry: only together with ttl"),
        (
            item(status=1, ttl=1, on_expiry="forget"),
            "Invalid enum value 'forget' - at `$.on_expiry`",
        ),
        (item(status=1, at="now"), "Expected `float | null`, got `str` - at `$.at`"),
        (item(status=1, at=-1), "Expected `float` >= 0.0 - at `$.at`"),
        (
            item(status=1, at=1795377166000),
            "Expected `float` <= 1099511627776.0 - at `$.at`",
        ),
        (item(status=1, detials="d"), "Object contains unknown field `detials`"),
        (item(Status=1), "Object contains unknown field `Status`"),
        (b'{"group":"g","status":1,"\xff":2}', "Object contains unknown field `\\xff`"),
        (
            b'{"group":"g","status":"\xff"}',
            "invalid UTF-8 in the place of another value",
        ),
        (b"[[]]", "an object is expected, not an array"),
        (b"null", "an object is expected, not null"),
        (b"true", "an object is expected, not a bool"),
        (b"1", "an object is expected, not a number"),
        (b"1.5", "an object is expected, not a number"),
        (b'"x"', "an object is expected, not a string"),
        (b'{"group":"g"', "Input data was truncated"),
        (b'{"group":"g","status":1}x', "JSON is malformed: trailing characters (byte 25)"),
        (b'{"group":"g","status":NaN}', "JSON is malformed: invalid character (byte 22)"),
        (b"\xff", "JSON is malformed: invalid character (byte 0)"),
        (EVENT.replace(b"2.0", b"1.0"), "Invalid enum value '1.0' - at `$.jsonrpc`"),
        (EVENT.replace(b"E_CORE", b"E_XORE"),
         "Invalid enum value 'E_XORE_SR_STATUS_CHANGED' - at `$.method`"),
        (b'{"method":"x","group":"g","status":1}', "Invalid enum value 'x' - at `$.method`"),
        (EVENT.replace(b',"old_status":1', b""),
         "Object missing required field `old_status` - at `$.params`"),
        (EVENT.replace(b'"details"', b'"text"'),
         "Object contains unknown field `text` - at `$.params`"),
        (EVENT.replace(b'"status":2', b'"status":2.0'),
         "Expected `int`, got `float` - at `$.params.status`"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_wrong_item(body, error):
    """Each mistake is named by its place, and nothing is taken."""
    found = refused(body)
    assert found.items == (ItemFault(0, error),)
    assert found.error == "1 item is wrong; nothing was taken"


def test_every_wrong_item_is_told_of_by_its_number():
    """All mistakes are told at once, numbered from 0; blank lines do not count."""
    lines = [item(status=1), b"", item(status=True), b"{", b"  ", item(reports=["a"]), b"7"]
    found = refused(b"\n".join(lines))
    assert found.items == (
        ItemFault(1, INT.format("bool")),
        ItemFault(2, "Input data was truncated"),
        ItemFault(4, "an object is expected, not a number"),
    )
    assert found.error == "3 items are wrong; nothing was taken"
    in_array = refused(b"[" + b",".join([item(status=1), item(status=True), b"7"]) + b"]")
    assert [fault.index for fault in in_array.items] == [1, 2]


def test_invalid_utf8_is_mended_and_told_apart():
    """A text shows U+FFFD, a name shows its bytes, so that two names stay two."""
    (said,) = statements(
        b'{"group":"a\xff","identifier":"b\xfe","source":"c\xfd","status":1,'
        b'"details":"d\xfc","reports":["e\xfb\\n",{"log":"f\xfa"}]}'
    )
    assert (said.group, said.identifier, said.source) == ("a\\xff", "b\\xfe", "c\\xfd")
    assert said.details == "d\ufffd"
    assert said.reports == ("e\ufffd", "f\ufffd")


# --- events ----------------------------------------------------------------------------------


def recorded(path: Path) -> list[bytes]:
    """Give what a listener's log holds: `@time length peer`, then so many raw bytes."""
    data = path.read_bytes()
    found = []
    place = 0
    while header := re.compile(rb"\s*@[0-9.]+ ([0-9]+)[^\n]*\n").match(data, place):
        place = header.end() + int(header[1])
        found.append(data[header.end() : place])
    return found


def bodies(path: Path) -> list[str]:
    """Give the objects in a log: of an HTTP request its body; of a stream what is in it."""
    found = []
    for chunk in recorded(path):
        text = chunk.decode("utf-8", "surrogateescape")
        if chunk.startswith(b"POST "):
            text = text.partition("\r\n\r\n")[2]
        while text := text.strip():
            _, end = json.JSONDecoder().raw_decode(text)
            found.append(text[:end])
            text = text[end:]
    return found


LOGS = sorted(RECORDINGS.glob("*/ev*/ev-*.log"))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: str(path.relative_to(RECORDINGS)))
def test_recorded_events_are_statements(path):
    """Every event of every transport is an item, in either spelling, and none says who it is."""
    for text in bodies(path):
        raw = text.encode("utf-8", "surrogateescape")
        document = json.loads(raw.decode("utf-8", "replace"))
        params = document.get("params", document)
        assert statements(raw, source="sip-1") == [
            Statement(
                source="sip-1",
                group=params["group"],
                identifier=params["identifier"],
                status=params["status"],
                details=params.get("details"),
                old_status=params["old_status"],
                origin=Origin.EVENT,
                way=Way.HTTP,
            )
        ]


def test_recorded_events_come_in_both_spellings():
    """The recordings hold what a script posts and JSON-RPC with and without an id."""
    documents = [json.loads(text) for path in LOGS for text in bodies(path)]
    spellings = [(("params" in said), ("id" in said)) for said in documents]
    for spelling in ((False, False), (True, False), (True, True)):
        assert spellings.count(spelling) > 10


def test_several_events_are_one_push():
    """Events may be pushed together, and with other items."""
    read = statements(b"[%b,%b,%b]" % (EVENT, item(status=1), EVENT))
    assert [said.origin for said in read] == [Origin.EVENT, Origin.PUSH, Origin.EVENT]
    assert len(statements(EVENT + b"\n" + EVENT)) == 2


# --- properties ------------------------------------------------------------------------------

FIELDS = (
    "group", "identifier", "source", "status", "details", "reports", "ttl", "on_expiry", "at",
    "old_status", "jsonrpc", "method", "params", "log", "timestamp", "id",
)  # fmt: skip
texts = st.sampled_from(
    ["g", "", "90s", "remove", "2.0", "E_CORE_SR_STATUS_CHANGED", "\ud800", "\udcff"]
) | st.text(max_size=5)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([1, -1, 0])
    | st.floats()
    | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | texts, inner, max_size=4)
    ),
    max_leaves=8,
)


def feed(body: bytes) -> None:
    try:
        read = statements(body)
    except PushRefused as refusal:
        "".join([refusal.error, *(fault.error for fault in refusal.items)]).encode()
    else:
        for said in read:
            said_texts = [said.source, said.group, said.identifier, said.details or ""]
            "".join(said_texts).encode()
            assert said.status is not None or said.reports
            assert said.ttl_seconds is None or 0 < said.ttl_seconds <= 315_360_000


@settings(max_examples=3_000)
@given(st.binary(max_size=200))
@example(b'{"\\ud800":1}')
@example(b'{"\xff":1}')
@example(b'{"group":"g","status":' + b"1" * 5000 + b"}")
@example(b'{"group":"g","status":1,"ttl":' + b"9" * 5000 + b"}")
@example(b'{"group":"g","status":1,"at":1e999}')
@example(b'{"group":"g","reports":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
@example(b"\xef\xbb\xbf" + EVENT)
def test_arbitrary_bytes_are_refused_at_worst(body):
    """Whatever bytes are pushed, they are statements or refused with words that can be sent."""
    feed(body)


@pytest.mark.parametrize("shape", ["array", "lines", "raw"])
@settings(max_examples=1_000)
@given(
    documents=st.lists(
        st.dictionaries(st.sampled_from(FIELDS), values, max_size=6) | values, max_size=3
    )
)
def test_arbitrary_json_is_refused_at_worst(shape, documents):
    """Whatever JSON is pushed, it is statements or refused with words that can be sent."""
    lines = [
        json.dumps(document, ensure_ascii=shape != "raw").encode("utf-8", "surrogatepass")
        for document in documents
    ]
    feed(b"[" + b",".join(lines) + b"]" if shape == "array" else b"\n".join(lines))


@pytest.mark.parametrize("body", [b"[" + b"{}," * 50_000 + b"{}]", b"{}\n" * 50_000])
def test_a_body_of_nothing_but_faults_is_read_no_further(body):
    """A hundred wrong items are named; the answer does not grow with the body."""
    with pytest.raises(PushRefused) as refused:
        statements(body)
    assert refused.value.error == "at least 100 items are wrong; nothing was taken"
    assert [item.index for item in refused.value.items] == list(range(100))


@pytest.mark.parametrize(
    "body",
    [
        b'{"group":"g","status":1}',
        b' \n{"group":"g",\n"status":-2,"details":"\xc3\xa9"}\n',
        b'{"group":"g","status":1}\r\n\n{"group":"h","identifier":"i","source":"s","status":-1}\n',
        b'[{"group":"g","reports":["a\\n",{"log":"b\\n","timestamp":1}]},{"group":"g","status":2}]',
        b'{"group":"g","status":1,"old_status":-1,"at":5,"group":"h"}',
        b'{"group":"g","status":1,"ttl":"30s","on_expiry":"remove"}\n{"group":"g","status":1,"ttl":9}',
    ],
)
def test_the_short_way_reads_what_the_tolerant_one_reads(monkeypatch, body):
    short = statements(body, source="s0")

    def refuse(*_):
        raise ValueError

    monkeypatch.setattr("sr_exporter.wire.push._plain", refuse)
    assert statements(body, source="s0") == short
