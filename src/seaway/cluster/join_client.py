"""Asks join servers: to be let in, for a new certificate, for the authority's key.

How a host that knows nothing but a token becomes sure of whom it talks to.  It connects
without verifying anything; TLS 1.3 still proves that the other end has the key of the
certificate it shows (RFC 8446 section 4.4.3).  The server's first line then brings the
authority's certificate, which anybody may know.  The host checks

    1. that its SHA-256 is the one in the token: so this is the cluster's authority;
    2. that the certificate shown on this same connection is signed by it, for servers, and
       counts now: so the other end is a host of the cluster;

and only then says the token's secret, on this same connection.  A man in the middle either
passes bytes on and can read none, or ends TLS himself and then has no certificate that passes
the second check.  Whoever has the key of any host's certificate that counts can pose as a
server: a host that was removed for bad conduct can do so for the rest of its 24 hours, to
hosts that join in that time.

All other questions come from members.  They have the authority's certificate, and TLS
checks everything as usual.  The name is not checked: any host of the cluster may answer, and
one behind a NAT is called by an address that is not its own.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from seaway import errors
from seaway.cluster import joining
from seaway.cluster.credentials import Credentials
from seaway.cluster.joining import Server, Unreachable
from seaway.cluster.token import Token

TIMEOUT: Final = 30.0
"""Seconds for one server, from connecting to its answer."""

SERVERS_MAX: Final = 32
"""How many are tried, those that others name included."""

A = TypeVar("A")

Check = Callable[[Server, bytes, joining.Greeting], None]
"""Raises Unreachable unless a certificate (DER) and a greeting come from a server to trust."""


async def join(
    servers: Sequence[Server],
    token: Token,
    request: joining.JoinRequest,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - for each of several, not for the whole
) -> joining.Admission:
    """Ask to be let into the cluster that *token* is for.

    Args:
        servers: Tried in turn, with others that they name.
        request: Its secret is filled in here.
        timeout: Seconds for each server.

    Raises:
        Unreachable: None answers, or none that proves to be of the cluster.
        Refused: The token's secret is wrong or was replaced.
        SeawayError: Of the class that the server raised; Conflict for a name that is taken.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def check(server: Server, shown: bytes, greeting: joining.Greeting) -> None:
        _check_against_token(token, server, shown, greeting)

    asked = msgspec.structs.replace(request, secret=token.secret)
    line = _Line(context, check, timeout)
    admission = await _in_turn(servers, line, asked, joining.Admission)
    # The answer is from the host that passed the check; this is against a fault, not an enemy.
    _check_authority(token, admission.ca)
    return admission


async def renew(
    servers: Sequence[Server],
    credentials: Credentials,
    request: joining.RenewRequest,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109
) -> joining.Renewed:
    """Ask for a new certificate, whether the old one still counts or not.

    Args:
        credentials: Of this host; nothing is written, Credentials.save() does that.
        timeout: Seconds for each server.

    Raises:
        Removed: This host is no member any more.
        Unreachable: None answers.
        SeawayError: Of the class that the server raised.
    """
    context = credentials.client_context(check_hostname=False, own=False)
    return await _in_turn(servers, _Line(context, _no_check, timeout), request, joining.Renewed)


async def fetch_authority(
    servers: Sequence[Server],
    credentials: Credentials,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109
) -> joining.AuthorityKey:
    """Ask for the authority's key, as a host does that is to run etcd.

    Args:
        credentials: Of this host; nothing is written, Credentials.save_authority() does that.
        timeout: Seconds for each server.

    Raises:
        Removed: This host's certificate was taken back.
        Refused: This host does not run etcd, or its certificate has ended.
        Unreachable: None answers.
    """
    # asyncio's servers hang up without TLS's alert, so it is better to know before.
    if credentials.validity().ends <= time.time():
        raise joining.Refused("this host's certificate has ended: renew it first")
    line = _Line(credentials.client_context(check_hostname=False), _no_check, timeout)
    return await _in_turn(servers, line, joining.AuthorityRequest(), joining.AuthorityKey)


# -- one question -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """How to call a server.

    Attributes:
        context: For TLS.
        check: Of what TLS does not check, made before the question is said.
        seconds: From connecting to the answer.
    """

    context: ssl.SSLContext
    check: Check
    seconds: float

    async def ask(self, server: Server, question: msgspec.Struct) -> joining.Answer:
        """Call *server*, make sure of it, ask, and hang up.

        Raises:
            Unreachable, Removed, Refused.
        """
        try:
            async with asyncio.timeout(self.seconds):
                reader, writer = await asyncio.open_connection(
                    server.address,
                    server.port,
                    limit=joining.LINE_MAX,
                    ssl=self.context,
                    server_hostname="",
                    ssl_handshake_timeout=self.seconds,
                )
                try:
                    return await self._converse(server, reader, writer, question)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            why = f"no answer within {self.seconds:g} s"
        except EOFError:
            why = (
                "it hangs up: it is busy, had too many failed attempts from this address, "
                "or does not take this host's certificate; try again in a minute"
            )
        except ssl.SSLError as err:
            raise _tls_error(server, err) from err
        except OSError as err:
            why = err.strerror or "the connection broke"
        except errors.InvalidSpec as err:
            why = f"it is no Seaway, or of another version: {err}"
        raise Unreachable(f"{server}: {why}")

    async def _converse(
        self,
        server: Server,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        question: msgspec.Struct,
    ) -> joining.Answer:
        greeting: joining.Greeting = joining.parse(
            joining.Greeting, await joining.read_line(reader)
        )
        if greeting.protocol != joining.PROTOCOL:
            raise Unreachable(
                f"{server} speaks version {greeting.protocol} of joining, this Seaway "
                f"{joining.PROTOCOL}: give both the same version"
            )
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        self.check(server, tls.getpeercert(binary_form=True) or b"", greeting)
        writer.write(joining.line(question))
        answer: joining.Answer = joining.parse(joining.Answer, await joining.read_line(reader))
        return answer


async def _in_turn(
    servers: Sequence[Server], line: _Line, question: msgspec.Struct, wanted: type[A]
) -> A:
    """Ask servers until one gives an answer that counts.

    A server that cannot help (not there, no etcd, no authority's key) is passed over; one
    that says no speaks for the cluster.
    """
    left = list(dict.fromkeys(servers))
    known = set(left)
    failures: list[errors.SeawayError] = []
    while left:
        server = left.pop(0)
        try:
            answer = await line.ask(server, question)
        except Unreachable as err:
            failures.append(err)
            continue
        if isinstance(answer, wanted):
            return answer
        if isinstance(answer, joining.Elsewhere):
            failures.append(Unreachable(f"{server} has no key to sign with"))
            new = [one for one in answer.servers if one not in known]
            new = new[: max(0, SERVERS_MAX - len(known))]
            left += new
            known.update(new)
            continue
        error = _said_no(server, answer)
        if not isinstance(error, errors.StoreError):
            raise error
        failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise Unreachable("no server of the cluster helps: " + "; ".join(map(str, failures)))


def _said_no(server: Server, answer: joining.Answer) -> errors.SeawayError:
    if isinstance(answer, joining.Refusal):
        return joining.error_of(answer)
    return joining.Refused(f"{server} answered something else: give all hosts the same version")


def _no_check(_server: Server, _shown: bytes, _greeting: joining.Greeting) -> None:
    """TLS has checked."""


def _check_against_token(
    token: Token, server: Server, shown: bytes, greeting: joining.Greeting
) -> None:
    from seaway.cluster import pki  # noqa: PLC0415 - see there

    try:
        _check_authority(token, greeting.ca)
        pki.check_signed(shown, greeting.ca)
    except errors.StoreError as err:
        raise Unreachable(
            f"{server} does not prove to be of the token's cluster: {err}; nothing was told to it"
        ) from err


def _check_authority(token: Token, ca: str) -> None:
    from seaway.cluster import pki  # noqa: PLC0415 - see there

    if pki.fingerprint(ca) != token.fingerprint:
        raise errors.StoreError(
            "its authority has another fingerprint: check the address, and copy the token again"
        )


def _tls_error(server: Server, err: ssl.SSLError) -> errors.SeawayError:
    """Say what went wrong in TLS."""
    if isinstance(err, ssl.SSLCertVerificationError):
        return Unreachable(
            f"{server} does not prove to be of this cluster: {err.verify_message}: "
            "check its address and the clocks of both hosts"
        )
    return Unreachable(f"{server}: TLS fails: {(err.reason or 'no reason given').lower()}")
