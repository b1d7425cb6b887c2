"""Tell the cluster's store what it does not know, when it has been out of reach or we were away.

Our own containers are ours to tell about; what only one can have, the store's word counts.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

import structlog

from seaway.agent.transaction import Transaction, announced, endpoint_records
from seaway.model.cluster import Block, Claim
from seaway.model.network import Address, NetworkId
from seaway.model.sandbox import Endpoint, EndpointId
from seaway.store import keys
from seaway.store.codec import decode, encode
from seaway.store.etcd_wire import At, Clash, Erase, Holds, Write

if TYPE_CHECKING:
    from seaway.agent.session import Session

log = structlog.get_logger()

_TXN_MAX: Final = 100
"""Operations in one transaction: below etcd's own default of 128, for those we do not run."""

_ANEW: Final = "remove this container, and run it anew"
"""What to do about one that cannot have again what it had."""


class Teller:
    """Compares what this host has with what the store has of it, and writes what is missing."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._commons = session.commons
        self._state = session.state
        self._lost: dict[EndpointId, str] = {}
        self._unnamed: dict[EndpointId, str] = {}

    async def tell_all(self) -> None:
        """Bring the store to what this host has.

        Raises:
            StoreError: Out of reach, again.
        """
        await self._tell_local()
        await self._tell_endpoints()

    async def _tell_local(self) -> None:
        me = self._commons.me
        mine = {keys.local(me, key): value for key, value in self._state.records().items()}
        kvs, _ = await self._session.etcd.range(keys.local(me))
        there = {kv.key: kv.value for kv in kvs}
        writes = [Write(k, v) for k, v in mine.items() if there.get(k) != v]
        erases = [Erase(k) for k in there.keys() - mine.keys()]
        await self.in_pieces(writes, erases)

    async def _tell_endpoints(self) -> None:
        self._lost, self._unnamed = {}, {}
        for network in self._session.orphans:
            why = f"its network was removed while this host was away: {_ANEW}"
            self._lost |= {e.id: why for e in self._state.members(network)}
        networks = self._session.taking_part - self._session.orphans
        # All that lives with our lease, also of an earlier life: in a large cluster it would
        # take seconds to look for that among everybody's.
        ours = await self._session.etcd.keys_of(self._session.lease)
        kept = {keys.alive(self._commons.me)}
        for network in networks:
            for endpoint in list(self._state.members(network)):
                kept |= await self._tell_endpoint(endpoint)
            await self._tell_blocks(network)
        # In one step: who looks meanwhile must not find that all is well.
        self._commons.lost, self._commons.unnamed = self._lost, self._unnamed
        await self.in_pieces([], [Erase(key) for key in ours - kept])

    async def _tell_endpoint(self, endpoint: Endpoint) -> set[str]:
        """Claim what an endpoint has, unless it is claimed, and announce it.

        Returns:
            The keys that it has now.
        """
        sandbox = self._state.sandboxes[endpoint.sandbox]
        wanted = Transaction()
        have: set[str] = set()
        for key, value in endpoint_records(endpoint, sandbox, self._commons):
            found = await self._session.etcd.get(key)
            # Not by its bytes: another release of ours may have written it.
            if found is not None and not self._is_ours(
                decode(Claim, found.value, newer=True), endpoint
            ):
                why = str(await self._session.explain(Clash(key, found, taken=True), _ANEW))
                log.warning("claim_lost", sandbox=sandbox.name, error=why)
                if keys.kind(key) != "names":
                    self._lost[endpoint.id] = why
                    return have
                self._unnamed[endpoint.id] = self._commons.unnamed[endpoint.id] = why
                continue
            have.add(key)
            if found is None:
                wanted.claim(key, value, self._session.lease)
            elif found.lease != self._session.lease or found.value != value:
                wanted.compares.append(Holds(key, found.value))
                wanted.writes.append(Write(key, value, self._session.lease))
        if endpoint.id not in self._unnamed:
            self._commons.unnamed.pop(endpoint.id, None)
        key = keys.announced(endpoint.network, endpoint.id)
        there = await self._session.etcd.get(key)
        told = encode(announced(endpoint, sandbox, self._commons))
        have.add(key)
        if there is None or there.value != told or there.lease != self._session.lease:
            wanted.writes.append(Write(key, told, self._session.lease))
        try:
            if wanted:
                await self._session.write(wanted)
        except Clash as err:
            self._lost[endpoint.id] = str(await self._session.explain(err, _ANEW))
        return have

    def _is_ours(self, claim: Claim, endpoint: Endpoint) -> bool:
        """Is it the endpoint's, or of one that went while the store was away?"""
        gone = claim.host == self._commons.me and claim.endpoint not in self._state.endpoints
        return claim.endpoint == endpoint.id or gone

    async def _tell_blocks(self, network: NetworkId) -> None:
        """Own every block again that our endpoints live in, unless somebody else has it by now."""
        members = [e for e in self._state.members(network) if e.id not in self._lost]
        for endpoint in members:
            for address in endpoint.addresses:
                blocks = self._commons.blocks.get(network, {})
                inside = [b for b in blocks.values() if address in b.cidr]
                owner = max(inside, key=lambda b: b.cidr.prefixlen, default=None)
                if owner is None or owner.host != self._commons.me:
                    await self._borrow(network, address)
        await self._give_back(network)

    async def _give_back(self, network: NetworkId) -> None:
        """Let others have what was borrowed for containers that have gone meanwhile."""
        held = {a for e in self._state.members(network) for a in e.addresses}
        idle = [
            block
            for block in self._commons.blocks_of(self._commons.me, network)
            if block.cidr.prefixlen == block.cidr.max_prefixlen
            and block.cidr.network_address not in held
        ]
        for key in [keys.block(network, block.cidr) for block in idle]:
            with suppress(Clash):  # somebody has borrowed it by now
                at = self._commons.revisions.get(key, 0)
                await self._session.etcd.txn([At(key, at)], [], [Erase(key)])
                self._commons.take([(key, None, 0)])

    async def _borrow(self, network: NetworkId, address: Address) -> None:
        single = ip_network((address, address.max_prefixlen))
        block = Block(network=network, cidr=single, host=self._commons.me)
        key = keys.block(network, single)
        with suppress(Clash):
            revision = await self._session.etcd.txn([At(key)], [Write(key, encode(block))], [])
            record = [(key, encode(block), revision)]
            await self._session.take(record)

    async def in_pieces(self, writes: list[Write], erases: list[Erase]) -> None:
        """Do more than fits one transaction; nothing, if this host has just been removed."""
        for at in range(0, len(writes), _TXN_MAX):
            await self._session.write(Transaction(writes=writes[at : at + _TXN_MAX]))
        for at in range(0, len(erases), _TXN_MAX):
            await self._session.write(Transaction(erases=erases[at : at + _TXN_MAX]))
