"""What a change of this host's means for the cluster's store.  Pure.

Everything that only one host can have (an address, a name, a block) is a key
that must not exist yet, so that of two hosts exactly one wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from seaway.agent.commons import Commons
from seaway.agent.names import names_of
from seaway.agent.state import Change, State, is_shared, key_of
from seaway.model.cluster import Announced, Block, Claim
from seaway.model.network import Address, Network
from seaway.model.sandbox import Endpoint, Phase, Sandbox, SandboxId
from seaway.store import keys
from seaway.store.codec import encode
from seaway.store.etcd_wire import At, Clash, Compare, Empty, Erase, Write


@dataclass(slots=True)
class Transaction:
    """One request to etcd: all of it is done, or nothing."""

    compares: list[Compare] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    erases: list[Erase] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.writes or self.erases)

    def claim(self, key: str, value: bytes, lease: int = 0) -> None:
        """Write a key that must not exist."""
        self.compares.append(At(key))
        self.writes.append(Write(key, value, lease))


def transaction(change: Change, state: State, commons: Commons, lease: int) -> Transaction:
    """Say what *change*, which the state does not have yet, is to others in the cluster.

    Raises:
        Clash: A network that it needs has gone since it was thought of.
    """
    found = Transaction()
    for item in change.put:
        if isinstance(item, Endpoint) and item.network not in state.networks:
            raise Clash(keys.network(item.network), None, taken=False)
    _removals(found, change, state, commons)
    for block in change.claim:
        _claim_block(found, block, commons)
    sandboxes = {s.id: s for s in change.put if isinstance(s, Sandbox)}
    for item in change.put:
        if isinstance(item, Network) and is_shared(item):
            _put_network(found, item, commons)
    fresh = {e.id for e in change.put if isinstance(e, Endpoint)} - state.endpoints.keys()
    for endpoint, sandbox in _to_announce(change, state, sandboxes):
        if endpoint.id in commons.lost:
            continue  # its address leads to somebody else
        if endpoint.id in fresh:
            _claim_endpoint(found, endpoint, sandbox, commons, lease)
        _announce(found, endpoint, sandbox, commons, lease)
    return found


def local_records(change: Change) -> dict[str, bytes | None]:
    """Say what *change* is to what this host has alone: key -> value, or None to delete it.

    Nobody waits for the cluster to have a copy of that.
    """
    found: dict[str, bytes | None] = {key_of(i): None for i in change.delete if not is_shared(i)}
    return found | {key_of(i): encode(i) for i in change.put if not is_shared(i)}


def concerns_others(change: Change) -> str:
    """Say what in *change* cannot do without the cluster's store; "" if nothing does."""
    for item in (*change.put, *change.delete):
        if is_shared(item):
            assert isinstance(item, Network)
            return f"network {item.name} is the whole cluster's"
    for block in change.claim:
        return f"this host has no free address in {block.cidr} to itself"
    return ""


def endpoint_records(
    endpoint: Endpoint, sandbox: Sandbox, commons: Commons
) -> Iterator[tuple[str, bytes]]:
    """Yield every claim of an endpoint on an overlay network, key and value."""
    claim = Claim(host=commons.me, name=sandbox.name, endpoint=endpoint.id)
    for address in endpoint.addresses:
        yield keys.address(endpoint.network, address), encode(claim)
    yield keys.name(endpoint.network, sandbox.name), encode(claim)


def _held(endpoint: Endpoint, sandbox: Sandbox, commons: Commons) -> Iterator[str]:
    """Yield the claims of an endpoint that are its own: some may be somebody else's by now."""
    if endpoint.id not in commons.lost:
        for key, _ in endpoint_records(endpoint, sandbox, commons):
            if endpoint.id not in commons.unnamed or keys.kind(key) != "names":
                yield key


def announced(endpoint: Endpoint, sandbox: Sandbox, commons: Commons) -> Announced:
    """Make what other hosts are told of an endpoint."""
    runs = sandbox.phase is Phase.RUNNING
    names = names_of(sandbox, endpoint.aliases)
    if endpoint.id in commons.unnamed:
        names = tuple(name for name in names if name != sandbox.name.lower())
    return Announced(
        id=endpoint.id,
        network=endpoint.network,
        host=commons.me,
        sandbox=sandbox.id,
        name=sandbox.name,
        names=names if runs else (),
        v4=endpoint.v4,
        v6=endpoint.v6,
        mac=endpoint.mac,
        labels=sandbox.labels,
    )


def _claim_block(found: Transaction, block: Block, commons: Commons) -> None:
    """A dead host's is taken over only if it is still as we know it."""
    key = keys.block(block.network, block.cidr)
    found.compares.append(At(key, commons.revisions.get(key, 0)))
    found.writes.append(Write(key, encode(block)))
    # The network must be there still: whoever removes it removes its blocks as well.
    at = keys.network(block.network)
    found.compares.append(At(at, commons.revisions.get(at, 0)))


def _put_network(found: Transaction, network: Network, commons: Commons) -> None:
    key = keys.network(network.id)
    claim = encode(Claim(host=commons.me, name=network.name))
    found.claim(keys.network_name(network.name), claim)
    found.compares.append(At(keys.NETWORK_TURN, commons.revisions.get(keys.NETWORK_TURN, 0)))
    found.writes.append(Write(keys.NETWORK_TURN, claim))
    found.claim(key, encode(network))


def _claim_endpoint(
    found: Transaction, endpoint: Endpoint, sandbox: Sandbox, commons: Commons, lease: int
) -> None:
    for key, value in endpoint_records(endpoint, sandbox, commons):
        found.claim(key, value, lease)
    at = keys.network(endpoint.network)
    found.compares.append(At(at, commons.revisions.get(at, 0)))
    for address in endpoint.addresses:
        _still_own(found, endpoint, address, commons)


def _still_own(found: Transaction, endpoint: Endpoint, address: Address, commons: Commons) -> None:
    """The block must be ours until then: it may be given back, or taken over, at any time."""
    for cidr in commons.own_blocks(endpoint.network, address.version):
        if address in cidr:
            at = keys.block(endpoint.network, cidr)
            found.compares.append(At(at, commons.revisions.get(at, 0)))


def _announce(
    found: Transaction, endpoint: Endpoint, sandbox: Sandbox, commons: Commons, lease: int
) -> None:
    key = keys.announced(endpoint.network, endpoint.id)
    found.writes.append(Write(key, encode(announced(endpoint, sandbox, commons)), lease))


def _to_announce(
    change: Change, state: State, sandboxes: dict[SandboxId, Sandbox]
) -> Iterable[tuple[Endpoint, Sandbox]]:
    """Pair every overlay endpoint that *change* touches with its sandbox, as both will be."""
    touched = {e.id: e for e in change.put if isinstance(e, Endpoint)}
    for identity in sandboxes:
        for item in state.attachments(identity):
            touched.setdefault(item.endpoint.id, item.endpoint)
    gone = {e.id for e in change.delete if isinstance(e, Endpoint)}
    for endpoint in touched.values():
        network = state.networks.get(endpoint.network)
        if endpoint.id not in gone and network is not None and is_shared(network):
            yield endpoint, sandboxes.get(endpoint.sandbox) or state.sandboxes[endpoint.sandbox]


def _removals(found: Transaction, change: Change, state: State, commons: Commons) -> None:
    for item in change.delete:
        if isinstance(item, Network) and is_shared(item):
            found.compares.append(Empty(keys.addresses(item.id)))
            found.erases += _network_erased(item)
        elif isinstance(item, Endpoint) and commons.networks.get(item.network):
            sandbox = state.sandboxes[item.sandbox]
            found.erases += (Erase(key) for key in _held(item, sandbox, commons))
            found.erases.append(Erase(keys.announced(item.network, item.id)))
    found.erases += (Erase(keys.block(b.network, b.cidr)) for b in change.release)


def _network_erased(network: Network) -> Iterator[Erase]:
    yield Erase(keys.network(network.id))
    yield Erase(keys.network_name(network.name))
    for prefix in (keys.on, keys.names):
        yield Erase(prefix(network.id), prefix=True)
