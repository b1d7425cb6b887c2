"""Operations on a cluster's hosts, and what the API says of them and of the cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seaway.agent.cluster import forget_host
from seaway.agent.membership import Membership
from seaway.agent.metrics import ClusterFigures
from seaway.agent.overlay import lines
from seaway.agent.upkeep import complaints, silences
from seaway.cluster.token import Token, make_token, secret_hash
from seaway.errors import Conflict, NotFound, SeawayError, StoreError
from seaway.model.cluster import Announced, Cluster, Host, Ports
from seaway.model.names import some_of
from seaway.model.network import Driver, NetworkId
from seaway.model.sandbox import Phase
from seaway.store import keys
from seaway.store.codec import decode, encode
from seaway.store.etcd_wire import At, Clash, Write

if TYPE_CHECKING:
    from seaway.agent.core import Core


def require_member(core: Core) -> Membership:
    """Return this host's membership.

    Raises:
        NotFound: It is in no cluster.
    """
    if core.cluster is None:
        raise NotFound(
            "this host is in no cluster: make one with 'seaway cluster init', "
            "or join one with what 'seaway cluster token' prints there"
        )
    return core.cluster


def find(ship: Membership, name: str) -> Host:
    """Find a host by name or id.

    Raises:
        NotFound: There is none.
    """
    found = ship.commons.host_called(name)
    if found is None:
        raise NotFound(f"no host called {name!r}: 'seaway node ls' shows those there are")
    return found


# -- changing -----------------------------------------------------------------------------------


async def drain(ship: Membership, name: str, *, undo: bool) -> Host:
    """Have a host take no new endpoints of the cluster's networks, or take them again.

    Raises:
        NotFound: There is no such host.
        StoreError: The store is out of reach, or the host's Seaway is newer than this one.
    """
    require_online(ship)
    key = keys.host(find(ship, name).id)
    while True:
        found = await ship.session.etcd.get(key)
        if found is None:
            raise NotFound(f"host {name!r} has just left the cluster")
        host = decode(Host, found.value)
        if host.drained != undo:
            return host
        fresh = replace(host, drained=not undo)
        with suppress(Clash):
            at = [At(key, found.mod_revision)]
            revision = await ship.session.etcd.txn(at, [Write(key, encode(fresh))], [])
            await ship.session.take([(key, encode(fresh), revision)])
            return fresh


def require_online(ship: Membership) -> None:
    """Refuse what must not be decided by old news.

    Raises:
        StoreError: The store is out of reach.
    """
    if not ship.session.online:
        raise StoreError(
            f"the cluster's store is out of reach ({ship.session.error}): try again when "
            "'seaway cluster status' says online"
        )


async def remove(ship: Membership, name: str, *, force: bool) -> Host:
    """Remove a host from the cluster: it is cut off, its addresses are free, its names gone.

    Args:
        force: Though it lives, or has containers on the cluster's networks.

    Raises:
        Conflict: It lives and was not drained, or is this one; says what to do.
        StoreError: The store is out of reach.
    """
    host = find(ship, name)
    if host.id == ship.me:
        raise Conflict("this is the host itself: use 'seaway cluster leave' on it")
    if host.id in ship.stores.hosts and not set(ship.stores.hosts) - {host.id}:
        raise Conflict(
            f"host {host.name} has the cluster's only store: drain it, and wait until 'seaway node "
            "ls' shows the store on another host"
        )
    if not force and host.id in ship.commons.alive:
        await _require_unneeded(ship, host)
    await forget_host(ship, host, revoke=True)
    with suppress(SeawayError):  # the stores are just starting anew
        await ship.session.freshen(keys.HOSTS)
    ship.stores.kick()
    ship.core_events("host_removed", removed=host.name)
    return host


def what_remains(ship: Membership, removed: Host) -> str:
    """Say what a host that was removed can still do, and how that ends; "" for nothing."""
    if not ship.member.foreign:
        return ""
    return (
        f"{removed.name} still has what it takes to read and write your etcd: change its "
        "credentials there to cut it off for good, as the guide on clusters says"
    )


async def _require_unneeded(ship: Membership, host: Host) -> None:
    """Refuse to remove a host that counts as alive, unless it is empty and drained."""
    silent, left = await ship.session.etcd.lease_age(ship.session.lease_number(host.id))
    if silent > (silent + left) / 2:  # a host that lives is heard of every quarter
        raise Conflict(
            f"host {host.name} has been silent for {silent} s, and counts as alive for {left} s "
            "more: wait for that, or remove it with --force"
        )
    there = [a.name for a in await _containers(ship) if a.host == host.id]
    if there:
        raise Conflict(
            f"host {host.name} is alive and runs {some_of(there)}: stop those, or "
            "remove the host with --force, which cuts them off"
        )
    if not host.drained:
        raise Conflict(
            f"host {host.name} is alive: 'seaway cluster leave' on it is better, or drain it "
            "first, or remove it with --force"
        )


async def change_cluster(ship: Membership, change: Any) -> Cluster:
    """Change the record that all hosts agree on.

    Raises:
        StoreError: The store is out of reach.
    """
    while True:
        found = await ship.session.etcd.get(keys.CLUSTER)
        if found is None:
            raise StoreError("the store there is empty: it is not this cluster's")
        fresh: Cluster = change(decode(Cluster, found.value))
        try:
            compare = [At(keys.CLUSTER, found.mod_revision)]
            await ship.session.etcd.txn(compare, [Write(keys.CLUSTER, encode(fresh))], [])
        except Clash:
            continue
        await ship.session.freshen(keys.CLUSTER)
        return fresh


async def token(ship: Membership) -> dict[str, str]:
    """Return the join token, and the command that joins with it."""
    found = await ship.session.etcd.get(keys.TOKEN)
    if found is None:
        return await rotate_token(ship)
    return _invitation(ship, found.value.decode())


async def rotate_token(ship: Membership) -> dict[str, str]:
    """Draw a new token; the old one lets nobody in any more."""
    made = make_token(ship.folder.credentials.fingerprint())
    await ship.session.etcd.txn([], [Write(keys.TOKEN, made.secret.encode())], [])
    await change_cluster(ship, lambda c: replace(c, secret=secret_hash(made.secret)))
    ship.core_events("token_rotated")
    return _invitation(ship, made.secret)


def _invitation(ship: Membership, secret: str) -> dict[str, str]:
    text = str(Token(fingerprint=ship.folder.credentials.fingerprint(), secret=secret))
    hosts = [ship.commons.hosts[h] for h in ship.stores.signers if h in ship.commons.hosts]
    host = next((h for h in hosts if h.id == ship.me), None) or (hosts or [ship.commons.host])[0]
    address, port = str(host.addresses[0]), ship.cluster.ports.join
    if port != Ports().join:
        address = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return {"token": text, "join": f"seaway cluster join --token {text} {address}"}


async def rotate_keys(ship: Membership) -> int:
    """Have all hosts make new WireGuard keys; returns their generation.

    Raises:
        Conflict: The last rotation is not at its end.
    """
    require_online(ship)
    cluster = ship.cluster
    if dead := [h.name for i, h in ship.commons.hosts.items() if i not in ship.commons.alive]:
        raise Conflict(
            f"{some_of(sorted(dead))} could not take part, and would be cut off: start or "
            "remove what is down first, see 'seaway node ls'"
        )
    behind = [
        h.name
        for i, h in ship.commons.hosts.items()
        if i in ship.commons.alive and h.keys and h.settled < cluster.generation
    ]
    if behind:
        raise Conflict(
            f"{some_of(behind)} do not send with the keys of generation "
            f"{cluster.generation} yet: wait for that, or see 'seaway node inspect'"
        )
    fresh = await change_cluster(ship, lambda c: replace(c, generation=c.generation + 1))
    ship.core_events("keys_rotated", generation=fresh.generation)
    return fresh.generation


# -- views ----------------------------------------------------------------------------------------


async def cluster_view(ship: Membership | None) -> dict[str, Any]:
    """Describe the cluster as this host sees it."""
    if ship is None:
        return {"cluster": "", "problems": []}
    commons, session = ship.commons, ship.session
    return {
        **glance(ship),
        "stores": await _stores(ship),
        "lease": commons.cluster.lease if commons.cluster else 0,
        "generation": commons.cluster.generation if commons.cluster else 0,
        "ports": _ports(commons.cluster) if commons.cluster else {},
        "certificate_expires": ship.folder.credentials.validity().ends,
        "problems": problems(ship),
        "error": session.error,
    }


def glance(ship: Membership) -> dict[str, Any]:
    """Describe the cluster in short, without asking anybody."""
    commons, session = ship.commons, ship.session
    hosts = {"total": len(commons.hosts), "alive": len(commons.alive & commons.hosts.keys())}
    ill = set(ship.stores.ill()) if session.online else {ship.host_name(h) for h in commons.hosts}
    names = [ship.host_name(h) for h in ship.stores.hosts]
    members = [{"host": name, "healthy": name not in ill} for name in names]
    return {
        "cluster": ship.member.cluster,
        "host": ship.member.name,
        "number": ship.member.number,
        "online": session.online,
        "since": session.since,
        "hosts": hosts,
        "stores": members,
        "encryption": ship.overlay.encryption,
        "networks": ship.overlay.carriers(),
    }


def figures(ship: Membership) -> ClusterFigures:
    """Return what can be measured of the cluster without asking anybody."""
    alive = len(ship.commons.alive & ship.commons.hosts.keys())
    return ClusterFigures(
        alive=alive,
        down=len(ship.commons.hosts) - alive,
        online=ship.session.online,
        paths=tuple(
            (p.host, p.carrier, None if p.why else p.milliseconds / 1e3)
            for p in ship.probes.proofs.values()
        ),
    )


def problems(ship: Membership) -> list[dict[str, str]]:
    """List what is wrong with this host's part in the cluster."""
    found = []
    if not ship.session.online:
        found.append({"object": "store", "error": ship.session.error})
    health, name_of = ship.stores.known_health, ship.host_name
    said = [] if not ship.session.online else list(silences(health, name_of))
    found += [{"object": "store", "error": line} for line in (*said, *complaints(health, name_of))]
    if ship.stores.trouble:
        found.append({"object": "etcd", "error": ship.stores.trouble})
    found += [
        {"object": key.removeprefix(f"{keys.ROOT}/"), "error": why}
        for key, why in ship.commons.unreadable.items()
    ]
    found += [{"object": "network", "error": line} for line in _hidden(ship)]
    found += [{"object": "overlay", "error": line} for line in lines(ship.overlay.problems)]
    broken = (p for p in ship.probes.proofs.values() if p.why)
    found += [{"object": "path", "error": p.why} for p in broken]
    return found


def _hidden(ship: Membership) -> list[str]:
    """Say which networks of the cluster have the name of one of this host's own."""
    state = ship.session.state
    return [
        f"the cluster's network {name} cannot be used on this host, which has one of its own "
        "with that name: remove either of them"
        for name, identity in sorted((n.name, n.id) for n in ship.commons.networks.values())
        if state.finds_network(name) and state.network(name).id != identity
    ]


def _ports(cluster: Cluster) -> dict[str, int]:
    ports = cluster.ports
    return {
        "join": ports.join,
        "etcd": ports.etcd,
        "etcd_peers": ports.etcd_peers,
        "vxlan": ports.vxlan,
        "wireguard": ports.wireguard(0),
    }


async def _stores(ship: Membership) -> list[dict[str, Any]]:
    statuses = await ship.stores.statuses()
    found = []
    for member in ship.stores.members:
        status = statuses.get(member.name)
        found.append(
            {
                "host": ship.host_name(member.name) if member.name else "",  # type: ignore[arg-type]
                "address": ", ".join(u.removeprefix("https://") for u in member.client_urls),
                "leader": bool(status and status.leader == status.member),
                "healthy": bool(status and status.leader and not status.errors),
                "learner": member.learner,
                "size": status.size if status else 0,
            }
        )
    return found


async def nodes_view(ship: Membership) -> list[dict[str, Any]]:
    """Describe every host, by name."""
    containers: Counter[str] = Counter()
    with suppress(SeawayError):
        every = {(a.host, a.sandbox) for a in await _containers(ship)}
        containers.update(host for host, _ in every)
    leader = await _leader(ship)
    hosts = sorted(ship.commons.hosts.values(), key=lambda h: h.name)
    return [_node(ship, host, containers[host.id], leader) for host in hosts]


async def node_view(ship: Membership, name: str) -> dict[str, Any]:
    """Describe one host, with what is on it and how packets get there."""
    host = find(ship, name)
    there: list[Announced] = []
    with suppress(SeawayError):
        there = [a for a in await _containers(ship) if a.host == host.id]
    found = _node(ship, host, len({a.sandbox for a in there}), await _leader(ship))
    names = {n.id: n.name for n in ship.commons.networks.values()}
    return found | {
        "mac": host.mac,
        "behind": str(host.behind or ""),
        "tunnel": str(host.tunnel),
        "keys": [{"generation": k.generation, "public": k.public} for k in host.keys],
        "settled": host.settled,
        "vxlan": host.vxlan,
        "checksums": host.checksums,
        "endpoints": [
            {
                "network": names.get(a.network, a.network),
                "container": a.name,
                "ipv4": str(a.v4 or ""),
                "ipv6": str(a.v6 or ""),
            }
            for a in sorted(there, key=lambda a: (names.get(a.network, ""), a.name))
        ],
        "blocks": [
            {"network": names.get(n, n), "block": str(b)}
            for n, blocks in ship.commons.owned(host.id).items()
            for b in sorted(blocks, key=lambda c: (c.version, int(c.network_address)))
        ],
        "paths": ship.overlay.ways(host),
    }


async def know_networks(core: Core, names: Iterable[str]) -> None:
    """Hear of networks that another host has just made, and of whose making we have not heard."""
    ship = core.cluster
    if ship is None or not ship.session.online or all(map(core.state.finds_network, names)):
        return
    with suppress(StoreError):
        await ship.session.freshen(keys.NETWORKS)


async def add_members(ship: Membership | None, networks: Sequence[dict[str, Any]]) -> None:
    """Add to networks' descriptions whom other hosts have on them, and where everybody is.

    With the store out of reach these are the ones that this host knows of.
    """
    shared = {n["id"]: n["containers"] for n in networks if n["driver"] is Driver.OVERLAY}
    if ship is None or not shared:
        return
    for members in shared.values():
        for member in members.values():
            member["host"] = ship.member.name
    known = [a for on_one in ship.commons.announced.values() for a in on_one.values()]
    if ship.session.online:
        with suppress(StoreError):
            known = await _containers(ship, next(iter(shared)) if len(shared) == 1 else "")
    for found in known:
        if found.host != ship.me and found.network in shared:
            shared[found.network].setdefault(found.name, _member(ship, found))


def _member(ship: Membership, found: Announced) -> dict[str, Any]:
    return {
        "id": found.sandbox,
        "ipv4": str(found.v4 or ""),
        "ipv6": str(found.v6 or ""),
        "mac": found.mac,
        "phase": Phase.RUNNING if found.names else Phase.STOPPED,
        "host": ship.host_name(found.host),
    }


async def _containers(ship: Membership, network: str = "") -> list[Announced]:
    """List what is announced on one network, or on all."""
    found: list[Announced] = []
    for identity in [NetworkId(network)] if network else list(ship.commons.networks):
        kvs, _ = await ship.session.etcd.range(keys.announced(identity))
        found += (decode(Announced, kv.value, newer=True) for kv in kvs)
    return found


async def _leader(ship: Membership) -> str:
    if ship.member.foreign or not ship.session.online:
        return ""
    statuses = await ship.stores.statuses()
    leading = (name for name, s in statuses.items() if s and s.leader == s.member)
    return next(leading, "")


def _node(ship: Membership, host: Host, containers: int, leader: str) -> dict[str, Any]:
    alive = host.id in ship.commons.alive
    status = "drained" if host.drained and alive else "ready" if alive else "down"
    store = "leader" if host.id == leader else "yes" if host.id in ship.stores.hosts else ""
    return {
        "name": host.name,
        "id": host.id,
        "number": host.number,
        "addresses": [str(a) for a in host.addresses],
        "status": status,
        "store": store,
        "wireguard": host.keys[-1].public if host.keys else "",
        "containers": containers,
        "version": host.version,
        "self": host.id == ship.me,
        "joined": host.joined,
    }
