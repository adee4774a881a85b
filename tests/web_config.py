"""What web configurations name: certificates of authorities of our own, and hashed passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bcrypt
import trustme

if TYPE_CHECKING:
    from pathlib import Path

CA = trustme.CA()
OTHER_CA = trustme.CA()
SERVER = CA.issue_cert("127.0.0.1", "localhost")
#: The cheapest hash there is, the same in each process: tests have it in their names.
PASSWORD = "of alice"
ALICE = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$" + b"abcdefghijklmnopqrstu.").decode()


def chain(of: trustme.LeafCert) -> str:
    return "".join(part.bytes().decode() for part in of.cert_chain_pems)


def key(of: trustme.LeafCert) -> str:
    return of.private_key_pem.bytes().decode()


def authority(ca: trustme.CA = CA) -> str:
    return ca.cert_pem.bytes().decode()


def write_identity(folder: Path, of: trustme.LeafCert = SERVER, name: str = "server") -> None:
    """Write NAME.pem and NAME.key, and ca.pem, into a folder."""
    (folder / f"{name}.key").write_text(key(of))
    (folder / f"{name}.pem").write_text(chain(of))
    (folder / "ca.pem").write_text(authority())
