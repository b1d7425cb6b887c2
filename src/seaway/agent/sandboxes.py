"""Operations on sandboxes: attach, connect, disconnect, start, stop, remove."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Final

from seaway.agent import addressing
from seaway.agent.addressing import Wants
from seaway.agent.core import Core, new_id, now, serves
from seaway.agent.requests import (
    EndpointRequest,
    SandboxRequest,
    parse_address,
    parse_dns,
    parse_ports,
    wanted_v4,
    wanted_v6,
)
from seaway.agent.session import Taken
from seaway.agent.state import Change, Item
from seaway.errors import Conflict, InvalidSpec, NotFound, SeawayError
from seaway.kernel import netns, surroundings
from seaway.kernel.processes import start_time
from seaway.model.names import check_new_name, mac_for
from seaway.model.network import Driver, Network
from seaway.model.nicknames import nickname
from seaway.model.ports import PortSpec, PublishedPort
from seaway.model.sandbox import (
    Endpoint,
    Phase,
    Sandbox,
    SandboxId,
    endpoint_id,
)
from seaway.store import keys

_TRIES: Final = 8
"""How often another host may be faster before the user hears of it."""


async def create(core: Core, request: SandboxRequest) -> Sandbox:
    """Create a sandbox: addresses, ports, links, rules.

    Returns when it is fenced, addressed and routed.  Nothing is left of one that fails.

    Raises:
        InvalidSpec, Conflict, NotFound, Exhausted, KernelError: One line says what and why.
    """
    identity = SandboxId(new_id())
    name = request.name or nickname(identity, core.state.sandbox_names)
    check_new_name("container", name)
    core.state.require_free_name(name)
    specs = parse_ports(request)
    sandbox = Sandbox(
        id=identity,
        name=name,
        netns=_namespace(core, request, identity),
        made_netns=not (request.netns or request.pid),
        hostname=request.hostname,
        labels=request.labels,
        asked=specs,
        dns=parse_dns(request),
        sysctls=request.sysctls,
        image=request.image,
        auto_remove=request.auto_remove,
        pid=request.pid or request.creator,
        started=start_time(request.pid or request.creator),
        # What is attached runs already; a container is started once it is attached.
        phase=Phase.CREATED if not (request.netns or request.pid) else Phase.RUNNING,
        created=now(),
    )
    _check_ports_usable(core, request, specs)
    sandbox = await _commit_new(core, sandbox, request)
    core.index(sandbox)  # before anybody else gets a turn
    try:
        await core.sync(identity)
    except BaseException:
        with contextlib.suppress(SeawayError):  # the first error is the one to tell
            await _forget(core, sandbox)
        raise
    core.index(sandbox)  # by now a namespace of our making is there too
    core.events.add("sandbox_created", name, networks=",".join(r.network for r in request.networks))
    return sandbox


async def _commit_new(core: Core, sandbox: Sandbox, request: SandboxRequest) -> Sandbox:
    """Find addresses and ports for a new sandbox, and write it all down."""
    wants = Wants()
    while True:
        wants.claim.clear()
        endpoints = await _endpoints(core, sandbox, request.networks, wants)
        specs = tuple(spec.narrowed(_reachable_by(core, endpoints)) for spec in sandbox.asked)
        published = core.bindings.bind(sandbox.id, sandbox.name, specs)
        fresh = replace(sandbox, asked=specs, published=published)
        try:
            await core.state.commit(Change(put=[fresh, *endpoints], claim=wants.claim))
        except Taken as err:
            core.bindings.release(sandbox.id)
            await _try_again(core, err, wants, request.networks)
        except BaseException:
            core.bindings.release(sandbox.id)
            raise
        else:
            return fresh


async def _try_again(
    core: Core, err: Taken, wants: Wants, requests: Iterable[EndpointRequest]
) -> None:
    """Another host was faster: choose anew, unless what it took was asked for by name.

    Raises:
        Taken: *err*.
    """
    kind, address = keys.kind(err.key), err.key.rpartition("/")[2]
    asked = {text for r in requests for text in (r.ip, r.ip6)}
    if kind == "addresses" and address not in asked and len(wants.avoid) < _TRIES:
        wants.avoid.add(parse_address("address", address))
    elif kind == "blocks" and core.cluster and wants.races < _TRIES:
        wants.races += 1
        network, _ = keys.network_of(err.key)
        await core.cluster.session.freshen(keys.on(network))
    elif kind == "networks" and core.cluster and wants.races < _TRIES:
        wants.races += 1  # another of that name may be there by now
        await core.cluster.session.freshen(keys.NETWORKS)
    else:
        raise err


def _reachable_by(core: Core, endpoints: Iterable[Endpoint]) -> set[int]:
    """Return the IP versions by which packets for published ports can come in."""
    usable = (e for e in endpoints if _takes_ports(core.state.networks[e.network]))
    return {address.version for e in usable for address in e.addresses}


def _takes_ports(network: Network) -> bool:
    return network.routed and not network.internal


def _namespace(core: Core, request: SandboxRequest, identity: SandboxId) -> str:
    if request.netns and request.pid:
        raise InvalidSpec("name a namespace or a process, not both")
    path = request.netns or (netns.of_pid(request.pid) if request.pid else "")
    if not path:
        return core.netns_path(identity)
    if not netns.exists(path):
        what = f"process {request.pid}" if request.pid else f"network namespace at {path}"
        raise NotFound(f"there is no {what}")
    if netns.same(path, "/proc/self/ns/net"):
        raise InvalidSpec("that is the host's own network namespace: nothing to attach")
    if other := core.holder_of(path):
        raise Conflict(
            f"that namespace is attached already, as {other.name!r}: "
            f"use 'seaway network connect NETWORK {other.name}'"
        )
    if link := surroundings.exit_of(path):
        raise Conflict(
            f"that namespace has a default route of its own, by {link}, which would be lost: "
            "remove it first, or attach what has no network yet"
        )
    return path


def _check_ports_usable(core: Core, request: SandboxRequest, specs: Sequence[PortSpec]) -> None:
    """Ports need an endpoint that packets can come in by."""
    if not specs:
        return
    networks = [core.state.network(r.network) for r in request.networks]
    if not any(map(_takes_ports, networks)):
        kinds = (
            ", ".join(
                f"{n.name} ({n.driver}{', internal' if n.internal else ''})" for n in networks
            )
            or "no network"
        )
        raise InvalidSpec(f"ports cannot be published on {kinds}: connect to a bridge network too")


# -- endpoints --------------------------------------------------------------------------------


async def _endpoints(
    core: Core, sandbox: Sandbox, requests: Iterable[EndpointRequest], wants: Wants
) -> list[Endpoint]:
    """Give *sandbox* an endpoint on each network asked for; commits nothing."""
    made: list[Endpoint] = []
    # What is attached may have links that are not ours.
    there = [] if sandbox.made_netns else surroundings.links_in(sandbox.netns)
    for request in requests:
        network = core.state.network(request.network)
        if any(e.network == network.id for e in made):
            raise InvalidSpec(f"network {network.name!r} is named twice")
        ours = [a.endpoint.ifname for a in core.state.attachments(sandbox.id)]
        taken = [*there, *ours, *(e.ifname for e in made)]
        made.append(await _endpoint(core, sandbox, network, request, taken, wants))
    return made


async def _endpoint(
    core: Core,
    sandbox: Sandbox,
    network: Network,
    request: EndpointRequest,
    ifnames: Sequence[str],
    wants: Wants,
) -> Endpoint:
    if network.driver in (Driver.HOST, Driver.NONE):
        raise InvalidSpec(
            f"the {network.name} network cannot be joined beside others or later: "
            f"run with --network {network.name} instead"
        )
    if request.ifname and request.ifname in ifnames:
        raise Conflict(f"there is an interface {request.ifname!r} in {sandbox.name} already")
    if network.driver is Driver.OVERLAY:
        assert core.cluster is not None, "a network of a cluster is known only to its members"
        await core.cluster.take_part(network)
    identity = endpoint_id(sandbox.id, network.id)
    v4, v6 = wanted_v4(request), wanted_v6(request)
    if v6 is not None and not sandbox.ipv6:
        raise InvalidSpec(f"--ip6 {v6}, but a sysctl turns IPv6 off inside: drop one of the two")
    return Endpoint(
        id=identity,
        sandbox=sandbox.id,
        network=network.id,
        ifname=request.ifname
        or next(f"eth{n}" for n in range(len(ifnames) + 1) if f"eth{n}" not in ifnames),
        mac=request.mac.lower().replace("-", ":") or mac_for(identity),
        v4=addressing.v4(await addressing.address(core, network, 4, v4, wants)),
        v6=addressing.v6(await addressing.address(core, network, 6, v6, wants))
        if sandbox.ipv6
        else None,
        static=v4 is not None or v6 is not None,
        aliases=tuple(request.aliases),
        gw_priority=request.gw_priority,
    )


async def connect(core: Core, name: str, request: EndpointRequest) -> Endpoint:
    """Attach a sandbox to one more network, while it runs."""
    async with _turn(core, name) as sandbox:
        network = core.state.network(request.network)
        if any(a.network.id == network.id for a in core.state.attachments(sandbox.id)):
            raise Conflict(f"{sandbox.name!r} is connected to {network.name!r} already")
        endpoint = await _commit_endpoint(core, sandbox, request)
        try:
            await core.sync(sandbox.id)
        except BaseException:
            with contextlib.suppress(SeawayError):  # the first error is the one to tell
                await core.state.commit(Change(delete=[endpoint]))
            core.kernel.kick(f"{sandbox.name}: connect failed")
            raise
    core.events.add("endpoint_connected", sandbox.name, network=network.name)
    return endpoint


async def _commit_endpoint(core: Core, sandbox: Sandbox, request: EndpointRequest) -> Endpoint:
    wants = Wants()
    while True:
        wants.claim.clear()
        (endpoint,) = await _endpoints(core, sandbox, [request], wants)
        try:
            await core.state.commit(Change(put=[endpoint], claim=wants.claim))
        except Taken as err:
            await _try_again(core, err, wants, [request])
        else:
            return endpoint


async def disconnect(core: Core, name: str, network_name: str) -> None:
    """Detach a sandbox from one network, while it runs."""
    async with _turn(core, name) as sandbox:
        network = core.state.network(network_name)
        found = [
            a.endpoint for a in core.state.attachments(sandbox.id) if a.network.id == network.id
        ]
        if not found:
            raise NotFound(f"{sandbox.name!r} is not connected to {network.name!r}")
        await _forget_endpoints(core, sandbox, found)
        await core.sync(sandbox.id)
    core.events.add("endpoint_disconnected", sandbox.name, network=network.name)


async def _forget_endpoints(
    core: Core, sandbox: Sandbox, endpoints: Sequence[Endpoint], *, whole: bool = False
) -> None:
    """Delete *endpoints* from the state; with the sandbox itself if it goes as a *whole*."""
    try:
        core.kernel.drop_inner_links(f"sandbox/{sandbox.id}", {e.ifname for e in endpoints})
        gone: list[Item] = [*endpoints, *([sandbox] if whole else [])]
        borrowed = core.cluster.borrowed(endpoints) if core.cluster else []
        await core.state.commit(Change(delete=gone, release=borrowed))
    except SeawayError:
        core.kernel.kick(f"{sandbox.name}: endpoints could not be removed")
        raise


# -- life ---------------------------------------------------------------------------------------


async def up(core: Core, name: str) -> Sandbox:
    """Get a stopped container ready to be started: ports bound, namespace and links there."""
    async with _turn(core, name) as found:
        sandbox = found
        if sandbox.phase is Phase.STOPPED:
            sandbox = await _put(core, sandbox, phase=Phase.CREATED, pid=0, started=0)
        await core.sync(sandbox.id)
    return sandbox


async def started(core: Core, name: str, container: str = "", pid: int = 0) -> Sandbox:
    """Answer a container's names from now on.  Asking twice is fine.

    It runs, whoever started it: ports that are taken meanwhile are tried again later.
    """
    async with _turn(core, name) as sandbox:
        fresh = {
            "container": container or sandbox.container,
            "pid": pid or sandbox.pid,
            "started": start_time(pid) if pid else sandbox.started,
        }
        if sandbox.phase is Phase.RUNNING and all(
            getattr(sandbox, key) == value for key, value in fresh.items()
        ):
            return sandbox
        now_running = await _put(core, sandbox, phase=Phase.RUNNING, **fresh)
        await core.sync(sandbox.id)
    if sandbox.phase is not Phase.RUNNING:
        core.events.add("sandbox_started", sandbox.name, pid=pid)
    return now_running


async def stopped(core: Core, name: str, container: str = "") -> None:
    """Withdraw a container's names and ports; it keeps its addresses.

    One that was to be removed when it ends, and anything attached by process, is forgotten.
    """
    async with _turn(core, name) as sandbox:
        if sandbox.auto_remove or not sandbox.made_netns:
            await _forget(core, sandbox)
        elif sandbox.phase is Phase.STOPPED:
            return
        else:
            earlier = sandbox.published or sandbox.earlier
            gone = {"published": (), "earlier": earlier, "pid": 0, "started": 0}
            gone["container"] = container or sandbox.container
            await _put(core, sandbox, phase=Phase.STOPPED, **gone)
            core.bindings.release(sandbox.id)
            core.failures.pop(sandbox.id, None)
            await core.sync(sandbox.id)
    core.events.add("sandbox_stopped", sandbox.name)


async def remove(core: Core, name: str) -> Sandbox:
    """Forget a sandbox; its addresses and ports are free again."""
    async with _turn(core, name) as sandbox:
        await _forget(core, sandbox)
    core.events.add("sandbox_removed", sandbox.name)
    return sandbox


async def _put(core: Core, sandbox: Sandbox, **changes: object) -> Sandbox:
    """Change a sandbox, binding its ports again if it serves and has none."""
    fresh = replace(sandbox, **changes)  # type: ignore[arg-type]
    to_bind = serves(fresh) and not fresh.published and bool(fresh.asked)
    if to_bind:
        fresh = replace(fresh, published=_bind(core, fresh))
    try:
        await core.state.commit(Change(put=[fresh]))
    except BaseException:
        if to_bind:
            core.bindings.release(fresh.id)
        raise
    return fresh


def _bind(core: Core, sandbox: Sandbox) -> tuple[PublishedPort, ...]:
    """Bind a sandbox's ports; () if they are taken but its process runs: status() says why."""
    try:
        before = sandbox.published or sandbox.earlier
        found = core.bindings.bind(sandbox.id, sandbox.name, sandbox.asked, before)
    except SeawayError as err:
        if sandbox.phase is not Phase.RUNNING:
            raise  # it does not start, and whoever asked knows why
        core.failures[sandbox.id] = str(err)
        return ()
    core.failures.pop(sandbox.id, None)
    return found


async def publish_again(core: Core, name: str) -> None:
    """Publish the ports that somebody else had when the process started, if they are free now."""
    async with _turn(core, name) as sandbox:
        if not lacks_ports(sandbox) or not (found := _bind(core, sandbox)):
            return
        await _put(core, sandbox, published=found)
        await core.sync(sandbox.id)
    core.events.add("ports_published", sandbox.name)


def lacks_ports(sandbox: Sandbox) -> bool:
    """Does it run without the ports that were asked for?"""
    return sandbox.phase is Phase.RUNNING and bool(sandbox.asked) and not sandbox.published


async def _forget(core: Core, sandbox: Sandbox) -> None:
    """Never stops half way: what the kernel still has is swept by the next audit."""
    endpoints = core.state.endpoints_of(sandbox.id)
    await _forget_endpoints(core, sandbox, endpoints, whole=True)
    core.bindings.release(sandbox.id)
    core.names.remove(sandbox)
    core.failures.pop(sandbox.id, None)
    core.unindex(sandbox.id)
    for leftover in ("pid", "cid"):
        (core.run_dir / "containers" / f"{sandbox.id}.{leftover}").unlink(missing_ok=True)
    await core.sync(sandbox.id)


@contextlib.asynccontextmanager
async def _turn(core: Core, name: str) -> AsyncIterator[Sandbox]:
    """Let one operation at a time work on a sandbox; hands it over as it is by then.

    Raises:
        NotFound: There is none, or it went while we waited.
    """
    identity = core.state.sandbox(name).id
    async with core.only_one(identity):
        if identity not in core.state.sandboxes:
            raise NotFound(f"container {name!r} has just been removed")
        yield core.state.sandboxes[identity]
