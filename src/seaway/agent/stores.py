"""The part of the cluster's store that runs on this host, and what comes with running it.

Hosts that run etcd also have the authority's key: they let others in, renew
their certificates, and say which are worth nothing any more.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from seaway.agent.gate import Gate
from seaway.agent.upkeep import Upkeep, statuses
from seaway.cluster import join_client
from seaway.cluster.etcd_process import EtcdConfig, EtcdMember, Urls, client_urls, peer_urls
from seaway.cluster.join_server import JoinServer, listen
from seaway.cluster.joining import Removed, RenewRequest, Server
from seaway.cluster.stores import (
    find_member,
    join_as_learner,
    leave,
    promote,
    wanted_signers,
    wanted_stores,
)
from seaway.errors import Conflict, SeawayError, StoreError
from seaway.model.cluster import STORE_SIZES, HostId, Ports
from seaway.model.names import some_of
from seaway.store.etcd import Member, Refused, Status

if TYPE_CHECKING:
    from seaway.agent.membership import Membership

log = structlog.get_logger()

_PACE: Final = 2.0
"""Seconds between looks at who should run etcd."""
_COPYING: Final = 60.0
"""Seconds for etcd here to get all that the others have, and between two attempts at that."""
_LEAVING: Final = 10.0
"""Seconds to try to give up our part of the store."""
_IDLE_PACE: Final = 60.0
_SPREAD: Final = 10.0
"""Seconds between looks of hosts that have no part of the store, and over which they spread."""
_HEALTH: Final = 10.0
"""Seconds between looks at how each store is."""
_RENEW_RETRY: Final = 30.0
_PATIENCE: Final = 3.0
"""Seconds without the store after which we wonder whether it is because of us."""


class Stores:
    """Runs etcd here if this host should, and serves the join port then.

    Attributes:
        process: etcd on this host.
        hosts: Who has a vote, as known last.
        wanted: Who should run etcd, or if that is somebody else's, have the authority's key.
        trouble: What went wrong last; "" if nothing did.
    """

    def __init__(self, ship: Membership) -> None:
        self._ship = ship
        self.process = EtcdMember(ship.folder.etcd)
        self.hosts: tuple[HostId, ...] = ()
        self.wanted: tuple[HostId, ...] = ()
        self.members: tuple[Member, ...] = ()
        self.health: dict[str, Status | None] = {}
        self._looked = 0.0
        self.trouble = ""
        self._kicked = asyncio.Event()
        self._config: EtcdConfig | None = None
        self._reconfigured = asyncio.Event()
        self._stopped = False
        self._ask_again = self._join_again = 0.0
        self._signs, self._signs_no_more = asyncio.Event(), asyncio.Event()

    @property
    def signers(self) -> tuple[HostId, ...]:
        """Those that have the authority's key."""
        return self.choose_signers() if self._ship.member.foreign else self.hosts

    def choose_signers(self) -> tuple[HostId, ...]:
        """Say who has the authority's key, where the store is somebody else's."""
        commons = self._ship.commons
        self.wanted = wanted_signers(list(commons.hosts.values()), commons.alive)
        return self.wanted

    def kick(self) -> None:
        """Look again soon."""
        self._kicked.set()

    async def keep(self) -> None:
        """Keep etcd running here, if it has been started before, until cancelled."""
        if self.process.has_data and not self._ship.member.foreign:
            self._run_etcd(self.config("existing", ()))
        await self._keep_etcd()

    async def run(self) -> None:
        """See who should have the store, let others in, renew certificates, until cancelled."""
        self._note_signing()
        services: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (
            self._decide_often,
            self._serve_joins,
            self._renew_in_time,
            Upkeep(self._ship).run,
        )
        async with asyncio.TaskGroup() as group:
            for service in services:
                group.create_task(service())

    async def stop(self) -> None:
        """End etcd here for good: this host is no member any more."""
        self._stopped = True
        self._run_etcd(None)
        await self.process.wipe()
        self._ship.folder.credentials.drop_authority()

    # -- the process ------------------------------------------------------------------------

    def config(
        self, state: Literal["new", "existing"], members: tuple[tuple[str, Urls], ...]
    ) -> EtcdConfig:
        """Say how etcd is started here."""
        files = self._ship.folder.credentials
        addresses = self._ship.known_addresses
        ports = Ports(base=self._ship.member.port)
        return EtcdConfig(
            name=self._ship.me,
            addresses=addresses,
            ports=ports,
            certificate=files.certificate,
            key=files.key,
            ca=files.ca,
            crl=files.crl,
            members=members or ((self._ship.me, peer_urls(addresses, ports)),),
            state=state,
            token=self._ship.member.cluster,
        )

    def _run_etcd(self, config: EtcdConfig | None) -> None:
        if config != self._config:
            self._config = config
            self._reconfigured.set()

    async def _keep_etcd(self) -> None:
        while True:
            self._reconfigured.clear()
            config = self._config
            if config is None:
                await self._reconfigured.wait()
                continue
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self.process.keep_running(config))
                await self._reconfigured.wait()
                keeping.cancel()

    # -- who runs it ------------------------------------------------------------------------

    async def _decide_often(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PACE if self._is_concerned else _IDLE_PACE):
                    await self._kicked.wait()
            if not self._is_concerned:  # thousands of hosts hear of the same thing at once
                await asyncio.sleep(random.uniform(0, _SPREAD))  # noqa: S311 - not a secret
            self._kicked.clear()
            self._note_signing()
            if self._stopped:
                continue
            if not self._ship.session.online:
                await self._ask_if_removed()
                continue
            try:
                await self._revoke()
                if self._ship.member.foreign:
                    await self._share_authority()
                else:
                    await self._decide()
                self.trouble = self.process.trouble
            except SeawayError as err:
                self.trouble = str(err)
                log.info("store_step_failed", error=str(err))

    @property
    def _is_concerned(self) -> bool:
        """Is there anything for this host to do about the store, or may there soon be?"""
        ship = self._ship
        few = len(ship.commons.hosts) <= 2 * max(STORE_SIZES)
        return few or not ship.session.online or ship.me in {*self.hosts, *self.wanted}

    async def _decide(self) -> None:
        ship = self._ship
        await self._look()
        await self._remove_strangers()
        peers = peer_urls(ship.commons.host.addresses, ship.cluster.ports)
        mine = find_member(self.members, ship.me, peers)
        if ship.me in self.wanted:
            if not ship.folder.credentials.can_sign:
                await self._fetch_authority()
            if mine is None or mine.learner or not mine.name:
                if time.monotonic() > self._join_again:
                    await self._join(peers)
                return
            if set(mine.peer_urls) != set(peers):
                await ship.session.etcd.update_member(mine.id, peers)
            if self._config is None or self._config.addresses != ship.commons.host.addresses:
                self._run_etcd(self.config("existing", ()))
        elif mine is not None and len(self.wanted) > 0:
            await self._leave(peers)
        elif ship.folder.credentials.can_sign:
            ship.folder.credentials.drop_authority()

    async def _look(self) -> None:
        ship = self._ship
        self.members = await ship.session.etcd.members()
        known = ship.commons.hosts
        self.hosts = tuple(HostId(m.name) for m in self.members if not m.learner and m.name)
        if time.monotonic() - self._looked > _HEALTH:
            self._looked, self.health = time.monotonic(), await self.statuses()
        members = {HostId(m.name) for m in self.members} & known.keys()
        self.wanted = wanted_stores(
            list(known.values()), members, ship.commons.alive, ship.cluster.stores
        )
        ship.remember_stores(self.members)

    async def _share_authority(self) -> None:
        """Have the authority's key on several hosts, though none of them runs the store."""
        me, alive = self._ship.me, self._ship.commons.alive
        files = self._ship.folder.credentials
        if me in self.choose_signers():
            if not files.can_sign:
                await self._fetch_authority()
        elif files.can_sign and me in alive:  # whose lease has just ended may be the only one
            files.drop_authority()

    async def _fetch_authority(self) -> None:
        ship = self._ship
        files = ship.folder.credentials
        found = await join_client.fetch_authority(self.servers(), files)
        files.save_authority(found.certificate, found.key)
        ship.folder.credentials.revoke(ship.cluster.revoked)

    async def _join(self, peers: Urls) -> None:
        """Become a member of etcd, step by step; each may have been done before a crash."""
        ship = self._ship
        members = await join_as_learner(ship.session.etcd, self.process, ship.me, peers)
        if members is None:
            return  # another host is just joining: later
        self._run_etcd(self.config("existing", members))
        try:
            async with asyncio.timeout(_COPYING):
                await promote(ship.session.etcd, ship.me, peers)
        except TimeoutError:
            await self._step_back(peers)
        await self._look()
        ship.core_events("store_joined")

    async def _step_back(self, peers: Urls) -> None:
        """Let others try to have a part of the store: etcd takes in one at a time.

        Raises:
            StoreError: Says what keeps us from it.
        """
        ship = self._ship
        self._run_etcd(None)
        await self._look()
        mine = find_member(self.members, ship.me, peers)
        if mine is not None and mine.learner:
            await ship.session.etcd.remove_member(mine.id)
        await self.process.wipe()
        self._join_again = time.monotonic() + _COPYING
        raise StoreError(
            "etcd here could not copy from the others: do firewalls let tcp port "
            f"{ship.cluster.ports.etcd_peers} pass, in both directions?"
        )

    async def _leave(self, peers: Urls) -> None:
        successors = [h for h in self.wanted if h != self._ship.me]
        self._run_etcd(None)
        try:
            await leave(self._ship.session.etcd, self.process, self._ship.me, peers, successors)
        except SeawayError:
            self._run_etcd(self.config("existing", ()))
            raise
        self._ship.folder.credentials.drop_authority()
        self._ship.core_events("store_left")

    async def leave_for_good(self) -> None:
        """Give up this host's part of the store, as it leaves the cluster; fine if it has none.

        Raises:
            Conflict: It is the only one, and other hosts are in the cluster.
            StoreError: The others do not answer.
        """
        ship = self._ship
        if ship.member.foreign or len(ship.commons.hosts) == 1:
            return
        await self._look()
        peers = peer_urls(ship.commons.host.addresses, ship.cluster.ports)
        mine = find_member(self.members, ship.me, peers)
        if mine is None:
            return
        rest = [host for host in ship.commons.hosts.values() if host.id != ship.me]
        voters = {h for h in self.hosts if h != ship.me}
        if not voters:
            raise Conflict(
                "this host has the cluster's only store: let another host have it first, with "
                f"'seaway node drain {ship.member.name}', or remove the others "
                f"({some_of([h.name for h in rest])})"
            )
        deadline = time.monotonic() + _LEAVING
        while True:
            try:
                await ship.session.etcd.remove_member(mine.id)
            except Refused:
                # For some seconds after another change etcd refuses the next one.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)
            else:
                break
        self._stopped = True

    def resume(self) -> None:
        """Look after the store again: this host has not left after all."""
        self._stopped = False

    async def _remove_strangers(self) -> None:
        """Members whose host has been removed count against the majority for ever."""
        ship = self._ship
        if ship.me != next((h for h in self.hosts if h in ship.commons.alive), None):
            return  # one of us is enough
        gone = [m for m in self.members if m.name and HostId(m.name) not in ship.commons.hosts]
        for member in gone:
            await ship.session.etcd.remove_member(member.id)
        if gone:
            await self._look()

    async def _revoke(self) -> None:
        """Have removed hosts' certificates refused, and their open connections ended."""
        ship = self._ship
        files = ship.folder.credentials
        if files.can_sign and files.revoke(ship.cluster.revoked):
            ship.core_events("certificates_revoked")
            if self._config is not None:
                await self.process.restart(self._config)

    @property
    def known_health(self) -> dict[str, Status | None]:
        """How each member was when last asked, without those that were removed since."""
        hosts = self._ship.commons.hosts
        return {name: status for name, status in self.health.items() if HostId(name) in hosts}

    def ill(self) -> list[str]:
        """Name the hosts whose part of the store did not answer well, when last asked."""
        return [
            self._ship.host_name(HostId(name))
            for name, status in self.known_health.items()
            if status is None or not status.leader or status.errors
        ]

    async def statuses(self) -> dict[str, Status | None]:
        """Ask every member how it is; None for one that does not answer."""
        return await statuses(self._ship.session.etcd, self.members)

    def urls(self) -> Urls:
        """Where this host's own etcd answers."""
        return client_urls(self._ship.commons.host.addresses, self._ship.cluster.ports)

    # -- letting others in ----------------------------------------------------------------------

    def _note_signing(self) -> None:
        """Open or close the join port: only who can sign lets others in."""
        signs = self._ship.folder.credentials.can_sign and self._ship.commons.cluster is not None
        (self._signs.set if signs else self._signs.clear)()
        (self._signs_no_more.clear if signs else self._signs_no_more.set)()

    async def _serve_joins(self) -> None:
        files = self._ship.folder.credentials
        while True:
            await self._signs.wait()
            try:
                listeners = listen(self._ship.cluster.ports.join)
            except SeawayError as err:
                self.trouble = str(err)
                await asyncio.sleep(_PACE)
                continue
            async with asyncio.TaskGroup() as group:
                server = JoinServer(files, Gate(self._ship))
                serving = group.create_task(server.serve(listeners))
                await self._signs_no_more.wait()
                serving.cancel()

    # -- certificates -----------------------------------------------------------------------------

    async def _ask_if_removed(self) -> None:
        """Hear from those who sign whether we are a member still: etcd just ends connections.

        Perhaps our certificate has ended while we were away; then we have a fresh one after that.
        """
        clock = time.monotonic()
        if time.time() - self._ship.session.since < _PATIENCE or clock < self._ask_again:
            return
        self._ask_again = clock + _RENEW_RETRY
        try:
            await self._renew_elsewhere()
        except Removed:
            await self._ship.is_removed()
        except SeawayError as err:
            log.info("membership_not_confirmed", error=str(err))

    def servers(self) -> list[Server]:
        """Name the join ports of the hosts that have the authority's key, ours left out."""
        ship = self._ship
        port = ship.cluster.ports.join
        known = [ship.commons.hosts[h] for h in self.signers if h in ship.commons.hosts]
        others = [h for h in known or ship.commons.hosts.values() if h.id != ship.me]
        return [Server(str(a), port) for host in others for a in host.addresses]

    async def _renew_in_time(self) -> None:
        files = self._ship.folder.credentials
        certified = self._ship.commons.host.addresses
        while True:
            wait = files.validity().renew - time.time()
            addresses = self._ship.commons.host.addresses
            if wait > 0 and addresses == certified:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(wait, _RENEW_RETRY)):
                        await self._ship.overlay.moved.wait()
                    self._ship.overlay.moved.clear()
                continue
            try:
                await self._renew()
                certified = addresses
            except Removed:
                await self._ship.is_removed()
                return
            except SeawayError as err:
                log.warning("certificate_not_renewed", error=str(err))
                await asyncio.sleep(_RENEW_RETRY)

    async def _renew(self) -> None:
        """Get a certificate for another day.

        Raises:
            Removed: This host is no member any more.
            SeawayError: Nobody certifies it now.
        """
        ship = self._ship
        files = ship.folder.credentials
        host = ship.commons.host
        if files.can_sign:
            from seaway.cluster.pki import Holder  # noqa: PLC0415 - only who signs needs it

            files.sign_own(Holder(id=host.id, name=host.name, addresses=host.addresses))
            ship.use_certificate()
            log.info("certificate_renewed")
        else:
            await self._renew_elsewhere()

    async def _renew_elsewhere(self) -> None:
        ship = self._ship
        files, host = ship.folder.credentials, ship.commons.host
        request = RenewRequest(
            id=host.id,
            csr=files.request(host.name),
            addresses=tuple(map(str, host.addresses)),
        )
        found = await join_client.renew(self.servers(), files, request)
        files.save(found.certificate, found.ca)
        ship.use_certificate()
        log.info("certificate_renewed")
