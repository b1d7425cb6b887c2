"""Let hosts in: what the join server asks before it signs anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from seaway.agent.core import new_id, now
from seaway.cluster.joining import Admission, JoinRequest, Refused, Removed, Server
from seaway.errors import Conflict, Exhausted, StoreError
from seaway.model.cluster import NUMBER_MAX, Claim, Host, HostId
from seaway.model.names import check_name
from seaway.model.network import Address
from seaway.store import keys
from seaway.store.codec import encode
from seaway.store.etcd_wire import At, Clash, Write

if TYPE_CHECKING:
    from seaway.agent.membership import Membership
    from seaway.cluster.pki import Holder


class Gate:
    """Implements join_server.Gatekeeper, on a host that has the authority's key."""

    def __init__(self, membership: Membership) -> None:
        self._ship = membership

    def secret(self) -> str:
        """Return what the join token's secret hashes to."""
        return self._ship.cluster.secret

    def signers(self) -> Sequence[Server]:
        """Name the other hosts that can let somebody in."""
        port = self._ship.cluster.ports.join
        hosts = self._ship.commons.hosts
        return [
            Server(str(hosts[h].addresses[0]), port)
            for h in self._ship.stores.signers
            if h in hosts and h != self._ship.me
        ]

    async def admit(self, request: JoinRequest, peer: Address) -> Admission:
        """Write a new host into the store: its name, a number, its record.

        Raises:
            Conflict: A host of that name is a member already.
            Exhausted: The cluster is full.
            StoreError: The store is out of reach.
        """
        check_name("host", request.name)
        self._require_online()
        etcd = self._ship.session.etcd
        while True:
            await self._ship.session.freshen(keys.HOSTS)
            if again := self._known(request):
                return self._admission(again)
            host = Host(
                id=HostId(new_id()),
                name=request.name,
                number=self._free_number(),
                addresses=request.underlay,
                mac=request.mac,
                behind=peer if self._is_translated(request, peer) else None,
                vxlan=request.vxlan,
                identity=request.identity,
                version=request.version,
                joined=now(),
            )
            claims = dict(host_claims(host))
            try:
                await etcd.txn(
                    [At(key) for key in claims],
                    [Write(key, value) for key, value in claims.items()],
                    [],
                )
            except Clash as err:
                if keys.kind(err.key) == "host-names":
                    raise Conflict(
                        f"a host called {host.name!r} is in the cluster already: choose another "
                        f"--node-name, or 'seaway node rm {host.name}' if it is gone for good"
                    ) from None
                continue  # another host took the number in this moment
            await self._ship.session.freshen(keys.HOSTS)
            return self._admission(host)

    def _require_online(self) -> None:
        if not self._ship.session.online:
            raise StoreError(
                f"the cluster's store is out of reach: {self._ship.session.error}; try again"
            )

    def _known(self, request: JoinRequest) -> Host | None:
        """An answer may have been lost on its way: the same key is the same host."""
        hosts = self._ship.commons.hosts.values()
        same = (h for h in hosts if h.identity == request.identity and h.name == request.name)
        return next(same, None)

    def _free_number(self) -> int:
        taken = {host.number for host in self._ship.commons.hosts.values()}
        free = (n for n in range(1, NUMBER_MAX + 1) if n not in taken)
        if (number := next(free, None)) is None:
            raise Exhausted(f"the cluster has {NUMBER_MAX} hosts, and cannot have more")
        return number

    @staticmethod
    def _is_translated(request: JoinRequest, peer: Address) -> bool:
        same_family = [a for a in request.underlay if a.version == peer.version]
        return bool(same_family) and peer not in same_family and not peer.is_loopback

    def _admission(self, host: Host) -> Admission:
        ship = self._ship
        tls = ship.folder.foreign_tls()
        foreign = ship.member.foreign and tls.ca.exists()
        return Admission(
            id=host.id,
            number=host.number,
            name=host.name,
            addresses=tuple(map(str, host.addresses)),
            cluster=encode(ship.cluster).decode(),
            etcd=ship.member.etcd,
            etcd_ca=tls.ca.read_text() if foreign else "",
            etcd_certificate=tls.certificate.read_text() if foreign else "",
            etcd_key=tls.key.read_text() if foreign else "",
        )

    async def renew(
        self, host: HostId, identity: str, addresses: tuple[Address, ...], peer: Address
    ) -> Holder:
        """Say whom a member's next certificate is for.

        Raises:
            Removed: It is no member.
            Refused: The key is another than the member's.
            StoreError: It is not known here, and the store that may know it is out of reach.
        """
        from seaway.cluster.pki import Holder  # noqa: PLC0415 - costs memory, and only members need it

        found = self._ship.commons.hosts.get(host)
        if found is None:  # or it has just joined, and we have not heard of it
            self._require_online()
            await self._ship.session.freshen(keys.HOSTS)
            found = self._ship.commons.hosts.get(host)
        if found is None:
            raise Removed("this host was removed from its cluster: leave it, and join again")
        if found.identity != identity:
            raise Refused(f"that is not the key of host {found.name}")
        translated = peer if peer not in addresses and found.behind else None
        if translated is not None and translated != found.behind:
            await self._moved(replace(found, behind=translated))
        return Holder(id=host, name=found.name, addresses=addresses or found.addresses)

    async def _moved(self, host: Host) -> None:
        key = keys.host(host.id)
        revision = self._ship.commons.revisions.get(key, 0)
        with suppress(Clash):  # it has just been told by the host itself
            await self._ship.session.etcd.txn([At(key, revision)], [Write(key, encode(host))], [])

    async def may_sign(self, host: HostId) -> bool:
        """May it have the authority's key: is it one of those that run the store?"""
        stores = self._ship.stores
        wanted = stores.choose_signers() if self._ship.member.foreign else stores.wanted
        return host in self._ship.commons.hosts and host in wanted


def host_claims(host: Host) -> Iterator[tuple[str, bytes]]:
    """Yield the keys that a new host needs for itself, and their values."""
    claim = encode(Claim(host=host.id, name=host.name))
    yield keys.host_name(host.name), claim
    yield keys.host_number(host.number), claim
    yield keys.host(host.id), encode(host)
