"""Give endpoints their addresses: on this host's networks, and on those of the whole cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network

from seaway.agent.commons import Commons
from seaway.agent.core import Core
from seaway.agent.session import Session
from seaway.errors import Exhausted, InvalidSpec, StoreError
from seaway.ipam import blocks
from seaway.ipam.addresses import allocate, claim
from seaway.model.cluster import Block, HostId
from seaway.model.network import Address, Driver, Network, NetworkId, Prefix, Subnet


@dataclass(slots=True)
class Wants:
    """What one operation is about to take, and what it must not.

    Attributes:
        claim: Blocks that this host has to own first.
        avoid: Addresses that turned out to be somebody else's.
        answered: Whether hosts that lost their lease are within reach.
        races: How many blocks another host took first.
    """

    claim: list[Block] = field(default_factory=list)
    avoid: set[Address] = field(default_factory=set)
    answered: dict[HostId, bool] = field(default_factory=dict)
    races: int = 0


async def address(
    core: Core, network: Network, version: int, wanted: Address | None, wants: Wants
) -> Address | None:
    """Choose an endpoint's address of one family; commits nothing.

    Raises:
        InvalidSpec: The network has no such address.
        Conflict: It is held by somebody; says by whom.
        Exhausted: None is left.
        StoreError: The cluster has to be asked, and cannot be.
    """
    subnet = network.subnet(version)
    if subnet is None or (version == 6 and not core.host.ipv6):
        if wanted is not None:
            raise InvalidSpec(f"network {network.name!r} has no IPv{version} subnet for {wanted}")
        return None
    if network.driver is Driver.OVERLAY:
        return await _shared(core, network, subnet, wanted, wants)
    held = core.state.holders(network.id)
    if not network.routed:
        # The host itself may have an address on the wire that a macvlan shares.
        held = dict.fromkeys(core.local(), "this host") | dict(held)
    if wanted is not None:
        return claim(subnet, held, wanted)
    found = allocate(subnet, held, core.cursors.get((network.id, version)))
    core.cursors[network.id, version] = found
    return found


def v4(of: Address | None) -> IPv4Address | None:
    """Return it if it is an IPv4 address."""
    return of if isinstance(of, IPv4Address) else None


def v6(of: Address | None) -> IPv6Address | None:
    """Return it if it is an IPv6 address."""
    return of if isinstance(of, IPv6Address) else None


# -- networks of the whole cluster ------------------------------------------------------------


class _Held(Mapping[Address, str]):
    """Everything in our blocks that is taken: by our endpoints, or lent to other hosts."""

    def __init__(
        self, core: Core, commons: Commons, network: NetworkId, avoid: set[Address]
    ) -> None:
        self._own = core.state.holders(network)
        self._blocks = commons.blocks.get(network, {})
        self._announced = commons.announced.get(network, {})
        self._commons = commons
        self._avoid = avoid

    def __contains__(self, address: object) -> bool:
        return address in self._own or address in self._avoid or self._lent(address) is not None

    def __getitem__(self, address: Address) -> str:
        if address in self._own:
            return self._own[address]
        if block := self._lent(address):
            there = self._announced.values()
            who = next((a.name for a in there if address in a.addresses), "a container")
            host = self._commons.hosts.get(block.host)
            return f"{who} on {host.name if host else 'another host'}"
        if address in self._avoid:
            return "a container on another host"
        raise KeyError(address)

    def _lent(self, address: object) -> Block | None:
        assert isinstance(address, IPv4Address | IPv6Address)
        block = self._blocks.get(_single(address))
        return block if block and block.host != self._commons.me else None

    def __iter__(self) -> Iterator[Address]:
        yield from {*self._own, *self._avoid}

    def __len__(self) -> int:
        return len(self._own) + len(self._avoid) + len(self._blocks)


async def _shared(
    core: Core, network: Network, subnet: Subnet, wanted: Address | None, wants: Wants
) -> Address:
    assert core.cluster is not None, "a network of a cluster is known only to its members"
    session, commons = core.cluster.session, core.cluster.commons
    held = _Held(core, commons, network.id, wants.avoid)
    if wanted is not None:
        found = claim(subnet, held, wanted)
        if not session.online:
            _require_alone(network, found, commons, session)
        _own_block_for(network, subnet, found, commons, wants)
        return found
    own = commons.own_blocks(network.id, subnet.version)
    cursor = core.cursors.get((network.id, subnet.version))
    picked = blocks.pick(subnet, own, held, alone=not session.online, after=cursor)
    if picked is None:
        picked = await _beyond_own(core, session, network, subnet, held, wants)
    core.cursors[network.id, subnet.version] = picked
    return picked


def _require_alone(network: Network, address: Address, commons: Commons, session: Session) -> None:
    """Others may borrow what is not in the front half of a block of ours.

    Raises:
        StoreError: The store has to be asked for *address*, and is out of reach.
    """
    own = commons.own_blocks(network.id, address.version)
    if not any(address in blocks.front_half(cidr) for cidr in own):
        raise StoreError(
            f"address {address} is not this host's to give, and the cluster's store is out of "
            f"reach ({session.error}): try again when it is back"
        )


def _own_block_for(
    network: Network, subnet: Subnet, address: Address, commons: Commons, wants: Wants
) -> None:
    """Own what a chosen address lies in: its whole block if nobody does, else it alone."""
    there = commons.blocks.get(network.id, {})
    cidr = blocks.block_of(subnet, address)
    owner = there.get(_single(address)) or there.get(cidr)
    if owner is None:
        wants.claim.append(Block(network=network.id, cidr=cidr, host=commons.me))
    elif owner.host != commons.me:
        wants.claim.append(Block(network=network.id, cidr=_single(address), host=commons.me))


async def _beyond_own(
    core: Core, session: Session, network: Network, subnet: Subnet, held: _Held, wants: Wants
) -> Address:
    """Our blocks are full: take another one, borrow, or take over a dead host's.

    Raises:
        StoreError: That needs the cluster's store.
        Exhausted: There is nothing.
    """
    commons = session.commons
    if not session.online:
        raise StoreError(
            f"this host has no free address of network {network.name} to itself, and the "
            f"cluster's store is out of reach ({session.error}): try again when it is back"
        )
    there = commons.blocks.get(network.id, {})
    for cidr in blocks.free_blocks(subnet, there, commons.host.number):
        if (found := _take(network, cidr, subnet, held, commons, wants)) is not None:
            return found
    claimed = await session.claimed(network.id)
    others = {c: b for c, b in there.items() if b.host != commons.me}
    living = {c: b for c, b in others.items() if b.host in commons.alive}
    taken = _Texts(claimed, wants.avoid)
    for address in blocks.borrowable(subnet, living, taken):
        wants.claim.append(Block(network=network.id, cidr=_single(address), host=commons.me))
        return address
    for cidr, block in others.items():
        if cidr.version != subnet.version or await _may_live(core, block.host, wants):
            continue
        if cidr.prefixlen < cidr.max_prefixlen:
            every = _Claimed(taken, held)
            if (found := _take(network, cidr, subnet, every, commons, wants)) is not None:
                return found
        elif cidr.network_address not in taken:
            wants.claim.append(Block(network=network.id, cidr=cidr, host=commons.me))
            return cidr.network_address
    raise Exhausted(
        f"no addresses left in {blocks.pool_of(subnet)}, whose {len(there)} blocks belong to "
        f"{len({b.host for b in there.values()})} hosts: remove containers or make a larger network"
    )


async def _may_live(core: Core, host: HostId, wants: Wants) -> bool:
    """Is a host alive, or at least within reach?  It may only have lost the store."""
    assert core.cluster is not None
    found = core.cluster.commons.hosts.get(host)
    if host in core.cluster.commons.alive or found is None:
        return found is not None
    if host not in wants.answered:
        wants.answered[host] = await core.cluster.probes.answers(found)
    return wants.answered[host]


def _take(
    network: Network,
    cidr: Prefix,
    subnet: Subnet,
    held: Mapping[Address, str],
    commons: Commons,
    wants: Wants,
) -> Address | None:
    """Choose an address of a block that we are about to own; None if others have them all."""
    block = Block(network=network.id, cidr=cidr, host=commons.me)
    found = blocks.pick(subnet, {cidr: block}, held, alone=False)
    if found is not None:
        wants.claim.append(block)
    return found


class _Texts:
    """Addresses that are claimed, as the store writes them."""

    def __init__(self, claimed: set[str], avoid: set[Address]) -> None:
        self._claimed = claimed
        self._avoid = avoid

    def __contains__(self, address: object) -> bool:
        return str(address) in self._claimed or address in self._avoid

    def __len__(self) -> int:
        return len(self._claimed) + len(self._avoid)


class _Claimed(dict[Address, str]):
    """What is claimed by anybody or held by us."""

    def __init__(self, claimed: _Texts, held: _Held) -> None:
        super().__init__()
        self._claimed = claimed
        self._held = held

    def __contains__(self, address: object) -> bool:
        return address in self._claimed or address in self._held

    def __len__(self) -> int:
        return len(self._claimed) + len(self._held)


def _single(address: Address) -> Prefix:
    return ip_network((address, address.max_prefixlen))
