"""What the documents list is what the code has."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sr_exporter import cli
from sr_exporter.config.parsing import parse
from sr_exporter.config.server_tls import AUTH_TYPES, CIPHERS, CURVES, UNVERIFIED
from sr_exporter.config.web import WEB_SCHEMA, parse_web
from sr_exporter.metrics.families import families
from sr_exporter.metrics.own import OwnMetrics
from sr_exporter.state import State
from sr_exporter.store.contract import StoreFigures
from sr_exporter.web import routes
from tests.documents import DOCS, ROOT, Kind, anchors, blocks, kind_of, links, pages
from tests.web_config import SERVER, chain, key

if TYPE_CHECKING:
    from sr_exporter.config import Config

KUBERNETES = DOCS / "kubernetes.md"
_FIGURES = StoreFigures(0, 0, 0.0, 0, 0, 0, 0, None)


def _exported() -> dict[str, str]:
    found = [*families(State()), *OwnMetrics().families(_FIGURES)]
    return {
        family.name: family.kind.value
        for family in found
        if family.name.startswith(("opensips_sr_", "sr_exporter_"))
    }


def test_every_family_is_documented_and_every_documented_family_exists():
    """docs/metrics.md has each family with its type, and no other."""
    text = (DOCS / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", text, re.MULTILINE)
    assert dict(rows) == _exported()


def test_every_route_is_documented():
    """docs/http-api.md names each route of the table."""
    text = (DOCS / "http-api.md").read_text("utf-8")
    source = Path(routes.__file__).read_text("utf-8")
    for path in re.findall(r'Route\("([^"{]+)', source):
        assert f" {path}" in text, path


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page):
    """Each relative link is a file or folder, and each anchor a heading of it."""
    for target, anchor in links(page):
        assert target.exists(), target
        if anchor:
            assert anchor in anchors(target), f"{target}#{anchor}"


def test_the_index_has_every_document():
    """docs/README.md leads to each page beside it."""
    index = DOCS / "README.md"
    found = {target.resolve() for target, _ in links(index)}
    assert found >= {page.resolve() for page in DOCS.glob("*.md") if page != index}


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.id)
def test_every_quoted_file_is_of_a_kind_that_is_checked(block):
    """Below, by its own program (test_docs_set_up.py), or by asking (test_docs_run.py)."""
    assert kind_of(block) is not None


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("yaml") if kind_of(block) is Kind.OURS],
    ids=lambda one: one.id,
)
def test_quoted_configurations_can_be_used(block):
    """As `--config.check` reads them; the files that they name are there."""
    text = block.text
    if block.page.name == "opensips.md":  # each of its examples goes on with the first
        first, *_ = blocks("yaml", block.page)
        text = yaml.safe_dump({**first.documents()[0], **block.documents()[0]})
    check(text)


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("yaml") if kind_of(block) is Kind.WEB],
    ids=lambda one: one.id,
)
def test_quoted_web_configurations_can_be_used(block):
    """With a certificate and a key in the files that they name."""
    files = {".pem": chain(SERVER), ".crt": chain(SERVER), ".key": key(SERVER)}
    parse_web(block.text, directory=Path("/etc"), read_file=lambda path: files[path.suffix])


def test_every_key_of_a_web_configuration_is_documented():
    """docs/web-config.md has a row for each, and no other; and every suite and curve."""
    text = (DOCS / "web-config.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.+?`(?:, `.+?`)*) \|", text, re.MULTILINE)
    named = {one for row in rows for one in re.findall(r"`([\w-]+)`", row)}
    keys = {one for shape, keys in WEB_SCHEMA.keys.items() if shape for one in keys}
    assert named == keys - {"http2", "headers"}
    for name in (*WEB_SCHEMA.keys[""], "http2", "headers", *CURVES, *AUTH_TYPES, *UNVERIFIED[:2]):
        assert f"`{name}`" in text, name
    for suite in CIPHERS:
        assert suite.replace("_RSA_", "_ECDSA_") in text, suite


def check(text: str) -> Config:
    """Read a configuration whose files all have something in them."""
    return parse(
        text,
        directory=Path("/etc"),
        read_file=lambda path: "https://x.example/y" if path.suffix == ".url" else path.name,
        find_files=lambda *_: [],
    )


# --- Kubernetes ------------------------------------------------------------------------------


def manifests(*, with_users: bool = False) -> dict[str, Any]:
    """Give the manifests of docs/kubernetes.md by their kind, or those of "TLS and users"."""
    text = KUBERNETES.read_text("utf-8")
    first = text.index("\n### TLS and users\n")
    lines = range(text.count("\n", 0, first), text.count("\n", 0, text.index("\n## ", first)))
    found = [
        document
        for block in blocks("yaml", KUBERNETES)
        if kind_of(block) is Kind.KUBERNETES and (block.line in lines) == with_users
        for document in block.documents()
    ]
    assert all({"apiVersion", "kind", "metadata"} <= set(one) for one in found)
    return {one["kind"]: one for one in found}


def test_the_configuration_in_the_cluster_can_be_used():
    """It names its secrets where the pod has them."""
    config = check(manifests()["ConfigMap"]["data"]["sr-exporter.yml"])
    assert [source.name for source in config.sources] == ["sip-1", "sip-2"]
    assert config.notifiers


def test_the_manifests_fit_together():
    """Each name that one of them uses is made by another, or by a command of the page."""
    found = manifests()
    stateful = found["StatefulSet"]["spec"]
    pod = stateful["template"]["spec"]
    (container,) = pod["containers"]
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["replicas"] == 1
    assert stateful["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert stateful["serviceName"] == found["Service"]["metadata"]["name"]
    for monitor in ("ServiceMonitor", "PodMonitor"):
        assert found[monitor]["spec"]["selector"]["matchLabels"] == labels
    assert {one["metadata"]["namespace"] for one in found.values()} == {"monitoring"}
    volumes = {volume["name"] for volume in pod["volumes"]}
    claims = {claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == volumes | claims
    by_name = {volume["name"]: volume for volume in pod["volumes"]}
    assert by_name["config"]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    secret = by_name["secrets"]["secret"]["secretName"]
    made = KUBERNETES.read_text("utf-8")
    assert f"create secret generic {secret} " in made
    for file in re.findall(rf"{mounts['secrets']}/([\w.]+)", made):
        assert re.search(rf"--from-(file|literal)={file}", made), file


def test_the_manifests_fit_together_with_tls_and_users():
    """The patch alters what is there; each probe, and Prometheus, is a user of the web file."""
    plain, patched = manifests(), manifests(with_users=True)
    (before,) = plain["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    pod = patched["StatefulSet"]["spec"]["template"]["spec"]
    (after,) = pod["containers"]
    assert patched["StatefulSet"]["metadata"]["name"] == plain["StatefulSet"]["metadata"]["name"]
    assert after["name"] == before["name"]
    (mount,) = after["volumeMounts"]
    assert set(after["args"]) - set(before["args"]) == {
        f"--web.config.file={mount['mountPath']}/web.yml"
    }
    assert set(before["args"]) <= set(after["args"])
    (volume,) = pod["volumes"]
    assert volume["name"] == mount["name"]
    made = set(re.findall(r"create secret (?:generic|tls) ([\w-]+)", KUBERNETES.read_text("utf-8")))
    assert {one["secret"]["name"] for one in volume["projected"]["sources"]} <= made
    (web,) = [block for block in blocks("yaml", KUBERNETES) if kind_of(block) is Kind.WEB]
    users = web.documents()[0]["basic_auth_users"]
    for probe in ("livenessProbe", "readinessProbe"):
        asked = after[probe]["httpGet"]
        assert asked["path"] == before[probe]["httpGet"]["path"]
        assert (asked["port"], asked["scheme"]) == (before[probe]["httpGet"]["port"], "HTTPS")
        (header,) = asked["httpHeaders"]
        said = base64.b64decode(header["value"].removeprefix("Basic "))
        assert said.decode().partition(":")[0] in users
    (endpoint,) = patched["ServiceMonitor"]["spec"]["endpoints"]
    assert (
        patched["ServiceMonitor"]["spec"]["selector"] == plain["ServiceMonitor"]["spec"]["selector"]
    )
    assert endpoint["scheme"] == "https"
    service = plain["Service"]["metadata"]
    assert endpoint["tlsConfig"]["serverName"] == f"{service['name']}.{service['namespace']}.svc"
    keys = [endpoint["tlsConfig"]["ca"]["secret"], *endpoint["basicAuth"].values()]
    assert {one["name"] for one in keys} <= made


def test_the_pod_asks_for_what_is_there():
    """Its probes are routes, its ports are listened on, its arguments are understood."""
    stateful = manifests()["StatefulSet"]["spec"]
    (container,) = stateful["template"]["spec"]["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert f'Route("{asked["path"]}"' in Path(routes.__file__).read_text("utf-8")
        assert asked["port"] == container["ports"][0]["name"]
    assert container["ports"][0]["containerPort"] == cli.DEFAULT_ADDRESS.port
    options = dict(argument.split("=", 1) for argument in container["args"])
    helps = subprocess.run(
        [sys.executable, "-m", "sr_exporter", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(f"  {option} " in helps for option in options)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert options["--storage.path"] in mounts
    assert str(Path(options["--config.file"]).parent) in mounts
