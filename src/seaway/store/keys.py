"""Where each record stands in a store.  Claims are records that only say who has something.

What every host of a cluster has to know stands below ``/seaway/v1/shared``, what those on a
network have to know below ``/seaway/v1/on/<network>``: each of them is one watch.  What belongs
to one host alone stands below ``/seaway/v1/local/<host>``, as that host's own store has it.
"""

from __future__ import annotations

from typing import Final

from seaway.model.cluster import HostId
from seaway.model.network import Address, NetworkId, Prefix

ROOT: Final = "/seaway/v1"
SHARED: Final = f"{ROOT}/shared/"
CLUSTER: Final = f"{SHARED}cluster"

TOKEN: Final = f"{ROOT}/token"
"""The secret of the join token."""

HOSTS: Final = f"{SHARED}hosts/"
ALIVE: Final = f"{SHARED}alive/"
NETWORKS: Final = f"{SHARED}networks/"


def host(identity: HostId) -> str:
    """Return where a host's record is."""
    return HOSTS + identity


def alive(identity: HostId) -> str:
    """Return the key that is there as long as the host renews its lease."""
    return ALIVE + identity


def host_name(name: str) -> str:
    """Return the claim to a host's name."""
    return f"{ROOT}/host-names/{name}"


def host_number(number: int) -> str:
    """Return the claim to a host's number."""
    return f"{ROOT}/host-numbers/{number}"


def network(identity: NetworkId) -> str:
    """Return where a network's record is."""
    return NETWORKS + identity


def network_name(name: str) -> str:
    """Return the claim to a cluster-wide network's name."""
    return f"{ROOT}/network-names/{name}"


NETWORK_TURN: Final = f"{ROOT}/network-turn"
"""Written by whoever makes a network, so that two never choose overlapping subnets at once."""


def on(identity: NetworkId) -> str:
    """Return the prefix of all that those who take part in a network have to know."""
    return f"{ROOT}/on/{identity}/"


def blocks(identity: NetworkId) -> str:
    """Return the prefix of a network's blocks."""
    return f"{on(identity)}blocks/"


def block(identity: NetworkId, cidr: Prefix) -> str:
    """Return where the record of a block is: there is at most one owner."""
    return blocks(identity) + _flat(cidr)


def announced(identity: NetworkId, endpoint: str = "") -> str:
    """Return where an endpoint is announced; without one, the prefix of all of a network's."""
    return f"{on(identity)}announced/{endpoint}"


def addresses(identity: NetworkId) -> str:
    """Return the prefix of the claims to a network's addresses."""
    return f"{ROOT}/addresses/{identity}/"


def address(identity: NetworkId, of: Address) -> str:
    """Return the claim to an address."""
    return addresses(identity) + str(of)


def name(identity: NetworkId, called: str) -> str:
    """Return the claim to a container's name on a network."""
    return f"{ROOT}/names/{identity}/{called.lower()}"


def local(identity: HostId, key: str = f"{ROOT}/") -> str:
    """Return where a cluster's store keeps what one host's own store has at *key*."""
    return f"{ROOT}/local/{identity}/{key.removeprefix(f'{ROOT}/')}"


def kind(key: str) -> str:
    """Return what sort of record is at *key*, e.g. "networks"."""
    scope, *rest = key.removeprefix(f"{ROOT}/").split("/", 3)
    if scope == "shared":
        return rest[0]
    return rest[1] if scope == "on" else scope


def network_of(key: str) -> tuple[NetworkId, str]:
    """Take the network and the last part out of the key of a block or an announced endpoint."""
    _, _, _, _, network, _, last = key.split("/", 6)
    return NetworkId(network), last


def names(identity: NetworkId) -> str:
    """Return the prefix of the claims to container names on a network."""
    return f"{ROOT}/names/{identity}/"


def _flat(cidr: Prefix) -> str:
    return str(cidr).replace("/", "-")
