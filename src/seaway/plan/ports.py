"""Published ports as map elements: one per port, or one per range."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from seaway.model.network import Address
from seaway.model.ports import PublishedPort
from seaway.plan.resources import Element

_ANY = {4: "0.0.0.0/0", 6: "::/0"}


def plan_ports(
    ports: Iterable[PublishedPort], backend: Address, *, reason: str
) -> Iterator[Element]:
    """Compute the elements that lead host ports to *backend*, for its family.

    A single port is one element of a hash map.  A range that keeps its numbers
    is one interval element, however long; one that shifts them needs an element
    a port, since nftables cannot add to a port.
    """
    version = backend.version
    here = [(p, where) for p in ports if (where := p.address(version)) is not None]
    if not here:
        return
    to = str(backend)
    yield Element(set=f"hairpin{version}", match=(to, to), reason=f"{reason}: to itself")
    for port, where in here:
        yield from _mapping(port, where, to, reason)
        if port.sources:
            yield from _guard(port, where, reason)


def _mapping(port: PublishedPort, where: Address, to: str, why: str) -> Iterator[Element]:
    version, proto = where.version, str(port.protocol)
    if port.count > 1 and port.host_port == port.container_port:
        yield Element(
            set=f"publish_range{version}",
            match=(_covers(where), proto, _span(port)),
            value=(to,),
            reason=why,
        )
        return
    name = f"publish_any{version}" if where.is_unspecified else f"publish_on{version}"
    prefix = (proto,) if where.is_unspecified else (str(where), proto)
    for offset in range(port.count):
        yield Element(
            set=name,
            match=(*prefix, str(port.host_port + offset)),
            value=(to, str(port.container_port + offset)),
            reason=why,
        )


def _guard(port: PublishedPort, where: Address, why: str) -> Iterator[Element]:
    """Clients outside from= are turned away; no list of this family allows none of it."""
    here = (_covers(where), str(port.protocol), _span(port))
    yield Element(set=f"guarded{where.version}", match=here, reason=why)
    for source in port.sources:
        if source.version == where.version:
            yield Element(
                set=f"allowed{where.version}", match=(interval(source), *here), reason=why
            )


def interval(prefix: object) -> str:
    """Write a prefix as nft lists it: a host's without its length."""
    text = str(prefix)
    return text.removesuffix("/32") if ":" not in text else text.removesuffix("/128")


def _covers(where: Address) -> str:
    return _ANY[where.version] if where.is_unspecified else str(where)


def _span(port: PublishedPort) -> str:
    return str(port.host_port) if port.count == 1 else f"{port.host_port}-{port.host_last}"
