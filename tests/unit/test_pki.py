"""The cluster's own authority, and what OpenSSL says of its work."""

from __future__ import annotations

import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from seaway.cluster import credentials as module
from seaway.cluster import pki
from seaway.cluster.credentials import Credentials
from seaway.errors import InvalidSpec, NotFound, StoreError

HOLDER = pki.Holder(
    id="0123456789ab",
    name="host1.example",
    addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
)


@pytest.fixture
def here(tmp_path):
    """Credentials of a host that may sign."""
    made = Credentials(tmp_path / "cluster")
    made.create_authority("c0ffee123456")
    made.sign_own(HOLDER)
    return made


def openssl(*args):
    """What `openssl verify` says, in one text."""
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-check_ss_sig", *map(str, args)],
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def subject_names(pem):
    """Addresses and names a certificate is good for."""
    found = x509.load_pem_x509_certificate(pem.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in names]


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
@pytest.mark.parametrize("called", [["-verify_ip", "192.0.2.1"], ["-verify_ip", "2001:db8::1"],
                                    ["-verify_ip", "::1"], ["-verify_hostname", "host1.example"],
                                    ["-verify_hostname", "0123456789ab"]])  # fmt: skip
def test_openssl_takes_a_host_s_certificate(here, purpose, called):
    """Strictly, at both ends, by each address and name, with a list of revoked ones."""
    said = openssl(
        "-crl_check", "-CRLfile", here.crl, "-CAfile", here.ca, "-purpose", purpose, *called,
        here.certificate,
    )  # fmt: skip

    assert f"{here.certificate}: OK\n" == said


def test_a_certificate_is_for_no_other_name(here):
    """OpenSSL refuses it for an address it does not have."""
    said = openssl("-CAfile", here.ca, "-verify_ip", "192.0.2.2", here.certificate)

    assert "IP address mismatch" in said


def test_a_host_cannot_sign(here, tmp_path):
    """A certificate signed with a host's key is worth nothing."""
    rogue = pki.Authority(here.certificate.read_text(), here.key.read_text())
    forged = tmp_path / "forged.pem"
    forged.write_text(rogue.sign(pki.new_request(pki.new_key(), "x"), HOLDER))

    said = openssl("-CAfile", here.ca, "-untrusted", here.certificate, forged)

    assert "verification failed" in said


def test_what_is_revoked_is_refused(here):
    """By OpenSSL with the list, and only the certificates of that key."""
    assert here.revoke([pki.serial_text(here.identity())])

    said = openssl("-crl_check", "-CRLfile", here.crl, "-CAfile", here.ca, here.certificate)

    assert "certificate revoked" in said


def test_a_renewed_certificate_is_revoked_with_the_old_one(here):
    """All certificates of one key have one serial number."""
    before = here.certificate.read_text()
    here.sign_own(HOLDER)
    after = here.certificate.read_text()
    numbers = {x509.load_pem_x509_certificate(p.encode()).serial_number for p in (before, after)}

    assert before != after
    assert {pki.serial(here.identity())} == numbers


def test_the_list_is_written_only_when_it_changes(here):
    """Whoever restarts something for it learns whether there is a reason."""
    assert not here.revoke([])
    assert here.revoke(["0aB", "7"])
    assert not here.revoke(["7", "ab"])
    assert frozenset({"ab", "7"}) == pki.revoked_serials(here.crl.read_text())


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("web-1", True),
        ("web_1", False),
        ("web-", False),
        ("-web", False),
        ("a..b", False),
        ("a" * 64, False),
        ("b" * 63, True),
    ],
)
def test_only_dns_names_are_certified(here, name, listed):
    """A host name that DNS cannot have is left out, since Go refuses such certificates."""
    made = here.authority().sign(
        here.request("x"), pki.Holder(id="0123456789ab", name=name, addresses=HOLDER.addresses)
    )

    assert listed == (name in subject_names(made))


def test_each_name_is_listed_once(here):
    """A host whose address is the local one has no double entries."""
    made = here.authority().sign(
        here.request("x"),
        pki.Holder(id="ab", name="ab", addresses=(ip_address("127.0.0.1"),)),
    )

    assert ["127.0.0.1", "::1", "ab"] == subject_names(made)


def test_a_certificate_lasts_a_day_and_is_renewed_in_time(here):
    """Five minutes back for clocks that differ; renewal after two thirds."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    found = pki.validity(here.authority().sign(here.request("x"), HOLDER, now=now))
    start = now.timestamp()

    assert start - 300 == found.begins
    assert start + 86400 == found.ends
    assert pytest.approx(found.begins + (86400 + 300) * 2 / 3) == found.renew


def test_no_certificate_outlives_the_authority(here):
    """Near its end, hosts' certificates get shorter."""
    end = pki.validity(here.ca.read_text()).ends
    late = datetime.fromtimestamp(end - 60, UTC)
    made = here.authority().sign(here.request("x"), HOLDER, now=late)

    assert end == pki.validity(made).ends


def test_a_request_s_own_wishes_are_ignored(here):
    """A request that asks to be an authority with a name of its choice becomes a plain host's."""
    key = ec.generate_private_key(ec.SECP256R1())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ffffffffffff")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("other")]), critical=False)
        .sign(key, SHA256())
    )
    made = here.authority().sign(greedy.public_bytes(Encoding.PEM).decode(), HOLDER)
    found = x509.load_pem_x509_certificate(made.encode())

    assert "CN=0123456789ab" == found.subject.rfc4514_string()
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "other" not in subject_names(made)


def requests_that_are_none():
    """Names and texts of bad certificate requests."""
    curve = ec.generate_private_key(ec.SECP384R1())
    weak = rsa.generate_private_key(65537, 1024)
    good = pki.new_request(pki.new_key(), "x")
    lines = good.splitlines()
    other = pki.new_request(pki.new_key(), "x").splitlines()
    yield "empty", ""
    yield "noise", "hello \u00e9"
    yield "certificate", good.replace("CERTIFICATE REQUEST", "CERTIFICATE")
    yield "cut off", "\n".join(lines[:3] + lines[-1:])
    yield "signed by another", "\n".join([*lines[:-2], *other[-2:]])
    for name, key in (("other curve", curve), ("rsa", weak)):
        made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        yield name, made.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    "request_pem", [pytest.param(text, id=name) for name, text in requests_that_are_none()]
)
def test_a_bad_request_is_refused(here, request_pem):
    """What cannot be read, is of another kind, or is not signed by its own key."""
    with pytest.raises(InvalidSpec):
        here.authority().sign(request_pem, HOLDER)


def test_a_peer_is_checked_against_its_authority(here, tmp_path):
    """Signed by it and at this time: else the message says which."""
    shown = ssl.PEM_cert_to_DER_cert(here.certificate.read_text())
    other = Credentials(tmp_path / "other")
    other.create_authority("c0ffee123456")
    now = datetime.now(UTC)

    pki.check_signed(shown, here.ca_pem())
    with pytest.raises(StoreError, match="not from the cluster's authority"):
        pki.check_signed(shown, other.ca_pem())
    with pytest.raises(StoreError, match="not from the cluster's authority"):
        pki.check_signed(b"noise", here.ca_pem())
    with pytest.raises(StoreError, match=r"ended on .* UTC: compare the clocks"):
        pki.check_signed(shown, here.ca_pem(), now + timedelta(days=2))
    with pytest.raises(StoreError, match=r"only counts from .* UTC: set this host's clock"):
        pki.check_signed(shown, here.ca_pem(), now - timedelta(days=2))


def test_an_authority_does_not_pass_for_a_server(here):
    """Its certificate, which everybody knows, is not one to show on a connection."""
    with pytest.raises(StoreError):
        pki.check_signed(ssl.PEM_cert_to_DER_cert(here.ca_pem()), here.ca_pem())


def test_keys_are_for_nobody_else_to_read(here):
    """0600 for what is secret, and nothing is left of writing."""
    modes = {p.name: p.stat().st_mode & 0o777 for p in here.folder.iterdir()}

    assert {
        "ca.key": 0o600,
        "host.key": 0o600,
        "ca.pem": 0o644,
        "host.pem": 0o644,
        "crl.pem": 0o644,
    } == modes


def test_a_crash_while_writing_leaves_the_old_file(here, monkeypatch):
    """If the new content does not reach the disk, the old one is complete; the next try works."""
    before = here.certificate.read_text()

    def fails(_handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(module.os, "fsync", fails)
        with pytest.raises(StoreError, match="No space left"):
            here.sign_own(HOLDER)

    assert before == here.certificate.read_text()
    here.sign_own(HOLDER)
    assert before != here.certificate.read_text()


def test_a_certificate_for_another_key_is_not_kept(here, tmp_path):
    """Nor one from another authority: the files on disk always fit each other."""
    mine = Credentials(tmp_path / "mine")
    made = here.authority().sign(mine.request("mine"), HOLDER)
    strange = here.authority().sign(pki.new_request(pki.new_key(), "x"), HOLDER)
    other = Credentials(tmp_path / "other")
    other.create_authority("other")

    for certificate, ca in ((strange, here.ca_pem()), (made, other.ca_pem())):
        with pytest.raises(StoreError):
            mine.save(certificate, ca)
        assert not mine.certificate.exists()

    mine.save(made, here.ca_pem())
    mine.client_context()


def test_an_authority_of_another_cluster_is_not_kept(here, tmp_path):
    """Nor a key that does not fit its certificate."""
    other = Credentials(tmp_path / "other")
    other.create_authority("other")
    theirs = other.authority()

    with pytest.raises(StoreError, match="another cluster's"):
        here.save_authority(theirs.certificate, theirs.key)
    with pytest.raises(StoreError, match="does not fit"):
        here.save_authority(here.ca_pem(), theirs.key)


def test_a_host_in_no_cluster_says_so(tmp_path):
    """Each question has the same answer, in one line."""
    none = Credentials(tmp_path)
    for ask in (none.validity, none.identity, none.ca_pem, none.authority, none.client_context):
        with pytest.raises(NotFound, match="in no cluster"):
            ask()
    assert not none.can_sign


def test_only_a_cluster_pays_for_cryptography():
    """Importing the modules that an agent names does not load it."""
    code = (
        "import sys, seaway.cluster.credentials, seaway.cluster.token, seaway.cluster.join_server,"
        "seaway.cluster.join_client; print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False" == done.stdout.strip()
