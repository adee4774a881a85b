"""The wheel and the source distribution: what is in them, and that the wheel alone is enough.

`SR_PACKAGE_DEPENDENCIES=1` has pip install the dependencies that the wheel names, from the index;
otherwise those of this environment are used, and nothing else of it or of the checkout.
"""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from sr_exporter import __version__
from tests.documents import ROOT
from tests.harness import eventually, free_port, process

if TYPE_CHECKING:
    from email.message import Message

NAME = f"sr_exporter-{__version__}"
#: What belongs to a source distribution; PKG-INFO and .gitignore are hatchling's own.
TOP = {
    *("sr_exporter", "tests", "docs", "dashboards", "alerts"),
    *("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"),
}
#: What a run leaves in a checkout.
LEFT_BEHIND = re.compile(r"__pycache__|\.pyc$|\.db$|node_modules|/output/|/\.venv|/\.\w+_cache/")


def built(source: Path, target: Path, kind: str) -> Path:
    """Build with what `pip` would take, and give the one file that is made."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(target), "--target", kind],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (file,) = target.iterdir()
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="module")
def wheel(folder) -> Path:
    return built(ROOT, folder / "wheel", "wheel")


@pytest.fixture(scope="module")
def sdist(folder) -> Path:
    return built(ROOT, folder / "sdist", "sdist")


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        return email.message_from_bytes(file.read(f"{NAME}.dist-info/METADATA"))


def test_the_wheel_has_the_program_and_nothing_else(wheel):
    """Each file of the package as it is tracked, runbooks, and what says what it is."""
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "sr_exporter").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    about = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert names == tracked | {"sr_exporter/web/runbooks.md"} | {
        f"{NAME}.dist-info/{name}" for name in about
    }


def test_the_wheel_says_what_it_is(wheel):
    """Its version from one place, its license, its Python, and the whole README."""
    said = metadata(wheel)
    assert said["Version"] == __version__
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Requires-Python"] == ">=3.11"
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload() == (ROOT / "README.md").read_text("utf-8")
    needed = [one for one in said.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert {re.split("[^a-z0-9-]", one)[0] for one in needed} >= {"starlette", "uvicorn"}
    assert [one for one in needed if not re.fullmatch(r"[\w-]+>=[\d.]+", one)] == []


def test_the_source_is_whole(sdist):
    """What is needed to build it and to test it, and nothing that a run left behind."""
    with tarfile.open(sdist) as file:
        names = [member.name.removeprefix(f"{NAME}/") for member in file if member.isfile()]
    assert {name.split("/")[0] for name in names} == TOP
    assert [name for name in names if LEFT_BEHIND.search(f"/{name}")] == []
    for needed in ("tests/run", "docs/systemd/sr-exporter.service", "alerts/generate.py"):
        assert needed in names


def test_the_source_makes_the_same_wheel_byte_for_byte(sdist, wheel, folder, figure):
    """By another way, in another folder, at another time."""
    (folder / "source").mkdir()
    subprocess.run(["tar", "-xzf", sdist, "-C", folder / "source"], check=True, timeout=60)
    again = built(folder / "source" / NAME, folder / "again", "wheel")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()
    figure(
        f"wheel {wheel.stat().st_size} bytes, source {sdist.stat().st_size} bytes; the source makes"
        " the same wheel, byte for byte"
    )


@pytest.fixture(scope="module")
def installed(folder, wheel) -> Path:
    """The programs of a new virtual environment that knows nothing of the checkout."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    alone = [] if os.environ.get("SR_PACKAGE_DEPENDENCIES") else ["--no-deps", "--no-index"]
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python"), "install", "--quiet"]
    subprocess.run([*pip, *alone, str(wheel)], check=True, timeout=300)
    if alone:
        # Only these folders: what lies in them to lead elsewhere, as to a checkout, is not read.
        (site,) = venv.glob("lib/*/site-packages")
        here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in here))
    return venv / "bin"


def outside(installed: Path, *command: str) -> str:
    """Run something where no checkout is in sight; give what it prints."""
    done = subprocess.run(
        ["env", "-u", "PYTHONPATH", str(installed / command[0]), *command[1:]],
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_the_command(installed):
    """`sr-exporter`, and `python -m sr_exporter`; its code is the wheel's."""
    version = f"sr-exporter {__version__}\n"
    assert outside(installed, "sr-exporter", "--version") == version
    assert outside(installed, "python", "-m", "sr_exporter", "--version") == version
    assert "sr-exporter demo" in outside(installed, "sr-exporter", "--help")
    code = outside(installed, "python", "-c", "import sr_exporter; print(sr_exporter.__file__)")
    assert Path(code.strip()).is_relative_to(installed.parent)


def test_the_wheel_serves_all_that_it_shows(installed, tmp_path):
    """Metrics, and each kind of file that is no code: schema, templates, style, runbooks."""
    base = f"http://127.0.0.1:{(port := free_port())}"
    command = ("env", "-u", "PYTHONPATH", "-C", str(tmp_path), str(installed / "sr-exporter"))
    with process(
        *command, f"--web.listen-address=127.0.0.1:{port}", log=tmp_path / "log"
    ) as running:

        def ready() -> bool:
            assert running.poll() is None, (tmp_path / "log").read_text()
            try:
                return requests.get(f"{base}/-/ready", timeout=5).ok
            except requests.ConnectionError:
                return False

        eventually(ready, within=30)
        page = requests.get(f"{base}/", timeout=10)
        assert page.ok
        linked = set(re.findall(r'(?:href|src)="(/[^"#?]+)', page.text))
        assert any(path.endswith(".css") for path in linked)
        for path in linked | {"/metrics", "/runbooks"}:
            assert requests.get(base + path, timeout=10).ok, path
        assert (tmp_path / "data").is_dir()
