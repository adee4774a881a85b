"""Whether something is ready, asked over HTTP as load balancers and Kubernetes ask."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sr_exporter.config import Config, Source
from tests.harness import RunningApp, free_port


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    # Nobody is there: it is lost from the start.
    config = Config(sources=(Source("gone", f"http://127.0.0.1:{free_port()}/mi"),))
    with RunningApp(tmp_path_factory.mktemp("check"), config) as running:
        running.client.push(
            {"group": "job", "status": 1, "details": "fine"},
            {"group": "Job", "identifier": "b", "status": -3},
            {"group": "job", "identifier": "a/b", "status": 2, "details": ""},
            {"source": "sbc", "group": "core", "status": 1},
        )
        yield running


def _get(app, path: str, method: str = "GET", **headers: str):
    return app.client.session.request(method, f"{app.base}{path}", headers=headers, timeout=10)


READY = {"ready": True, "status": 1, "details": "fine", "stale": False}
SLASH = {"ready": True, "status": 2, "details": "", "stale": False}
NOT = {"ready": False, "status": -3, "details": None, "stale": False}
ALL = {"ready": False, "status": -1, "details": "aggregated", "stale": False}


@pytest.mark.parametrize(
    ("query", "path", "code", "body"),
    [
        ("?group=job", "/push/job", 200, READY),
        ("?source=push&group=JOB&identifier=MAIN", "/push/JOB/MAIN", 200, READY),
        ("?group=job&identifier=b", "/push/job/b", 503, NOT),
        ("?group=job&identifier=All", "/push/job/All", 503, ALL),
        ("?group=job&identifier=a/b", "/push/job/a%2Fb", 200, SLASH),
        ("?source=sbc", "/sbc", 200, {**READY, "details": None}),
        ("?source=sr_exporter", "/sr_exporter", 200, {**READY, "details": "running"}),
    ],
)
def test_the_code_is_the_answer_and_the_body_the_reason(app, query, path, code, body):
    """Both routes answer the same; HEAD has the code alone, and no cache may keep it."""
    for asked in (f"/api/v1/check{query}", f"/ready{path}"):
        answer = _get(app, asked)
        assert (answer.status_code, answer.json()) == (code, body), asked
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        head = _get(app, asked, "HEAD")
        assert (head.status_code, head.content) == (code, b""), asked


@pytest.mark.parametrize(
    ("query", "path", "error"),
    [
        ("?source=other&group=job", "/other/job", "no source 'other' is known"),
        ("?source=Push&group=job", "/Push/job", "no source 'Push' is known"),
        ("?group=core", "/push/core", "no group 'core' is held of source 'push'"),
        ("?group=job&identifier=c", "/push/job/c", "no identifier 'c' is held of group 'job'"),
        ("", "/push", "source 'push' has no core/main"),
        ("?source=a%0Ab", "/a%0Ab", "no source 'a\\nb' is known"),
        ("?source=%00", "/%00", "no source '\\x00' is known"),
        ("?source=%ff", "/%ff", "no source '\\\\xff' is known"),
    ],
)
def test_what_nobody_said_is_unknown(app, query, path, error):
    """404, and what it is that is not held."""
    for asked in (f"/api/v1/check{query}", f"/ready{path}"):
        answer = _get(app, asked)
        assert answer.status_code == 404, asked
        assert error in answer.json()["error"], asked


def test_a_lost_source_is_503_and_stale(app):
    """Though nothing of it is held: it may well be there."""
    for asked in ("/api/v1/check?source=gone", "/ready/gone/core/main", "/ready/gone/x/all"):
        answer = _get(app, asked)
        body = answer.json()
        assert answer.status_code == 503
        assert (body["ready"], body["status"], body["stale"]) == (False, None, True)
        assert body["details"]


@pytest.mark.parametrize(
    ("path", "code", "error"),
    [
        ("/api/v1/check?group=job&identifer=b", 400, "'identifer' is not understood"),
        ("/api/v1/check?group=job&group=b", 400, "'group' is there twice"),
        ("/api/v1/check?group=", 400, "group: must not be empty"),
        ("/api/v1/check?source=", 400, "source: must not be empty"),
        ("/api/v1/check?identifier=b", 400, "identifier: only together with group"),
        ("/ready/push/job?identifier=b", 400, "'identifier' is not understood"),
        ("/ready/push/job/a/b", 404, "no such route: GET /ready/SOURCE"),
        ("/ready/push/", 404, "no such route: GET /ready/SOURCE"),
        ("/ready/", 404, "no such route: GET /ready/SOURCE"),
    ],
)
def test_a_question_that_is_not_understood_is_no_answer(app, path, code, error):
    """Never a "ready" by mistake: what is meant is said, and nothing else."""
    answer = _get(app, path)
    assert answer.status_code == code
    assert error in answer.json()["error"]


def test_it_follows_what_is_pushed(app):
    """The very next question after a push is answered by it."""
    codes = []
    for status in (1, -1, 5):
        app.client.push({"source": "turns", "group": "g", "status": status})
        codes.append(_get(app, "/ready/turns/g").status_code)
    assert codes == [200, 503, 200]
    assert all(before != after for before, after in pairwise(codes))
