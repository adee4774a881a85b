"""The files a configuration names: secrets, certificates, and what is wrong with them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sr_exporter.config.keys import SCHEMA
from sr_exporter.config.reading import Place, shown
from sr_exporter.config.tls import certificates
from sr_exporter.config.values import BasicAuth, Tls
from sr_exporter.redact import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sr_exporter.config.reading import Section
    from sr_exporter.errors import Fault


def unreadable(error: OSError | ValueError) -> str:
    """Tell the reason only: the text of a decoding error holds what was in the file."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or type(error).__name__}"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    return "is not a file name"


@dataclass(slots=True)
class Files:
    """Reads files whose names start at `directory`, and gathers their faults.

    A secret may be in the environment instead.
    """

    directory: Path
    read_file: Callable[[Path], str]
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    faults: list[Fault] = field(default_factory=list)

    def secret(self, section: Section, name: str) -> str:
        """Read the secret that NAME_file or NAME_env says where to find; "" if it cannot be had."""
        place = section.one_of(f"{name}_file", f"{name}_env")
        return self.secret_at(place) if place else ""

    def secret_at(self, place: Place) -> str:
        """Read one secret where a key says it is; "" if it cannot be had."""
        before = len(self.faults)
        who, text = self._variable(place) if place.path.endswith("_env") else self._file(place)
        secret = text.strip()
        if len(self.faults) > before:
            return ""
        if not secret:
            place.fault(f"{who} is empty")
        elif not secret.isprintable():
            place.fault(f"{who} must hold one line of text")
            return ""
        return secret

    def _file(self, place: Place) -> tuple[str, str]:
        """Give what a file is called, and what is in it."""
        name = place.text("a file name")
        if "://" in name:
            # Not shown: it is the secret itself that was written here.
            place.fault("must be a file name, not a URL")
            return "", ""
        path = self.directory / name
        return self.name(path), self.text(place, path) if name else ""

    def _variable(self, place: Place) -> tuple[str, str]:
        """Give what a variable of the environment holds; its name may be the secret itself."""
        name = place.text("the name of an environment variable")
        text = self.environment.get(name)
        if name and text is None:
            place.fault("names no environment variable that is set")
        return "the environment variable", text or ""

    def token(self, section: Section, name: str) -> str:
        """Read a secret that is fit for a header; "" if it cannot be had."""
        place = section.one_of(f"{name}_file", f"{name}_env")
        token = self.secret_at(place) if place else ""
        if place and token and (not token.isascii() or " " in token):
            place.fault("must hold one token: ASCII letters, digits and signs, no spaces")
            return ""
        return token

    def basic_auth(self, place: Place, shape: str) -> BasicAuth:
        section = place.section(SCHEMA, f"{shape}.basic_auth")
        username = section.name("username")
        if ":" in username:
            section.entries["username"].fault("must not hold a colon")
        return BasicAuth(username, Secret(self.secret(section, "password")))

    def tls(self, place: Place, shape: str) -> Tls:
        file = place.section(SCHEMA, f"{shape}.tls").need("ca_file")
        name = file.text("a file name") if file else ""
        before = len(self.faults)
        text = self.text(file, self.directory / name) if file and name else ""
        ca = certificates(text)
        if file and name and not ca and len(self.faults) == before:
            file.fault(f"{self.name(self.directory / name)} holds no certificate in PEM")
        return Tls(ca)

    def text(self, place: Place, path: Path) -> str:
        try:
            return self.read_file(path)
        except (OSError, ValueError) as error:
            place.fault(f"{self.name(path)} {unreadable(error)}")
            return ""

    def name(self, path: Path) -> str:
        """Name a file as the configuration does, which is short and does not move."""
        if path.is_relative_to(self.directory):
            path = path.relative_to(self.directory)
        return shown(str(path), 300)


def once(place: Place, seen: dict[str, str], name: str) -> None:
    """Report a name that was met before; `seen` is where each was first met."""
    if (first := seen.setdefault(name, place.path)) != place.path:
        place.fault(f"is there twice: the first is {first}")
