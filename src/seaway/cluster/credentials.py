"""A host's certificate, key and authority as files, written so that a crash leaves no half.

    ca.pem    the cluster's authority
    host.pem  this host's certificate, renewed every day
    host.key  its key, drawn once: it is what the host is known by
    ca.key    the authority's key; only on hosts that run etcd
    crl.pem   certificates that count no more; written where ca.key is

The key stays when the certificate is renewed, so one file at a time is enough: there is no
moment at which the two do not fit.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from seaway.errors import NotFound, StoreError

if TYPE_CHECKING:
    from seaway.cluster.pki import Authority, Holder, Validity


class Credentials:
    """What one folder holds.  Nothing is kept in memory: each call reads or writes files.

    Attributes:
        ca, certificate, key, ca_key, crl: Paths, whether the files are there or not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.certificate = folder / "host.pem"
        self.key = folder / "host.key"
        self.ca_key = folder / "ca.key"
        self.crl = folder / "crl.pem"

    # -- this host --

    def request(self, name: str) -> str:
        """Return a certificate signing request (PEM) for this host's key; draw that if need be.

        Args:
            name: Of the host; only for readers.
        """
        from seaway.cluster import pki  # noqa: PLC0415 - see there: it takes 11 MB

        if not self.key.exists():
            write_file(self.key, pki.new_key())
        return pki.new_request(_read(self.key), name)

    def identity(self) -> str:
        """Return what Host.identity says of this host's key.

        Raises:
            NotFound: There is no key.
        """
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        return pki.identity_of_key(_read(self.key))

    def save(self, certificate: str, ca: str) -> None:
        """Keep what a join or a renewal brought (PEM).

        Raises:
            StoreError: It is not for this host's key, or not from *ca*.
        """
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        if pki.identity_of_certificate(certificate) != self.identity():
            raise StoreError("the new certificate is for another key than this host's: join again")
        pki.check_signed(ssl.PEM_cert_to_DER_cert(certificate), ca)
        write_file(self.ca, ca, mode=0o644)
        write_file(self.certificate, certificate, mode=0o644)

    def validity(self) -> Validity:
        """Say when this host's certificate counts and when to renew it.

        Raises:
            NotFound: There is none.
        """
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        return pki.validity(_read(self.certificate))

    def fingerprint(self) -> str:
        """Return the fingerprint of the authority, as tokens have it.

        Raises:
            NotFound: There is no cluster.
        """
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        return pki.fingerprint(_read(self.ca))

    def ca_pem(self) -> str:
        """Return the authority's certificate.

        Raises:
            NotFound: There is no cluster.
        """
        return _read(self.ca)

    # -- the authority --

    @property
    def can_sign(self) -> bool:
        """The authority's key is here."""
        return self.ca_key.exists()

    def create_authority(self, cluster: str) -> None:
        """Make the authority of a new cluster, with an empty list of revoked certificates."""
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        made = pki.Authority.create(cluster)
        self.save_authority(made.certificate, made.key)

    def save_authority(self, certificate: str, key: str) -> None:
        """Keep an authority that another host handed over (PEM).

        Raises:
            StoreError: The two do not fit, or it is not the authority of this host's cluster.
        """
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        made = pki.Authority(certificate, key)
        if self.ca.exists() and self.fingerprint() != pki.fingerprint(certificate):
            raise StoreError("that authority is another cluster's: leave this cluster first")
        write_file(self.ca, certificate, mode=0o644)
        if not self.crl.exists():
            write_file(self.crl, made.revoke(()), mode=0o644)
        write_file(self.ca_key, key)

    def drop_authority(self) -> None:
        """Forget the authority's key, for a host that runs etcd no more."""
        self.ca_key.unlink(missing_ok=True)
        self.crl.unlink(missing_ok=True)

    def authority(self) -> Authority:
        """Return the authority, to sign with.

        Raises:
            NotFound: Its key is not on this host.
        """
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        return pki.Authority(_read(self.ca), _read(self.ca_key))

    def sign_own(self, holder: Holder, lifetime: timedelta | None = None) -> None:
        """Give this host a certificate of its own making, as the hosts that may sign do.

        So a cluster that was switched off for longer than certificates last comes up again.

        Raises:
            NotFound: The authority's key is not on this host.
        """
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        authority = self.authority()
        request = self.request(holder.name)
        made = authority.sign(request, holder, lifetime or pki.HOST_LIFETIME)
        write_file(self.certificate, made, mode=0o644)

    def revoked(self) -> frozenset[str]:
        """Return the serial numbers in crl.pem; none where there is no such file."""
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        return pki.revoked_serials(_read(self.crl)) if self.crl.exists() else frozenset()

    def revoke(self, serials: Iterable[str]) -> bool:
        """Make crl.pem list exactly *serials* (Cluster.revoked); True if that changes it.

        Raises:
            NotFound: The authority's key is not on this host.
        """

        wanted = frozenset(f"{int(one, 16):x}" for one in serials)
        if self.crl.exists() and self.revoked() == wanted:
            return False
        write_file(self.crl, self.authority().revoke(wanted), mode=0o644)
        return True

    # -- TLS --

    def client_context(
        self,
        *,
        check_hostname: bool = True,
        own: bool = True,
        oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        strict: bool = True,
    ) -> ssl.SSLContext:
        """Make what a client of this cluster's servers needs; again after each change of files.

        Args:
            check_hostname: The server must be certified for the address it is called by;
                without, it may be any host of the cluster (behind a NAT, say).
            own: Show this host's certificate.  A server turns away one that has ended.
            oldest: For servers that are not ours.
            strict: As RFC 5280 wants it; not all that people make by hand is so.

        Raises:
            NotFound: A file is missing.
            StoreError: A file cannot be read, or certificate and key do not fit.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = oldest
        context.check_hostname = check_hostname
        self._trust(context)
        if not strict:
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if own:
            self._show(context)
        return context

    def server_context(self) -> ssl.SSLContext:
        """Make what a server needs that asks for certificates but also takes clients with none.

        It compares with revoked() itself, and so can say why it hangs up.

        Raises:
            NotFound: A file is missing.
            StoreError: A file cannot be read, or certificate and key do not fit.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_OPTIONAL
        self._trust(context, check_revoked=False)
        self._show(context)
        return context

    def _trust(self, context: ssl.SSLContext, *, check_revoked: bool = True) -> None:
        if not self.ca.exists():
            raise NotFound(f"{self.ca} is missing: this host is in no cluster")
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        try:
            context.load_verify_locations(cafile=self.ca)
            if check_revoked and self.crl.exists():
                context.load_verify_locations(cafile=self.crl)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        except (ssl.SSLError, OSError) as err:
            raise StoreError(f"{self.ca} or {self.crl.name} cannot be read: {err}") from err

    def _show(self, context: ssl.SSLContext) -> None:
        for path in (self.certificate, self.key):
            if not path.exists():
                raise NotFound(f"{path} is missing: leave the cluster and join again")
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as err:
            raise StoreError(f"{self.certificate} and {self.key.name} do not fit: {err}") from err


def write_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one step: after a crash it has the old content or the new, in full.

    Raises:
        StoreError: The disk does not take it.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A key is never readable by others, not even between two calls.
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            os.fchmod(handle, mode)
            file.write(text)
            file.flush()
            os.fsync(handle)
        new.replace(path)
        _sync_folder(path.parent)
    except OSError as err:
        raise StoreError(
            f"{path} cannot be written: {err.strerror}: free or mount the disk"
        ) from err


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise NotFound(f"{path} is missing: this host is in no cluster, or may not sign") from None
    except (OSError, ValueError) as err:
        raise StoreError(f"{path} cannot be read: {err}") from err
