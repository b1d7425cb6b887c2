"""A large cluster, written down: the records that many hosts with many containers would leave.

They are made by the same model, keys and codec that agents use, so that an
agent cannot tell them from those of real hosts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from seaway.ipam.blocks import block_length, pool_of
from seaway.model.cluster import Announced, Block, Claim, Host, HostId, TunnelKey
from seaway.model.names import mac_for
from seaway.model.network import Address, Network, Prefix, Subnet
from seaway.model.sandbox import SandboxId, endpoint_id
from seaway.store import keys
from seaway.store.codec import encode

Record = tuple[str, bytes]

_SERVICES = 50  # times containers of a host on a network


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Hosts with the numbers 2 to *hosts* + 1, next to one real host with the number 1.

    Attributes:
        underlays: Where their addresses are, one after the other, of each IP version.
        networks: Each host has a block of each of them, one for each subnet.
        endpoints: Of each host on each network.
        version: Of Seaway.
    """

    hosts: int
    underlays: Sequence[Prefix]
    networks: Sequence[Network]
    endpoints: int
    version: str

    @property
    def numbers(self) -> range:
        """The hosts' numbers."""
        return range(2, self.hosts + 2)

    def records(self) -> Iterator[Record]:
        """Yield everything that all hosts have written."""
        for number in self.numbers:
            yield from self.host_records(number)
            for network in self.networks:
                yield from self.block_records(self.blocks(network, number))
                for index in range(self.endpoints):
                    yield from self.endpoint_records(network, number, index)

    def host_records(self, number: int) -> list[Record]:
        """Return what a host writes about itself."""
        host = self._host(number)
        claim = encode(Claim(host=host.id, name=host.name))
        return [
            (keys.host(host.id), encode(host)),
            (keys.host_name(host.name), claim),
            (keys.host_number(number), claim),
            (keys.alive(host.id), b"1"),
        ]

    def blocks(self, network: Network, number: int, turn: int = 0) -> list[Block]:
        """Return a host's block of each subnet; *turn* 1 is one more, beyond all hosts' first."""
        index = number - 1 + turn * (self.hosts + 1)
        return [
            Block(network=network.id, cidr=_block(subnet, index), host=host_id(number))
            for subnet in network.subnets
        ]

    def block_records(self, blocks: Sequence[Block]) -> list[Record]:
        """Return what a host writes when it takes *blocks*."""
        return [(keys.block(b.network, b.cidr), encode(b)) for b in blocks]

    def endpoint_records(self, network: Network, number: int, index: int) -> list[Record]:
        """Return what a host writes when a container starts there."""
        one = self.announced(network, number, index)
        claim = encode(Claim(host=one.host, name=one.name, endpoint=one.id))
        return [
            (keys.announced(network.id, one.id), encode(one)),
            (keys.name(network.id, one.name), claim),
            *((keys.address(network.id, address), claim) for address in one.addresses),
        ]

    def announced(self, network: Network, number: int, index: int) -> Announced:
        """Return the *index*-th container of a host on a network."""
        sandbox = SandboxId(_digits(f"{number}/{network.id}/{index}", 12))
        name = f"{network.name}-{number}-{index}"
        addresses = [self._address(subnet, number, index) for subnet in network.subnets]
        return Announced(
            id=endpoint_id(sandbox, network.id),
            network=network.id,
            host=host_id(number),
            sandbox=sandbox,
            name=name,
            names=(name, _digits(name, 12)),
            v4=next((a for a in addresses if isinstance(a, IPv4Address)), None),
            v6=next((a for a in addresses if isinstance(a, IPv6Address)), None),
            mac=mac_for(name),
            labels=_labels(network, number, index),
        )

    def _host(self, number: int) -> Host:
        public = base64.b64encode(hashlib.sha256(f"key {number}".encode()).digest()).decode()
        return Host(
            id=host_id(number),
            name=f"host{number}",
            number=number,
            addresses=tuple(underlay[number] for underlay in self.underlays),
            mac=mac_for(f"host {number}"),
            keys=(TunnelKey(generation=0, public=public),),
            identity=_digits(f"identity {number}", 64),
            version=self.version,
            joined=1.7e9 + number,
        )

    def _address(self, subnet: Subnet, number: int, index: int) -> Address:
        # The first addresses of a pool may be the subnet's own and its gateway's.
        return _block(subnet, number - 1)[2 + index]


def host_id(number: int) -> HostId:
    """Return the id of a host."""
    return HostId(_digits(f"host {number}", 12))


def _labels(network: Network, number: int, index: int) -> dict[str, str]:
    """Return what Compose gives to all containers of a service."""
    service = f"service-{number % _SERVICES}-{index}"
    return {"com.docker.compose.project": network.name, "com.docker.compose.service": service}


def _block(subnet: Subnet, index: int) -> Prefix:
    pool = pool_of(subnet)
    length = block_length(pool)
    at = int(pool.network_address) + (index << (pool.max_prefixlen - length))
    # The constructor for a pair knows the family only by the address.
    return ip_network((type(pool.network_address)(at), length))


def _digits(owner: str, count: int) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:count]
