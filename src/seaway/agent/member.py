"""What a host keeps on disk of being a member: who it is, and where its cluster's store is."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from seaway.cluster.credentials import Credentials, write_file
from seaway.errors import StoreError


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One membership.

    Attributes:
        host, cluster: Ids.
        name, number: Of the host.
        etcd: URLs of the store, as known last.
        foreign: The store is somebody else's: we run none.
        port: The first of the cluster's ports.
        addresses: Where others reached the host when that was last told.
        advertise: Addresses that the user chose; empty: those of the default routes.
    """

    host: str
    cluster: str
    name: str
    number: int
    etcd: tuple[str, ...]
    foreign: bool = False
    port: int = 7900
    addresses: tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()


class MemberFolder:
    """Everything about the membership, in one folder of the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "cluster"
        self.credentials = Credentials(self.path)
        self.mirror = self.path / "mirror.db"
        self.etcd = self.path / "etcd"
        self._file = self.path / "member.json"

    @property
    def has_store(self) -> bool:
        """Does this host run a part of the cluster's store?"""
        return (self.etcd / "data" / "member").exists()

    def load(self) -> Member | None:
        """Return the membership; None if there is none, or joining was broken off.

        Raises:
            StoreError: It cannot be read.
        """
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Member)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as err:
            raise StoreError(
                f"{self._file} cannot be read: {err}; restore it, or remove {self.path} and "
                "join again"
            ) from None

    def save(self, member: Member) -> None:
        """Keep it; with that the host is a member.

        Raises:
            StoreError: The disk does not take it.
        """
        write_file(self._file, msgspec.json.encode(member).decode())

    def begin(self) -> None:
        """Make the folder anew, without what an attempt that was broken off left."""
        self.remove()
        self.path.mkdir(parents=True, mode=0o700)

    def remove(self) -> None:
        """Forget the membership: first that there is one, then all that belongs to it."""
        self._file.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def foreign_tls(self) -> Credentials:
        """Return where the key for somebody else's etcd is kept."""
        return Credentials(self.path / "foreign")

    def wireguard_key(self, generation: int) -> Path:
        """Return the file with a generation's private key."""
        return self.path / f"wireguard-{generation}.key"
