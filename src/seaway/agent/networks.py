"""Operations on networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from seaway.agent.core import Core, new_id, now
from seaway.agent.requests import (
    NetworkRequest,
    parse_address,
    parse_driver,
    parse_options,
    parse_prefix,
)
from seaway.agent.session import Taken as HadByAnother
from seaway.agent.state import Change
from seaway.errors import Conflict, InvalidSpec, SeawayError, StoreError, Unsupported
from seaway.ipam.pools import Taken
from seaway.ipam.subnets import Wanted, assemble
from seaway.kernel import surroundings
from seaway.model.names import check_new_name, some_of
from seaway.model.network import PREDEFINED, Driver, Network, NetworkId, Subnet
from seaway.plan.carriers import widest_mtu
from seaway.plan.networks import plan_network
from seaway.store import keys
from seaway.store.etcd import Refused

if TYPE_CHECKING:
    from seaway.agent.membership import Membership

_TRIES: Final = 8
"""How often another host may be faster before the user hears of it."""


async def create(core: Core, request: NetworkRequest) -> Network:
    """Create a network.

    Raises:
        InvalidSpec: The request cannot work.
        Conflict: The name or a subnet is taken; says by what.
    """
    check_new_name("network", request.name)
    if core.state.has_network(request.name):
        raise Conflict(f"network {request.name!r} exists already: choose another name")
    driver = parse_driver(request.driver)
    if driver in (Driver.HOST, Driver.NONE):
        raise InvalidSpec(f"there is one {driver} network, called {driver!s}: use that")
    options = parse_options(request.options)
    if driver is Driver.MACVLAN and (parent := options.get("parent")):
        surroundings.require_link(parent)
    if driver is Driver.OVERLAY:
        return await _create_shared(core, request, options)
    return await _install(core, _described(core, request, driver, options))


def _described(
    core: Core, request: NetworkRequest, driver: Driver, options: dict[str, str]
) -> Network:
    return Network(
        id=NetworkId(new_id()),
        name=request.name,
        driver=driver,
        subnets=_subnets(core, request, driver),
        internal=request.internal,
        options=options,
        labels=request.labels,
        created=now(),
    )


async def _create_shared(core: Core, request: NetworkRequest, options: dict[str, str]) -> Network:
    """Make a network of the whole cluster, looking again if another host makes one just now."""
    ship = _require_cluster(core)
    for _ in range(_TRIES):
        with _asking_the_store(ship, request.name):
            await ship.session.freshen(keys.NETWORK_TURN)
        if core.state.has_network(request.name):
            raise Conflict(f"network {request.name!r} exists already: choose another name")
        network = _described(core, request, Driver.OVERLAY, options)
        ship.require_carrier(network)
        _require_fitting(core, network)
        try:
            return await _install(core, network)
        except HadByAnother as err:
            if err.key != keys.NETWORK_TURN:
                raise
    raise Conflict("other hosts are making networks all the time: try again")


def _require_fitting(core: Core, network: Network) -> None:
    """Refuse packets so large that none would reach another host from here.

    Raises:
        InvalidSpec: Says how large they may be.
    """
    host = core.host
    most = widest_mtu(network, host.underlay_versions, host.underlay_mtu)
    if network.mtu > most:
        raise InvalidSpec(
            f"mtu {network.mtu} does not fit between hosts: this one's link carries "
            f"{host.underlay_mtu} bytes, and so this network {most} at most: lower it"
        )


@contextmanager
def _asking_the_store(ship: Membership, network: str) -> Iterator[None]:
    """Say what it is asked for, and what to do, when it is out of reach."""
    if not ship.session.online:
        raise _out_of_reach(network, ship.session.error)
    try:
        yield
    except Refused:
        raise
    except StoreError as err:
        raise _out_of_reach(network, err) from err


def _out_of_reach(network: str, why: object) -> StoreError:
    return StoreError(
        f"network {network} is the whole cluster's, and the cluster's store is out of reach "
        f"({why}): try again when 'seaway cluster status' says online"
    )


def _require_cluster(core: Core) -> Membership:
    """Return this host's part in its cluster.

    Raises:
        Unsupported: It is in none; says how to make one.
    """
    if core.cluster is None:
        raise Unsupported(
            "an overlay network spans the hosts of a cluster, and this host is in none: "
            "make one with 'seaway cluster init', or join one"
        )
    return core.cluster


async def ensure_predefined(core: Core) -> None:
    """Make sure that bridge, host and none are there."""
    for name, driver in PREDEFINED.items():
        if core.state.has_network(name):
            continue
        subnets = (
            _subnets(core, NetworkRequest(name=name), driver) if driver is Driver.BRIDGE else ()
        )
        await core.state.commit(
            Change(
                put=[
                    Network(
                        id=NetworkId(new_id()),
                        name=name,
                        driver=driver,
                        subnets=subnets,
                        created=now(),
                    )
                ]
            )
        )


async def _install(core: Core, network: Network) -> Network:
    await core.state.commit(Change(put=[network]))
    if network.driver is Driver.OVERLAY:
        # Nothing is on it yet: each host makes it when it needs it.
        core.events.add("network_created", network.name, driver=network.driver)
        return network
    try:
        await core.kernel.change(f"network/{network.id}", plan_network(network, core.host))
    except BaseException:
        with suppress(SeawayError):  # the first error is the one to tell
            await core.state.commit(Change(delete=[network]))
        core.kernel.kick(f"{network.name}: create failed")
        raise
    core.names.networks(core.served(), ipv6=core.host.ipv6)
    core.events.add("network_created", network.name, driver=network.driver)
    return network


def _subnets(core: Core, request: NetworkRequest, driver: Driver) -> tuple[Subnet, ...]:
    wanted = Wanted(
        name=request.name,
        driver=driver,
        subnets=[parse_prefix("--subnet", text) for text in request.subnets],
        gateways=[parse_address("--gateway", text) for text in request.gateways],
        ip_ranges=[parse_prefix("--ip-range", text) for text in request.ip_ranges],
        reserved={
            name: parse_address(f"--aux-address {name}", text)
            for name, text in request.aux_addresses.items()
        },
        ipv4=request.ipv4,
        ipv6=request.ipv6,
    )
    if driver is Driver.OVERLAY:
        cluster = _require_cluster(core)
        return assemble(wanted, cluster.site, [*core.taken(), *_own(core), *cluster.taken()])
    return assemble(wanted, core.site, [*core.taken(), *_own(core)])


def _own(core: Core) -> list[Taken]:
    return [
        Taken(prefix=s.cidr, by=f"network {n.name}")
        for n in core.state.networks.values()
        for s in n.subnets
    ]


async def remove(core: Core, name: str) -> Network:
    """Remove a network that nothing is attached to.

    Raises:
        NotFound: There is none.
        Conflict: It is predefined, or in use; says by whom.
    """
    network = core.state.network(name)
    if network.name in PREDEFINED:
        raise Conflict(f"network {network.name!r} is always there and cannot be removed")
    users = sorted({core.state.sandboxes[e.sandbox].name for e in core.state.members(network.id)})
    if not users and network.driver is Driver.OVERLAY:
        ship = _require_cluster(core)
        with _asking_the_store(ship, network.name):
            users = await ship.members_elsewhere(network.id)
    if users:
        raise Conflict(
            f"network {network.name!r} is in use by {some_of(users)}: "
            "remove those, or disconnect them first"
        )
    await core.state.commit(Change(delete=[network]))
    if network.driver is Driver.OVERLAY:
        await _require_cluster(core).forget_network(network)
    else:
        core.names.forget_network(network)
        core.names.networks(core.served(), ipv6=core.host.ipv6)
        await core.kernel.change(f"network/{network.id}", ())
    core.events.add("network_removed", network.name)
    return network


async def prune(core: Core) -> list[str]:
    """Remove every network that nothing is attached to, but the predefined; returns names."""
    gone = []
    for network in list(core.state.networks.values()):
        if network.name not in PREDEFINED and not any(core.state.members(network.id)):
            with suppress(Conflict):  # containers of other hosts are on it
                await remove(core, network.id)
                gone.append(network.name)
    return sorted(gone)
