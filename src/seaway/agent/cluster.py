"""Make a cluster, join one, leave it; and be a member in between."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import structlog

from seaway import __version__
from seaway.agent.core import new_id, now
from seaway.agent.gate import host_claims
from seaway.agent.member import Member, MemberFolder
from seaway.agent.membership import Membership
from seaway.agent.mirror import Mirror
from seaway.agent.overlay import has_vxlan
from seaway.agent.requests import InitRequest, JoinClusterRequest, parse_address
from seaway.cluster import join_client
from seaway.cluster.credentials import write_file
from seaway.cluster.etcd_process import EtcdConfig, EtcdMember, client_urls, peer_urls
from seaway.cluster.joining import JoinRequest, Server
from seaway.cluster.token import Token, make_token, parse_token, secret_hash
from seaway.errors import Conflict, InvalidSpec, SeawayError, StoreError
from seaway.model.cluster import Block, Cluster, Host, HostId, Ports
from seaway.model.names import some_of
from seaway.model.network import Address
from seaway.store import keys
from seaway.store.codec import decode, encode
from seaway.store.etcd import Etcd
from seaway.store.etcd_wire import At, Clash, Erase, Write

if TYPE_CHECKING:
    from seaway.agent.core import Core

log = structlog.get_logger()

_AFTER_CRASH: Final = 5.0
_ONLINE_SECONDS: Final = 15.0


class ClusterService:
    """Runs the membership, if there is one, and starts and ends it.

    Args:
        node_name: What this host is called in a cluster.
    """

    def __init__(self, core: Core, folder: MemberFolder, node_name: str = "") -> None:
        self._core = core
        self._folder = folder
        self.node_name = node_name or socket.gethostname().partition(".")[0]
        self._changed = asyncio.Event()
        self._changing = asyncio.Lock()
        member = folder.load()
        if member is not None:
            core.cluster = Membership(core, folder, member)
            core.state.shared = core.cluster.session

    async def prepare(self) -> None:
        """Take up what was known before the agent started."""
        if self._core.cluster is not None:
            await self._core.cluster.prepare()

    async def run(self) -> None:
        """Be a member whenever there is a membership, until cancelled."""
        while True:
            self._changed.clear()
            ship = self._core.cluster
            if ship is None:
                await self._changed.wait()
                continue
            try:
                async with asyncio.TaskGroup() as group:
                    being = group.create_task(self._be(ship), name="membership")
                    await self._changed.wait()
                    being.cancel()
            finally:
                await ship.close()

    async def _be(self, ship: Membership) -> None:
        """Be a member; what goes wrong there must not end names and ports of this host itself."""
        while True:
            try:
                await ship.run()
            except Exception:  # a bug of ours
                log.exception("membership_crashed")
                self._core.events.add("membership_crashed", self.node_name)
                await asyncio.sleep(_AFTER_CRASH)
            else:
                return

    # -- init ---------------------------------------------------------------------------------

    async def init(self, request: InitRequest) -> Membership:
        """Make a cluster of this host alone; everything that it has stays as it is.

        Raises:
            InvalidSpec: The request cannot work.
            Conflict: This host is a member already, or a port is taken.
            Unsupported: etcd is missing.
            StoreError: etcd does not start; its last words are in the message.
        """
        async with self._joining() as undo:
            addresses = self._advertised(request.advertise)
            cluster = Cluster(
                id=new_id(),
                site=self._core.site,
                ports=Ports(base=request.port),
                stores=0 if request.etcd else request.stores,
                lease=request.lease,
                created=now(),
            )
            host = self._new_host(addresses)
            files = self._folder.credentials
            files.create_authority(cluster.id)
            self._certify(host)
            token = make_token(files.fingerprint())
            cluster = _with_secret(cluster, token.secret)
            urls = await self._store(request, cluster, host)
            tls = self._first_tls(request)
            if request.etcd:
                undo.push_async_callback(_take_back, urls, tls, cluster.id)
            await _write_first(Etcd(urls, tls), cluster, host, token.secret)
            self._seed(cluster, host)
            self._folder.save(
                Member(
                    host=host.id,
                    cluster=cluster.id,
                    name=host.name,
                    number=host.number,
                    port=cluster.ports.base,
                    addresses=tuple(map(str, host.addresses)),
                    etcd=tuple(urls),
                    foreign=bool(request.etcd),
                    advertise=tuple(request.advertise),
                )
            )
            ship = await self._begin()
        self._core.events.add("cluster_made", cluster.id)
        return ship

    def _new_host(self, addresses: tuple[Address, ...]) -> Host:
        host = Host(
            id=HostId(new_id()),
            name=self.node_name,
            number=1,
            addresses=addresses,
            mac=self._core.ground.mac(addresses),
            vxlan=has_vxlan(),
            version=__version__,
            joined=now(),
        )
        self._folder.credentials.request(host.name)
        return replace(host, identity=self._folder.credentials.identity())

    def _certify(self, host: Host) -> None:
        from seaway.cluster.pki import Holder  # noqa: PLC0415 - only members pay for it

        holder = Holder(id=host.id, name=host.name, addresses=host.addresses)
        self._folder.credentials.sign_own(holder)

    async def _store(self, request: InitRequest, cluster: Cluster, host: Host) -> Sequence[str]:
        """Have an etcd: somebody else's, or one of our own that answers."""
        files = self._folder.credentials
        if request.etcd:
            self._keep_foreign_tls(request.etcd_ca, request.etcd_cert, request.etcd_key)
            return request.etcd
        process = EtcdMember(self._folder.etcd)
        await process.wipe()
        peers = peer_urls(host.addresses, cluster.ports)
        config = EtcdConfig(
            name=host.id,
            addresses=host.addresses,
            ports=cluster.ports,
            certificate=files.certificate,
            key=files.key,
            ca=files.ca,
            crl=files.crl,
            members=((host.id, peers),),
            state="new",
            token=cluster.id,
        )
        urls = client_urls(host.addresses, cluster.ports)
        await process.ensure_running(config)
        etcd = Etcd(urls, files.client_context())
        try:
            await process.wait_ready(etcd, urls[0])
        finally:
            await etcd.aclose()
        return urls

    def _keep_foreign_tls(self, ca: str, certificate: str, key: str) -> None:
        tls = self._folder.foreign_tls()
        for path, text in ((tls.ca, ca), (tls.certificate, certificate), (tls.key, key)):
            if text:
                tls.folder.mkdir(mode=0o700, exist_ok=True)
                write_file(path, text)

    def _first_tls(self, request: InitRequest) -> ssl.SSLContext | None:
        tls = self._folder.foreign_tls()
        if not request.etcd:
            return self._folder.credentials.client_context()
        if not tls.ca.exists():
            return None
        own = tls.certificate.exists()
        return tls.client_context(own=own, oldest=ssl.TLSVersion.TLSv1_2, strict=False)

    # -- join ---------------------------------------------------------------------------------

    async def join(self, request: JoinClusterRequest) -> Membership:
        """Become a member of a cluster; everything that this host has stays as it is.

        Raises:
            InvalidSpec: The token or an address cannot be right.
            Conflict: This host is a member already, or its name is taken there.
            SeawayError: Nobody let us in; the message says why.
        """
        token = parse_token(request.token)
        server = Server(str(parse_address("address", request.address)), request.port)
        if self._core.cluster is not None and not self._changing.locked():
            return self._look_there(self._core.cluster, token, server)
        async with self._joining():
            addresses = self._advertised(request.advertise, toward=server)
            files = self._folder.credentials
            asked = JoinRequest(
                name=self.node_name,
                csr=files.request(self.node_name),
                addresses=tuple(map(str, addresses)),
                mac=self._core.ground.mac(addresses),
                vxlan=has_vxlan(),
                version=__version__,
            )
            found = await join_client.join([server], token, asked)
            files.save(found.certificate, found.ca)
            self._keep_foreign_tls(found.etcd_ca, found.etcd_certificate, found.etcd_key)
            cluster = decode(Cluster, found.cluster.encode(), newer=True)
            host = replace(self._new_host(addresses), id=HostId(found.id), number=found.number)
            self._seed(cluster, host)
            self._folder.save(
                Member(
                    host=found.id,
                    cluster=cluster.id,
                    name=found.name,
                    number=found.number,
                    port=cluster.ports.base,
                    addresses=tuple(map(str, host.addresses)),
                    etcd=found.etcd,
                    foreign=cluster.stores == 0,
                    advertise=tuple(request.advertise),
                )
            )
            ship = await self._begin()
        self._core.events.add("cluster_joined", cluster.id, number=found.number)
        return ship

    def _look_there(self, ship: Membership, token: Token, server: Server) -> Membership:
        """Know a store by its new address, on a host that is a member already.

        Raises:
            Conflict: It is a member of another cluster.
        """
        if token.fingerprint != ship.folder.credentials.fingerprint() or ship.member.foreign:
            raise Conflict(
                f"this host is a member of cluster {ship.member.cluster} already: leave that "
                "first, with 'seaway cluster leave'"
            )
        (url,) = client_urls((ip_address(server.address),), ship.cluster.ports)
        others = tuple(known for known in ship.member.etcd if known != url)
        ship.look_for_stores((url, *others))
        return ship

    @asynccontextmanager
    async def _joining(self) -> AsyncIterator[AsyncExitStack]:
        """Begin with an empty folder, and leave none behind if it does not come to an end.

        Yields:
            For what else has to be taken back then.
        """
        if self._changing.locked():
            raise Conflict("this host is just joining or leaving a cluster: wait a moment")
        async with self._changing:
            if self._core.cluster is not None:
                raise Conflict(
                    f"this host is a member of cluster {self._core.cluster.member.cluster} "
                    "already: leave that first, with 'seaway cluster leave'"
                )
            await EtcdMember(self._folder.etcd).stop()  # of an attempt that was broken off
            self._folder.begin()
            undo = AsyncExitStack()
            try:
                yield undo
            except BaseException:
                for step in (self._end, undo.aclose):
                    with suppress(SeawayError):
                        await step()
                raise

    def _seed(self, cluster: Cluster, host: Host) -> None:
        """Know at the next start what only the store has so far."""
        mirror = Mirror(self._folder.mirror)
        first = ((keys.CLUSTER, encode(cluster)), (keys.host(host.id), encode(host)))
        mirror.put([(key, value, 0) for key, value in first])
        mirror.close()

    async def _begin(self) -> Membership:
        """Be a member, and wait until the store knows everything that this host has."""
        member = self._folder.load()
        assert member is not None
        ship = Membership(self._core, self._folder, member)
        self._core.cluster, self._core.state.shared = ship, ship.session
        await ship.prepare()
        self._core.kernel.kick("this host is in a cluster")  # what only hosts reach is so at once
        self._changed.set()
        deadline = asyncio.get_running_loop().time() + _ONLINE_SECONDS
        while not ship.session.online:
            if asyncio.get_running_loop().time() > deadline:
                raise StoreError(f"the cluster's store is out of reach: {ship.session.error}")
            await asyncio.sleep(0.02)
        return ship

    def _advertised(
        self, texts: Sequence[str], toward: Server | None = None
    ) -> tuple[Address, ...]:
        """Read ``--advertise``; without it, the addresses that packets to the others leave from.

        Raises:
            InvalidSpec: There is none, or two of one family.
        """
        found = tuple(parse_address("--advertise", text) for text in texts)
        if not found:
            found = self._core.ground.default_addresses()
            if toward is not None and (source := _source_toward(toward)) is not None:
                found = (source, *(a for a in found if a.version != source.version))
        if not found:
            raise InvalidSpec("this host has no default route: name its address with --advertise")
        if len({a.version for a in found}) != len(found):
            raise InvalidSpec("--advertise takes one IPv4 and one IPv6 address at most")
        return found

    # -- leave ---------------------------------------------------------------------------------

    async def leave(self, *, force: bool) -> str:
        """Be no member any more; containers on this host's own networks notice nothing.

        Args:
            force: Also with containers on the cluster's networks, which then reach nobody, with
                the store out of reach, or as the last host of the cluster.

        Raises:
            Conflict: This host is no member, or is needed; says for what.
        """
        async with self._changing:
            ship = self._core.cluster
            if ship is None:
                raise Conflict("this host is in no cluster")
            if not force:
                self._may_leave(ship)
            await self._leave_orderly(ship, force=force)
            await self._end()
        self._core.events.add("cluster_left", ship.member.cluster)
        return ship.member.cluster

    def _may_leave(self, ship: Membership) -> None:
        state = self._core.state
        users = sorted(
            {
                state.sandboxes[e.sandbox].name
                for e in state.endpoints.values()
                if e.network in ship.commons.networks
            }
        )
        if users:
            raise Conflict(
                f"{some_of(users)} {'is' if len(users) == 1 else 'are'} on networks of the "
                "cluster: remove or disconnect first, or leave with --force"
            )
        if len(ship.commons.hosts) == 1 and ship.commons.networks:
            names = some_of(sorted(n.name for n in ship.commons.networks.values()))
            raise Conflict(
                f"this is the cluster's last host, and its networks end with it ({names}): "
                "remove them first, or leave with --force"
            )
        if not ship.session.online and not ship.session.gone:
            raise StoreError(
                f"the cluster's store is out of reach ({ship.session.error}): try again, or leave "
                "with --force and remove this host there with 'seaway node rm'"
            )

    async def _leave_orderly(self, ship: Membership, *, force: bool) -> None:
        ship.leaving = True
        try:
            if ship.session.online:
                await ship.stores.leave_for_good()
                await forget_host(ship, ship.commons.host, revoke=False)
        except SeawayError as err:
            # Other hosts would lose all they share with the only store there is.
            if not force or isinstance(err, Conflict):
                ship.leaving = False
                ship.stores.resume()
                raise
            log.warning("left_without_telling", error=str(err))

    async def _end(self) -> None:
        """Take down everything that the membership had, here."""
        ship = self._core.cluster
        plans = ship.plans() if ship is not None else {}
        self._core.cluster, self._core.state.shared = None, None
        if ship is not None:
            await ship.stores.stop()
        self._changed.set()
        await EtcdMember(self._folder.etcd).wipe()
        if ship is not None:
            await self._forget_networks(ship)
        with suppress(SeawayError):  # an audit does what is left
            await self._core.kernel.change_all(dict.fromkeys(plans, ()))
        self._folder.remove()
        self._core.kernel.kick("the cluster was left")

    async def _forget_networks(self, ship: Membership) -> None:
        core = self._core
        for network in ship.commons.networks.values():
            for endpoint in list(core.state.members(network.id)):
                await core.state.forget_endpoint(endpoint)
            for identity in ship.commons.announced.get(network.id, {}):
                core.names.withdraw(identity)
            core.names.forget_network(network)
            core.state.unlearn(network.id)
        for sandbox in list(core.state.sandboxes):
            with suppress(SeawayError):
                await core.sync(sandbox)


async def _write_first(etcd: Etcd, cluster: Cluster, host: Host, secret: str) -> None:
    """Write a cluster's first records, into a store that has none; closes *etcd*.

    Raises:
        Conflict: Another cluster of Seaway's has this etcd.
    """
    first = {keys.CLUSTER: encode(cluster), keys.TOKEN: secret.encode()}
    first |= dict(host_claims(host))
    try:
        await etcd.txn([At(k) for k in first], [Write(k, v) for k, v in first.items()], [])
    except Clash:
        raise Conflict(
            "that etcd has a cluster of Seaway's already: join it with 'seaway cluster join'"
        ) from None
    finally:
        await etcd.aclose()


async def _take_back(urls: Sequence[str], tls: ssl.SSLContext | None, cluster: str) -> None:
    """Leave nothing of a cluster that did not come to be in somebody else's etcd."""
    etcd = Etcd(urls, tls)
    try:
        await _erase(etcd, cluster)
    finally:
        await etcd.aclose()


async def _erase(etcd: Etcd, cluster: str) -> None:
    """Delete everything that the store has of a cluster; nothing if it is another one's by now.

    Raises:
        StoreError: The store is out of reach.
    """
    found = await etcd.get(keys.CLUSTER)
    if found is None or decode(Cluster, found.value).id != cluster:
        return
    there = [At(keys.CLUSTER, found.mod_revision)]
    with suppress(Clash):
        await etcd.txn(there, [], [Erase(f"{keys.ROOT}/", prefix=True)])


async def forget_host(ship: Membership, host: Host, *, revoke: bool) -> None:
    """Delete everything that the cluster's store has about a host.

    Args:
        revoke: Have its certificate refused.  Every store then starts anew, so that comes
            in the same step as the rest.

    Raises:
        StoreError: The store is out of reach.
    """
    etcd = ship.session.etcd
    hosts, _ = await etcd.range(keys.HOSTS)
    if [kv.key for kv in hosts] == [keys.host(host.id)]:
        # The cluster ends, in an etcd that may go on.
        await _erase(etcd, ship.member.cluster)
        return
    blocks: list[str] = []
    for network in ship.commons.networks:
        kvs, _ = await etcd.range(keys.blocks(network))
        blocks += (kv.key for kv in kvs if decode(Block, kv.value, newer=True).host == host.id)
    for at in range(0, len(blocks), 100):
        await etcd.txn([], [], [Erase(key) for key in blocks[at : at + 100]])
    gone = [
        Erase(keys.host(host.id)),
        Erase(keys.alive(host.id)),
        Erase(keys.host_name(host.name)),
        Erase(keys.host_number(host.number)),
        Erase(keys.local(host.id), prefix=True),
    ]
    while True:
        compares, writes = await _revoking(etcd, host) if revoke else ([], [])
        try:
            await etcd.txn(compares, writes, gone)
        except Clash:
            continue
        break
    with suppress(SeawayError):  # without this they go when the lease ends by itself
        await etcd.revoke(ship.session.lease_number(host.id))


async def _revoking(etcd: Etcd, host: Host) -> tuple[list[At], list[Write]]:
    """Say how the cluster's record is changed so that nobody believes *host* any more."""
    from seaway.cluster.pki import serial_text  # noqa: PLC0415 - only members pay for it

    found = await etcd.get(keys.CLUSTER)
    if found is None:
        raise StoreError("the store there is empty: it is not this cluster's")
    cluster = decode(Cluster, found.value)
    revoked = (*cluster.revoked, serial_text(host.identity))
    fresh = encode(replace(cluster, revoked=revoked))
    return [At(keys.CLUSTER, found.mod_revision)], [Write(keys.CLUSTER, fresh)]


def _with_secret(cluster: Cluster, secret: str) -> Cluster:
    return replace(cluster, secret=secret_hash(secret))


def _source_toward(server: Server) -> Address | None:
    address = ip_address(server.address)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.connect((server.address, server.port))  # sends nothing
        return ip_address(sock.getsockname()[0].partition("%")[0])
    return None
