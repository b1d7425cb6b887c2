"""The join port: lets hosts in, renews certificates, hands the authority on.

Strangers can reach it, so everything is bounded before it is believed: connections, bytes,
seconds and failures.  Who may do what is decided by a Gatekeeper, which the agent supplies;
here is only TLS, the protocol, and the signing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog

from seaway import errors
from seaway.cluster import joining
from seaway.cluster.credentials import Credentials
from seaway.cluster.join_limits import Doorkeeper, Limits
from seaway.cluster.token import secret_fits
from seaway.model.cluster import HostId
from seaway.model.network import Address

if TYPE_CHECKING:
    from seaway.cluster.pki import Holder

log = structlog.get_logger()

CLOSING = 2.0
"""Seconds for the last bytes and TLS's goodbye."""


class Gatekeeper(Protocol):
    """Decides for the join server.  Every error of errors.py travels to the client."""

    def secret(self) -> str:
        """Return Cluster.secret as it is now."""

    def signers(self) -> Sequence[joining.Server]:
        """Return the join ports of hosts that have the authority's key."""

    async def admit(self, request: joining.JoinRequest, peer: Address) -> joining.Admission:
        """Make the host a member; its secret was right and what it says is well formed.

        An answer can get lost, and the client then asks again with the same key: the same
        request.identity under the same name is the same host.
        """

    async def renew(
        self, host: HostId, identity: str, addresses: tuple[Address, ...], peer: Address
    ) -> Holder:
        """Say what the host's next certificate is to say.

        Raises:
            Removed: No such member.
            Refused: The member has another identity.
        """

    async def may_sign(self, host: HostId) -> bool:
        """The host is a member that runs etcd, or is about to."""


class JoinServer:
    """Serves the join port.

    Certificate and list of revoked ones are read again when their files change.

    Args:
        credentials: Of this host.
        clock: Seconds, never going back; for pauses after failures.
    """

    def __init__(
        self,
        credentials: Credentials,
        gatekeeper: Gatekeeper,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._gatekeeper = gatekeeper
        self._limits = limits or Limits()
        self._door = Doorkeeper(self._limits, clock)
        self._files: tuple[tuple[int, int], ...] = ()
        self._context: ssl.SSLContext | None = None
        self._revoked: frozenset[str] = frozenset()

    async def serve(self, listeners: Sequence[socket.socket]) -> None:
        """Answer on sockets from listen() until cancelled, and close them then."""
        try:
            async with asyncio.TaskGroup() as group:
                for listener in listeners:
                    group.create_task(self._accept(group, listener))
        finally:
            for listener in listeners:
                listener.close()

    async def _accept(self, group: asyncio.TaskGroup, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                conn, found = await loop.sock_accept(listener)
            except OSError as err:  # out of descriptors, or the client was faster than we
                log.warning("join_accept_failed", error=err.strerror)
                await asyncio.sleep(0.1)
                continue
            peer = joining.peer_address(found[0])
            if not self._door.enter(peer):
                conn.close()
                continue
            group.create_task(self._serve(conn, peer))

    async def _serve(self, conn: socket.socket, peer: Address) -> None:
        """Serve one connection; whatever a stranger does ends here."""
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await self._handshake(conn)
            await self._converse(reader, writer, peer)
        except ssl.SSLError as err:
            self._door.failed(peer)
            log.info("join_handshake_failed", peer=str(peer), reason=err.reason)
        except (OSError, EOFError, TimeoutError) as err:
            log.debug("join_connection_ended", peer=str(peer), error=str(err))
        except errors.SeawayError as err:
            log.warning("join_port_unusable", error=str(err))
        except Exception:
            # A bug, met by a stranger's doing: worth a trace, not the agent's life.
            log.exception("join_failed", peer=str(peer))
        finally:
            self._door.leave(peer)
            if writer is not None:
                writer.transport.abort()

    async def _handshake(
        self, conn: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Start TLS; asyncio.start_server would not count who never gets through this.

        Raises:
            SeawayError: This host's own files are missing or cannot be read.
        """
        try:
            context = self._tls()
        except errors.SeawayError:
            conn.close()
            raise
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=joining.LINE_MAX)
        protocol = asyncio.StreamReaderProtocol(reader)
        # From here on the socket is the transport's, which closes it whatever happens.
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            conn,
            ssl=context,
            ssl_handshake_timeout=self._limits.handshake,
            ssl_shutdown_timeout=CLOSING,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _tls(self) -> ssl.SSLContext:
        """Return the context for the files as they are."""
        paths = (self._credentials.ca, self._credentials.certificate, self._credentials.crl)
        found = (path.stat() for path in paths if path.exists())
        state = tuple((one.st_mtime_ns, one.st_ino) for one in found)
        if self._context is None or self._files != state:
            self._context = self._credentials.server_context()
            self._revoked = self._credentials.revoked()
            self._files = state
        return self._context

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Address
    ) -> None:
        greeting = joining.Greeting(protocol=joining.PROTOCOL, ca=self._credentials.ca_pem())
        writer.write(joining.line(greeting))
        answer: msgspec.Struct
        try:
            async with asyncio.timeout(self._limits.request):
                data = await joining.read_line(reader)
            question: joining.Question = joining.parse(joining.Question, data)
            async with asyncio.timeout(self._limits.work):
                answer = await self._answer(question, peer, writer)
        except (errors.InvalidSpec, joining.Refused, joining.Removed) as err:
            self._door.failed(peer)
            log.info("join_refused", peer=str(peer), error=str(err))
            answer = joining.refusal(err)
        except errors.SeawayError as err:
            answer = joining.refusal(err)
        async with asyncio.timeout(self._limits.request):
            writer.write(joining.line(answer))
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSING):
                await writer.wait_closed()

    async def _answer(
        self, question: joining.Question, peer: Address, writer: asyncio.StreamWriter
    ) -> msgspec.Struct:
        caller = self._caller(writer)
        match question:
            case joining.JoinRequest():
                return await self._join(question, peer)
            case joining.RenewRequest():
                return await self._renew(question, peer)
            case joining.AuthorityRequest():
                return await self._authority(caller, peer)

    async def _join(self, request: joining.JoinRequest, peer: Address) -> msgspec.Struct:
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        if not secret_fits(request.secret, self._gatekeeper.secret()):
            raise joining.Refused(
                "the join token is mistyped or was replaced by a newer one: "
                "copy what `seaway cluster token` prints on a host of the cluster"
            )
        self._door.succeeded(peer)
        joining.check_join(request)
        if not self._credentials.can_sign:
            return joining.Elsewhere(servers=tuple(self._gatekeeper.signers()))
        identity = pki.identity_of_request(request.csr)
        request = msgspec.structs.replace(request, secret="", identity=identity)
        admission = await self._gatekeeper.admit(request, peer)
        holder = pki.Holder(
            id=admission.id,
            name=admission.name,
            addresses=joining.parse_addresses(admission.addresses),
        )
        log.info("host_admitted", host=admission.id, name=admission.name, peer=str(peer))
        return msgspec.structs.replace(
            admission,
            certificate=self._credentials.authority().sign(request.csr, holder),
            ca=self._credentials.ca_pem(),
        )

    async def _renew(self, request: joining.RenewRequest, peer: Address) -> msgspec.Struct:
        from seaway.cluster import pki  # noqa: PLC0415 - see there

        if not self._credentials.can_sign:
            return joining.Elsewhere(servers=tuple(self._gatekeeper.signers()))
        identity = pki.identity_of_request(request.csr)
        addresses = joining.parse_addresses(request.addresses)
        holder = await self._gatekeeper.renew(HostId(request.id), identity, addresses, peer)
        self._door.succeeded(peer)
        log.info("certificate_renewed", host=holder.id, name=holder.name, peer=str(peer))
        return joining.Renewed(
            certificate=self._credentials.authority().sign(request.csr, holder),
            ca=self._credentials.ca_pem(),
        )

    async def _authority(self, caller: HostId | None, peer: Address) -> msgspec.Struct:
        if caller is None:
            raise joining.Refused("the authority's key is only for hosts that show a certificate")
        if not await self._gatekeeper.may_sign(caller):
            raise joining.Refused(f"host {caller} does not run etcd: it gets no authority's key")
        if not self._credentials.can_sign:
            return joining.Elsewhere(servers=tuple(self._gatekeeper.signers()))
        self._door.succeeded(peer)
        authority = self._credentials.authority()
        log.info("authority_handed_over", host=caller, peer=str(peer))
        return joining.AuthorityKey(certificate=authority.certificate, key=authority.key)

    def _caller(self, writer: asyncio.StreamWriter) -> HostId | None:
        """Return whose certificate the client has shown, None if none; TLS has verified it.

        Raises:
            Removed: It was taken back.
        """
        shown: dict[str, Any] | None = writer.get_extra_info("peercert")
        if not shown:
            return None
        if f"{int(shown['serialNumber'], 16):x}" in self._revoked:
            raise joining.Removed(
                "this host was removed from the cluster: "
                "leave it with `seaway cluster leave --force`, then join again"
            )
        ((name, value),) = shown["subject"][0]
        return HostId(value) if name == "commonName" else None


def listen(port: int) -> list[socket.socket]:
    """Open the join port for IPv6 and IPv4, or IPv4 alone where there is no IPv6.

    Args:
        port: 0 for any free one.

    Raises:
        Conflict: Somebody else has it.
    """
    both = socket.has_dualstack_ipv6()
    try:
        made = socket.create_server(
            ("", port),
            family=socket.AF_INET6 if both else socket.AF_INET,
            dualstack_ipv6=both,
            backlog=128,
        )
    except OSError as err:
        raise errors.Conflict(
            f"tcp port {port} for joining hosts cannot be opened: {err.strerror}: free it, "
            "or choose others with `seaway cluster init --port`"
        ) from err
    # Connections inherit it; asyncio only sees to it on sockets that it opens itself.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setblocking(False)
    return [made]
