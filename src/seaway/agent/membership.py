"""This host's part in a cluster: what it hears becomes names, routes and tunnels here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from ipaddress import IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from seaway import __version__
from seaway.agent.commons import Commons, Touched
from seaway.agent.member import Member, MemberFolder
from seaway.agent.mirror import Mirror
from seaway.agent.overlay import Overlay
from seaway.agent.probes import Probes
from seaway.agent.session import REMOVED, Hooks, Session
from seaway.agent.state import Change
from seaway.agent.stores import Stores
from seaway.errors import Conflict, SeawayError, StoreError, Unsupported
from seaway.ipam.pools import Taken, overlap
from seaway.model.cluster import Announced, Block, Cluster, Host, HostId
from seaway.model.network import Address, Driver, Network, NetworkId
from seaway.model.sandbox import Endpoint, EndpointId, SandboxId
from seaway.plan.networks import plan_network
from seaway.store import keys
from seaway.store.codec import decode, encode
from seaway.store.etcd import Etcd
from seaway.store.etcd import Member as EtcdMember
from seaway.store.etcd_wire import At, Clash, Write

if TYPE_CHECKING:
    from seaway.agent.core import Core
    from seaway.agent.reconcile import Plans

log = structlog.get_logger()

Service = Callable[[], Coroutine[Any, Any, None]]

_KEPT_IDLE: Final = 600.0
"""Seconds that a host keeps the blocks of a network it has no endpoint on any more."""
_SWEEP: Final = 10.0


class Membership:
    """Everything that a member has beyond what a host by itself has.

    Attributes:
        me: This host's id.
        commons: What is known of the cluster.
        session: The conversation with its store.
        overlay: Its tunnels and routes to others.
        stores: The etcd on this host, if it runs one.
    """

    def __init__(self, core: Core, folder: MemberFolder, member: Member) -> None:
        self._core = core
        self.folder = folder
        self.member = member
        self.me = HostId(member.host)
        self.commons = Commons(self.me)
        self._mirror = Mirror(folder.mirror)
        self.commons.take(self._mirror.load())
        hooks = Hooks(changed=self._changed, connected=self._connected, removed=self._removed)
        self._tls = self._store_tls()
        lease = self.commons.cluster.lease if self.commons.cluster else 20
        # One member that is silent must not cost the lease: there is time to ask another.
        etcd = Etcd(self._nearest_first(member.etcd), self._tls, min(3.0, lease / 4))
        self.session = Session(core.state, self.commons, etcd, self._mirror, hooks)
        self.overlay = Overlay(core, self.commons, folder, self._participating)
        self.stores = Stores(self)
        self.probes = Probes(self)
        self._applying = asyncio.Lock()
        self._idle_since: dict[NetworkId, float] = {}
        self._fenced: set[SandboxId] = set()
        self.leaving = False  # by its own will
        self._known = asyncio.Event()
        if self.commons.cluster is not None:
            self._known.set()
        # Without our copy nobody can say what of the cluster's is still wanted in the kernel.
        core.kernel.hold = not self._known.is_set()
        for network in self.commons.networks.values():
            core.state.learn(network)
        # Where we only have blocks, they have to be given back some day.
        owned = {n for n, blocks in self.commons.owned(self.me).items() if blocks}
        ours = {e.network for e in core.state.endpoints.values() if self._is_ours(e)}
        self.session.assume((owned & self.commons.networks.keys()) | ours)

    def _is_ours(self, endpoint: Endpoint) -> bool:
        return endpoint.network in self.commons.networks

    def _store_tls(self) -> ssl.SSLContext | None:
        if not self.member.foreign:
            return self.folder.credentials.client_context()
        tls = self.folder.foreign_tls()
        if not tls.ca.exists():
            return None
        own = tls.certificate.exists()
        return tls.client_context(own=own, oldest=ssl.TLSVersion.TLSv1_2, strict=False)

    # -- asking ---------------------------------------------------------------------------

    @property
    def cluster(self) -> Cluster:
        """What all hosts agree on.

        Raises:
            StoreError: It is not known yet: the store has never been reached.
        """
        if self.commons.cluster is None:
            raise StoreError(f"the cluster's store has not been reached yet: {self.session.error}")
        return self.commons.cluster

    @property
    def site(self) -> IPv6Network:
        """Where IPv6 subnets of the cluster's networks come from."""
        return self.cluster.site

    @property
    def taking_part(self) -> frozenset[NetworkId]:
        """The networks that this host has, or lately had, endpoints on."""
        return self.session.taking_part

    @property
    def lost(self) -> dict[EndpointId, str]:
        """Endpoints of ours whose address somebody else has by now, and who."""
        return self.commons.lost

    def _participating(self) -> list[Network]:
        return [n for i, n in self.commons.networks.items() if i in self.taking_part]

    def plans(self) -> Plans:
        """Plan what this host needs of the cluster: networks, tunnels, peers."""
        own = {f"network/{n.id}": plan_network(n, self._core.host) for n in self._participating()}
        return {**own, **self.overlay.plans()}

    def taken(self) -> list[Taken]:
        """List the underlay addresses of all hosts: no network may cover one."""
        return [
            Taken(prefix=ip_network(address), by=f"where host {host.name} is reached")
            for host in self.commons.hosts.values()
            for address in host.addresses
        ]

    def require_carrier(self, network: Network) -> None:
        """Refuse a network that this host could not carry as it is asked for.

        Raises:
            Unsupported: Says what is missing.
        """
        if network.encrypted and not self.overlay.encryption:
            raise Unsupported(
                f"network {network.name} would be encrypted, and this host cannot: "
                f"{self.overlay.why_no_encryption}; or choose -o encrypted=false"
            )

    def borrowed(self, endpoints: Iterable[Endpoint]) -> list[Block]:
        """Return the single-address blocks that go with *endpoints*."""
        found = []
        for endpoint in endpoints:
            there = self.commons.blocks.get(endpoint.network, {})
            for address in endpoint.addresses:
                block = there.get(ip_network((address, address.max_prefixlen)))
                if block is not None and block.host == self.me:
                    found.append(block)
        return found if self.session.online else []

    async def members_elsewhere(self, network: NetworkId) -> list[str]:
        """Name the containers that other hosts have on a network."""
        kvs, _ = await self.session.etcd.range(keys.announced(network))
        found = [decode(Announced, kv.value, newer=True) for kv in kvs]
        return sorted(f"{a.name} (on {self.host_name(a.host)})" for a in found)

    def host_name(self, host: HostId) -> str:
        """Return what people call a host."""
        found = self.commons.hosts.get(host)
        return found.name if found else host

    # -- networks ---------------------------------------------------------------------------

    async def take_part(self, network: Network) -> None:
        """Have everything that endpoints on a network need, before there is one.

        Raises:
            Unsupported: It is encrypted, and this host cannot.
            Conflict: This host is drained, or has a network of its own with that name.
            StoreError: Nothing is known of it, and the store is out of reach.
        """
        self._idle_since.pop(network.id, None)
        if self.session.gone:
            raise Conflict(f"{REMOVED}: 'seaway cluster leave', and join again")
        if self.commons.host.drained:
            raise Conflict(
                f"this host is drained: run it on another, or 'seaway node drain --undo "
                f"{self.member.name}'"
            )
        self.require_carrier(network)
        if network.id in self.taking_part:
            return
        if self._core.state.network(network.name).id != network.id:
            raise Conflict(
                f"this host has a network of its own called {network.name!r}, which hides the "
                "cluster's: remove or rename one of them"
            )
        self._require_free(network)
        await self.session.take_part(network.id)
        async with self._applying:
            plan = plan_network(network, self._core.host)
            await self._core.kernel.change(f"network/{network.id}", plan)
            self._core.names.networks(self._core.served(), ipv6=self._core.host.ipv6)

    def _require_free(self, network: Network) -> None:
        """Refuse a network whose addresses are others' here: it was made where they are nobody's.

        Raises:
            Conflict: Says whose.
        """
        own = (n for n in self._core.state.networks.values() if n.driver is not Driver.OVERLAY)
        theirs = [Taken(prefix=s.cidr, by=f"network {n.name}") for n in own for s in n.subnets]
        for subnet in network.subnets:
            if hit := overlap(subnet.cidr, [*theirs, *self._core.taken()]):
                raise Conflict(
                    f"network {network.name} has {subnet.cidr}, which on this host overlaps "
                    f"{hit.prefix}, {hit.by}: remove that, or make {network.name} anew with "
                    "another --subnet"
                )

    async def forget_network(self, network: Network) -> None:
        """Remove from this host what it has of a network."""
        await self.session.withdraw(network.id)
        async with self._applying:
            self._core.names.forget_network(network)
            self._core.names.networks(self._core.served(), ipv6=self._core.host.ipv6)
            await self._core.kernel.change(f"network/{network.id}", ())

    # -- hearing ----------------------------------------------------------------------------

    async def _changed(self, touched: Touched) -> None:
        async with self._applying:
            for identity in touched.withdrawn:
                self._core.names.withdraw(identity)
            await self._networks(touched)
            try:
                await self._ways(touched)
            finally:
                self._announce(touched)  # whoever asks for a name goes there at once

    async def _ways(self, touched: Touched) -> None:
        if touched.cluster or touched.members or touched.lives:
            self.stores.kick()
        try:
            if touched.cluster:
                await self.overlay.cluster_changed()
            if touched.hosts:
                await self.overlay.refresh(touched.hosts)
            elif touched.lives:  # a host that wakes or falls silent is reached as before
                self.overlay.new_ways.set()
        except SeawayError as err:  # this host's own trouble, and none of the store's
            log.warning("news_not_applied", error=str(err))
            self._core.kernel.kick("news of the cluster could not be applied")

    def _announce(self, touched: Touched) -> None:
        for endpoint in touched.announced.values():
            network = self.commons.networks.get(endpoint.network)
            if network is not None and endpoint.names:
                self._core.names.announce(endpoint, network.name)
            else:
                self._core.names.withdraw(endpoint.id)

    async def _networks(self, touched: Touched) -> None:
        state = self._core.state
        for identity, network in touched.networks.items():
            if network is not None:
                self.session.orphans.discard(identity)
                state.learn(network)
                if identity not in self.taking_part and any(state.members(identity)):
                    self._take_up(network)
            elif any(state.members(identity)):
                self.session.orphans.add(identity)  # they stay until their containers go
            elif found := state.networks.get(identity):
                state.unlearn(identity)
                took_part = identity in self.taking_part
                self.session.drop(identity)
                # Ways to its blocks go with it, whichever of the two is heard of first.
                touched.hosts |= self.commons.forget_network(identity).hosts
                if took_part:
                    self._core.names.forget_network(found)
                    await self._core.kernel.change(f"network/{identity}", ())

    def _take_up(self, network: Network) -> None:
        """Take part in a network that we have endpoints on, though our copy of it was lost."""
        self.session.assume({network.id})
        self._core.names.networks(self._core.served(), ipv6=self._core.host.ipv6)
        self._core.kernel.kick(f"network {network.name} is known again")

    async def _connected(self) -> None:
        await self._fence_lost()
        self.stores.kick()
        if not self.member.foreign:
            self.remember_stores(await self.session.etcd.members())
        self._known.set()
        self._core.kernel.hold = False

    async def _fence_lost(self) -> None:
        """Take from endpoints what is somebody else's by now, and give back what is not."""
        touched: set[SandboxId] = set()
        for endpoint, why in (self.commons.unnamed | self.lost).items():
            found = self._core.state.endpoints.get(endpoint)
            if found is not None:
                touched.add(found.sandbox)
                self._core.failures[found.sandbox] = why
        for sandbox in touched | self._fenced:
            with suppress(SeawayError):
                await self._core.sync(sandbox)
            if sandbox not in touched:
                self._core.failures.pop(sandbox, None)
        self._fenced = touched

    def core_events(self, kind: str, **facts: object) -> None:
        """Note that something happened to this host as a member."""
        self._core.events.add(kind, self.member.name, **facts)

    def use_certificate(self) -> None:
        """Show a renewed certificate from now on."""
        if self._tls is not None and not self.member.foreign:
            files = self.folder.credentials
            self._tls.load_cert_chain(files.certificate, files.key)

    async def is_removed(self) -> None:
        """Believe another host that says we are no member."""
        self.session.gone = True
        await self._removed()

    async def _removed(self) -> None:
        """The cluster does not want us any more: nothing of ours reaches it from here."""
        if not self.leaving:
            self._core.events.add("removed_from_cluster", self.member.name)
        async with self._applying:
            self.overlay.stop()
            self._core.kernel.kick("removed from the cluster")
        self.probes.proofs.clear()
        await self.stores.stop()

    def remember_stores(self, members: Iterable[EtcdMember]) -> None:
        """Know where all members of the store are, for when one of them is gone."""
        urls = tuple(sorted(url for m in members if not m.learner for url in m.client_urls))
        if urls and set(urls) != set(self.member.etcd):
            self.look_for_stores(urls)

    def look_for_stores(self, urls: tuple[str, ...]) -> None:
        """Know the store by these URLs from now on."""
        self.remember(msgspec.structs.replace(self.member, etcd=urls))
        self.session.etcd.set_endpoints(self._nearest_first(urls))

    def _nearest_first(self, urls: Iterable[str]) -> list[str]:
        """Ask our own etcd first, which answers on 127.0.0.1 whatever our address is by now."""
        known = self.commons.cluster
        if known is None or self.member.foreign or not self.folder.has_store:
            return sorted(urls)
        return [f"https://127.0.0.1:{known.ports.etcd}", *sorted(urls)]

    def remember(self, member: Member) -> None:
        """Keep what has changed of the membership."""
        if member != self.member:
            self.member = member
            self.folder.save(member)

    # -- telling -----------------------------------------------------------------------------

    def own_addresses(self) -> tuple[Address, ...]:
        """Say where others reach this host: what the user said, else by its default routes."""
        if self.member.advertise:
            return tuple(ip_address(text) for text in self.member.advertise)
        return self._core.ground.default_addresses()

    async def tell_host(self, **changes: object) -> None:
        """Bring this host's record up to date; at once if it is.

        Raises:
            StoreError: The store is out of reach: it is told later.
        """
        key = keys.host(self.me)
        for _ in range(5):
            found = self.commons.hosts.get(self.me)
            if found is None:
                return
            fresh = self._described(found, changes)
            if fresh == found:
                return
            revision = self.commons.revisions.get(key, 0)
            try:
                await self.session.etcd.txn([At(key, revision)], [Write(key, encode(fresh))], [])
            except Clash:
                await self.session.freshen(keys.HOSTS)
                continue
            await self.session.freshen(keys.HOSTS)
            return

    def _described(self, found: Host, changes: dict[str, object]) -> Host:
        addresses = self.own_addresses() or found.addresses
        return replace(
            found,
            addresses=addresses,
            mac=self._core.ground.mac(addresses),
            mtu=self._core.ground.mtu(addresses),
            keys=self.overlay.keys,
            vxlan=self.overlay.vxlan,
            checksums=self.overlay.checksums,
            settled=self.overlay.settled,
            version=__version__,
            **changes,  # type: ignore[arg-type]
        )

    @property
    def known_addresses(self) -> tuple[Address, ...]:
        """Where others reach this host, as known last."""
        if self.me in self.commons.hosts:
            return self.commons.host.addresses
        return tuple(ip_address(text) for text in self.member.addresses)

    # -- running ------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Take up, without the store, what was known last."""
        self.overlay.prepare()
        for network in self._participating():
            for endpoint in self.commons.announced.get(network.id, {}).values():
                if endpoint.names:
                    self._core.names.announce(endpoint, network.name)

    async def run(self) -> None:
        """Be a member, until cancelled, or the cluster says that we are none."""
        if self.session.gone:
            await self._removed()
            await self.session.run()
            return
        services: tuple[Service, ...] = (
            self.stores.keep,
            self._when_known(self.stores.run),
            self._when_known(self.overlay.run),
            self._when_known(self.probes.run),
            self._when_known(self._sweep),
            self._when_known(self._keep_told),
        )
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(one(), name=one.__qualname__) for one in services]
            await self.session.run()
            for task in others:
                task.cancel()

    def _when_known(self, service: Service) -> Service:
        """Have a service wait until something is known of the cluster: our copy may be lost."""

        @wraps(service)
        async def later() -> None:
            await self._known.wait()
            await service()

        return later

    async def _keep_told(self) -> None:
        """Tell others when something about this host has changed."""
        while True:
            await self.overlay.host_changed.wait()
            self.overlay.host_changed.clear()
            try:
                if self.session.online:
                    await self.tell_host()
                    continue
            except SeawayError as err:
                log.info("host_not_told", error=str(err))
            await asyncio.sleep(1.0)
            self.overlay.host_changed.set()

    async def _sweep(self) -> None:
        """Let go of networks that nobody here is on any more."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_SWEEP)
            for network in list(self.taking_part):
                if any(self._core.state.members(network)):
                    self._idle_since.pop(network, None)
                    continue
                since = self._idle_since.setdefault(network, clock())
                if clock() - since >= _KEPT_IDLE and self.session.online:
                    with suppress(SeawayError):
                        await self.let_go(network)

    async def let_go(self, network: NetworkId) -> None:
        """Give a network's blocks back, and take part in it no more."""
        blocks = self.commons.blocks_of(self.me, network)
        await self._core.state.commit(Change(release=blocks))
        self._idle_since.pop(network, None)
        if found := self.commons.networks.get(network):
            await self.forget_network(found)
            if any(self._core.state.members(network)):  # somebody has just come
                await self.take_part(found)

    async def close(self) -> None:
        """Let go of files and sockets; etcd and tunnels stay."""
        self._mirror.close()
        await self.session.etcd.aclose()
