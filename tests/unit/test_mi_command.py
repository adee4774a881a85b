"""`sr-exporter mi`: what it takes, what it refuses, and how it shows what came."""

from __future__ import annotations

import json

import pytest

from sr_exporter import mi_command
from sr_exporter.mi_command import EXIT_USAGE

URL = "http://192.0.2.1:8888/mi"


@pytest.fixture
def asked(monkeypatch):
    """Give each request that would be sent, and what it would be sent with."""
    sent = []

    async def ask(address, request, options):
        sent.append((address, json.loads(request), options))
        return b'{"jsonrpc":"2.0","result":"OK","id":1}'

    monkeypatch.setattr(mi_command, "_ask", ask)
    return sent


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        (["uptime"], None),
        (["sr_get_status", "core"], ["core"]),
        (["sr_get_status", "core", "--timeout=1m", "main"], ["core", "main"]),
        (["--timeout", "1m", "sr_get_status", "--", "-x", "--param"], ["-x", "--param"]),
        (["dr_reload", ""], [""]),
        (["sr_get_status", "Grüp"], ["Grüp"]),
        (
            ["sr_get_status", "--param", "group=core", "--param", "identifier=a=b"],
            {"group": "core", "identifier": "a=b"},
        ),
    ],
    ids=str,
)
def test_a_request_is_one_well_formed_object(arguments, params, asked, capsys):
    """With a small id, and `params` only when there are some (rule 1)."""
    assert mi_command.run([URL, *arguments]) == 0
    [(address, said, _)] = asked
    assert address == URL
    method = next(one for one in arguments if not one.startswith("-") and one != "1m")
    expected = {"jsonrpc": "2.0", "method": method, "id": 1}
    assert said == (expected if params is None else {**expected, "params": params})
    assert capsys.readouterr() == ('"OK"\n', "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: ADDRESS, METHOD"),
        ([URL], "required: METHOD"),
        ([URL, ""], "METHOD '' is refused"),
        ([URL, "subscribers_list"], "'subscribers_list' is refused"),
        ([URL, "evi:subscribers"], "'evi:subscribers' is refused"),
        ([URL, "subscribers"], "'subscribers' is refused"),
        ([URL, "sr_get_status", "x" * 1024], "OpenSIPS takes 1024"),
        ([URL, "sr_get_status", "\udcff"], "must be UTF-8"),
        ([URL, "sr_get_status", "core", "--param", "group=core"], "all named with --param"),
        ([URL, "sr_get_status", "--param", "a=1", "--param", "a=2"], "names a parameter twice"),
        ([URL, "sr_get_status", "--param", "core"], "'core' is not NAME=VALUE"),
        ([URL, "sr_get_status", "--param", "=core"], "'=core' is not NAME=VALUE"),
        ([URL, "--batch", "uptime"], "unrecognized arguments: --batch"),
        (["ftp://192.0.2.1/", "uptime"], "ADDRESS must begin with http://"),
        (["http://u:secret@192.0.2.1/mi", "uptime"], "ADDRESS must not hold a user name"),
        (["udp://192.0.2.1", "uptime"], "ADDRESS must have a port"),
        ([URL, "--timeout", "5", "uptime"], "not a duration"),
        ([URL, "--timeout", "0", "uptime"], "must be longer than 0"),
        ([URL, "--user", "u", "uptime"], "belong together"),
        ([URL, "--password-file", "p", "uptime"], "belong together"),
        ([URL, "--ca-file", "p", "uptime"], "--ca-file is for https:// only"),
        (
            ["udp://192.0.2.1:1", "--user", "u", "--password-file", "p", "uptime"],
            "--user is for http:// and https:// only",
        ),
        ([URL, "--user", "u:v", "--password-file", "p", "uptime"], "without a colon"),
        ([URL, "--user", "u", "--password-file", "/nonexistent/p", "uptime"], "cannot be read"),
        (["https://h/mi", "--ca-file", "/nonexistent/p", "uptime"], "cannot be read"),
    ],
    ids=str,
)
def test_what_is_wrong_or_harmful_is_not_sent(arguments, said, asked, capsys):
    """It ends with 2, says why, and shows no password."""
    with pytest.raises(SystemExit) as ended:
        mi_command.run(arguments)
    assert ended.value.code == EXIT_USAGE
    heard = capsys.readouterr()
    assert said in heard.err
    assert heard.out == ""
    assert "secret" not in heard.err
    assert asked == []


def test_credentials_and_trust_come_from_files(asked, tmp_path):
    """A password is one line; what is no certificate is refused."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    credentials = ["--user", "u", f"--password-file={password}"]
    assert mi_command.run([URL, *credentials, "--timeout=250ms", "uptime"]) == 0
    assert asked[0][2] == {"timeout_seconds": 0.25, "basic_auth": ("u", "secret")}
    for content in (b"", b"a\nb", b"\xff"):
        password.write_bytes(content)
        with pytest.raises(SystemExit):
            mi_command.run([URL, *credentials, "uptime"])
    with pytest.raises(SystemExit):
        mi_command.run(["https://h/mi", f"--ca-file={password}", "uptime"])
    assert len(asked) == 1


def test_bytes_that_are_no_utf_8_are_shown_as_names_and_texts():
    """A name as its bytes, a text with U+FFFD; lists of names too (rule 10)."""
    shown = mi_command._shown(
        b'[{"Group":"a\xff","Identifiers":["b\xff"]},{"Name":"c\xff","Details":"d\xff"}]'
    )
    assert json.loads(shown) == [
        {"Group": "a\\xff", "Identifiers": ["b\\xff"]},
        {"Name": "c\\xff", "Details": "d\ufffd"},
    ]


def test_nothing_that_a_terminal_obeys_is_shown(capsys):
    """Escapes of JSON in the result, and of Python in the one line of an error."""
    shown = mi_command._shown(b'"\\u001b[2J\x7f \xc2\x9b2J Gr\xc3\xbc\xc3\x9fe"')
    assert shown == r'"\u001b[2J\u007f \u009b2J Grüße"'
    assert json.loads(shown) == "\x1b[2J\x7f \x9b2J Grüße"
    mi_command._say("no\n\x1b[2J\x9bt good")
    assert capsys.readouterr().err == "sr-exporter: no\\n\\x1b[2J\\x9bt good\n"
