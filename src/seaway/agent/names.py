"""Keep the name server at the desired state."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from seaway.dns.answer import Directory
from seaway.dns.scope import Member
from seaway.dns.server import DnsServer
from seaway.errors import KernelError
from seaway.kernel import netns
from seaway.model.cluster import Announced
from seaway.model.network import Address, Network
from seaway.model.sandbox import EndpointId, Phase, Sandbox
from seaway.plan.sandboxes import Attachment, gateway_order

INSIDE = IPv4Address("127.0.0.11")
"""Where containers that no gateway of ours can serve (macvlan) ask, inside their own namespace.
Docker uses the same address, and images rely on it."""


def names_of(sandbox: Sandbox, aliases: Iterable[str]) -> tuple[str, ...]:
    """Return what a sandbox is called on one network, its reverse name first."""
    short = sandbox.container[:12]
    hostname = sandbox.hostname.split(".")[0]
    every = (sandbox.name, *aliases, short, sandbox.hostname, hostname)
    return tuple(dict.fromkeys(name.lower() for name in every if name))


def resolver_of(attachments: Sequence[Attachment]) -> Address | None:
    """Return the name server a sandbox should be given; None without any network.

    One only: some resolvers ask all they know at once and take the first answer.
    """
    for item in gateway_order(attachments):
        for subnet in item.network.subnets:
            if item.network.routed and subnet.gateway is not None:
                return subnet.gateway
    return INSIDE if attachments else None


class Names:
    """Feeds the directory and opens and closes the server's sockets."""

    def __init__(self, directory: Directory, server: DnsServer) -> None:
        self._directory = directory
        self._server = server
        self._inside: dict[str, int] = {}  # sandbox -> inode of the namespace we listen in
        self.errors: dict[str, str] = {}  # address -> why nobody answers there

    def networks(self, networks: Iterable[Network], *, ipv6: bool) -> None:
        """Listen on the gateways of *networks*, and know their subnets."""
        routed = [n for n in networks if n.subnets]
        self._directory.set_subnets(s.cidr for n in routed for s in n.subnets)
        for network in routed:
            for subnet in network.subnets:
                if network.routed and subnet.gateway and (ipv6 or subnet.version == 4):
                    self._listen(subnet.gateway)

    def _listen(self, address: Address) -> None:
        try:
            self._server.listen(address)
            self.errors.pop(str(address), None)
        except KernelError as err:
            self.errors[str(address)] = str(err)

    def forget_network(self, network: Network) -> None:
        """Stop listening on its gateways."""
        for subnet in network.subnets:
            if network.routed and subnet.gateway is not None:
                self._server.close_address(subnet.gateway)
                self.errors.pop(str(subnet.gateway), None)

    def put(self, sandbox: Sandbox, attachments: Sequence[Attachment]) -> None:
        """Answer for *sandbox*, and to it."""
        running = sandbox.phase is Phase.RUNNING
        members = [
            Member(
                owner=sandbox.id,
                network=item.network.name,
                names=names_of(sandbox, item.endpoint.aliases) if running else (),
                v4=(item.endpoint.v4,) if item.endpoint.v4 else (),
                v6=(item.endpoint.v6,) if item.endpoint.v6 else (),
                asks_from=item.endpoint.addresses,
            )
            for item in attachments
        ]
        servers = tuple(str(address) for address in sandbox.dns.servers)
        way_out = any(not item.network.internal for item in attachments)
        self._directory.put(sandbox.id, members, servers, forwards=way_out or bool(servers))
        if resolver_of(attachments) == INSIDE:
            self._listen_inside(sandbox)

    def announce(self, endpoint: Announced, network: str) -> None:
        """Answer for an endpoint of another host, on the network of this name."""
        member = Member(
            owner=endpoint.id,
            network=network,
            names=endpoint.names,
            v4=(endpoint.v4,) if endpoint.v4 else (),
            v6=(endpoint.v6,) if endpoint.v6 else (),
        )
        self._directory.put(endpoint.id, (member,), asks=False)

    def withdraw(self, endpoint: EndpointId) -> None:
        """Answer for it no more."""
        self._directory.remove(endpoint)

    def remove(self, sandbox: Sandbox) -> None:
        """Answer for it no more."""
        self._directory.remove(sandbox.id)
        self.errors.pop(sandbox.name, None)
        if self._inside.pop(sandbox.id, None):
            self._server.close_owner(sandbox.id)

    def _listen_inside(self, sandbox: Sandbox) -> None:
        inode = netns.inode(sandbox.netns)
        if self._inside.get(sandbox.id) == inode or not netns.exists(sandbox.netns):
            return
        with netns.inside(sandbox.netns):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            udp.bind((str(INSIDE), 53))
            tcp.bind((str(INSIDE), 53))
            tcp.listen(16)
        except OSError as err:
            udp.close()
            tcp.close()
            self.errors[sandbox.name] = f"cannot answer names inside {sandbox.name}: {err.strerror}"
            return
        self.errors.pop(sandbox.name, None)
        self._inside[sandbox.id] = inode
        self._server.listen_in((udp, tcp), sandbox.id)
