"""The files a configuration names: secrets, certificates, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sr_exporter.config.keys import SCHEMA
from sr_exporter.config.reading import Place, shown
from sr_exporter.config.tls import certificates
from sr_exporter.config.values import BasicAuth, Tls
from sr_exporter.redact import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
    """Reads files whose names start at `directory`, and gathers their faults."""

    directory: Path
    read_file: Callable[[Path], str]
    faults: list[Fault] = field(default_factory=list)

    def secret(self, place: Place | None) -> str:
        """Read a file that holds one secret; "" if it cannot be had."""
        name = place.text("a file name") if place else ""
        if not (place and name):
            return ""
        if "://" in name:
            # Not shown: it is the secret itself that was written here.
            place.fault("must be a file name, not a URL")
            return ""
        before = len(self.faults)
        secret = self.text(place, self.directory / name).strip()
        if len(self.faults) > before:
            return ""
        if not secret:
            place.fault(f"{self.name(self.directory / name)} is empty")
        elif not secret.isprintable():
            place.fault(f"{self.name(self.directory / name)} must hold one line of text")
            return ""
        return secret

    def token(self, place: Place | None) -> str:
        """Read a file that holds a token, fit for a header; "" if it cannot be had."""
        token = self.secret(place)
        if place and token and (not token.isascii() or " " in token):
            place.fault("must hold one token: ASCII letters, digits and signs, no spaces")
            return ""
        return token

    def basic_auth(self, place: Place, shape: str) -> BasicAuth:
        section = place.section(SCHEMA, f"{shape}.basic_auth")
        username = section.name("username")
        if ":" in username:
            section.entries["username"].fault("must not hold a colon")
        return BasicAuth(username, Secret(self.secret(section.need("password_file"))))

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
