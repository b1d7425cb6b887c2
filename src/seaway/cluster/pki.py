"""Certificates: the cluster's own authority, what it signs, and what it takes back.

Works on PEM in memory; where it is kept is credentials.py's matter.  Importing this
imports `cryptography` (11 MB, 30-50 ms), so others import it inside the functions that
need it: a host without a cluster never pays.

Source: RFC 5280; RFC 2986 (requests).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from seaway.errors import InvalidSpec, StoreError
from seaway.model.network import Address

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
HOST_LIFETIME: Final = timedelta(hours=24)
"""Short, so that what nobody takes back ends by itself."""

SLACK: Final = timedelta(minutes=5)
"""How far clocks of hosts may differ: everything is valid that long before it was made."""

_DNS_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whom a certificate is for.

    Attributes:
        id: Of the host; the certificate's common name.
        name: Of the host; left out of the certificate if it cannot be a DNS name.
        addresses: Where it is reached.
    """

    id: str
    name: str
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """When a certificate counts, in seconds since the epoch.

    Attributes:
        begins: Five minutes before it was made.
        renew: When two thirds of its time are over.
        ends: When it is worth nothing any more.
    """

    begins: float
    renew: float
    ends: float


class Authority:
    """The cluster's certificate authority, with its key.

    Attributes:
        certificate: PEM.
        key: PEM (PKCS 8, not encrypted).
    """

    def __init__(self, certificate: str, key: str) -> None:
        """Take both from PEM.

        Raises:
            StoreError: They cannot be read, or are not of one pair.
        """
        self.certificate = certificate
        self.key = key
        self._certificate = _certificate(certificate)
        self._key = _private_key(key)
        if self._key.public_key() != self._certificate.public_key():
            raise StoreError("the authority's key does not fit its certificate: fetch it again")

    @classmethod
    def create(cls, cluster: str, now: datetime | None = None) -> Authority:
        """Make the authority of the cluster with id *cluster*."""
        now = now or datetime.now(UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Seaway cluster {cluster}")])
        own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SLACK)
            .not_valid_after(now + AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(own_id, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id),
                critical=False,
            )
            .sign(key, SHA256())
        )
        return cls(_pem(made), _key_pem(key))

    def sign(
        self,
        request: str,
        holder: Holder,
        lifetime: timedelta = HOST_LIFETIME,
        now: datetime | None = None,
    ) -> str:
        """Certify the key of a certificate signing request as *holder*'s.

        Nothing but the key is taken from the request: what it says of itself is ignored.

        Args:
            request: PEM.

        Returns:
            PEM.  Good for both ends of TLS.

        Raises:
            InvalidSpec: The request cannot be read, is not signed by its key, or that is no P-256.
        """
        now = now or datetime.now(UTC)
        public = _requested_key(request)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, holder.id)]))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(serial(_identity(public)))
            .not_valid_before(now - SLACK)
            .not_valid_after(min(now + lifetime, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(_names(holder)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(self._key_id(), critical=False)
            .sign(self._key, SHA256())
        )
        return _pem(made)

    def revoke(self, serials: Iterable[str], now: datetime | None = None) -> str:
        """List the certificates that count no more.

        The list itself never runs out before the authority does: an old one is better
        than an etcd that takes nobody in.

        Args:
            serials: Hexadecimal, as Cluster.revoked has them.

        Returns:
            PEM (X509 CRL), as ``etcd --client-crl-file`` and OpenSSL read it.
        """
        now = now or datetime.now(UTC)
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - SLACK)
            .next_update(self._certificate.not_valid_after_utc)
            .add_extension(self._key_id(), critical=False)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        )
        for number in sorted({int(one, 16) for one in serials}):
            entry = x509.RevokedCertificateBuilder(number, now - SLACK)
            made = made.add_revoked_certificate(entry.build())
        return made.sign(self._key, SHA256()).public_bytes(Encoding.PEM).decode()

    def _key_id(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def new_key() -> str:
    """Draw a host's key: PEM, EC P-256."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def new_request(key: str, name: str) -> str:
    """Ask for a certificate for *key*, in PEM; *name* is only for whoever reads the request."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return made.sign(_private_key(key), SHA256()).public_bytes(Encoding.PEM).decode()


def identity_of_key(key: str) -> str:
    """Return what Host.identity says of whoever has the private *key* (PEM)."""
    return _identity(_private_key(key).public_key())


def identity_of_request(request: str) -> str:
    """Return what Host.identity says of whoever made a signing request (PEM).

    Raises:
        InvalidSpec: As Authority.sign().
    """
    return _identity(_requested_key(request))


def identity_of_certificate(certificate: str) -> str:
    """Return what Host.identity says of a certificate's holder (PEM).

    Raises:
        StoreError: It cannot be read, or is none of ours.
    """
    public = _certificate(certificate).public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise StoreError("a certificate has a key that is not of the kind EC: it is none of ours")
    return _identity(public)


def serial(identity: str) -> int:
    """Return the serial number of all certificates of one key.

    They are one grant, renewed; to take it back, its one number goes on the list, and
    no renewal that was just under way is forgotten.  RFC 5280 section 4.1.2.2 wants each
    to have its own; what checks them (OpenSSL, Go) looks for nothing but the number.

    Args:
        identity: Host.identity.

    Returns:
        Positive, at most 19 octets.
    """
    return int.from_bytes(hashlib.sha256(f"serial {identity}".encode()).digest()[:19]) | 1


def serial_text(identity: str) -> str:
    """Return serial() as Cluster.revoked has it."""
    return f"{serial(identity):x}"


def revoked_serials(crl: str) -> frozenset[str]:
    """Read what Authority.revoke() wrote.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        found = x509.load_pem_x509_crl(crl.encode())
        return frozenset(f"{one.serial_number:x}" for one in found)
    except ValueError as err:
        raise StoreError(f"the list of revoked certificates cannot be read: {err}") from err


def fingerprint(certificate: str) -> str:
    """Return the SHA-256 of a certificate's DER, 64 hexadecimal digits.

    Raises:
        StoreError: It cannot be read.
    """
    return _certificate(certificate).fingerprint(SHA256()).hex()


def validity(certificate: str) -> Validity:
    """Say when a certificate (PEM) counts and when to renew it.

    Raises:
        StoreError: It cannot be read.
    """
    found = _certificate(certificate)
    begins, ends = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    return Validity(begins=begins, renew=begins + (ends - begins) * 2 / 3, ends=ends)


def check_signed(certificate: bytes, authority: str, now: datetime | None = None) -> None:
    """Check that a peer's certificate comes from an authority and counts at this moment.

    That the peer has its key is TLS's matter, and settled when the handshake is done.

    Args:
        certificate: DER, as the TLS connection has it.
        authority: PEM; that it is the right one is the caller's matter.

    Raises:
        StoreError: It does not; the message says why.
    """
    now = now or datetime.now(UTC)
    issuer = _certificate(authority)
    try:
        found = x509.load_der_x509_certificate(certificate)
        found.verify_directly_issued_by(issuer)
        usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as err:
        raise StoreError("its certificate is not from the cluster's authority") from err
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise StoreError("its certificate is not one for servers")
    for one in (found, issuer):
        if now < one.not_valid_before_utc:
            raise StoreError(
                f"its certificate only counts from {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: "
                "set this host's clock"
            )
        if now > one.not_valid_after_utc:
            raise StoreError(
                f"its certificate ended on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: "
                "compare the clocks of both hosts"
            )


# -- parts ------------------------------------------------------------------------------------


def _requested_key(request: str) -> ec.EllipticCurvePublicKey:
    try:
        found = x509.load_pem_x509_csr(request.encode())
        public = found.public_key()
        # Before its signature is checked: an RSA key of a megabyte would take seconds.
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
            raise InvalidSpec("the certificate request has no EC P-256 key: make one with it")
        signed = found.is_signature_valid
    except (ValueError, TypeError) as err:
        raise InvalidSpec("the certificate request cannot be read: make a new one") from err
    if not signed:
        raise InvalidSpec("the certificate request is not signed by its own key: make a new one")
    return public


def _names(holder: Holder) -> list[x509.GeneralName]:
    """What the certificate is good for, each once: Go refuses what is not really a DNS name."""
    local = (ip_address("127.0.0.1"), ip_address("::1"))
    addresses = dict.fromkeys((*holder.addresses, *local))
    names = (one for one in dict.fromkeys((holder.id, holder.name)) if _is_dns_name(one))
    return [*(x509.IPAddress(one) for one in addresses), *(x509.DNSName(one) for one in names)]


def _is_dns_name(name: str) -> bool:
    return len(name) <= 253 and _DNS_NAME.fullmatch(name) is not None


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _identity(public: ec.EllipticCurvePublicKey) -> str:
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as err:
        raise StoreError(f"a certificate cannot be read: {err}") from err


def _private_key(pem: str) -> ec.EllipticCurvePrivateKey:
    try:
        found = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as err:
        raise StoreError("a key cannot be read: restore it, or leave the cluster and join") from err
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise StoreError("a key is not of the kind EC: restore it, or leave the cluster and join")
    return found


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
